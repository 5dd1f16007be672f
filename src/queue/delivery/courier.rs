//! The courier of one lane: takes what is due out of the queue and attempts it, as its line permits.
//!
//! One task for each destination of each route, started by the worker. It asks for a turn first and leases then, so what
//! cannot be delivered stays on disk; it leases as many at once as there are turns free, and no more. An event is in
//! memory while it is attempted; a few are from their publication on, which the engine bounds. A lane that is paused, or
//! whose upstream is down, holds nothing.
//!
//! A courier ends when it is told to, or when the queue is closed for good. Attempts under way are finished, or cut off
//! when the patience is over: those count as tried, since the backend may have acted, and the events come again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::attempt::{Destination, Outcome};
use super::backoff::Chance;
use super::line::Turn;
use crate::clock::{Clock, UnixMillis};
use crate::queue::{Batch, End, Ended, Lane, Leased, Queue, QueueError};

/// Turns that one lane takes together.
const TURNS_MAX: usize = 32;

/// Added to an upstream's timeout for the term of a lease: the attempt must have ended before it passes.
const TERM_MARGIN: Duration = Duration::from_secs(30);

/// After this long an engine that could not lease is asked again.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// So that a lane in which nothing can be had does not spin.
const SOON: Duration = Duration::from_millis(2);

/// What a courier is to do; replaced by the worker.
#[derive(Clone)]
pub(super) struct Orders {
    pub(super) destination: Arc<Destination>,
    pub(super) paused: bool,
    pub(super) ended: bool,
}

/// What all couriers share.
pub(super) struct Office {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) clock: Clock,
    pub(super) chance: Chance,
    /// True when attempts under way are not waited for any more.
    pub(super) over: watch::Sender<bool>,
}

/// The task of one lane.
pub(super) struct Courier {
    pub(super) lane: Lane,
    pub(super) office: Arc<Office>,
    pub(super) orders: watch::Receiver<Orders>,
}

/// Why the courier goes on without a lease.
enum Pause {
    /// Nothing is due before.
    Until(Option<UnixMillis>),
    /// The engine is not well.
    Trouble,
    /// There may be more.
    None,
    /// Something is due and was not handed out: it changes hands at this moment.
    Soon,
    /// The queue is closed.
    End,
}

impl Courier {
    /// Delivers until told otherwise, then waits for what is under way.
    pub(super) async fn run(mut self) {
        let bell = self.office.queue.bell(&self.lane);
        let mut attempts = JoinSet::new();
        loop {
            let orders = self.orders.borrow_and_update().clone();
            if orders.ended {
                break;
            }
            if orders.paused {
                // Fails only when the worker is gone, which is an end.
                if self.orders.changed().await.is_err() {
                    break;
                }
                continue;
            }
            let pause = tokio::select! {
                biased;
                changed = self.orders.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
                turn = orders.destination.line.turn() => {
                    self.lease(turn, &orders.destination, &bell, &mut attempts).await
                }
            };
            while attempts.try_join_next().is_some() {}
            if !self.wait(pause, &bell).await {
                break;
            }
        }
        while attempts.join_next().await.is_some() {}
    }

    /// Leases for `turn` and as many others as there are at once, and starts the attempts.
    async fn lease(
        &self,
        turn: Turn,
        destination: &Arc<Destination>,
        bell: &Arc<Notify>,
        attempts: &mut JoinSet<()>,
    ) -> Pause {
        let more = std::iter::from_fn(|| destination.line.turn_at_once());
        let mut turns: Vec<Turn> = std::iter::once(turn).chain(more.take(TURNS_MAX - 1)).collect();
        let term = destination.upstream.settings().timeout.saturating_add(TERM_MARGIN);
        let batch = self.office.queue.lease(&self.lane, turns.len(), term).await;
        let Batch { leased, next_at } = match batch {
            Ok(batch) => batch,
            Err(QueueError::Closed) => return Pause::End,
            Err(problem) => {
                log::error!("{}: nothing can be taken out of the queue: {problem}", self.lane);
                return Pause::Trouble;
            }
        };
        let (full, nothing) = (leased.len() >= turns.len(), leased.is_empty());
        for leased in leased {
            let attempt = Attempting {
                office: Arc::clone(&self.office),
                destination: Arc::clone(destination),
                bell: Arc::clone(bell),
                leased,
            };
            // An engine never hands out more than was asked for.
            if let Some(turn) = turns.pop() {
                attempts.spawn(attempt.run(turn));
            }
        }
        match (full, next_at) {
            (true, _) => Pause::None,
            (false, Some(at)) if nothing && at <= self.office.clock.steady() => Pause::Soon,
            (false, next_at) => Pause::Until(next_at),
        }
    }

    /// Waits until there may be something to do; false when there never will be.
    async fn wait(&mut self, pause: Pause, bell: &Notify) -> bool {
        let clock = &self.office.clock;
        let until = match pause {
            Pause::None => return true,
            Pause::Soon => {
                tokio::time::sleep(SOON).await;
                return true;
            }
            Pause::End => return false,
            Pause::Trouble => Some(clock.moment().plus(TROUBLE_PAUSE)),
            Pause::Until(next_at) => next_at.map(|at| {
                let left_ms = at.0.saturating_sub(clock.steady().0);
                clock.moment().plus(Duration::from_millis(left_ms))
            }),
        };
        let due = async {
            match until {
                Some(moment) => clock.sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = bell.notified() => {}
            () = due => {}
            _ = self.orders.wait_for(|orders| orders.paused || orders.ended) => {}
        }
        true
    }
}

/// One event on its way.
struct Attempting {
    office: Arc<Office>,
    destination: Arc<Destination>,
    bell: Arc<Notify>,
    leased: Leased,
}

impl Attempting {
    async fn run(self, mut turn: Turn) {
        let Office {
            queue, clock, chance, ..
        } = &*self.office;
        let (leased, destination) = (&self.leased, &self.destination);
        let (at, started, mut over) = (clock.steady(), clock.moment(), self.office.over.subscribe());
        let outcome = tokio::select! {
            biased;
            outcome = destination.attempt(leased, clock, chance) => outcome,
            // Fails only without an office, which this holds.
            _ = over.wait_for(|over| *over) => Outcome::cut_off(at, clock.moment().since(started)),
        };
        let (lane, id) = (&destination.lane, leased.lease.id());
        match &outcome.end {
            End::Retry(attempt, _) => log::debug!("{lane}: event {id}: attempt {}: {attempt:?}", leased.attempt),
            End::Bury(attempt) => log::warn!("{lane}: event {id} is a dead letter: {}", attempt.error),
            End::Ack(_) | End::Release => {}
        }
        // First, so that nobody who sees the event waiting finds its upstream still taken for well.
        if turn.heard(outcome.wellness, outcome.rest) {
            log::warn!("upstream {}: left alone for a while", destination.upstream.name());
        }
        match queue.end(&leased.lease, outcome.end.clone()).await {
            Ok(Ended::Recorded) => {}
            Ok(Ended::Fenced) => log::warn!("{lane}: event {id} was attempted twice at a time: its lease had passed"),
            Err(problem) => log::error!("{lane}: event {id}: its attempt is not on record: {problem}"),
        }
        // Whoever gets it should find the next event of the same order key.
        drop(turn);
        // Its time may be before everything else the courier waits for.
        if matches!(outcome.end, End::Retry(..)) {
            self.bell.notify_one();
        }
    }
}
