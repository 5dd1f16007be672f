//! The only source of time.
//!
//! Everything that depends on time takes a [`Clock`] or a value read from one, so that tests move time instead
//! of waiting for it. Wall time decides about signatures (a provider's timestamp means wall time); monotonic
//! time decides about durations, leases and buckets, so that a step of the wall clock neither opens a replay
//! window nor stalls a limit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall time in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The instant `seconds` after the epoch; saturates far beyond any date that occurs.
    pub fn from_seconds(seconds: u64) -> Self {
        UnixMillis(seconds.saturating_mul(1000))
    }

    /// The distance between two instants, whichever is earlier.
    pub fn distance(self, other: UnixMillis) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

/// A point on the monotonic clock: nanoseconds since the [`Clock`] was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Nanoseconds since the clock was made.
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// This moment and `later` more; saturates after 584 years.
    pub fn plus(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(later)))
    }

    /// Time passed since `earlier`; zero when `earlier` is in the future.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Tells wall time and monotonic time. Cheap to clone; clones tell the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { started: Instant },
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Clock(Source::System {
            started: Instant::now(),
        })
    }

    /// Wall time.
    pub fn wall(&self) -> UnixMillis {
        match &self.0 {
            Source::System { .. } => UnixMillis(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            ),
            Source::Manual(manual) => UnixMillis(manual.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Monotonic time.
    pub fn moment(&self) -> Moment {
        match &self.0 {
            Source::System { started } => Moment(nanos(started.elapsed())),
            Source::Manual(manual) => Moment(manual.mono_ns.load(Ordering::SeqCst)),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::System { .. } => f.write_str("Clock(system)"),
            Source::Manual(_) => f.write_str("Clock(manual)"),
        }
    }
}

/// A clock that stands still until a test moves it.
#[derive(Clone)]
pub struct ManualClock {
    wall_ms: Arc<AtomicU64>,
    mono_ns: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows `wall`.
    pub fn at(wall: UnixMillis) -> Self {
        ManualClock {
            wall_ms: Arc::new(AtomicU64::new(wall.0)),
            mono_ns: Arc::new(AtomicU64::new(0)),
        }
    }

    /// A [`Clock`] driven by this one.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.clone()))
    }

    /// Moves wall and monotonic time forward.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.mono_ns.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Steps wall time alone, as an operator or NTP would; monotonic time does not move.
    pub fn set_wall(&self, wall: UnixMillis) {
        self.wall_ms.store(wall.0, Ordering::SeqCst);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_step_does_not_move_durations() {
        // A stepped clock must not shorten a replay window.
        let manual = ManualClock::at(UnixMillis(1_000_000));
        let clock = manual.clock();
        let before = clock.moment();
        manual.set_wall(UnixMillis(0));
        assert_eq!(clock.moment().since(before), Duration::ZERO);
        manual.advance(Duration::from_secs(2));
        assert_eq!(clock.moment().since(before), Duration::from_secs(2));
        assert_eq!(clock.wall(), UnixMillis(2000));
    }

    #[test]
    fn distance_is_symmetric() {
        let (a, b) = (UnixMillis(1000), UnixMillis(4000));
        assert_eq!(a.distance(b), Duration::from_secs(3));
        assert_eq!(b.distance(a), Duration::from_secs(3));
    }
}
