//! The metrics that are read when somebody scrapes and cost nothing otherwise.
//!
//! Owners of a number (the memory in use, the replay store) keep it for their own purposes; counting it twice would
//! only let the two drift apart. So they hand in how to read it, through [`super::Metrics::watch`]. The numbers of the
//! process itself come from the kernel in the same moment.

use prometheus::{Counter, Gauge, IntCounter, IntGauge, Opts, Registry};

use super::families::{counter, gauge, register};
use super::labels::Watched;
use super::process::ProcessStats;
use crate::observe::panics;

type Reading = Box<dyn Fn() -> u64 + Send + Sync>;

/// What is read when somebody scrapes.
pub(super) struct Watches {
    buffered_bytes: (IntGauge, Option<Reading>),
    replay_entries: (IntGauge, Option<Reading>),
    replay_capacity: (IntGauge, Option<Reading>),
    overloaded: (IntGauge, Option<Reading>),
    log_lines_dropped: (IntCounter, Option<Reading>),
    panics: IntCounter,
    process: Option<ProcessSeries>,
}

impl Watches {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| (gauge(registry, name, help), None);
        Watches {
            buffered_bytes: gauge("buffered_bytes", "Bytes of bodies held in memory."),
            replay_entries: gauge("replay_entries", "Replay keys remembered."),
            replay_capacity: gauge("replay_capacity", "Replay keys that can be remembered at most."),
            overloaded: gauge("overloaded", "Whether requests wait for the processors; 0 or 1."),
            log_lines_dropped: (
                counter(registry, "log_lines_dropped_total", "Access-log lines that were lost."),
                None,
            ),
            panics: counter(
                registry,
                "panics_total",
                "Mistakes of this program that cost a request.",
            ),
            process: ProcessStats::read().map(|_| ProcessSeries::new(registry)),
        }
    }

    pub(super) fn set(&mut self, what: Watched, read: Reading) {
        match what {
            Watched::BufferedBytes => self.buffered_bytes.1 = Some(read),
            Watched::ReplayEntries => self.replay_entries.1 = Some(read),
            Watched::ReplayCapacity => self.replay_capacity.1 = Some(read),
            Watched::Overloaded => self.overloaded.1 = Some(read),
            Watched::LogLinesDropped => self.log_lines_dropped.1 = Some(read),
        }
    }

    pub(super) fn read(&self) {
        let gauges = [
            &self.buffered_bytes,
            &self.replay_entries,
            &self.replay_capacity,
            &self.overloaded,
        ];
        for (gauge, read) in gauges {
            if let Some(read) = read {
                gauge.set(i64::try_from(read()).unwrap_or(i64::MAX));
            }
        }
        if let (counter, Some(read)) = &self.log_lines_dropped {
            // A counter has no `set`; the difference keeps it growing for anybody who reads between.
            counter.inc_by(read().saturating_sub(counter.get()));
        }
        self.panics.inc_by(panics::count().saturating_sub(self.panics.get()));
        if let (Some(series), Some(stats)) = (&self.process, ProcessStats::read()) {
            series.show(&stats);
        }
    }
}

/// The conventional `process_*` families, without prefix.
struct ProcessSeries {
    cpu_seconds: Counter,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    start_seconds: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl ProcessSeries {
    fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| register(registry, Gauge::with_opts(Opts::new(name, help)));
        ProcessSeries {
            cpu_seconds: register(
                registry,
                Counter::with_opts(Opts::new(
                    "process_cpu_seconds_total",
                    "User and system time spent, in seconds.",
                )),
            ),
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory, in bytes."),
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory, in bytes."),
            start_seconds: gauge(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
            ),
            threads: gauge("process_threads", "Threads of the process."),
            open_fds: gauge("process_open_fds", "Open file descriptors."),
            max_fds: gauge("process_max_fds", "File descriptors that may be open at most."),
        }
    }

    fn show(&self, stats: &ProcessStats) {
        self.cpu_seconds
            .inc_by((stats.cpu_seconds - self.cpu_seconds.get()).max(0.0));
        self.resident_bytes.set(stats.resident_bytes as f64);
        self.virtual_bytes.set(stats.virtual_bytes as f64);
        self.start_seconds.set(stats.start_seconds);
        self.threads.set(stats.threads as f64);
        self.open_fds.set(stats.open_fds as f64);
        self.max_fds.set(stats.max_fds as f64);
    }
}
