//! The head of a request: one meaning, or none.
//!
//! Proxy and backend must never disagree about where a request ends or which header counts; every disagreement is
//! a way to smuggle a request past the verification. What is not exactly as the grammar says is refused, on the raw
//! bytes and before anything else parses them.
//!
//! [`frame`] judges the raw head of an HTTP/1 request and is pure, [`frame_h2`] what HTTP/2 leaves open. [`Request`] is
//! the head of either version, [`Head`] what the other steps need to know besides about who sent it.

mod client;
mod names;

use std::net::IpAddr;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

use super::refusal::Reason;
use crate::event::Sender;
use crate::http1::{self, Framed};
use client::Spoken;

pub use client::ProxyHeader;

/// Judges the raw head of an HTTP/1 request, as [`http1::judge`] does.
///
/// # Errors
/// [`Reason::BadFraming`].
pub fn frame(raw: &[u8]) -> Result<Framed<'_>, Reason> {
    http1::judge(raw).ok_or(Reason::BadFraming)
}

/// Judges the head of an HTTP/2 request by what of the above HTTP/2 itself leaves open.
///
/// # Errors
/// [`Reason::BadFraming`].
pub(crate) fn frame_h2(request: &Request) -> Result<(), Reason> {
    let mut names = request.headers.keys().map(|name| name.as_str().as_bytes());
    let one_meaning = request.headers.len() <= http1::HEADERS_MAX
        && names.all(|name| http1::is_name(name) && !http1::is_framing_look_alike(name))
        && http1::is_request(request.method.as_str().as_bytes(), request.target.as_bytes())
        && request.host().is_some_and(http1::is_authority);
    one_meaning.then_some(()).ok_or(Reason::BadFraming)
}

/// The head of a request, as received, whoever read it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query, nothing decoded.
    pub(crate) target: Box<str>,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// `:authority`, where HTTP/2 has that instead of a `Host`.
    authority: Option<Box<str>>,
    /// Whether some name has a character that is neither letter, digit nor dash.
    has_odd_names: bool,
}

impl Request {
    /// The request whose raw head is `raw`, judged by [`frame`] already.
    ///
    /// # Errors
    /// [`Reason::BadFraming`], for what a judged head does not hold.
    pub(crate) fn of_http1(raw: &Bytes, framed: &Framed<'_>) -> Result<Self, Reason> {
        let mut headers = HeaderMap::with_capacity(HEADERS_ROOM);
        for (name, value) in &framed.fields {
            let name = names::name(name).ok_or(Reason::BadFraming)?;
            let value = HeaderValue::from_maybe_shared(raw.slice_ref(value)).map_err(|_| Reason::BadFraming)?;
            headers.append(name, value);
        }
        Ok(Request {
            method: Method::from_bytes(framed.method.as_bytes()).map_err(|_| Reason::BadFraming)?,
            target: framed.target.into(),
            version: if framed.is_11 {
                Version::HTTP_11
            } else {
                Version::HTTP_10
            },
            headers,
            authority: None,
            has_odd_names: framed.has_odd_names,
        })
    }

    /// The request that Pingora has read.
    pub(crate) fn of_parts(parts: &Parts) -> Self {
        Request {
            method: parts.method.clone(),
            target: target(parts).into(),
            version: parts.version,
            headers: parts.headers.clone(),
            authority: parts.uri.authority().map(|authority| authority.as_str().into()),
            has_odd_names: parts.headers.keys().any(|name| http1::is_odd(name.as_str().as_bytes())),
        }
    }

    /// The authority it is for: `Host`, or `:authority` in HTTP/2.
    pub(crate) fn host(&self) -> Option<&[u8]> {
        let host = self.headers.get(header::HOST).map(HeaderValue::as_bytes);
        host.or_else(|| self.authority.as_ref().map(|authority| authority.as_bytes()))
    }

    /// Whether the sender waits for `100 Continue` before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.version == Version::HTTP_11
            && self
                .headers
                .get(header::EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }

    /// The length that the head declares.
    pub(crate) fn declared_length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Whether the method is one that has no body to answer with.
    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

/// Room for headers, more than providers send: a map that is nearly full is slow to ask.
const HEADERS_ROOM: usize = 24;

/// What the steps need to know about who sent a request.
#[derive(Debug)]
pub(crate) struct Head {
    /// The address that connected.
    pub(crate) peer: IpAddr,
    /// Whether it is a proxy that may speak for others, and in which way.
    spokesman: Option<ProxyHeader>,
    /// The client behind all trusted proxies; the peer where that is not known.
    pub(crate) client: IpAddr,
    /// Whether it is known. Otherwise a trusted proxy speaks for somebody, and does not say for whom.
    client_known: bool,
    /// Whether the client's connection is encrypted.
    tls: bool,
}

impl Head {
    /// Reads who sent `request` over a connection from `peer`. `trusted` tells which addresses are proxies of ours, which
    /// speak for others in `header`.
    pub(crate) fn of(
        request: &Request,
        peer: Option<IpAddr>,
        tls: bool,
        header: ProxyHeader,
        trusted: impl Fn(IpAddr) -> bool,
    ) -> Self {
        // A connection without an address (a Unix socket, a test's pipe) counts as one local client.
        let peer = peer.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.to_canonical());
        let spokesman = trusted(peer).then_some(header);
        let spoken = match spokesman {
            Some(header) => client::behind(&request.headers, header, trusted),
            None => Spoken::Itself,
        };
        let (client, tls) = match spoken {
            Spoken::For(client, said) => (client, said.unwrap_or(tls)),
            Spoken::Itself | Spoken::Nobody => (peer, tls),
        };
        Head {
            peer,
            spokesman,
            client,
            client_known: spoken != Spoken::Nobody,
            tls,
        }
    }

    /// The address of the client, where it is certain.
    pub(crate) fn known_client(&self) -> Option<IpAddr> {
        self.client_known.then_some(self.client)
    }

    /// Who sent it, for `x-forwarded-*`. Where proxies speak in `Forwarded`, that family is a stranger's, and what it would
    /// say is told of the client that was named.
    pub(crate) fn sender(&self) -> Sender {
        Sender {
            peer: match self.spokesman {
                Some(ProxyHeader::Forwarded) => self.client,
                _ => self.peer,
            },
            trusted: self.spokesman == Some(ProxyHeader::XForwardedFor),
            tls: self.tls,
        }
    }
}

/// Path and query as received.
pub(crate) fn target(request: &Parts) -> &str {
    request.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The authority a request is for: `Host`, or `:authority` in HTTP/2.
pub(crate) fn host(request: &Parts) -> Option<&[u8]> {
    let host = request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    host.or_else(|| request.uri.authority().map(|authority| authority.as_str().as_bytes()))
}

/// Refuses a request in which a header that verification depends on, or the body's type, occurs twice, or next to a look-alike that
/// some backends would read instead (`X_Hub_Signature_256`).
///
/// # Errors
/// [`Reason::AmbiguousHeader`].
pub(crate) fn unambiguous(request: &Request, security: &[HeaderName]) -> Result<(), Reason> {
    let headers = &request.headers;
    // The type decides how a signed body is read: a form here must not be JSON behind us.
    let decisive = || security.iter().chain(std::iter::once(&header::CONTENT_TYPE));
    if decisive().any(|name| headers.get_all(name).into_iter().nth(1).is_some()) {
        return Err(Reason::AmbiguousHeader);
    }
    let look_alike = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        http1::is_odd(name) && decisive().any(|real| http1::is_look_alike(name, real.as_str().as_bytes()))
    };
    match request.has_odd_names && headers.keys().any(look_alike) {
        true => Err(Reason::AmbiguousHeader),
        false => Ok(()),
    }
}

/// Refuses an offer to go on in another protocol: whoever serves a webhook takes none up, and what follows it on the
/// connection is a request to one reader and something else to another.
///
/// # Errors
/// [`Reason::BadFraming`].
pub(crate) fn stays_http(headers: &HeaderMap) -> Result<(), Reason> {
    match headers.contains_key(header::UPGRADE) {
        true => Err(Reason::BadFraming),
        false => Ok(()),
    }
}
