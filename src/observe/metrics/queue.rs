//! The metrics of events that were accepted and are delivered afterwards.
//!
//! Couriers move the counters of their lane. What waits, and since when, is told by the queue itself when somebody
//! scrapes: counting it a second time would only let the two drift apart. Routes and destinations are names of the
//! configuration, of the present one or of one whose events still wait.

use std::time::Duration;

use prometheus::{Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};
use prometheus::{GaugeVec, IntGaugeVec};

use super::families::{full, gauge, labelled_counter, labelled_gauge, opts, register};

/// From acceptance to delivery, in seconds: 1 ms to three days.
const DELIVERY_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0, 86_400.0, 259_200.0,
];

/// One attempt, in seconds.
const ATTEMPT_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Jobs that went to disk in one commit.
const GROUP_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// One commit, its fsync included, in seconds.
const COMMIT_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// The families of the queue.
pub(super) struct QueueFamilies {
    attempts: IntCounterVec,
    attempt_seconds: HistogramVec,
    delivery_seconds: HistogramVec,
    deliveries: IntGaugeVec,
    oldest_seconds: GaugeVec,
    breaker: IntGaugeVec,
    paused: IntGaugeVec,
    writable: IntGauge,
    commit_jobs: Histogram,
    commit_seconds: Histogram,
}

/// How an attempt to deliver an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The destination took it.
    Yes,
    /// It is tried again.
    Later,
    /// It is a dead letter.
    Never,
}

/// The counters of one lane.
pub struct DeliveryMetrics {
    delivered: IntCounter,
    retried: IntCounter,
    dead: IntCounter,
    attempt_seconds: Histogram,
    delivery_seconds: Histogram,
}

/// The observations of an engine's commits. Cheap to clone.
#[derive(Clone)]
pub struct CommitMetrics {
    jobs: Histogram,
    seconds: Histogram,
}

/// How many deliveries of a lane are in a state.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The route's name.
    pub route: String,
    /// The destination's name.
    pub destination: String,
    /// The word for the state.
    pub state: &'static str,
    /// How many.
    pub deliveries: u64,
    /// The age of the oldest, where it matters.
    pub oldest: Option<Duration>,
}

impl QueueFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name, help, buckets: &[f64]| HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
        let by_lane = |name, help, buckets| {
            register(
                registry,
                HistogramVec::new(histogram(name, help, buckets), &["route", "destination"]),
            )
        };
        let single = |name, help, buckets| register(registry, Histogram::with_opts(histogram(name, help, buckets)));
        let lane_state = ["route", "destination", "state"];
        QueueFamilies {
            attempts: labelled_counter(
                registry,
                "delivery_attempts_total",
                "Attempts to deliver queued events, by what became of the event.",
                &["route", "destination", "outcome"],
            ),
            attempt_seconds: by_lane(
                "delivery_attempt_seconds",
                "Time of one attempt to deliver a queued event.",
                ATTEMPT_BUCKETS,
            ),
            delivery_seconds: by_lane(
                "delivery_seconds",
                "Time from the acceptance of an event to its delivery.",
                DELIVERY_BUCKETS,
            ),
            deliveries: labelled_gauge(
                registry,
                "queue_deliveries",
                "Queued deliveries, by state.",
                &lane_state,
            ),
            oldest_seconds: register(
                registry,
                GaugeVec::new(
                    opts("queue_oldest_seconds", "Age of the oldest queued delivery in a state."),
                    &lane_state,
                ),
            ),
            breaker: labelled_gauge(
                registry,
                "breaker_state",
                "Whether an upstream is delivered to: 0 yes, 1 tried carefully, 2 left alone.",
                &["upstream"],
            ),
            paused: labelled_gauge(
                registry,
                "route_paused",
                "Whether an operator paused the deliveries of a route.",
                &["route"],
            ),
            writable: gauge(
                registry,
                "queue_writable",
                "Whether events can be accepted into the queue.",
            ),
            commit_jobs: single("queue_commit_jobs", "Events in one commit of the queue.", GROUP_BUCKETS),
            commit_seconds: single(
                "queue_commit_seconds",
                "Time from the last statement of a commit of the queue until it is on disk.",
                COMMIT_BUCKETS,
            ),
        }
    }

    pub(super) fn lane(&self, route: &str, destination: &str) -> DeliveryMetrics {
        let attempts = |outcome| self.attempts.with_label_values(&[route, destination, outcome]);
        DeliveryMetrics {
            delivered: attempts("delivered"),
            retried: attempts("retried"),
            dead: attempts("dead"),
            attempt_seconds: self.attempt_seconds.with_label_values(&[route, destination]),
            delivery_seconds: self.delivery_seconds.with_label_values(&[route, destination]),
        }
    }

    pub(super) fn commits(&self) -> CommitMetrics {
        CommitMetrics {
            jobs: self.commit_jobs.clone(),
            seconds: self.commit_seconds.clone(),
        }
    }

    /// Replaces what was shown before: lanes and states that are not told any more are gone.
    pub(super) fn show(&self, waiting: &[Waiting], writable: bool) {
        self.deliveries.reset();
        self.oldest_seconds.reset();
        for lane in waiting {
            let labels = [lane.route.as_str(), lane.destination.as_str(), lane.state];
            let count = i64::try_from(lane.deliveries).unwrap_or(i64::MAX);
            self.deliveries.with_label_values(&labels).set(count);
            if let Some(oldest) = lane.oldest {
                let gauge: Gauge = self.oldest_seconds.with_label_values(&labels);
                gauge.set(oldest.as_secs_f64());
            }
        }
        self.writable.set(i64::from(writable));
    }

    pub(super) fn show_breaker(&self, upstream: &str, state: u8) {
        self.breaker.with_label_values(&[upstream]).set(i64::from(state));
    }

    pub(super) fn show_paused(&self, route: &str, paused: bool) {
        self.paused.with_label_values(&[route]).set(i64::from(paused));
    }
}

impl DeliveryMetrics {
    /// An attempt ended after this time.
    pub fn attempted(&self, delivered: Delivered, took: Duration) {
        match delivered {
            Delivered::Yes => self.delivered.inc(),
            Delivered::Later => self.retried.inc(),
            Delivered::Never => self.dead.inc(),
        }
        self.attempt_seconds.observe(took.as_secs_f64());
    }

    /// An event was delivered this long after its acceptance.
    pub fn arrived(&self, after: Duration) {
        self.delivery_seconds.observe(after.as_secs_f64());
    }
}

impl CommitMetrics {
    /// So many jobs went to disk together, and the sync took this time.
    pub fn committed(&self, jobs: usize, took: Duration) {
        self.jobs.observe(jobs as f64);
        self.seconds.observe(took.as_secs_f64());
    }
}
