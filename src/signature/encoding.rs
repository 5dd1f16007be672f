//! Bytes written as text, read strictly.
//!
//! Called for every presented signature and, at start, for keys. One value has one spelling, with two exceptions
//! that providers force: the case of hex digits, and the padding of base64url. Everything else that lenient decoders
//! let through (other alphabets, missing or surplus padding, non-zero spare bits, white space, `0x`) is refused: the
//! last character of a 43-character base64url digest has two spare bits, and a decoder that ignores them gives
//! every signature four spellings.
//!
//! A signature has exactly the length of its MAC; shorter and longer values are not compared at all.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::mac::{TAG_BYTES_MAX, Tag};

/// How the bytes of a MAC are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal, upper or lower case. Written in lower case.
    Hex,
    /// RFC 4648 section 4, padded, spare bits zero.
    Base64,
    /// RFC 4648 section 5, padded or not, spare bits zero. Written without padding.
    Base64url,
}

/// Padding may be there or not, but never half of it, and spare bits are zero.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Room for what the longest accepted text decodes to, rounded up to whole groups of base64.
const DECODED_BYTES_MAX: usize = TAG_BYTES_MAX.div_ceil(3) * 3;

impl Encoding {
    /// Reads a MAC of exactly `bytes` bytes; `None` when `text` is anything else.
    pub(crate) fn decode(self, text: &[u8], bytes: usize) -> Option<Tag> {
        let mut room = [0; DECODED_BYTES_MAX];
        let decoded = match self {
            Encoding::Hex => {
                let exact = room.get_mut(..bytes)?;
                hex::decode_to_slice(text, exact).ok()?;
                bytes
            }
            Encoding::Base64 => STANDARD.decode_slice(text, &mut room).ok()?,
            Encoding::Base64url => URL_SAFE.decode_slice(text, &mut room).ok()?,
        };
        if decoded != bytes {
            return None;
        }
        Tag::from_slice(room.get(..decoded)?)
    }

    /// Writes a MAC.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
            Encoding::Base64url => URL_SAFE.encode(bytes),
        }
    }

    /// Whether `byte` may occur in a written MAC, so that it can separate nothing.
    pub(crate) fn may_contain(self, byte: u8) -> bool {
        match self {
            Encoding::Hex => byte.is_ascii_hexdigit(),
            Encoding::Base64 => byte.is_ascii_alphanumeric() || b"+/=".contains(&byte),
            Encoding::Base64url => byte.is_ascii_alphanumeric() || b"-_=".contains(&byte),
        }
    }
}

/// The bytes of a key written in standard base64.
pub(crate) fn key_from_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text).ok().map(Zeroizing::new)
}

/// The bytes of a key written in hexadecimal.
pub(crate) fn key_from_hex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    hex::decode(text).ok().map(Zeroizing::new)
}
