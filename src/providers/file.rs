//! A provider as a person types it: the shape of `conf/providers/<id>.yaml` and of every item under `schemes:`.
//!
//! What a reader of the file wants to know stands first (name, documentation, when it was checked, on what it rests),
//! then the scheme, then what can be learnt from a request. Own schemes need only `scheme`. Unknown keys are errors.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::handshake::HandshakeFile;
use crate::signature::SchemeFile;
use crate::units;

/// A provider as typed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderFile {
    /// Its name for people.
    pub name: Option<String>,
    /// The vendor's page about its signatures.
    pub docs: Option<String>,
    /// The day on which this file and that page were compared, as `2026-11-23`.
    pub checked: Option<String>,
    /// What the file rests on.
    pub confidence: Option<Confidence>,
    /// What every genuine request proves. For readers: it follows from the scheme, and a file that says something else is
    /// refused.
    pub strength: Option<StrengthFile>,
    /// What is not covered and what people get wrong, in short sentences.
    #[serde(default)]
    pub traps: Vec<String>,
    /// How it signs.
    pub scheme: SchemeFile,
    /// Where the names of an event are.
    #[serde(default)]
    pub event: EventFile,
    /// Questions of the provider's that the gateway answers instead of passing them on; the first that fits counts.
    #[serde(default)]
    pub handshake: Vec<HandshakeFile>,
    /// Values that a route has to give, each with what it is. Named in scheme and handshakes as `{setting:NAME}`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// What the provider does without a good answer.
    pub retry: Option<RetryFile>,
    /// A request to try things out with.
    pub sample: Option<SampleFile>,
}

/// What a provider's file rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The vendor's own documentation, code or tests.
    Official,
    /// Somebody else's account of them.
    Secondary,
}

/// What a request proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrengthFile {
    /// The body is bound.
    Verified,
    /// The origin is proven, the body is not.
    Authenticated,
}

/// Where the names of an event are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventFile {
    /// What identifies the event over all retries. Authenticated: it becomes the replay key.
    pub id: Option<EventIdFile>,
    /// What kind of event it is.
    #[serde(rename = "type")]
    pub kind: Option<SelectorFile>,
    /// The provider's name for one attempt; a label for logs.
    pub delivery: Option<LabelFile>,
    /// How two events can be the same bytes, where they can: then nothing tells a new one from a repeat.
    pub alike: Option<String>,
}

/// Exactly one of the five.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventIdFile {
    /// A member of the signed JSON body: `id`, `event.id`.
    pub json: Option<String>,
    /// A field of the signed form.
    pub form: Option<String>,
    /// The header that the scheme signs as `{id}`.
    pub header: Option<String>,
    /// `true`: the id that a token or a native verifier finds among what is signed.
    #[serde(default)]
    pub signed: bool,
    /// Why there is no signed id.
    pub unsigned: Option<String>,
}

/// Exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectorFile {
    /// A member of a JSON body.
    pub json: Option<String>,
    /// A field of a form.
    pub form: Option<String>,
    /// A header.
    pub header: Option<String>,
}

/// A header that is only a label.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelFile {
    /// The header.
    pub header: String,
}

/// What the provider does without a good answer. Hints for operators; nothing is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryFile {
    /// How long it waits for an answer.
    #[serde(default, deserialize_with = "units::deserialize_some_duration")]
    pub deadline: Option<Duration>,
    /// What makes it try again; an empty list when nothing does.
    pub on: Vec<RetryCause>,
    /// How often and when, in words.
    pub schedule: Option<String>,
}

/// What makes a provider try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RetryCause {
    /// No answer in time, or no connection.
    #[serde(rename = "timeout")]
    Timeout,
    /// A redirection.
    #[serde(rename = "3xx")]
    Redirection,
    /// A client error.
    #[serde(rename = "4xx")]
    ClientError,
    /// A server error.
    #[serde(rename = "5xx")]
    ServerError,
}

/// A request to try things out with. `{id}` and `{timestamp}` (seconds) are filled in, in headers and body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleFile {
    /// Headers besides those of the signature.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}
