//! Connections that lie unused between two exchanges, kept beside the server they lead to.
//!
//! Pingora's own pool watches every idle connection with a task of its own, spawned anew after each request; here a
//! connection is looked at when it is taken out, which costs nothing while it lies. The newest goes first, so that
//! what is not needed grows old and is closed. Kept for less time than the server keeps it: a request written into
//! a connection that the other side is closing is lost, and a lost POST may not be repeated.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};

use super::wire::Wire;
use crate::clock::Moment;

/// More unused connections to one address than this are not kept. Far above what a moment frees: each one that is closed
/// is opened again for the next request, and leaves a port behind that nobody can use for a minute.
const CONNECTIONS_MAX: usize = 4096;

/// The unused connections to one address, the oldest first.
#[derive(Default)]
pub(crate) struct Idle(Mutex<Vec<Parked>>);

struct Parked {
    wire: Wire,
    until: Moment,
}

impl Idle {
    /// The newest connection that is still good.
    pub(crate) fn take(&self, now: Moment) -> Option<Wire> {
        loop {
            let Parked { mut wire, until } = self.0.lock().pop()?;
            if now < until && is_silent(&mut wire) {
                return Some(wire);
            }
        }
    }

    /// Keeps `wire`, for `keep` at most.
    pub(crate) fn park(&self, wire: Wire, now: Moment, keep: Duration) {
        let until = now.plus(keep);
        let mut parked = self.0.lock();
        if parked.len() < CONNECTIONS_MAX {
            parked.push(Parked { wire, until });
        }
    }

    /// Closes what has lain too long.
    pub(crate) fn sweep(&self, now: Moment) {
        let over: Vec<Parked> = self.0.lock().extract_if(.., |parked| parked.until <= now).collect();
        // Closed outside of the lock.
        drop(over);
    }
}

/// Whether nothing has come in since the last answer: an end, or bytes that nobody asked for, spoil a connection.
fn is_silent(wire: &mut Wire) -> bool {
    let mut byte = [0];
    let mut read = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(Waker::noop());
    matches!(Pin::new(wire).poll_read(&mut context, &mut read), Poll::Pending)
}
