//! Handshakes: a provider asks whether somebody is there, and the gateway answers in its protocol.
//!
//! Called by the corridor twice: before the proof for questions that come unsigned by design (a GET with a challenge,
//! a secret that is handed over), after it for those that are signed like events. A handshake happens when all of its
//! conditions hold, the asker is who may ask, and every value of its answer is there; otherwise the request is what it
//! would be without handshakes. So an event is not lost to a challenge that is none, and a stranger's text is sent back
//! by no route whose provider does not ask for it.
//!
//! What shaped it: a challenge that is answered with a MAC under the route's secret lends the signature to whoever asks.
//! Sent a body as its challenge, such an answer is that body's signature. So a MAC that is lent without proof is made
//! over words alone ([`is_word`]), and a body that is such a word is no event ([`Handshakes::could_have_lent`]).
//! Unsigned questions get no markup sent back, whatever the content type says.

mod build;
#[cfg(test)]
mod cases;
mod file;
mod place;
mod text;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub use file::{
    AnswerFile, BodyWord, ComputeFile, ComputeKind, HandshakeFile, KnowsFile, RegisterFile, TrustFile, WhenFile,
};
pub use place::Asked;

use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::signature::{Encoding, JsonPath, Proof, Strength, Verifier};
use place::{Place, Reading, is_printable};
use text::{Ingredients, Text};

/// Longest word that a MAC is lent for, in bytes.
const WORD_BYTES_MAX: usize = 512;

/// The handshakes of a provider, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    list: Vec<Handshake>,
    /// Every JSON member that one of them reads.
    paths: Vec<JsonPath>,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What it is recognised by, for logs: `hub.mode`, `x-hook-secret`, `head`.
    pub label: Arc<str>,
    /// The method, the head, the body: what is cheap is asked first.
    when: Vec<Condition>,
    trust: Trust,
    compute: Option<Compute>,
    answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Method(Method),
    Equals(Place, String),
    Present(Place),
    EmptyBody,
}

/// Who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trust {
    /// Who has signed the request.
    Signed,
    /// Who knows this setting of the route.
    Knows(Place, String),
    /// Anybody: the provider asks without a signature.
    Anybody,
    /// Anybody, who brings the route's secret along, while the route waits for one.
    Brings(Place),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Compute {
    kind: ComputeKind,
    message: Text,
    encoding: Option<Encoding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: Vec<(HeaderName, Text)>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Empty,
    Text(Text),
    Json(Vec<(String, Member)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    Text(Text),
    Fixed(serde_json::Value),
}

/// What a route answers with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The route's secrets, settings and public URL.
    pub verifier: &'a Verifier,
    /// Decides which secret is active.
    pub now: UnixMillis,
}

/// What an unsigned request turned out to be. No `Debug`: a secret may be in it.
pub enum Met {
    /// No handshake.
    Nothing,
    /// One whose asker does not know what it has to know.
    Refused,
    /// One to answer.
    Reply(HandshakeReply),
    /// One that brings a secret: to be answered only when the route waits for one and has kept it.
    Brings(Secret, HandshakeReply),
}

/// The answer to a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeReply {
    /// The handshake's label.
    pub label: Arc<str>,
    /// Status code.
    pub status: u16,
    /// `content-type`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, at most 4 KiB for each value in it.
    pub body: Bytes,
}

impl Handshakes {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Handshake> {
        self.list.iter()
    }

    /// Whether an unsigned handshake may begin with this head, which has a method that the route takes for no event.
    pub fn may_begin(&self, head: &Asked<'_>) -> bool {
        let reading = Reading::new(*head, &self.paths);
        let begins = |handshake: &&Handshake| {
            handshake.trust != Trust::Signed && handshake.names_method() && handshake.begins(&reading)
        };
        self.list.iter().any(|handshake| begins(&handshake))
    }

    /// Answers a request that nothing is proven about. `taken` says that its method is one for events, too; a
    /// handshake that names no method is asked by those alone.
    pub fn unsigned(&self, asked: &Asked<'_>, taken: bool, means: &Means<'_>) -> Met {
        let reading = Reading::new(*asked, &self.paths);
        let mut refused = false;
        for handshake in &self.list {
            if handshake.trust == Trust::Signed || !(taken || handshake.names_method()) || !handshake.holds(&reading) {
                continue;
            }
            match handshake.meet(&reading, means) {
                Met::Nothing => {}
                Met::Refused => refused = true,
                met => return met,
            }
        }
        match refused {
            true => Met::Refused,
            false => Met::Nothing,
        }
    }

    /// Answers a request that has passed verification; `None` when it is an event.
    pub fn signed(&self, asked: &Asked<'_>, proof: &Proof, means: &Means<'_>) -> Option<HandshakeReply> {
        let bound = proof.strength() == Strength::Verified;
        let reading = Reading::new(*asked, &self.paths);
        let mut signed = self.list.iter().filter(|handshake| handshake.trust == Trust::Signed);
        signed.find_map(|handshake| {
            // Who may be reflected to has signed what is reflected.
            let may = bound || !handshake.reads_body();
            (may && handshake.holds(&reading)).then(|| handshake.reply(&reading, means))?
        })
    }

    /// Whether a signature of this body may be one that the route has made for a stranger. What was lent is a word; so
    /// is every part of it, an empty one between its ends included.
    pub fn could_have_lent(&self, body: &[u8]) -> bool {
        let part_of_word = || body.is_empty() || std::str::from_utf8(body).is_ok_and(is_word);
        self.list.iter().any(Handshake::lends) && part_of_word()
    }

    /// Whether one of them brings the route's secret along.
    pub fn bring_secrets(&self) -> bool {
        let brings = |handshake: &Handshake| matches!(handshake.trust, Trust::Brings(_));
        self.list.iter().any(brings)
    }

    /// Whether one of them needs the route's public URL.
    pub fn use_url(&self) -> bool {
        let uses = |handshake: &Handshake| handshake.compute_parts().any(|part| *part == text::Part::Url);
        self.list.iter().any(uses)
    }

    /// The settings that they need, some of them several times.
    pub fn settings(&self) -> impl Iterator<Item = &str> {
        self.list.iter().flat_map(Handshake::settings)
    }
}

impl Handshake {
    fn names_method(&self) -> bool {
        self.when
            .iter()
            .any(|condition| matches!(condition, Condition::Method(_)))
    }

    /// Whether what the head says fits.
    fn begins(&self, reading: &Reading<'_>) -> bool {
        let mut of_head = self.when.iter().filter(|condition| !condition.in_body());
        of_head.all(|condition| condition.holds(reading))
    }

    fn holds(&self, reading: &Reading<'_>) -> bool {
        self.when.iter().all(|condition| condition.holds(reading))
    }

    /// Whether it makes MACs under the route's secret for who has proven nothing.
    fn lends(&self) -> bool {
        // A native scheme lends nothing but answers to challenges of its own shape.
        let mac = |compute: &Compute| !matches!(compute.kind, ComputeKind::Sha256 | ComputeKind::Native);
        self.trust != Trust::Signed && self.compute.as_ref().is_some_and(mac)
    }

    fn reads_body(&self) -> bool {
        self.when.iter().any(Condition::in_body) || self.places().any(Place::in_body)
    }

    fn meet(&self, reading: &Reading<'_>, means: &Means<'_>) -> Met {
        if let Trust::Knows(place, setting) = &self.trust {
            let (told, known) = (reading.value(place), means.verifier.settings().find(setting));
            if !same(told.as_deref().unwrap_or_default(), known) {
                return Met::Refused;
            }
        }
        match (self.reply(reading, means), &self.trust) {
            (None, _) => Met::Nothing,
            (Some(reply), Trust::Brings(place)) => {
                let text = reading.value(place).filter(|text| is_printable(text));
                match text.and_then(|text| Secret::new(text).ok()) {
                    Some(secret) => Met::Brings(secret, reply),
                    None => Met::Nothing,
                }
            }
            (Some(reply), _) => Met::Reply(reply),
        }
    }

    fn reply(&self, reading: &Reading<'_>, means: &Means<'_>) -> Option<HandshakeReply> {
        let computed = match &self.compute {
            Some(compute) => Some(compute.result(reading, means, self.lends())?),
            None => None,
        };
        let with = means.ingredients(computed.as_deref());
        let signed = self.trust == Trust::Signed;
        let fill = |text: &Text| text.fill(reading, with, |value| signed || !value.contains(['<', '>']));
        let mut headers = Vec::with_capacity(self.answer.headers.len());
        for (name, text) in &self.answer.headers {
            headers.push((name.clone(), HeaderValue::try_from(fill(text)?).ok()?));
        }
        let (content_type, body) = match &self.answer.body {
            Body::Empty => (TEXT, Vec::new()),
            Body::Text(text) => (TEXT, fill(text)?.into_bytes()),
            Body::Json(members) => ("application/json", json(members, fill)?),
        };
        Some(HandshakeReply {
            label: Arc::clone(&self.label),
            status: self.answer.status,
            content_type,
            headers,
            body: Bytes::from(body),
        })
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn json(members: &[(String, Member)], fill: impl Fn(&Text) -> Option<String>) -> Option<Vec<u8>> {
    let mut object = serde_json::Map::new();
    for (name, member) in members {
        let value = match member {
            Member::Text(text) => fill(text)?.into(),
            Member::Fixed(value) => value.clone(),
        };
        object.insert(name.clone(), value);
    }
    serde_json::to_vec(&object).ok()
}

impl Condition {
    fn in_body(&self) -> bool {
        match self {
            Condition::Method(_) => false,
            Condition::Equals(place, _) | Condition::Present(place) => place.in_body(),
            Condition::EmptyBody => true,
        }
    }

    fn holds(&self, reading: &Reading<'_>) -> bool {
        match self {
            Condition::Method(method) => reading.asked().method == method,
            Condition::Equals(place, text) => reading.value(place).is_some_and(|value| value == *text),
            Condition::Present(place) => reading.value(place).is_some_and(|value| !value.is_empty()),
            Condition::EmptyBody => reading.asked().body.is_empty(),
        }
    }
}

impl Compute {
    fn result(&self, reading: &Reading<'_>, means: &Means<'_>, lent: bool) -> Option<String> {
        let fits = |value: &str| !lent || is_word(value);
        let message = self.message.fill(reading, means.ingredients(None), fits)?;
        let bytes = match self.kind {
            ComputeKind::Sha256 => Sha256::digest(&message).to_vec(),
            // Of the kind of the scheme's own: the build has seen to that.
            ComputeKind::HmacSha1 | ComputeKind::HmacSha256 | ComputeKind::HmacSha384 | ComputeKind::HmacSha512 => {
                means.verifier.mac(message.as_bytes(), means.now)?
            }
            ComputeKind::Native => return means.verifier.challenge(&message, means.now),
        };
        Some(self.encoding?.encode(&bytes))
    }
}

impl<'a> Means<'a> {
    fn ingredients(&self, computed: Option<&'a str>) -> Ingredients<'a> {
        Ingredients {
            settings: self.verifier.settings(),
            public_url: self.verifier.public_url(),
            computed,
        }
    }
}

impl fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

/// Whether a text is one word of letters, digits and the signs that encodings use: no JSON object or list, no form of
/// several fields, no XML is one.
fn is_word(text: &str) -> bool {
    let in_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_.~:".contains(&byte);
    !text.is_empty() && text.len() <= WORD_BYTES_MAX && text.bytes().all(in_word)
}

/// Compares in a time that tells neither content nor length of what is known.
fn same(told: &str, known: Option<&str>) -> bool {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    let equal = digest(told).ct_eq(&digest(known.unwrap_or_default()));
    bool::from(equal) && known.is_some_and(|known| !known.is_empty())
}
