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

mod facts;
mod file;
mod json;
#[cfg(test)]
mod vectors;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

pub use facts::{Facts, HandshakeReply};
pub use file::{
    AnswerFile, Confidence, EventFile, EventIdFile, HandshakeFile, LabelFile, ProviderFile, RetryCause, RetryFile,
    SampleFile, SelectorFile, WhenFile,
};
pub use json::JsonPath;

use crate::clock::UnixMillis;
use crate::nearest::nearest;
use crate::signature::{Scheme, SchemeError};

/// One word for each file in `conf/providers/`, in alphabetical order.
macro_rules! presets {
    ($($id:literal),+ $(,)?) => {
        [$(($id, include_str!(concat!("../conf/providers/", $id, ".yaml")))),+]
    };
}

static PRESETS: [(&str, &str); 5] = presets!["github", "shopify", "slack", "standard-webhooks", "stripe"];

/// The providers that are part of the program, parsed at the first call.
pub fn builtin() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| Catalogue {
        providers: PRESETS.iter().map(|(id, text)| Arc::new(preset(id, text))).collect(),
    })
}

/// A preset is a part of the program: one that cannot be read is a bug, found by the first test that runs.
fn preset(id: &str, text: &str) -> Provider {
    let file = serde_yaml::from_str(text).unwrap_or_else(|e| panic!("conf/providers/{id}.yaml: {e}"));
    Provider::own(id, &file).unwrap_or_else(|e| panic!("conf/providers/{id}.yaml: {e}"))
}

/// Providers by id.
#[derive(Debug)]
pub struct Catalogue {
    providers: Vec<Arc<Provider>>,
}

impl Catalogue {
    /// The provider with exactly this id.
    pub fn find(&self, id: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|provider| provider.id == id)
    }

    /// All of them, in alphabetical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Provider>> {
        self.providers.iter()
    }

    /// Their ids, in alphabetical order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = &str> {
        self.providers.iter().map(|provider| provider.id.as_str())
    }

    /// The id that somebody who typed `id` may have meant.
    pub fn nearest(&self, id: &str) -> Option<&str> {
        let typed = id.to_ascii_lowercase();
        // Part of a long id is an id half remembered.
        let contained = || self.ids().find(|known| typed.len() >= 4 && known.contains(&typed));
        nearest(id, self.ids()).or_else(contained)
    }
}

/// A provider, built: its scheme and what can be learnt from its requests.
#[derive(Debug)]
pub struct Provider {
    /// How routes refer to it.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// The vendor's page about its signatures.
    pub docs: Option<String>,
    /// The day on which file and page were last compared.
    pub checked: Option<String>,
    /// What the file rests on.
    pub confidence: Option<Confidence>,
    /// How it signs.
    pub scheme: Arc<Scheme>,
    /// Where its events' names are.
    pub event: EventFacts,
    /// How it asks whether somebody is there.
    pub handshake: Option<Handshake>,
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
}

/// What identifies an event, over all of its retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventId {
    /// A member of the signed body.
    Json(JsonPath),
    /// The id header that the scheme signs.
    Signed,
    /// Nothing, for the reason given; the digest of the signed bytes has to do.
    Unsigned(Option<String>),
}

/// A place in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A member of a JSON body.
    Json(JsonPath),
    /// A header.
    Header(HeaderName),
}

/// A challenge in a signed JSON body that wants to be sent back as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The member that tells a challenge from an event.
    pub when: JsonPath,
    /// The value it has then.
    pub equals: String,
    /// The member to send back.
    pub answer: JsonPath,
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
    /// A provider from a file as typed: a user's own scheme, or a preset.
    ///
    /// # Errors
    /// The first key that cannot be, as seen from the file's root, with what is wrong and what to write instead.
    pub fn own(name: &str, file: &ProviderFile) -> Result<Provider, SchemeError> {
        let scheme = Scheme::build(name, &file.scheme).map_err(|e| e.under("scheme"))?;
        let event = build_event(&file.event, &scheme).map_err(|e| e.under("event"))?;
        let handshake = match &file.handshake {
            None => None,
            Some(file) => Some(build_handshake(file, &scheme).map_err(|e| e.under("handshake"))?),
        };
        let sample = build_sample(file.sample.as_ref(), &scheme).map_err(|e| e.under("sample"))?;
        Ok(Provider {
            id: name.to_owned(),
            title: file.name.clone().unwrap_or_else(|| name.to_owned()),
            docs: file.docs.clone(),
            checked: file.checked.clone(),
            confidence: file.confidence,
            scheme: Arc::new(scheme),
            event,
            handshake,
            retry: file.retry.as_ref().map(|retry| Retries {
                deadline: retry.deadline,
                on: retry.on.clone(),
                schedule: retry.schedule.clone(),
            }),
            sample,
        })
    }

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

fn build_event(file: &EventFile, scheme: &Scheme) -> Result<EventFacts, SchemeError> {
    let id = match &file.id {
        None => EventId::Unsigned(None),
        Some(id) => build_event_id(id, scheme)?,
    };
    let kind = match &file.kind {
        None => None,
        Some(SelectorFile {
            json: Some(path),
            header: None,
        }) => Some(Selector::Json(JsonPath::parse("type.json", path)?)),
        Some(SelectorFile {
            json: None,
            header: Some(name),
        }) => Some(Selector::Header(header_name("type.header", name)?)),
        Some(_) => return Err(SchemeError::new("type", "needs either `json` or `header`")),
    };
    let delivery = match &file.delivery {
        None => None,
        Some(label) => Some(header_name("delivery.header", &label.header)?),
    };
    Ok(EventFacts { id, kind, delivery })
}

/// An event id decides what counts as a repetition, so it has to be something that the signature covers.
fn build_event_id(file: &EventIdFile, scheme: &Scheme) -> Result<EventId, SchemeError> {
    match (&file.json, &file.header, &file.unsigned) {
        (Some(path), None, None) if scheme.signs_body() => JsonPath::parse("id.json", path).map(EventId::Json),
        (Some(_), None, None) => Err(SchemeError::new("id.json", "is not signed: the message has no {body}")
            .suggest("write `unsigned: why there is no signed id`")),
        (None, Some(name), None) => {
            if Some(&header_name("id.header", name)?) == scheme.id_header() {
                return Ok(EventId::Signed);
            }
            let error = SchemeError::new("id.header", format!("{name} is not signed, so anybody can change it"));
            Err(error.suggest("use it as `delivery`, a label, and say `unsigned: why there is no signed id`"))
        }
        (None, None, Some(why)) => Ok(EventId::Unsigned(Some(why.clone()))),
        _ => Err(SchemeError::new("id", "needs one of `json`, `header` and `unsigned`")),
    }
}

fn build_handshake(file: &HandshakeFile, scheme: &Scheme) -> Result<Handshake, SchemeError> {
    if !scheme.signs_body() {
        let error = SchemeError::new("when", "is not signed: the message has no {body}");
        return Err(error.suggest("leave the handshake to the backend"));
    }
    Ok(Handshake {
        when: JsonPath::parse("when.json", &file.when.json)?,
        equals: file.when.equals.clone(),
        answer: JsonPath::parse("answer.json", &file.answer.json)?,
    })
}

fn build_sample(file: Option<&SampleFile>, scheme: &Scheme) -> Result<SampleTemplate, SchemeError> {
    let Some(file) = file else {
        return Ok(SampleTemplate {
            headers: vec![(http::header::CONTENT_TYPE, "application/json".to_owned())],
            body: r#"{"id":"{id}","type":"sample","created":{timestamp}}"#.to_owned(),
        });
    };
    let mut headers = Vec::with_capacity(file.headers.len());
    for (name, value) in &file.headers {
        let name = header_name("headers", name)?;
        if scheme.security_headers().contains(&name) {
            return Err(SchemeError::new("headers", format!("{name} is added by signing")));
        }
        headers.push((name, value.clone()));
    }
    Ok(SampleTemplate {
        headers,
        body: file.body.clone(),
    })
}

fn header_name(key: &str, text: &str) -> Result<HeaderName, SchemeError> {
    HeaderName::try_from(text).map_err(|_| SchemeError::new(key, format!("{text:?} is not a header name")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const OWN: &str = r#"
        scheme:
          mac: hmac-sha256
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
            assert!(
                provider.docs.as_ref().is_some_and(|docs| docs.starts_with("https://")),
                "{id}"
            );
            assert!(provider.checked.as_ref().is_some_and(|day| day.len() == 10), "{id}");
            assert!(provider.confidence.is_some() && provider.retry.is_some(), "{id}");
            assert_ne!(provider.title, *id);
            assert_ne!(
                provider.event.id,
                EventId::Unsigned(None),
                "{id}: says why there is no signed id"
            );
        }
    }

    #[test]
    fn every_file_is_a_preset() {
        // A provider somebody wrote a file for would be unknown to the program.
        let folder = [env!("CARGO_MANIFEST_DIR"), "conf", "providers"]
            .iter()
            .collect::<std::path::PathBuf>();
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.insert(name.strip_suffix(".yaml").unwrap_or(&name).to_owned());
        }
        assert!(
            builtin().ids().eq(files.iter().map(String::as_str)),
            "sorted, and the same as {files:?}"
        );
    }

    #[test]
    fn a_mistyped_name_finds_the_right_one() {
        // The message would say that there is no such provider and leave it at that.
        let rows = [
            ("githb", Some("github")),
            ("GitHub", Some("github")),
            ("stirpe", Some("stripe")),
            ("standard", Some("standard-webhooks")),
            ("standard_webhooks", Some("standard-webhooks")),
            ("slak", Some("slack")),
            ("x", None),
            ("", None),
            ("something-else", None),
        ];
        for (typed, meant) in rows {
            assert_eq!(builtin().nearest(typed), meant, "{typed:?}");
        }
        assert_eq!(builtin().nearest(&"\u{1f980}".repeat(10_000)), None);
        assert!(builtin().find("githb").is_none() && builtin().find("github").is_some());
    }

    #[test]
    fn samples_are_events_of_their_own() {
        // Two samples in a row would look like a replay, or show no event at all.
        let now = UnixMillis::from_seconds(1_700_000_000);
        for provider in builtin().iter() {
            let (one, two) = (provider.sample("aaa1", now), provider.sample("aaa2", now));
            assert_ne!(one.body, two.body, "{}", provider.id);
            let json: serde_json::Value = serde_json::from_slice(&one.body).unwrap();
            assert!(
                json.is_object() && !json.to_string().contains("{id}"),
                "{}",
                provider.id
            );
            let headers = one
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.try_into().unwrap()))
                .collect();
            let facts = provider.facts(&headers, &one.body, None);
            assert!(facts.event_type.is_some(), "{}", provider.id);
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
            (
                "handshake: { when: { json: \"\", equals: a }, answer: { json: b } }",
                Some("handshake.when.json"),
            ),
            (
                "handshake: { when: { json: a, equals: a }, answer: { json: . } }",
                Some("handshake.answer.json"),
            ),
            ("sample: { headers: { Sig: a }, body: b }", Some("sample.headers")),
        ];
        for (more, key) in rows {
            assert_eq!(refused(more).as_deref(), key, "{more}");
        }
    }
}
