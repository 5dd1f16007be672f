//! The body: whole, bounded, and shown to the verifier while it arrives.
//!
//! Bounded three ways: in bytes by the route, in total time, and together with all other bodies by the memory of
//! the process. Memory is taken for bytes that are there, never for bytes that were announced, so that a thousand
//! connections that promise a megabyte each hold nothing. Nothing is ever decompressed: signed is what was sent.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use pingora_core::ErrorType;
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;

use super::admit::Hold;
use super::head;
use super::refusal::{Reason, Refusal};
use crate::clock::Clock;

/// Room made at once for a body of several pieces.
const FIRST_ROOM: usize = 64 * 1024;

/// How long a body may be slower than its least rate at the beginning: a lost packet is no attack.
const GRACE: Duration = Duration::from_secs(5);

/// The bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes.
    pub(crate) bytes_max: usize,
    /// From the end of the head to the end of the body.
    pub(crate) timeout: Duration,
    /// Bytes a second that a sender has to keep up with, once it had [`GRACE`] to begin.
    pub(crate) rate: u64,
}

impl Bounds {
    /// By when a sender has to have sent more than `received`, counted from the end of the head.
    fn deadline(&self, received: usize) -> Duration {
        let earned = Duration::from_secs(received as u64) / u32::try_from(self.rate.max(1)).unwrap_or(u32::MAX);
        self.timeout.min(GRACE.saturating_add(earned))
    }
}

/// Reads the whole body; `arrived` sees every piece once, in order, as it arrives. `hold` grows with it.
///
/// # Errors
/// [`Reason::Encoded`], [`Reason::BodyTooLarge`], [`Reason::BodyTooSlow`], [`Reason::Truncated`],
/// [`Reason::BadFraming`] or [`Reason::Memory`]; the rest of the body is unread then.
pub(crate) async fn read(
    session: &mut ServerSession,
    bounds: Bounds,
    clock: &Clock,
    hold: &mut Hold,
    mut arrived: impl FnMut(&[u8]),
) -> Result<Bytes, Refusal> {
    let most = acceptable(session.req_header(), bounds)?.unwrap_or(bounds.bytes_max);
    invite(session).await?;
    let started = clock.moment();
    let mut body = Pieces::default();
    while let Some(piece) = next(
        session,
        bounds
            .deadline(body.len())
            .saturating_sub(clock.moment().since(started)),
    )
    .await?
    {
        let bytes = body
            .len()
            .checked_add(piece.len())
            .filter(|bytes| *bytes <= bounds.bytes_max);
        hold.grow_to(bytes.ok_or(Reason::BodyTooLarge)?)?;
        arrived(&piece);
        body.push(piece, most);
    }
    Ok(body.whole())
}

/// Judges what the head says about the body. Returns the declared length.
fn acceptable(request: &RequestHeader, bounds: Bounds) -> Result<Option<usize>, Refusal> {
    let mut encodings = request.headers.get_all(header::CONTENT_ENCODING).into_iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Reason::Encoded.into());
    }
    let Some(declared) = head::declared_length(request) else {
        return Ok(None);
    };
    let fits = usize::try_from(declared)
        .ok()
        .filter(|bytes| *bytes <= bounds.bytes_max);
    Ok(Some(fits.ok_or(Reason::BodyTooLarge)?))
}

/// Tells a sender that asked for it to go ahead. Pingora never does so by itself, and takes the interim answer for
/// a final one that came before the body unless told otherwise.
async fn invite(session: &mut ServerSession) -> Result<(), Refusal> {
    if !head::expects_continue(session.req_header()) || session.is_body_done() {
        return Ok(());
    }
    session.set_close_on_response_before_downstream_finish(false);
    let invited = session.write_continue_response().await;
    session.set_close_on_response_before_downstream_finish(true);
    invited.map_err(|_| Reason::Truncated.into())
}

async fn next(session: &mut ServerSession, left: Duration) -> Result<Option<Bytes>, Reason> {
    // A sender whose next piece is always there already never waits, and no timer fires.
    if left.is_zero() {
        return Err(Reason::BodyTooSlow);
    }
    match pingora_timeout::timeout(left, session.read_request_body()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(e)) if e.etype == ErrorType::ReadTimedout => Err(Reason::BodyTooSlow),
        Ok(Err(e)) if is_badly_framed(&e) => Err(Reason::BadFraming),
        // An error is never the end of a body: what was read may be a prefix of what was signed.
        Ok(Err(_)) => Err(Reason::Truncated),
        Err(_) => Err(Reason::BodyTooSlow),
    }
}

/// Whether the body did not end but break: its chunks have no single meaning. Our own server says it by the kind of the
/// connection's error.
fn is_badly_framed(e: &pingora_core::Error) -> bool {
    let cause = e.cause.as_ref().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

/// A body in the making. One that came in one piece, as most do, is not copied again.
#[derive(Default)]
struct Pieces {
    only: Bytes,
    many: Vec<u8>,
}

impl Pieces {
    fn len(&self) -> usize {
        self.only.len().max(self.many.len())
    }

    /// `most` is how long the whole body can be: room is made as the body grows, doubled each time, but not beyond.
    fn push(&mut self, piece: Bytes, most: usize) {
        if self.len() == 0 {
            self.only = piece;
            return;
        }
        let needed = self.len().saturating_add(piece.len());
        if needed > self.many.capacity() {
            let room = needed.saturating_mul(2).max(FIRST_ROOM).min(most).max(needed);
            self.many.reserve_exact(room.saturating_sub(self.many.len()));
        }
        if self.many.is_empty() {
            self.many.extend_from_slice(&self.only);
        }
        self.many.extend_from_slice(&piece);
    }

    fn whole(self) -> Bytes {
        match self.many.is_empty() {
            true => self.only,
            false => self.many.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_in_order() {
        // A body out of order verifies nothing, or worse, something else.
        for pieces in [&[][..], &["a"], &["a", "b"], &["", "ab", "", "c", "d"]] {
            let mut body = Pieces::default();
            for piece in pieces {
                body.push(Bytes::from_static(piece.as_bytes()), 3);
            }
            assert_eq!(body.len(), pieces.concat().len());
            assert_eq!(body.whole(), pieces.concat().as_bytes());
        }
    }

    #[test]
    fn room_is_never_made_for_more_than_the_whole_body() {
        // Limits on bodies and memory count bytes; room that is doubled past them would make the process larger.
        let most = 10 * FIRST_ROOM;
        let mut body = Pieces::default();
        for pushed in 1..=10 {
            body.push(Bytes::from(vec![0; FIRST_ROOM]), most);
            assert!(body.many.capacity() <= most.min(2 * pushed * FIRST_ROOM), "{pushed}");
        }
        assert_eq!((body.len(), body.many.capacity()), (most, most));
    }
}
