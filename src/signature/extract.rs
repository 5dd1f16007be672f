//! From a signature's text to its entries, and from headers to what they present.
//!
//! Everything read here is still a claim. Reading is bounded (8 KiB of header, 16 signatures) and strict where a lenient
//! reader and a strict one would see different requests: a header that says two things says nothing. What a newer
//! version of a scheme may add is skipped, never trusted: unknown fields, undecodable entries. A signature header without
//! one usable signature is malformed.

use http::{HeaderMap, HeaderName};

use super::mac::Tag;
use super::place::{Carrier, Place, Spelling, Stamp, StampPlace};
use super::proof::Failure;
use super::recipe::Recipe;
use super::source::Source;
use super::template::{Rule, Values};
use crate::clock::UnixMillis;

/// Longest value of a signature, timestamp or id header, in bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Most signatures in one request; each is compared with each secret.
pub(super) const SIGNATURES_MAX: usize = 16;

/// Longest signed id, in bytes.
pub(super) const ID_BYTES_MAX: usize = 512;

/// What the head of a request claims.
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

/// Reads what a recipe needs that has everything in headers; `tag_bytes` is the length of its MAC.
pub(super) fn read<'h>(recipe: &Recipe, tag_bytes: usize, headers: &'h HeaderMap) -> Result<Presented<'h>, Failure> {
    let mut tags = Vec::new();
    let mut listed = None;
    let place = &recipe.signature;
    each_header(place, headers, |text| {
        let field = recipe.timestamp.as_ref().and_then(Stamp::field);
        let stamp = entries(&place.spelling, text, field, |entry| {
            tags.extend(place.encoding.decode(entry, tag_bytes));
        })?;
        one_stamp(&mut listed, stamp)
    })?;
    if tags.is_empty() || tags.len() > SIGNATURES_MAX {
        return Err(Failure::Malformed);
    }
    let mut values = Values::default();
    let mut timestamp = None;
    if let Some(stamp) = &recipe.timestamp {
        values.timestamp = match &stamp.place {
            StampPlace::At(Source::Header(name)) => field_value(headers, name)?,
            StampPlace::At(_) | StampPlace::First => listed.ok_or(Failure::Malformed)?,
        };
        timestamp = Some(read_timestamp(stamp, values.timestamp).ok_or(Failure::Malformed)?);
    }
    let mut id = None;
    if let Some((name, rule)) = &recipe.id {
        values.id = field_value(headers, name)?;
        id = Some(read_id(*rule, values.id).ok_or(Failure::Malformed)?);
    }
    Ok(Presented {
        tags,
        values,
        timestamp,
        id,
    })
}

/// Hands the text of each header that carries signatures to `text`.
pub(super) fn each_header<'h>(
    place: &Place,
    headers: &'h HeaderMap,
    mut text: impl FnMut(&'h [u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match &place.carrier {
        Carrier::One(Source::Header(name)) => text(field_value(headers, name)?),
        Carrier::One(_) => Err(Failure::Missing),
        Carrier::Any(names) => {
            let mut found = Err(Failure::Missing);
            for name in names {
                match field_value(headers, name) {
                    Ok(value) => {
                        text(value)?;
                        found = Ok(());
                    }
                    Err(Failure::Missing) => {}
                    Err(failure) => return Err(failure),
                }
            }
            found
        }
    }
}

/// Several carriers must not say several times.
pub(super) fn one_stamp<'h>(known: &mut Option<&'h [u8]>, stamp: Option<&'h [u8]>) -> Result<(), Failure> {
    match (&known, stamp) {
        (Some(known), Some(stamp)) if *known != stamp => return Err(Failure::Malformed),
        (None, Some(stamp)) => *known = Some(stamp),
        _ => {}
    }
    Ok(())
}

/// Hands every signature in `text` to `entry`, at most 16, and returns the time that stands between them: the value of
/// `stamp_field`, which must not occur twice, or the first entry of a positional list.
pub(super) fn entries<'t>(
    spelling: &Spelling,
    text: &'t [u8],
    stamp_field: Option<&str>,
    mut entry: impl FnMut(&'t [u8]),
) -> Result<Option<&'t [u8]>, Failure> {
    let mut count: usize = 0;
    let mut push = |text: &'t [u8]| {
        count = count.saturating_add(1);
        if count > SIGNATURES_MAX {
            return Err(Failure::Malformed);
        }
        entry(text);
        Ok(())
    };
    let mut stamp = None;
    match spelling {
        Spelling::Plain { prefix } => push(text.strip_prefix(prefix.as_bytes()).ok_or(Failure::Malformed)?)?,
        Spelling::List { separator } => split(text, *separator).try_for_each(push)?,
        Spelling::Positional { separator } => {
            let mut all = split(text, *separator);
            stamp = Some(all.next().ok_or(Failure::Malformed)?);
            all.try_for_each(push)?;
        }
        Spelling::Kv {
            separator,
            assign,
            fields,
            ..
        } => {
            for (name, value) in split(text, *separator).filter_map(|entry| split_once(entry, *assign)) {
                if fields.iter().any(|field| field.as_bytes() == name) {
                    push(value)?;
                } else if stamp_field.is_some_and(|field| field.as_bytes() == name) && stamp.replace(value).is_some() {
                    return Err(Failure::Malformed);
                }
            }
        }
    }
    Ok(stamp)
}

/// The one value of a field beside the signatures.
pub(super) fn other_field<'t>(spelling: &Spelling, text: &'t [u8], wanted: &str) -> Result<&'t [u8], Failure> {
    let Spelling::Kv { separator, assign, .. } = spelling else {
        return Err(Failure::Malformed);
    };
    let pairs = split(text, *separator).filter_map(|entry| split_once(entry, *assign));
    let mut values = pairs
        .filter(|(name, _)| *name == wanted.as_bytes())
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Failure::Malformed),
    }
}

/// The groups of entries in a signature's text, the text itself if it has none.
pub(super) fn groups<'t>(spelling: &Spelling, text: &'t [u8]) -> Vec<&'t [u8]> {
    match spelling {
        Spelling::Kv { group: Some(group), .. } => split(text, *group).collect(),
        _ => vec![text],
    }
}

/// The time of a signed timestamp, if its text obeys the grammar and the template's rule.
pub(super) fn read_timestamp(stamp: &Stamp, text: &[u8]) -> Option<UnixMillis> {
    match stamp.rule.admits(text) {
        true => stamp.unit.parse(text),
        false => None,
    }
}

/// A signed id, if it is visible ASCII within bounds and obeys the template's rule.
pub(super) fn read_id(rule: Rule, text: &[u8]) -> Option<&str> {
    if text.is_empty() || text.len() > ID_BYTES_MAX || !text.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    match rule.admits(text) {
        true => std::str::from_utf8(text).ok(),
        false => None,
    }
}

/// Whether every required header is there with its one value.
pub(super) fn required(require: &[(HeaderName, String)], headers: &HeaderMap) -> Result<(), Failure> {
    for (name, value) in require {
        if field_value(headers, name) != Ok(value.as_bytes()) {
            return Err(Failure::Malformed);
        }
    }
    Ok(())
}

/// The one value of a header, without the white space around it, which is not a part of a field value (RFC 9110
/// section 5.5). The same value twice is one value; two values are none.
pub(super) fn field_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h [u8], Failure> {
    let mut values = headers.get_all(name).iter().map(|value| trim(value.as_bytes()));
    let first = values.next().ok_or(Failure::Missing)?;
    let fits = !first.is_empty() && first.len() <= HEADER_BYTES_MAX;
    if fits && values.all(|other| other == first) {
        Ok(first)
    } else {
        Err(Failure::Malformed)
    }
}

/// Without spaces and tabs at the ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The entries of a list, without the white space around them and without empty ones.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| *byte == separator)
        .map(trim)
        .filter(|entry| !entry.is_empty())
}

fn split_once(entry: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let mut halves = entry.splitn(2, |byte| *byte == at);
    Some((halves.next()?, halves.next()?))
}
