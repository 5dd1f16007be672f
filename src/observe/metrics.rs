//! The metrics of the process: one registry, all families, the text that Prometheus scrapes.
//!
//! Made once at start. Configuration asks for the handles of each route and upstream while it is built and keeps them
//! beside the route, so that a request increments plain atomics and never looks a label up. Asking again after a
//! reload gives handles on the same counters: nothing is lost and nothing starts from zero.
//!
//! Promises: every label value comes from configuration or from a closed enum, so the number of series depends on
//! the configuration alone. Labels taken from requests (paths, methods, event types) are how a sprayed gateway fills
//! the memory of its own monitoring; there is no way to pass one here. Series of routes that a reload removed stay
//! until the process ends.

mod families;
mod handles;
mod labels;
mod process;
mod queue;
mod scraped;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{Gauge, IntCounter, IntGauge, Registry, TextEncoder};

pub use handles::{
    FetchMetrics, HandshakeMetrics, InFlight, KeyMetrics, OpenConnection, RouteMetrics, UpstreamMetrics,
};
pub use labels::{Attempt, Build, Fetched, Limit, Outcome, Reason, Replay, Turned, Watched};
pub use queue::{CommitMetrics, Delivered, DeliveryMetrics, Waiting};

use self::families::{Families, counter, gauge, labelled_counter, labelled_gauge, opts, register};
use self::queue::QueueFamilies;
use self::scraped::Watches;
use crate::clock::UnixMillis;

/// The label of a route, a provider or a reason that does not apply. Configuration must not use it as a name.
pub const NONE: &str = "-";

/// The `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process. Shared behind an `Arc` by whoever counts.
pub struct Metrics {
    registry: Registry,
    reasons: &'static [Reason],
    families: Families,
    queue: QueueFamilies,
    unrouted: Arc<RouteMetrics>,
    open_connections: IntGauge,
    connections: IntCounter,
    handshakes: IntCounter,
    turned_away: [IntCounter; Turned::ALL.len()],
    reloads_ok: IntCounter,
    reloads_failed: IntCounter,
    reload_successful: IntGauge,
    reload_seconds: Gauge,
    watches: Mutex<Watches>,
}

impl Metrics {
    /// Registers every family. `reasons` is the closed list of refusals; [`Outcome::Refused`] holds positions in it.
    pub fn new(build: Build, reasons: &'static [Reason]) -> Self {
        let registry = Registry::new();
        let families = Families::new(&registry);
        let info = labelled_gauge(
            &registry,
            "build_info",
            "What is running; always 1.",
            &["version", "revision"],
        );
        info.with_label_values(&[build.version, build.revision]).set(1);
        let reloads = labelled_counter(
            &registry,
            "config_reloads_total",
            "Reloads of the configuration.",
            &["result"],
        );
        let turned_away = labelled_counter(
            &registry,
            "connections_turned_away_total",
            "Connections that were closed before their first request.",
            &["reason"],
        );
        Metrics {
            unrouted: Arc::new(RouteMetrics::new(&families, reasons, NONE, NONE)),
            open_connections: gauge(&registry, "open_connections", "Connections from outside that are open."),
            connections: counter(
                &registry,
                "connections_total",
                "Connections from outside that were accepted.",
            ),
            handshakes: counter(&registry, "tls_handshakes_total", "TLS handshakes that were completed."),
            turned_away: Turned::ALL.map(|why| turned_away.with_label_values(&[why.label()])),
            reloads_ok: reloads.with_label_values(&["ok"]),
            reloads_failed: reloads.with_label_values(&["failed"]),
            reload_successful: gauge(
                &registry,
                "config_last_reload_successful",
                "Whether the last attempt to load the configuration succeeded.",
            ),
            reload_seconds: register(
                &registry,
                Gauge::with_opts(opts(
                    "config_last_reload_success_timestamp_seconds",
                    "When the configuration in use was loaded.",
                )),
            ),
            watches: Mutex::new(Watches::new(&registry)),
            queue: QueueFamilies::new(&registry),
            registry,
            reasons,
            families,
        }
    }

    /// The handles of a route, for whoever builds it. Equal names give handles on the same counters.
    pub fn route(&self, route: &str, provider: &str) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics::new(&self.families, self.reasons, route, provider))
    }

    /// The handles for requests without a route, passed-through ones included: route and provider are `-`.
    pub fn unrouted(&self) -> Arc<RouteMetrics> {
        Arc::clone(&self.unrouted)
    }

    /// The handles of an upstream, for whoever builds it. Equal names give handles on the same counters.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        Arc::new(UpstreamMetrics::new(&self.families, name))
    }

    /// The handles of the fetcher of keys.
    pub fn fetches(&self) -> FetchMetrics {
        FetchMetrics::new(&self.families)
    }

    /// The counters of the deliveries of one lane, for whoever builds it. Equal names give the same counters.
    pub fn deliveries(&self, route: &str, destination: &str) -> Arc<DeliveryMetrics> {
        Arc::new(self.queue.lane(route, destination))
    }

    /// For an engine to observe its commits.
    pub fn commits(&self) -> CommitMetrics {
        self.queue.commits()
    }

    /// What waits in the queue at this moment, and whether it takes more; replaces what was shown before.
    pub fn show_queue(&self, waiting: &[Waiting], writable: bool) {
        self.queue.show(waiting, writable);
    }

    /// Whether an upstream is delivered to: 0 yes, 1 tried carefully, 2 left alone.
    pub fn show_breaker(&self, upstream: &str, state: u8) {
        self.queue.show_breaker(upstream, state);
    }

    /// Whether an operator paused a route.
    pub fn show_paused(&self, route: &str, paused: bool) {
        self.queue.show_paused(route, paused);
    }

    /// Counts a connection from outside as open until the returned guard is dropped.
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection::new(self.open_connections.clone())
    }

    /// Counts a completed TLS handshake.
    pub fn handshake_done(&self) {
        self.handshakes.inc();
    }

    /// Counts a connection that was closed before its first request, or for what it sent instead of requests.
    pub fn connection_turned_away(&self, why: Turned) {
        if let Some(counter) = Turned::ALL
            .iter()
            .position(|known| *known == why)
            .and_then(|at| self.turned_away.get(at))
        {
            counter.inc();
        }
    }

    /// Connections from outside that are open at present.
    pub fn open_connections(&self) -> usize {
        usize::try_from(self.open_connections.get()).unwrap_or(0)
    }

    /// A configuration was put in use at `at`: at start, not counted as a reload.
    pub fn config_started(&self, at: UnixMillis) {
        self.reload_successful.set(1);
        self.reload_seconds.set(at.0 as f64 / 1000.0);
    }

    /// A reload put a new configuration in use at `at`.
    pub fn config_reloaded(&self, at: UnixMillis) {
        self.reloads_ok.inc();
        self.config_started(at);
    }

    /// A reload found problems and changed nothing.
    pub fn config_refused(&self) {
        self.reloads_failed.inc();
        self.reload_successful.set(0);
    }

    /// From here on `read` is asked for `what` at every scrape; it replaces an earlier one.
    ///
    /// `read` runs while a lock is held that only scrapes and `watch` take: it must be quick and must not call back.
    pub fn watch(&self, what: Watched, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.watches.lock().set(what, Box::new(read));
    }

    /// The exposition in Prometheus' text format ([`CONTENT_TYPE`]), for the admin listener.
    ///
    /// Blocks its thread for a time that grows with the number of routes and of open files: milliseconds for hundreds
    /// of routes and thousands of connections. Observations go on meanwhile.
    pub fn text(&self) -> String {
        self.watches.lock().read();
        let families = self.registry.gather();
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_else(|problem| {
                log::error!("metrics cannot be written: {problem}");
                String::new()
            })
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::families::full;
    use super::*;

    const BUILD: Build = Build {
        version: "1.2.3",
        revision: "abc",
    };
    const REASONS: &[Reason] = &[
        Reason {
            label: "bad_framing",
            routed: false,
        },
        Reason {
            label: "mismatch",
            routed: true,
        },
        Reason {
            label: "too_large",
            routed: true,
        },
    ];
    const MISMATCH: Outcome = Outcome::Refused(1);

    fn metrics() -> Metrics {
        Metrics::new(BUILD, REASONS)
    }

    /// Every sample of the exposition by its name with labels.
    fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
        let text = metrics.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    fn requests(route: &str, outcome: &str, reason: &str) -> String {
        format!(
            "hookward_requests_total{{outcome=\"{outcome}\",provider=\"{route}\",reason=\"{reason}\",route=\"{route}\"}}"
        )
    }

    /// Moves every metric there is.
    fn exercise(metrics: &Metrics, route: &str) {
        let handles = metrics.route(route, route);
        let _in_flight = handles.enter();
        let _connection = metrics.connection_opened();
        for outcome in [
            Outcome::Forwarded,
            Outcome::Queued,
            Outcome::Replied,
            Outcome::Duplicate,
            Outcome::Passed,
            Outcome::Failed,
        ] {
            handles.finished(outcome, Duration::from_micros(300), 1024, 2);
        }
        (0..4).for_each(|position| handles.finished(Outcome::Refused(position), Duration::ZERO, 0, 0));
        handles.verify_took(Duration::from_nanos(1500));
        [
            Limit::ClientRate,
            Limit::ClientInFlight,
            Limit::Overload,
            Limit::InFlight,
            Limit::Memory,
            Limit::RouteRate,
        ]
        .into_iter()
        .for_each(|limit| handles.limit_hit(limit));
        [Replay::Done, Replay::Shared, Replay::InFlightTimeout]
            .into_iter()
            .for_each(|replay| handles.replayed(replay));
        handles.key("new").verified();
        handles.handshake("hub.mode").answered();
        let upstream = metrics.upstream("app");
        [
            Attempt::Ok,
            Attempt::ConnectFailed,
            Attempt::Timeout,
            Attempt::Reset,
            Attempt::BadAnswer,
        ]
        .into_iter()
        .for_each(|attempt| upstream.attempted(attempt));
        upstream.took(Duration::from_secs(60));
        [100, 200, 302, 404, 599, 600, u16::MAX, 0]
            .into_iter()
            .for_each(|status| upstream.answered(status));
        let fetches = metrics.fetches();
        [
            Fetched::Ok,
            Fetched::Refused,
            Fetched::Absent,
            Fetched::Unreachable,
            Fetched::Limited,
        ]
        .into_iter()
        .for_each(|fetched| fetches.ended(fetched));
        let deliveries = metrics.deliveries(route, route);
        [Delivered::Yes, Delivered::Later, Delivered::Never]
            .into_iter()
            .for_each(|delivered| deliveries.attempted(delivered, Duration::from_millis(3)));
        deliveries.arrived(Duration::from_secs(40));
        metrics.commits().committed(7, Duration::from_millis(3));
        let waiting = Waiting {
            route: route.into(),
            destination: route.into(),
            state: "dead",
            deliveries: 3,
            oldest: Some(Duration::from_secs(90)),
        };
        metrics.show_queue(&[waiting], true);
        metrics.show_breaker("app", 2);
        metrics.show_paused(route, true);
        metrics.config_started(UnixMillis(1500));
        metrics.config_reloaded(UnixMillis(2500));
        metrics.config_refused();
    }

    #[test]
    fn every_observation_moves_its_own_series() {
        // An alarm on forgeries that counts time-outs rings for nothing, or not at all.
        let metrics = metrics();
        exercise(&metrics, "r");
        let samples = samples(&metrics);
        let expected = [
            (requests("r", "forwarded", "-"), 1.0),
            (requests("r", "queued", "-"), 1.0),
            (requests("r", "replied", "-"), 1.0),
            (requests("r", "duplicate", "-"), 1.0),
            (requests("r", "passed", "-"), 1.0),
            // One of them was a reason that no list has.
            (requests("r", "failed", "-"), 2.0),
            (requests("r", "refused", "bad_framing"), 1.0),
            (requests("r", "refused", "mismatch"), 1.0),
            (requests("r", "refused", "too_large"), 1.0),
            ("hookward_request_seconds_count{route=\"r\"}".into(), 10.0),
            (
                "hookward_request_seconds_bucket{route=\"r\",le=\"0.00025\"}".into(),
                4.0,
            ),
            (
                "hookward_request_seconds_bucket{route=\"r\",le=\"0.0005\"}".into(),
                10.0,
            ),
            (
                "hookward_verify_seconds_bucket{route=\"r\",le=\"0.000002\"}".into(),
                1.0,
            ),
            ("hookward_body_bytes_total{direction=\"in\",route=\"r\"}".into(), 6144.0),
            ("hookward_body_bytes_total{direction=\"out\",route=\"r\"}".into(), 12.0),
            (
                "hookward_limit_hits_total{limit=\"client_rate\",route=\"r\"}".into(),
                1.0,
            ),
            (
                "hookward_limit_hits_total{limit=\"client_in_flight\",route=\"r\"}".into(),
                1.0,
            ),
            ("hookward_limit_hits_total{limit=\"overload\",route=\"r\"}".into(), 1.0),
            ("hookward_limit_hits_total{limit=\"in_flight\",route=\"r\"}".into(), 1.0),
            ("hookward_limit_hits_total{limit=\"memory\",route=\"r\"}".into(), 1.0),
            (
                "hookward_limit_hits_total{limit=\"route_rate\",route=\"r\"}".into(),
                1.0,
            ),
            ("hookward_replays_total{result=\"done\",route=\"r\"}".into(), 1.0),
            ("hookward_replays_total{result=\"shared\",route=\"r\"}".into(), 1.0),
            (
                "hookward_replays_total{result=\"in_flight_timeout\",route=\"r\"}".into(),
                1.0,
            ),
            ("hookward_verified_total{key_id=\"new\",route=\"r\"}".into(), 1.0),
            ("hookward_key_fetches_total{result=\"ok\"}".into(), 1.0),
            ("hookward_key_fetches_total{result=\"refused\"}".into(), 1.0),
            ("hookward_key_fetches_total{result=\"absent\"}".into(), 1.0),
            ("hookward_key_fetches_total{result=\"unreachable\"}".into(), 1.0),
            ("hookward_key_fetches_total{result=\"limited\"}".into(), 1.0),
            (
                "hookward_handshakes_total{handshake=\"hub.mode\",route=\"r\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_attempts_total{result=\"ok\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_attempts_total{result=\"connect_failed\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_attempts_total{result=\"timeout\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_attempts_total{result=\"reset\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_attempts_total{result=\"bad_answer\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_answers_total{class=\"2xx\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_answers_total{class=\"3xx\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_answers_total{class=\"4xx\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_answers_total{class=\"5xx\",upstream=\"app\"}".into(),
                1.0,
            ),
            (
                "hookward_upstream_seconds_bucket{upstream=\"app\",le=\"10\"}".into(),
                0.0,
            ),
            (
                "hookward_upstream_seconds_bucket{upstream=\"app\",le=\"+Inf\"}".into(),
                1.0,
            ),
            ("hookward_config_reloads_total{result=\"ok\"}".into(), 1.0),
            ("hookward_config_reloads_total{result=\"failed\"}".into(), 1.0),
            ("hookward_config_last_reload_successful".into(), 0.0),
            ("hookward_config_last_reload_success_timestamp_seconds".into(), 2.5),
            ("hookward_connections_total".into(), 1.0),
            ("hookward_build_info{revision=\"abc\",version=\"1.2.3\"}".into(), 1.0),
        ];
        for (series, value) in expected {
            assert_eq!(samples.get(&series), Some(&value), "{series}");
        }
    }

    #[test]
    fn guards_give_back_what_they_counted() {
        // A gauge that only rises pages somebody for a load that is long gone.
        let metrics = metrics();
        let route = metrics.route("r", "r");
        let held = (route.enter(), route.enter(), metrics.connection_opened());
        let gauges = |samples: BTreeMap<String, f64>| {
            (
                samples["hookward_in_flight{route=\"r\"}"],
                samples["hookward_open_connections"],
            )
        };
        assert_eq!(gauges(samples(&metrics)), (2.0, 1.0));
        drop(held);
        assert_eq!(gauges(samples(&metrics)), (0.0, 0.0));
    }

    #[test]
    fn a_reload_keeps_counting_where_it_was() {
        // Rates would show a gap and totals a loss at every reload.
        let metrics = metrics();
        metrics.route("r", "r").finished(MISMATCH, Duration::ZERO, 0, 0);
        metrics.route("r", "r").finished(MISMATCH, Duration::ZERO, 0, 0);
        let before = samples(&metrics);
        assert_eq!(before[&requests("r", "refused", "mismatch")], 2.0);
        for _ in 0..100 {
            metrics.route("r", "r");
            metrics.upstream("app");
        }
        let series_per_upstream = 17 + 2 + 5 + 4;
        assert_eq!(samples(&metrics).len(), before.len() + series_per_upstream);
    }

    #[test]
    fn what_a_route_can_meet_is_zero_from_the_start() {
        // The first forgery would not be an increase, and no alarm would ring.
        let metrics = metrics();
        metrics.route("r", "r");
        let samples = samples(&metrics);
        assert_eq!(samples.get(&requests("r", "refused", "mismatch")), Some(&0.0));
        assert_eq!(samples.get(&requests("r", "refused", "bad_framing")), None);
        assert_eq!(samples.get(&requests("-", "refused", "bad_framing")), Some(&0.0));
        assert_eq!(samples.get(&requests("-", "passed", "-")), Some(&0.0));
        assert_eq!(samples.get(&requests("-", "forwarded", "-")), None);
    }

    #[test]
    fn watched_numbers_are_read_at_each_scrape() {
        // Memory in use would be shown as it was at start.
        let metrics = metrics();
        let number = Arc::new(AtomicU64::new(7));
        for what in [
            Watched::BufferedBytes,
            Watched::ReplayEntries,
            Watched::ReplayCapacity,
            Watched::Overloaded,
            Watched::LogLinesDropped,
        ] {
            let number = Arc::clone(&number);
            metrics.watch(what, move || number.load(Ordering::SeqCst));
        }
        let names = [
            "buffered_bytes",
            "replay_entries",
            "replay_capacity",
            "overloaded",
            "log_lines_dropped_total",
        ];
        for value in [7.0, 7.0, 9.0] {
            number.store(value as u64, Ordering::SeqCst);
            let samples = samples(&metrics);
            assert_eq!(names.map(|name| samples[&full(name)]), [value; 5]);
        }
    }

    #[test]
    fn nothing_is_lost_while_somebody_scrapes() {
        // Billing by these counters would come out short on busy days.
        let metrics = metrics();
        let route = metrics.route("r", "r");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|_| route.finished(MISMATCH, Duration::from_millis(1), 1, 1)));
            }
            scope.spawn(|| (0..50).for_each(|_| drop(metrics.text())));
        });
        let samples = samples(&metrics);
        assert_eq!(samples[&requests("r", "refused", "mismatch")], 80_000.0);
        assert_eq!(samples["hookward_request_seconds_count{route=\"r\"}"], 80_000.0);
        assert_eq!(
            samples["hookward_request_seconds_bucket{route=\"r\",le=\"0.001\"}"],
            80_000.0
        );
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        // Names that break the conventions cannot be changed once dashboards use them.
        let metrics = metrics();
        exercise(&metrics, "plain");
        exercise(&metrics, "odd \"name\" \\ with\nall that breaks lines \u{e9}");
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed for this test; it comes with the package `prometheus`");
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(metrics.text().as_bytes())
            .unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&said).as_ref()),
            (Some(0), "")
        );
    }
}
