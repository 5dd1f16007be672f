//! The resolved counters that a route, an upstream, a secret or a connection keeps beside itself.
//!
//! Made by [`super::Metrics`] while configuration is built; used on every request. An observation is a few atomic
//! additions: no lock, no allocation, no label lookup. What is given back by hand is forgotten on some error path
//! sooner or later, so gauges are moved by guards that give back when they are dropped.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::NONE;
use super::families::Families;
use super::labels::{Attempt, Fetched, Limit, Outcome, Reason, Replay};

/// The counters of one route.
pub struct RouteMetrics {
    route: String,
    requests: Requests,
    request_seconds: Histogram,
    verify_seconds: Histogram,
    bytes_in: IntCounter,
    bytes_out: IntCounter,
    in_flight: IntGauge,
    replay_done: IntCounter,
    replay_shared: IntCounter,
    replay_in_flight_timeout: IntCounter,
    limit_client_rate: IntCounter,
    limit_client_in_flight: IntCounter,
    limit_overload: IntCounter,
    limit_in_flight: IntCounter,
    limit_memory: IntCounter,
    limit_route_rate: IntCounter,
    verified: IntCounterVec,
    handshakes: IntCounterVec,
}

impl RouteMetrics {
    pub(super) fn new(families: &Families, reasons: &'static [Reason], route: &str, provider: &str) -> Self {
        let bytes = |direction| families.body_bytes.with_label_values(&[route, direction]);
        let replay = |result| families.replays.with_label_values(&[route, result]);
        let limit = |limit| families.limit_hits.with_label_values(&[limit, route]);
        RouteMetrics {
            requests: Requests::new(families.requests.clone(), reasons, route, provider),
            request_seconds: families.request_seconds.with_label_values(&[route]),
            verify_seconds: families.verify_seconds.with_label_values(&[route]),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            in_flight: families.in_flight.with_label_values(&[route]),
            replay_done: replay("done"),
            replay_shared: replay("shared"),
            replay_in_flight_timeout: replay("in_flight_timeout"),
            limit_client_rate: limit("client_rate"),
            limit_client_in_flight: limit("client_in_flight"),
            limit_overload: limit("overload"),
            limit_in_flight: limit("in_flight"),
            limit_memory: limit("memory"),
            limit_route_rate: limit("route_rate"),
            verified: families.verified.clone(),
            handshakes: families.handshakes.clone(),
            route: route.to_owned(),
        }
    }

    /// A request is being worked on until the returned guard is dropped.
    pub fn enter(&self) -> InFlight {
        InFlight(Held::new(self.in_flight.clone()))
    }

    /// A request ended: `total` after its head, with `bytes_in` of body received and `bytes_out` of body answered.
    pub fn finished(&self, outcome: Outcome, total: Duration, bytes_in: u64, bytes_out: u64) {
        self.requests.counter(outcome).inc();
        self.request_seconds.observe(total.as_secs_f64());
        self.bytes_in.inc_by(bytes_in);
        self.bytes_out.inc_by(bytes_out);
    }

    /// Proving a request took this long, whatever came of it.
    pub fn verify_took(&self, time: Duration) {
        self.verify_seconds.observe(time.as_secs_f64());
    }

    /// A limit said no.
    pub fn limit_hit(&self, limit: Limit) {
        match limit {
            Limit::ClientRate => self.limit_client_rate.inc(),
            Limit::ClientInFlight => self.limit_client_in_flight.inc(),
            Limit::Overload => self.limit_overload.inc(),
            Limit::InFlight => self.limit_in_flight.inc(),
            Limit::Memory => self.limit_memory.inc(),
            Limit::RouteRate => self.limit_route_rate.inc(),
        }
    }

    /// The replay guard ended a repeat.
    pub fn replayed(&self, replay: Replay) {
        match replay {
            Replay::Done => self.replay_done.inc(),
            Replay::Shared => self.replay_shared.inc(),
            Replay::InFlightTimeout => self.replay_in_flight_timeout.inc(),
        }
    }

    /// The counter of one handshake, for whoever builds the route. `label` comes from the provider's file.
    pub fn handshake(&self, label: &str) -> HandshakeMetrics {
        HandshakeMetrics(self.handshakes.with_label_values(&[self.route.as_str(), label]))
    }

    /// The counter of one secret, for whoever builds the route: shows which secrets still prove requests during a
    /// rotation. `key_id` is the configured name of the secret.
    pub fn key(&self, key_id: &str) -> KeyMetrics {
        KeyMetrics(self.verified.with_label_values(&[self.route.as_str(), key_id]))
    }
}

/// The counter of one handshake of one route.
#[derive(Clone)]
pub struct HandshakeMetrics(IntCounter);

impl HandshakeMetrics {
    /// This handshake was answered.
    pub fn answered(&self) {
        self.0.inc();
    }
}

/// The counter of one secret of one route.
#[derive(Clone)]
pub struct KeyMetrics(IntCounter);

impl KeyMetrics {
    /// This secret proved a request.
    pub fn verified(&self) {
        self.0.inc();
    }
}

/// `requests_total` of one route: a slot per outcome, then one per reason.
///
/// The series a route can be expected to have exist from the start; a slot outside of that is filled when it is used.
struct Requests {
    family: IntCounterVec,
    reasons: &'static [Reason],
    route: String,
    provider: String,
    slots: Box<[OnceLock<IntCounter>]>,
}

/// Outcomes before the reasons in [`Requests::slots`].
const UNREFUSED: [Outcome; 6] = [
    Outcome::Forwarded,
    Outcome::Queued,
    Outcome::Replied,
    Outcome::Duplicate,
    Outcome::Passed,
    Outcome::Failed,
];

impl Requests {
    fn new(family: IntCounterVec, reasons: &'static [Reason], route: &str, provider: &str) -> Self {
        let requests = Requests {
            family,
            reasons,
            route: route.to_owned(),
            provider: provider.to_owned(),
            slots: (0..UNREFUSED.len().saturating_add(reasons.len()))
                .map(|_| OnceLock::new())
                .collect(),
        };
        let routed = route != NONE;
        let expected = |outcome: &Outcome| match outcome {
            Outcome::Passed => !routed,
            Outcome::Failed => true,
            Outcome::Forwarded | Outcome::Queued | Outcome::Replied | Outcome::Duplicate => routed,
            Outcome::Refused(position) => reasons.get(*position).is_some_and(|reason| reason.routed == routed),
        };
        for outcome in UNREFUSED
            .into_iter()
            .chain((0..reasons.len()).map(Outcome::Refused))
            .filter(expected)
        {
            requests.counter(outcome);
        }
        requests
    }

    /// The counter of an outcome. A reason that is in no list counts as a failure of ours, which it is.
    #[allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a slot for each outcome and each reason"
    )]
    fn counter(&self, outcome: Outcome) -> &IntCounter {
        let (slot, reason) = match outcome {
            Outcome::Forwarded => (0, NONE),
            Outcome::Queued => (1, NONE),
            Outcome::Replied => (2, NONE),
            Outcome::Duplicate => (3, NONE),
            Outcome::Passed => (4, NONE),
            Outcome::Failed => (5, NONE),
            Outcome::Refused(position) => match self.reasons.get(position) {
                Some(reason) => (UNREFUSED.len() + position, reason.label),
                None => return self.counter(Outcome::Failed),
            },
        };
        self.slots[slot].get_or_init(|| {
            let labels = [self.route.as_str(), self.provider.as_str(), outcome.label(), reason];
            self.family.with_label_values(&labels)
        })
    }
}

/// The counters of one upstream.
pub struct UpstreamMetrics {
    seconds: Histogram,
    ok: IntCounter,
    connect_failed: IntCounter,
    timeout: IntCounter,
    reset: IntCounter,
    bad_answer: IntCounter,
    answers: [IntCounter; 4],
}

impl UpstreamMetrics {
    pub(super) fn new(families: &Families, upstream: &str) -> Self {
        let attempt = |result| families.upstream_attempts.with_label_values(&[upstream, result]);
        UpstreamMetrics {
            seconds: families.upstream_seconds.with_label_values(&[upstream]),
            ok: attempt("ok"),
            connect_failed: attempt("connect_failed"),
            timeout: attempt("timeout"),
            reset: attempt("reset"),
            bad_answer: attempt("bad_answer"),
            answers: ["2xx", "3xx", "4xx", "5xx"]
                .map(|class| families.upstream_answers.with_label_values(&[upstream, class])),
        }
    }

    /// One attempt on one server ended.
    pub fn attempted(&self, attempt: Attempt) {
        match attempt {
            Attempt::Ok => self.ok.inc(),
            Attempt::ConnectFailed => self.connect_failed.inc(),
            Attempt::Timeout => self.timeout.inc(),
            Attempt::Reset => self.reset.inc(),
            Attempt::BadAnswer => self.bad_answer.inc(),
        }
    }

    /// An exchange ended, all of its attempts included, successful or not.
    pub fn took(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// The upstream answered with `status`; anything outside 200 to 599 is not counted.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(2);
        if let Some(counter) = class.and_then(|class| self.answers.get(class)) {
            counter.inc();
        }
    }
}

/// The counters of the fetcher of keys.
pub struct FetchMetrics {
    ok: IntCounter,
    refused: IntCounter,
    absent: IntCounter,
    unreachable: IntCounter,
    limited: IntCounter,
}

impl FetchMetrics {
    pub(super) fn new(families: &Families) -> Self {
        let result = |result| families.key_fetches.with_label_values(&[result]);
        FetchMetrics {
            ok: result("ok"),
            refused: result("refused"),
            absent: result("absent"),
            unreachable: result("unreachable"),
            limited: result("limited"),
        }
    }

    /// One fetch ended, or was not allowed to begin.
    pub fn ended(&self, fetched: Fetched) {
        match fetched {
            Fetched::Ok => self.ok.inc(),
            Fetched::Refused => self.refused.inc(),
            Fetched::Absent => self.absent.inc(),
            Fetched::Unreachable => self.unreachable.inc(),
            Fetched::Limited => self.limited.inc(),
        }
    }
}

/// A request that is being worked on; dropping it ends that.
#[must_use = "dropping the guard ends the count"]
pub struct InFlight(#[expect(dead_code, reason = "held for its drop")] Held);

/// A connection that is open; dropping it ends that.
#[must_use = "dropping the guard ends the count"]
pub struct OpenConnection(#[expect(dead_code, reason = "held for its drop")] Held);

impl OpenConnection {
    pub(super) fn new(gauge: IntGauge) -> Self {
        OpenConnection(Held::new(gauge))
    }
}

/// One unit of a gauge.
struct Held(IntGauge);

impl Held {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Held(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
