//! What a request says about its event: id, type, attempt, or that it is a challenge.
//!
//! Called by the gateway after verification. The event id is authenticated or absent; the other names are labels for
//! the backend, the log and people. All of them go into headers and log lines, so what does not fit there (control
//! characters, other alphabets, more than 512 bytes) is not used at all instead of being trimmed into something else.
//!
//! A challenge is answered only under a proof that binds the body: whoever may be reflected to has signed what is
//! reflected.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::json::{self, Wanted};
use super::{EventId, Provider, Selector};
use crate::signature::{Proof, Strength};

/// Longest event id, event type and delivery id, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// Longest challenge that is sent back, in bytes.
const CHALLENGE_BYTES_MAX: usize = 4 * 1024;

/// What a request says about its event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What identifies the event over all retries. Authenticated; `None` without a proof. Visible ASCII.
    pub event_id: Option<String>,
    /// The provider's name for this attempt. A label: anybody can change it. Visible ASCII.
    pub delivery_id: Option<String>,
    /// The kind of event. A label unless it is read from a signed body. Printable ASCII, no space at the ends.
    pub event_type: Option<String>,
    /// The answer, if the request is a challenge and no event.
    pub handshake: Option<HandshakeReply>,
}

/// The answer to a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeReply {
    /// Status code.
    pub status: u16,
    /// `content-type`.
    pub content_type: &'static str,
    /// The challenge.
    pub body: Bytes,
}

impl Provider {
    /// Reads an event's names from a request and, under a proof, its id and whether it is a challenge.
    ///
    /// One pass over the body, and none when this provider has everything in headers.
    pub fn facts(&self, headers: &HeaderMap, body: &[u8], proof: Option<&Proof>) -> Facts {
        let bound = proof.is_some_and(|proof| proof.strength() == Strength::Verified);
        let handshake = self.handshake.as_ref().filter(|_| bound);
        let name = |path| Wanted {
            path,
            bytes_max: NAME_BYTES_MAX,
        };
        let wanted = [
            match &self.event.id {
                EventId::Json(path) if bound => Some(name(path)),
                _ => None,
            },
            match &self.event.kind {
                Some(Selector::Json(path)) => Some(name(path)),
                _ => None,
            },
            handshake.map(|handshake| name(&handshake.when)),
            handshake.map(|handshake| Wanted {
                path: &handshake.answer,
                bytes_max: CHALLENGE_BYTES_MAX,
            }),
        ];
        let [id, kind, when, challenge] = json::find(body, wanted);
        let event_id = match &self.event.id {
            EventId::Json(_) => id.filter(|id| is_id(id)),
            EventId::Signed => proof.and_then(Proof::signed_id).map(str::to_owned),
            EventId::Unsigned(_) => None,
        };
        let event_type = match &self.event.kind {
            Some(Selector::Json(_)) => kind.filter(|kind| is_printable(kind)),
            Some(Selector::Header(header)) => label(headers, header).filter(|kind| is_printable(kind)),
            None => None,
        };
        let delivery = self.event.delivery.as_ref();
        Facts {
            event_id,
            delivery_id: delivery
                .and_then(|header| label(headers, header))
                .filter(|id| is_id(id)),
            event_type,
            handshake: match (handshake, when, challenge) {
                (Some(handshake), Some(when), Some(challenge)) if when == handshake.equals => reply(challenge),
                _ => None,
            },
        }
    }
}

/// The one value of an unsigned header; `None` when there are several, or none that is text within bounds.
fn label(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() || value.len() > NAME_BYTES_MAX {
        return None;
    }
    value.to_str().ok().map(str::to_owned)
}

fn reply(challenge: String) -> Option<HandshakeReply> {
    is_printable(&challenge).then(|| HandshakeReply {
        status: 200,
        content_type: "text/plain; charset=utf-8",
        body: Bytes::from(challenge),
    })
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_printable(text: &str) -> bool {
    let inside = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    inside && !text.is_empty() && !text.starts_with(' ') && !text.ends_with(' ')
}
