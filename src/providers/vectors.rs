//! Every provider against its vectors: real requests with the verdict they must get.
//!
//! `tests/vectors/<id>.yaml` holds them, with their sources. A provider without a file fails, and so does a file without
//! a provider. From each accepted vector further rejections are derived: whatever is changed in it has to be noticed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{Facts, Provider, builtin};
use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::signature::{Failure, KeyedSecret, Proof, Verifier, VerifierOptions};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    case: String,
    expect: Verdict,
    #[allow(dead_code)]
    reason: String,
    #[allow(dead_code)]
    source: String,
    #[allow(dead_code)]
    basis: Basis,
    secrets: Vec<String>,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    body_base64: Option<String>,
    #[serde(default)]
    now: u64,
    answer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Accept,
    Reject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Basis {
    Provider,
    GatewayPolicy,
}

impl Vector {
    fn body(&self) -> Vec<u8> {
        match &self.body_base64 {
            Some(text) => STANDARD.decode(text).unwrap(),
            None => self.body.clone().into_bytes(),
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::try_from(value).unwrap(),
            );
        }
        headers
    }

    /// `None` when these secrets make no verifier.
    fn verifier(&self, provider: &Provider) -> Option<Verifier> {
        let mut secrets = Vec::new();
        for (at, text) in self.secrets.iter().enumerate() {
            secrets.push(KeyedSecret {
                id: Arc::from(format!("key{at}")),
                secret: Secret::new(text.as_str()).ok()?,
                until: None,
            });
        }
        let options = VerifierOptions {
            tolerance: None,
            allow_short: true,
        };
        Verifier::new(provider.scheme.clone(), secrets, options).ok()
    }
}

fn vectors_of(provider: &Provider) -> Vec<Vector> {
    let path = folder().join(format!("{}.yaml", provider.id));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "vectors"].iter().collect()
}

fn check(verifier: &Verifier, headers: &HeaderMap, body: &[u8], now: UnixMillis) -> Result<Proof, Failure> {
    let mut check = verifier.begin(headers, now);
    check.update(body);
    check.finish(body)
}

#[test]
fn every_vector_gets_its_verdict() {
    // A wrong verdict loses a provider's real events or lets forged ones in.
    let mut count = 0;
    for provider in builtin().iter() {
        for vector in vectors_of(provider) {
            count += 1;
            let label = format!("{}: {}", provider.id, vector.case);
            let now = UnixMillis::from_seconds(vector.now);
            let result = match vector.verifier(provider) {
                Some(verifier) => check(&verifier, &vector.headers(), &vector.body(), now).map_err(Some),
                None => Err(None),
            };
            assert_eq!(result.is_ok(), vector.expect == Verdict::Accept, "{label}: {result:?}");
            let facts = match &result {
                Ok(proof) => provider.facts(&vector.headers(), &vector.body(), Some(proof)),
                Err(_) => Facts::default(),
            };
            let answer = facts
                .handshake
                .map(|reply| String::from_utf8(reply.body.to_vec()).unwrap());
            assert_eq!(answer, vector.answer, "{label}");
        }
    }
    assert!(count >= 49, "{count} vectors were found");
}
