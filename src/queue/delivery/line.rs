//! What all deliveries to one upstream share: how many at a time, how fast, and whether it is worth trying at all.
//!
//! Several destinations of several routes may lead to the same upstream. Each asks for a [`Turn`] before it takes an
//! event out of the queue, and turns are given in the order of asking: a destination with a million events waiting gets
//! one turn and goes to the end, so that nobody else waits behind its backlog. An event is leased only by whoever holds
//! a turn: what cannot be delivered lies on disk, not in memory, and its attempts are not counted.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::breaker::{Breaker, BreakerSettings, BreakerState};
use super::pace::{Pace, PaceSettings};
use crate::clock::{Clock, Moment};

/// How one upstream is delivered to; made from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineSettings {
    /// Attempts under way at a time.
    pub concurrency: usize,
    /// Attempts in a time; `None`: as fast as they are answered.
    pub pace: Option<PaceSettings>,
    /// When it is left alone.
    pub breaker: BreakerSettings,
}

/// The way to one upstream.
pub struct Line {
    settings: LineSettings,
    /// Fair: whoever waits longest is next.
    gate: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
    state: Mutex<State>,
    changed: Notify,
    clock: Clock,
}

struct State {
    breaker: Breaker,
    pace: Option<Pace>,
    under_way: usize,
    /// What the upstream asked for, for everybody.
    rests_until: Option<Moment>,
}

/// What an attempt says about the upstream itself, whatever became of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wellness {
    /// It answered.
    Well,
    /// It was not there, was late, broke off, or said so itself.
    Unwell,
    /// It was not asked.
    Unknown,
}

/// When to ask again.
enum Wait {
    Until(Moment),
    /// When an attempt has ended.
    Change,
}

impl Line {
    /// A line on which nothing is under way.
    pub fn new(settings: LineSettings, clock: &Clock) -> Arc<Self> {
        Arc::new(Line {
            gate: tokio::sync::Mutex::new(()),
            places: Arc::new(Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            state: Mutex::new(State {
                breaker: Breaker::new(settings.breaker),
                pace: settings.pace.map(|pace| Pace::new(pace, clock.moment())),
                under_way: 0,
                rests_until: None,
            }),
            settings,
            changed: Notify::new(),
            clock: clock.clone(),
        })
    }

    /// Waits for permission to make one attempt. Safe to drop at any time.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn {
        let _gate = self.gate.lock().await;
        loop {
            let changed = self.changed.notified();
            match self.enter() {
                Ok(place) => return Turn::new(self, place),
                Err(Wait::Change) => changed.await,
                Err(Wait::Until(moment)) => tokio::select! {
                    () = self.clock.sleep_until(moment) => {}
                    () = changed => {}
                },
            }
        }
    }

    /// Permission for one more attempt, if nobody has to wait for it.
    pub(super) fn turn_at_once(self: &Arc<Self>) -> Option<Turn> {
        let _gate = self.gate.try_lock().ok()?;
        let place = self.enter().ok()?;
        Some(Turn::new(self, place))
    }

    /// The settings it was made from.
    pub fn settings(&self) -> &LineSettings {
        &self.settings
    }

    /// What operators see of its breaker.
    pub fn state(&self) -> BreakerState {
        self.state.lock().breaker.state()
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, Wait> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Wait::Change)?;
        let now = self.clock.moment();
        let mut state = self.state.lock();
        if let Some(until) = state.rests_until.filter(|until| now < *until) {
            return Err(Wait::Until(until));
        }
        let window = state.breaker.admits(now).map_err(Wait::Until)?;
        if state.under_way >= window {
            return Err(Wait::Change);
        }
        if let Some(pace) = &mut state.pace {
            pace.take(now).map_err(Wait::Until)?;
        }
        state.under_way = state.under_way.saturating_add(1);
        Ok(place)
    }
}

/// Permission for one attempt. Dropped without word of an attempt, it counts as never given.
#[must_use = "a dropped turn is given back"]
pub(super) struct Turn {
    line: Arc<Line>,
    used: bool,
    /// Free again before anybody is told.
    place: Option<OwnedSemaphorePermit>,
}

impl Turn {
    fn new(line: &Arc<Line>, place: OwnedSemaphorePermit) -> Self {
        Turn {
            line: Arc::clone(line),
            used: false,
            place: Some(place),
        }
    }

    /// The attempt has ended, and this is what it says about the upstream; the turn itself ends when it is dropped, as soon
    /// as the queue knows about the event. `rest` is what the upstream asked for with 429 or 503: nobody calls on it before. True
    /// when the line is given up for a while because of this attempt.
    pub(super) fn heard(&mut self, wellness: Wellness, rest: Option<Duration>) -> bool {
        self.used = wellness != Wellness::Unknown;
        let now = self.line.clock.moment();
        let mut state = self.line.state.lock();
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            let until = now.plus(rest);
            state.rests_until = Some(state.rests_until.map_or(until, |already| already.max(until)));
        }
        match wellness {
            Wellness::Unwell => state.breaker.failed(now),
            Wellness::Well => {
                state.breaker.succeeded(self.line.settings.concurrency);
                false
            }
            Wellness::Unknown => false,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if let Some(pace) = state.pace.as_mut().filter(|_| !self.used) {
            pace.give_back();
        }
        drop(state);
        self.place = None;
        self.line.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    const SETTINGS: LineSettings = LineSettings {
        concurrency: 4,
        pace: None,
        breaker: BreakerSettings {
            failures: 2,
            pause: Duration::from_secs(10),
        },
    };

    fn line(settings: LineSettings) -> (ManualClock, Arc<Line>) {
        let manual = ManualClock::at(UnixMillis(0));
        let line = Line::new(settings, &manual.clock());
        (manual, line)
    }

    fn ended(mut turn: Turn, wellness: Wellness, rest: Option<Duration>) -> bool {
        turn.heard(wellness, rest)
    }

    fn turns_at_once(line: &Arc<Line>) -> usize {
        std::iter::from_fn(|| line.turn_at_once()).collect::<Vec<_>>().len()
    }

    #[tokio::test]
    async fn turns_are_bounded_and_come_back() {
        // A backend would get as many requests at once as there are events.
        let (_, line) = line(SETTINGS);
        let held: Vec<_> = std::iter::from_fn(|| line.turn_at_once()).collect();
        assert_eq!(held.len(), 4);
        drop(held);
        assert_eq!(turns_at_once(&line), 4);
    }

    #[tokio::test]
    async fn whoever_waits_longest_is_next() {
        // A destination with a long backlog would starve its neighbours on the same upstream.
        let (_, line) = line(LineSettings {
            concurrency: 1,
            ..SETTINGS
        });
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = line.turn().await;
        let mut waiting = Vec::new();
        for name in ["a", "b", "a", "c"] {
            let (line, order) = (Arc::clone(&line), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let turn = line.turn().await;
                order.lock().push(name);
                drop(turn);
            }));
            // Until it waits, too.
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), ["a", "b", "a", "c"]);
    }

    #[tokio::test]
    async fn an_outage_is_waited_out_and_left_slowly() {
        // Every attempt on a dead backend is one of its event's; and a backend that comes back must not fall again.
        let (manual, line) = line(SETTINGS);
        let (a, b) = (line.turn().await, line.turn().await);
        assert!(!ended(a, Wellness::Unwell, None));
        assert!(ended(b, Wellness::Unwell, None));
        assert_eq!((turns_at_once(&line), line.state()), (0, BreakerState::Open));
        let waiting = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.turn().await }
        });
        tokio::task::yield_now().await;
        manual.advance(Duration::from_secs(10));
        let probe = waiting.await.unwrap();
        assert_eq!(turns_at_once(&line), 0, "one probe at a time");
        ended(probe, Wellness::Well, None);
        assert_eq!(turns_at_once(&line), 2);
        ended(line.turn().await, Wellness::Well, None);
        assert_eq!((turns_at_once(&line), line.state()), (4, BreakerState::Closed));
    }

    #[tokio::test]
    async fn what_one_was_told_holds_for_all() {
        // The second event would knock a millisecond after the first was asked to wait a minute.
        let (manual, line) = line(SETTINGS);
        ended(line.turn().await, Wellness::Well, Some(Duration::from_secs(60)));
        assert_eq!(turns_at_once(&line), 0);
        manual.advance(Duration::from_secs(60));
        assert_eq!(turns_at_once(&line), 4);
    }

    #[tokio::test]
    async fn a_turn_that_is_not_used_costs_nothing() {
        // An idle destination that looks for events would use the rate up.
        let one = NonZeroU32::MIN;
        let pace = PaceSettings {
            count: one,
            per: Duration::from_secs(1),
            burst: one,
        };
        let (_, line) = line(LineSettings {
            pace: Some(pace),
            ..SETTINGS
        });
        drop(line.turn().await);
        ended(line.turn().await, Wellness::Well, None);
        assert_eq!(turns_at_once(&line), 0);
    }
}
