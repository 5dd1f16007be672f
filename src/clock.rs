//! The only source of time.
//!
//! Everything that depends on time takes a [`Clock`] or a value read from one, so that tests move time instead
//! of waiting for it. Wall time decides about signatures (a provider's timestamp means wall time); monotonic
//! time decides about durations, leases and buckets, so that a step of the wall clock neither opens a replay
//! window nor stalls a limit.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pingora_timeout::Elapsed;
use tokio::sync::Notify;

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

    /// This moment and `earlier` less; stops at the beginning.
    pub fn minus(self, earlier: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(earlier)))
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
    System { started: Instant, started_at: UnixMillis },
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Clock(Source::System {
            started: Instant::now(),
            started_at: system_wall(),
        })
    }

    /// Wall time.
    pub fn wall(&self) -> UnixMillis {
        match &self.0 {
            Source::System { .. } => system_wall(),
            Source::Manual(manual) => UnixMillis(manual.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Monotonic time.
    pub fn moment(&self) -> Moment {
        match &self.0 {
            Source::System { started, .. } => Moment(nanos(started.elapsed())),
            Source::Manual(manual) => Moment(manual.mono_ns.load(Ordering::SeqCst)),
        }
    }

    /// The wall time at which the clock was made, and the monotonic time since: what is due in an hour is due in an
    /// hour, whatever becomes of the wall clock meanwhile. Means the same after a restart, unlike a [`Moment`].
    pub fn steady(&self) -> UnixMillis {
        let started_at = match &self.0 {
            Source::System { started_at, .. } => *started_at,
            Source::Manual(manual) => manual.started_at,
        };
        UnixMillis(started_at.0.saturating_add(self.moment().0 / 1_000_000))
    }

    /// Waits until `moment` has come.
    pub async fn sleep_until(&self, moment: Moment) {
        let manual = match &self.0 {
            Source::System { .. } => return tokio::time::sleep(moment.since(self.moment())).await,
            Source::Manual(manual) => manual,
        };
        loop {
            let moved = manual.moved.notified();
            if self.moment() >= moment {
                return;
            }
            moved.await;
        }
    }
}

/// Waits for `future` at most for `patience`. For what is ready nearly always: a timer is set only when it is not.
pub(crate) async fn within<F: Future>(patience: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    match poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => pingora_timeout::timeout(patience, future).await,
    }
}

/// A bound on one wait after the other, each nearly always over long before. Its timer is set once and looked at when it
/// goes off, not set anew for each wait.
#[derive(Default)]
pub(crate) struct Alarm(Option<Timer>);

/// What can be added to any time without an end of it.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A timer that is set.
struct Timer {
    goes_off: Instant,
    /// Pingora's, which belongs to no runtime in particular: whoever waits next may be on another thread.
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Timer {
    fn set(until: Instant) -> Self {
        let patience = until.saturating_duration_since(Instant::now());
        Timer {
            goes_off: until,
            wait: Box::pin(async move { drop(pingora_timeout::timeout(patience, pending::<()>()).await) }),
        }
    }
}

impl Alarm {
    /// Waits for `future` at most for `patience`, or a year.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "a year from now is a time that clocks have"
    )]
    pub(crate) async fn within<F: Future>(&mut self, patience: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let mut deadline = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + patience.min(YEAR));
            let timer = self.0.get_or_insert_with(|| Timer::set(until));
            if timer.goes_off > until {
                *timer = Timer::set(until);
            }
            while timer.wait.as_mut().poll(context).is_ready() {
                if timer.goes_off >= until {
                    self.0 = None;
                    return Poll::Ready(Err(Elapsed));
                }
                // It was an earlier wait's.
                *timer = Timer::set(until);
            }
            Poll::Pending
        })
        .await
    }
}

fn system_wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
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
    started_at: UnixMillis,
    wall_ms: Arc<AtomicU64>,
    mono_ns: Arc<AtomicU64>,
    /// Wakes whoever sleeps.
    moved: Arc<Notify>,
}

impl ManualClock {
    /// A clock that shows `wall`.
    pub fn at(wall: UnixMillis) -> Self {
        ManualClock {
            started_at: wall,
            wall_ms: Arc::new(AtomicU64::new(wall.0)),
            mono_ns: Arc::new(AtomicU64::new(0)),
            moved: Arc::new(Notify::new()),
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
        self.moved.notify_waiters();
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
        assert_eq!(clock.steady(), UnixMillis(1_002_000));
    }

    #[tokio::test]
    async fn sleepers_wake_when_their_time_has_come() {
        // A delivery that is due would lie until something else happens.
        let manual = ManualClock::at(UnixMillis(0));
        let clock = manual.clock();
        let due = clock.moment().plus(Duration::from_secs(3));
        clock.sleep_until(clock.moment()).await;
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(due).await }
        });
        for _ in 0..3 {
            assert!(!sleeper.is_finished());
            tokio::task::yield_now().await;
            manual.advance(Duration::from_secs(1));
        }
        sleeper.await.unwrap();
    }

    #[tokio::test]
    async fn an_alarm_goes_off_when_the_wait_at_hand_is_over() {
        // One that went off with the wait before would end a connection in the middle of a request; one that waited for
        // the longer wait before would keep it.
        let mut alarm = Alarm::default();
        let mut waits = async |patience, is_over: bool| {
            let patience = Duration::from_millis(patience);
            let started = Instant::now();
            let needed = async {
                // Once pending, so that the timer is looked at.
                tokio::task::yield_now().await;
                if !is_over {
                    pending::<()>().await;
                }
            };
            let in_time = alarm.within(patience, needed).await.is_ok();
            (in_time, started.elapsed() >= patience)
        };
        assert_eq!(waits(60_000, true).await, (true, false));
        assert_eq!(waits(30, false).await, (false, true), "the wait before was longer");
        assert_eq!(waits(30, false).await, (false, true), "the timer before has gone off");
        assert_eq!(waits(30, true).await, (true, false));
        assert_eq!(
            waits(90, false).await,
            (false, true),
            "the timer before goes off earlier"
        );
        assert_eq!(waits(60_000, true).await, (true, false));
        assert_eq!(waits(0, false).await, (false, true));
    }

    #[test]
    fn distance_is_symmetric() {
        let (a, b) = (UnixMillis(1000), UnixMillis(4000));
        assert_eq!(a.distance(b), Duration::from_secs(3));
        assert_eq!(b.distance(a), Duration::from_secs(3));
    }
}
