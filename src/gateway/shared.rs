//! What outlives a reload: claims, buckets, places, counters, connections, the clock.
//!
//! A reload replaces the rules and nothing here, so it neither hands out fresh bursts nor forgets which events were
//! seen.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::admit::{Bucket, Clients, Memory, Places, Unproven};
use super::refusal::Reason;
use super::register::Brought;
use super::{Active, Strain};
use crate::clock::Clock;
use crate::fetch::{Allowance, Fetcher, World};
use crate::observe::metrics::{self, Build, RouteMetrics, Watched};
use crate::observe::{AccessLog, Metrics};
use crate::queue::{Queue, Worker};
use crate::store::ReplayStore;
use crate::upstream::Connector;

/// The state of a process that its rules share.
pub struct Shared {
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) unrouted: Arc<RouteMetrics>,
    pub(crate) access: AccessLog,
    pub(crate) store: Arc<dyn ReplayStore>,
    /// Delivers what is queued; `None`: nothing is.
    pub(crate) worker: Option<Worker>,
    pub(crate) connector: Connector,
    pub(crate) fetcher: Fetcher,
    pub(crate) clients: Clients,
    pub(crate) unproven: Unproven,
    /// Webhooks that are being worked on, of all routes.
    pub(crate) webhooks: Places,
    pub(crate) memory: Memory,
    /// Requests on their way, for the drain to wait for.
    pub(crate) active: Places,
    /// Whether there is more to do than can be done.
    pub(crate) strain: Arc<Strain>,
    draining: AtomicBool,
    /// Whether the time to drain is over, and what wakes everybody who has no answer yet then.
    drained: AtomicBool,
    wake: Notify,
    routes: Mutex<HashMap<Arc<str>, RouteState>>,
}

/// What a route keeps when its rules are replaced.
#[derive(Clone, Default)]
pub(crate) struct RouteState {
    pub(crate) bucket: Bucket,
    pub(crate) places: Places,
    pub(crate) brought: Brought,
    pub(crate) fetches: Allowance,
}

impl Shared {
    /// The state at the start of a process. `world` is where published keys come from: the internet, except in tests.
    pub fn new(
        clock: Clock,
        access: AccessLog,
        metrics: Arc<Metrics>,
        store: Arc<dyn ReplayStore>,
        queue: Option<Arc<dyn Queue>>,
        world: World,
    ) -> Self {
        let memory = Memory::default();
        let held = memory.clone();
        metrics.watch(Watched::BufferedBytes, move || held.held() as u64);
        let entries = Arc::clone(&store);
        metrics.watch(Watched::ReplayEntries, move || entries.entries());
        let capacity = store.capacity();
        metrics.watch(Watched::ReplayCapacity, move || capacity);
        let log = access.clone();
        metrics.watch(Watched::LogLinesDropped, move || log.dropped());
        let strain = Strain::new(&clock);
        let felt = Arc::clone(&strain);
        metrics.watch(Watched::Overloaded, move || u64::from(felt.is_felt()));
        let connector = Connector::new();
        Shared {
            fetcher: Fetcher::new(world, &connector, metrics.fetches(), clock.clone()),
            connector,
            unrouted: metrics.unrouted(),
            metrics,
            access,
            store,
            worker: queue.map(|queue| Worker::new(queue, clock.clone(), seed())),
            clients: Clients::new(),
            unproven: Unproven::new(),
            webhooks: Places::default(),
            memory,
            active: Places::default(),
            strain,
            draining: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            wake: Notify::new(),
            routes: Mutex::default(),
            clock,
        }
    }

    /// The metrics of a process, for engines that want them before the rest is there.
    pub fn fresh_metrics() -> Arc<Metrics> {
        let build = Build {
            version: env!("CARGO_PKG_VERSION"),
            revision: option_env!("HOOKWARD_REVISION").unwrap_or("unknown"),
        };
        Arc::new(Metrics::new(build, reasons()))
    }

    /// The clock of the process.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The metrics of the process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What delivers queued events; `None`: nothing is queued.
    pub fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref()
    }

    /// Whether the process is on its way out: not ready for new traffic, finishing what it has.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Requests on their way at present.
    pub fn active(&self) -> usize {
        self.active.taken()
    }

    /// A request is on its way until the returned guard is dropped.
    pub(crate) fn enter(&self) -> Active {
        self.active.enter()
    }

    /// From here on the process serves, whether or not it was drained before.
    pub(crate) fn start_serving(&self) {
        self.draining.store(false, Ordering::Release);
        self.drained.store(false, Ordering::Release);
    }

    /// From here on the process is draining.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The time to drain is over: whoever has no answer yet is refused with `draining`.
    pub(crate) fn end_draining(&self) {
        self.drained.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Resolves when the time to drain is over, also for who comes later.
    pub(crate) async fn drain_over(&self) {
        let mut woken = pin!(self.wake.notified());
        // Registered before it is looked: who is told in between is woken.
        woken.as_mut().enable();
        if !self.drained.load(Ordering::Acquire) {
            woken.await;
        }
    }

    /// Writes out what is left of the access log; waits for at most `patience`.
    pub(crate) fn close_log(&self, patience: Duration) {
        if !self.access.close(patience) {
            log::warn!("the last lines of the access log could not be written in time");
        }
    }

    /// What the route of this name keeps over reloads. Names come from configuration, so the map stays small.
    pub(crate) fn route(&self, name: &Arc<str>) -> RouteState {
        self.routes.lock().entry(Arc::clone(name)).or_default().clone()
    }
}

/// Different in each process, so that gateways which lost the same upstream do not come back in step.
fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// The table of refusals as the metrics want it.
fn reasons() -> &'static [metrics::Reason] {
    static REASONS: std::sync::LazyLock<Vec<metrics::Reason>> = std::sync::LazyLock::new(|| {
        let row = |reason: Reason| metrics::Reason {
            label: reason.row().label,
            routed: reason.routed(),
        };
        Reason::ALL.map(row).into()
    });
    &REASONS
}
