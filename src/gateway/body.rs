//! The body: whole, bounded, and shown to the verifier while it arrives.
//!
//! Bounded three ways: in bytes by the route, in total time, and together with all other bodies by the memory of
//! the process. Memory is taken for bytes that are there, never for bytes that were announced, so that a thousand
//! connections that promise a megabyte each hold nothing. Nothing is ever decompressed: signed is what was sent.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header;

use super::admit::Hold;
use super::exchange::{Exchange, Next, Unread};
use super::head::Request;
use super::refusal::{Reason, Refusal};
use crate::clock::{Clock, within};

/// Room made at once for a body of several pieces.
const FIRST_ROOM: usize = 128 * 1024;

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
        let rate = u32::try_from(self.rate.max(1)).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(received as u64)
            .checked_div(rate)
            .unwrap_or(Duration::MAX);
        self.timeout.min(GRACE.saturating_add(earned))
    }

    fn admit(&self, bytes: usize) -> Result<usize, Reason> {
        Some(bytes)
            .filter(|bytes| *bytes <= self.bytes_max)
            .ok_or(Reason::BodyTooLarge)
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
    // A body that came in one piece, as most do, is not copied again.
    let only = match exchange.is_body_done() {
        true => None,
        false => in_time(bounds.deadline(0), exchange.piece()).await?,
    };
    let Some(only) = only else {
        return Ok(Bytes::new());
    };
    hold.grow_to(bounds.admit(only.len())?)?;
    arrived(&only);
    if exchange.is_body_done() {
        return Ok(only);
    }
    let mut body = Vec::new();
    push(&mut body, &only, most);
    drop(only);
    let mut spent = clock.moment().since(started);
    while !exchange.is_body_done() {
        let before = body.len();
        make_room(&mut body, 1, most);
        let deadline = bounds.deadline(before);
        match in_time(deadline.saturating_sub(spent), exchange.append(&mut body)).await? {
            Next::Appended => {}
            Next::Piece(piece) => {
                bounds.admit(before.saturating_add(piece.len()))?;
                push(&mut body, &piece, most);
            }
            Next::End => break,
        }
        spent = clock.moment().since(started);
        if spent > deadline {
            return Err(Reason::BodyTooSlow.into());
        }
        hold.grow_to(bounds.admit(body.len())?)?;
        arrived(body.get(before..).unwrap_or_default());
    }
    Ok(body.into())
}

fn push(body: &mut Vec<u8>, piece: &[u8], most: usize) {
    make_room(body, piece.len(), most);
    body.extend_from_slice(piece);
}

/// Room for `more` bytes of a body that can be as long as `most`: doubled each time, but not beyond.
fn make_room(body: &mut Vec<u8>, more: usize, most: usize) {
    let needed = body.len().saturating_add(more);
    if needed > body.capacity() {
        let room = needed.saturating_mul(2).max(FIRST_ROOM).min(most).max(needed);
        body.reserve_exact(room.saturating_sub(body.len()));
    }
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

async fn in_time<T>(left: Duration, read: impl Future<Output = Result<T, Unread>>) -> Result<T, Reason> {
    // A sender whose next piece is always there already never waits, and no timer fires.
    if left.is_zero() {
        return Err(Reason::BodyTooSlow);
    }
    match within(left, read).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(Unread::TooSlow)) | Err(_) => Err(Reason::BodyTooSlow),
        Ok(Err(Unread::BadFraming)) => Err(Reason::BadFraming),
        // An error is never the end of a body: what was read may be a prefix of what was signed.
        Ok(Err(Unread::Truncated)) => Err(Reason::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_never_made_for_more_than_the_whole_body() {
        // Limits on bodies and memory count bytes; room that is doubled past them would make the process larger.
        let most = 10 * FIRST_ROOM;
        let mut body = Vec::new();
        for pushed in 1..=10 {
            push(&mut body, &vec![0; FIRST_ROOM], most);
            assert!(body.capacity() <= most.min(2 * pushed * FIRST_ROOM), "{pushed}");
        }
        assert_eq!((body.len(), body.capacity()), (most, most));
        // One byte more than allowed is enough to see that it is one too many.
        make_room(&mut body, 1, most);
        assert_eq!(body.capacity(), most + 1);
    }
}
