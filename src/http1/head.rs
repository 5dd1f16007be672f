//! The raw head of an HTTP/1 request, judged before anything else parses it.
//!
//! Two parsers disagree only about input that is not exactly what the grammar says (RFC 9112 sections 2, 3, 5, 6), so
//! that input has no meaning here: bare line ends, folded lines, two lengths, length with chunks, look-alike names.

/// More header lines than this are refused.
pub const HEADERS_MAX: usize = 100;

/// A longer target is refused: what parses it behind us counts in 16 bits.
const TARGET_BYTES_MAX: usize = 65_534;

/// What a head that was let pass says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    /// The method, a token.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// HTTP/1.1, and not 1.0.
    pub is_11: bool,
    /// The value of `Host`; HTTP/1.0 may have none.
    pub host: Option<&'a [u8]>,
    /// The value of `Content-Length`.
    pub length: Option<u64>,
    /// Whether the body comes in chunks, which have framing of their own.
    pub chunked: bool,
    /// Whether some name has a character that is neither letter, digit nor dash.
    pub has_odd_names: bool,
    /// The header lines as names and values, in order, less the white space around values.
    pub fields: Vec<(&'a [u8], &'a [u8])>,
}

/// Room for header lines, more than providers send.
const FIELDS_ROOM: usize = 24;

/// Judges the raw head of an HTTP/1 request: request line, header lines and the empty line, all bytes of it.
///
/// Promises for a head it lets pass: every line ends in CRLF and nowhere else is a CR, LF or NUL; the method is no
/// tunnel; at most one length, of digits, or exactly `Transfer-Encoding: chunked`, never both; exactly one `Host`
/// in HTTP/1.1, which names a host; no name that a careless parser takes for a framing header. Whoever parses it
/// afterwards finds nothing to refuse.
///
/// `None` for everything else.
pub fn judge(raw: &[u8]) -> Option<Framed<'_>> {
    // The first empty line ends it: nothing may stand behind one, another empty line included.
    let raw = raw.strip_suffix(b"\r\n\r\n").filter(|raw| !raw.ends_with(b"\r\n"))?;
    let mut lines = Lines(raw);
    let (method, target, version) = request_line(lines.next()??)?;
    let mut framing = Framing::default();
    let mut fields = Vec::with_capacity(FIELDS_ROOM);
    for line in lines {
        let (name, value, is_odd) = header_line(line?)?;
        framing.note(name, value)?;
        framing.has_odd_names |= is_odd;
        if fields.len() == HEADERS_MAX {
            return None;
        }
        fields.push((name, value));
    }
    framing.judge(version)?;
    Some(Framed {
        method,
        target,
        is_11: version == Version::Http11,
        host: framing.host,
        length: framing.length,
        chunked: framing.chunked,
        has_odd_names: framing.has_odd_names,
        fields,
    })
}

/// Lines between CRLFs; `None` for a line that holds a CR of its own. An LF or NUL inside of one has no place in either
/// kind of line, and is found there.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\r', self.0);
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

fn request_line(line: &[u8]) -> Option<(&str, &str, Version)> {
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
    let text = |word| std::str::from_utf8(word).ok();
    Some((text(method)?, text(target)?, version))
}

/// Origin form, or the asterisk of OPTIONS; tunnels and echoes have no place in front of anything.
pub fn is_request(method: &[u8], target: &[u8]) -> bool {
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
pub fn is_authority(host: &[u8]) -> bool {
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

/// Name and value of a header line in which every byte has its place, and whether the name [is odd](is_odd).
pub(super) fn header_line(line: &[u8]) -> Option<(&[u8], &[u8], bool)> {
    let (name, rest) = line.split_at_checked(memchr::memchr(b':', line)?)?;
    let value = rest.get(1..)?;
    // A space in front of the name (folding) or of the colon is no token character.
    let kinds = kinds(name);
    // Summed up rather than stopped at: the common value has none, and this way many bytes are looked at together.
    let control = value
        .iter()
        .fold(false, |any, b| any | ((*b < b' ' && *b != b'\t') | (*b == 0x7f)));
    let is_right = !name.is_empty() && kinds & NO_TOKEN == 0 && !control;
    is_right.then(|| (name, value.trim_ascii(), kinds & ODD != 0))
}

/// Whether `name` can be the name of a header: a token, and not empty.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && kinds(name) & NO_TOKEN == 0
}

/// Whether a name has a character that is neither letter, digit nor dash, which some interfaces turn into a dash's own.
pub fn is_odd(name: &[u8]) -> bool {
    kinds(name) & (ODD | NO_TOKEN) != 0
}

/// RFC 9110 section 5.6.2.
pub fn is_token(b: u8) -> bool {
    kind(b) & NO_TOKEN == 0
}

/// A character of a token that is neither letter, digit nor dash.
const ODD: u8 = 1;

/// No character of a token.
const NO_TOKEN: u8 = 2;

/// The kinds of all characters of `name`. Summed up rather than stopped at: names are short, and nearly always tokens.
fn kinds(name: &[u8]) -> u8 {
    name.iter().fold(0, |all, b| all | kind(*b))
}

#[allow(clippy::indexing_slicing, reason = "a table of 256, asked with a byte")]
fn kind(b: u8) -> u8 {
    const KINDS: [u8; 256] = {
        let mut table = [NO_TOKEN; 256];
        let mut b = 0;
        while b < 128 {
            if (b as u8).is_ascii_alphanumeric() || b == b'-' as usize {
                table[b] = 0;
            }
            b += 1;
        }
        let signs = b"!#$%&'*+.^_`|~";
        let mut n = 0;
        while n < signs.len() {
            table[signs[n] as usize] = ODD;
            n += 1;
        }
        table
    };
    KINDS[usize::from(b)]
}

/// The headers that say where the request ends and whom it is for.
#[derive(Default)]
struct Framing<'a> {
    length: Option<u64>,
    chunked: bool,
    host: Option<&'a [u8]>,
    has_odd_names: bool,
}

impl<'a> Framing<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Option<()> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            14 if is(b"content-length") => {
                let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok()?.parse().ok()?;
                (digits && self.length.replace(length).is_none()).then_some(())
            }
            17 if is(b"transfer-encoding") => {
                (value.eq_ignore_ascii_case(b"chunked") && !self.chunked).then(|| self.chunked = true)
            }
            4 if is(b"host") => (self.host.replace(value).is_none() && is_authority(value)).then_some(()),
            _ => (!is_framing_look_alike(name)).then_some(()),
        }
    }

    fn judge(&self, version: Version) -> Option<()> {
        let one_end = !(self.length.is_some() && self.chunked);
        let one_host = match version {
            Version::Http11 => self.host.is_some(),
            Version::Http10 => !self.chunked,
        };
        (one_end && one_host).then_some(())
    }
}

/// What CGI-like servers read as the headers that say where a request ends.
pub fn is_framing_look_alike(name: &[u8]) -> bool {
    let framing: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
    framing.into_iter().any(|real| is_look_alike(name, real))
}

/// Whether `name` is another one than `real` and becomes the same in a CGI-like interface, where whatever is neither
/// letter nor digit turns into one and the same character.
pub fn is_look_alike(name: &[u8], real: &[u8]) -> bool {
    let same = |(n, r): (&u8, &u8)| n.eq_ignore_ascii_case(r) || (*r == b'-' && !n.is_ascii_alphanumeric());
    name.len() == real.len() && !name.eq_ignore_ascii_case(real) && name.iter().zip(real).all(same)
}

/// Judges a line behind the last chunk. Nothing there is ever used; what would have a meaning in a head is refused.
pub(super) fn is_harmless_trailer(line: &[u8]) -> bool {
    let harmless = |name: &[u8]| {
        let names: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"host", b"trailer"];
        !is_framing_look_alike(name) && !names.iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let fields = Lines(line).next().flatten().and_then(header_line);
    fields.is_some_and(|(name, ..)| harmless(name))
}
