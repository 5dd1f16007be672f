//! Keys that a provider publishes, as a verification asks for them.
//!
//! A verifier that needs such a key stops half way: [`Wanted`] is all it has found out, [`KeySource`] where the key is.
//! Whoever called it has the key fetched and resumes. The source is made from a [`PinnedUrl`], so that no text of a
//! request is ever asked for as it stands.
//!
//! Everything that costs no fetch has been checked before: syntax, pins, and the signed time, because a forgery must
//! not buy an exchange with somebody else's server. So of these schemes, and of these alone, age is judged before the
//! signature.

use std::fmt;

use sha2::{Digest, Sha256};

use super::native::Found;
use super::pinned::PinnedUrl;
use super::proof::{Failure, Strength};
use super::pubkey::{EcdsaForm, KeySet, PublicKey, SignatureAlgorithm};
use super::x509::Certificate;
use crate::clock::UnixMillis;

/// Where a key is published, and in what form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySource {
    url: PinnedUrl,
    kind: KeyKind,
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum KeyKind {
    /// A certificate in PEM, alone or at the head of its chain.
    Certificate,
    /// A JWK set, and the name of the key in it that is wanted.
    KeySet { kid: Option<String> },
}

impl KeySource {
    /// A certificate (PEM).
    pub fn certificate(url: PinnedUrl) -> KeySource {
        KeySource {
            url,
            kind: KeyKind::Certificate,
        }
    }

    /// The key called `kid` of a JWK set (RFC 7517); `None`: any of its keys.
    pub fn key_set(url: PinnedUrl, kid: Option<String>) -> KeySource {
        KeySource {
            url,
            kind: KeyKind::KeySet { kid },
        }
    }

    /// Where it is.
    pub fn url(&self) -> &PinnedUrl {
        &self.url
    }

    /// Reads what was fetched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, text: &[u8]) -> Result<FetchedKey, Unreadable> {
        let keys = match self.kind {
            KeyKind::Certificate => {
                let chain = Certificate::parse_pem(text).map_err(|_| Unreadable)?;
                let certificate = chain.into_iter().next().ok_or(Unreadable)?;
                let key = certificate.key().map_err(|_| Unreadable)?;
                Keys::Certificate(Box::new((certificate, key)))
            }
            KeyKind::KeySet { .. } => Keys::Set(KeySet::parse(text).map_err(|_| Unreadable)?),
        };
        Ok(FetchedKey(keys))
    }
}

/// What was fetched is no key of the kind that is published there, or one that is too weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is published there cannot be read as a key, or is too weak")]
pub struct Unreadable;

/// A published key, read.
pub struct FetchedKey(Keys);

enum Keys {
    Certificate(Box<(Certificate, PublicKey)>),
    Set(KeySet),
}

impl FetchedKey {
    /// Whether the key that `source` names is in it.
    pub fn offers(&self, source: &KeySource) -> bool {
        match (&self.0, &source.kind) {
            (Keys::Certificate(_), KeyKind::Certificate) => true,
            (Keys::Set(set), KeyKind::KeySet { kid }) => set.named(kid.as_deref()).next().is_some(),
            _ => false,
        }
    }

    /// The set, if it is one: for tokens, which have rules of their own about their keys.
    pub(super) fn key_set(&self) -> Option<&KeySet> {
        match &self.0 {
            Keys::Set(set) => Some(set),
            Keys::Certificate(_) => None,
        }
    }

    /// The keys for `source` that are valid at `now`.
    fn keys<'a>(&'a self, source: &'a KeySource, now: UnixMillis) -> impl Iterator<Item = &'a PublicKey> {
        let certified = match (&self.0, &source.kind) {
            (Keys::Certificate(certified), KeyKind::Certificate) => {
                let (certificate, key) = &**certified;
                certificate.is_valid_at(now).then_some(key)
            }
            _ => None,
        };
        let listed = match (&self.0, &source.kind) {
            (Keys::Set(set), KeyKind::KeySet { kid }) => Some(set.named(kid.as_deref())),
            _ => None,
        };
        certified.into_iter().chain(listed.into_iter().flatten())
    }
}

impl fmt::Debug for FetchedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Keys::Certificate(_) => f.write_str("FetchedKey(certificate)"),
            Keys::Set(_) => f.write_str("FetchedKey(key set)"),
        }
    }
}

/// A verification that wants for nothing but its key.
pub(super) struct Wanted {
    /// Where the key is.
    pub(super) source: KeySource,
    /// Pinned by the scheme.
    pub(super) algorithm: SignatureAlgorithm,
    /// The bytes that are signed.
    pub(super) signed: Vec<u8>,
    /// The presented signature.
    pub(super) signature: Vec<u8>,
    /// The signed event id.
    pub(super) signed_id: Option<String>,
    /// The signed time.
    pub(super) timestamp: Option<UnixMillis>,
    /// What a match proves.
    pub(super) strength: Strength,
    /// What to ask for if the route confirms subscriptions: the provider wants a sign of consent.
    pub(super) confirmation: Option<PinnedUrl>,
}

impl Wanted {
    /// Judges the signature. `now` decides whether a certificate is valid.
    ///
    /// # Errors
    /// [`Failure::UnknownKey`] when `fetched` holds no valid key of that name, [`Failure::Mismatch`] when the signature is
    /// not by it.
    pub(super) fn judge(&self, fetched: &FetchedKey, now: UnixMillis) -> Result<Found, Failure> {
        let mut keys = fetched.keys(&self.source, now).peekable();
        if keys.peek().is_none() {
            return Err(Failure::UnknownKey);
        }
        // Everything here is public, so the order and the end of the search tell a forger nothing.
        let right = |key: &PublicKey| key.verify(self.algorithm, EcdsaForm::Raw, &self.signed, &self.signature);
        if !keys.any(right) {
            return Err(Failure::Mismatch);
        }
        Ok(Found {
            matched: Some(0),
            digests: vec![Sha256::digest(&self.signed).into()],
            signed_id: self.signed_id.clone(),
            timestamp: self.timestamp,
            strength: self.strength,
        })
    }
}

/// A time as RFC 3339 writes it, with a zone: `2012-05-02T00:54:06.655Z`. What is signed is its text, so its spelling is
/// the provider's.
pub(super) fn rfc3339(text: &str) -> Option<UnixMillis> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(UnixMillis)
}
