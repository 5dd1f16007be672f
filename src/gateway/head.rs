//! The head of a request: one meaning, or none.
//!
//! Proxy and backend must never disagree about where a request ends or which header counts; every disagreement is
//! a way to smuggle a request past the verification. Two parsers disagree only about input that is not exactly
//! what the grammar says, so that input is refused, on the raw bytes and before anything else parses them:
//! bare line ends, folded lines, two lengths, length with chunks, look-alike names. RFC 9112 sections 2, 3, 5, 6.
//!
//! [`frame`] judges the raw head of an HTTP/1 request and is pure, [`frame_h2`] what HTTP/2 leaves open. [`Head`] is
//! what the other steps need to know about a request of either version.

mod client;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;

use super::refusal::Reason;
use crate::event::Sender;
use client::Spoken;

pub use client::ProxyHeader;

/// More header lines than this are refused.
const HEADERS_MAX: usize = 100;

/// A longer target is refused: what parses it behind us counts in 16 bits.
const TARGET_BYTES_MAX: usize = 65_534;

/// Judges the raw head of an HTTP/1 request: request line, header lines and the empty line, all bytes of it.
///
/// Promises for a head it lets pass: every line ends in CRLF and nowhere else is a CR, LF or NUL; the method is no
/// tunnel; at most one length, of digits, or exactly `Transfer-Encoding: chunked`, never both; exactly one `Host`
/// in HTTP/1.1, which names a host; no name that a careless parser takes for a framing header. Pingora's own parser
/// then finds nothing to refuse, which it would do unseen by logs and metrics.
///
/// # Errors
/// [`Reason::BadFraming`] for everything else.
pub fn frame(raw: &[u8]) -> Result<Framed<'_>, Reason> {
    strict(raw).ok_or(Reason::BadFraming)
}

/// What a head that was let pass asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    /// Path and query.
    pub target: &'a str,
    /// The value of `Host`; HTTP/1.0 may have none.
    pub host: Option<&'a [u8]>,
    /// Whether the body comes in chunks, which have framing of their own.
    pub chunked: bool,
}

/// Judges a line behind the last chunk. Nothing there is ever used; what would have a meaning in a head is refused.
///
/// # Errors
/// [`Reason::BadFraming`].
pub(crate) fn trailer(line: &[u8]) -> Result<(), Reason> {
    let harmless = |name: &[u8]| {
        let names: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"host", b"trailer"];
        !is_framing_look_alike(name) && !names.iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let (name, _) = Lines(line)
        .next()
        .flatten()
        .and_then(header_line)
        .ok_or(Reason::BadFraming)?;
    harmless(name).then_some(()).ok_or(Reason::BadFraming)
}

/// Judges the head of an HTTP/2 request by what of the above HTTP/2 itself leaves open.
///
/// # Errors
/// [`Reason::BadFraming`].
pub(crate) fn frame_h2(request: &RequestHeader) -> Result<(), Reason> {
    let mut names = request.headers.keys().map(|name| name.as_str().as_bytes());
    let one_meaning = request.headers.len() <= HEADERS_MAX
        && names.all(|name| is_name(name) && !is_framing_look_alike(name))
        && is_request(request.method.as_str().as_bytes(), target(request).as_bytes())
        && host(request).is_some_and(is_authority);
    one_meaning.then_some(()).ok_or(Reason::BadFraming)
}

fn strict(raw: &[u8]) -> Option<Framed<'_>> {
    // The first empty line ends it: nothing may stand behind one, another empty line included.
    let raw = raw.strip_suffix(b"\r\n\r\n").filter(|raw| !raw.ends_with(b"\r\n"))?;
    let mut lines = Lines(raw);
    let (target, version) = request_line(lines.next()??)?;
    let mut framing = Framing::default();
    let mut count = 0_usize;
    for line in lines {
        count = count.checked_add(1).filter(|count| *count <= HEADERS_MAX)?;
        let (name, value) = header_line(line?)?;
        framing.note(name, value)?;
    }
    framing.judge(version)?;
    Some(Framed {
        target,
        host: framing.host,
        chunked: framing.chunked,
    })
}

/// Lines between CRLFs; `None` for a line that holds a CR, LF or NUL of its own.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr3(b'\r', b'\n', 0, self.0);
        let (line, rest) = match end {
            None => (self.0, &b""[..]),
            Some(end) => match self.0.split_at_checked(end) {
                Some((line, rest)) if rest.starts_with(b"\r\n") => (line, rest.get(2..).unwrap_or_default()),
                _ => {
                    self.0 = b"";
                    return Some(None);
                }
            },
        };
        self.0 = rest;
        Some(Some(line))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8]) -> Option<(&str, Version)> {
    let mut words = line.split(|b| *b == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return None;
    }
    if !is_request(method, target) {
        return None;
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return None,
    };
    Some((std::str::from_utf8(target).ok()?, version))
}

/// Origin form, or the asterisk of OPTIONS; tunnels and echoes have no place in front of anything.
fn is_request(method: &[u8], target: &[u8]) -> bool {
    match method {
        b"OPTIONS" if target == b"*" => true,
        _ => {
            is_origin_form(target) && !method.eq_ignore_ascii_case(b"CONNECT") && !method.eq_ignore_ascii_case(b"TRACE")
        }
    }
}

/// A fragment is never sent by anybody honest. `"<>` and, in paths, the backtick are escaped by every client and
/// refused by the parser behind us.
fn is_origin_form(target: &[u8]) -> bool {
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    path.starts_with(b"/")
        && target.len() <= TARGET_BYTES_MAX
        && target
            .iter()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>'))
        && !path.contains(&b'`')
}

/// A name or an address, and perhaps a port: RFC 9110 section 7.2. No user, no list, nothing that only looks like the
/// name of a route's host.
fn is_authority(host: &[u8]) -> bool {
    let colon = host.iter().rposition(|b| *b == b':').filter(|_| !host.ends_with(b"]"));
    let (name, port) = host.split_at_checked(colon.unwrap_or(host.len())).unwrap_or_default();
    let port = port.strip_prefix(b":").unwrap_or_default();
    let address = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    // Names are tokens but for the hash, the caret, the backtick and the bar, which no host has, and a few signs more.
    let of_name = |b: u8| match b {
        b'#' | b'^' | b'`' | b'|' => false,
        _ => is_token(b) || matches!(b, b'(' | b')' | b';' | b'='),
    };
    let valid = match address {
        Some(address) => address
            .iter()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')),
        None => name.iter().all(|b| of_name(*b)),
    };
    valid && !name.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

fn header_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.get(1..)?;
    // Summed up rather than stopped at: the common value has none, and this way many bytes are looked at together.
    let control = value
        .iter()
        .fold(false, |any, b| any | ((*b < b' ' && *b != b'\t') | (*b == 0x7f)));
    // A space in front of the name (folding) or of the colon is no token character.
    (is_name(name) && !control).then(|| (name, value.trim_ascii()))
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| is_token(*b))
}

/// RFC 9110 section 5.6.2.
fn is_token(b: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0;
        while b < 128 {
            table[b] = (b as u8).is_ascii_alphanumeric();
            b += 1;
        }
        let signs = b"!#$%&'*+-.^_`|~";
        let mut n = 0;
        while n < signs.len() {
            table[signs[n] as usize] = true;
            n += 1;
        }
        table
    };
    TOKEN[usize::from(b)]
}

/// The headers that say where the request ends and whom it is for.
#[derive(Default)]
struct Framing<'a> {
    length: bool,
    chunked: bool,
    host: Option<&'a [u8]>,
}

impl<'a> Framing<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Option<()> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            14 if is(b"content-length") => {
                let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
                (digits && !self.length).then(|| self.length = true)
            }
            17 if is(b"transfer-encoding") => {
                (value.eq_ignore_ascii_case(b"chunked") && !self.chunked).then(|| self.chunked = true)
            }
            4 if is(b"host") => (self.host.replace(value).is_none() && is_authority(value)).then_some(()),
            _ => (!is_framing_look_alike(name)).then_some(()),
        }
    }

    fn judge(&self, version: Version) -> Option<()> {
        let one_end = !(self.length && self.chunked);
        let one_host = match version {
            Version::Http11 => self.host.is_some(),
            Version::Http10 => !self.chunked,
        };
        (one_end && one_host).then_some(())
    }
}

/// What CGI-like servers read as the headers that say where a request ends.
fn is_framing_look_alike(name: &[u8]) -> bool {
    let framing: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
    framing.into_iter().any(|real| is_look_alike(name, real))
}

/// Whether `name` is another one than `real` and becomes the same in a CGI-like interface, where whatever is neither
/// letter nor digit turns into one and the same character.
fn is_look_alike(name: &[u8], real: &[u8]) -> bool {
    let same = |(n, r): (&u8, &u8)| n.eq_ignore_ascii_case(r) || (*r == b'-' && !n.is_ascii_alphanumeric());
    name.len() == real.len() && !name.eq_ignore_ascii_case(real) && name.iter().zip(real).all(same)
}

/// What the steps need to know of a request's head.
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
    /// Reads the connection's side of the head. `trusted` tells which addresses are proxies of ours, which speak for others
    /// in `header`.
    pub(crate) fn of(session: &ServerSession, header: ProxyHeader, trusted: impl Fn(IpAddr) -> bool) -> Self {
        let address = session.client_addr().and_then(|address| address.as_inet());
        // A connection without an address (a Unix socket, a test's pipe) counts as one local client.
        let peer = address.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip().to_canonical());
        let spokesman = trusted(peer).then_some(header);
        let spoken = match spokesman {
            Some(header) => client::behind(&session.req_header().headers, header, trusted),
            None => Spoken::Itself,
        };
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
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
}

impl Head {
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

/// The names in the verified certificate of the client; none without one.
///
/// The listener writes them where Pingora has the certificate's organization, a line each. Another proxy that embeds
/// the guard may have an organization there; Pingora then has a serial number beside it, which our listener never sets.
pub(crate) fn certified(session: &ServerSession) -> impl Iterator<Item = &str> {
    let tls = session.digest().and_then(|digest| digest.ssl_digest.as_deref());
    let ours = tls.filter(|tls| tls.serial_number.is_none());
    ours.and_then(|tls| tls.organization.as_deref())
        .into_iter()
        .flat_map(str::lines)
}

/// The authority a request is for: `Host`, or `:authority` in HTTP/2.
pub(crate) fn host(request: &RequestHeader) -> Option<&[u8]> {
    let host = request.headers.get(header::HOST).map(|host| host.as_bytes());
    host.or_else(|| request.uri.authority().map(|authority| authority.as_str().as_bytes()))
}

/// Path and query as received.
pub(crate) fn target(request: &RequestHeader) -> &str {
    request.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// Refuses a request in which a header that verification depends on, or the body's type, occurs twice, or next to a look-alike that
/// some backends would read instead (`X_Hub_Signature_256`).
///
/// # Errors
/// [`Reason::AmbiguousHeader`].
pub(crate) fn unambiguous(headers: &HeaderMap, security: &[HeaderName]) -> Result<(), Reason> {
    // The type decides how a signed body is read: a form here must not be JSON behind us.
    let decisive = || security.iter().chain(std::iter::once(&header::CONTENT_TYPE));
    if decisive().any(|name| headers.get_all(name).into_iter().nth(1).is_some()) {
        return Err(Reason::AmbiguousHeader);
    }
    let look_alike = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        let unusual = name.iter().any(|b| !b.is_ascii_alphanumeric() && *b != b'-');
        unusual && decisive().any(|real| is_look_alike(name, real.as_str().as_bytes()))
    };
    match headers.keys().any(look_alike) {
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

/// Whether the sender waits for `100 Continue` before it sends the body.
pub(crate) fn expects_continue(request: &RequestHeader) -> bool {
    request.version == http::Version::HTTP_11
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The length that the head declares.
pub(crate) fn declared_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the method is one that has no body to answer with.
pub(crate) fn is_head(request: &RequestHeader) -> bool {
    request.method == Method::HEAD
}
