//! Signing, as a provider would: for `hookward sign`, `hookward send`, tests, and re-signing for the backend.
//!
//! The same template as verification, so that the two cannot drift apart; what the verifier would refuse by its grammar
//! is not signed either. Values that the scheme signs and the draft lacks (a number used once in a header, a parameter
//! of the query) are made from the id.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::algorithm::Class;
use super::compose::{Chunk, Composer};
use super::extract::{read_id, read_timestamp};
use super::form;
use super::json::JsonPath;
use super::jwt;
use super::key::{self, KeyError};
use super::mac::Mac;
use super::native::{self, Message, NativeKey, PublicUrl, Settings};
use super::place::{Carrier, Spelling, StampPlace};
use super::pubkey::PrivateKey;
use super::recipe::Recipe;
use super::scheme::{Plan, Scheme};
use super::source::{Reader, Source};
use super::template::Rule;
use super::token::Bearer;
use super::verify::Material;
use super::whole::{computed, joined};
use crate::clock::UnixMillis;
use crate::secret::Secret;

/// A request that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The headers it has already.
    pub headers: &'a HeaderMap,
    /// The body, byte for byte.
    pub body: &'a [u8],
    /// The URL that the provider was given.
    pub public_url: Option<&'a PublicUrl>,
    /// What the scheme asks for by name.
    pub settings: &'a Settings,
    /// The id, for schemes that sign one.
    pub id: &'a str,
    /// The signed time.
    pub now: UnixMillis,
}

/// What signing makes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// Headers to add, or to put in place of those of the same name.
    pub headers: Vec<(HeaderName, String)>,
    /// The query to send in place of the draft's.
    pub query: Option<String>,
    /// The body to send in place of the draft's.
    pub body: Option<Vec<u8>>,
}

/// The headers of a signed POST: signature, timestamp and id, as far as the scheme has them.
///
/// `id` is used only by schemes that sign one. Short secrets are signed with: what is weak is for the verifier's
/// operator to judge.
///
/// # Errors
/// [`KeyError`] when the secret cannot be decoded, when the id or time cannot occur in this scheme, or when headers are
/// not enough: see [`sign_request`].
pub fn sign(
    scheme: &Scheme,
    secret: &Secret,
    id: &str,
    now: UnixMillis,
    body: &[u8],
) -> Result<Vec<(HeaderName, String)>, KeyError> {
    let draft = Draft {
        method: "POST",
        target: "/",
        headers: &HeaderMap::new(),
        body,
        public_url: None,
        settings: Settings::NONE,
        id,
        now,
    };
    match sign_request(scheme, secret, &draft)? {
        Signed {
            headers,
            query: None,
            body: None,
        } => Ok(headers),
        _ => Err(KeyError::Unsignable("this scheme changes the query or the body")),
    }
}

/// Signs a request. `secret` is the shared secret, or the private key (PEM) whose public half the verifier has.
///
/// # Errors
/// [`KeyError`] when the secret cannot be used, when the id, the time or a value of the request cannot occur in this
/// scheme, when the URL or a setting is missing, or when only the provider can sign.
pub fn sign_request(scheme: &Scheme, secret: &Secret, draft: &Draft<'_>) -> Result<Signed, KeyError> {
    let mut signed = match &scheme.plan {
        Plan::Recipe(recipe) => Signing::new(recipe, draft)?.sign(recipe, secret)?,
        Plan::Bearer(bearer) => present(bearer, secret, draft)?,
        Plan::Jwt(jwt) => {
            let unsigned = jwt::Unsigned {
                body: draft.body,
                id: draft.id,
                now: draft.now,
                settings: draft.settings,
                public_url: draft.public_url,
            };
            match jwt.sign(unsigned, &jwt.read_signer(secret)?)? {
                jwt::Signed::Header(name, value) => Signed {
                    headers: vec![(name, value)],
                    ..Signed::default()
                },
                jwt::Signed::Body(body) => Signed {
                    body: Some(body),
                    ..Signed::default()
                },
            }
        }
        Plan::Native(native) => {
            let unsigned = native::Unsigned {
                public_url: draft.public_url,
                settings: draft.settings,
                now: draft.now,
                id: draft.id,
                body: draft.body,
            };
            let native::Signed { headers, query, body } = match native.key() {
                NativeKey::Shared(form) => {
                    let key = key::decode(form, "signing", secret)?;
                    native.sign(&unsigned, native::SigningKey::Shared(&key))?
                }
                NativeKey::Public(..) => {
                    let refused = |why| KeyError::Public {
                        id: "signing".into(),
                        why,
                    };
                    let key = PrivateKey::parse(secret).map_err(refused)?;
                    native.sign(&unsigned, native::SigningKey::Private(&key))?
                }
                NativeKey::Published | NativeKey::Pinned => {
                    return Err(KeyError::Unsignable("only the provider has the key of this scheme"));
                }
            };
            Signed { headers, query, body }
        }
    };
    signed.headers.extend(scheme.require.iter().cloned());
    Ok(signed)
}

/// An id that the scheme can sign, made of `text`: letters and digits of which most schemes take any number.
pub fn fitting_id(scheme: &Scheme, text: &str) -> String {
    let rule = match &scheme.plan {
        Plan::Recipe(recipe) => recipe.id.as_ref().map(|(_, rule)| *rule),
        Plan::Bearer(_) | Plan::Jwt(_) | Plan::Native(_) => None,
    };
    match rule {
        Some(Rule::Width(bytes)) => text.chars().cycle().take(bytes).collect(),
        Some(Rule::Without(end)) => text.chars().filter(|letter| *letter != char::from(end)).collect(),
        Some(Rule::Free) | None => text.to_owned(),
    }
}

/// A draft on its way to a signed request.
struct Signing<'a> {
    draft: &'a Draft<'a>,
    signed: Signed,
    /// All headers, those of the draft included.
    headers: HeaderMap,
    /// Path and query.
    target: String,
    stamp: String,
}

impl<'a> Signing<'a> {
    /// Puts in everything that is signed.
    fn new(recipe: &Recipe, draft: &'a Draft<'a>) -> Result<Signing<'a>, KeyError> {
        let mut signing = Signing {
            draft,
            signed: Signed::default(),
            headers: draft.headers.clone(),
            target: draft.target.to_owned(),
            stamp: String::new(),
        };
        if let Some((name, rule)) = &recipe.id {
            if read_id(*rule, draft.id.as_bytes()).is_none() {
                return Err(KeyError::Unsignable(
                    "the id must be 1 to 512 visible ASCII characters of the scheme's length, without the delimiter \
                     behind it",
                ));
            }
            signing.put(&Source::Header(name.clone()), draft.id)?;
        }
        if let Some(stamp) = &recipe.timestamp {
            signing.stamp = stamp.unit.write(draft.now);
            if read_timestamp(stamp, signing.stamp.as_bytes()).is_none() {
                return Err(KeyError::Unsignable(
                    "the time has too few or too many digits for this scheme",
                ));
            }
            if let StampPlace::At(source) = &stamp.place {
                signing.put(source, &signing.stamp.clone())?;
            }
        }
        for source in recipe.template.sources() {
            if (source.is_of_query() || matches!(source, Source::Header(_))) && !signing.has(source) {
                signing.put(source, draft.id)?;
            }
        }
        Ok(signing)
    }

    fn body(&self) -> &[u8] {
        self.signed.body.as_deref().unwrap_or(self.draft.body)
    }

    fn message(&self) -> Message<'_> {
        Message {
            method: self.draft.method,
            target: &self.target,
            headers: &self.headers,
            body: self.body(),
            public_url: self.draft.public_url,
            settings: self.draft.settings,
        }
    }

    fn has(&self, source: &Source) -> bool {
        let reader = Reader::new(self.message(), std::iter::once(source));
        matches!(reader.look_up(source), Ok(Some(_)))
    }

    /// Puts a value where the verifier will look for it.
    fn put(&mut self, source: &Source, value: &str) -> Result<(), KeyError> {
        match source {
            Source::Header(name) => {
                let typed = HeaderValue::try_from(value);
                let typed = typed.map_err(|_| KeyError::Unsignable("a value cannot be a header"))?;
                self.headers.insert(name.clone(), typed);
                self.signed.headers.push((name.clone(), value.to_owned()));
            }
            Source::Query(name) | Source::QueryLower(name) => {
                let join = if self.target.contains('?') { '&' } else { '?' };
                let pair = format!("{}={}", form::escape(name.as_bytes()), form::escape(value.as_bytes()));
                self.target = format!("{}{join}{pair}", self.target);
                self.signed.query = self.target.split_once('?').map(|(_, query)| query.to_owned());
            }
            Source::Form(name) => {
                let mut body = self.body().to_vec();
                if !body.is_empty() {
                    body.push(b'&');
                }
                let pair = format!("{}={}", form::escape(name.as_bytes()), form::escape(value.as_bytes()));
                body.extend_from_slice(pair.as_bytes());
                self.signed.body = Some(body);
            }
            Source::Json(path) => self.signed.body = Some(with_member(self.body(), path, value)?),
            // Written with the signature.
            Source::Field(_) => {}
        }
        Ok(())
    }

    fn sign(mut self, recipe: &Recipe, secret: &Secret) -> Result<Signed, KeyError> {
        let template = recipe.template.fixed(self.draft.public_url, self.draft.settings);
        let template =
            template.map_err(|_| KeyError::Unsignable("the scheme signs a URL or a setting that is missing"))?;
        let before = self.before_signature(recipe);
        let signature = {
            let message = self.message();
            let reader = Reader::new(message, recipe.sources());
            let composer = Composer::new(recipe, &template, &message, &reader);
            let chunks = composer.chunks(before.as_bytes(), self.stamp.as_bytes());
            let unfit = |_| KeyError::Unsignable("the request lacks a value that the scheme signs, or has a bad one");
            sign_chunks(recipe, secret, &chunks.map_err(unfit)?)?
        };
        let text = before + &recipe.signature.encoding.encode(&signature);
        let place = match &recipe.signature.carrier {
            Carrier::One(source) => source.clone(),
            Carrier::Any(names) => {
                let first = names
                    .first()
                    .ok_or(KeyError::Unsignable("no header carries the signature"))?;
                Source::Header(first.clone())
            }
        };
        self.put(&place, &text)?;
        Ok(self.signed)
    }

    /// What precedes the signature in its place.
    fn before_signature(&self, recipe: &Recipe) -> String {
        let stamp = recipe.timestamp.as_ref();
        match &recipe.signature.spelling {
            Spelling::Plain { prefix } => prefix.clone(),
            Spelling::List { .. } => String::new(),
            Spelling::Positional { separator } => match stamp.map(|stamp| &stamp.place) {
                Some(StampPlace::First) => format!("{}{}", self.stamp, char::from(*separator)),
                _ => format!("0{}", char::from(*separator)),
            },
            Spelling::Kv {
                separator,
                assign,
                fields,
                ..
            } => {
                let (assign, separator) = (char::from(*assign), char::from(*separator));
                let mut text = String::new();
                if let Some(field) = stamp.and_then(|stamp| stamp.field()) {
                    text.push_str(&format!("{field}{assign}{}{separator}", self.stamp));
                }
                for source in recipe.template.sources() {
                    if let Source::Field(name) = source {
                        text.push_str(&format!("{name}{assign}{}{separator}", self.draft.id));
                    }
                }
                text.push_str(fields.first().map_or("", String::as_str));
                text.push(assign);
                text
            }
        }
    }
}

fn sign_chunks(recipe: &Recipe, secret: &Secret, chunks: &[Chunk<'_>]) -> Result<Vec<u8>, KeyError> {
    let material = match recipe.class {
        Class::Public(algorithm) => {
            let refused = |why| KeyError::Public {
                id: "signing".to_owned(),
                why,
            };
            let key = PrivateKey::parse(secret).map_err(refused)?;
            return key
                .sign(algorithm, recipe.signature.ecdsa, &joined(chunks))
                .map_err(refused);
        }
        Class::Mac(kind) => Material::Mac(Mac::keyed(kind, &key::decode(recipe.key, "signing", secret)?)),
        Class::Hash(_) | Class::Token | Class::Basic => Material::Shared(key::decode(recipe.key, "signing", secret)?),
    };
    let tag = computed(recipe.class, &material, chunks);
    let tag = tag.ok_or(KeyError::Unsignable("the algorithm signs nothing"))?;
    Ok(tag.as_bytes().to_vec())
}

/// Presents the secret itself.
fn present(bearer: &Bearer, secret: &Secret, draft: &Draft<'_>) -> Result<Signed, KeyError> {
    let no_text = KeyError::Unsignable("the token is no text");
    let text = std::str::from_utf8(secret.expose()).map_err(|_| no_text)?;
    let value = bearer.written(text);
    let mut signing = Signing {
        draft,
        signed: Signed::default(),
        headers: draft.headers.clone(),
        target: draft.target.to_owned(),
        stamp: String::new(),
    };
    match bearer {
        Bearer::Token { source, .. } => signing.put(source, &value)?,
        Bearer::Basic => signing.put(&Source::Header(http::header::AUTHORIZATION), &value)?,
        Bearer::Items(path) => {
            let mut body: Value = serde_json::from_slice(draft.body).map_err(|_| no_json())?;
            put_in_items(&mut body, path, &value)?;
            signing.signed.body = Some(body.to_string().into_bytes());
        }
    }
    Ok(signing.signed)
}

/// The JSON body with a member set.
fn with_member(body: &[u8], path: &JsonPath, value: &str) -> Result<Vec<u8>, KeyError> {
    let mut document: Value = serde_json::from_slice(body).map_err(|_| no_json())?;
    *member(&mut document, path)? = Value::from(value);
    Ok(document.to_string().into_bytes())
}

fn put_in_items(document: &mut Value, steps: &[JsonPath], value: &str) -> Result<(), KeyError> {
    let Some((first, rest)) = steps.split_first() else {
        return Ok(());
    };
    let found = member(document, first)?;
    if rest.is_empty() {
        *found = Value::from(value);
        return Ok(());
    }
    let items = found.as_array_mut().ok_or_else(no_json)?;
    items.iter_mut().try_for_each(|item| put_in_items(item, rest, value))
}

/// The member at a path, made where it is not there.
fn member<'v>(document: &'v mut Value, path: &JsonPath) -> Result<&'v mut Value, KeyError> {
    path.names().iter().try_fold(document, |value, name| {
        if value.is_null() {
            *value = Value::Object(serde_json::Map::new());
        }
        let object = value.as_object_mut().ok_or_else(no_json)?;
        Ok(object.entry(name).or_insert(Value::Null))
    })
}

fn no_json() -> KeyError {
    KeyError::Unsignable("the body is not the JSON that this scheme puts a value into")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::testing::{GITHUB, STANDARD_WEBHOOKS, STRIPE, scheme as built};

    fn signed(yaml: &str, secret: &str, id: &str, now: u64, body: &[u8]) -> Result<Vec<(String, String)>, KeyError> {
        let headers = sign(&built(yaml), &Secret::new(secret).unwrap(), id, UnixMillis(now), body)?;
        Ok(headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect())
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn published_signatures_come_out() {
        // A signer and a verifier that are wrong in the same way would pass every other test.
        let github = signed(GITHUB, "It's a Secret to Everybody", "", 0, b"Hello, World!").unwrap();
        let digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(github, pairs([("x-hub-signature-256", digest)]));

        let body = b"{\"id\":\"evt_test_webhook\",\"object\":\"event\"}";
        let stripe = signed(STRIPE, "whsec_test_secret", "", 1_700_000_000_999, body).unwrap();
        let digest = "t=1700000000,v1=d95c6b7477fbd7e9f90b1b0ef5f9c7ac25abca5382460e0d988c2b2a5b71b990";
        assert_eq!(stripe, pairs([("stripe-signature", digest)]));

        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = b"{\"test\": 2432232314}";
        let standard = signed(STANDARD_WEBHOOKS, secret, id, 1_614_265_330_000, body).unwrap();
        let expected = [
            ("webhook-id", id),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        assert_eq!(standard, pairs(expected));
    }

    #[test]
    fn what_would_be_refused_is_not_signed() {
        // A request re-signed for the backend would be refused there.
        let long = "x".repeat(513);
        for id in ["", "a.b", "a b", "caf\u{e9}", "a\n", long.as_str()] {
            let result = signed(STANDARD_WEBHOOKS, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id, 0, b"");
            assert!(matches!(result, Err(KeyError::Unsignable(_))), "{id:?}");
        }
        let unfenced = STRIPE.replace("{timestamp}.{body}", "{timestamp}{body}");
        let early = signed(&unfenced, "secret", "", 999_999_999_000, b"");
        assert!(matches!(early, Err(KeyError::Unsignable(_))));
        assert!(signed(&unfenced, "secret", "", 1_000_000_000_000, b"").is_ok());
        let undecodable = signed(STANDARD_WEBHOOKS, "whsec_???", "a", 0, b"");
        assert!(matches!(undecodable, Err(KeyError::Undecodable { .. })));
    }
}
