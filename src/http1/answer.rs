//! The head of an upstream's answer.
//!
//! Read a little more kindly than what comes from outside: a line may end in LF alone, equal lengths may be repeated.
//! What decides where the answer ends has one meaning all the same (RFC 9112 section 6.3), and no line holds a byte
//! that would be a line end to somebody else: its lines are passed on.

use std::ops::Range;

use bytes::Bytes;
use http::StatusCode;

use super::head::header_line;

/// Bytes of a head; a longer one is no answer.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;

/// More header lines than this are no answer.
const HEADERS_MAX: usize = 256;

/// Room for header lines, more than most answers have.
const FIELDS_ROOM: usize = 16;

/// The head of an answer, and what it says about the rest.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    bytes: Bytes,
    /// Where in `bytes` names and values are, the latter less the white space around them.
    fields: Vec<(Range<usize>, Range<usize>)>,
    /// The status.
    pub status: StatusCode,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the connection may serve another exchange once the body has ended.
    pub keeps: bool,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Bodiless,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// What came back is no answer, or none that can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAnswer(pub &'static str);

impl AnswerHead {
    /// Whether `bytes` are the beginning of an answer, as far as they go.
    pub fn may_begin(bytes: &[u8]) -> bool {
        let begin = b"HTTP/1.";
        bytes.iter().zip(begin).all(|(byte, begun)| byte == begun)
    }

    /// Looks for the end of a head in what arrived since the last call; `seen` remembers how far it looked.
    pub fn end(bytes: &[u8], seen: &mut usize) -> Option<usize> {
        while let Some(offset) = memchr::memchr(b'\n', bytes.get(*seen..)?) {
            let line = bytes.get(..seen.saturating_add(offset))?;
            *seen = line.len().saturating_add(1);
            if line.ends_with(b"\n") || line.ends_with(b"\n\r") {
                return Some(*seen);
            }
        }
        *seen = bytes.len();
        None
    }

    /// Reads a whole head. `bodiless` when the request was one whose answer has no body.
    ///
    /// # Errors
    /// What is wrong with it, without a word of what it holds.
    pub fn read(raw: &Bytes, bodiless: bool) -> Result<Self, BadAnswer> {
        let unfolded = unfolded(raw);
        let raw = unfolded.as_ref().unwrap_or(raw);
        let mut lines = Lines(raw);
        let (status, is_11) = lines
            .next()
            .and_then(status_line)
            .ok_or(BadAnswer("its first line is no status line"))?;
        let mut said = Said::default();
        let mut fields = Vec::with_capacity(FIELDS_ROOM);
        for line in lines {
            if fields.len() == HEADERS_MAX {
                return Err(BadAnswer("it has too many header lines"));
            }
            let (name, value, _) = header_line(line).ok_or(BadAnswer("a header line of it is none"))?;
            said.note(name, value)?;
            fields.push((place(raw, name), place(raw, value)));
        }
        let without_body = bodiless || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        Ok(AnswerHead {
            bytes: raw.clone(),
            fields,
            status,
            framing: match said {
                _ if without_body => Framing::Bodiless,
                Said { chunked: true, .. } => Framing::Chunked,
                Said {
                    length: Some(length), ..
                } => Framing::Length(length),
                Said { .. } => Framing::Close,
            },
            // With both a length and chunks, nobody knows what the other side takes for the end.
            keeps: (if is_11 {
                !said.close
            } else {
                said.keep_alive && !said.close
            }) && !(said.chunked && said.length.is_some()),
        })
    }

    /// The header lines as names and values, in order, less the white space around values.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |place: &Range<usize>| self.bytes.get(place.clone());
        self.fields
            .iter()
            .filter_map(move |(name, value)| Some((part(name)?, part(value)?)))
    }

    /// The value of a header, if it stands there exactly once.
    pub fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self
            .fields()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }
}

/// Where in `whole` the slice `part` of it begins and ends.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let begin = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    begin..begin.saturating_add(part.len())
}

/// Lines up to the empty one.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (line, rest) = self.0.split_at_checked(memchr::memchr(b'\n', self.0)?)?;
        self.0 = rest.get(1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.0 = b"";
            return None;
        }
        Some(line)
    }
}

/// The head with every folded line as one, which is what a proxy has to send on (RFC 9112 section 5.2); `None` when
/// there is none.
fn unfolded(raw: &Bytes) -> Option<Bytes> {
    let folds = |end: usize| matches!(raw.get(end.saturating_add(1)), Some(b' ' | b'\t'));
    if !memchr::memchr_iter(b'\n', raw).any(folds) {
        return None;
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = &raw[..];
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at_checked(end.saturating_add(1))?;
        rest = after;
        if rest.starts_with(b" ") || rest.starts_with(b"\t") {
            out.extend_from_slice(line.trim_ascii_end());
            out.push(b' ');
            let text = rest.iter().position(|b| !matches!(b, b' ' | b'\t'));
            rest = rest.get(text.unwrap_or(rest.len())..).unwrap_or_default();
        } else {
            out.extend_from_slice(line);
        }
    }
    Some(out.into())
}

fn status_line(line: &[u8]) -> Option<(StatusCode, bool)> {
    let (is_11, rest) = match line.split_at_checked(9)? {
        (b"HTTP/1.1 ", rest) => (true, rest),
        (b"HTTP/1.0 ", rest) => (false, rest),
        _ => return None,
    };
    let (status, reason) = rest.split_at_checked(3)?;
    if !(reason.is_empty() || reason.starts_with(b" ")) || memchr::memchr2(b'\r', 0, reason).is_some() {
        return None;
    }
    Some((StatusCode::from_bytes(status).ok()?, is_11))
}

/// What header lines say about the end of the body and of the connection.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Said {
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), BadAnswer> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            14 if is(b"content-length") => {
                for length in value.split(|b| *b == b',') {
                    let length = digits(length.trim_ascii()).ok_or(BadAnswer("its length is no number"))?;
                    if self.length.replace(length).is_some_and(|other| other != length) {
                        return Err(BadAnswer("it has two lengths"));
                    }
                }
            }
            17 if is(b"transfer-encoding") => {
                // We ask for none and read none but chunks; another one, passed on as if it were the body, would be
                // taken for what the upstream meant.
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadAnswer("unknown transfer coding"));
                }
                self.chunked = true;
            }
            10 if is(b"connection") => {
                for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<(u16, Framing, bool), &'static str> {
        let head = AnswerHead::read(&Bytes::copy_from_slice(head.as_bytes()), false).map_err(|bad| bad.0)?;
        Ok((head.status.as_u16(), head.framing, head.keeps))
    }

    #[test]
    fn every_answer_ends_where_its_head_says() {
        // An end in the wrong place makes one provider's answer the beginning of another's.
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                200,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200\r\ncontent-length:5\r\n\r\n",
                200,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200 \nContent-Length: 5, 5\nContent-Length: 5\n\n",
                200,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 500 No\r\nTransfer-Encoding: Chunked\r\n\r\n",
                500,
                Framing::Chunked,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                200,
                Framing::Chunked,
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", 200, Framing::Close, true),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
                200,
                Framing::Length(5),
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n",
                200,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n",
                200,
                Framing::Close,
                false,
            ),
            (
                "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
                204,
                Framing::Bodiless,
                true,
            ),
            (
                "HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
                304,
                Framing::Bodiless,
                true,
            ),
            ("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", 103, Framing::Bodiless, true),
        ];
        for (head, status, framing, keeps) in cases {
            assert_eq!(read(head), Ok((status, framing, keeps)), "{head}");
            let mut seen = 0;
            assert_eq!(AnswerHead::end(head.as_bytes(), &mut seen), Some(head.len()), "{head}");
            let mut seen = 0;
            assert_eq!(
                (1..head.len()).find_map(|cut| AnswerHead::end(&head.as_bytes()[..cut], &mut seen)),
                None
            );
        }
    }

    #[test]
    fn a_folded_line_is_one_line() {
        // Sent on as it is, its second half is a header of its own, or a request, to somebody.
        let raw = Bytes::from_static(
            b"HTTP/1.1 200 OK\r\nX-A: one \r\n \t two\r\nX-B: 1\n\t2\n 3\r\nX-C: \r\n \r\nX-D: 4\r\n\r\n",
        );
        let head = AnswerHead::read(&raw, false).unwrap();
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(
            fields,
            [
                (&b"X-A"[..], &b"one two"[..]),
                (b"X-B", b"1 2 3"),
                (b"X-C", b""),
                (b"X-D", b"4")
            ]
        );
    }

    #[test]
    fn what_is_no_answer_is_none() {
        // What cannot be read for certain must not reach a provider as if the backend had said it.
        for head in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nName : value\r\n\r\n",
            "HTTP/1.1 200 OK\r\nName: a\rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nName: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ] {
            assert!(read(head).is_err(), "{head:?}");
        }
    }
}
