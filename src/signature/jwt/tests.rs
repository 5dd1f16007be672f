use std::collections::BTreeMap;

use http::HeaderMap;
use serde::Deserialize;

use super::*;
use crate::signature::native::PublicUrl;

impl Jwt {
    /// Whether a token, which may hold anything, is signed by `key` under this scheme. No claims are judged.
    pub(in crate::signature) fn is_signed_by(&self, text: &str, key: &TokenKey) -> bool {
        let detached = text.split('.').nth(1).is_some_and(str::is_empty);
        let Ok(token) = Token::parse(Cow::Borrowed(text.as_bytes()), detached) else {
            return false;
        };
        let signed = token.signed_bytes(b"");
        token.alg() == self.algorithm.jose_name()
            && key.may_have_signed(&token)
            && match key {
                TokenKey::Mac(mac) => token.is_maced(mac, &signed, &mut Vec::new()),
                TokenKey::Public(public) => self.is_signed(&token, public, &signed),
            }
    }
}

/// What became of a request, in a word: a strength or a failure.
fn outcome(found: Result<Found, Failure>) -> (&'static str, Option<String>) {
    match found {
        Ok(found) if found.matched.is_none() => (Failure::Mismatch.as_str(), None),
        Ok(found) => (found.strength.as_str(), found.signed_id),
        Err(failure) => (failure.as_str(), None),
    }
}

#[derive(Deserialize)]
struct Row {
    name: String,
    scheme: String,
    secret: Option<String>,
    jwks: Option<serde_json::Value>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    url: Option<String>,
    headers: BTreeMap<String, String>,
    body: String,
    now: u64,
    expect: String,
    id: Option<String>,
}

impl Row {
    fn scheme(&self) -> Jwt {
        Jwt::build(&serde_yaml::from_str(&self.scheme).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in &self.settings {
            settings.insert(name, Secret::new(value.as_str()).unwrap()).unwrap();
        }
        settings
    }

    fn key(&self) -> Option<TokenKey> {
        let secret = Secret::new(self.secret.as_deref()?).unwrap();
        let key = self.scheme().read_key("test", &secret);
        Some(key.unwrap_or_else(|e| panic!("{}: {e}", self.name)))
    }

    /// Judges the request with another body or header, or as it is; age as the caller of the scheme does.
    fn judge(&self, body: &[u8], headers: &HeaderMap) -> (&'static str, Option<String>) {
        let (scheme, settings, now) = (self.scheme(), self.settings(), UnixMillis::from_seconds(self.now));
        let url = self.url.as_deref().map(|url| PublicUrl::parse(url).unwrap());
        let message = Message {
            method: "POST",
            target: url.as_ref().map_or("/", PublicUrl::path_and_query),
            headers,
            body,
            public_url: url.as_ref(),
            settings: &settings,
        };
        let found = match (self.key(), &self.jwks) {
            (Some(key), _) => scheme.verify(&message, &[&key], now),
            (None, Some(set)) => {
                let set = KeySet::parse(set.to_string().as_bytes()).unwrap();
                scheme
                    .wanted(&message, now)
                    .and_then(|_| scheme.verify_fetched(&message, &set, now))
            }
            (None, None) => panic!("{}: no key", self.name),
        };
        let stale = |found: &Found| {
            let old = |at: UnixMillis| scheme.age().is_some_and(|age| !is_fresh(at, now, age));
            found.matched.is_some() && found.timestamp.is_some_and(old)
        };
        match found {
            Ok(found) if stale(&found) => (Failure::Stale.as_str(), None),
            other => outcome(other),
        }
    }

    fn headers(&self) -> HeaderMap {
        let pair = |(name, value): (&String, &String)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self.headers.iter().map(pair).collect()
    }
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tokens.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn tokens_of_providers_prove_what_they_should() {
    // A token that is refused loses a provider's events; one that is accepted wrongly is a forgery.
    let mut wrong = Vec::new();
    for row in rows() {
        let (told, id) = row.judge(row.body.as_bytes(), &row.headers());
        if told != row.expect || (row.id.is_some() && id != row.id) {
            wrong.push(format!("{}: {told} {id:?}, not {}", row.name, row.expect));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_changed_byte_of_a_verified_body_passes() {
    // `verified` is a promise about every byte.
    let mut bodies = 0;
    for row in rows().iter().filter(|row| row.expect == "verified") {
        for at in 0..row.body.len() {
            let mut body = row.body.clone().into_bytes();
            body[at] ^= 1;
            let (told, _) = row.judge(&body, &row.headers());
            assert_ne!(told, "verified", "{} with another byte at {at}", row.name);
        }
        bodies += 1;
    }
    assert!(bodies >= 10, "{bodies}");
}

#[test]
fn no_changed_character_of_a_token_passes() {
    // A second spelling of a token is a second replay key, and a skipped character is a place to play in.
    let mut tokens = 0;
    for row in rows()
        .iter()
        .filter(|row| matches!(row.expect.as_str(), "verified" | "authenticated"))
    {
        let Some((name, value)) = row.headers.iter().next() else {
            continue;
        };
        for at in 0..value.len() {
            for other in [b'A', b'-', b'=', b'.', b'_'] {
                let mut changed = value.clone().into_bytes();
                if std::mem::replace(&mut changed[at], other) == other {
                    continue;
                }
                let headers = [(name.parse::<HeaderName>().unwrap(), changed[..].try_into().unwrap())];
                let (told, _) = row.judge(row.body.as_bytes(), &headers.into_iter().collect());
                assert!(
                    !matches!(told, "verified" | "authenticated"),
                    "{} {at} {}",
                    row.name,
                    other as char
                );
            }
        }
        tokens += 1;
    }
    assert!(tokens >= 20, "{tokens}");
}

#[test]
fn what_is_signed_here_is_verified_here() {
    // `hookward send` would tell an operator that a good route is broken.
    let schemes = [
        "{ algorithm: HS256, key: utf8, in: { header: x } }",
        "{ algorithm: HS384, key: hex, in: { header: x, prefix: 'JWT ' }, body: { claim: b, hash: sha256, encoding: hex } }",
        "{ algorithm: HS512, key: base64, in: { header: x }, claims: { iss: a, ok: true, aud: [b, c] }, age: 5m, id: jti }",
        "{ algorithm: RS256, key: pem, in: { body: true } }",
        "{ algorithm: RS512, key: pem, in: { header: x }, detached: true, age: 5m, time: ts }",
        "{ algorithm: PS256, key: pem, in: { json: token } }",
        "{ algorithm: ES256, key: pem, in: { header: x }, body: { claim: b, hash: none } }",
        "{ algorithm: EdDSA, key: pem, in: { header: x }, body: { claim: b, hash: sha256, encoding: base64, empty: absent } }",
    ];
    let now = UnixMillis(1_700_000_000_000);
    for text in schemes {
        let scheme = Jwt::build(&serde_yaml::from_str(text).unwrap()).unwrap();
        let (private, public) = key_pair(&scheme);
        let signer = scheme.read_signer(&private).unwrap();
        let bodies: &[&[u8]] = match scheme.place {
            Place::Header { .. } => &[b"", b"{\"a\":1}"],
            Place::Body | Place::Json { .. } => &[b"{\"a\":1}"],
        };
        for body in bodies {
            let request = Unsigned {
                body,
                id: "evt_1",
                now,
                settings: Settings::NONE,
                public_url: None,
            };
            let mut headers = HeaderMap::new();
            let body = match scheme.sign(request, &signer).unwrap() {
                Signed::Header(name, value) => {
                    headers.insert(name, value.parse().unwrap());
                    body.to_vec()
                }
                Signed::Body(body) => body,
            };
            let message = Message {
                method: "POST",
                target: "/",
                headers: &headers,
                body: &body,
                public_url: None,
                settings: Settings::NONE,
            };
            let key = scheme.read_key("test", &public).unwrap();
            let found = scheme.verify(&message, &[&key], now);
            let found = found.unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(found.matched, Some(0), "{text}");
            assert_eq!(found.strength, scheme.strength(), "{text}");
            assert_eq!(found.timestamp, scheme.age().map(|_| now), "{text}");
            assert_eq!(
                found.signed_id.as_deref(),
                scheme.id.as_ref().map(|_| "evt_1"),
                "{text}"
            );
        }
    }
}

/// A key to sign with and its counterpart.
fn key_pair(scheme: &Jwt) -> (Secret, Secret) {
    let shared = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let (private, public) = match scheme.algorithm {
        Algorithm::Mac(_) => (shared, shared),
        Algorithm::Public(SignatureAlgorithm::Ed25519) => (
            include_str!("../../../tests/keys/ed25519.pem"),
            include_str!("../../../tests/keys/ed25519.pub.pem"),
        ),
        Algorithm::Public(SignatureAlgorithm::EcdsaP256Sha256) => (
            include_str!("../../../tests/keys/p256.pem"),
            include_str!("../../../tests/keys/p256.pub.pem"),
        ),
        Algorithm::Public(_) => (
            include_str!("../../../tests/keys/rsa2048.pem"),
            include_str!("../../../tests/keys/rsa2048.pub.pem"),
        ),
    };
    (Secret::new(private).unwrap(), Secret::new(public).unwrap())
}

#[test]
fn schemes_that_prove_less_than_they_say_are_not_built() {
    // A scheme that starts is a scheme that people trust.
    let rows = [
        ("{ algorithm: HS256, key: pem, in: { header: x } }", "jwt.key"),
        (
            "{ algorithm: HS256, key: jwks, in: { header: x }, keys: { jwks: 'https://h/' } }",
            "jwt.key",
        ),
        ("{ algorithm: RS256, key: utf8, in: { header: x } }", "jwt.key"),
        ("{ algorithm: RS256, key: jwks, in: { header: x } }", "jwt.keys"),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, keys: { jwks: 'https://h/' } }",
            "jwt.keys",
        ),
        (
            "{ algorithm: RS256, key: jwks, in: { header: x }, keys: { jwks: 'http://h/' } }",
            "jwt.keys.jwks",
        ),
        ("{ algorithm: RS256, key: pem, in: {} }", "jwt.in"),
        (
            "{ algorithm: RS256, key: pem, in: { header: x, body: true } }",
            "jwt.in",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { body: true, prefix: x } }",
            "jwt.in.prefix",
        ),
        ("{ algorithm: RS256, key: pem, in: { header: 'a b' } }", "jwt.in.header"),
        (
            "{ algorithm: RS256, key: pem, in: { body: true }, detached: true }",
            "jwt.detached",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, detached: true, body: { claim: b, hash: none } }",
            "jwt.body",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { body: true }, body: { claim: b, hash: none } }",
            "jwt.body",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, body: { claim: b, hash: sha256 } }",
            "jwt.body.encoding",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, body: { claim: b, hash: none, encoding: hex } }",
            "jwt.body.encoding",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, time: ts }",
            "jwt.time",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, claims: { iss: '' } }",
            "jwt.claims.iss",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, claims: { iss: [] } }",
            "jwt.claims.iss",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, claims: { iss: '{body}' } }",
            "jwt.claims.iss",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, claims: { iss: '{setting:}' } }",
            "jwt.claims.iss",
        ),
        (
            "{ algorithm: RS256, key: pem, in: { header: x }, claims: { iss: 'a{url' } }",
            "jwt.claims.iss",
        ),
    ];
    for (text, key) in rows {
        let refused = Jwt::build(&serde_yaml::from_str(text).unwrap()).err().map(|e| e.key);
        assert_eq!(refused.as_deref(), Some(key), "{text}");
    }
    for unknown in [
        "{ algorithm: none, key: utf8, in: { header: x } }",
        "{ algorithm: HS256, key: utf8, in: { header: x }, agee: 5m }",
    ] {
        assert!(serde_yaml::from_str::<JwtFile>(unknown).is_err(), "{unknown}");
    }
}
