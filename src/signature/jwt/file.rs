//! A token scheme as a person types it, under `jwt:`.
//!
//! Read by serde, judged by [`Jwt::build`](super::Jwt::build). Unknown keys are errors, and whatever could weaken a
//! check is written out: there is no default algorithm, form of key or encoding, and a scheme without `body` shows by
//! that line's absence that the body is not bound.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::signature::encoding::Encoding;
use crate::signature::file::KeyForm;
use crate::signature::pubkey::PublicKeyForm;
use crate::units;

/// A token scheme as typed.
///
/// ```yaml
/// algorithm: ES256
/// key: jwk
/// in: { header: Plaid-Verification }
/// body: { claim: request_body_sha256, hash: sha256, encoding: hex }
/// age: 5m
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtFile {
    /// The one algorithm. The token has to name the same.
    pub algorithm: JwtAlgorithm,
    /// How the text of a secret becomes a key, or `jwks` when keys are fetched.
    pub key: JwtKeyForm,
    /// Where the token is.
    #[serde(rename = "in")]
    pub place: PlaceFile,
    /// The body is the content that the token leaves out (`header..signature`), plain or in base64 as the token's
    /// header says (RFC 7797).
    #[serde(default)]
    pub detached: bool,
    /// The claim that binds the body. Without it a token in a header proves its sender alone.
    pub body: Option<BodyClaimFile>,
    /// Claims that must have a value. `aud` may be a list that has it. Of detached content, claims are members of the
    /// token's header.
    #[serde(default)]
    pub claims: BTreeMap<String, ClaimFile>,
    /// How far the signed time may be from the present, on both sides; it must be there. `exp` and `nbf` count always.
    #[serde(default, deserialize_with = "units::deserialize_some_duration")]
    pub age: Option<Duration>,
    /// The claim with the signed time, in seconds since 1970; `iat` by default. Only with `age`.
    pub time: Option<String>,
    /// The claim that names the event: text of 1 to 512 visible ASCII characters.
    pub id: Option<String>,
    /// Where keys are fetched from; needed exactly with `key: jwks`.
    pub keys: Option<KeysFile>,
}

/// The algorithms of RFC 7518 and RFC 8037 that providers sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS#1 v1.5 with SHA-512.
    RS512,
    /// RSA-PSS with SHA-256.
    PS256,
    /// ECDSA P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// How the text of a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JwtKeyForm {
    /// Shared secrets: the text itself.
    Utf8,
    /// Padded base64, of a shared secret or of a public key (see [`PublicKeyForm::Base64`]).
    Base64,
    /// Hexadecimal, of a shared secret or of a public key.
    Hex,
    /// Public keys: one PEM block.
    Pem,
    /// Public keys: one JSON Web Key.
    Jwk,
    /// Public keys, fetched from `keys.jwks`.
    Jwks,
}

impl JwtKeyForm {
    /// As a form of shared secrets.
    pub(super) fn shared(self) -> Option<KeyForm> {
        match self {
            JwtKeyForm::Utf8 => Some(KeyForm::Utf8),
            JwtKeyForm::Base64 => Some(KeyForm::Base64),
            JwtKeyForm::Hex => Some(KeyForm::Hex),
            JwtKeyForm::Pem | JwtKeyForm::Jwk | JwtKeyForm::Jwks => None,
        }
    }

    /// As a form of public keys.
    pub(super) fn public(self) -> Option<PublicKeyForm> {
        match self {
            JwtKeyForm::Base64 => Some(PublicKeyForm::Base64),
            JwtKeyForm::Hex => Some(PublicKeyForm::Hex),
            JwtKeyForm::Pem => Some(PublicKeyForm::Pem),
            JwtKeyForm::Jwk => Some(PublicKeyForm::Jwk),
            JwtKeyForm::Utf8 | JwtKeyForm::Jwks => None,
        }
    }
}

/// Where the token is: exactly one of `header`, `body` and `json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceFile {
    /// A header.
    pub header: Option<String>,
    /// With `header`: text that must precede the token, such as `"Bearer "`. Compared exactly.
    pub prefix: Option<String>,
    /// `true`: the whole body is the token.
    #[serde(default)]
    pub body: bool,
    /// The body is a JSON object with this member and no other.
    pub json: Option<String>,
}

/// The claim that binds the body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyClaimFile {
    /// The claim's name.
    pub claim: String,
    /// What the claim holds of the body.
    pub hash: BodyHash,
    /// How a digest is written; needed exactly with a hash.
    pub encoding: Option<Encoding>,
    /// What the claim is when there is no body.
    #[serde(default)]
    pub empty: EmptyBody,
}

/// What a claim holds of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyHash {
    /// The SHA-256 of its bytes.
    Sha256,
    /// The body itself, as text.
    None,
}

/// What the body's claim is when there is no body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmptyBody {
    /// The digest of no bytes.
    #[default]
    Hashed,
    /// Not there at all, and only then.
    Absent,
}

/// What a claim must be.
///
/// Texts may hold `{setting:NAME}`, `{url}` (the route's public URL) and `{url_sha256}` (its SHA-256 in hexadecimal).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum ClaimFile {
    /// A JSON boolean.
    Flag(bool),
    /// This text.
    Text(String),
    /// One of these texts.
    AnyOf(Vec<String>),
}

/// Where keys are fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysFile {
    /// The URL of a JSON Web Key set; `{setting:NAME}` may stand for a tenant's host. Its host is the only one asked.
    pub jwks: String,
}
