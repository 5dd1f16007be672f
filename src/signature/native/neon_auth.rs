//! Neon Auth: a detached token over the time and the body, each in base64url, the one inside the other.
//!
//! What is signed is `header.base64url(time.base64url(body))`. Nothing else of the request is covered: the event's id and
//! type are signed in the body, and their headers are labels. The key is in the set that the project's own auth URL
//! publishes; the operator says that URL (setting `auth_url`), so that the name of a key in a header picks among the
//! project's keys and nowhere else.
//!
//! <https://neon.com/docs/auth/guides/webhooks>

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderName;

use super::super::encoding::to_jose;
use super::super::extract::field_value;
use super::super::jwt::Token;
use super::super::pinned::PinnedUrl;
use super::super::proof::{Failure, Strength};
use super::super::pubkey::SignatureAlgorithm;
use super::super::timestamp::Unit;
use super::super::wanted::{KeySource, Wanted};
use super::kind::{Facts, NativeKey};
use super::{Message, Settings};

/// Neon stamps every attempt, and makes three within seconds.
pub(in super::super) const TOLERANCE: Duration = Duration::from_secs(300);

/// What is known of it before any request.
pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Published,
    strength_min: Strength::Verified,
    tolerance: Some(TOLERANCE),
    uses_public_url: false,
    settings: &[AUTH_URL],
    headers: || HEADERS.to_vec(),
};

/// The setting with the project's auth URL: `https://ep-x.neonauth.us-east-2.aws.neon.tech/neondb/auth`.
pub(in super::super) const AUTH_URL: &str = "auth_url";

const SIGNATURE: HeaderName = HeaderName::from_static("x-neon-signature");
const KEY: HeaderName = HeaderName::from_static("x-neon-signature-kid");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-neon-timestamp");

/// The headers it reads.
pub(in super::super) const HEADERS: [HeaderName; 3] = [SIGNATURE, KEY, TIMESTAMP];

/// Checks the setting `auth_url` once, where a route is built.
///
/// # Errors
/// What is wrong with it.
pub(in super::super) fn check(settings: &Settings) -> Result<(), &'static str> {
    key_set(settings).map(drop)
}

fn key_set(settings: &Settings) -> Result<PinnedUrl, &'static str> {
    let base = settings.find(AUTH_URL).ok_or("is missing")?;
    let base = base.strip_suffix('/').unwrap_or(base);
    PinnedUrl::fixed(&format!("{base}/.well-known/jwks.json"))
}

/// Everything but the signature itself.
///
/// # Errors
/// [`Failure::Missing`] without one of the headers, [`Failure::Malformed`] when one cannot be read or the token names
/// another algorithm or key than it must.
pub(in super::super) fn read(message: &Message<'_>) -> Result<Wanted, Failure> {
    let token = Token::parse(Cow::Borrowed(field_value(message.headers, &SIGNATURE)?), true)?;
    let kid = std::str::from_utf8(field_value(message.headers, &KEY)?).map_err(|_| Failure::Malformed)?;
    let time = field_value(message.headers, &TIMESTAMP)?;
    let timestamp = Unit::Millis.parse(time).ok_or(Failure::Malformed)?;
    let named = token.kid().is_none_or(|named| named == kid);
    if token.alg() != "EdDSA" || !named {
        return Err(Failure::Malformed);
    }
    let content = [time, b".", to_jose(message.body).as_bytes()].concat();
    let url = key_set(message.settings).map_err(|_| Failure::UnknownKey)?;
    Ok(Wanted {
        source: KeySource::key_set(url, Some(kid.to_owned())),
        algorithm: SignatureAlgorithm::Ed25519,
        signed: token.signed_bytes(&content).into_owned(),
        signature: token.signature().to_vec(),
        signed_id: None,
        timestamp: Some(timestamp),
        strength: Strength::Verified,
        confirmation: None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::secret::Secret;

    /// Made with the Python package cryptography from the provider's description.
    const TOKEN: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXUyIsImtpZCI6ImVkLTEifQ..Mmy9b-Et11tlNJhmnVNo_9bXGj5Pbt3LeosEHyOoh2n0LSMi5kzsMjy1zWmHkPeqmNspF8Dt7XODGwgXtmBICQ";
    const BODY: &[u8] = br#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","event_type":"user.created"}"#;
    const KEYS: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"ed-1","x":"0aHBJL0Rc26q8Epp9Sq6Y7AH0WUEL2zJV-qh0GRJCb0"}]}"#;

    fn judged(change: impl Fn(&mut HeaderMap), body: &[u8]) -> Result<(), Failure> {
        let mut settings = Settings::default();
        let url = Secret::new("https://ep-x.neonauth.example.tech/neondb/auth").unwrap();
        settings.insert(AUTH_URL, url).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in HEADERS.into_iter().zip([TOKEN, "ed-1", "1700000000000"]) {
            headers.insert(name, value.parse().unwrap());
        }
        change(&mut headers);
        let wanted = read(&Message {
            method: "POST",
            target: "/",
            headers: &headers,
            body,
            public_url: None,
            settings: &settings,
        })?;
        let url = "https://ep-x.neonauth.example.tech/neondb/auth/.well-known/jwks.json";
        assert_eq!(wanted.source.url(), &PinnedUrl::fixed(url).unwrap());
        assert_eq!(wanted.timestamp, Some(UnixMillis(1_700_000_000_000)));
        let fetched = wanted.source.read(KEYS.as_bytes()).unwrap();
        wanted.judge(&fetched, UnixMillis(1_700_000_000_000)).map(drop)
    }

    #[test]
    fn time_and_body_are_bound() {
        // A signed time that can be moved is a captured event that stays fresh for ever.
        let set = |name: HeaderName, value: &'static str| {
            move |headers: &mut HeaderMap| drop(headers.insert(name.clone(), value.parse().unwrap()))
        };
        assert_eq!(judged(|_| {}, BODY), Ok(()));
        for at in 0..BODY.len() {
            let mut other = BODY.to_vec();
            other[at] ^= 1;
            assert_eq!(judged(|_| {}, &other), Err(Failure::Mismatch), "{at}");
        }
        assert_eq!(judged(set(KEY, "ed-2"), BODY), Err(Failure::Malformed));
        assert_eq!(judged(set(TIMESTAMP, "1.7e12"), BODY), Err(Failure::Malformed));
        for gone in HEADERS {
            let drop_it = |headers: &mut HeaderMap| drop(headers.remove(&gone));
            assert_eq!(judged(drop_it, BODY), Err(Failure::Missing));
        }
    }

    #[test]
    fn a_key_set_is_fetched_from_the_project_alone() {
        // Whoever may say where the keys are may sign.
        let with = |url: &str| {
            let mut settings = Settings::default();
            settings.insert(AUTH_URL, Secret::new(url).unwrap()).unwrap();
            check(&settings).is_ok()
        };
        assert!(with("https://a.example/b/auth") && with("https://a.example/b/auth/"));
        assert!(!with("http://a.example/b/auth") && !with("https://127.0.0.1/auth") && !with("a.example"));
        assert!(check(Settings::NONE).is_err());
    }
}
