//! From headers to what they present: signatures, time and id.
//!
//! Called once for each request, before its body. Everything read here is still a claim. Reading is bounded (8 KiB
//! of header, 16 signatures) and strict where a lenient reader and a strict one would see different requests: a header
//! that says two things says nothing. What a newer version of a scheme may add is skipped, never trusted: unknown
//! fields, undecodable entries. A header without one usable signature is malformed.

use http::{HeaderMap, HeaderName};

use super::encoding::Encoding;
use super::mac::Tag;
use super::proof::Failure;
use super::scheme::{Scheme, Spelling, Stamp, StampPlace};
use super::template::{IdRule, TimestampRule, Values};
use crate::clock::UnixMillis;

/// Longest value of a signature, timestamp or id header, in bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Most signatures in one header; each is compared with each secret.
const SIGNATURES_MAX: usize = 16;

/// Longest signed id, in bytes.
pub(super) const ID_BYTES_MAX: usize = 512;

/// What a request claims.
pub(super) struct Presented<'h> {
    /// Decoded signatures, all of the MAC's length; at least one.
    pub(super) tags: Vec<Tag>,
    /// The texts that are signed.
    pub(super) values: Values<'h>,
    /// The time that the timestamp's text means.
    pub(super) timestamp: Option<UnixMillis>,
    /// The id as text.
    pub(super) id: Option<&'h str>,
}

/// Reads what `scheme` needs.
pub(super) fn read<'h>(scheme: &Scheme, headers: &'h HeaderMap) -> Result<Presented<'h>, Failure> {
    let header = field_value(headers, &scheme.signature.header)?;
    let listed = Listed::read(scheme, header)?;
    let mut values = Values::default();
    let mut timestamp = None;
    if let Some(stamp) = &scheme.timestamp {
        values.timestamp = match &stamp.place {
            StampPlace::Header(name) => field_value(headers, name)?,
            StampPlace::Field(_) => listed.timestamp.ok_or(Failure::Malformed)?,
        };
        timestamp = Some(read_timestamp(stamp, values.timestamp).ok_or(Failure::Malformed)?);
    }
    let mut id = None;
    if let (Some(name), Some(rule)) = (&scheme.id, scheme.template.id()) {
        values.id = field_value(headers, name)?;
        id = Some(read_id(rule, values.id).ok_or(Failure::Malformed)?);
    }
    Ok(Presented {
        tags: listed.tags,
        values,
        timestamp,
        id,
    })
}

/// The time of a signed timestamp, if its text obeys the grammar and the template's rule.
pub(super) fn read_timestamp(stamp: &Stamp, text: &[u8]) -> Option<UnixMillis> {
    match stamp.rule {
        TimestampRule::FixedWidth if text.len() != stamp.unit.digits() => None,
        _ => stamp.unit.parse(text),
    }
}

/// A signed id, if it is visible ASCII within bounds and obeys the template's rule.
pub(super) fn read_id(rule: IdRule, text: &[u8]) -> Option<&str> {
    if text.is_empty() || text.len() > ID_BYTES_MAX || !text.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    match rule {
        IdRule::Without(byte) if text.contains(&byte) => None,
        IdRule::Without(_) | IdRule::Free => std::str::from_utf8(text).ok(),
    }
}

/// The one value of a header, without the white space around it, which is not a part of a field value (RFC 9110
/// section 5.5). The same value twice is one value; two values are none.
fn field_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h [u8], Failure> {
    let mut values = headers.get_all(name).iter().map(|value| trim(value.as_bytes()));
    let first = values.next().ok_or(Failure::Missing)?;
    let fits = !first.is_empty() && first.len() <= HEADER_BYTES_MAX;
    if fits && values.all(|other| other == first) {
        Ok(first)
    } else {
        Err(Failure::Malformed)
    }
}

/// What a signature header lists.
#[derive(Default)]
struct Listed<'h> {
    tags: Vec<Tag>,
    signatures: usize,
    timestamp: Option<&'h [u8]>,
}

impl<'h> Listed<'h> {
    fn read(scheme: &Scheme, header: &'h [u8]) -> Result<Listed<'h>, Failure> {
        let mut listed = Listed::default();
        let encoding = scheme.signature.encoding;
        let tag_bytes = scheme.mac.tag_bytes();
        match &scheme.signature.spelling {
            Spelling::Plain { prefix } => {
                let text = header.strip_prefix(prefix.as_bytes()).ok_or(Failure::Malformed)?;
                listed.push(text, encoding, tag_bytes)?;
            }
            Spelling::List { separator } => {
                for entry in header.split(|byte| byte == separator).map(trim) {
                    if !entry.is_empty() {
                        listed.push(entry, encoding, tag_bytes)?;
                    }
                }
            }
            Spelling::Kv {
                separator,
                assign,
                fields,
            } => {
                for entry in header.split(|byte| byte == separator).map(trim) {
                    let Some((name, value)) = split_once(entry, *assign) else {
                        continue;
                    };
                    if fields.iter().any(|field| field.as_bytes() == name) {
                        listed.push(value, encoding, tag_bytes)?;
                    } else if is_timestamp_field(scheme, name) && listed.timestamp.replace(value).is_some() {
                        return Err(Failure::Malformed);
                    }
                }
            }
        }
        if listed.tags.is_empty() {
            return Err(Failure::Malformed);
        }
        Ok(listed)
    }

    /// Takes a signature's text; one that cannot be decoded counts but is not compared.
    fn push(&mut self, text: &[u8], encoding: Encoding, tag_bytes: usize) -> Result<(), Failure> {
        self.signatures = self.signatures.saturating_add(1);
        if self.signatures > SIGNATURES_MAX {
            return Err(Failure::Malformed);
        }
        self.tags.extend(encoding.decode(text, tag_bytes));
        Ok(())
    }
}

fn is_timestamp_field(scheme: &Scheme, name: &[u8]) -> bool {
    match scheme.timestamp.as_ref().map(|stamp| &stamp.place) {
        Some(StampPlace::Field(field)) => field.as_bytes() == name,
        Some(StampPlace::Header(_)) | None => false,
    }
}

fn split_once(entry: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let mut halves = entry.splitn(2, |byte| *byte == at);
    Some((halves.next()?, halves.next()?))
}

/// Without spaces and tabs at the ends.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
