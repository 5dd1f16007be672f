//! JSON read so that it has one meaning, and the claims in it.
//!
//! Two parsers that differ about a member said twice see two tokens, so a repetition at any depth is an error. Numbers
//! are kept as far as times need them; dates are whole seconds or fractions of them (RFC 7519 section 2).

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::clock::UnixMillis;
use crate::signature::extract::ID_BYTES_MAX;
use crate::signature::proof::Failure;

/// How much earlier than `nbf` a token counts, in milliseconds: clocks differ, and a token from the near future harms
/// nobody. An expired one does, so `exp` has no such grace.
const NOT_BEFORE_GRACE_MS: u64 = 60_000;

/// A JSON value without repetitions.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Strict {
    Null,
    Flag(bool),
    Number(f64),
    Text(String),
    List(Vec<Strict>),
    Object(BTreeMap<String, Strict>),
}

/// A JSON object without repetitions.
pub(super) struct StrictObject(BTreeMap<String, Strict>);

impl StrictObject {
    pub(super) fn parse(json: &[u8]) -> Result<StrictObject, Failure> {
        match serde_json::from_slice(json) {
            Ok(Strict::Object(members)) => Ok(StrictObject(members)),
            _ => Err(Failure::Malformed),
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<&Strict> {
        self.0.get(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Strict::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// What a token says.
pub(in crate::signature) struct Claims(StrictObject);

impl Claims {
    pub(in crate::signature) fn parse(content: &[u8]) -> Result<Claims, Failure> {
        StrictObject::parse(content).map(Claims)
    }

    pub(super) fn of(members: StrictObject) -> Claims {
        Claims(members)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.member(name).is_some()
    }

    pub(in crate::signature) fn text(&self, name: &str) -> Option<&str> {
        self.0.text(name)
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.0.member(name) {
            Some(Strict::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// Whether the claim is `wanted`; an audience may be a list (RFC 7519 section 4.1.3).
    pub(in crate::signature) fn says(&self, name: &str, wanted: &str) -> bool {
        let is_wanted = |one: &Strict| matches!(one, Strict::Text(text) if text == wanted);
        match self.0.member(name) {
            Some(Strict::List(listed)) if name == "aud" => listed.iter().any(is_wanted),
            Some(one) => is_wanted(one),
            None => false,
        }
    }

    /// A signed id: 1 to 512 visible ASCII characters.
    pub(in crate::signature) fn id(&self, name: &str) -> Result<String, Failure> {
        let id = self.text(name).ok_or(Failure::Malformed)?;
        let fits = !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
        match fits {
            true => Ok(id.to_owned()),
            false => Err(Failure::Malformed),
        }
    }

    /// A time; `None` when the claim is not there.
    pub(in crate::signature) fn time(&self, name: &str) -> Result<Option<UnixMillis>, Failure> {
        match self.0.member(name) {
            None => Ok(None),
            // The cast saturates; a double has every millisecond until the year 287396.
            Some(Strict::Number(seconds)) if *seconds >= 0.0 => Ok(Some(UnixMillis((seconds * 1000.0) as u64))),
            Some(_) => Err(Failure::Malformed),
        }
    }

    /// The texts of a claim that is a list of texts.
    pub(in crate::signature) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        let Some(Strict::List(listed)) = self.0.member(name) else {
            return None;
        };
        let texts = listed.iter().map(|one| match one {
            Strict::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// A text inside a claim that is an object.
    pub(in crate::signature) fn inner_text(&self, name: &str, inner: &str) -> Option<&str> {
        match self.0.member(name) {
            Some(Strict::Object(members)) => match members.get(inner) {
                Some(Strict::Text(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// A time in milliseconds since 1970, as some claims of providers are.
    pub(in crate::signature) fn millis(&self, name: &str) -> Option<UnixMillis> {
        match self.0.member(name) {
            Some(Strict::Number(millis)) if *millis >= 0.0 => Some(UnixMillis(*millis as u64)),
            _ => None,
        }
    }

    /// That `now` is before `exp` and not before `nbf`, where they are claimed.
    pub(super) fn judge_times(&self, now: UnixMillis) -> Result<(), Failure> {
        let expired = self.time("exp")?.is_some_and(|end| now >= end);
        let earliest = now.0.saturating_add(NOT_BEFORE_GRACE_MS);
        let early = self.time("nbf")?.is_some_and(|start| start.0 > earliest);
        match expired || early {
            true => Err(Failure::Stale),
            false => Ok(()),
        }
    }
}

/// The text of a JSON object's one member.
pub(in crate::signature) fn only_member(body: &[u8], name: &str) -> Result<String, Failure> {
    let mut members = StrictObject::parse(body)?.0;
    let value = members.remove(name).ok_or(Failure::Missing)?;
    match (value, members.is_empty()) {
        (Strict::Text(text), true) => Ok(text),
        _ => Err(Failure::Malformed),
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Strict, E> {
        Ok(Strict::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Strict, E> {
        Ok(Strict::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Strict, E> {
        Ok(Strict::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Strict, E> {
        Ok(Strict::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Strict, E> {
        Ok(Strict::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Strict::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Strict>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member said twice"));
            }
        }
        Ok(Strict::Object(members))
    }
}
