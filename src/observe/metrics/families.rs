//! The names, helps, labels and buckets of the metrics, and how they get into the registry.
//!
//! Names follow the conventions `promtool check metrics` holds them to: base units, `_total` on counters and nowhere
//! else, a help for each.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

/// Upper bounds of the request and upstream histograms, in seconds: 100 us to 10 s.
const EXCHANGE_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds of the verification histogram, in seconds: a MAC over 1 KiB takes microseconds, over 10 MiB tens of
/// milliseconds.
const VERIFY_BUCKETS: &[f64] = &[
    0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 1.0,
];

/// The families that have a series per route, upstream or key.
pub(super) struct Families {
    pub(super) requests: IntCounterVec,
    pub(super) request_seconds: HistogramVec,
    pub(super) verify_seconds: HistogramVec,
    pub(super) body_bytes: IntCounterVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) verified: IntCounterVec,
    pub(super) handshakes: IntCounterVec,
    pub(super) replays: IntCounterVec,
    pub(super) limit_hits: IntCounterVec,
    pub(super) upstream_seconds: HistogramVec,
    pub(super) upstream_attempts: IntCounterVec,
    pub(super) upstream_answers: IntCounterVec,
    pub(super) key_fetches: IntCounterVec,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name, help, labels: &[&str]| labelled_counter(registry, name, help, labels);
        let histogram = |name, help, labels: &[&str], buckets: &[f64]| {
            let opts = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
            register(registry, HistogramVec::new(opts, labels))
        };
        Families {
            requests: counter(
                "requests_total",
                "Requests that ended, by how and why.",
                &["route", "provider", "outcome", "reason"],
            ),
            request_seconds: histogram(
                "request_seconds",
                "Time from the head of a request to the end of its answer.",
                &["route"],
                EXCHANGE_BUCKETS,
            ),
            verify_seconds: histogram(
                "verify_seconds",
                "Time spent on proving a request.",
                &["route"],
                VERIFY_BUCKETS,
            ),
            body_bytes: counter(
                "body_bytes_total",
                "Bytes of bodies received (in) and answered (out).",
                &["route", "direction"],
            ),
            in_flight: labelled_gauge(registry, "in_flight", "Requests that are being worked on.", &["route"]),
            handshakes: counter(
                "handshakes_total",
                "Questions of the provider's protocol that were answered, by what they are recognised by.",
                &["route", "handshake"],
            ),
            verified: counter(
                "verified_total",
                "Requests proven, by the id of the secret that proved them.",
                &["route", "key_id"],
            ),
            replays: counter(
                "replays_total",
                "Repeats of events, by how they ended.",
                &["route", "result"],
            ),
            limit_hits: counter("limit_hits_total", "Requests refused by a limit.", &["limit", "route"]),
            upstream_seconds: histogram(
                "upstream_seconds",
                "Time from choosing a server to the end of its answer.",
                &["upstream"],
                EXCHANGE_BUCKETS,
            ),
            upstream_attempts: counter(
                "upstream_attempts_total",
                "Attempts on servers, by how they ended.",
                &["upstream", "result"],
            ),
            upstream_answers: counter(
                "upstream_answers_total",
                "Answers of upstreams, by class of status.",
                &["upstream", "class"],
            ),
            key_fetches: counter(
                "key_fetches_total",
                "Fetches of keys that providers publish, by how they ended.",
                &["result"],
            ),
        }
    }
}

pub(super) fn full(name: &str) -> String {
    format!("hookward_{name}")
}

pub(super) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(full(name), help)
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(opts(name, help)))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(opts(name, help)))
}

pub(super) fn labelled_counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(name, help), labels))
}

pub(super) fn labelled_gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(opts(name, help), labels))
}

/// Names, labels and buckets are constants of this file, so a failure is a mistake that any test run meets.
pub(super) fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a valid metric");
    registry
        .register(Box::new(collector.clone()))
        .expect("a name used once");
    collector
}
