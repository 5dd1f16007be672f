//! The framing of chunked bodies, judged on the raw bytes before Pingora reads them.
//!
//! The parser behind Pingora takes no size for zero, and anything at all, line feeds included, in an extension. A
//! proxy in front of us that reads such a body differently disagrees with us about where it ends, and what it thinks to
//! be the rest of it would be our next request. So this grammar is strict (RFC 9112 section 7.1): a size of
//! hexadecimal digits, extensions short and visible, every line ended by CRLF, no trailer that speaks of framing.
//!
//! Pure: a [`Connection`](super::connection::Connection) leads its bytes through here on their way to Pingora.

use crate::gateway::trailer;

/// Digits of a size: 16 TiB less one byte, more than any limit.
const SIZE_DIGITS_MAX: u8 = 11;

/// Bytes of the extensions of one chunk. Nobody is known to send any.
const EXTENSION_BYTES_MAX: usize = 256;

/// Bytes of all trailers.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// How far a chunked body has been read.
#[derive(Debug)]
pub(super) enum Chunks {
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
pub(super) struct Broken;

impl Chunks {
    /// The start of a body.
    pub(super) fn new() -> Self {
        Chunks::Size { bytes: 0, digits: 0 }
    }

    /// Reads on.
    ///
    /// # Errors
    /// At the first byte that has no place there; nothing may be read after that.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        while let Some((first, rest)) = bytes.split_first() {
            match self {
                Chunks::Whole => return Ok(()),
                Chunks::Data { left } => {
                    let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left = left.saturating_sub(taken as u64);
                    if *left == 0 {
                        *self = Chunks::DataEnd { cr: false };
                    }
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                _ => {
                    *self = std::mem::replace(self, Chunks::Broken).step(*first)?;
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    /// One byte of what is around the data.
    fn step(self, byte: u8) -> Result<Self, Broken> {
        match (self, byte) {
            (Chunks::Size { bytes, digits: 1.. }, b'\r') => Ok(Chunks::SizeEnd { bytes }),
            (Chunks::Size { bytes, digits: 1.. }, b';') => Ok(Chunks::Extension { bytes, length: 0 }),
            (
                Chunks::Size {
                    bytes,
                    digits: digits @ ..SIZE_DIGITS_MAX,
                },
                digit,
            ) => {
                let value = char::from(digit).to_digit(16).ok_or(Broken)?;
                let (bytes, digits) = ((bytes << 4) | u64::from(value), digits.saturating_add(1));
                Ok(Chunks::Size { bytes, digits })
            }
            (Chunks::Extension { bytes, .. }, b'\r') => Ok(Chunks::SizeEnd { bytes }),
            (
                Chunks::Extension {
                    bytes,
                    length: length @ ..EXTENSION_BYTES_MAX,
                },
                b'\t' | b' '..=b'~',
            ) => Ok(Chunks::Extension {
                bytes,
                length: length.saturating_add(1),
            }),
            (Chunks::SizeEnd { bytes: 0 }, b'\n') => Ok(Chunks::Trailers {
                line: Vec::new(),
                total: 0,
            }),
            (Chunks::SizeEnd { bytes }, b'\n') => Ok(Chunks::Data { left: bytes }),
            (Chunks::DataEnd { cr: false }, b'\r') => Ok(Chunks::DataEnd { cr: true }),
            (Chunks::DataEnd { cr: true }, b'\n') => Ok(Chunks::new()),
            (
                Chunks::Trailers {
                    line,
                    total: total @ ..TRAILER_BYTES_MAX,
                },
                byte,
            ) => Chunks::trailers(line, total.saturating_add(1), byte),
            _ => Err(Broken),
        }
    }

    fn trailers(mut line: Vec<u8>, total: usize, byte: u8) -> Result<Self, Broken> {
        line.push(byte);
        if byte == b'\n' {
            let text = line.strip_suffix(b"\r\n").ok_or(Broken)?;
            if text.is_empty() {
                return Ok(Chunks::Whole);
            }
            trailer(text).map_err(|_| Broken)?;
            line.clear();
        }
        Ok(Chunks::Trailers { line, total })
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
        Ok(matches!(chunks, Chunks::Whole))
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
