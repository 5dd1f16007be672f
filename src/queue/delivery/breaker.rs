//! Whether an upstream is worth trying: closed, open for a while, or half open.
//!
//! A line asks before each attempt and tells how it ended. Only what says that the upstream itself is not well counts:
//! no connection, no answer in time, a broken answer, 502, 503, 504. A 500 or a 400 may be the fault of one event, and
//! a handful of poisonous events must not stop the deliveries of everybody else.
//!
//! After the pause the upstream is not flooded with the whole backlog: one attempt at first, and twice as many with
//! each success, up to the ordinary number; the first failure opens it again.

use std::time::Duration;

use crate::clock::Moment;

/// When an upstream is left alone; made from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open.
    pub pause: Duration,
}

/// What operators see of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything goes.
    Closed,
    /// A few attempts at a time.
    HalfOpen,
    /// Nothing goes.
    Open,
}

/// The breaker of one upstream.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Moment },
    HalfOpen { window: usize },
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Breaker {
            settings,
            state: State::Closed { failures: 0 },
        }
    }

    /// How many attempts may be under way at this moment.
    ///
    /// # Errors
    /// None until this moment.
    pub(super) fn admits(&mut self, now: Moment) -> Result<usize, Moment> {
        match self.state {
            State::Closed { .. } => Ok(usize::MAX),
            State::Open { until } if now < until => Err(until),
            State::Open { .. } => {
                self.state = State::HalfOpen { window: 1 };
                Ok(1)
            }
            State::HalfOpen { window } => Ok(window),
        }
    }

    /// The upstream answered; `ordinary` is how many attempts it gets when all is well.
    pub(super) fn succeeded(&mut self, ordinary: usize) {
        self.state = match self.state {
            State::HalfOpen { window } if window.saturating_mul(2) < ordinary => State::HalfOpen {
                window: window.saturating_mul(2),
            },
            // An attempt from before it opened: no word about how the upstream is now.
            State::Open { until } => State::Open { until },
            State::HalfOpen { .. } | State::Closed { .. } => State::Closed { failures: 0 },
        };
    }

    /// The upstream was not there or not well. True when that opened the breaker.
    pub(super) fn failed(&mut self, now: Moment) -> bool {
        let open = State::Open {
            until: now.plus(self.settings.pause),
        };
        match &mut self.state {
            State::Open { .. } => return false,
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if *failures < self.settings.failures {
                    return false;
                }
            }
            State::HalfOpen { .. } => {}
        }
        self.state = open;
        true
    }

    /// What it looks like from outside.
    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        pause: Duration::from_secs(10),
    };

    #[test]
    fn a_dead_upstream_is_left_alone_and_probed() {
        // A backend that is starting would get every event of the backlog at once, or never be asked again.
        let manual = ManualClock::at(UnixMillis(0));
        let now = || manual.clock().moment();
        let mut breaker = Breaker::new(SETTINGS);
        assert_eq!([breaker.failed(now()), breaker.failed(now())], [false, false]);
        assert_eq!(breaker.admits(now()), Ok(usize::MAX));
        assert!(breaker.failed(now()));
        let until = now().plus(SETTINGS.pause);
        assert_eq!(breaker.admits(now()), Err(until));
        // An attempt that was under way ends; the pause is neither lengthened nor cut.
        assert!(!breaker.failed(now()));
        breaker.succeeded(8);
        assert_eq!(
            (breaker.admits(now()), breaker.state()),
            (Err(until), BreakerState::Open)
        );
        manual.advance(SETTINGS.pause);
        assert_eq!(
            (breaker.admits(now()), breaker.state()),
            (Ok(1), BreakerState::HalfOpen)
        );
        assert!(breaker.failed(now()), "one failed probe is enough");
        assert!(breaker.admits(now()).is_err());
        manual.advance(SETTINGS.pause);
        let mut windows = Vec::new();
        while let Ok(window @ 0..64) = breaker.admits(now()) {
            windows.push(window);
            breaker.succeeded(8);
        }
        assert_eq!((windows, breaker.state()), (vec![1, 2, 4], BreakerState::Closed));
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        // One lost connection in ten thousand, over a week, is no outage.
        let now = ManualClock::at(UnixMillis(0)).clock().moment();
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..100 {
            assert!(!breaker.failed(now) && !breaker.failed(now));
            breaker.succeeded(8);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
