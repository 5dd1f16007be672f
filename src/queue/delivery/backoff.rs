//! When a failed event is tried again, and when no more.
//!
//! The worker asks once for each failed attempt. The answer depends on nothing but the policy, the attempt, the age of
//! the event, what the upstream said and one random number, all of them arguments, so that the formula can be checked
//! against its distribution. Delays have full jitter: uniform between nothing and the delay of the attempt. Ten
//! thousand events that failed in the same second would otherwise come back in the same second, and break the backend
//! that has just come up.
//!
//! An upstream's `Retry-After` is a wish of a machine that is not well: it may lengthen a delay, within bounds, never
//! shorten it, and never keeps an event beyond its age.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a destination is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The longest delay after each failed attempt, and how many attempts there are.
    pub delays: Delays,
    /// An event this long after its acceptance is not tried any more.
    pub age_max: Duration,
    /// The most that a `Retry-After` can ask for.
    pub retry_after_max: Duration,
    /// Answers after which trying again is pointless, besides 410.
    pub final_statuses: Vec<u16>,
}

/// The longest delays between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delays {
    /// One for each failed attempt; the attempt after the last delay is the last one.
    Schedule(Vec<Duration>),
    /// `base` after the first, then `factor` times as long each time, up to `cap`.
    Exponential {
        /// After the first failed attempt.
        base: Duration,
        /// How much longer each time.
        factor: NonZeroU32,
        /// Never longer than this.
        cap: Duration,
        /// All attempts, the first one included.
        attempts: NonZeroU32,
    },
}

impl Delays {
    /// The longest delay after the failed attempt of this number, from 1; `None` when it was the last one.
    pub fn after(&self, attempt: u32) -> Option<Duration> {
        let before = attempt.saturating_sub(1);
        match self {
            Delays::Schedule(delays) => delays.get(usize::try_from(before).ok()?).copied(),
            Delays::Exponential { attempts, .. } if attempt >= attempts.get() => None,
            Delays::Exponential { base, factor, cap, .. } => {
                let grown = factor
                    .get()
                    .checked_pow(before)
                    .and_then(|times| base.checked_mul(times));
                Some(grown.map_or(*cap, |delay| delay.min(*cap)))
            }
        }
    }
}

/// What is known about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which attempt it was, from 1, counted from the acceptance or from when an operator asked for the event again.
    pub attempt: u32,
    /// The upstream's status, if it answered.
    pub status: Option<u16>,
    /// Its `Retry-After`, if it gave one with 429 or 503.
    pub retry_after: Option<Duration>,
    /// Time since the event was accepted.
    pub age: Duration,
}

/// What becomes of an event after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is tried again after this time.
    Again(Duration),
    /// It is tried no more.
    Dead(DeadReason),
}

/// Why an event is tried no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// Every attempt failed.
    Exhausted,
    /// It became too old first.
    TooOld,
    /// The upstream's answer was final.
    Final(u16),
}

impl RetryPolicy {
    /// Decides about a failed attempt; `chance` is uniform over all numbers.
    pub fn next(&self, failed: Failed, chance: u64) -> Next {
        if let Some(status) = failed.status.filter(|status| self.is_final(*status)) {
            return Next::Dead(DeadReason::Final(status));
        }
        let Some(longest) = self.delays.after(failed.attempt) else {
            return Next::Dead(DeadReason::Exhausted);
        };
        let asked = failed.retry_after.unwrap_or_default().min(self.retry_after_max);
        // What was asked for comes on top of the jitter: else all who were sent away together come back together.
        let delay = jittered(longest, chance).saturating_add(asked);
        match failed.age.saturating_add(delay) > self.age_max {
            true => Next::Dead(DeadReason::TooOld),
            false => Next::Again(delay),
        }
    }

    /// Whether an event of this age is not tried any more.
    pub fn is_too_old(&self, age: Duration) -> bool {
        age > self.age_max
    }

    fn is_final(&self, status: u16) -> bool {
        // RFC 9110 section 15.5.11: gone, and likely for good.
        status == 410 || self.final_statuses.contains(&status)
    }
}

impl std::fmt::Display for DeadReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeadReason::Exhausted => f.write_str("every attempt failed"),
            DeadReason::TooOld => f.write_str("older than its route keeps trying"),
            DeadReason::Final(status) => write!(f, "the answer {status} is final"),
        }
    }
}

/// Uniform between nothing and `longest`.
fn jittered(longest: Duration, chance: u64) -> Duration {
    let share = longest.as_nanos().saturating_mul(u128::from(chance)) >> 64;
    Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
}

/// A source of chance for delays: SplitMix64. Fast, even, and predictable to whoever knows the seed, which is no harm
/// here.
#[derive(Debug)]
pub(super) struct Chance(AtomicU64);

impl Chance {
    /// Numbers that follow from `seed` alone.
    pub(super) fn new(seed: u64) -> Self {
        Chance(AtomicU64::new(seed))
    }

    /// The next number.
    pub(super) fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn policy(delays: Delays) -> RetryPolicy {
        RetryPolicy {
            delays,
            age_max: 72 * HOUR,
            retry_after_max: HOUR,
            final_statuses: vec![404],
        }
    }

    fn exponential() -> Delays {
        Delays::Exponential {
            base: seconds(5),
            factor: NonZeroU32::new(2).unwrap(),
            cap: seconds(60),
            attempts: NonZeroU32::new(6).unwrap(),
        }
    }

    fn failed(attempt: u32, status: Option<u16>) -> Failed {
        Failed {
            attempt,
            status,
            retry_after: None,
            age: Duration::ZERO,
        }
    }

    #[test]
    fn delays_follow_their_formula() {
        // A backend that is down for an hour would be hammered, or an event given up too early.
        let schedule = Delays::Schedule(vec![seconds(5), seconds(30)]);
        let table = [
            (&schedule, vec![Some(5), Some(30), None, None]),
            (
                &exponential(),
                vec![Some(5), Some(10), Some(20), Some(40), Some(60), None, None],
            ),
        ];
        for (delays, expected) in table {
            let told: Vec<_> = (1..).take(expected.len()).map(|n| delays.after(n)).collect();
            assert_eq!(told, expected.iter().map(|s| s.map(seconds)).collect::<Vec<_>>());
        }
        let endless = Delays::Exponential {
            base: HOUR,
            factor: NonZeroU32::MAX,
            cap: 2 * HOUR,
            attempts: NonZeroU32::MAX,
        };
        assert_eq!(endless.after(u32::MAX - 1), Some(2 * HOUR));
        assert_eq!(endless.after(0), Some(HOUR));
    }

    #[test]
    fn answers_decide_as_documented() {
        // An event that can never be taken would be sent for days, or one that can be would be dropped.
        let policy = policy(exponential());
        for status in [None, Some(300), Some(400), Some(401), Some(429), Some(500), Some(503)] {
            assert!(
                matches!(policy.next(failed(1, status), 7), Next::Again(_)),
                "{status:?}"
            );
        }
        for status in [404, 410] {
            let next = policy.next(failed(1, Some(status)), 7);
            assert_eq!(next, Next::Dead(DeadReason::Final(status)));
        }
        assert_eq!(policy.next(failed(6, Some(500)), 7), Next::Dead(DeadReason::Exhausted));
        let old = Failed {
            age: 72 * HOUR,
            ..failed(1, None)
        };
        assert_eq!(policy.next(old, u64::MAX), Next::Dead(DeadReason::TooOld));
        assert!(policy.is_too_old(72 * HOUR + seconds(1)));
        assert!(!policy.is_too_old(72 * HOUR));
    }

    #[test]
    fn retry_after_is_honoured_and_bounded() {
        // A backend that asks for a pause would not get it; one that asks for a year would keep an event for ever.
        let policy = policy(exponential());
        let asked = |wait, chance| {
            let failed = Failed {
                retry_after: Some(wait),
                ..failed(1, Some(429))
            };
            policy.next(failed, chance)
        };
        assert_eq!(asked(seconds(30), 0), Next::Again(seconds(30)));
        assert_eq!(asked(seconds(30), 1 << 63), Next::Again(Duration::from_millis(32_500)));
        assert_eq!(asked(9000 * HOUR, 0), Next::Again(HOUR));
        assert_eq!(asked(Duration::MAX, 0), Next::Again(HOUR));
    }

    #[test]
    fn jitter_is_full_and_even() {
        // Delays that bunch together send a whole backlog at once. 1e5 delays in ten classes: chi-square with nine
        // degrees of freedom is beyond 27.9 once in a thousand seeds, and this seed is fixed.
        let policy = policy(exponential());
        let chance = Chance::new(42);
        for attempt in 1..=5 {
            let longest = exponential().after(attempt).unwrap();
            let mut classes = [0_u32; 10];
            for _ in 0..100_000 {
                let Next::Again(delay) = policy.next(failed(attempt, Some(500)), chance.next()) else {
                    panic!("not tried again");
                };
                assert!(delay < longest);
                classes[(delay.as_nanos() * 10 / longest.as_nanos()) as usize] += 1;
            }
            let square = |n: &u32| (f64::from(*n) - 10_000.0).powi(2) / 10_000.0;
            let chi_square: f64 = classes.iter().map(square).sum();
            assert!(chi_square < 27.9, "attempt {attempt}: {chi_square} {classes:?}");
        }
    }

    #[test]
    fn nothing_overflows() {
        // Overflow checks are on in release: a policy of somebody's invention must not end a worker.
        let policy = RetryPolicy {
            delays: Delays::Schedule(vec![Duration::MAX]),
            age_max: Duration::MAX,
            retry_after_max: Duration::MAX,
            final_statuses: Vec::new(),
        };
        let extreme = Failed {
            attempt: 1,
            status: None,
            retry_after: Some(Duration::MAX),
            age: Duration::MAX,
        };
        assert_eq!(policy.next(extreme, u64::MAX), Next::Again(Duration::MAX));
    }
}
