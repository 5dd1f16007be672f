//! A signature scheme as a person types it.
//!
//! One language for the presets in `conf/providers/` and for `schemes:` in a user's configuration. These types say
//! what may be written; whether it makes sense together is decided by [`Scheme::build`](super::Scheme::build), the
//! only reader. Every key that could weaken a check has to be written out: there is no default for the algorithm,
//! the form of the key, the encoding, the unit or the tolerance, so that a reader of the file sees what is checked.
//! Unknown keys are errors: a misspelt `tolerance` must not switch the age check off.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, de};

use super::algorithm::Algorithm;
use super::encoding::Encoding;
use super::jwt::JwtFile;
use super::native::Native;
use super::pubkey::EcdsaForm;
use super::timestamp::Unit;
use crate::units;

/// A scheme as typed: an algorithm with all that goes with it, `jwt` or `native`.
///
/// ```yaml
/// algorithm: hmac-sha256
/// key: utf8
/// message: "{timestamp}.{body}"
/// signature: { header: Stripe-Signature, format: kv, separator: ",", fields: [v1], encoding: hex }
/// timestamp: { field: t, unit: s, tolerance: 5m }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemeFile {
    /// How a signature comes about; this, `jwt` or `native`.
    pub algorithm: Option<Algorithm>,
    /// One of the verifiers that no template can say, by its name.
    pub native: Option<Native>,
    /// A signed token, and what it must say.
    pub jwt: Option<JwtFile>,
    /// How the secret's text becomes the key; needed by algorithms that have a key.
    pub key: Option<KeyForm>,
    /// What is signed: literal text and placeholders, see [`Scheme`](super::Scheme).
    pub message: Option<String>,
    /// Where the signature is and how it is written.
    pub signature: Option<SignatureFile>,
    /// Where the signed time is; needed exactly when the message has `{timestamp}`.
    pub timestamp: Option<TimestampFile>,
    /// Where the signed id is; needed exactly when the message has `{id}`.
    pub id: Option<IdFile>,
    /// Headers that must be there with exactly this value: a pinned version or algorithm.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
}

/// How a secret's text becomes the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyForm {
    /// The text itself.
    Utf8,
    /// Standard base64, padded.
    Base64,
    /// The URL's base64, padded or not. Public keys only.
    Base64url,
    /// Hexadecimal.
    Hex,
    /// An optional `v1,`, an optional `whsec_` and then base64, as Standard Webhooks writes secrets.
    Whsec,
    /// A public key or certificate in PEM (RFC 7468).
    Pem,
    /// A public key as a JSON Web Key (RFC 7517).
    Jwk,
}

/// Where the signature is and how it is written. Exactly one of `header`, `headers`, `json`, `form` and `query`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureFile {
    /// The header that carries it; with `{n}` in its name, the headers numbered 1 to 16.
    pub header: Option<String>,
    /// Headers of which any may carry it.
    #[serde(default)]
    pub headers: Vec<String>,
    /// A member of the JSON body. For tokens it may pass through arrays, `value[].clientState`: every item counts.
    pub json: Option<String>,
    /// A field of the form that the body is.
    pub form: Option<String>,
    /// A parameter of the query.
    pub query: Option<String>,
    /// How the value is written; `plain` by default.
    #[serde(default)]
    pub format: Format,
    /// `plain` only: text that must precede the signature, such as `sha256=`. Compared exactly.
    pub prefix: Option<String>,
    /// `kv`, `list` and `positional`: the one character between entries.
    pub separator: Option<String>,
    /// `kv` only: the one character between name and value; `=` by default. The first one counts.
    pub assign: Option<String>,
    /// `kv` only: names whose values are signatures. Entries with other names are skipped.
    #[serde(default)]
    pub fields: Vec<String>,
    /// `kv` only: the one character between groups of entries, each with a time of its own.
    pub group: Option<String>,
    /// How the bytes of the signature are written; none for tokens.
    pub encoding: Option<Encoding>,
    /// How an ECDSA signature is put into bytes; `der` by default.
    pub ecdsa: Option<EcdsaForm>,
}

/// How a signature's value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The whole value, after the prefix if there is one.
    #[default]
    Plain,
    /// Named values: `t=1700000000,v1=...` or, with another `assign` and `separator`, `v1,... v1,...`.
    Kv,
    /// Bare signatures, any of which may match.
    List,
    /// The time, then bare signatures.
    Positional,
}

/// Where the signed time is. Exactly one of `header`, `field`, `json`, `form`, `query` and `first`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampFile {
    /// A header of its own.
    pub header: Option<String>,
    /// A field of a signature with `format: kv`; it must occur exactly once.
    pub field: Option<String>,
    /// A member of the JSON body.
    pub json: Option<String>,
    /// A field of the form that the body is.
    pub form: Option<String>,
    /// A parameter of the query.
    pub query: Option<String>,
    /// The first entry of a signature with `format: positional`.
    #[serde(default)]
    pub first: bool,
    /// How the time is written.
    pub unit: Unit,
    /// How far the time may be from ours: `5m`, or `off`.
    pub tolerance: Tolerance,
}

/// How far a signed time may be from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// On both sides, inclusive. Between 1s and 2d.
    Within(Duration),
    /// Any distance: the provider's retries keep the first time, so that no age can be demanded.
    Off,
}

impl<'de> Deserialize<'de> for Tolerance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Typed;
        impl Visitor<'_> for Typed {
            type Value = Tolerance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 10s, 5m or 250ms, or the word off")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Tolerance, E> {
                match text {
                    "off" => Ok(Tolerance::Off),
                    _ => units::duration(text).map(Tolerance::Within).map_err(E::custom),
                }
            }
        }
        deserializer.deserialize_str(Typed)
    }
}

/// Where the signed id is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdFile {
    /// The header that carries it.
    pub header: String,
    /// Its exact length in bytes, where nothing in the message ends it.
    pub length: Option<usize>,
}
