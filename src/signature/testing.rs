//! What the tests of this room share: three schemes of different kinds and the short way through a verification.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Failure, Head, KeyedSecret, Proof, Scheme, Verifier, VerifierOptions};
use crate::clock::UnixMillis;
use crate::secret::Secret;

pub(crate) const GITHUB: &str = r#"
    algorithm: hmac-sha256
    key: utf8
    message: "{body}"
    signature: { header: X-Hub-Signature-256, prefix: "sha256=", encoding: hex }
"#;

pub(crate) const STRIPE: &str = r#"
    algorithm: hmac-sha256
    key: utf8
    message: "{timestamp}.{body}"
    signature: { header: Stripe-Signature, format: kv, separator: ",", fields: [v1], encoding: hex }
    timestamp: { field: t, unit: s, tolerance: 5m }
"#;

pub(crate) const STANDARD_WEBHOOKS: &str = r#"
    algorithm: hmac-sha256
    key: whsec
    message: "{id}.{timestamp}.{body}"
    signature: { header: webhook-signature, format: kv, separator: " ", assign: ",", fields: [v1], encoding: base64 }
    timestamp: { header: webhook-timestamp, unit: s, tolerance: 5m }
    id: { header: webhook-id }
"#;

pub(crate) fn scheme(yaml: &str) -> Scheme {
    Scheme::build("test", &serde_yaml::from_str(yaml).unwrap()).unwrap()
}

/// A verifier whose secrets are called `key0`, `key1` and so on.
pub(crate) fn verifier(yaml: &str, secrets: &[&str]) -> Verifier {
    let keyed = secrets.iter().enumerate().map(|(at, text)| KeyedSecret {
        id: format!("key{at}").into(),
        secret: Secret::new(*text).unwrap(),
        until: None,
    });
    Verifier::new(Arc::new(scheme(yaml)), keyed.collect(), VerifierOptions::default()).unwrap()
}

pub(crate) fn headers_of(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::try_from(*value).unwrap(),
        );
    }
    headers
}

pub(crate) fn verify(verifier: &Verifier, headers: &HeaderMap, body: &[u8], now: UnixMillis) -> Result<Proof, Failure> {
    let mut check = verifier.begin(post(headers), now);
    check.update(body);
    check.finish(body)?.without_fetching()
}

/// The head of a POST to `/`.
pub(crate) fn post(headers: &HeaderMap) -> Head<'_> {
    Head {
        method: &Method::POST,
        target: "/",
        headers,
    }
}
