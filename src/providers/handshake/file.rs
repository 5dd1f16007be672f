//! A handshake as a person types it: one item of the list `handshake:` in a provider's file or an own scheme.
//!
//! Whatever makes an answer easier to get is written out: a handshake that says nothing about `verify` is answered only
//! to who has signed it. Well-formed here means no more than that; what fits together is decided by `build`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::signature::Encoding;

/// A question of the provider's, and the answer that it wants instead of the backend's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandshakeFile {
    /// What tells it from an event; all of the conditions hold.
    #[serde(deserialize_with = "one_or_several")]
    pub when: Vec<WhenFile>,
    /// Who may ask; absent: who has signed the request like an event.
    #[serde(default, deserialize_with = "some_trust")]
    pub verify: Option<TrustFile>,
    /// The new secret of the route, which arrives in this very request.
    pub register: Option<RegisterFile>,
    /// A value to be computed for the answer.
    pub compute: Option<ComputeFile>,
    /// What to answer.
    pub answer: AnswerFile,
}

/// A condition: exactly one place or property. A place needs `equals` or `present: true`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhenFile {
    /// The method of the request: GET, HEAD, POST or OPTIONS.
    pub method: Option<String>,
    /// A header.
    pub header: Option<String>,
    /// A value of the query, decoded.
    pub query: Option<String>,
    /// A value of a form body, decoded.
    pub form: Option<String>,
    /// A member of the JSON body.
    pub json: Option<String>,
    /// The whole body; only `empty` can be asked for.
    pub body: Option<BodyWord>,
    /// The text that stands there.
    #[serde(deserialize_with = "some_word")]
    pub equals: Option<String>,
    /// Anything stands there, once.
    pub present: bool,
}

/// What can be asked of a whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyWord {
    /// It has no byte.
    Empty,
}

/// Who may ask without a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustFile {
    /// Anybody: `verify: none`.
    Anybody,
    /// Who knows a setting of the route.
    Setting(KnowsFile),
}

/// A value of the request that has to be one of the route's settings: exactly one place, and the setting.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnowsFile {
    /// A header.
    pub header: Option<String>,
    /// A value of the query, decoded.
    pub query: Option<String>,
    /// A value of a form body, decoded.
    pub form: Option<String>,
    /// A member of the JSON body.
    pub json: Option<String>,
    /// The name of the setting.
    pub setting: String,
}

/// Where a new secret arrives: exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterFile {
    /// A header.
    pub header: Option<String>,
    /// A member of the JSON body.
    pub json: Option<String>,
}

/// A value that proves to the provider that the route is its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeFile {
    /// A MAC under the route's secret, or a digest.
    pub algorithm: ComputeKind,
    /// What it is computed over: text with `{query:x}`, `{header:x}`, `{form:x}`, `{json:x}`, `{setting:x}`, `{url}`.
    pub message: String,
    /// How the result is written; the native one has a shape of its own.
    pub encoding: Option<Encoding>,
}

/// What can be computed for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ComputeKind {
    /// HMAC with SHA-1 under the route's secret.
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    /// HMAC with SHA-256 under the route's secret.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384 under the route's secret.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512 under the route's secret.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
    /// SHA-256; what is secret about it is a setting in the message.
    #[serde(rename = "sha256")]
    Sha256,
    /// What a native scheme answers to its provider's own challenge.
    #[serde(rename = "native")]
    Native,
}

/// What to answer: at most one of `text`, `json` and `empty`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerFile {
    /// 200 unless given.
    pub status: Option<u16>,
    /// Further headers, with placeholders in their values.
    pub headers: BTreeMap<String, String>,
    /// A text with placeholders, sent as `text/plain`.
    pub text: Option<String>,
    /// The members of a JSON object; texts may have placeholders, numbers and booleans stand for themselves.
    pub json: Option<BTreeMap<String, serde_json::Value>>,
    /// No body.
    pub empty: bool,
}

/// One condition, or a list of them.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WhenFile>, D::Error> {
    deserializer.deserialize_any(Conditions)
}

struct Conditions;

impl<'de> Visitor<'de> for Conditions {
    type Value = Vec<WhenFile>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a condition or a list of conditions")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        WhenFile::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq))
    }
}

fn some_trust<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TrustFile>, D::Error> {
    deserializer.deserialize_any(Trusted).map(Some)
}

struct Trusted;

impl<'de> Visitor<'de> for Trusted {
    type Value = TrustFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place and a setting, or the word none")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TrustFile, E> {
        match text {
            "none" => Ok(TrustFile::Anybody),
            _ => Err(E::custom(
                "can be the word none, or a place and a setting: { query: hub.verify_token, setting: verify_token }",
            )),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TrustFile, A::Error> {
        KnowsFile::deserialize(MapAccessDeserializer::new(map)).map(TrustFile::Setting)
    }
}

/// A text, or a number or boolean as it is written.
fn some_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(Word).map(Some)
}

struct Word;

impl Visitor<'_> for Word {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a whole number, true or false")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_bool<E: Error>(self, word: bool) -> Result<String, E> {
        Ok(word.to_string())
    }
}
