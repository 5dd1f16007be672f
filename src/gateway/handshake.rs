//! An answer instead of an event: the provider asks in its own protocol, and is answered here.
//!
//! Two places of the corridor lead here. Questions that come unsigned by design are met once the request is there in
//! full and before anything is proven about it; they were counted against their client like everything else, and
//! spend nothing of the route's budget. Questions that are signed are met behind the proof and the budget. What is no
//! question goes on as if there were no handshakes: a method that is only for them is refused then.
//!
//! What is answered, and to whom, is decided by the provider's [`Handshakes`](crate::providers::Handshakes); kept
//! here is what they must not reach: a secret that a stranger brings counts only while the route waits for one.

use super::Route;
use super::refusal::{Reason, Refusal};
use crate::clock::Clock;
use crate::clock::UnixMillis;
use crate::providers::{Asked, HandshakeReply, Means, Met};
use crate::signature::Proof;

/// Judges the method: whether the request may be an event, or only a handshake.
///
/// # Errors
/// [`Reason::Method`] when it can be neither.
pub(crate) fn takes(route: &Route, head: &Asked<'_>) -> Result<bool, Reason> {
    match route.takes(head.method) {
        Ok(()) => Ok(true),
        Err(_) if route.provider.handshakes.may_begin(head) => Ok(false),
        Err(reason) => Err(reason),
    }
}

/// Meets a request that nothing is proven about; `None` when it is no handshake. `taken` is what [`takes`] said.
///
/// # Errors
/// [`Reason::Mismatch`] when the asker does not know what it has to know, [`Reason::Method`] when the request can be
/// nothing else than a handshake and is none.
pub(crate) async fn unsigned(
    route: &Route,
    asked: &Asked<'_>,
    taken: bool,
    now: UnixMillis,
    clock: &Clock,
) -> Result<Option<HandshakeReply>, Refusal> {
    let reply = match route.provider.handshakes.unsigned(asked, taken, &means(route, now)) {
        Met::Reply(reply) => Some(reply),
        Met::Brings(secret, reply) => route.register(secret, clock).await.then_some(reply),
        // Events are refused by their signatures.
        Met::Refused if !taken => return Err(Reason::Mismatch.into()),
        Met::Refused | Met::Nothing => None,
    };
    match reply {
        None if !taken => Err(Reason::Method.into()),
        reply => Ok(reply),
    }
}

/// Meets a request that is proven; `None` when it is an event.
pub(crate) fn signed(route: &Route, asked: &Asked<'_>, proof: &Proof, now: UnixMillis) -> Option<HandshakeReply> {
    route.provider.handshakes.signed(asked, proof, &means(route, now))
}

fn means(route: &Route, now: UnixMillis) -> Means<'_> {
    Means {
        verifier: route.verifier(),
        now,
    }
}
