//! A signature scheme as a person types it.
//!
//! One language for the presets in `conf/providers/` and for `schemes:` in a user's configuration. These types say
//! what may be written; whether it makes sense together is decided by [`Scheme::build`](super::Scheme::build), the
//! only reader. Every key that could weaken a check has to be written out: there is no default for the algorithm,
//! the form of the key, the encoding, the unit or the tolerance, so that a reader of the file sees what is checked.
//! Unknown keys are errors: a misspelt `tolerance` must not switch the age check off.

use std::time::Duration;

use serde::Deserialize;

use super::encoding::Encoding;
use super::mac::MacKind;
use super::timestamp::Unit;
use crate::units;

/// A scheme as typed.
///
/// ```yaml
/// mac: hmac-sha256
/// key: utf8
/// message: "{timestamp}.{body}"
/// signature: { header: Stripe-Signature, format: kv, separator: ",", fields: [v1], encoding: hex }
/// timestamp: { field: t, unit: s, tolerance: 5m }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemeFile {
    /// The algorithm: `hmac-sha1`, `hmac-sha256` or `hmac-sha512`.
    pub mac: MacKind,
    /// How the secret's text becomes the key.
    pub key: KeyForm,
    /// What is signed: literal text and `{timestamp}`, `{id}`, `{body}`, each at most once; `{{` and `}}` are braces.
    pub message: String,
    /// Where the signature is and how it is written.
    pub signature: SignatureFile,
    /// Where the signed time is; needed exactly when the message has `{timestamp}`.
    pub timestamp: Option<TimestampFile>,
    /// Where the signed id is; needed exactly when the message has `{id}`.
    pub id: Option<IdFile>,
}

/// How a secret's text becomes the key of the MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyForm {
    /// The text itself.
    Utf8,
    /// Standard base64, padded.
    Base64,
    /// Hexadecimal.
    Hex,
    /// An optional `whsec_` and then base64, as Standard Webhooks writes secrets.
    Whsec,
}

/// Where the signature is and how it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureFile {
    /// The header that carries it.
    pub header: String,
    /// How the header's value is written; `plain` by default.
    #[serde(default)]
    pub format: Format,
    /// `plain` only: text that must precede the signature, such as `sha256=`. Compared exactly.
    pub prefix: Option<String>,
    /// `kv` and `list`: the one character between entries.
    pub separator: Option<String>,
    /// `kv` only: the one character between name and value; `=` by default. The first one counts.
    pub assign: Option<String>,
    /// `kv` only: names whose values are signatures. Entries with other names are skipped.
    #[serde(default)]
    pub fields: Vec<String>,
    /// How the bytes of the MAC are written.
    pub encoding: Encoding,
}

/// How a signature header's value is written.
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
}

/// Where the signed time is. Exactly one of `header` and `field`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampFile {
    /// A header of its own.
    pub header: Option<String>,
    /// A field of a signature header with `format: kv`; it must occur exactly once.
    pub field: Option<String>,
    /// Seconds or milliseconds since 1970.
    pub unit: Unit,
    /// How far the time may be from ours, on both sides, inclusive: `5m`. Between 1s and 1d.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub tolerance: Duration,
}

/// Where the signed id is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdFile {
    /// The header that carries it.
    pub header: String,
}
