//! From what was typed about delivery to what will run: destinations, retries, lines, signatures, operators' secrets.
//!
//! A queue that cannot deliver is found out days later, so what can be found out here is: destinations that nobody
//! named, filters that match nothing, retries without an attempt, a queue without a place on disk.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use super::file::{Deliver as Typed, DeliveryFile, DestinationFile, File, RetryFile, RouteFile, SecretFile};
use super::path::KeyPath;
use super::problem::Problems;
use super::routes::{known_upstream, plain_path, read_secret};
use super::value::Switch;
use crate::clock::UnixMillis;
use crate::gateway::{Deliver, DestinationSettings};
use crate::providers::JsonPath;
use crate::queue::{BreakerSettings, DESTINATIONS_MAX, Delays, LineSettings, PaceSettings, RetryPolicy, TypeFilter};
use crate::signature::KeyedSecret;
use crate::upstream::Resign;

/// More delays or attempts than these are a mistake of units.
const ATTEMPTS_MAX: u32 = 1000;

/// Where the events of a route go; `None` when that is not clear.
pub(super) fn deliver(file: &File, route: &RouteFile, path: &KeyPath, problems: &mut Problems) -> Option<Deliver> {
    match route.deliver {
        Typed::Forward => forward(file, route, path, problems),
        Typed::Queue => queue(file, route, path, problems),
    }
}

fn forward(file: &File, route: &RouteFile, path: &KeyPath, problems: &mut Problems) -> Option<Deliver> {
    let queued = [
        ("destinations", !route.destinations.is_empty()),
        ("order_by", route.order_by.is_some()),
    ];
    for (key, _) in queued.iter().filter(|(_, there)| *there) {
        problems
            .error(&path.key(key), "is for queued events; this route forwards them")
            .suggest("deliver: queue");
    }
    let Some(upstream) = &route.upstream else {
        problems
            .error(path, "has no `upstream`, so nothing could be forwarded")
            .suggest("upstream: app");
        return None;
    };
    known_upstream(file, upstream, &path.key("upstream"), problems);
    Some(Deliver::Forward {
        upstream: upstream.clone(),
        forward_path: route.forward_path.clone(),
    })
}

fn queue(file: &File, route: &RouteFile, path: &KeyPath, problems: &mut Problems) -> Option<Deliver> {
    if file.data.is_none() && !problems.left_out(&KeyPath::root().key("data")) {
        problems
            .error(
                &path.key("deliver"),
                "is `queue`, and there is no place on disk for a queue",
            )
            .suggest("data: { dir: /var/lib/hookward } at the top of the file");
    }
    let order_by = route.order_by.as_deref().and_then(|text| {
        let read = JsonPath::read(text);
        if let Err(why) = &read {
            problems
                .error(&path.key("order_by"), why.clone())
                .suggest("data.customer.id");
        }
        read.ok()
    });
    let destinations = match (&route.upstream, route.destinations.is_empty()) {
        (Some(upstream), true) => vec![sole(file, upstream, route, path, problems)],
        (None, false) => several(file, route, path, problems),
        (Some(_), false) => {
            problems.error(path, "has an `upstream` and `destinations`; it can have one of them");
            return None;
        }
        (None, true) => {
            problems
                .error(
                    path,
                    "has neither `upstream` nor `destinations`, so nothing could be delivered",
                )
                .suggest("upstream: app");
            return None;
        }
    };
    let retry = retry(&route.retry, &path.key("retry"), problems);
    Some(Deliver::Queue {
        destinations,
        retry,
        order_by,
    })
}

fn sole(
    file: &File,
    upstream: &str,
    route: &RouteFile,
    path: &KeyPath,
    problems: &mut Problems,
) -> DestinationSettings {
    known_upstream(file, upstream, &path.key("upstream"), problems);
    DestinationSettings {
        name: upstream.into(),
        upstream: upstream.to_owned(),
        types: TypeFilter::default(),
        forward_path: route.forward_path.clone(),
    }
}

fn several(file: &File, route: &RouteFile, path: &KeyPath, problems: &mut Problems) -> Vec<DestinationSettings> {
    let path = path.key("destinations");
    if route.destinations.len() > DESTINATIONS_MAX {
        problems.error(&path, format!("has more than {DESTINATIONS_MAX} destinations"));
    }
    let mut names = HashSet::new();
    let mut destinations = Vec::new();
    for (index, typed) in route.destinations.iter().enumerate() {
        let path = path.index(index);
        let built = destination(file, route, typed, &path, problems);
        if !names.insert(Arc::clone(&built.name)) {
            problems
                .error(
                    &path,
                    format!("there is a destination called {:?} already", &*built.name),
                )
                .suggest("name: another");
        }
        destinations.push(built);
    }
    destinations
}

fn destination(
    file: &File,
    route: &RouteFile,
    typed: &DestinationFile,
    path: &KeyPath,
    problems: &mut Problems,
) -> DestinationSettings {
    known_upstream(file, &typed.upstream, &path.key("upstream"), problems);
    if let Some(forward_path) = &typed.forward_path {
        plain_path(forward_path, &path.key("forward_path"), problems);
    }
    let types = TypeFilter::new(typed.types.iter().map(String::as_str));
    if let Err(position) = types {
        problems
            .error(
                &path.key("types").index(position),
                "is no event type and no beginning of one with a * at its end",
            )
            .suggest("\"customer.*\"");
    }
    DestinationSettings {
        name: typed
            .name
            .as_ref()
            .map_or(typed.upstream.as_str(), |name| name.as_str())
            .into(),
        upstream: typed.upstream.clone(),
        types: types.unwrap_or_default(),
        forward_path: typed.forward_path.clone().or_else(|| route.forward_path.clone()),
    }
}

fn retry(typed: &RetryFile, path: &KeyPath, problems: &mut Problems) -> RetryPolicy {
    let delays = match &typed.exponential {
        None => {
            if typed.schedule.len() >= ATTEMPTS_MAX as usize {
                problems.error(&path.key("schedule"), format!("has {ATTEMPTS_MAX} pauses or more"));
            }
            Delays::Schedule(typed.schedule.iter().map(|pause| pause.0).collect())
        }
        Some(formula) => {
            let path = path.key("exponential");
            if formula.attempts.0.get() > ATTEMPTS_MAX {
                problems.error(&path.key("attempts"), format!("is more than {ATTEMPTS_MAX} attempts"));
            }
            if formula.base.0 > formula.cap.0 {
                problems.error(&path.key("cap"), "is shorter than `base`");
            }
            Delays::Exponential {
                base: formula.base.0,
                factor: formula.factor.0,
                cap: formula.cap.0,
                attempts: formula.attempts.0,
            }
        }
    };
    if typed.max_age.0.is_zero() {
        problems
            .error(&path.key("max_age"), "is zero: no event would ever be tried")
            .suggest("3d");
    }
    let mut final_statuses = Vec::new();
    for (index, status) in typed.final_statuses.iter().enumerate() {
        match u16::try_from(status.0.get()) {
            Ok(status @ 300..=599) => final_statuses.push(status),
            _ => {
                let path = path.key("final_statuses").index(index);
                problems
                    .error(&path, "is no status of a failure, which are 300 to 599")
                    .suggest("422");
            }
        }
    }
    RetryPolicy {
        delays,
        age_max: typed.max_age.0,
        retry_after_max: typed.retry_after.0,
        final_statuses,
    }
}

/// How each upstream is delivered to.
pub(super) fn lines(file: &File, problems: &mut Problems) -> BTreeMap<String, LineSettings> {
    let each = file.upstreams.iter().map(|(name, upstream)| {
        let path = KeyPath::root().key("upstreams").key(name.as_str()).key("delivery");
        (name.as_str().to_owned(), line(&upstream.delivery, &path, problems))
    });
    each.collect()
}

fn line(typed: &DeliveryFile, path: &KeyPath, problems: &mut Problems) -> LineSettings {
    if typed.breaker_pause.0.is_zero() {
        problems
            .error(&path.key("breaker_pause"), "is zero, in which no upstream recovers")
            .suggest("10s");
    }
    LineSettings {
        concurrency: typed.concurrency.0.get() as usize,
        pace: typed.rate.map(|rate| PaceSettings {
            count: rate.count,
            per: rate.per,
            burst: typed.burst.0,
        }),
        breaker: BreakerSettings {
            failures: typed.breaker_failures.0.get(),
            pause: typed.breaker_pause.0,
        },
    }
}

/// The signature for the upstream, if the route asks for one.
pub(super) fn resign(route: &RouteFile, path: &KeyPath, problems: &mut Problems, now: UnixMillis) -> Option<Resign> {
    let typed = route.resign.as_ref()?;
    let path = path.key("resign").key("secrets");
    for (index, _) in typed
        .secrets
        .iter()
        .enumerate()
        .filter(|(_, secret)| secret.until.is_some())
    {
        problems.error(
            &path.index(index).key("until"),
            "is for secrets that verify; this one signs until it is removed",
        );
    }
    let secrets = all(&typed.secrets, &path, problems, now)?;
    let secrets: Vec<_> = secrets.into_iter().map(|keyed| keyed.secret).collect();
    match Resign::new(&secrets) {
        Ok(resign) => Some(resign),
        Err((position, problem)) => {
            problems
                .error(&path.index(position), problem.to_string())
                .suggest("the output of: echo whsec_$(openssl rand -base64 32)");
            None
        }
    }
}

/// What callers of the API prove themselves with; none when there is no API.
pub(super) fn operators(file: &File, problems: &mut Problems, now: UnixMillis) -> Vec<KeyedSecret> {
    let Some(typed) = &file.api else { return Vec::new() };
    let path = KeyPath::root().key("api").key("secrets");
    if matches!(file.admin, Switch::Off) {
        problems.warning(&path, "nobody can ask: `admin` is off");
    }
    let secrets = all(&typed.secrets, &path, problems, now).unwrap_or_default();
    for (index, keyed) in secrets.iter().enumerate() {
        if keyed.secret.len() < crate::secret::SECRET_BYTES_MIN {
            let least = crate::secret::SECRET_BYTES_MIN;
            problems.error(
                &path.index(index),
                format!("is shorter than {least} bytes, which can be guessed"),
            );
        }
    }
    secrets
}

/// Every secret of a list; `None` when it is empty or one of them is not there.
fn all(typed: &[SecretFile], path: &KeyPath, problems: &mut Problems, now: UnixMillis) -> Option<Vec<KeyedSecret>> {
    if typed.is_empty() {
        problems
            .error(path, "has no secret")
            .suggest("secrets: [{ env: NAME }]");
        return None;
    }
    let each = typed.iter().enumerate();
    let read: Vec<_> = each
        .map(|(index, secret)| read_secret(index, secret, &path.index(index), problems, now))
        .collect();
    read.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::UnixMillis;
    use crate::config::{Plan, plan_text};
    use crate::gateway::Deliver;
    use crate::queue::Delays;

    const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// A plan with this route, and what was told about it.
    fn plan(top: &str, route: &str) -> (Option<Plan>, String) {
        let text = format!(
            "listen: [127.0.0.1:1]\n{top}upstreams: {{ app: {{ servers: [127.0.0.1:3] }}, b: {{ servers: [127.0.0.1:4] }} }}\n\
             passthrough: b\nroutes:\n  - {{ name: r, path: /r, provider: github, secrets: [{{ value: \
             hunter2hunter2hunter2 }}], {route} }}\n"
        );
        let (plan, problems) = plan_text("c.yaml", &text, UnixMillis(0));
        (plan, problems.to_string())
    }

    const DATA: &str = "data: { dir: /nowhere }\n";

    #[test]
    fn a_queue_that_could_not_deliver_does_not_start() {
        // It would be noticed days later, by a customer.
        let table = [
            ("", "deliver: queue, upstream: app", "routes[0].deliver: is `queue`"),
            (DATA, "deliver: queue", "has neither `upstream` nor `destinations`"),
            (
                DATA,
                "deliver: queue, upstream: app, destinations: [{ upstream: app }]",
                "it can have one of them",
            ),
            (
                DATA,
                "deliver: queue, destinations: [{ upstream: nope }]",
                "there is no upstream called \"nope\"",
            ),
            (
                DATA,
                "deliver: queue, destinations: [{ upstream: app }, { upstream: app }]",
                "called \"app\" already",
            ),
            (
                DATA,
                "deliver: queue, destinations: [{ upstream: app, types: [\"*.x\"] }]",
                "types[0]: is no event type",
            ),
            (
                DATA,
                "deliver: queue, destinations: [{ upstream: app, forward_path: x }]",
                "must begin with /",
            ),
            (
                DATA,
                "deliver: queue, upstream: app, retry: { max_age: 0s }",
                "max_age: is zero",
            ),
            (
                DATA,
                "deliver: queue, upstream: app, retry: { final_statuses: [200] }",
                "no status of a failure",
            ),
            (
                DATA,
                "deliver: queue, upstream: app, retry: { exponential: { base: 9s, factor: 2, cap: 1s, attempts: 3 } }",
                "cap: is shorter than `base`",
            ),
            (
                DATA,
                "deliver: queue, upstream: app, order_by: a..b",
                "order_by: \"a..b\" is not a path",
            ),
            (
                DATA,
                "deliver: forward, destinations: [{ upstream: app }], upstream: app",
                "is for queued events",
            ),
            (
                DATA,
                "upstream: app, resign: { secrets: [{ value: hunter2 }] }",
                "is not `whsec_`",
            ),
            (DATA, "deliver: forward", "has no `upstream`"),
            (
                "api: { secrets: [{ value: hunter2 }] }\n",
                "upstream: app",
                "api.secrets[0]: is shorter than 16 bytes",
            ),
            ("api: { secrets: [] }\n", "upstream: app", "api.secrets: has no secret"),
        ];
        for (top, route, expected) in table {
            let (plan, told) = plan(top, route);
            assert!(plan.is_none() && told.contains(expected), "{route}\n{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn what_is_typed_is_what_runs() {
        // Events would go to the wrong place, or be given up after an hour instead of three days.
        let (plan, told) = plan(
            DATA,
            &format!(
                "deliver: queue, forward_path: /all, destinations: [{{ upstream: app, name: one, types: [\"a.*\"] }}, \
                 {{ upstream: b, forward_path: /b }}], retry: {{ schedule: [1s, 2s], max_age: 1h, retry_after: 7s, \
                 final_statuses: [404] }}, resign: {{ secrets: [{{ value: {WHSEC} }}] }}"
            ),
        );
        let plan = plan.unwrap_or_else(|| panic!("{told}"));
        let route = &plan.gateway.routes[0];
        assert!(route.resign.is_some());
        let Deliver::Queue {
            destinations, retry, ..
        } = &route.deliver
        else {
            panic!("not queued")
        };
        let told: Vec<_> = destinations
            .iter()
            .map(|one| (&*one.name, one.upstream.as_str(), one.forward_path.as_deref()))
            .collect();
        assert_eq!(told, [("one", "app", Some("/all")), ("b", "b", Some("/b"))]);
        assert!(destinations[0].types.wants(Some("a.b")) && !destinations[0].types.wants(Some("b")));
        assert_eq!(
            retry.delays,
            Delays::Schedule(vec![Duration::from_secs(1), Duration::from_secs(2)])
        );
        assert_eq!(
            (retry.age_max, retry.retry_after_max),
            (Duration::from_secs(3600), Duration::from_secs(7))
        );
        assert_eq!(retry.final_statuses, [404]);
        assert_eq!(plan.gateway.lines["app"].concurrency, 16);
    }
}
