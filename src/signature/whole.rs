//! Schemes that are judged over a whole request: values from the body, groups with their own times, plain hashes, public
//! keys, tokens, native verifiers.
//!
//! Called by [`Check::finish`](super::Check::finish) alone. Every active key meets every presented signature; what could
//! not be read is reported after the body has been hashed all the same.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::algorithm::Class;
use super::compose::{Chunk, Composer};
use super::extract;
use super::jwt::{Jwt, TokenKey};
use super::mac::Tag;
use super::native::{ActiveKey, Found, Message, Native, NativeKey};
use super::pinned::PinnedUrl;
use super::proof::{Failure, Strength};
use super::recipe::Recipe;
use super::scheme::Plan;
use super::source::Reader;
use super::template::Template;
use super::timestamp::is_fresh;
use super::token::Bearer;
use super::verify::{Key, Material, Verifier};
use super::wanted::{FetchedKey, KeySource, Wanted};
use crate::clock::UnixMillis;

/// Longest signature with a public key, in bytes: that of an RSA key of 8192 bits.
const SIGNATURE_BYTES_MAX: usize = 1024;

/// Most groups of a signature, each of which is hashed under each key.
const GROUPS_MAX: usize = 4;

/// The id of a key that came with a request and leads to a root in this program.
const PINNED: &str = "pinned";

/// How far the whole request brings a check.
pub(super) enum Judged {
    /// A signature matched, under the key of this id.
    Found(Found, Arc<str>),
    /// The provider publishes the key.
    Pending(Pending),
}

/// A check that waits for a published key.
pub(super) enum Pending {
    Native(Wanted),
    Jwt(KeySource),
}

/// Judges a request, age aside.
pub(super) fn judge(verifier: &Verifier, message: &Message<'_>, now: UnixMillis) -> Result<Judged, Failure> {
    let required = extract::required(&verifier.scheme.require, message.headers);
    if !verifier.scheme.needs_secrets() {
        required?;
        return keyless(verifier, message, now);
    }
    let mut keys: Vec<&Key> = verifier.active(now).collect();
    let known = match keys.is_empty() {
        true => Some(Failure::UnknownKey),
        false => None,
    };
    if known.is_some() {
        keys.extend(verifier.keys.first());
    }
    let found = match &verifier.scheme.plan {
        Plan::Recipe(recipe) => judge_recipe(recipe, &verifier.template, message, &keys),
        Plan::Bearer(bearer) => judge_bearer(bearer, message, &keys),
        Plan::Jwt(jwt) => judge_jwt(jwt, message, &keys, now),
        Plan::Native(native) => judge_native(*native, message, &keys),
    };
    required?;
    let found = found?;
    if let Some(failure) = known {
        return Err(failure);
    }
    let key = found.matched.and_then(|at| keys.get(at)).ok_or(Failure::Mismatch)?;
    match verifier.fits_query(message.target) {
        true => Ok(Judged::Found(found, key.id.clone())),
        false => Err(Failure::Mismatch),
    }
}

/// Schemes of which the route has no key.
fn keyless(verifier: &Verifier, message: &Message<'_>, now: UnixMillis) -> Result<Judged, Failure> {
    match &verifier.scheme.plan {
        Plan::Native(native) if native.key() == NativeKey::Pinned => {
            let found = native.verify(message, &[])?;
            match found.matched {
                Some(_) => Ok(Judged::Found(found, PINNED.into())),
                None => Err(Failure::Mismatch),
            }
        }
        _ => pending(verifier, message, now).map(Judged::Pending),
    }
}

fn pending(verifier: &Verifier, message: &Message<'_>, now: UnixMillis) -> Result<Pending, Failure> {
    match &verifier.scheme.plan {
        Plan::Native(native) => {
            let wanted = native.wanted(message)?;
            // A forgery must not buy a fetch, so of these schemes age is judged first as well.
            if let (Some(signed), Some(tolerance)) = (wanted.timestamp, verifier.tolerance)
                && !is_fresh(signed, now, tolerance)
            {
                return Err(Failure::Stale);
            }
            Ok(Pending::Native(wanted))
        }
        Plan::Jwt(jwt) => {
            let kid = jwt.wanted(message, now)?.kid;
            let url = jwt.key_set_url(message.settings).ok_or(Failure::UnknownKey)?;
            let url = PinnedUrl::fixed(&url).map_err(|_| Failure::UnknownKey)?;
            Ok(Pending::Jwt(KeySource::key_set(url, kid)))
        }
        Plan::Recipe(_) | Plan::Bearer(_) => Err(Failure::UnknownKey),
    }
}

impl Pending {
    pub(super) fn source(&self) -> &KeySource {
        match self {
            Pending::Native(wanted) => &wanted.source,
            Pending::Jwt(source) => source,
        }
    }

    pub(super) fn confirmation(&self) -> Option<&PinnedUrl> {
        match self {
            Pending::Native(wanted) => wanted.confirmation.as_ref(),
            Pending::Jwt(_) => None,
        }
    }

    pub(super) fn judge(
        self,
        verifier: &Verifier,
        message: &Message<'_>,
        fetched: &FetchedKey,
        now: UnixMillis,
    ) -> Result<Found, Failure> {
        match (self, &verifier.scheme.plan) {
            (Pending::Native(wanted), _) => wanted.judge(fetched, now),
            (Pending::Jwt(_), Plan::Jwt(jwt)) => {
                let set = fetched.key_set().ok_or(Failure::UnknownKey)?;
                jwt.verify_fetched(message, set, now)
            }
            (Pending::Jwt(_), _) => Err(Failure::UnknownKey),
        }
    }
}

fn judge_bearer(bearer: &Bearer, message: &Message<'_>, keys: &[&Key]) -> Result<Found, Failure> {
    let digest = Sha256::digest(message.body).into();
    let presented = bearer.present(*message)?;
    let mut matched = None;
    for (at, key) in keys.iter().enumerate() {
        let Material::Token(token) = &key.material else {
            continue;
        };
        let all = presented
            .iter()
            .fold(Choice::from(1), |all, tag| all & tag.ct_eq(token));
        if bool::from(all) {
            matched = matched.or(Some(at));
        }
    }
    Ok(Found {
        matched,
        digests: vec![digest],
        signed_id: None,
        timestamp: None,
        strength: Strength::Authenticated,
    })
}

fn judge_jwt(jwt: &Jwt, message: &Message<'_>, keys: &[&Key], now: UnixMillis) -> Result<Found, Failure> {
    let keys = keys.iter().filter_map(|key| match &key.material {
        Material::Jwt(key) => Some(key),
        _ => None,
    });
    jwt.verify(message, &keys.collect::<Vec<&TokenKey>>(), now)
}

fn judge_native(native: Native, message: &Message<'_>, keys: &[&Key]) -> Result<Found, Failure> {
    let keys = keys.iter().filter_map(|key| match (&key.material, native.key()) {
        (Material::Shared(secret), NativeKey::Shared(_)) => Some(ActiveKey::new(secret)),
        (Material::Public(key), NativeKey::Public(..)) => Some(ActiveKey::public(key)),
        _ => None,
    });
    native.verify(message, &keys.collect::<Vec<_>>())
}

/// What one group of a signature says.
pub(super) struct Group<'m> {
    /// The group's own text, for other fields in it.
    pub(super) text: Cow<'m, [u8]>,
    pub(super) signatures: Vec<Vec<u8>>,
    /// The text of the time.
    pub(super) stamp: Vec<u8>,
    pub(super) time: Option<UnixMillis>,
}

fn judge_recipe(recipe: &Recipe, template: &Template, message: &Message<'_>, keys: &[&Key]) -> Result<Found, Failure> {
    let reader = Reader::new(*message, recipe.sources());
    let composer = Composer::new(recipe, template, message, &reader);
    let claims = composer.claims();
    let (claims, known) = match claims {
        Ok(claims) => (claims, None),
        Err(failure) => (vec![unreadable(message.body)], Some(failure)),
    };
    let mut found = Found {
        matched: None,
        digests: Vec::new(),
        signed_id: composer.id().ok().flatten(),
        timestamp: None,
        strength: match recipe.binds_body() {
            true => Strength::Verified,
            false => Strength::Authenticated,
        },
    };
    for (group, chunks) in &claims {
        let verdict = match recipe.class {
            Class::Public(_) => by_public_key(recipe, group, chunks, keys),
            _ => by_secret(recipe, group, chunks, keys),
        };
        if let Some(at) = verdict.matched {
            found.matched = Some(found.matched.map_or(at, |earlier| earlier.min(at)));
            found.timestamp = found.timestamp.max(group.time);
            found.digests.extend(verdict.digests);
        }
    }
    known.map_or(Ok(found), Err)
}

/// What stands in for a claim that could not be read: the whole body, and nothing that it could match.
fn unreadable(body: &[u8]) -> (Group<'_>, Vec<Chunk<'_>>) {
    let group = Group {
        text: Cow::Borrowed(b""),
        signatures: Vec::new(),
        stamp: Vec::new(),
        time: None,
    };
    (group, vec![Chunk::Bytes(Cow::Borrowed(body))])
}

struct Verdict {
    matched: Option<usize>,
    digests: Vec<[u8; 32]>,
}

/// A MAC or hash under every key, against every presented one.
fn by_secret(recipe: &Recipe, group: &Group<'_>, chunks: &[Chunk<'_>], keys: &[&Key]) -> Verdict {
    let presented: Vec<Tag> = group
        .signatures
        .iter()
        .filter_map(|bytes| Tag::from_slice(bytes))
        .collect();
    let mut verdict = Verdict {
        matched: None,
        digests: Vec::with_capacity(keys.len()),
    };
    for (at, key) in keys.iter().enumerate() {
        let Some(computed) = computed(recipe.class, &key.material, chunks) else {
            continue;
        };
        let any = presented
            .iter()
            .fold(Choice::from(0), |any, tag| any | tag.ct_eq(&computed));
        if bool::from(any) {
            verdict.matched = verdict.matched.or(Some(at));
        }
        verdict.digests.push(computed.digest());
    }
    verdict
}

/// The MAC or hash of a message; `None` when the key is for something else.
pub(super) fn computed(class: Class, material: &Material, chunks: &[Chunk<'_>]) -> Option<Tag> {
    match (class, material) {
        (Class::Mac(_), Material::Mac(mac)) => {
            let mut mac = mac.clone();
            chunks.iter().for_each(|chunk| mac.update(chunk.bytes(b"")));
            Some(mac.finish())
        }
        (Class::Hash(kind), Material::Shared(secret)) => {
            let length: usize = chunks.iter().map(|chunk| chunk.bytes(secret).len()).sum();
            // All at once, so that no copy of the secret is left behind by growing.
            let mut message = Zeroizing::new(Vec::with_capacity(length));
            chunks
                .iter()
                .for_each(|chunk| message.extend_from_slice(chunk.bytes(secret)));
            Some(kind.of(&message))
        }
        _ => None,
    }
}

fn by_public_key(recipe: &Recipe, group: &Group<'_>, chunks: &[Chunk<'_>], keys: &[&Key]) -> Verdict {
    let Class::Public(algorithm) = recipe.class else {
        return Verdict {
            matched: None,
            digests: Vec::new(),
        };
    };
    let message = joined(chunks);
    let right = |key: &Key| {
        let Material::Public(public) = &key.material else {
            return false;
        };
        let signed = |signature: &Vec<u8>| public.verify(algorithm, recipe.signature.ecdsa, &message, signature);
        group.signatures.iter().any(signed)
    };
    // Everything here is public, so the end of the search tells a forger nothing.
    Verdict {
        matched: keys.iter().position(|key| right(key)),
        digests: vec![Sha256::digest(&message).into()],
    }
}

/// A message in one piece; not a copy where it is one.
pub(super) fn joined<'c>(chunks: &'c [Chunk<'_>]) -> Cow<'c, [u8]> {
    match chunks {
        [one] => Cow::Borrowed(one.bytes(b"")),
        many => Cow::Owned(many.iter().flat_map(|chunk| chunk.bytes(b"")).copied().collect()),
    }
}

/// Decodes a presented signature; `None` when it is none.
pub(super) fn decoded(recipe: &Recipe, text: &[u8]) -> Option<Vec<u8>> {
    let bytes = |bytes: usize| {
        recipe
            .signature
            .encoding
            .decode(text, bytes)
            .map(|tag| tag.as_bytes().to_vec())
    };
    match recipe.class {
        Class::Mac(kind) => bytes(kind.tag_bytes()),
        Class::Hash(kind) => bytes(kind.tag_bytes()),
        Class::Public(_) => recipe.signature.encoding.decode_up_to(text, SIGNATURE_BYTES_MAX),
        Class::Token | Class::Basic => None,
    }
}

/// Checks the number of groups.
pub(super) fn few_groups<T>(groups: &[T]) -> Result<(), Failure> {
    match groups.len() {
        1..=GROUPS_MAX => Ok(()),
        _ => Err(Failure::Malformed),
    }
}
