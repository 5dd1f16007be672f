//! From what was typed to what will run: the settings of each component, built from a well-formed [`File`].
//!
//! Everything that a file can get wrong and that its shape does not show is found here: names that lead nowhere,
//! secrets that are not there, routes that hide each other, windows that are too short. All of it is reported, none
//! of it is repaired by guessing; a plan comes out only when there is no error. What one route gets wrong does not
//! keep the others from being looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::clients;
use super::data;
use super::delivery;
use super::file::{File, LogFormat, LogLevel, RouteFile, UpstreamFile};
use super::listen;
use super::path::KeyPath;
use super::problem::Problems;
use super::routes::{self, RouteKeys, bytes, rate};
use super::settings::SettingFile;
use super::upstream_tls;
use super::value::Switch;
use super::{load, parse};
use crate::clock::{Clock, UnixMillis};
use crate::database::{Commit, OpenError};
use crate::fetch::World;
use crate::gateway::{ClientSettings, GatewaySettings, Guard, Rules, Shared};
use crate::observe::{AccessLog, Format};
use crate::providers::Provider;
use crate::queue::{Queue, SqliteQueue, SqliteSettings};
use crate::server::ServerSettings;
use crate::store::{MemoryReplay, ReplayStore};
use crate::upstream::{ServerSettings as UpstreamServer, UpstreamSettings};

/// Everything a process needs to know, built from one file.
#[derive(Clone)]
pub struct Plan {
    /// Fixed for the life of the process.
    pub server: ServerSettings,
    /// What a reload replaces.
    pub gateway: GatewaySettings,
    /// What is written where.
    pub log: LogSettings,
    /// Events the replay store remembers at most.
    pub replay_entries: u32,
    /// Where events lie on disk; `None`: nowhere.
    pub data: Option<SqliteSettings>,
    /// The files that were read on the way, but for the configuration itself: secrets, certificates, lists of addresses.
    pub files: Vec<PathBuf>,
    /// How often all of them are looked at for changes; `None`: never.
    pub watch: Option<Duration>,
}

/// What is written to standard output and standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Shape of an access-log line.
    pub format: Format,
    /// The least important message of the process log.
    pub level: log::LevelFilter,
    /// Whether each request writes a line.
    pub access: bool,
}

/// The smallest bound on a request's head.
const HEAD_BYTES_MIN: u64 = 1024;

impl Plan {
    /// The guard this plan describes: its first rules, over what the data directory holds. Without one, over a memory
    /// of events that begins empty.
    ///
    /// # Errors
    /// [`OpenError`]: the data directory cannot be used.
    pub fn guard(&self, clock: Clock, access: AccessLog) -> Result<Arc<Guard>, OpenError> {
        self.guard_in(World::internet(), clock, access)
    }

    /// The same guard in another world than the internet, for tests: keys that providers publish come from there.
    ///
    /// # Errors
    /// As [`guard`](Plan::guard).
    pub fn guard_in(&self, world: World, clock: Clock, access: AccessLog) -> Result<Arc<Guard>, OpenError> {
        let metrics = Shared::fresh_metrics();
        let (store, queue): (Arc<dyn ReplayStore>, Option<Arc<dyn Queue>>) = match &self.data {
            None => (Arc::new(MemoryReplay::new(clock.clone(), self.replay_entries)), None),
            Some(settings) => {
                let commits = metrics.commits();
                let on_commit = Box::new(move |commit: Commit| commits.committed(commit.jobs, commit.sync));
                let (queue, store) = SqliteQueue::open(settings, clock.clone(), on_commit)?;
                (store, Some(queue))
            }
        };
        let shared = Arc::new(Shared::new(clock, access, metrics, store, queue, world));
        shared.metrics().config_started(shared.clock().wall());
        let rules = Rules::build(self.gateway.clone(), &shared, None);
        Ok(Arc::new(Guard::new(shared, rules)))
    }
}

/// Reads and builds the file at `path`.
pub fn plan_file(path: &Path, now: UnixMillis) -> (Option<Plan>, Problems) {
    let (file, problems) = load(path);
    finish(file, problems, now)
}

/// Builds a configuration from its text; `name` is what problems call it.
pub fn plan_text(name: &str, text: &str, now: UnixMillis) -> (Option<Plan>, Problems) {
    let (file, problems) = parse(name, text);
    finish(file, problems, now)
}

/// What verifies on each route of the file at `path`; routes whose provider or secrets are not there are left out and
/// reported.
pub fn route_keys(path: &Path, now: UnixMillis) -> (Vec<RouteKeys>, Problems) {
    let (file, mut problems) = load(path);
    let keys = file.map(|file| {
        let schemes = own_schemes(&file, &mut problems);
        routes::keys(&file, &schemes, &mut problems, now)
    });
    (keys.unwrap_or_default(), problems)
}

fn finish(file: Option<File>, mut problems: Problems, now: UnixMillis) -> (Option<Plan>, Problems) {
    let plan = file.map(|file| build(&file, &mut problems, now));
    let plan = plan.filter(|_| !problems.has_errors());
    (plan, problems)
}

fn build(file: &File, problems: &mut Problems, now: UnixMillis) -> Plan {
    let root = KeyPath::root();
    let schemes = own_schemes(file, problems);
    let memory_bytes_max = bytes(file.limits.memory.0);
    let upstreams = upstreams(file, problems);
    let passthrough = file.passthrough.clone();
    if let Some(name) = &passthrough {
        routes::known_upstream(file, name, &root.key("passthrough"), problems);
    }
    unused_upstreams(file, problems);
    ranges(file, problems);
    Plan {
        server: listen::server(file, problems),
        gateway: GatewaySettings {
            client: ClientSettings {
                rate: rate(file.limits.client_rate, file.limits.client_burst),
                in_flight_max: file.limits.client_in_flight.0.get(),
                body_timeout: file.client.body_timeout.0,
                body_rate: file.client.body_rate.0,
                trusted_proxies: file.client.trusted_proxies.iter().map(|network| network.0).collect(),
                proxy_header: clients::proxy_header(file),
            },
            in_flight_max: file.limits.in_flight.0.get() as usize,
            memory_bytes_max,
            upstreams,
            lines: delivery::lines(file, problems),
            operators: delivery::operators(file, problems, now),
            routes: routes::build(file, &schemes, problems, now),
            passthrough,
        },
        log: LogSettings {
            format: match file.log.format {
                LogFormat::Text => Format::Text,
                LogFormat::Json => Format::Json,
            },
            level: level(file.log.level),
            access: file.log.access,
        },
        replay_entries: file.replay.entries.0.get(),
        data: data::settings(file),
        files: files(file),
        watch: match file.watch {
            Switch::On(every) => Some(every.0),
            Switch::Off => None,
        },
    }
}

/// Secrets, settings, certificates and lists of addresses that are files.
fn files(file: &File) -> Vec<PathBuf> {
    let own = file.routes.iter().flat_map(|route| &route.secrets);
    let resigning = file.routes.iter().filter_map(|route| route.resign.as_ref());
    let secrets = own.chain(resigning.flat_map(|resign| &resign.secrets));
    let secrets = secrets.chain(file.api.iter().flat_map(|api| &api.secrets));
    let settings = file.routes.iter().flat_map(|route| route.settings.values());
    let settings = settings.filter_map(|setting| match setting {
        SettingFile::From(source) => source.file.as_ref(),
        SettingFile::Written(_) => None,
    });
    let certificates = file.listen.iter().filter_map(|listen| listen.0.tls.as_ref());
    let certificates = certificates.flat_map(|tls| {
        let pairs = tls.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        pairs.chain(&tls.client_ca)
    });
    let secrets = secrets.filter_map(|secret| secret.file.as_ref());
    let lists = file.routes.iter().filter_map(|route| route.allow.as_ref());
    let lists = lists.flat_map(|allow| &allow.files);
    let tls = file.upstreams.values().filter_map(|upstream| upstream.tls.as_ref());
    let lists = lists.chain(tls.flat_map(upstream_tls::files));
    secrets
        .chain(settings)
        .chain(certificates)
        .chain(lists)
        .cloned()
        .collect()
}

fn own_schemes(file: &File, problems: &mut Problems) -> BTreeMap<String, Arc<Provider>> {
    let mut schemes = BTreeMap::new();
    for (name, scheme) in &file.schemes {
        let path = KeyPath::root().key("schemes").key(name.as_str());
        match Provider::own(name.as_str(), scheme) {
            Ok(provider) => {
                schemes.insert(name.as_str().to_owned(), Arc::new(provider));
            }
            Err(error) => {
                let at = error.key.split('.').fold(path, |path, key| match key.parse() {
                    Ok(index) => path.index(index),
                    Err(_) => path.key(key),
                });
                let problem = problems.error(&at, error.problem);
                if let Some(suggestion) = error.suggestion {
                    problem.suggest(suggestion);
                }
            }
        }
    }
    schemes
}

fn upstreams(file: &File, problems: &mut Problems) -> Vec<UpstreamSettings> {
    let each = file.upstreams.iter().map(|(name, upstream)| {
        let path = KeyPath::root().key("upstreams").key(name.as_str());
        if upstream.sample == upstream.servers.is_empty() {
            return settings(name.as_str(), upstream, &path, problems);
        }
        match upstream.sample {
            true => problems.error(&path, "has servers and is a sample; it can be one of the two"),
            false => problems
                .error(&path.key("servers"), "has no server")
                .suggest("servers: [127.0.0.1:3000]"),
        };
        settings(name.as_str(), upstream, &path, problems)
    });
    each.collect()
}

fn settings(name: &str, upstream: &UpstreamFile, path: &KeyPath, problems: &mut Problems) -> UpstreamSettings {
    let mut servers = Vec::new();
    for (index, text) in upstream.servers.iter().enumerate() {
        match server_address(text) {
            Ok(server) => servers.push(server),
            Err(why) => {
                let path = path.key("servers").index(index);
                problems
                    .error(&path, why)
                    .suggest("127.0.0.1:3000, http://host:port or https://host");
            }
        }
    }
    if upstream.connect_timeout.0 > upstream.timeout.0 {
        problems.warning(
            &path.key("connect_timeout"),
            "is longer than `timeout`, which ends the exchange first",
        );
    }
    UpstreamSettings {
        name: name.to_owned(),
        sample: upstream.sample,
        tls: upstream_tls::read(upstream, &servers, path, problems),
        servers,
        host: upstream.host.clone(),
        timeout: upstream.timeout.0,
        connect_timeout: upstream.connect_timeout.0,
        idle_timeout: upstream.idle_timeout.0,
        fail_timeout: upstream.fail_timeout.0,
        resolve: upstream.resolve.0,
    }
}

/// Reads `host:port`, `http://host[:port]` or `https://host[:port]`.
///
/// # Errors
/// A message for the user when `text` is no server.
pub fn server_address(text: &str) -> Result<UpstreamServer, String> {
    let (tls, authority) = match text.split_once("://") {
        None => (None, text),
        Some(("http", rest)) => (Some(false), rest),
        Some(("https", rest)) => (Some(true), rest),
        Some((scheme, _)) => return Err(format!("{scheme:?} is no protocol that upstreams speak")),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("a server is a host and a port; `forward_path` of a route sets the path".into());
    }
    let parsed: http::uri::Authority = authority.parse().map_err(|_| format!("{text:?} is no host and port"))?;
    // `Authority` has no port where it has one that is no number or too large.
    let port = match (authority.strip_prefix(parsed.host()), tls) {
        (Some(""), Some(true)) => Some(443),
        (Some(""), Some(false)) => Some(80),
        (Some(""), None) | (None, _) => None,
        (Some(typed), _) => {
            let digits = typed.strip_prefix(':').unwrap_or_default();
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|port| plain && *port != 0)
        }
    };
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    match port {
        _ if host.is_empty() => Err(format!("{text:?} has no host")),
        None => Err(format!("{text:?} has no port between 1 and 65535")),
        Some(port) => Ok(UpstreamServer {
            tls: tls.unwrap_or(false),
            host: host.to_owned(),
            port,
        }),
    }
}

/// What must not be zero: a time in which nothing can happen, a size in which nothing fits.
fn ranges(file: &File, problems: &mut Problems) {
    let root = KeyPath::root();
    let client = root.key("client");
    let mut times = vec![
        (client.key("head_timeout"), file.client.head_timeout.0),
        (client.key("body_timeout"), file.client.body_timeout.0),
        (client.key("idle_timeout"), file.client.idle_timeout.0),
    ];
    for (name, upstream) in &file.upstreams {
        let path = root.key("upstreams").key(name.as_str());
        times.push((path.key("timeout"), upstream.timeout.0));
        times.push((path.key("connect_timeout"), upstream.connect_timeout.0));
        times.push((path.key("idle_timeout"), upstream.idle_timeout.0));
        times.push((path.key("resolve"), upstream.resolve.0));
    }
    for (path, _) in times.iter().filter(|(_, time)| time.is_zero()) {
        problems
            .error(path, "is zero, in which nothing can be done")
            .suggest("10s");
    }
    if file.client.head_bytes.0 < HEAD_BYTES_MIN {
        let message = format!("is too small for the heads that providers send; {HEAD_BYTES_MIN} bytes at least");
        problems.error(&client.key("head_bytes"), message).suggest("32KiB");
    }
    for (index, route) in file
        .routes
        .iter()
        .enumerate()
        .filter(|(_, route)| route.limits.body.0 == 0)
    {
        let path = root.key("routes").index(index).key("limits").key("body");
        problems
            .error(
                &path,
                format!("is zero: every event of {} would be too large", route.name),
            )
            .suggest("1MiB");
    }
}

fn unused_upstreams(file: &File, problems: &mut Problems) {
    for name in file.upstreams.keys() {
        let leads = |route: &RouteFile| {
            let mut several = route.destinations.iter();
            route.upstream.as_deref() == Some(name.as_str()) || several.any(|one| one.upstream == name.as_str())
        };
        let routed = file.routes.iter().any(leads);
        if !routed && file.passthrough.as_deref() != Some(name.as_str()) {
            let path = KeyPath::root().key("upstreams").key(name.as_str());
            problems.warning(&path, "no route leads here");
        }
    }
}

fn level(level: LogLevel) -> log::LevelFilter {
    match level {
        LogLevel::Off => log::LevelFilter::Off,
        LogLevel::Error => log::LevelFilter::Error,
        LogLevel::Warn => log::LevelFilter::Warn,
        LogLevel::Info => log::LevelFilter::Info,
        LogLevel::Debug => log::LevelFilter::Debug,
        LogLevel::Trace => log::LevelFilter::Trace,
    }
}
