//! A proven webhook, from here on.
//!
//! The types are the corridor's locks. A [`Permit`] can only be made from a [`Proof`], and only the verifier makes
//! proofs; an [`Event`] can only be made from a permit; the upstream client and the queue take events and nothing
//! else. So "forwarded without verification" is a program that does not compile, not a review comment.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::providers::Facts;
use crate::signature::{Proof, Strength};

/// The word of the verifier, for one route, about one message.
#[derive(Debug)]
pub struct Permit {
    proof: Proof,
    route: Arc<str>,
    provider: Arc<str>,
}

impl Permit {
    /// Turns the verifier's proof into a permit for the route whose secrets made it.
    pub(crate) fn new(proof: Proof, route: &Arc<str>, provider: &Arc<str>) -> Self {
        Permit {
            proof,
            route: Arc::clone(route),
            provider: Arc::clone(provider),
        }
    }

    /// What was proven, and under which key.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// How much the proof says: the body bound, or the origin alone.
    pub fn strength(&self) -> Strength {
        self.proof.strength()
    }

    /// The name of the route this permit is good for.
    pub fn route(&self) -> &Arc<str> {
        &self.route
    }

    /// The provider, or the user's own scheme, that signed.
    pub fn provider(&self) -> &Arc<str> {
        &self.provider
    }
}

/// The head of a request as it was received, on its way into an [`Event`].
#[derive(Debug)]
pub struct Received<'a> {
    /// Request method.
    pub method: &'a Method,
    /// Path and query to ask the upstream for.
    pub target: Cow<'a, str>,
    /// Every header as received; the upstream client leaves out what must not travel.
    pub headers: &'a HeaderMap,
    /// The authority the client asked for.
    pub host: Option<&'a [u8]>,
    /// Who sent it.
    pub sender: Sender,
}

/// Where a request came from, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// The address that connected to the gateway.
    pub peer: IpAddr,
    /// Whether that address is a trusted proxy, which may speak for others in `x-forwarded-*`.
    pub trusted: bool,
    /// Whether the request came in over TLS.
    pub tls: bool,
}

/// A webhook that is genuine, fresh, within its limits and not seen before: the thing we owe to the upstream.
#[derive(Debug)]
pub struct Event<'a> {
    permit: Permit,
    facts: Facts,
    received: Received<'a>,
    body: Bytes,
}

impl<'a> Event<'a> {
    /// An event from a permit and the message that earned it. `body` is the received body, byte for byte.
    pub(crate) fn new(permit: Permit, facts: Facts, received: Received<'a>, body: Bytes) -> Self {
        Event {
            permit,
            facts,
            received,
            body,
        }
    }

    /// The permit that made this an event.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Event id, type and delivery id, as far as the provider tells them.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The head of the request.
    pub fn received(&self) -> &Received<'a> {
        &self.received
    }

    /// The body, byte for byte as it was signed.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}
