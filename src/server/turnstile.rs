//! In what order requests are begun when the process has more to do than its processors can.
//!
//! A runtime takes up whatever is ready: of two thousand connections with a request each it reads all, verifies all, and
//! hears only then what the backend said to the first. Hundreds are under way at a time, to nobody's gain: each finds its
//! memory cold when it goes on, so that it costs up to twice as much, and together they fill the places of their route and
//! are refused. So while the process is behind, a connection that has a request to be read lines up here, and a few at a
//! time are let in whenever everything else that was ready on this thread had its turn. What can go on goes on before more
//! is begun, what waits waits with the system, and nobody is passed over. Of HTTP/2, which has no beginnings that could be
//! told before they are read, each turn is so many bytes and one request.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::gateway::Strain;

/// So many are let in at a time: enough that nobody waits for the next look at what is ready, and few enough that what
/// they need stays at hand.
const TURN: usize = 32;

/// Where connections line up under strain.
#[derive(Debug)]
pub(super) struct Turnstile {
    strain: Arc<Strain>,
    line: Mutex<VecDeque<Option<Waker>>>,
    /// The number of whoever is first in line: those before were let in.
    first: AtomicU64,
    /// Somebody lined up where nobody was.
    arrived: Notify,
}

impl Turnstile {
    pub(super) fn new(strain: Arc<Strain>) -> Arc<Self> {
        Arc::new(Turnstile {
            strain,
            line: Mutex::default(),
            first: AtomicU64::new(0),
            arrived: Notify::new(),
        })
    }

    /// What has connections line up.
    pub(super) fn strain(&self) -> &Arc<Strain> {
        &self.strain
    }

    /// Lets in whoever lines up, for ever.
    pub(super) async fn serve(self: Arc<Self>) {
        loop {
            self.arrived.notified().await;
            while self.let_in() {
                behind_all().await;
            }
        }
    }

    /// Lets in the first in line; false when there was nobody.
    pub(super) fn let_in(&self) -> bool {
        let mut left = TURN;
        while left > 0
            && let Some(waker) = self.pop()
        {
            if let Some(waker) = waker {
                waker.wake();
                left = left.saturating_sub(1);
            }
        }
        left < TURN
    }

    /// Takes the first from the line; whoever left it has nobody to be woken.
    fn pop(&self) -> Option<Option<Waker>> {
        let mut line = self.line.lock();
        let waker = line.pop_front()?;
        self.first.fetch_add(1, Ordering::Release);
        Some(waker)
    }

    /// Lines up; the number in line.
    fn line_up(&self, waker: &Waker) -> u64 {
        let mut line = self.line.lock();
        if line.is_empty() {
            self.arrived.notify_one();
        }
        let number = self.first.load(Ordering::Relaxed).wrapping_add(line.len() as u64);
        line.push_back(Some(waker.clone()));
        number
    }

    /// Whether the one with this number was let in.
    fn is_let_in(&self, number: u64) -> bool {
        number < self.first.load(Ordering::Acquire)
    }

    /// From here on `waker` is who waits with this number, or nobody; false when its turn has come.
    fn replace(&self, number: u64, waker: Option<&Waker>) -> bool {
        let mut line = self.line.lock();
        let place = number.checked_sub(self.first.load(Ordering::Relaxed));
        let place = place.and_then(|place| line.get_mut(usize::try_from(place).ok()?));
        let Some(place) = place else { return false };
        let before = std::mem::replace(place, waker.cloned());
        drop(line);
        // Whatever goes with it may leave the line itself.
        drop(before);
        true
    }
}

/// One connection's place in line, when it has one.
#[derive(Debug)]
pub(super) struct Turn {
    turnstile: Arc<Turnstile>,
    number: Option<u64>,
}

impl Turn {
    pub(super) fn new(turnstile: &Arc<Turnstile>) -> Self {
        Turn {
            turnstile: Arc::clone(turnstile),
            number: None,
        }
    }

    /// Whether it has to be waited for.
    pub(super) fn is_needed(&self) -> bool {
        self.is_awaited() || self.turnstile.strain.is_felt()
    }

    /// Whether it is waited for.
    pub(super) fn is_awaited(&self) -> bool {
        self.number.is_some()
    }

    /// Lines up, or goes on waiting, until it is this one's turn.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.number {
            Some(number) => {
                let waits = !self.turnstile.is_let_in(number) && self.turnstile.replace(number, Some(context.waker()));
                if waits {
                    return Poll::Pending;
                }
                self.number = None;
                Poll::Ready(())
            }
            None if self.is_needed() => {
                self.number = Some(self.turnstile.line_up(context.waker()));
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.turnstile.replace(number, None);
        }
    }
}

/// Resolves when the tasks had their turn that were ready on this thread before.
pub(super) async fn behind_all() {
    let mut waited = false;
    poll_fn(|context| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => {
            // Woken while it runs, a task goes to the end of the line; Tokio's own `yield_now` may come to its beginning.
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    fn under_strain(manual: &ManualClock) -> Arc<Turnstile> {
        let clock = manual.clock();
        let strain = Strain::new(&clock);
        strain.feel(clock.moment().plus(Duration::from_secs(3)));
        Turnstile::new(strain)
    }

    fn is_ready(turn: &mut Turn) -> bool {
        turn.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Which of `turns` have come, if it is that of those whose numbers are given and of nobody else.
    fn come(turns: &mut [Turn], expected: impl IntoIterator<Item = usize>) {
        let ready: Vec<_> = (0..turns.len()).filter(|n| is_ready(&mut turns[*n])).collect();
        assert_eq!(ready, Vec::from_iter(expected));
    }

    #[test]
    fn the_first_in_line_are_let_in_first_and_so_many_at_a_time() {
        // Whoever is passed over waits for half a second while his neighbours are served again and again.
        let turnstile = under_strain(&ManualClock::at(UnixMillis(0)));
        let mut turns = Vec::from_iter((0..2 * TURN + 1).map(|_| Turn::new(&turnstile)));
        come(&mut turns, []);
        assert!(turnstile.let_in());
        come(&mut turns, 0..TURN);
        // They are in line again, behind the others: it was not one more turn that they had.
        assert!(turnstile.let_in());
        come(&mut turns, TURN..2 * TURN);
        assert!(turnstile.let_in());
        come(&mut turns, (0..TURN - 1).chain([2 * TURN]));
    }

    #[test]
    fn whoever_left_takes_nobodys_place() {
        // Connections that line up and go would otherwise hold up those that stay.
        let turnstile = under_strain(&ManualClock::at(UnixMillis(0)));
        let mut turns = Vec::from_iter((0..3 * TURN).map(|_| Turn::new(&turnstile)));
        come(&mut turns, []);
        turns.drain(..2 * TURN);
        assert!(turnstile.let_in());
        come(&mut turns, 0..TURN);
        turns.clear();
        assert!(!turnstile.let_in(), "nobody is left");
        assert!(turnstile.line.lock().is_empty());
    }

    #[test]
    fn without_strain_nobody_lines_up_and_whoever_did_is_let_in() {
        let manual = ManualClock::at(UnixMillis(0));
        let turnstile = under_strain(&manual);
        let mut early = Turn::new(&turnstile);
        assert!(!is_ready(&mut early));
        manual.advance(Duration::from_secs(3));
        assert!(is_ready(&mut Turn::new(&turnstile)));
        assert!(!is_ready(&mut early), "it is its turn when it is let in");
        assert!(turnstile.let_in());
        assert!(is_ready(&mut early));
        assert!(is_ready(&mut early), "and later requests need none");
    }

    #[tokio::test]
    async fn whoever_waits_now_is_woken() {
        // Another task may wait for a connection than the one that lined up: it is the one to be woken.
        let turnstile = under_strain(&ManualClock::at(UnixMillis(0)));
        let serving = tokio::spawn(Arc::clone(&turnstile).serve());
        let waiting = (0..10 * TURN).map(|_| {
            let mut turn = Turn::new(&turnstile);
            assert!(!is_ready(&mut turn));
            tokio::spawn(async move { poll_fn(|context| turn.poll(context)).await })
        });
        for waiting in Vec::from_iter(waiting) {
            waiting.await.unwrap();
        }
        serving.abort();
    }
}
