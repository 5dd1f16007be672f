//! The body: whole, bounded, and shown to the verifier while it arrives.
//!
//! Bounded three ways: in bytes by the route, in total time, and together with all other bodies by the memory of
//! the process. Memory is taken for bytes that are there, never for bytes that were announced, so that a thousand
//! connections that promise a megabyte each hold nothing. Nothing is ever decompressed: signed is what was sent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
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

/// The bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes.
    pub(crate) bytes_max: usize,
    /// From the end of the head to the end of the body.
    pub(crate) timeout: Duration,
}

/// Reads the whole body; `arrived` sees every piece once, in order, as it arrives. `hold` grows with it.
///
/// # Errors
/// [`Reason::Encoded`], [`Reason::BodyTooLarge`], [`Reason::BodyTooSlow`], [`Reason::Truncated`] or
/// [`Reason::Memory`]; the rest of the body is unread then.
pub(crate) async fn read(
    session: &mut ServerSession,
    bounds: Bounds,
    clock: &Clock,
    hold: &mut Hold,
    mut arrived: impl FnMut(&[u8]),
) -> Result<Bytes, Refusal> {
    let declared = acceptable(session.req_header(), bounds)?;
    invite(session).await?;
    let started = clock.moment();
    let mut body = Pieces::default();
    while let Some(piece) = next(session, bounds.timeout.saturating_sub(clock.moment().since(started))).await? {
        let bytes = body
            .len()
            .checked_add(piece.len())
            .filter(|bytes| *bytes <= bounds.bytes_max);
        hold.grow_to(bytes.ok_or(Reason::BodyTooLarge)?)?;
        arrived(&piece);
        body.push(piece, declared);
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
    match pingora_timeout::timeout(left, session.read_request_body()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(e)) if e.etype == ErrorType::ReadTimedout => Err(Reason::BodyTooSlow),
        // An error is never the end of a body: what was read may be a prefix of what was signed.
        Ok(Err(_)) => Err(Reason::Truncated),
        Err(_) => Err(Reason::BodyTooSlow),
    }
}

/// A body in the making. One that came in one piece, as most do, is not copied again.
#[derive(Default)]
struct Pieces {
    only: Bytes,
    many: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.only.len().max(self.many.len())
    }

    fn push(&mut self, piece: Bytes, declared: Option<usize>) {
        if self.len() == 0 {
            self.only = piece;
            return;
        }
        if self.many.is_empty() {
            let needed = self.only.len().saturating_add(piece.len());
            self.many
                .reserve(declared.unwrap_or(FIRST_ROOM).min(FIRST_ROOM).max(needed));
            self.many.extend_from_slice(&self.only);
        }
        self.many.extend_from_slice(&piece);
    }

    fn whole(self) -> Bytes {
        match self.many.is_empty() {
            true => self.only,
            false => self.many.freeze(),
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
                body.push(Bytes::from_static(piece.as_bytes()), Some(3));
            }
            assert_eq!(body.len(), pieces.concat().len());
            assert_eq!(body.whole(), pieces.concat().as_bytes());
        }
    }
}
