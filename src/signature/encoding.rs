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
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
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
    /// Standard base64 of the hexadecimal text.
    #[serde(rename = "hex-in-base64")]
    HexInBase64,
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
            Encoding::HexInBase64 => {
                let mut inside = [0; 2 * DECODED_BYTES_MAX];
                let digits = STANDARD.decode_slice(text, &mut inside).ok()?;
                let exact = room.get_mut(..bytes)?;
                hex::decode_to_slice(inside.get(..digits)?, exact).ok()?;
                bytes
            }
        };
        if decoded != bytes {
            return None;
        }
        Tag::from_slice(room.get(..decoded)?)
    }

    /// Reads a signature of at most `bytes_max` bytes; `None` when `text` is anything else.
    pub(crate) fn decode_up_to(self, text: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        if text.len() > bytes_max.saturating_mul(4) {
            return None;
        }
        let decoded = match self {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => STANDARD.decode(text).ok(),
            Encoding::Base64url => URL_SAFE.decode(text).ok(),
            Encoding::HexInBase64 => STANDARD.decode(text).ok().and_then(|digits| hex::decode(digits).ok()),
        };
        decoded.filter(|bytes| !bytes.is_empty() && bytes.len() <= bytes_max)
    }

    /// Writes a MAC.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
            Encoding::Base64url => URL_SAFE.encode(bytes),
            Encoding::HexInBase64 => STANDARD.encode(hex::encode(bytes)),
        }
    }

    /// Whether `byte` may occur in a written MAC, so that it can separate nothing.
    pub(crate) fn may_contain(self, byte: u8) -> bool {
        match self {
            Encoding::Hex => byte.is_ascii_hexdigit(),
            Encoding::Base64 | Encoding::HexInBase64 => byte.is_ascii_alphanumeric() || b"+/=".contains(&byte),
            Encoding::Base64url => byte.is_ascii_alphanumeric() || b"-_=".contains(&byte),
        }
    }
}

/// The bytes of a key written in standard base64.
pub(crate) fn key_from_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text).ok().map(Zeroizing::new)
}

/// The bytes of a key written in base64 for URLs, padded or not.
pub(crate) fn key_from_base64url(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    URL_SAFE.decode(text).ok().map(Zeroizing::new)
}

/// Bytes as JOSE writes them (RFC 7515 section 2): base64 for URLs, never padded, spare bits zero.
pub(crate) fn from_jose(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Writes bytes as JOSE does.
pub(crate) fn to_jose(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a key written in hexadecimal.
pub(crate) fn key_from_hex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    hex::decode(text).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 32 bytes whose base64 has both special characters and spare bits.
    const BYTES: [u8; 32] = [
        0xfb, 0xff, 0xbe, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
        0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0xab, 0xcd,
    ];

    /// How `text` can be misspelt in any encoding, with the text itself left out.
    fn misspellings(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        for extra in [
            " ", "\t", "\n", "\r\n", "\0", "=", "==", "A", "0", "00", "AAAA", ",", ";", "\"", "%3D", "\u{e9}",
            "\u{200b}",
        ] {
            all.push(format!("{text}{extra}"));
            all.push(format!("{extra}{text}"));
            all.push(format!("{}{extra}{}", &text[..10], &text[10..]));
        }
        all.push(String::new());
        all.push(format!("\"{text}\""));
        all.push(format!("0x{text}"));
        all.push(format!("sha256={text}"));
        all.push(format!("{text}{text}"));
        all.push(format!("{text},{text}"));
        for cut in 1..6 {
            all.push(text[cut..].to_owned());
            all.push(text[..text.len() - cut].to_owned());
        }
        all.push(text.replacen('0', "\u{ff10}", 1));
        all.push(text.replacen('A', "\u{0410}", 1));
        all.retain(|other| other != text);
        all
    }

    fn accepts(encoding: Encoding, text: &str) -> bool {
        match encoding.decode(text.as_bytes(), 32) {
            Some(tag) => tag.as_bytes() == BYTES,
            None => false,
        }
    }

    /// Everything in `texts` is refused, not read as something else.
    fn refuses_all(encoding: Encoding, texts: &[String]) {
        assert!(texts.len() >= 40, "{}", texts.len());
        for text in texts {
            assert!(encoding.decode(text.as_bytes(), 32).is_none(), "{encoding:?} {text:?}");
        }
    }

    #[test]
    fn hex_has_two_cases_and_nothing_else() {
        // A second spelling is a second chance to replay, a lenient decoder a chance to confuse two readers.
        let text = hex::encode(BYTES);
        let mixed: String = text
            .chars()
            .enumerate()
            .map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c })
            .collect();
        assert_eq!(Encoding::Hex.encode(&BYTES), text);
        assert!(
            accepts(Encoding::Hex, &text)
                && accepts(Encoding::Hex, &text.to_uppercase())
                && accepts(Encoding::Hex, &mixed)
        );
        let mut wrong = misspellings(&text);
        wrong.extend([
            text.replacen('f', "g", 1),
            text.replacen('f', "\u{ff46}", 1),
            STANDARD.encode(BYTES),
        ]);
        refuses_all(Encoding::Hex, &wrong);
    }

    #[test]
    fn base64_has_one_spelling() {
        // As above; and hex text is made of base64's letters.
        let text = STANDARD.encode(BYTES);
        assert_eq!(Encoding::Base64.encode(&BYTES), text);
        assert!(accepts(Encoding::Base64, &text));
        let mut wrong = misspellings(&text);
        wrong.extend([
            URL_SAFE.encode(BYTES),
            text.replace('+', "-"),
            text.replace('/', "_"),
            hex::encode(BYTES),
        ]);
        wrong.extend(spare_bits(&text));
        refuses_all(Encoding::Base64, &wrong);
    }

    #[test]
    fn base64url_has_padding_or_not() {
        // As above.
        let bare = URL_SAFE.encode(BYTES);
        let padded = format!("{bare}=");
        assert_eq!(Encoding::Base64url.encode(&BYTES), bare);
        assert!(accepts(Encoding::Base64url, &bare) && accepts(Encoding::Base64url, &padded));
        let mut wrong = misspellings(&bare);
        wrong.retain(|text| *text != padded);
        wrong.extend([
            STANDARD.encode(BYTES),
            bare.replace('-', "+"),
            bare.replace('_', "/"),
            hex::encode(BYTES),
        ]);
        wrong.extend(spare_bits(&padded));
        wrong.extend(spare_bits(&bare));
        refuses_all(Encoding::Base64url, &wrong);
    }

    /// The three other last letters that differ only in bits that 32 bytes do not use.
    fn spare_bits(text: &str) -> Vec<String> {
        let (digits, padding) = text.split_at(43);
        let last = digits.chars().last().unwrap();
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let at = letters.find(last).unwrap();
        assert_eq!(at % 4, 0, "a canonical last letter");
        (1..4)
            .map(|bits| format!("{}{}{padding}", &digits[..42], &letters[at + bits..=at + bits]))
            .collect()
    }

    #[test]
    fn only_the_exact_length_is_a_mac() {
        // A truncated MAC can be guessed.
        for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64url] {
            for bytes in [20, 32, 64] {
                for len in 0..=66 {
                    let text = encoding.encode(&vec![7; len]);
                    assert_eq!(
                        encoding.decode(text.as_bytes(), bytes).is_some(),
                        len == bytes,
                        "{encoding:?} {len}"
                    );
                }
            }
        }
        assert!(Encoding::Base64.decode("A".repeat(8192).as_bytes(), 32).is_none());
    }
}
