//! The request head an upstream gets for an event, written by us and only here.
//!
//! The request on the wire is made anew, never passed along: one request line, exactly one `Content-Length` equal
//! to the verified bytes, no `Transfer-Encoding`, no `Upgrade`, nothing the client named in `Connection`. Framing
//! tricks that survive a parser therefore die here. The words we add, `x-hookward-*`, are removed from what came
//! in under every spelling an upstream might fold into them (`X_Hookward_Verified` becomes the same CGI variable).

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::resign::{self, Resigned};
use crate::event::{Event, Sender};
use crate::observe::decimal;
use crate::signature::Strength;

/// A body no longer than this is copied behind its head: one buffer costs the system less to send than two.
const JOINED_BYTES_MAX: usize = 4096;

/// A request ready for the wire: its head, and the verified body behind it.
#[derive(Debug)]
pub struct Request {
    /// The head, and the body of a short one.
    pub(crate) head: Vec<u8>,
    /// The rest of the body.
    pub(crate) rest: Bytes,
    /// The answer to a HEAD has no body whatever its headers say.
    pub(crate) bodiless_answer: bool,
}

/// Room for a head.
const HEAD_ROOM: usize = 1024;

/// What a request is made of, wherever the event was kept meanwhile.
///
/// The corridor makes it from an [`Event`], the queue's worker from an event that an [`Event`] was published as.
pub(crate) struct Parts<'a> {
    pub(crate) method: &'a Method,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// The authority the client asked for.
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) sender: Sender,
    pub(crate) route: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) strength: Strength,
    pub(crate) event_id: Option<&'a str>,
    pub(crate) event_type: Option<&'a str>,
    pub(crate) body: &'a Bytes,
}

impl<'a> Parts<'a> {
    fn of(event: &'a Event<'_>) -> Self {
        let (permit, facts, received) = (event.permit(), event.facts(), event.received());
        Parts {
            method: received.method,
            target: &received.target,
            headers: received.headers,
            host: received.host,
            sender: received.sender,
            route: permit.route(),
            provider: permit.provider(),
            strength: permit.strength(),
            event_id: facts.event_id.as_deref(),
            event_type: facts.event_type.as_deref(),
            body: event.body(),
        }
    }
}

impl Request {
    /// Writes the head for `event`. `attempt` starts at 1; `host` replaces the received `Host` when the upstream
    /// is configured with one; `resigned` takes the place of what came in under its names.
    pub fn new(event: &Event<'_>, attempt: u32, host: Option<&str>, resigned: Option<&Resigned>) -> Self {
        Request::of(&Parts::of(event), attempt, host, resigned)
    }

    /// The same from its parts.
    pub(crate) fn of(parts: &Parts<'_>, attempt: u32, host: Option<&str>, resigned: Option<&Resigned>) -> Self {
        let joined = Some(parts.body).filter(|body| body.len() <= JOINED_BYTES_MAX);
        let mut head = Vec::with_capacity(joined.map_or(0, Bytes::len).saturating_add(HEAD_ROOM));
        head.extend_from_slice(parts.method.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(parts.target.as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\n");

        field(&mut head, "host", host.map(str::as_bytes).or(parts.host).unwrap_or(b""));
        let nominated = Nominated::of(parts.headers);
        for (name, value) in parts.headers {
            let replaced = resigned.is_some() && resign::is_ours(name);
            if !replaced
                && !is_ours(name, parts.sender)
                && !is_hop_by_hop(name.as_str().as_bytes())
                && !nominated.contains(name)
            {
                field(&mut head, name.as_str(), value.as_bytes());
            }
        }
        for (name, value) in forwarded(parts.headers, parts.sender, parts.host) {
            field(&mut head, name, &value);
        }
        hookward(&mut head, parts, attempt);
        for (name, value) in resigned.into_iter().flat_map(Resigned::headers) {
            field(&mut head, name, value.as_bytes());
        }
        number(&mut head, "content-length", parts.body.len() as u64);
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(joined.map_or(b"", |body| body));
        Request {
            head,
            rest: joined.map_or_else(|| parts.body.clone(), |_| Bytes::new()),
            bodiless_answer: parts.method == Method::HEAD,
        }
    }
}

/// `x-forwarded-for`, `-proto` and `-host`. What a trusted proxy said about the client is kept and extended; what
/// anybody else said is replaced.
pub(crate) fn forwarded<'a>(
    headers: &'a HeaderMap,
    sender: Sender,
    host: Option<&'a [u8]>,
) -> [(&'static str, Cow<'a, [u8]>); 3] {
    let said = |name: &str| {
        let said = sender.trusted.then(|| headers.get_all(name).into_iter());
        said.into_iter().flatten().map(HeaderValue::as_bytes)
    };
    let mut chain = Vec::with_capacity(64);
    for clients in said("x-forwarded-for") {
        chain.extend_from_slice(clients);
        chain.extend_from_slice(b", ");
    }
    decimal::ip(&mut chain, sender.peer);
    let proto: &[u8] = if sender.tls { b"https" } else { b"http" };
    let proto = said("x-forwarded-proto").next().unwrap_or(proto);
    let host = said("x-forwarded-host").next().or(host).unwrap_or_default();
    [
        ("x-forwarded-for", chain.into()),
        ("x-forwarded-proto", proto.into()),
        ("x-forwarded-host", host.into()),
    ]
}

/// What the gateway found out, for the upstream to rely on.
fn hookward(head: &mut Vec<u8>, parts: &Parts<'_>, attempt: u32) {
    field(head, "x-hookward-route", parts.route.as_bytes());
    field(head, "x-hookward-provider", parts.provider.as_bytes());
    field(head, "x-hookward-verified", parts.strength.as_str().as_bytes());
    if let Some(id) = parts.event_id {
        field(head, "x-hookward-event-id", id.as_bytes());
    }
    if let Some(kind) = parts.event_type {
        field(head, "x-hookward-event-type", kind.as_bytes());
    }
    number(head, "x-hookward-attempt", u64::from(attempt));
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

fn number(head: &mut Vec<u8>, name: &str, value: u64) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    decimal::number(head, value);
    head.extend_from_slice(b"\r\n");
}

/// Names that belong to one hop (RFC 9110 section 7.6.1) or to the framing that we write ourselves.
pub(crate) fn is_hop_by_hop(name: &[u8]) -> bool {
    let known: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        4 => &[b"host"],
        6 => &[b"expect"],
        7 => &[b"trailer", b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        14 => &[b"content-length", b"http2-settings"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        18 => &[b"proxy-authenticate"],
        19 => &[b"proxy-authorization"],
        _ => return false,
    };
    known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Names that only the gateway may write, in any spelling that an upstream may take for them: CGI-like interfaces
/// turn `-` and `_` into the same character, some of them everything that is neither letter nor digit.
///
/// `x-forwarded-for`, `-proto` and `-host` are written by us in any case; others of that family
/// (`x-forwarded-port`, `-ssl`, `-prefix`) are a proxy's to say, so they travel only when `sender` is a trusted one,
/// and only as they are properly spelt: the look-alikes are from whoever is behind it.
pub(crate) fn is_ours(name: &HeaderName, sender: Sender) -> bool {
    let name = name.as_str();
    if !name.starts_with(['x', 'f']) {
        return false;
    }
    // RFC 7239; we speak the older dialect, and a client's own must not contradict it.
    if family(name, "x-hookward-") || name == "forwarded" {
        return true;
    }
    if !family(name, "x-forwarded-") {
        return false;
    }
    let written = matches!(name, "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host");
    let proper = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    written || !proper || !sender.trusted
}

/// Whether `name` begins like `prefix`, whatever stands for its dashes.
pub(super) fn family(name: &str, prefix: &str) -> bool {
    let same = |(n, p): (u8, u8)| n == p || (p == b'-' && !n.is_ascii_alphanumeric());
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(same)
}

/// The names that either side listed in `Connection`: they are for this hop alone.
pub(crate) struct Nominated<'a>(Vec<&'a [u8]>);

impl<'a> Nominated<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let values = headers.get_all(header::CONNECTION).into_iter();
        let names = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
        Nominated(names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()).collect())
    }

    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        self.0
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }
}
