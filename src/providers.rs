//! The catalogue of providers: read, looked up, listed.
//!
//! A provider is data: one file in `conf/providers/` that says how requests are signed ([`SchemeFile`]), which of its
//! values identify an event, and how its handshake is answered. The files are part of the binary; a user's own
//! schemes are the same type and become the same [`Provider`]. The gateway never asks for a provider's name.
//!
//! What is authenticated and what is only a label is decided here: an event id becomes a replay key, so it may come
//! from the signed body or from the signed id header and from nowhere else. `X-GitHub-Delivery` and its likes are
//! unsigned; whoever takes them for identity can be sent one captured event any number of times under fresh ids.
//!
//! [`SchemeFile`]: crate::signature::SchemeFile

mod build;
mod catalogue;
mod facts;
mod file;
mod handshake;
#[cfg(test)]
mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

pub use catalogue::{Catalogue, builtin};
pub use facts::Facts;
pub use file::{
    Confidence, EventFile, EventIdFile, LabelFile, ProviderFile, RetryCause, RetryFile, SampleFile, SelectorFile,
    StrengthFile,
};
pub use handshake::{
    AnswerFile, Asked, BodyWord, ComputeFile, ComputeKind, Handshake, HandshakeFile, HandshakeReply, Handshakes,
    KnowsFile, Means, Met, RegisterFile, TrustFile, WhenFile,
};

use crate::clock::UnixMillis;
pub use crate::signature::JsonPath;
use crate::signature::Scheme;

/// A provider, built: its scheme and what can be learnt from its requests.
#[derive(Debug)]
pub struct Provider {
    /// How routes refer to it.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// The vendor's page about its signatures.
    pub docs: Option<String>,
    /// The day on which its facts were last compared with their source.
    pub checked: Option<String>,
    /// What the file rests on.
    pub confidence: Option<Confidence>,
    /// What is not covered and what people get wrong.
    pub traps: Vec<String>,
    /// How it signs.
    pub scheme: Arc<Scheme>,
    /// What a route has to give by name, and what that is.
    pub settings: BTreeMap<String, String>,
    /// Where its events' names are.
    pub event: EventFacts,
    /// How it asks whether somebody is there.
    pub handshakes: Handshakes,
    /// What it does when it gets no good answer.
    pub retry: Option<Retries>,
    sample: SampleTemplate,
}

/// Where the names of an event are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFacts {
    /// What identifies it, authenticated.
    pub id: EventId,
    /// What kind of event it is; authenticated only where it is read from a signed body.
    pub kind: Option<Selector>,
    /// The provider's name for one attempt, a label.
    pub delivery: Option<HeaderName>,
    /// How two events can be the same bytes; a route then lets repeats through, unless it says otherwise.
    pub alike: Option<String>,
}

/// What identifies an event, over all of its retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventId {
    /// A member of the signed body.
    Json(JsonPath),
    /// A field of the signed form.
    Form(String),
    /// The id that the scheme itself finds signed: in a header, or where a token or a native verifier has it.
    Signed,
    /// Nothing, for the reason given; the digest of the signed bytes has to do.
    Unsigned(Option<String>),
}

/// A place in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A member of a JSON body.
    Json(JsonPath),
    /// A field of a form.
    Form(String),
    /// A header.
    Header(HeaderName),
}

/// What a provider does without a good answer, as far as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How long it waits for an answer.
    pub deadline: Option<Duration>,
    /// What makes it try again; empty: nothing does.
    pub on: Vec<RetryCause>,
    /// How often and when, in words.
    pub schedule: Option<String>,
}

/// A request to try things out with, not yet signed.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Headers besides those of the signature.
    pub headers: Vec<(HeaderName, String)>,
    /// The body.
    pub body: Bytes,
}

#[derive(Clone, Debug)]
struct SampleTemplate {
    headers: Vec<(HeaderName, String)>,
    body: String,
}

impl Provider {
    /// A typical event with `id` in it, for trying things out; sign it to send it.
    pub fn sample(&self, id: &str, now: UnixMillis) -> Sample {
        let timestamp = now.seconds().to_string();
        let fill = |text: &str| text.replace("{id}", id).replace("{timestamp}", &timestamp);
        let headers = self.sample.headers.iter();
        Sample {
            headers: headers.map(|(name, value)| (name.clone(), fill(value))).collect(),
            body: Bytes::from(fill(&self.sample.body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"
        scheme:
          algorithm: hmac-sha256
          key: utf8
          message: "{id}.{body}"
          signature: { header: sig, encoding: hex }
          id: { header: msg }
    "#;

    /// The key that a typed provider is refused for; `None` when it is built.
    fn refused(more: &str) -> Option<String> {
        let file: ProviderFile = serde_yaml::from_str(&format!("{OWN}\n        {more}")).unwrap();
        Provider::own("mine", &file).err().map(|e| e.key)
    }

    #[test]
    fn every_preset_says_what_it_rests_on() {
        // A scheme nobody can look up cannot be corrected when the vendor changes it.
        for provider in builtin().iter() {
            let id = &provider.id;
            let docs = provider.docs.as_deref().unwrap_or_default();
            assert!(docs.starts_with("https://") && !docs.contains(' '), "{id}: {docs:?}");
            let day = provider.checked.as_deref().unwrap_or_default();
            assert!(day.split('-').map(str::len).eq([4, 2, 2]), "{id}: {day:?}");
            assert!(provider.confidence.is_some(), "{id}");
            assert_ne!(provider.title, *id);
            assert_ne!(
                provider.event.id,
                EventId::Unsigned(None),
                "{id}: says why there is no signed id"
            );
            for trap in &provider.traps {
                assert!(trap.ends_with('.') && trap.len() <= 240, "{id}: {trap:?}");
            }
        }
    }

    #[test]
    fn every_preset_is_written_out() {
        // What a file leaves out, its reader takes for checked.
        for id in builtin().ids() {
            let path: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "conf", "providers", &format!("{id}.yaml")]
                .iter()
                .collect();
            let text = std::fs::read_to_string(path).unwrap();
            let file: ProviderFile = serde_yaml::from_str(&text).unwrap();
            assert!(
                file.name.is_some() && file.strength.is_some() && file.sample.is_some(),
                "{id}"
            );
            assert!(file.event.id.is_some(), "{id}");
            assert_eq!(
                text.lines().next(),
                file.name.map(|name| format!("name: {name}")).as_deref(),
                "{id}"
            );
        }
    }

    #[test]
    fn samples_are_events_of_their_own() {
        // Two samples in a row would look like a replay, or show no event at all.
        let now = UnixMillis::from_seconds(1_700_000_000);
        for provider in builtin().iter() {
            let id = &provider.id;
            let (one, two) = (provider.sample("aaa1", now), provider.sample("aaa2", now));
            assert_ne!(one.body, two.body, "{id}");
            let text = std::str::from_utf8(&one.body).unwrap();
            assert!(!text.contains("{id}") && !text.contains("{timestamp}"), "{id}");
            let headers: http::HeaderMap = one
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.try_into().unwrap()))
                .collect();
            let kind = headers.get(http::header::CONTENT_TYPE).unwrap().to_str().unwrap();
            if kind.contains("json") {
                assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{id}: {text}");
            }
            let facts = provider.facts(&headers, &one.body, None);
            assert_eq!(facts.event_type.is_some(), provider.event.kind.is_some(), "{id}");
        }
    }

    #[test]
    fn only_signed_values_identify_an_event() {
        // A replay key that the sender may choose guards nothing.
        let rows = [
            ("", None),
            ("event: { id: { json: id } }", None),
            ("event: { id: { header: Msg } }", None),
            ("event: { id: { unsigned: \"no id\" } }", None),
            ("event: { id: { header: sig } }", Some("event.id.header")),
            ("event: { id: { header: x-delivery } }", Some("event.id.header")),
            ("event: { id: {} }", Some("event.id")),
            ("event: { id: { json: id, header: msg } }", Some("event.id")),
            ("event: { id: { json: \"a..b\" } }", Some("event.id.json")),
            ("event: { type: {} }", Some("event.type")),
            ("event: { type: { json: a, header: b } }", Some("event.type")),
            ("event: { type: { header: \"a b\" } }", Some("event.type.header")),
            ("event: { delivery: { header: \"\" } }", Some("event.delivery.header")),
            ("sample: { headers: { Sig: a }, body: b }", Some("sample.headers")),
        ];
        for (more, key) in rows {
            assert_eq!(refused(more).as_deref(), key, "{more}");
        }
    }
}
