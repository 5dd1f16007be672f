//! An event as it is kept: everything that an attempt needs, owned, and its form on disk.
//!
//! Made from an [`Event`] by the gateway, written and read back by engines, turned into a request by the worker. The
//! form is a list of fields, each with its length in front, under a version; every engine writes the same. A checksum
//! over head and body goes with it: what does not have it any more is not handed out. It is there against what disks do;
//! who can write the file could write another checksum, too, or another digest of whatever length.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::{Digest, Sha256};

use super::{Lane, QueueError};
use crate::clock::UnixMillis;
use crate::event::{Event, Sender};
use crate::signature::Strength;

/// Version of [`KeptEvent::head`]'s form.
const FORM: u8 = 1;

/// An event at rest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeptEvent {
    /// The route that took it.
    pub route: Arc<str>,
    /// The provider that signed it.
    pub provider: Arc<str>,
    /// How much the signature says.
    pub strength: Strength,
    /// The provider's signed event id.
    pub event_id: Option<String>,
    /// The event's type.
    pub event_type: Option<String>,
    /// The provider's name for its attempt: a label.
    pub delivery_id: Option<String>,
    /// The request's method.
    pub method: Method,
    /// Path and query to ask the upstream for.
    pub target: String,
    /// Every header as received.
    pub headers: HeaderMap,
    /// The authority the client asked for.
    pub host: Option<Bytes>,
    /// Who sent it.
    pub sender: Sender,
    /// The body, byte for byte as it was signed.
    pub body: Bytes,
}

/// An event to publish. Only a proven [`Event`] makes one.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub(in crate::queue) event: Arc<KeptEvent>,
    pub(in crate::queue) accepted_at: UnixMillis,
    pub(in crate::queue) destinations: Vec<Arc<str>>,
    pub(in crate::queue) order_key: Option<Bytes>,
}

impl NewEvent {
    /// `event`, accepted at this time, for each of `destinations` (different names, at most
    /// [`DESTINATIONS_MAX`](super::DESTINATIONS_MAX); with none it is on record as an event that nobody wanted). Events
    /// with the same `order_key` are delivered one after another in each lane.
    pub fn new(
        event: &Event<'_>,
        accepted_at: UnixMillis,
        destinations: Vec<Arc<str>>,
        order_key: Option<Bytes>,
    ) -> Self {
        NewEvent {
            event: Arc::new(KeptEvent::of(event)),
            accepted_at,
            destinations,
            order_key,
        }
    }

    /// The lanes it goes to.
    pub(in crate::queue) fn lanes(&self) -> impl Iterator<Item = Lane> {
        self.destinations.iter().map(|destination| Lane {
            route: Arc::clone(&self.event.route),
            destination: Arc::clone(destination),
        })
    }
}

impl KeptEvent {
    fn of(event: &Event<'_>) -> Self {
        let (permit, facts, received) = (event.permit(), event.facts(), event.received());
        KeptEvent {
            route: Arc::clone(permit.route()),
            provider: Arc::clone(permit.provider()),
            strength: permit.strength(),
            event_id: facts.event_id.clone(),
            event_type: facts.event_type.clone(),
            delivery_id: facts.delivery_id.clone(),
            method: received.method.clone(),
            target: received.target.clone().into_owned(),
            headers: received.headers.clone(),
            host: received.host.map(Bytes::copy_from_slice),
            sender: received.sender,
            body: event.body().clone(),
        }
    }

    /// All but the body, in the form of every engine's store.
    pub(in crate::queue) fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        head.put_u8(FORM);
        let strength = self.strength.as_str();
        for text in [
            &self.route,
            &self.provider,
            strength,
            self.method.as_str(),
            &self.target,
        ] {
            put(&mut head, text.as_bytes());
        }
        for text in [&self.event_id, &self.event_type, &self.delivery_id] {
            put_maybe(&mut head, text.as_ref().map(String::as_bytes));
        }
        put_maybe(&mut head, self.host.as_deref());
        put(&mut head, self.sender.peer.to_string().as_bytes());
        head.put_u8(u8::from(self.sender.trusted) | u8::from(self.sender.tls) << 1);
        for (name, value) in &self.headers {
            put(&mut head, name.as_str().as_bytes());
            put(&mut head, value.as_bytes());
        }
        head
    }

    /// What goes with `head` and `body` to tell whether they are still themselves.
    pub(in crate::queue) fn checksum(head: &[u8], body: &[u8]) -> [u8; 4] {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&(head.len() as u64).to_be_bytes());
        sum.update(head);
        sum.update(body);
        sum.finalize().to_be_bytes()
    }

    /// What stood in the checksum's place once: events that wait for longer than an update are read all the same.
    fn digest(head: &[u8], body: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((head.len() as u64).to_be_bytes());
        hash.update(head);
        hash.update(body);
        hash.finalize().into()
    }

    /// Reads back what [`head`](Self::head) wrote.
    ///
    /// # Errors
    /// [`QueueError::Damaged`] when the bytes are not those of `sum`, or of no form known.
    pub(in crate::queue) fn read(head: &[u8], body: Bytes, sum: &[u8]) -> Result<Self, QueueError> {
        let is_itself = match sum.len() {
            32 => KeptEvent::digest(head, &body).as_slice() == sum,
            _ => KeptEvent::checksum(head, &body).as_slice() == sum,
        };
        match is_itself {
            true => parse(head, body).ok_or(QueueError::Damaged),
            false => Err(QueueError::Damaged),
        }
    }
}

fn put(head: &mut Vec<u8>, field: &[u8]) {
    // Heads are bounded by far less than 4 GiB; one that were not would fail to be read, never be cut.
    head.put_u32(u32::try_from(field.len()).unwrap_or(u32::MAX));
    head.put_slice(field);
}

fn put_maybe(head: &mut Vec<u8>, field: Option<&[u8]>) {
    head.put_u8(u8::from(field.is_some()));
    if let Some(field) = field {
        put(head, field);
    }
}

fn parse(head: &[u8], body: Bytes) -> Option<KeptEvent> {
    let mut rest = Rest(head);
    if rest.byte()? != FORM {
        return None;
    }
    let (route, provider) = (rest.text()?.into(), rest.text()?.into());
    let strength = match rest.text()? {
        "verified" => Strength::Verified,
        "authenticated" => Strength::Authenticated,
        "waived" => Strength::Waived,
        _ => return None,
    };
    let method = Method::from_bytes(rest.field()?).ok()?;
    let target = rest.text()?.to_owned();
    let [event_id, event_type, delivery_id] = [rest.maybe()?, rest.maybe()?, rest.maybe()?].map(|name| {
        let name = name.map(str::from_utf8);
        name.map(|name| name.map(str::to_owned))
    });
    let host = rest.maybe()?.map(Bytes::copy_from_slice);
    let peer: IpAddr = rest.text()?.parse().ok()?;
    let flags = rest.byte()?;
    let mut headers = HeaderMap::new();
    while !rest.0.is_empty() {
        let name = HeaderName::from_bytes(rest.field()?).ok()?;
        headers.append(name, HeaderValue::from_bytes(rest.field()?).ok()?);
    }
    Some(KeptEvent {
        route,
        provider,
        strength,
        event_id: event_id.transpose().ok()?,
        event_type: event_type.transpose().ok()?,
        delivery_id: delivery_id.transpose().ok()?,
        method,
        target,
        headers,
        host,
        sender: Sender {
            peer,
            trusted: flags & 1 != 0,
            tls: flags & 2 != 0,
        },
        body,
    })
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.field()?).ok()
    }

    fn maybe(&mut self) -> Option<Option<&'a [u8]>> {
        match self.byte()? {
            0 => Some(None),
            _ => self.field().map(Some),
        }
    }
}

#[cfg(test)]
impl NewEvent {
    /// An event as the corridor might make it, for tests of engines.
    pub(in crate::queue) fn sample(route: &str, destinations: &[&str], body: impl Into<Bytes>, at: UnixMillis) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", &b"application/json"[..]),
            ("x-github-event", b"push"),
            ("x-twice", b"a"),
            ("x-twice", b"b \xff"),
        ] {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        NewEvent {
            event: Arc::new(KeptEvent {
                route: route.into(),
                provider: "github".into(),
                strength: Strength::Verified,
                event_id: None,
                event_type: Some("push".to_owned()),
                delivery_id: Some("72d3162e".to_owned()),
                method: Method::POST,
                target: "/webhooks/github?a=%20b".to_owned(),
                headers,
                host: Some(Bytes::from_static(b"hooks.example")),
                sender: Sender {
                    peer: [192, 0, 2, 7].into(),
                    trusted: false,
                    tls: true,
                },
                body: body.into(),
            }),
            accepted_at: at,
            destinations: destinations.iter().map(|name| (*name).into()).collect(),
            order_key: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> KeptEvent {
        let new = NewEvent::sample("github", &["app"], "body", UnixMillis(0));
        KeptEvent::clone(&new.event)
    }

    #[test]
    fn a_head_that_is_cut_or_altered_is_damaged() {
        // A failing disk, and the gateway panics at every start, or asks the backend for another path.
        let event = sample();
        let head = event.head();
        let sum = KeptEvent::checksum(&head, &event.body);
        assert!(KeptEvent::read(&head, event.body.clone(), &sum).is_ok());
        for at in 0..head.len() {
            let mut altered = head.clone();
            altered[at] ^= 0x55;
            for wrong in [&head[..at], &altered] {
                let read = KeptEvent::read(wrong, event.body.clone(), &sum);
                assert_eq!(read.unwrap_err(), QueueError::Damaged);
                // Even with a checksum that fits nothing panics.
                let fitting = KeptEvent::checksum(wrong, &event.body);
                let _ = KeptEvent::read(wrong, event.body.clone(), &fitting);
            }
        }
        for body in ["", "bodx", "bodyy"] {
            assert!(KeptEvent::read(&head, Bytes::from_static(body.as_bytes()), &sum).is_err());
        }
        assert!(KeptEvent::read(&head, event.body, &[]).is_err());
    }

    #[test]
    fn the_form_is_a_format() {
        // An update of the program cannot read the events that the last version took.
        let mut event = sample();
        event.headers.clear();
        let head = event.head();
        let expected = b"\x01\0\0\0\x06github\0\0\0\x06github\0\0\0\x08verified\0\0\0\x04POST\
            \0\0\0\x17/webhooks/github?a=%20b\0\x01\0\0\0\x04push\x01\0\0\0\x0872d3162e\
            \x01\0\0\0\x0dhooks.example\0\0\0\x09192.0.2.7\x02";
        assert_eq!(head.escape_ascii().to_string(), expected.escape_ascii().to_string());
        let sum = KeptEvent::checksum(b"head", b"body");
        assert_eq!(u32::from_be_bytes(sum), 0x3e211bc9);
        // A boundary that moves is another checksum.
        assert_ne!(sum, KeptEvent::checksum(b"headb", b"ody"));
    }

    #[test]
    fn what_waits_since_an_earlier_version_is_read_and_checked() {
        // An update of the program, and a year's dead letters are damaged, or their damage is not seen.
        let event = sample();
        let head = event.head();
        let digest = KeptEvent::digest(&head, &event.body);
        assert!(KeptEvent::read(&head, event.body.clone(), &digest).is_ok());
        let altered = KeptEvent::read(&head, Bytes::from_static(b"bodx"), &digest);
        assert_eq!(altered.unwrap_err(), QueueError::Damaged);
        let sum = KeptEvent::checksum(&head, &event.body);
        for part in [&digest[..4], &[sum, sum].concat()] {
            assert!(KeptEvent::read(&head, event.body.clone(), part).is_err());
        }
    }
}
