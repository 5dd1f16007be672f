//! Every provider against its vectors: real requests with the verdict they must get.
//!
//! `tests/vectors/<id>.yaml` holds them, with their sources. A provider without a file fails, and so does a file
//! without a provider. From each accepted vector further rejections are derived: whatever is changed in it has to be
//! noticed.

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

type Change = fn(&str) -> String;

/// Changes to a header's value after which it must prove nothing; to each of its entries, since one may suffice.
const HEADER_CHANGES: [(&str, Change); 6] = [
    ("empty", |_| String::new()),
    ("reversed", |value| value.chars().rev().collect()),
    ("first letters gone", |value| {
        each_entry(value, |entry| entry[1..].to_owned())
    }),
    ("quotes", |value| each_entry(value, |entry| format!("\"{entry}"))),
    ("full stops", |value| each_entry(value, |entry| format!(".{entry}"))),
    ("zeros", |value| each_entry(value, |entry| format!("0{entry}"))),
];

/// A change to everything that spaces and commas separate.
fn each_entry(value: &str, change: Change) -> String {
    value.trim().split_inclusive([' ', ',']).map(change).collect()
}

/// Requests that differ from an accepted one in a single point and must not be accepted, each with a name.
fn spoilt(provider: &Provider, vector: &Vector) -> Vec<(String, Vector)> {
    let mut all = Vec::new();
    for (name, body) in spoilt_bodies(&vector.body()) {
        let mut changed = vector.clone();
        changed.body_base64 = Some(STANDARD.encode(body));
        all.push((format!("body: {name}"), changed));
    }
    for header in provider.scheme.security_headers() {
        let is_it = |name: &str| name.eq_ignore_ascii_case(header.as_str());
        for (name, change) in HEADER_CHANGES {
            let mut changed = vector.clone();
            let it = changed.headers.iter_mut().filter(|(name, _)| is_it(name));
            it.for_each(|(_, value)| *value = change(value));
            all.push((format!("{header}: {name}"), changed));
        }
        let (mut gone, mut alike, mut beside) = (vector.clone(), vector.clone(), vector.clone());
        gone.headers.retain(|(name, _)| !is_it(name));
        let it = alike.headers.iter_mut().filter(|(name, _)| is_it(name));
        it.for_each(|(name, _)| *name = name.replace('-', "_"));
        beside.headers.push((header.to_string(), "1".to_owned()));
        all.push((format!("{header}: gone"), gone));
        all.push((format!("{header}: underscores"), alike));
        all.push((format!("{header}: another beside it"), beside));
    }
    let mut other_secret = vector.clone();
    other_secret.secrets = vec!["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()];
    all.push(("another secret".to_owned(), other_secret));
    if let Some(tolerance) = provider.scheme.tolerance() {
        let (mut later, mut earlier) = (vector.clone(), vector.clone());
        later.now += tolerance.as_secs() * 2 + 1;
        earlier.now -= tolerance.as_secs() * 2 + 1;
        all.push(("later".to_owned(), later));
        all.push(("earlier".to_owned(), earlier));
    }
    all
}

fn spoilt_bodies(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for tail in [&b" "[..], b"\n", b"\r\n", b"\0", b"{}"] {
        all.push((format!("{tail:?} added"), [body, tail].concat()));
    }
    let Some(last) = body.len().checked_sub(1) else {
        return all;
    };
    for at in [0, last / 2, last] {
        let mut changed = body.to_vec();
        changed[at] ^= 1;
        all.push((format!("bit of byte {at}"), changed));
    }
    all.push(("last byte gone".to_owned(), body[..last].to_vec()));
    all.push(("gone".to_owned(), Vec::new()));
    all.push(("twice".to_owned(), body.repeat(2)));
    all
}

#[test]
fn what_is_changed_in_an_accepted_vector_is_refused() {
    // A forged event would be delivered.
    let mut count = 0;
    for provider in builtin().iter() {
        for vector in vectors_of(provider)
            .iter()
            .filter(|vector| vector.expect == Verdict::Accept)
        {
            for (name, changed) in spoilt(provider, vector) {
                count += 1;
                let verifier = changed.verifier(provider).unwrap();
                let now = UnixMillis::from_seconds(changed.now);
                let result = check(&verifier, &changed.headers(), &changed.body(), now);
                assert!(result.is_err(), "{}: {}: {name}", provider.id, vector.case);
            }
        }
    }
    assert!(count >= 400, "{count} rejections were derived");
}

#[test]
fn a_signature_for_one_provider_opens_no_other() {
    // A secret that is used twice would let one provider's events pass for another's.
    for from in builtin().iter() {
        for vector in vectors_of(from)
            .iter()
            .filter(|vector| vector.expect == Verdict::Accept)
        {
            for to in builtin().iter().filter(|to| to.id != from.id) {
                let Some(verifier) = vector.verifier(to) else { continue };
                let now = UnixMillis::from_seconds(vector.now);
                let mut headers = vector.headers();
                assert!(check(&verifier, &headers, &vector.body(), now).is_err());
                let signature = headers.get(&from.scheme.security_headers()[0]).unwrap().clone();
                headers.insert(to.scheme.security_headers()[0].clone(), signature);
                assert!(check(&verifier, &headers, &vector.body(), now).is_err());
            }
        }
    }
}

#[test]
fn every_vector_file_has_a_provider() {
    // Vectors that nobody runs prove nothing.
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let id = name.strip_suffix(".yaml").unwrap();
        assert!(builtin().find(id).is_some(), "{name}");
    }
}
