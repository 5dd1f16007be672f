//! How many there are of something, and who waits until there are none.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// So many there are, and whoever waits for the end of the last.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<(usize, Option<Waker>)>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<Tally>);

impl Tally {
    pub(super) fn enter(self: &Arc<Self>) -> Counted {
        let mut tally = self.0.lock();
        tally.0 = tally.0.saturating_add(1);
        Counted(Arc::clone(self))
    }

    /// Ready when there are none. One waits at a time.
    pub(super) fn poll_none(&self, context: &mut Context<'_>) -> Poll<()> {
        let (left, waiting) = &mut *self.0.lock();
        if *left == 0 {
            return Poll::Ready(());
        }
        match waiting {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waiting = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut tally = self.0.0.lock();
        tally.0 = tally.0.saturating_sub(1);
        let (left, waiting) = &mut *tally;
        let waker = waiting.take_if(|_| *left == 0);
        drop(tally);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
