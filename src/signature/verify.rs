//! A scheme with the keys of one route, ready for requests.
//!
//! Made at start and on reload. Keys are decoded and MACs keyed once; the route's URL and settings become a part of the
//! message's template, so that a request pays for none of it. What is missing, short, twice or of another kind stops
//! the start with the name of the secret and nothing of its content.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use zeroize::Zeroizing;

use super::algorithm::Class;
use super::check::Check;
use super::file::KeyForm;
use super::jwt::TokenKey;
use super::key::{self, KeyError, KeyedSecret};
use super::mac::{Mac, Tag};
use super::native::{NativeKey, PublicUrl, Settings};
use super::place::check_tolerance;
use super::proof::Strength;
use super::pubkey::{PublicKey, PublicKeyForm, SignatureAlgorithm};
use super::recipe::Recipe;
use super::scheme::{Plan, Scheme};
use super::template::{Config, Template};
use super::token::{Bearer, hashed};
use crate::clock::UnixMillis;
use crate::secret::Secret;

/// The head of a request, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, nothing decoded.
    pub target: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What a route may say beyond its scheme.
#[derive(Clone, Debug, Default)]
pub struct VerifierOptions {
    /// Replaces the scheme's tolerance; between one second and two days.
    pub tolerance: Option<Duration>,
    /// Allows keys of fewer than [`SECRET_BYTES_MIN`](crate::secret::SECRET_BYTES_MIN) bytes.
    pub allow_short: bool,
    /// The URL under which the provider reaches the route; needed by schemes that sign it.
    pub public_url: Option<PublicUrl>,
    /// What the scheme asks for by name.
    pub settings: Settings,
}

/// A scheme with the secrets of one route.
pub struct Verifier {
    pub(super) scheme: Arc<Scheme>,
    pub(super) keys: Vec<Key>,
    pub(super) tolerance: Option<Duration>,
    pub(super) public_url: Option<PublicUrl>,
    pub(super) settings: Settings,
    /// The message's template with the route's own values in it; empty for schemes without one.
    pub(super) template: Template,
    /// Whether the URL is signed with its query.
    signs_query: bool,
    /// What the scheme's signature proves.
    pub(super) strength: Strength,
    /// The length of the MAC, when it can be computed while the body arrives.
    pub(super) streamed_tag_bytes: Option<usize>,
}

/// One of the route's keys.
pub(super) struct Key {
    pub(super) id: Arc<str>,
    pub(super) until: Option<UnixMillis>,
    pub(super) material: Material,
}

/// What a key is, as its scheme uses it.
#[expect(
    clippy::large_enum_variant,
    reason = "a few per route; the largest is the one that most requests use"
)]
pub(super) enum Material {
    Mac(Mac),
    Shared(Zeroizing<Vec<u8>>),
    /// Hashed.
    Token(Tag),
    Public(PublicKey),
    Jwt(TokenKey),
}

impl Verifier {
    /// Decodes and checks the secrets. Their order decides only which id is reported when several match. Schemes whose
    /// keys the provider publishes have none.
    ///
    /// # Errors
    /// [`KeyError`] when there is no secret, when one is empty, short, undecodable or there twice, when the tolerance
    /// does not fit the scheme, or when the scheme needs a URL or a setting that is not there.
    pub fn new(scheme: Arc<Scheme>, secrets: Vec<KeyedSecret>, options: VerifierOptions) -> Result<Verifier, KeyError> {
        match (secrets.is_empty(), scheme.needs_secrets()) {
            (true, true) => return Err(KeyError::NoSecret),
            (false, false) => return Err(KeyError::NoneNeeded),
            _ => {}
        }
        let tolerance = match (options.tolerance, scheme.signs_time()) {
            (Some(_), false) => return Err(KeyError::Tolerance("has no meaning: the scheme signs no time")),
            (Some(tolerance), true) => Some(check_tolerance(tolerance).map_err(KeyError::Tolerance)?),
            (None, _) => scheme.tolerance(),
        };
        let template = fixed_template(&scheme, &options)?;
        let keys = read_keys(&scheme, secrets, options.allow_short)?;
        let (streamed_tag_bytes, signs_query) = match &scheme.plan {
            Plan::Recipe(recipe) => (streamed(recipe, &template), recipe.signs_query()),
            _ => (None, false),
        };
        let strength = scheme.strength();
        Ok(Verifier {
            scheme,
            keys,
            tolerance,
            public_url: options.public_url,
            settings: options.settings,
            template,
            signs_query,
            strength,
            streamed_tag_bytes,
        })
    }

    /// The scheme it verifies.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The ids of the secrets, in configuration order.
    pub fn key_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.keys.iter().map(|key| &key.id)
    }

    /// Starts the check of one request. `now` decides which secrets are active and, at the end, about age.
    ///
    /// Does not fail: what the head lacks is reported by [`Check::finish`], after the same work.
    pub fn begin(&self, head: Head<'_>, now: UnixMillis) -> Check<'_> {
        Check::begin(self, head, now)
    }

    /// The MAC of `message` under the first active secret, for a handshake that asks for one; `None` when the scheme has
    /// no MAC. It is what a signature is made of: the caller makes sure that no `message` of a stranger's choice is one
    /// that the scheme signs.
    pub(crate) fn mac(&self, message: &[u8], now: UnixMillis) -> Option<Vec<u8>> {
        let Material::Mac(mac) = &self.active(now).next()?.material else {
            return None;
        };
        let mut mac = mac.clone();
        mac.update(message);
        Some(mac.finish().as_bytes().to_vec())
    }

    /// The answer to a challenge that the provider's own scheme has, under the first active secret.
    pub(crate) fn challenge(&self, challenge: &str, now: UnixMillis) -> Option<String> {
        match (&self.scheme.plan, &self.active(now).next()?.material) {
            (Plan::Native(native), Material::Shared(key)) => native.answer(&self.settings, key, challenge),
            _ => None,
        }
    }

    /// The URL under which the provider reaches the route.
    pub(crate) fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }

    /// What the route says by name.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn active(&self, now: UnixMillis) -> impl Iterator<Item = &Key> {
        self.keys
            .iter()
            .filter(move |key| key.until.is_none_or(|until| now < until))
    }

    /// Whether the query of a request is the one of the URL that is signed in its place.
    pub(super) fn fits_query(&self, target: &str) -> bool {
        let query = || target.split_once('?').map_or("", |(_, query)| query);
        !self.signs_query || self.public_url.as_ref().is_some_and(|url| url.query() == query())
    }
}

impl fmt::Debug for Verifier {
    /// The ids of the secrets, nothing of the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("scheme", &self.scheme.name())
            .field("key_ids", &self.keys.iter().map(|key| &key.id).collect::<Vec<_>>())
            .field("tolerance", &self.tolerance)
            .finish_non_exhaustive()
    }
}

/// The length of a MAC that needs nothing but headers before the body and nothing of the body but itself.
fn streamed(recipe: &Recipe, template: &Template) -> Option<usize> {
    let Class::Mac(kind) = recipe.class else {
        return None;
    };
    (template.can_stream() && recipe.is_in_headers() && !recipe.signature.is_grouped()).then(|| kind.tag_bytes())
}

fn fixed_template(scheme: &Scheme, options: &VerifierOptions) -> Result<Template, KeyError> {
    if scheme.needs_public_url() && options.public_url.is_none() {
        return Err(KeyError::PublicUrl);
    }
    let missing = |name: &str| KeyError::Setting {
        name: name.to_owned(),
        why: "is missing",
    };
    for name in scheme.settings() {
        options.settings.find(name).ok_or_else(|| missing(name))?;
    }
    match &scheme.plan {
        Plan::Recipe(recipe) => {
            let template = recipe.template.fixed(options.public_url.as_ref(), &options.settings);
            template.map_err(|config| match config {
                Config::Setting(name) => missing(&name),
                Config::Url | Config::UrlBase | Config::Path => KeyError::PublicUrl,
            })
        }
        Plan::Native(native) => match native.check(&options.settings) {
            Ok(()) => Ok(Template::default()),
            Err((name, why)) => Err(KeyError::Setting {
                name: name.to_owned(),
                why,
            }),
        },
        Plan::Bearer(_) | Plan::Jwt(_) => Ok(Template::default()),
    }
}

fn read_keys(scheme: &Scheme, secrets: Vec<KeyedSecret>, allow_short: bool) -> Result<Vec<Key>, KeyError> {
    let mut known: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(secrets.len());
    let mut keys: Vec<Key> = Vec::with_capacity(secrets.len());
    for KeyedSecret { id, secret, until } in secrets {
        if keys.iter().any(|other| other.id == id) {
            return Err(KeyError::DuplicateId { id: id.to_string() });
        }
        let (material, bytes) = read_key(scheme, &id, &secret)?;
        if !allow_short && !matches!(material, Material::Public(_)) {
            key::check_length(&id, &bytes)?;
        }
        if let Some(at) = known.iter().position(|other| *other == bytes) {
            let first = keys.get(at).map(|other| other.id.to_string()).unwrap_or_default();
            let second = id.to_string();
            return Err(KeyError::SameKey { first, second });
        }
        known.push(bytes);
        keys.push(Key { id, until, material });
    }
    Ok(keys)
}

/// A key as its scheme uses it, and the bytes by which two are told apart.
fn read_key(scheme: &Scheme, id: &str, secret: &Secret) -> Result<(Material, Zeroizing<Vec<u8>>), KeyError> {
    let text = || Zeroizing::new(secret.expose().to_vec());
    match &scheme.plan {
        Plan::Recipe(recipe) => match recipe.class {
            Class::Mac(kind) => {
                let bytes = key::decode(recipe.key, id, secret)?;
                Ok((Material::Mac(Mac::keyed(kind, &bytes)), bytes))
            }
            Class::Public(algorithm) => {
                let key = read_public_key(public_form(recipe.key), algorithm, id, secret)?;
                Ok((Material::Public(key), text()))
            }
            Class::Hash(_) | Class::Token | Class::Basic => {
                let bytes = key::decode(recipe.key, id, secret)?;
                Ok((Material::Shared(bytes.clone()), bytes))
            }
        },
        Plan::Bearer(bearer) => {
            if *bearer == Bearer::Basic && !secret.expose().contains(&b':') {
                return Err(KeyError::NotBasic { id: id.into() });
            }
            Ok((Material::Token(hashed(secret.expose())), text()))
        }
        Plan::Jwt(jwt) => jwt.read_key(id, secret).map(|key| (Material::Jwt(key), text())),
        Plan::Native(native) => match native.key() {
            NativeKey::Shared(form) => {
                let bytes = key::decode(form, id, secret)?;
                Ok((Material::Shared(bytes.clone()), bytes))
            }
            NativeKey::Public(form, algorithm) => {
                let key = read_public_key(form, algorithm, id, secret)?;
                Ok((Material::Public(key), text()))
            }
            NativeKey::Published | NativeKey::Pinned => Err(KeyError::NoneNeeded),
        },
    }
}

fn read_public_key(
    form: PublicKeyForm,
    algorithm: SignatureAlgorithm,
    id: &str,
    secret: &Secret,
) -> Result<PublicKey, KeyError> {
    let key = PublicKey::parse(form, secret.expose());
    let fitting = key.and_then(|key| key.check(algorithm).map(|()| key));
    fitting.map_err(|why| KeyError::Public { id: id.into(), why })
}

/// The same form, as public keys call it.
pub(super) fn public_form(form: KeyForm) -> PublicKeyForm {
    match form {
        KeyForm::Hex => PublicKeyForm::Hex,
        KeyForm::Base64 => PublicKeyForm::Base64,
        KeyForm::Base64url => PublicKeyForm::Base64url,
        KeyForm::Jwk => PublicKeyForm::Jwk,
        // The others are refused when the scheme is built.
        KeyForm::Pem | KeyForm::Utf8 | KeyForm::Whsec => PublicKeyForm::Pem,
    }
}

#[cfg(test)]
mod tests;
