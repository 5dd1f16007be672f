//! The framing of chunked bodies: where they end, and which of their bytes are data.
//!
//! Lenient parsers take no size for zero, and anything at all, line feeds included, in an extension. A proxy in front
//! of us that reads such a body differently disagrees with us about where it ends, and what it thinks to be the rest of
//! it would be our next request. So this grammar is strict (RFC 9112 section 7.1): a size of hexadecimal digits,
//! extensions short and visible, every line ended by CRLF, no trailer that speaks of framing.
//!
//! Pure. Bodies of webhooks and of upstreams' answers are read with it; those that Pingora reads are led through it on
//! their way.

use std::ops::Range;

use super::head::is_harmless_trailer;

/// Digits of a size: 16 TiB less one byte, more than any limit.
const SIZE_DIGITS_MAX: u8 = 11;

/// Bytes of the extensions of one chunk. Nobody is known to send any.
const EXTENSION_BYTES_MAX: usize = 256;

/// Bytes of all trailers.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// A chunked body, as far as it has been read.
#[derive(Debug)]
pub struct Chunks(State);

#[derive(Debug)]
enum State {
    Size {
        bytes: u64,
        digits: u8,
    },
    Extension {
        bytes: u64,
        length: usize,
    },
    SizeEnd {
        bytes: u64,
    },
    Data {
        left: u64,
    },
    DataEnd {
        cr: bool,
    },
    /// Everything since the last chunk, without the line ends before it.
    Trailers {
        line: Vec<u8>,
        total: usize,
    },
    /// Whatever follows belongs to the next request.
    Whole,
    Broken,
}

/// The bytes are no chunked body.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

impl Chunks {
    /// The start of a body.
    #[expect(clippy::new_without_default, reason = "a body begins, it is not a value by default")]
    pub fn new() -> Self {
        Chunks(State::new())
    }

    /// Whether the body has ended; whatever follows belongs to the next message.
    pub fn is_whole(&self) -> bool {
        matches!(self.0, State::Whole)
    }

    /// Reads on to the end of the next run of data, of the body, or of `bytes`: where the data is among them. What
    /// stands before its end has been read; an empty run is an end.
    ///
    /// # Errors
    /// At the first byte that has no place there; nothing may be read after that.
    pub fn data(&mut self, bytes: &[u8]) -> Result<Range<usize>, Broken> {
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            let at = bytes.len().saturating_sub(rest.len());
            match &mut self.0 {
                State::Whole => return Ok(at..at),
                State::Data { left } => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left = left.saturating_sub(taken as u64);
                    if *left == 0 {
                        self.0 = State::DataEnd { cr: false };
                    }
                    return Ok(at..at.saturating_add(taken));
                }
                _ => {
                    self.0 = std::mem::replace(&mut self.0, State::Broken).step(*first)?;
                    rest = after;
                }
            }
        }
        Ok(bytes.len()..bytes.len())
    }

    /// Reads on over all of `bytes`, or to the end of the body.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        loop {
            let data = self.data(bytes)?;
            if data.is_empty() {
                return Ok(());
            }
            bytes = bytes.get(data.end..).unwrap_or_default();
        }
    }
}

impl State {
    /// Before the size of a chunk.
    fn new() -> Self {
        State::Size { bytes: 0, digits: 0 }
    }

    /// One byte of what is around the data.
    fn step(self, byte: u8) -> Result<Self, Broken> {
        match (self, byte) {
            (State::Size { bytes, digits: 1.. }, b'\r') => Ok(State::SizeEnd { bytes }),
            (State::Size { bytes, digits: 1.. }, b';') => Ok(State::Extension { bytes, length: 0 }),
            (
                State::Size {
                    bytes,
                    digits: digits @ ..SIZE_DIGITS_MAX,
                },
                digit,
            ) => {
                let value = char::from(digit).to_digit(16).ok_or(Broken)?;
                let (bytes, digits) = ((bytes << 4) | u64::from(value), digits.saturating_add(1));
                Ok(State::Size { bytes, digits })
            }
            (State::Extension { bytes, .. }, b'\r') => Ok(State::SizeEnd { bytes }),
            (
                State::Extension {
                    bytes,
                    length: length @ ..EXTENSION_BYTES_MAX,
                },
                b'\t' | b' '..=b'~',
            ) => Ok(State::Extension {
                bytes,
                length: length.saturating_add(1),
            }),
            (State::SizeEnd { bytes: 0 }, b'\n') => Ok(State::Trailers {
                line: Vec::new(),
                total: 0,
            }),
            (State::SizeEnd { bytes }, b'\n') => Ok(State::Data { left: bytes }),
            (State::DataEnd { cr: false }, b'\r') => Ok(State::DataEnd { cr: true }),
            (State::DataEnd { cr: true }, b'\n') => Ok(State::new()),
            (
                State::Trailers {
                    line,
                    total: total @ ..TRAILER_BYTES_MAX,
                },
                byte,
            ) => State::trailers(line, total.saturating_add(1), byte),
            _ => Err(Broken),
        }
    }

    fn trailers(mut line: Vec<u8>, total: usize, byte: u8) -> Result<Self, Broken> {
        line.push(byte);
        if byte == b'\n' {
            let text = line.strip_suffix(b"\r\n").ok_or(Broken)?;
            if text.is_empty() {
                return Ok(State::Whole);
            }
            if !is_harmless_trailer(text) {
                return Err(Broken);
            }
            line.clear();
        }
        Ok(State::Trailers { line, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` cut at `cut`; tells whether the body was whole.
    fn read(bytes: &[u8], cut: usize) -> Result<bool, Broken> {
        let mut chunks = Chunks::new();
        chunks.read(&bytes[..cut])?;
        chunks.read(&bytes[cut..])?;
        Ok(chunks.is_whole())
    }

    #[test]
    fn a_body_is_whole_however_it_is_cut() {
        // Packets end anywhere; strictness about them would lose events.
        let bodies: [&[u8]; 7] = [
            b"0\r\n\r\n",
            b"000\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\n\0",
            b"5;a=\"b\"\t;c\r\nhello\r\n00005\r\n\r\n\r\n\n\r\n0;x\r\n\r\n",
            b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\nX-Empty:\r\n\r\n",
            b"00000000001\r\na\r\n0\r\n\r\n",
        ];
        for body in bodies {
            for cut in 0..body.len() {
                assert_eq!(read(body, cut), Ok(true), "{} at {cut}", body.escape_ascii());
            }
        }
        assert_eq!(read(b"5\r\nhello\r\n", 0), Ok(false));
    }

    #[test]
    fn what_is_broken_is_broken_however_it_is_cut() {
        // A second reading of one of these is a second request.
        let long = format!("5;{}\r\nhello\r\n", "x".repeat(EXTENSION_BYTES_MAX + 1));
        let trailers = format!("0\r\n{}\r\n", "X-A: 1\r\n".repeat(TRAILER_BYTES_MAX / 8 + 1));
        let bodies: [&[u8]; 19] = [
            b"\r\n\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\r\nhello",
            b"0x5\r\nhello\r\n",
            b";a\r\n\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;\0\r\nhello\r\n",
            b"5;\xff\r\nhello\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"100000000000\r\n",
            b"0\r\n\n",
            b"0\r\nX-A: 1\n\r\n",
            b"0\r\nContent-Length: 1\r\n\r\n",
            b"0\r\n X-A: 1\r\n\r\n",
            long.as_bytes(),
        ];
        for body in bodies {
            for cut in 0..body.len() {
                assert_eq!(read(body, cut), Err(Broken), "{} at {cut}", body.escape_ascii());
            }
        }
        assert_eq!(read(trailers.as_bytes(), 0), Err(Broken));
    }

    #[test]
    fn a_broken_body_does_not_mend() {
        // Whoever reads on after an error must meet it again.
        let mut chunks = Chunks::new();
        assert_eq!(chunks.read(b"5 "), Err(Broken));
        assert_eq!(chunks.read(b"\r\nhello\r\n0\r\n\r\n"), Err(Broken));
    }
}
