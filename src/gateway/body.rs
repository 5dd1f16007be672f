//! The body: whole, bounded, and shown to the verifier while it arrives.
//!
//! Bounded three ways: in bytes by the route, in total time, and together with all other bodies by the memory of
//! the process. Memory is taken for bytes that are there, never for bytes that were announced, so that a thousand
//! connections that promise a megabyte each hold nothing. Nothing is ever decompressed: signed is what was sent.

use std::time::Duration;

use bytes::Bytes;
use http::header;

use super::admit::Hold;
use super::exchange::{Exchange, Unread};
use super::head::Request;
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
    exchange: &mut impl Exchange,
    request: &Request,
    bounds: Bounds,
    clock: &Clock,
    hold: &mut Hold,
    mut arrived: impl FnMut(&[u8]),
) -> Result<Bytes, Refusal> {
    let most = acceptable(request, bounds)?.unwrap_or(bounds.bytes_max);
    if request.expects_continue() && !exchange.is_body_done() {
        exchange.invite().await.map_err(|_| Reason::Truncated)?;
    }
    let started = clock.moment();
    let mut body = Pieces::default();
    while !exchange.is_body_done() {
        let left = bounds
            .deadline(body.len())
            .saturating_sub(clock.moment().since(started));
        let Some(piece) = next(exchange, left).await? else {
            break;
        };
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
fn acceptable(request: &Request, bounds: Bounds) -> Result<Option<usize>, Refusal> {
    let mut encodings = request.headers.get_all(header::CONTENT_ENCODING).into_iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Reason::Encoded.into());
    }
    let Some(declared) = request.declared_length() else {
        return Ok(None);
    };
    let fits = usize::try_from(declared)
        .ok()
        .filter(|bytes| *bytes <= bounds.bytes_max);
    Ok(Some(fits.ok_or(Reason::BodyTooLarge)?))
}

async fn next(exchange: &mut impl Exchange, left: Duration) -> Result<Option<Bytes>, Reason> {
    // A sender whose next piece is always there already never waits, and no timer fires.
    if left.is_zero() {
        return Err(Reason::BodyTooSlow);
    }
    match pingora_timeout::timeout(left, exchange.piece()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(Unread::TooSlow)) | Err(_) => Err(Reason::BodyTooSlow),
        Ok(Err(Unread::BadFraming)) => Err(Reason::BadFraming),
        // An error is never the end of a body: what was read may be a prefix of what was signed.
        Ok(Err(Unread::Truncated)) => Err(Reason::Truncated),
    }
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
