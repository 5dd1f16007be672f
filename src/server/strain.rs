//! What is done when the process has more to do than its processors can: whoever was told to come back later is not
//! heard earlier.
//!
//! While the process is behind, requests are begun in the order they came ([`Turnstile`]), refusals go out in turn
//! ([`Strain`]), `Retry-After` is five seconds and more, and a connection that was told so is not read until that time
//! is over, or for twice as long when its client did not wait the last time either, up to [`PAUSE_MAX`]: what it sent
//! stays with the system. Clients that keep to what they are told notice nothing, and with processors to spare nobody
//! does: a route that is busy because of its upstream slows down no other. Connections of trusted proxies are read on,
//! for they carry many clients; those of HTTP/2 likewise, for their requests share one.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use super::turnstile::{Turn, Turnstile, behind_all};
use crate::clock::Moment;
use crate::gateway::Strain;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A task that waits this long behind others is behind: with some tens of microseconds for each request, half a hundred
/// of them are ready at a time.
const WAIT_MAX: Duration = Duration::from_millis(2);

/// How long one look is remembered.
const MEMORY: Duration = Duration::from_secs(3);

/// Longest time that a connection is not read. Most senders give up after ten seconds.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Looks again and again whether the process is behind, on the runtime that does the work.
pub(super) async fn watch(turnstile: Arc<Turnstile>) {
    let clock = turnstile.strain().clock();
    loop {
        clock.sleep_until(clock.moment().plus(LOOK_EVERY)).await;
        look(&turnstile).await;
    }
}

/// Lines up behind everything that is ready to run on this thread, and behind whoever waits to begin.
async fn look(turnstile: &Arc<Turnstile>) {
    let strain = turnstile.strain();
    let before = strain.clock().moment();
    behind_all().await;
    let mut turn = Turn::new(turnstile);
    poll_fn(|context| turn.poll(context)).await;
    let now = strain.clock().moment();
    if now.since(before) >= WAIT_MAX {
        strain.feel(now.plus(MEMORY));
    }
}

/// What the client of one connection was told about coming back, and how it keeps to it.
#[derive(Debug)]
pub(super) struct Patience {
    strain: Arc<Strain>,
    /// Until when the next request is left unread, if the last one was refused under strain.
    until: Option<Moment>,
    /// Whether the client did not wait the last time.
    early: bool,
}

impl Patience {
    pub(super) fn new(strain: &Arc<Strain>) -> Self {
        Patience {
            strain: Arc::clone(strain),
            until: None,
            early: false,
        }
    }

    /// The client is to come back after `wait`; returns what it is to be told.
    pub(super) fn told(&mut self, wait: Duration) -> Duration {
        if !self.strain.is_felt() {
            return wait;
        }
        let wait = self.strain.later(wait);
        let pause = wait.saturating_mul(if self.early { 2 } else { 1 }).min(PAUSE_MAX);
        self.until = Some(self.strain.clock().moment().plus(pause));
        wait
    }

    /// Ends a request: until when the next one is left unread, if at all.
    pub(super) fn pause(&mut self) -> Option<Moment> {
        self.early &= self.until.is_some();
        self.until.take()
    }

    /// After a pause: whether the client did not wait for its end.
    pub(super) fn over(&mut self, was_early: bool) {
        self.early = was_early;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    const RETRY_MIN: Duration = Duration::from_secs(5);

    /// Whether strain is felt beside `works` tasks that take `each_us`.
    async fn beside(manual: &ManualClock, strain: &Arc<Strain>, works: u32, each_us: u64) -> bool {
        let turnstile = Turnstile::new(Arc::clone(strain));
        let serving = tokio::spawn(Arc::clone(&turnstile).serve());
        let looking = tokio::spawn(async move { look(&turnstile).await });
        for _ in 0..works {
            let manual = manual.clone();
            tokio::spawn(async move { manual.advance(Duration::from_micros(each_us)) });
        }
        looking.await.unwrap();
        serving.abort();
        strain.is_felt()
    }

    #[tokio::test]
    async fn whoever_waits_behind_long_work_is_behind() {
        // Without this sign a gateway spends itself on refusals; with a wrong one it slows down whom it could serve.
        let manual = ManualClock::at(UnixMillis(0));
        let strain = Strain::new(&manual.clock());
        for (works, each_us, behind) in [(0, 0, false), (64, 25, false), (64, 50, true), (1, 2000, true)] {
            let felt = beside(&manual, &strain, works, each_us).await;
            assert_eq!(felt, behind, "{works} of {each_us} us");
            manual.advance(MEMORY);
            assert!(!strain.is_felt(), "it passes");
        }
    }

    #[tokio::test]
    async fn who_does_not_wait_waits_longer_and_who_waits_does_not() {
        // A client that sends again at once would be refused as fast as it can send.
        let manual = ManualClock::at(UnixMillis(0));
        let strain = Strain::new(&manual.clock());
        let second = Duration::from_secs(1);
        let later = |wait: Duration| Some(manual.clock().moment().plus(wait));
        let mut patience = Patience::new(&strain);
        assert_eq!((patience.told(second), patience.pause()), (second, None), "no strain");
        assert!(beside(&manual, &strain, 1, 2000).await);
        assert_eq!(patience.pause(), None, "it was told nothing");
        for pause in [RETRY_MIN, PAUSE_MAX, PAUSE_MAX] {
            assert_eq!((patience.told(second), patience.pause()), (RETRY_MIN, later(pause)));
            patience.over(true);
        }
        patience.told(second);
        patience.pause();
        patience.over(false);
        assert_eq!((patience.told(second), patience.pause()), (RETRY_MIN, later(RETRY_MIN)));
        patience.over(true);
        assert_eq!(patience.pause(), None, "it was served");
        patience.told(second);
        assert_eq!(patience.pause(), later(RETRY_MIN), "and starts anew");
        let hour = 3600 * second;
        assert_eq!((patience.told(hour), patience.pause()), (hour, later(PAUSE_MAX)));
    }
}
