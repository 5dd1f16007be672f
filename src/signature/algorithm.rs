//! The algorithms by the names that files use.
//!
//! One closed list: what is not here cannot be configured, and what is configured is never changed by a request. How
//! each works stands elsewhere: keyed and plain hashes in `mac`, public keys in `pubkey`, tokens in `token`.

use serde::Deserialize;

use super::file::KeyForm;
use super::mac::{HashKind, MacKind};
use super::pubkey::SignatureAlgorithm;

/// How a signature comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC (RFC 2104) with SHA-1. Not broken as a MAC, and some providers offer nothing else.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// A plain MD5 with the secret in the message.
    Md5,
    /// A plain SHA-1 with the secret in the message.
    Sha1,
    /// A plain SHA-256 with the secret in the message.
    Sha256,
    /// A plain SHA-384 with the secret in the message.
    Sha384,
    /// A plain SHA-512 with the secret in the message.
    Sha512,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256 over SHA-256 (FIPS 186-5).
    EcdsaP256Sha256,
    /// ECDSA on P-256 over SHA-1.
    EcdsaP256Sha1,
    /// RSA PKCS#1 v1.5 (RFC 8017) over SHA-1.
    RsaSha1,
    /// RSA PKCS#1 v1.5 over SHA-256.
    RsaSha256,
    /// RSA PKCS#1 v1.5 over SHA-512.
    RsaSha512,
    /// RSA PSS (RFC 8017) over SHA-256.
    RsaPssSha256,
    /// RSA PSS over SHA-512.
    RsaPssSha512,
    /// The secret itself is presented. It proves who speaks and nothing of what is said.
    Token,
    /// HTTP Basic (RFC 7617): as a token, with a user in front.
    Basic,
}

/// What kinds of work the algorithms are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Mac(MacKind),
    Hash(HashKind),
    Public(SignatureAlgorithm),
    Token,
    Basic,
}

impl Algorithm {
    pub(super) fn class(self) -> Class {
        match self {
            Algorithm::HmacSha1 => Class::Mac(MacKind::HmacSha1),
            Algorithm::HmacSha256 => Class::Mac(MacKind::HmacSha256),
            Algorithm::HmacSha384 => Class::Mac(MacKind::HmacSha384),
            Algorithm::HmacSha512 => Class::Mac(MacKind::HmacSha512),
            Algorithm::Md5 => Class::Hash(HashKind::Md5),
            Algorithm::Sha1 => Class::Hash(HashKind::Sha1),
            Algorithm::Sha256 => Class::Hash(HashKind::Sha256),
            Algorithm::Sha384 => Class::Hash(HashKind::Sha384),
            Algorithm::Sha512 => Class::Hash(HashKind::Sha512),
            Algorithm::Ed25519 => Class::Public(SignatureAlgorithm::Ed25519),
            Algorithm::EcdsaP256Sha256 => Class::Public(SignatureAlgorithm::EcdsaP256Sha256),
            Algorithm::EcdsaP256Sha1 => Class::Public(SignatureAlgorithm::EcdsaP256Sha1),
            Algorithm::RsaSha1 => Class::Public(SignatureAlgorithm::RsaSha1),
            Algorithm::RsaSha256 => Class::Public(SignatureAlgorithm::RsaSha256),
            Algorithm::RsaSha512 => Class::Public(SignatureAlgorithm::RsaSha512),
            Algorithm::RsaPssSha256 => Class::Public(SignatureAlgorithm::RsaPssSha256),
            Algorithm::RsaPssSha512 => Class::Public(SignatureAlgorithm::RsaPssSha512),
            Algorithm::Token => Class::Token,
            Algorithm::Basic => Class::Basic,
        }
    }
}

impl Class {
    /// Whether signatures have two forms.
    pub(super) fn is_ecdsa(self) -> bool {
        matches!(
            self,
            Class::Public(SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP256Sha1)
        )
    }

    /// Whether keys of this form can be used.
    pub(super) fn takes(self, key: KeyForm) -> bool {
        match self {
            Class::Mac(_) => matches!(key, KeyForm::Utf8 | KeyForm::Base64 | KeyForm::Hex | KeyForm::Whsec),
            Class::Hash(_) | Class::Token | Class::Basic => key == KeyForm::Utf8,
            Class::Public(_) => matches!(
                key,
                KeyForm::Hex | KeyForm::Base64 | KeyForm::Base64url | KeyForm::Pem | KeyForm::Jwk
            ),
        }
    }
}
