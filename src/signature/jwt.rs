//! Signed tokens: compact JWS (RFC 7515), JWT claims (RFC 7519), detached content (RFC 7797).
//!
//! Some providers do not sign the body but a token that carries a digest of it, or that only says who sends. A
//! [`JwtFile`] says where the token is, which one algorithm signs it, which claims must be what, and how the body is
//! bound; [`Jwt::build`] is its only reader. Called by [`Check::finish`](super::Check::finish) with the whole request.
//!
//! Each line was somebody's hole: the algorithm is pinned and the token's own word must agree, so `none` and a public
//! key used as an HMAC secret are malformed; keys inside a token (`jwk`, `jku`, `x5u`) are never looked at; a member
//! said twice is refused; what `crit` lists and this house does not know is refused; base64url has one spelling; claims
//! are judged after the signature. Without a body claim a token proves who sent it and nothing about the body: such a
//! request is `authenticated`, and is remembered by its body, since senders use one token many times.
//!
//! Not judged here: the signed time against the tolerance (the caller does), and repetition.

mod build;
mod claims;
mod file;
mod sign;
mod token;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::HeaderName;
use sha2::{Digest as _, Sha256};

use super::encoding::Encoding;
use super::extract::field_value;
use super::key::{self, KeyError};
use super::mac::{Mac, MacKind};
use super::native::{Found, Message, Settings};
use super::proof::{Failure, Strength};
use super::pubkey::{EcdsaForm, KeySet, PublicKey, SignatureAlgorithm};
use super::timestamp::is_fresh;
use crate::clock::UnixMillis;
use crate::secret::Secret;

pub use file::{BodyClaimFile, BodyHash, ClaimFile, EmptyBody, JwtAlgorithm, JwtFile, JwtKeyForm, KeysFile, PlaceFile};
pub(super) use sign::{Signed, Unsigned};

use build::Pattern;
pub(super) use claims::{Claims, only_member};
pub(super) use token::Token;

/// A token scheme that makes sense.
#[derive(Clone, Debug)]
pub(super) struct Jwt {
    algorithm: Algorithm,
    key: JwtKeyForm,
    place: Place,
    detached: bool,
    body: Option<BodyClaim>,
    claims: Vec<(String, ClaimRule)>,
    age: Option<Duration>,
    time: String,
    id: Option<String>,
    jwks: Option<Pattern>,
}

/// What signs: a shared secret, or a public key in the one form that JWS has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Mac(MacKind),
    Public(SignatureAlgorithm),
}

#[derive(Clone, Debug)]
enum Place {
    Header { name: HeaderName, prefix: String },
    Body,
    Json { name: String },
}

/// How a claim binds the body.
#[derive(Clone, Debug)]
struct BodyClaim {
    name: String,
    digest: BodyDigest,
    absent_when_empty: bool,
}

#[derive(Clone, Copy, Debug)]
enum BodyDigest {
    Sha256(Encoding),
    Whole,
}

/// What a claim must be.
#[derive(Clone, Debug)]
enum ClaimRule {
    AnyOf(Vec<Pattern>),
    Flag(bool),
}

/// A key that may have signed a token.
#[derive(Clone)]
pub(super) enum TokenKey {
    Mac(Box<Mac>),
    Public(PublicKey),
}

/// Which key a token asks for, once everything but its signature has been judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The name it gives; visible ASCII and spaces, at most 256 bytes.
    pub(super) kid: Option<String>,
}

impl Jwt {
    /// How far the signed time may be from the present; `None` when no age is demanded.
    pub(super) fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Whether a claim names the event.
    pub(super) fn signs_id(&self) -> bool {
        self.id.is_some()
    }

    /// Whether keys are fetched and none is configured.
    pub(super) fn fetches_keys(&self) -> bool {
        self.jwks.is_some()
    }

    /// What a proof by this scheme is worth, so that what a file declares can be held against it.
    pub(super) fn strength(&self) -> Strength {
        match (&self.place, &self.body) {
            (Place::Header { .. }, None) if !self.detached => Strength::Authenticated,
            _ => Strength::Verified,
        }
    }

    /// The headers that decide, for the check against look-alikes.
    pub(super) fn security_headers(&self) -> impl Iterator<Item = &HeaderName> {
        match &self.place {
            Place::Header { name, .. } => Some(name),
            Place::Body | Place::Json { .. } => None,
        }
        .into_iter()
    }

    /// Reads one of the route's secrets: a shared one, or a public key.
    ///
    /// # Errors
    /// [`KeyError`] when it is not what the scheme says keys are, or one that anybody could sign for. Length is judged by
    /// the caller, for those who allow short secrets.
    pub(super) fn read_key(&self, id: &str, secret: &Secret) -> Result<TokenKey, KeyError> {
        let unfit = || KeyError::Unsignable("keys of this scheme are fetched, not configured");
        match self.algorithm {
            Algorithm::Mac(kind) => {
                let key = key::decode(self.key.shared().ok_or_else(unfit)?, id, secret)?;
                Ok(TokenKey::Mac(Box::new(Mac::keyed(kind, &key))))
            }
            Algorithm::Public(algorithm) => {
                let key = PublicKey::parse(self.key.public().ok_or_else(unfit)?, secret.expose());
                let key = key.and_then(|key| key.check(algorithm).map(|()| key));
                let refused = |why| KeyError::Public { id: id.into(), why };
                key.map(TokenKey::Public).map_err(refused)
            }
        }
    }

    /// Judges a request under configured keys. [`Found::matched`] counts positions in `keys`.
    ///
    /// # Errors
    /// Why there is no proof; a wrong signature is told by [`Found::matched`] alone.
    pub(super) fn verify(&self, message: &Message<'_>, keys: &[&TokenKey], now: UnixMillis) -> Result<Found, Failure> {
        let token = self.read(message)?;
        let signed = token.signed_bytes(message.body);
        if !keys.iter().any(|key| key.may_have_signed(&token)) {
            return Err(Failure::UnknownKey);
        }
        let mut matched = None;
        let mut macs = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let right = match key {
                TokenKey::Mac(mac) => token.is_maced(mac, &signed, &mut macs),
                TokenKey::Public(public) => key.may_have_signed(&token) && self.is_signed(&token, public, &signed),
            };
            if right && matched.is_none() {
                matched = Some(at);
            }
        }
        self.found(message, &token, Evidence { matched, macs, signed }, now)
    }

    /// Judges everything but the signature, before a key is fetched for it: a forgery that any eye can see must cost nobody
    /// a connection.
    ///
    /// # Errors
    /// Why no key could make this a proof.
    pub(super) fn wanted(&self, message: &Message<'_>, now: UnixMillis) -> Result<Wanted, Failure> {
        let token = self.read(message)?;
        let claims = self.judge(message, &token, now)?;
        if let (Some(age), Some(issued)) = (self.age, claims.timestamp)
            && !is_fresh(issued, now, age)
        {
            return Err(Failure::Stale);
        }
        Ok(Wanted {
            kid: token.kid().map(str::to_owned),
        })
    }

    /// Judges a request under a provider's key set. [`Found::matched`] is `Some(0)` when one of its keys signed.
    ///
    /// # Errors
    /// As [`Jwt::verify`]; [`Failure::UnknownKey`] when the set has no key of the token's name for this algorithm.
    pub(super) fn verify_fetched(
        &self,
        message: &Message<'_>,
        set: &KeySet,
        now: UnixMillis,
    ) -> Result<Found, Failure> {
        let token = self.read(message)?;
        let Algorithm::Public(algorithm) = self.algorithm else {
            return Err(Failure::UnknownKey);
        };
        let fits = |key: &&PublicKey| key.check(algorithm).is_ok();
        let mut keys = set.named(token.kid()).filter(fits).peekable();
        if keys.peek().is_none() {
            return Err(Failure::UnknownKey);
        }
        let signed = token.signed_bytes(message.body);
        let matched = keys.any(|key| self.is_signed(&token, key, &signed)).then_some(0);
        let macs = Vec::new();
        self.found(message, &token, Evidence { matched, macs, signed }, now)
    }

    /// The URL of the provider's key set, with the route's settings in it; `None` when keys are configured.
    pub(super) fn key_set_url(&self, settings: &Settings) -> Option<String> {
        self.jwks.as_ref()?.written(settings, None)
    }

    fn read<'m>(&self, message: &Message<'m>) -> Result<Token<'m>, Failure> {
        let text = self.place.text(message)?;
        let token = Token::parse(text, self.detached)?;
        match token.alg() == self.algorithm.jose_name() {
            true => Ok(token),
            false => Err(Failure::Malformed),
        }
    }

    fn is_signed(&self, token: &Token<'_>, key: &PublicKey, signed: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Public(algorithm) => key.verify(algorithm, EcdsaForm::Raw, signed, token.signature()),
            Algorithm::Mac(_) => false,
        }
    }

    fn found(
        &self,
        message: &Message<'_>,
        token: &Token<'_>,
        evidence: Evidence<'_>,
        now: UnixMillis,
    ) -> Result<Found, Failure> {
        let strength = self.strength();
        let judged = match evidence.matched {
            Some(_) => self.judge(message, token, now)?,
            None => Judged::default(),
        };
        let digests = match (strength, evidence.macs.is_empty()) {
            (Strength::Verified, false) => evidence.macs,
            (Strength::Verified, true) => vec![Sha256::digest(&evidence.signed).into()],
            _ => vec![Sha256::digest(message.body).into()],
        };
        Ok(Found {
            matched: evidence.matched,
            digests,
            signed_id: judged.id,
            timestamp: judged.timestamp,
            strength,
        })
    }

    /// What the token claims, held against what it must.
    fn judge(&self, message: &Message<'_>, token: &Token<'_>, now: UnixMillis) -> Result<Judged, Failure> {
        let claims = match token.content() {
            Some(content) => &Claims::parse(content)?,
            None => token.header(),
        };
        self.judge_claims(message, claims)?;
        self.judge_body(message.body, claims)?;
        claims.judge_times(now)?;
        let timestamp = match self.age {
            Some(_) => Some(claims.time(&self.time)?.ok_or(Failure::Malformed)?),
            None => None,
        };
        let id = match &self.id {
            Some(name) => Some(claims.id(name)?),
            None => None,
        };
        Ok(Judged { id, timestamp })
    }

    fn judge_claims(&self, message: &Message<'_>, claims: &Claims) -> Result<(), Failure> {
        for (name, rule) in &self.claims {
            let holds = match rule {
                ClaimRule::Flag(wanted) => claims.flag(name) == Some(*wanted),
                ClaimRule::AnyOf(patterns) => patterns.iter().any(|pattern| {
                    let wanted = pattern.written(message.settings, message.public_url);
                    pattern.fits_target(message) && wanted.is_some_and(|wanted| claims.says(name, &wanted))
                }),
            };
            if !holds {
                return Err(Failure::Mismatch);
            }
        }
        Ok(())
    }

    fn judge_body(&self, body: &[u8], claims: &Claims) -> Result<(), Failure> {
        let Some(rule) = &self.body else {
            return Ok(());
        };
        let claimed = claims.text(&rule.name);
        if rule.absent_when_empty && body.is_empty() {
            return match claims.has(&rule.name) {
                true => Err(Failure::Mismatch),
                false => Ok(()),
            };
        }
        let right = claimed.is_some_and(|claimed| match rule.digest {
            BodyDigest::Whole => claimed.as_bytes() == body,
            BodyDigest::Sha256(encoding) => encoding
                .decode(claimed.as_bytes(), 32)
                .is_some_and(|tag| tag.as_bytes() == Sha256::digest(body).as_slice()),
        });
        match right {
            true => Ok(()),
            false => Err(Failure::Mismatch),
        }
    }
}

/// What the signature showed.
struct Evidence<'t> {
    matched: Option<usize>,
    macs: Vec<[u8; 32]>,
    signed: Cow<'t, [u8]>,
}

/// What a token says that the caller goes on with.
#[derive(Default)]
struct Judged {
    id: Option<String>,
    timestamp: Option<UnixMillis>,
}

impl TokenKey {
    /// A token that names a key is not tried under keys of other names. Shared secrets have none.
    fn may_have_signed(&self, token: &Token<'_>) -> bool {
        match self {
            TokenKey::Mac(_) => true,
            TokenKey::Public(key) => match (key.kid(), token.kid()) {
                (Some(own), Some(named)) => own == named,
                _ => true,
            },
        }
    }
}

impl Algorithm {
    fn jose_name(self) -> &'static str {
        match self {
            Algorithm::Mac(MacKind::HmacSha1) => "",
            Algorithm::Mac(MacKind::HmacSha256) => "HS256",
            Algorithm::Mac(MacKind::HmacSha384) => "HS384",
            Algorithm::Mac(MacKind::HmacSha512) => "HS512",
            Algorithm::Public(algorithm) => algorithm.jose_name().unwrap_or_default(),
        }
    }
}

impl Place {
    fn text<'m>(&self, message: &Message<'m>) -> Result<Cow<'m, [u8]>, Failure> {
        match self {
            Place::Header { name, prefix } => field_value(message.headers, name)?
                .strip_prefix(prefix.as_bytes())
                .map(Cow::Borrowed)
                .ok_or(Failure::Malformed),
            Place::Body if message.body.is_empty() => Err(Failure::Missing),
            Place::Body => Ok(Cow::Borrowed(message.body)),
            Place::Json { name } => only_member(message.body, name).map(|text| Cow::Owned(text.into_bytes())),
        }
    }
}

impl fmt::Debug for TokenKey {
    /// Which kind of key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenKey::Mac(_) => f.write_str("TokenKey(mac)"),
            TokenKey::Public(key) => key.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
