//! At most so many attempts in a time: the rate at which one upstream is delivered to.
//!
//! A virtual schedule with one slot each `per / count`. A backlog of a million events leaves at this rate and no
//! faster, so that a backend that comes back after an outage meets an ordinary day. Slots that nobody used are not
//! saved up beyond `burst`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Moment;

/// A rate of attempts; made from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceSettings {
    /// Attempts in one period.
    pub count: NonZeroU32,
    /// The period; never zero.
    pub per: Duration,
    /// Attempts that may come at once.
    pub burst: NonZeroU32,
}

/// The schedule of one upstream.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// How far the schedule may run behind the clock.
    slack: Duration,
    /// When the next slot begins, as if every slot before had been used.
    next: Moment,
}

impl Pace {
    /// Begins with a full burst.
    pub(super) fn new(settings: PaceSettings, now: Moment) -> Self {
        let interval = settings.per.checked_div(settings.count.get()).unwrap_or_default();
        let interval = interval.max(Duration::from_nanos(1));
        Pace {
            interval,
            slack: interval.saturating_mul(settings.burst.get().saturating_sub(1)),
            next: now,
        }
    }

    /// Takes one slot.
    ///
    /// # Errors
    /// When there will be one again.
    pub(super) fn take(&mut self, now: Moment) -> Result<(), Moment> {
        // The schedule may be ahead of the clock by the slots of one burst.
        let ahead = self.next.since(now);
        if ahead > self.slack {
            return Err(now.plus(ahead.saturating_sub(self.slack)));
        }
        self.next = self.next.max(now).plus(self.interval);
        Ok(())
    }

    /// Gives a slot back that was taken and not used.
    pub(super) fn give_back(&mut self) {
        self.next = self.next.minus(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    fn settings(count: u32, burst: u32) -> PaceSettings {
        PaceSettings {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_secs(1),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn the_rate_is_held_and_nothing_is_saved_up() {
        // A night without events would be followed by a flood.
        let manual = ManualClock::at(UnixMillis(0));
        let now = || manual.clock().moment();
        let mut pace = Pace::new(settings(10, 3), now());
        manual.advance(Duration::from_secs(3600));
        let taken = (0..100).filter(|_| pace.take(now()).is_ok()).count();
        assert_eq!(taken, 3);
        let mut over_ten_seconds = 0;
        for _ in 0..1000 {
            manual.advance(Duration::from_millis(10));
            over_ten_seconds += (0..100).filter(|_| pace.take(now()).is_ok()).count();
        }
        assert_eq!(over_ten_seconds, 100);
    }

    #[test]
    fn the_wait_is_exact_and_unused_slots_return() {
        // A worker that wakes too early spins; one that loses slots delivers below the configured rate.
        let manual = ManualClock::at(UnixMillis(0));
        let now = || manual.clock().moment();
        let mut pace = Pace::new(settings(10, 1), now());
        assert_eq!(pace.take(now()), Ok(()));
        let next = now().plus(Duration::from_millis(100));
        assert_eq!(pace.take(now()), Err(next));
        pace.give_back();
        assert_eq!(pace.take(now()), Ok(()));
        manual.advance(Duration::from_millis(99));
        assert_eq!(pace.take(now()), Err(next));
        manual.advance(Duration::from_millis(1));
        assert_eq!(pace.take(now()), Ok(()));
    }
}
