//! Every provider against its vectors: real requests with the verdict they must get.
//!
//! `tests/vectors/<id>.yaml` holds them, with their sources. A provider without a file fails, and so does a file
//! without a provider. A vector goes the way of a request: questions that come unsigned, the proof, questions that come
//! signed. From each accepted vector further rejections are derived: whatever is changed in it has to be noticed.

#[cfg(test)]
mod crossed;
#[cfg(test)]
mod mutated;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod spoilt;
#[cfg(test)]
mod unsigned;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::{Asked, HandshakeReply, Means, Met, Provider, builtin};
use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::signature::{Failure, Finished, Head, KeyedSecret, Proof, PublicUrl, Settings, Verifier, VerifierOptions};

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
    #[serde(default = "post")]
    method: String,
    /// Where the request was sent.
    #[serde(default = "somewhere")]
    url: String,
    /// What the route says its URL is, where that is something else.
    public_url: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    secrets: Vec<String>,
    /// What is published where the scheme allows keys to be fetched from.
    fetched: Option<String>,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    body_base64: Option<String>,
    /// In seconds since 1970.
    #[serde(default = "some_day")]
    now: u64,
    /// What the gateway answers by itself.
    answer: Option<Answer>,
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
    /// Accepted although something was changed: what the scheme cannot see.
    SchemeWeakness,
}

/// A reply; `text` or `json`, or only headers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    text: Option<String>,
    json: Option<serde_json::Value>,
}

/// Where a vector's way ends.
enum End {
    Replied(HandshakeReply),
    Proven,
    Refused(Option<Failure>),
}

fn post() -> String {
    "POST".to_owned()
}

fn some_day() -> u64 {
    1_700_000_000
}

fn somewhere() -> String {
    "https://hooks.example.com/in/1".to_owned()
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

    fn now(&self) -> UnixMillis {
        UnixMillis::from_seconds(self.now)
    }

    fn public_url(&self) -> PublicUrl {
        PublicUrl::parse(self.public_url.as_ref().unwrap_or(&self.url)).unwrap()
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in &self.settings {
            settings.insert(name, Secret::new(value.as_str()).unwrap()).unwrap();
        }
        settings
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
            public_url: Some(self.public_url()),
            settings: self.settings(),
        };
        Verifier::new(provider.scheme.clone(), secrets, options).ok()
    }

    /// The way of a request. Without secrets only what is unsigned by design can be answered.
    fn end(&self, provider: &Provider) -> End {
        let (headers, body) = (self.headers(), self.body());
        let Some(verifier) = self.verifier(provider).or_else(|| self.stand_in(provider)) else {
            return End::Refused(None);
        };
        let url: http::Uri = self.url.parse().unwrap();
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let method: Method = self.method.parse().unwrap();
        let asked = Asked {
            method: &method,
            target,
            headers: &headers,
            body: &body,
        };
        let means = Means {
            verifier: &verifier,
            now: self.now(),
        };
        match provider.handshakes.unsigned(&asked, true, &means) {
            Met::Reply(reply) | Met::Brings(_, reply) => return End::Replied(reply),
            Met::Refused => return End::Refused(None),
            Met::Nothing => {}
        }
        if provider.handshakes.could_have_lent(&body) || self.verifier(provider).is_none() {
            return End::Refused(None);
        }
        let head = Head {
            method: &method,
            target,
            headers: &headers,
        };
        match check(&verifier, head, &body, self.now(), self.fetched.as_deref()) {
            Err(failure) => End::Refused(Some(failure)),
            Ok(proof) => match provider.handshakes.signed(&asked, &proof, &means) {
                Some(reply) => End::Replied(reply),
                None => End::Proven,
            },
        }
    }

    /// The secrets of another vector, for questions that are asked before there are any.
    fn stand_in(&self, provider: &Provider) -> Option<Verifier> {
        let others = vectors_of(provider);
        let mut other = others.iter().find(|other| !other.secrets.is_empty())?.clone();
        other.settings.extend(self.settings.clone());
        other.url = self.url.clone();
        other.public_url = self.public_url.clone();
        other.verifier(provider).filter(|_| self.secrets.is_empty())
    }
}

fn check(
    verifier: &Verifier,
    head: Head<'_>,
    body: &[u8],
    now: UnixMillis,
    fetched: Option<&str>,
) -> Result<Proof, Failure> {
    let mut check = verifier.begin(head, now);
    check.update(body);
    match check.finish(body)? {
        Finished::Proven(proof) => Ok(proof),
        Finished::KeyWanted(wanted) => {
            let published = fetched.expect("a key is wanted and `fetched` is not given");
            let key = wanted.source().read(published.as_bytes()).expect("`fetched` is a key");
            wanted.resume(&key, body)
        }
    }
}

impl Answer {
    fn of(reply: &HandshakeReply) -> Answer {
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        let is_json = reply.content_type == "application/json";
        let headers = reply.headers.iter();
        Answer {
            status: reply.status,
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect(),
            json: is_json.then(|| serde_json::from_str(&body).unwrap()),
            text: (!is_json).then_some(body),
        }
    }

    /// Names of headers in small letters, and no text where there is none.
    fn normal(mut self) -> Answer {
        self.headers = self
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect();
        self.text = self.text.filter(|text| !text.is_empty());
        self
    }
}

fn vectors_of(provider: &Provider) -> Vec<Vector> {
    let path = folder().join(format!("{}.yaml", provider.id));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every provider with its vectors, read once for all tests.
fn all() -> &'static [(&'static Arc<Provider>, Vec<Vector>)] {
    static ALL: OnceLock<Vec<(&'static Arc<Provider>, Vec<Vector>)>> = OnceLock::new();
    ALL.get_or_init(|| {
        builtin()
            .iter()
            .map(|provider| (provider, vectors_of(provider)))
            .collect()
    })
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "vectors"].iter().collect()
}

#[test]
fn every_vector_gets_its_verdict() {
    // A wrong verdict loses a provider's real events or lets forged ones in.
    let mut count = 0;
    let mut wrong = Vec::new();
    for (provider, vectors) in all() {
        for vector in vectors {
            count += 1;
            let end = vector.end(provider);
            let accepted = !matches!(end, End::Refused(_));
            let answer = match &end {
                End::Replied(reply) => Some(Answer::of(reply).normal()),
                _ => None,
            };
            let expected = vector.answer.clone().map(Answer::normal);
            if accepted != (vector.expect == Verdict::Accept) || answer != expected {
                let end = match end {
                    End::Replied(reply) => format!("answered with {}", reply.status),
                    End::Proven => "proven".to_owned(),
                    End::Refused(why) => format!("refused: {why:?}"),
                };
                wrong.push(format!("{}: {}: {end}", provider.id, vector.case));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 1_150, "{count} vectors were found");
}

#[test]
fn every_provider_accepts_something() {
    // Vectors that only reject are met by a gateway that looks at nothing; what is rejected besides is made of the
    // accepted ones, in `spoilt`.
    for (provider, vectors) in all() {
        let proven = |vector: &Vector| vector.expect == Verdict::Accept && vector.answer.is_none();
        assert!(vectors.iter().any(proven), "{}", provider.id);
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
