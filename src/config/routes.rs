//! Routes: who may speak on a path, proven by which secrets, leading where.
//!
//! A route is the place where a mistake opens a hole, so nothing about it is optional by omission: it has exactly one
//! provider or scheme, at least one secret that is there and long enough, a path that only one route has, and a
//! memory for repeats that is longer than a signature lives.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::clients;
use super::delivery;
use super::file::{File, RouteFile, RouteReplayFile, SecretFile};
use super::path::KeyPath;
use super::problem::Problems;
use super::register::{self, Listed};
use super::settings;
use super::value::{Count, Rate as TypedRate, Switch};
use crate::clock::UnixMillis;
use crate::gateway::{Rate, RegisterSettings, ReplayPolicy, RouteSettings, loosest_path};
use crate::nearest::nearest;
use crate::providers::{EventId, Provider, builtin};
use crate::secret::{Secret, SecretSource};
use crate::signature::{KeyError, KeyedSecret, Verifier, VerifierOptions};
use crate::store::REPLAY_KEYS_MAX;

/// What verifies on one route, before it becomes a verifier: for whoever has to try something else.
pub struct RouteKeys {
    /// The route's name.
    pub name: String,
    /// The only host it answers to.
    pub host: Option<String>,
    /// Its exact path.
    pub path: String,
    /// Who sends.
    pub provider: Arc<Provider>,
    /// The secrets, as they are configured.
    pub secrets: Vec<KeyedSecret>,
    /// What the route says beyond the provider's scheme.
    pub options: VerifierOptions,
}

impl RouteKeys {
    fn of(route: &RouteFile, provider: Arc<Provider>, secrets: Vec<KeyedSecret>, options: VerifierOptions) -> Self {
        RouteKeys {
            name: route.name.as_str().to_owned(),
            host: route.host.clone(),
            path: route.path.clone(),
            provider,
            secrets,
            options,
        }
    }
}

/// The keys of every route whose provider and secrets are there, whatever else is wrong with the file.
pub(super) fn keys(
    file: &File,
    schemes: &BTreeMap<String, Arc<Provider>>,
    problems: &mut Problems,
    now: UnixMillis,
) -> Vec<RouteKeys> {
    let each = file.routes.iter().enumerate();
    each.filter_map(|(index, route)| {
        let path = KeyPath::root().key("routes").index(index);
        let provider = provider(route, &path, schemes, problems)?;
        let secrets = secrets(route, Some(&provider), &path, problems, now);
        let options = options(route, &path, &provider, problems);
        let there = secrets?.into_iter().filter_map(|listed| listed.there());
        Some(RouteKeys::of(route, provider, there.collect(), options?))
    })
    .collect()
}

/// Builds every route that has no error; reports those of all.
pub(super) fn build(
    file: &File,
    schemes: &BTreeMap<String, Arc<Provider>>,
    problems: &mut Problems,
    now: UnixMillis,
) -> Vec<RouteSettings> {
    if file.routes.is_empty() && file.passthrough.is_none() {
        let path = KeyPath::root().key("routes");
        problems.error(
            &path,
            "there is no route and no passthrough: every request would be refused",
        );
    }
    overlaps(file, problems);
    let mut routes = Vec::new();
    for (index, route) in file.routes.iter().enumerate() {
        let path = KeyPath::root().key("routes").index(index);
        routes.extend(build_one(file, route, &path, schemes, problems, now));
    }
    routes
}

fn build_one(
    file: &File,
    route: &RouteFile,
    path: &KeyPath,
    schemes: &BTreeMap<String, Arc<Provider>>,
    problems: &mut Problems,
    now: UnixMillis,
) -> Option<RouteSettings> {
    let deliver = delivery::deliver(file, route, path, problems);
    let resign = delivery::resign(route, path, problems, now);
    let allow = clients::allow(file, route, path, problems);
    paths(route, path, problems);
    if route.methods.is_empty() {
        problems
            .error(&path.key("methods"), "takes no method")
            .suggest("methods: [POST]");
    }
    if route.limits.body.0 > file.limits.memory.0 {
        let message = "is larger than `limits.memory`, so the largest bodies could never be read";
        problems.error(&path.key("limits").key("body"), message);
    }
    // Looked at even when the provider is unknown: all problems at once.
    let provider = provider(route, path, schemes, problems);
    let secrets = secrets(route, provider.as_deref(), path, problems, now);
    let provider = provider?;
    let replay = replay(route, path, &provider, problems);
    if matches!(provider.event.id, EventId::Unsigned(_)) && route.secrets.len() > REPLAY_KEYS_MAX {
        let message =
            format!("has more than {REPLAY_KEYS_MAX} secrets, which is more than one event can be remembered by");
        problems.error(&path.key("secrets"), message);
    }
    register::check(route, path, &provider, problems, now);
    let options = options(route, path, &provider, problems)?;
    let (verifier, register) = verifier(route, path, &provider, secrets?, options, problems)?;
    let confirm = confirm(route, path, &provider, problems);
    Some(RouteSettings {
        name: route.name.as_str().into(),
        host: route.host.as_ref().map(|host| host.to_ascii_lowercase()),
        path: route.path.clone(),
        methods: route.methods.iter().map(|method| method.0.clone()).collect(),
        allow: allow?,
        provider,
        verifier: Arc::new(verifier),
        register,
        deliver: deliver?,
        resign,
        rate: rate(route.limits.rate, route.limits.burst),
        body_bytes_max: bytes(route.limits.body.0),
        in_flight_max: route.limits.in_flight.0.get() as usize,
        replay,
        confirm,
        ignore_upgrade: ignore_upgrade(route, path, problems),
    })
}

/// Whether the route takes requests that offer another protocol; said, because it is one rule less.
fn ignore_upgrade(route: &RouteFile, path: &KeyPath, problems: &mut Problems) -> bool {
    if route.ignore_upgrade {
        let message = "takes requests that offer another protocol (`Upgrade`) and ignores the offer";
        problems.warning(&path.key("ignore_upgrade"), message);
    }
    route.ignore_upgrade
}

/// Whether the route confirms subscriptions; a problem where nobody asks for it.
fn confirm(route: &RouteFile, path: &KeyPath, provider: &Provider, problems: &mut Problems) -> bool {
    if route.confirm && !provider.scheme.asks_consent() {
        let message = "has no effect: this provider never asks for a confirmation that can be given here";
        problems.error(&path.key("confirm"), message);
    }
    route.confirm
}

fn provider(
    route: &RouteFile,
    path: &KeyPath,
    schemes: &BTreeMap<String, Arc<Provider>>,
    problems: &mut Problems,
) -> Option<Arc<Provider>> {
    let (found, key, name, near) = match (&route.provider, &route.scheme) {
        (Some(id), None) => (
            builtin().find(id),
            "provider",
            id,
            builtin().nearest(id).map(str::to_owned),
        ),
        (None, Some(name)) => {
            let near = meant(schemes.keys().map(String::as_str), name);
            (schemes.get(name), "scheme", name, near)
        }
        (Some(_), Some(_)) => {
            problems.error(path, "has a `provider` and a `scheme`; it can have one of them");
            return None;
        }
        (None, None) => {
            let problem = problems.error(
                path,
                "has neither `provider` nor `scheme`, so nothing could be verified",
            );
            problem.suggest("provider: github");
            return None;
        }
    };
    // A scheme that is wrong in itself is reported where it stands.
    if found.is_none() && !problems.left_out(&KeyPath::root().key("schemes").key(name)) {
        let what = if key == "provider" {
            "provider"
        } else {
            "entry of `schemes`"
        };
        let problem = problems.error(&path.key(key), format!("there is no {what} called {name:?}"));
        match near {
            Some(near) => problem.suggest(near),
            None => problem.suggest("`hookward providers` lists the built-in ones"),
        };
    }
    found.cloned()
}

/// Reports an upstream that the file does not have.
pub(super) fn known_upstream(file: &File, name: &str, path: &KeyPath, problems: &mut Problems) {
    let listed = file.upstreams.contains_key(name);
    if listed || problems.left_out(&KeyPath::root().key("upstreams").key(name)) {
        return;
    }
    let near = meant(file.upstreams.keys().map(|name| name.as_str()), name);
    let problem = problems.error(path, format!("there is no upstream called {name:?}"));
    if let Some(near) = near {
        problem.suggest(near);
    }
}

fn paths(route: &RouteFile, path: &KeyPath, problems: &mut Problems) {
    let both = [
        ("path", Some(&route.path)),
        ("forward_path", route.forward_path.as_ref()),
    ];
    for (key, text) in both.into_iter().filter_map(|(key, text)| Some((key, text?))) {
        plain_path(text, &path.key(key), problems);
    }
}

/// Reports a path that servers could read in more than one way.
pub(super) fn plain_path(text: &str, path: &KeyPath, problems: &mut Problems) {
    let plain = text.starts_with('/')
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"?#\\\"<>^`{|};%".contains(&b));
    let segments: Vec<_> = text.split('/').skip(1).collect();
    let ambiguous = segments.iter().any(|segment| matches!(*segment, "." | ".."))
        || segments.iter().rev().skip(1).any(|segment| segment.is_empty());
    if !plain || ambiguous {
        let message = "must begin with / and have no query, escape, parameter, empty or dotted segment";
        problems.error(path, message).suggest("/webhooks/github");
    }
}

/// Routes that nobody would reach, or that some server would take for each other.
fn overlaps(file: &File, problems: &mut Problems) {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut places: HashMap<(String, Option<String>), usize> = HashMap::new();
    let mut loose: HashMap<String, &str> = HashMap::new();
    for (index, route) in file.routes.iter().enumerate() {
        let path = KeyPath::root().key("routes").index(index);
        if let Some(first) = names.insert(route.name.as_str(), index) {
            problems.error(&path.key("name"), format!("routes[{first}] has this name already"));
        }
        let host = route.host.as_ref().map(|host| host.to_ascii_lowercase());
        if let Some(first) = places.insert((route.path.clone(), host), index) {
            let message = format!("routes[{first}] has this path already; this route would never be reached");
            problems.error(&path.key("path"), message);
        }
        let first = loose.entry(loosest_path(&route.path)).or_insert(&route.path);
        if *first != route.path {
            let message = format!("{:?} and {first:?} are one path to many servers", route.path);
            problems.error(&path.key("path"), message);
        }
    }
}

/// Reads every secret of a route; `None` when one of them is not there.
/// A provider that publishes its keys needs none.
fn secrets(
    route: &RouteFile,
    provider: Option<&Provider>,
    path: &KeyPath,
    problems: &mut Problems,
    now: UnixMillis,
) -> Option<Vec<Listed>> {
    let path = path.key("secrets");
    if route.secrets.is_empty() && provider.is_some_and(|provider| !provider.scheme.needs_secrets()) {
        return Some(Vec::new());
    }
    if route.secrets.is_empty() {
        let problem = problems.error(&path, "has no secret, so nothing could be verified");
        problem.suggest("secrets: [{ env: GITHUB_WEBHOOK_SECRET }]");
        return None;
    }
    let each = route.secrets.iter().enumerate();
    let read = each.map(|(index, secret)| {
        if register::awaits(route, secret.file.as_deref(), now) {
            return Some(Listed::Awaited(
                key_id(index, secret),
                secret.until.map(|until| until.0),
            ));
        }
        read_secret(index, secret, &path.index(index), problems, now).map(Listed::There)
    });
    // Every one is looked at before any is missed.
    let read: Vec<Option<Listed>> = read.collect();
    if route
        .secrets
        .iter()
        .all(|secret| secret.until.is_some_and(|until| until.0 <= now))
    {
        problems.error(&path, "every secret's `until` has passed, so nothing could be verified");
    }
    read.into_iter().collect()
}

pub(super) fn read_secret(
    index: usize,
    file: &SecretFile,
    path: &KeyPath,
    problems: &mut Problems,
    now: UnixMillis,
) -> Option<KeyedSecret> {
    let source = match (&file.env, &file.file, &file.value) {
        (Some(name), None, None) => SecretSource::Env(name.clone()),
        (None, Some(path), None) => SecretSource::File(path.clone()),
        (None, None, Some(written)) => {
            let message = "is written into the configuration: whoever reads the file can forge events";
            problems
                .warning(&path.key("value"), message)
                .suggest("use { env: NAME } or { file: PATH }");
            SecretSource::Value(written.0.clone())
        }
        _ => {
            problems.error(path, "needs exactly one of `env`, `file` and `value`");
            return None;
        }
    };
    if file.until.is_some_and(|until| until.0 <= now) {
        problems.warning(&path.key("until"), "has passed; this secret matches nothing any more");
    }
    let secret: Secret = match source.resolve() {
        Ok(secret) => secret,
        Err(problem) => {
            problems.error(path, problem.to_string());
            return None;
        }
    };
    Some(KeyedSecret {
        id: key_id(index, file),
        secret,
        until: file.until.map(|until| until.0),
    })
}

/// The name of a secret: the given one, or its position.
fn key_id(index: usize, file: &SecretFile) -> Arc<str> {
    let position = index.saturating_add(1).to_string();
    file.id.as_ref().map_or(position.as_str(), |id| id.as_str()).into()
}

/// What the route says beyond the provider's scheme.
fn options(route: &RouteFile, path: &KeyPath, provider: &Provider, problems: &mut Problems) -> Option<VerifierOptions> {
    let public_url = settings::public_url(route, path, provider, problems);
    let settings = settings::settings(route, path, provider, problems);
    Some(VerifierOptions {
        tolerance: route.tolerance.map(|span| span.0),
        allow_short: route.short_secrets,
        public_url: public_url?,
        settings: settings?,
    })
}

fn verifier(
    route: &RouteFile,
    path: &KeyPath,
    provider: &Provider,
    secrets: Vec<Listed>,
    options: VerifierOptions,
    problems: &mut Problems,
) -> Option<(Verifier, Option<RegisterSettings>)> {
    match register::verifiers(&provider.scheme, secrets, options, route.register.as_ref()) {
        Ok(verifiers) => Some(verifiers),
        Err(error @ KeyError::Tolerance(_)) => {
            problems.error(&path.key("tolerance"), error.to_string());
            None
        }
        Err(error @ KeyError::Setting { .. }) => {
            problems.error(&path.key("settings"), error.to_string());
            None
        }
        Err(error) => {
            problems.error(&path.key("secrets"), error.to_string());
            None
        }
    }
}

/// How long an event is remembered where nothing else is said, and its provider allows no more time than half of that.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

fn replay(route: &RouteFile, path: &KeyPath, provider: &Provider, problems: &mut Problems) -> ReplayPolicy {
    let key = path.key("replay");
    let unsaid = RouteReplayFile::default();
    let replay = match (&route.replay, &provider.event.alike) {
        (Some(Switch::On(replay)), _) => replay,
        (Some(Switch::Off), _) => {
            problems.warning(&key, "is off: a captured request is forwarded as often as it is sent");
            return ReplayPolicy::Off;
        }
        (None, Some(why)) => {
            let off = format!("is off, as {}'s events can be alike: {why}", provider.title);
            let problem = problems.warning(&key, off);
            problem.suggest("to take equal requests for one all the same, write `replay: { keep: 10m }`");
            return ReplayPolicy::Off;
        }
        (None, None) => &unsaid,
    };
    let tolerance = route.tolerance.map(|span| span.0).or(provider.scheme.tolerance());
    let shortest = tolerance.unwrap_or(Duration::ZERO).saturating_mul(2);
    let keep = replay.keep.map_or(KEEP.max(shortest), |keep| keep.0);
    if keep < shortest {
        let message = "is shorter than twice the tolerance: a repeat could be forgotten while its signature is good";
        let problem = problems.error(&key.key("keep"), message);
        problem.suggest(format!("{}s or more", shortest.as_secs()));
    }
    ReplayPolicy::Guard {
        keep,
        wait: replay.wait.0,
    }
}

/// `nearest` of the names a file has, for a name that it has not.
pub(super) fn meant<'a>(names: impl Iterator<Item = &'a str>, typed: &str) -> Option<String> {
    nearest(typed, names).map(str::to_owned)
}

pub(super) fn rate(rate: TypedRate, burst: Count) -> Rate {
    Rate {
        count: rate.count,
        per: rate.per,
        burst: burst.0,
    }
}

pub(super) fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
