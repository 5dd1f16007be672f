//! The worker: a courier for each lane, kept in step with the configuration.
//!
//! The gateway tells it which destinations there are, at the start and at every reload; operators pause and resume
//! routes. A lane whose destination stays keeps its courier, a new one gets one, and one that is gone loses it: its
//! events stay in the queue, owed and visible, until a configuration has the destination again or an operator ends them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::attempt::Destination;
use super::backoff::Chance;
use super::breaker::BreakerState;
use super::courier::{Courier, Office, Orders};
use crate::clock::Clock;
use crate::queue::{Lane, Queue, QueueError};

/// Time for what was cut off to be put on record.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Delivers what is queued.
pub struct Worker {
    office: Arc<Office>,
    staff: Mutex<Staff>,
}

#[derive(Default)]
struct Staff {
    couriers: HashMap<Lane, Employed>,
    /// Nobody is employed any more.
    stopped: bool,
}

struct Employed {
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

impl Worker {
    /// A worker without destinations. `seed` spreads the delays of this process differently from those of another.
    pub fn new(queue: Arc<dyn Queue>, clock: Clock, seed: u64) -> Self {
        Worker {
            office: Arc::new(Office {
                queue,
                clock,
                chance: Chance::new(seed),
                over: watch::Sender::new(false),
            }),
            staff: Mutex::default(),
        }
    }

    /// The queue it empties.
    pub fn queue(&self) -> &Arc<dyn Queue> {
        &self.office.queue
    }

    /// Delivers to these destinations from here on and to no others. Must be called on a Tokio runtime.
    pub fn serve(&self, destinations: &[Arc<Destination>]) {
        let mut staff = self.staff.lock();
        if staff.stopped {
            return;
        }
        let wanted: HashSet<Lane> = destinations.iter().map(|wanted| wanted.lane.clone()).collect();
        staff.couriers.retain(|lane, employed| {
            let stays = wanted.contains(lane);
            if !stays {
                log::info!("{lane}: no destination any more; its events stay in the queue");
                employed.orders.send_modify(|orders| orders.ended = true);
            }
            stays
        });
        let all_paused = self.office.queue.paused();
        for destination in destinations {
            let paused = all_paused.contains(&destination.lane.route);
            if let Some(employed) = staff.couriers.get(&destination.lane) {
                employed
                    .orders
                    .send_modify(|orders| orders.destination = Arc::clone(destination));
                continue;
            }
            let lane = destination.lane.clone();
            if paused {
                log::warn!("{lane}: deliveries are paused, and stay so until they are resumed");
            }
            let (orders, receiver) = watch::channel(Orders {
                destination: Arc::clone(destination),
                paused,
                ended: false,
            });
            let courier = Courier {
                lane: lane.clone(),
                office: Arc::clone(&self.office),
                orders: receiver,
            };
            let task = tokio::spawn(courier.run());
            staff.couriers.insert(lane, Employed { orders, task });
        }
    }

    /// Stops delivering events of `route`, which are accepted all the same, or delivers them again. Lasts over reloads
    /// and restarts. False when the route has no destination, nor a pause that could end.
    ///
    /// # Errors
    /// [`QueueError`]: it could not be put on record, and is not so.
    pub async fn pause(&self, route: &str, paused: bool) -> Result<bool, QueueError> {
        let queue = &self.office.queue;
        let has_destination = self.staff.lock().couriers.keys().any(|lane| &*lane.route == route);
        let can_end = !paused && queue.paused().iter().any(|of| &**of == route);
        if !has_destination && !can_end {
            return Ok(false);
        }
        queue.pause(route, paused).await?;
        let staff = self.staff.lock();
        // What is on record, whoever else was at it meanwhile.
        let paused = queue.paused().iter().any(|of| &**of == route);
        let of_route = staff.couriers.iter().filter(|(lane, _)| &*lane.route == route);
        of_route.for_each(|(_, employed)| employed.orders.send_modify(|orders| orders.paused = paused));
        Ok(true)
    }

    /// The routes that are delivered, in order, each with whether it is paused.
    pub fn routes(&self) -> Vec<(Arc<str>, bool)> {
        let staff = self.staff.lock();
        let mut routes: Vec<Arc<str>> = staff.couriers.keys().map(|lane| Arc::clone(&lane.route)).collect();
        routes.sort();
        routes.dedup();
        let all_paused = self.office.queue.paused();
        let paused = |route: Arc<str>| {
            let paused = all_paused.contains(&route);
            (route, paused)
        };
        routes.into_iter().map(paused).collect()
    }

    /// The upstreams that are delivered to, each with its breaker.
    pub fn breakers(&self) -> Vec<(String, BreakerState)> {
        let staff = self.staff.lock();
        let each = staff.couriers.values().map(|employed| {
            let orders = employed.orders.borrow();
            let destination = &orders.destination;
            (destination.upstream.name().to_owned(), destination.line.state())
        });
        let mut breakers: Vec<_> = each.collect();
        breakers.sort_by(|a, b| a.0.cmp(&b.0));
        breakers.dedup_by(|a, b| a.0 == b.0);
        breakers
    }

    /// Leases nothing more and waits for the attempts under way, for `patience` at most. The queue still takes events.
    pub async fn stop(&self, patience: Duration) {
        let couriers: Vec<Employed> = {
            let mut staff = self.staff.lock();
            staff.stopped = true;
            staff.couriers.drain().map(|(_, employed)| employed).collect()
        };
        for employed in &couriers {
            employed.orders.send_modify(|orders| orders.ended = true);
        }
        let mut couriers: Vec<_> = couriers.into_iter().map(|employed| employed.task).collect();
        if !all_ended(&mut couriers, patience).await {
            log::warn!("attempts under way are cut off; their events come again");
            self.office.over.send_replace(true);
            all_ended(&mut couriers, LAST_WORDS).await;
        }
        couriers.iter().for_each(JoinHandle::abort);
    }
}

/// Waits for all of `tasks`; false when that took longer than `patience`.
async fn all_ended(tasks: &mut Vec<JoinHandle<()>>, patience: Duration) -> bool {
    let all = async {
        while let Some(task) = tasks.last_mut() {
            // A courier that panicked has ended, too.
            let _ = task.await;
            tasks.pop();
        }
    };
    tokio::time::timeout(patience, all).await.is_ok()
}
