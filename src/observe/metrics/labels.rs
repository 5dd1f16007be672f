//! The values that labels can have: closed enums, so that nobody outside can add a series.
//!
//! Callers speak in these and never in strings; [`super::handles`] turns each into its counter. A new value is added
//! here and, the compiler sees to it, there.

/// What is running, for `hookward_build_info`.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The version of the crate.
    pub version: &'static str,
    /// The commit it was built from, or `unknown`.
    pub revision: &'static str,
}

/// One reason for refusing a request, as the gateway's table of refusals lists it.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// The value of the label `reason`.
    pub label: &'static str,
    /// Whether it happens after a route was found. Decides which series exist from the start with the value 0, so
    /// that the first forgery of a route already is an increase; any other combination appears when it happens.
    pub routed: bool,
}

/// How a request ended, for `hookward_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream's answer was given back, whatever its status.
    Forwarded,
    /// The event is in the queue, and its provider was told so.
    Queued,
    /// The gateway answered in the provider's protocol: a challenge, a handshake.
    Replied,
    /// A repeat of an event, answered with the first success's status and not forwarded.
    Duplicate,
    /// No webhook route: passed through to the application.
    Passed,
    /// No answer could be given to the end: the sender went away, or we failed.
    Failed,
    /// Refused; the position of its reason in the list given to [`super::Metrics::new`].
    Refused(usize),
}

impl Outcome {
    /// The label in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Forwarded => "forwarded",
            Outcome::Queued => "queued",
            Outcome::Replied => "replied",
            Outcome::Duplicate => "duplicate",
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Refused(_) => "refused",
        }
    }
}

/// A limit that said no, for `hookward_limit_hits_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests per client address.
    ClientRate,
    /// Requests of one client address at the same time that have proven nothing yet.
    ClientInFlight,
    /// Requests of all routes at the same time.
    Overload,
    /// Events of a route at the same time.
    InFlight,
    /// Bytes of bodies held in memory by the process.
    Memory,
    /// Verified requests per route.
    RouteRate,
}

/// How the replay guard ended a repeat, for `hookward_replays_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The event was done already.
    Done,
    /// The event was in flight and the repeat shared its outcome.
    Shared,
    /// The event was in flight for longer than the repeat could wait.
    InFlightTimeout,
}

/// How one attempt on a server ended, for `hookward_upstream_attempts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A whole answer arrived, whatever its status.
    Ok,
    /// No connection; nothing was sent.
    ConnectFailed,
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer did.
    Reset,
    /// The answer was no HTTP, or one that cannot be passed on.
    BadAnswer,
}

/// How a fetch of a provider's published key ended, for `hookward_key_fetches_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A key arrived.
    Ok,
    /// What arrived is no key, or led elsewhere.
    Refused,
    /// Nothing of that name is published.
    Absent,
    /// No connection, no name, a failing server, no answer in time.
    Unreachable,
    /// The route had asked too often; nothing was sent.
    Limited,
}

/// A number that its owner keeps anyway and that is read when metrics are scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Bytes of bodies held in memory.
    BufferedBytes,
    /// Replay keys remembered.
    ReplayEntries,
    /// Replay keys that can be remembered at most.
    ReplayCapacity,
    /// Whether requests wait for the processors; 0 or 1.
    Overloaded,
    /// Access-log lines lost since the start; only grows.
    LogLinesDropped,
}

/// Why a connection was closed before its first request, or for what it sent instead of requests, for `hookward_connections_turned_away_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The process has as many connections as it may.
    Full,
    /// The client has as many connections as it may.
    ClientFull,
    /// Somebody who is no load balancer came to a listener for load balancers.
    Stranger,
    /// No PROXY protocol header where one has to be.
    ProxyHeader,
    /// No TLS came about.
    Handshake,
    /// All of that took too long.
    TooSlow,
    /// Frames of HTTP/2 beyond number that carry nothing, or hardly anything.
    Flood,
}

impl Turned {
    /// Every reason, in the order of the counters.
    pub(super) const ALL: [Turned; 7] = [
        Turned::Full,
        Turned::ClientFull,
        Turned::Stranger,
        Turned::ProxyHeader,
        Turned::Handshake,
        Turned::TooSlow,
        Turned::Flood,
    ];

    /// The label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Turned::Full => "full",
            Turned::ClientFull => "client_full",
            Turned::Stranger => "stranger",
            Turned::ProxyHeader => "proxy_header",
            Turned::Handshake => "handshake",
            Turned::TooSlow => "too_slow",
            Turned::Flood => "flood",
        }
    }
}
