//! The configuration as a user types it: every key, its type and its default.
//!
//! Read by `load`, turned into the settings of each component by `build`. A value of these types is well formed and
//! nothing more: that an upstream exists, that a secret can be read or that two routes do not overlap is decided
//! when settings are built. A key that is not here is an error, because a misspelt `secrets` or `limits` that is
//! silently ignored is a route without protection.
//!
//! The defaults stand in the `Default` implementations below and nowhere else; `conf/reference.yaml` repeats them
//! for users, and a test holds the two equal.

mod clients;
mod delivery;
mod upstream_tls;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::listen::Listen;
use super::settings::SettingFile;
use super::value::{Address, Count, Date, Method, Name, Network, Rate, Size, Span, Switch, Written};
use crate::providers::ProviderFile;

pub use clients::{AllowFile, ClientCertificateFile, ProxyHeader};
pub use delivery::{
    ApiFile, DataFile, Deliver, DeliveryFile, DestinationFile, ExponentialFile, HistoryFile, ResignFile, RetryFile,
};
pub use upstream_tls::UpstreamTlsFile;

/// A whole configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where webhooks come in; one address or more.
    pub listen: Vec<Listen>,
    /// Where `/metrics`, `/healthz` and `/readyz` are answered.
    #[serde(default = "default_admin")]
    pub admin: Switch<Address>,
    /// Who may use the operators' HTTP API; absent: nobody.
    pub api: Option<ApiFile>,
    /// Where events and the memory of repeats lie on disk; absent: nothing is queued, and a restart forgets repeats.
    pub data: Option<DataFile>,
    /// Worker threads; absent: one per core.
    pub threads: Option<Count>,
    /// What is written to standard output and standard error.
    #[serde(default)]
    pub log: LogFile,
    /// The side of the internet.
    #[serde(default)]
    pub client: ClientFile,
    /// Longest wait at the end for requests in flight.
    #[serde(default = "default_drain")]
    pub drain: Span,
    /// How often the files in use are looked at for changes.
    #[serde(default = "default_watch")]
    pub watch: Switch<Span>,
    /// Limits of the whole process.
    #[serde(default)]
    pub limits: LimitsFile,
    /// The memory of events already seen.
    #[serde(default)]
    pub replay: ReplayFile,
    /// The user's own schemes, in the language of the built-in providers.
    #[serde(default)]
    pub schemes: BTreeMap<Name, ProviderFile>,
    /// Where events go.
    pub upstreams: BTreeMap<Name, UpstreamFile>,
    /// What is verified, and how.
    pub routes: Vec<RouteFile>,
    /// The upstream of everything that is no route; absent: 404.
    pub passthrough: Option<String>,
}

/// `log`: what is written, and how.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFile {
    /// Shape of a line.
    pub format: LogFormat,
    /// The least important message that is written.
    pub level: LogLevel,
    /// Whether each request writes a line.
    pub access: bool,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line, for machines.
    Json,
}

/// Importance of a message in the log of the process.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What stops the gateway from doing its duty.
    Error,
    /// What an operator should look at.
    Warn,
    /// Starts, reloads, ends.
    Info,
    /// What a developer asks for.
    Debug,
    /// Everything.
    Trace,
}

/// `client`: bounds on connections from outside, before any route is known.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientFile {
    /// Longest time for the whole head of a request.
    pub head_timeout: Span,
    /// Largest head of a request.
    pub head_bytes: Size,
    /// Longest time for the whole body of a request.
    pub body_timeout: Span,
    /// Slowest body that is waited for, measured after a few seconds.
    pub body_rate: Size,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Span,
    /// Open connections in all.
    pub connections: Count,
    /// Open connections of one client address.
    pub connections_each: Count,
    /// Requests on one connection.
    pub requests_each: Count,
    /// Proxies in front of the gateway that are believed when they say for whom they speak.
    pub trusted_proxies: Vec<Network>,
    /// Where they say it.
    pub proxy_header: ProxyHeader,
}

/// `limits`: what the process as a whole may be made to do.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsFile {
    /// Requests of one client address, counted before the body is read.
    pub client_rate: Rate,
    /// Requests of one client address that may come at once.
    pub client_burst: Count,
    /// Requests of one client address at the same time that have proven nothing yet.
    pub client_in_flight: Count,
    /// Webhooks at the same time, over all routes.
    pub in_flight: Count,
    /// Bodies held in memory, over all routes.
    pub memory: Size,
}

/// `replay`: the memory of events already seen, shared by all routes.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayFile {
    /// Most events remembered at a time; when it is full, new events are answered 503.
    pub entries: Count,
}

/// `upstreams.<name>`: where events go.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamFile {
    /// `host:port`, `http://host[:port]` or `https://host[:port]`.
    pub servers: Vec<String>,
    /// Use the built-in sample backend instead of servers.
    pub sample: bool,
    /// How those are spoken to that speak TLS.
    pub tls: Option<UpstreamTlsFile>,
    /// Replaces the received `Host` header.
    pub host: Option<String>,
    /// Longest time for a whole exchange; for the longest silence of one that is passed through.
    pub timeout: Span,
    /// Longest time to connect, TLS included.
    pub connect_timeout: Span,
    /// How long an unused connection is kept; below the server's own keep-alive.
    pub idle_timeout: Span,
    /// How often host names are looked up again.
    pub resolve: Span,
    /// How long a server that refused a connection is left out.
    pub fail_timeout: Span,
    /// How queued events reach it.
    pub delivery: DeliveryFile,
}

/// `routes[]`: one path, who may speak there, and where it leads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// What logs, metrics and the upstream call this route.
    pub name: Name,
    /// The only host this route answers to; absent: any.
    pub host: Option<String>,
    /// The exact path.
    pub path: String,
    /// The methods it takes.
    #[serde(default = "default_methods")]
    pub methods: Vec<Method>,
    /// The only addresses it takes requests from; absent: any.
    pub allow: Option<AllowFile>,
    /// The certificate that a client has to show; absent: none.
    pub client_certificate: Option<ClientCertificateFile>,
    /// A built-in provider; this or `scheme`.
    pub provider: Option<String>,
    /// One of `schemes`; this or `provider`.
    pub scheme: Option<String>,
    /// What verifies; any of them may have signed.
    #[serde(default)]
    pub secrets: Vec<SecretFile>,
    /// Waits for the first secret, which the provider brings along itself.
    pub register: Option<RegisterFile>,
    /// Allows secrets under [`SECRET_BYTES_MIN`](crate::secret::SECRET_BYTES_MIN) bytes.
    #[serde(default)]
    pub short_secrets: bool,
    /// Largest distance between a signed timestamp and the clock; absent: the provider's.
    pub tolerance: Option<Span>,
    /// The URL under which the provider reaches this route; for those that sign it or compute with it.
    pub public_url: Option<String>,
    /// What the provider's scheme and handshakes ask for by name.
    #[serde(default)]
    pub settings: BTreeMap<String, SettingFile>,
    /// What happens to a proven event.
    #[serde(default)]
    pub deliver: Deliver,
    /// One of `upstreams`; this or `destinations`.
    pub upstream: Option<String>,
    /// Where queued events go, when there are several places; this or `upstream`.
    #[serde(default)]
    pub destinations: Vec<DestinationFile>,
    /// The path the upstream sees; absent: the path as received.
    pub forward_path: Option<String>,
    /// How a queued event is tried again.
    #[serde(default)]
    pub retry: RetryFile,
    /// A member of the JSON body; queued events in which it is the same are delivered one after another.
    pub order_by: Option<String>,
    /// A signature of the gateway's own for the upstream; absent: none.
    pub resign: Option<ResignFile>,
    /// What this route may take.
    #[serde(default)]
    pub limits: RouteLimitsFile,
    /// How long a repeat is recognised, or `off`; absent: on, unless the provider's events can be alike.
    pub replay: Option<Switch<RouteReplayFile>>,
    /// Confirms subscriptions that the provider asks about; otherwise the question goes to the upstream.
    #[serde(default)]
    pub confirm: bool,
    /// Takes requests that offer to go on in another protocol, and ignores the offer.
    #[serde(default)]
    pub ignore_upgrade: bool,
}

/// `routes[].secrets[]`: one secret; exactly one of `env`, `file` and `value` says where it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Name of an environment variable.
    pub env: Option<String>,
    /// Path of a file; one line end at its end is not part of the secret.
    pub file: Option<PathBuf>,
    /// The secret itself, for trying things out.
    pub value: Option<Written>,
    /// The key id that logs and metrics show.
    pub id: Option<Name>,
    /// From this instant on the secret no longer verifies.
    pub until: Option<Date>,
}

/// `routes[].register`: the wait for a secret that the first request brings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterFile {
    /// From this instant on none is taken.
    pub until: Date,
    /// The `file` of one of the route's secrets, which is not there yet.
    pub into: PathBuf,
}

/// `routes[].limits`: what one route may take.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteLimitsFile {
    /// Verified events; forgeries do not count.
    pub rate: Rate,
    /// Verified events that may come at once.
    pub burst: Count,
    /// Largest body.
    pub body: Size,
    /// Proven events at the same time.
    pub in_flight: Count,
}

/// `routes[].replay`: how repeats of an event are met.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteReplayFile {
    /// How long an event that was taken is remembered; without it a day, and never less than twice the tolerance.
    pub keep: Option<Span>,
    /// How long a repeat waits for the first one, when that is still in flight.
    pub wait: Span,
}

impl Default for LogFile {
    fn default() -> Self {
        LogFile {
            format: LogFormat::Text,
            level: LogLevel::Info,
            access: true,
        }
    }
}

impl Default for ClientFile {
    fn default() -> Self {
        ClientFile {
            head_timeout: seconds(10),
            head_bytes: Size(32 * 1024),
            body_timeout: seconds(30),
            body_rate: Size(1024),
            idle_timeout: seconds(60),
            connections: count(8192),
            connections_each: count(1000),
            requests_each: count(100_000),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::XForwardedFor,
        }
    }
}

impl Default for LimitsFile {
    fn default() -> Self {
        LimitsFile {
            client_rate: per_second(100),
            client_burst: count(200),
            client_in_flight: count(256),
            in_flight: count(4096),
            memory: Size(256 * 1024 * 1024),
        }
    }
}

impl Default for ReplayFile {
    fn default() -> Self {
        ReplayFile {
            entries: count(1_000_000),
        }
    }
}

impl Default for UpstreamFile {
    fn default() -> Self {
        UpstreamFile {
            servers: Vec::new(),
            sample: false,
            tls: None,
            host: None,
            timeout: seconds(10),
            connect_timeout: seconds(2),
            idle_timeout: seconds(4),
            resolve: seconds(30),
            fail_timeout: seconds(10),
            delivery: DeliveryFile::default(),
        }
    }
}

impl Default for RouteLimitsFile {
    fn default() -> Self {
        RouteLimitsFile {
            rate: per_second(50),
            burst: count(100),
            body: Size(1024 * 1024),
            in_flight: count(256),
        }
    }
}

impl Default for RouteReplayFile {
    fn default() -> Self {
        RouteReplayFile {
            keep: None,
            wait: seconds(5),
        }
    }
}

fn default_admin() -> Switch<Address> {
    Switch::On(Address(std::net::SocketAddr::from(([127, 0, 0, 1], 9464))))
}

fn default_watch() -> Switch<Span> {
    Switch::On(seconds(2))
}

fn default_drain() -> Span {
    seconds(10)
}

fn default_methods() -> Vec<Method> {
    vec![Method(http::Method::POST)]
}

const fn seconds(n: u64) -> Span {
    Span(Duration::from_secs(n))
}

const fn per_second(n: u32) -> Rate {
    Rate {
        count: nonzero(n),
        per: Duration::from_secs(1),
    }
}

const fn count(n: u32) -> Count {
    Count(nonzero(n))
}

/// For the numbers written in this file, none of which is zero.
const fn nonzero(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}
