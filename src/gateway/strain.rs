//! Whether the process has more to do than its processors can, and how its refusals are spread over time then.
//!
//! A refusal costs half of what an event costs. Clients that send again as soon as they are refused would have the
//! processors spent on refusals. `server` leaves their connections unread where a connection is one client's; but those of
//! a proxy and of HTTP/2 carry others, too, and who connects anew each time has none to be left unread. So under strain
//! refusals that ask for another try go out one after the other, so many a second that they cost a fiftieth of a core:
//! few are told at once, thousands within [`WAIT_MAX`]. Meanwhile they hold no place, and what their senders go on sending
//! is read away, so that nobody waits behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Moment};

/// Between two refusals: 1000 a second, of some twenty microseconds each.
const GAP: Duration = Duration::from_millis(1);

/// Longest time that a refusal waits.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// What a refusal asks for at least while the process is behind: in a second it would be no better.
const RETRY_MIN: Duration = Duration::from_secs(5);

/// Whether the process is behind with its work.
#[derive(Debug)]
pub(crate) struct Strain {
    clock: Clock,
    /// Nanoseconds of the moment until which it counts as behind; zero when it never was.
    until: AtomicU64,
    /// Nanoseconds of the moment of the next refusal's turn.
    turn: AtomicU64,
}

impl Strain {
    pub(crate) fn new(clock: &Clock) -> Arc<Self> {
        Arc::new(Strain {
            clock: clock.clone(),
            until: AtomicU64::new(0),
            turn: AtomicU64::new(0),
        })
    }

    /// The clock by which it passes.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// It is felt until then.
    pub(crate) fn feel(&self, until: Moment) {
        self.until.store(until.nanos(), Ordering::Relaxed);
    }

    /// Whether the process was behind a moment ago.
    pub(crate) fn is_felt(&self) -> bool {
        match self.until.load(Ordering::Relaxed) {
            0 => false,
            until => self.clock.moment().nanos() < until,
        }
    }

    /// After how long whoever is refused is asked to come back.
    pub(crate) fn later(&self, wait: Duration) -> Duration {
        match self.is_felt() {
            true => wait.max(RETRY_MIN),
            false => wait,
        }
    }

    /// Resolves when it is the turn of one more refusal; at once without strain.
    pub(crate) async fn turn(&self) {
        if !self.is_felt() {
            return;
        }
        let now = self.clock.moment();
        let last = now.plus(WAIT_MAX);
        let after = |turn: u64| {
            turn.max(now.nanos())
                .saturating_add(GAP.as_nanos() as u64)
                .min(last.nanos())
        };
        let turn = self
            .turn
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |turn| Some(after(turn)));
        let turn = turn.unwrap_or_default().min(last.nanos());
        let wait = Duration::from_nanos(turn.saturating_sub(now.nanos()));
        if !wait.is_zero() {
            self.clock.sleep_until(now.plus(wait)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    #[test]
    fn refusals_go_out_in_turn_and_none_waits_for_long() {
        // Refused by the ten thousand a second, clients that send again at once leave a fifth of the processor for events;
        // refused after minutes, they are gone.
        let manual = ManualClock::at(UnixMillis(0));
        let clock = manual.clock();
        let strain = Strain::new(&clock);
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(strain.turn()).poll(&mut context).is_ready(), "no strain");
        strain.feel(clock.moment().plus(Duration::from_secs(60)));
        let mut waiting: Vec<_> = (0..5000).map(|_| Box::pin(strain.turn())).collect();
        let mut counts = Vec::new();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain_mut(|turn| turn.as_mut().poll(&mut context).is_pending());
            counts.push(before - waiting.len());
            manual.advance(Duration::from_millis(100));
        }
        assert_eq!(counts[0], 1, "the first at once");
        assert_eq!(counts[1..30], [100; 29]);
        assert_eq!(counts[30..], [5000 - 1 - 29 * 100]);
        manual.advance(Duration::from_secs(60));
        assert!(pin!(strain.turn()).poll(&mut context).is_ready(), "it has passed");
    }
}
