//! What native verifiers share: one header, one MAC, one verdict.
//!
//! Called by the verifiers beside it. A verifier reads what a request claims and what must have been signed, and hands
//! both over as a [`Claim`]; here every key meets every reading and every presented signature. A request that could not
//! be read is hashed all the same, so that its answer comes no earlier than that to a forgery. What a repeat is
//! recognised by is always the MAC of the first reading: a verifier puts there what no sender can spell differently.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{ActiveKey, Found};
use crate::clock::UnixMillis;
use crate::signature::encoding::Encoding;
use crate::signature::extract::field_value;
use crate::signature::mac::{Mac, MacKind, Tag};
use crate::signature::proof::{Failure, Strength};
use crate::signature::pubkey::{EcdsaForm, SignatureAlgorithm};

/// Most signatures in one request; each is compared under each key.
pub(super) const SIGNATURES_MAX: usize = 16;

/// Bytes that are signed one after the other.
pub(super) type Pieces<'a> = Vec<Cow<'a, [u8]>>;

/// What a request claims: signatures, and what they should be of.
#[derive(Default)]
pub(super) struct Claim<'a> {
    /// The presented signatures, decoded.
    pub(super) tags: Vec<Tag>,
    /// What may have been signed: several readings only where the provider itself is of two minds.
    pub(super) readings: Vec<Pieces<'a>>,
}

/// Which key a claim holds under, and what to remember it by.
pub(super) struct Verdict {
    /// For each key, in order, whether it matched.
    matches: Vec<bool>,
    /// For each key, in order, the MAC of the first reading.
    digests: Vec<[u8; 32]>,
}

impl Verdict {
    /// Judges one claim under every key. What is wrong with the claim is reported after the work.
    ///
    /// # Errors
    /// The failure that stands in place of the claim.
    pub(super) fn of(
        kind: MacKind,
        keys: &[ActiveKey<'_>],
        claim: Result<Claim<'_>, Failure>,
        body: &[u8],
    ) -> Result<Verdict, Failure> {
        let (claim, known) = match claim {
            Ok(claim) => (claim, None),
            Err(failure) => (unreadable(body), Some(failure)),
        };
        let mut verdict = Verdict {
            matches: Vec::with_capacity(keys.len()),
            digests: Vec::with_capacity(keys.len()),
        };
        for key in keys {
            let keyed = Mac::keyed(kind, key.secret());
            let computed: Vec<Tag> = claim.readings.iter().map(|pieces| tag(&keyed, pieces)).collect();
            verdict.matches.push(any_equal(&claim.tags, &computed));
            verdict.digests.extend(computed.first().map(Tag::digest));
        }
        known.map_or(Ok(verdict), Err)
    }

    /// Both claims, as one: a key matches when it matches in both.
    pub(super) fn and(mut self, other: Verdict) -> Verdict {
        for (mine, theirs) in self.matches.iter_mut().zip(other.matches) {
            *mine &= theirs;
        }
        self.digests.extend(other.digests);
        self
    }

    /// Remembers these digests in place of the MACs, where MACs do not tell one event from another.
    pub(super) fn remembered_by(mut self, digest: [u8; 32]) -> Verdict {
        self.digests = vec![digest];
        self
    }

    /// What the caller is told.
    pub(super) fn found(mut self, strength: Strength, timestamp: Option<UnixMillis>) -> Found {
        self.digests.sort_unstable();
        self.digests.dedup();
        Found {
            matched: self.matches.iter().position(|matched| *matched),
            digests: self.digests,
            signed_id: None,
            timestamp,
            strength,
        }
    }
}

/// What a request under a public key claims.
pub(super) struct PublicClaim {
    /// The presented signature, decoded.
    pub(super) signature: Vec<u8>,
    /// What it should be of.
    pub(super) signed: Vec<u8>,
}

impl PublicClaim {
    /// Judges the claim under every key; a repeat is recognised by the signed bytes.
    ///
    /// Nothing here is secret, so that a request which could not be read may be answered sooner.
    pub(super) fn found(
        &self,
        algorithm: SignatureAlgorithm,
        keys: &[ActiveKey<'_>],
        strength: Strength,
        timestamp: Option<UnixMillis>,
    ) -> Found {
        let matches = |key: &ActiveKey<'_>| {
            let public = key.public_key();
            public.is_some_and(|key| key.verify(algorithm, EcdsaForm::Der, &self.signed, &self.signature))
        };
        let verdict = Verdict {
            matches: keys.iter().map(matches).collect(),
            digests: vec![Sha256::digest(&self.signed).into()],
        };
        verdict.found(strength, timestamp)
    }
}

/// What stands in for a claim that could not be read: the whole body, and nothing that it could match.
fn unreadable(body: &[u8]) -> Claim<'_> {
    Claim {
        tags: Vec::new(),
        readings: vec![vec![Cow::Borrowed(body)]],
    }
}

fn tag(keyed: &Mac, pieces: &Pieces<'_>) -> Tag {
    let mut mac = keyed.clone();
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finish()
}

/// Whether any presented signature is any computed one, without telling which by time.
fn any_equal(presented: &[Tag], computed: &[Tag]) -> bool {
    let mut any = Choice::from(0);
    for tag in presented {
        any |= computed
            .iter()
            .fold(Choice::from(0), |any, other| any | tag.ct_eq(other));
    }
    any.into()
}

/// The MAC of `pieces`, written as the provider does.
pub(super) fn write_mac(kind: MacKind, key: &[u8], pieces: &[&[u8]], encoding: Encoding) -> String {
    let mut mac = Mac::keyed(kind, key);
    pieces.iter().for_each(|piece| mac.update(piece));
    encoding.encode(mac.finish().as_bytes())
}

/// The one value of a header that is text.
pub(super) fn text_header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Failure> {
    std::str::from_utf8(field_value(headers, name)?).map_err(|_| Failure::Malformed)
}

/// The one signature that a text is.
pub(super) fn one_tag(text: &[u8], encoding: Encoding, kind: MacKind) -> Result<Vec<Tag>, Failure> {
    let tag = encoding.decode(text, kind.tag_bytes()).ok_or(Failure::Malformed)?;
    Ok(vec![tag])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"body";

    fn claim(texts: &[&[u8]], signed: &[&'static [u8]], key: &[u8]) -> Claim<'static> {
        let of = |text: &&[u8]| {
            let written = write_mac(MacKind::HmacSha256, key, &[text], Encoding::Hex);
            Encoding::Hex.decode(written.as_bytes(), 32).unwrap()
        };
        Claim {
            tags: texts.iter().map(of).collect(),
            readings: signed.iter().map(|text| vec![Cow::Borrowed(*text)]).collect(),
        }
    }

    #[test]
    fn every_key_meets_every_reading_and_every_signature() {
        // During a rotation, a provider that is already at the new key would be refused.
        let keys = [ActiveKey::new(b"first"), ActiveKey::new(b"second")];
        type Texts = &'static [&'static [u8]];
        let rows: [(Texts, Texts, &[u8], Option<usize>); 6] = [
            (&[b"a"], &[b"a"], b"first", Some(0)),
            (&[b"a"], &[b"a"], b"second", Some(1)),
            (&[b"x", b"a"], &[b"b", b"a"], b"second", Some(1)),
            (&[b"x"], &[b"b", b"a"], b"second", None),
            (&[b"a"], &[b"a"], b"third", None),
            (&[], &[b"a"], b"first", None),
        ];
        for (texts, readings, key, expected) in rows {
            let verdict = Verdict::of(MacKind::HmacSha256, &keys, Ok(claim(texts, readings, key)), BODY);
            let found = verdict.unwrap().found(Strength::Verified, None);
            assert_eq!(found.matched, expected, "{texts:?} {readings:?}");
            assert_eq!(found.digests.len(), 2);
        }
        let none = Verdict::of(MacKind::HmacSha256, &keys, Err(Failure::Missing), BODY);
        assert_eq!(none.err(), Some(Failure::Missing));
    }

    #[test]
    fn two_claims_hold_under_one_key() {
        // Two events, each signed by another leaked key, would come in as one message.
        let keys = [ActiveKey::new(b"first"), ActiveKey::new(b"second")];
        let judge =
            |key: &[u8]| Verdict::of(MacKind::HmacSha256, &keys, Ok(claim(&[b"a"], &[b"a"], key)), BODY).unwrap();
        let matched = |a: &[u8], b: &[u8]| judge(a).and(judge(b)).found(Strength::Verified, None).matched;
        assert_eq!(matched(b"first", b"first"), Some(0));
        assert_eq!(matched(b"second", b"second"), Some(1));
        assert_eq!(matched(b"first", b"second"), None);
    }
}
