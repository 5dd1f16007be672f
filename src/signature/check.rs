//! The check of one request: from head, body and time to a proof or a failure.
//!
//! The gateway calls [`Verifier::begin`] when the head is there, [`Check::update`] for every piece of body that
//! arrives and [`Check::finish`] at its end. Where the scheme allows it the MAC is computed on the way, so that a verdict
//! costs one pass over the body and no second copy; other schemes are judged at the end, over the whole request.
//!
//! What a forger can measure is the same for every failure: a request whose headers are already known to be useless
//! still has its whole body hashed under every active secret, and every signature is compared with every secret to
//! the last byte. Age is judged only when a signature matched; a stale forgery is a forgery.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};
use subtle::{Choice, ConstantTimeEq};

use super::extract::{self, Presented};
use super::mac::{Mac, Tag};
use super::native::{Found, Message};
use super::proof::{Failure, Proof};
use super::recipe::Recipe;
use super::scheme::Plan;
use super::template::Values;
use super::timestamp::is_fresh;
use super::verify::{Head, Key, Material, Verifier};
use super::wanted::{FetchedKey, KeySource};
use super::whole::{self, Judged, Pending};
use crate::clock::UnixMillis;

/// How a check ends that did not fail.
#[derive(Debug)]
pub enum Finished<'v> {
    /// The request is proven.
    Proven(Proof),
    /// The provider publishes the key: fetch it and go on.
    KeyWanted(KeyWanted<'v>),
}

impl Finished<'_> {
    /// The proof, for callers that fetch nothing.
    ///
    /// # Errors
    /// [`Failure::UnknownKey`] when a key would have to be fetched.
    pub fn without_fetching(self) -> Result<Proof, Failure> {
        match self {
            Finished::Proven(proof) => Ok(proof),
            Finished::KeyWanted(_) => Err(Failure::UnknownKey),
        }
    }
}

/// One request's verification under way.
pub struct Check<'v> {
    verifier: &'v Verifier,
    now: UnixMillis,
    body_bytes: u64,
    work: Work<'v>,
}

enum Work<'v> {
    Streamed(Streamed<'v>),
    Whole(Box<Received>),
}

/// A MAC that is computed while the body arrives.
struct Streamed<'v> {
    running: Vec<Running<'v>>,
    known: Option<Failure>,
    tags: Vec<Tag>,
    tail: Vec<u8>,
    signed_id: Option<String>,
    timestamp: Option<UnixMillis>,
}

/// A secret at work.
struct Running<'v> {
    id: &'v Arc<str>,
    mac: Mac,
}

/// The head of a request, kept until the body is there.
struct Received {
    method: Method,
    target: String,
    headers: HeaderMap,
}

impl<'v> Check<'v> {
    pub(super) fn begin(verifier: &'v Verifier, head: Head<'_>, now: UnixMillis) -> Check<'v> {
        let work = match (&verifier.scheme.plan, verifier.streamed_tag_bytes) {
            (Plan::Recipe(recipe), Some(bytes)) => Work::Streamed(Streamed::begin(verifier, recipe, bytes, head, now)),
            _ => Work::Whole(Box::new(Received {
                method: head.method.clone(),
                target: head.target.to_owned(),
                headers: head.headers.clone(),
            })),
        };
        Check {
            verifier,
            now,
            body_bytes: 0,
            work,
        }
    }

    /// Takes the next bytes of the body, exactly as received. How they are cut up makes no difference.
    pub fn update(&mut self, chunk: &[u8]) {
        self.body_bytes = self.body_bytes.saturating_add(chunk.len() as u64);
        if let Work::Streamed(streamed) = &mut self.work
            && self.verifier.template.has_body()
        {
            streamed.running.iter_mut().for_each(|key| key.mac.update(chunk));
        }
    }

    /// Ends the check. `body` is the whole of what [`Check::update`] was given; schemes that sign fields of the body
    /// read them from it. A body of another length proves nothing and fails.
    ///
    /// # Errors
    /// The [`Failure`], in the order of [`Failure::ALL`].
    pub fn finish(self, body: &[u8]) -> Result<Finished<'v>, Failure> {
        let whole = self.body_bytes == body.len() as u64;
        let (verifier, now) = (self.verifier, self.now);
        match self.work {
            Work::Streamed(streamed) => streamed.finish(verifier, now, whole).map(Finished::Proven),
            Work::Whole(_) if !whole => Err(Failure::Mismatch),
            Work::Whole(received) => {
                let judged = whole::judge(verifier, &received.message(verifier, body), now)?;
                match judged {
                    Judged::Found(found, key_id) => prove(verifier, found, key_id, now).map(Finished::Proven),
                    Judged::Pending(pending) => Ok(Finished::KeyWanted(KeyWanted {
                        verifier,
                        now,
                        received,
                        pending,
                    })),
                }
            }
        }
    }
}

#[cfg(test)]
impl Check<'_> {
    /// What the secrets have made of the message so far.
    pub(super) fn macs_so_far(&self) -> Vec<Tag> {
        match &self.work {
            Work::Streamed(streamed) => streamed.running.iter().map(|key| key.mac.clone().finish()).collect(),
            Work::Whole(_) => Vec::new(),
        }
    }
}

impl<'v> Streamed<'v> {
    fn begin(verifier: &'v Verifier, recipe: &Recipe, tag_bytes: usize, head: Head<'_>, now: UnixMillis) -> Self {
        let required = extract::required(&verifier.scheme.require, head.headers);
        let read = required.and_then(|()| extract::read(recipe, tag_bytes, head.headers));
        let (presented, mut known) = match read {
            Ok(presented) => (presented, None),
            Err(failure) => (nothing(), Some(failure)),
        };
        let mut running = Vec::with_capacity(verifier.keys.len());
        verifier.active(now).for_each(|key| Running::push(&mut running, key));
        if running.is_empty() {
            known = known.or(Some(Failure::UnknownKey));
            verifier
                .keys
                .iter()
                .take(1)
                .for_each(|key| Running::push(&mut running, key));
        }
        if !verifier.fits_query(head.target) {
            known = known.or(Some(Failure::Mismatch));
        }
        let template = &verifier.template;
        template.write_head(presented.values, |bytes| {
            running.iter_mut().for_each(|key| key.mac.update(bytes));
        });
        let mut tail = Vec::new();
        template.write_tail(presented.values, |bytes| tail.extend_from_slice(bytes));
        Streamed {
            running,
            known,
            tail,
            signed_id: presented.id.map(str::to_owned),
            timestamp: presented.timestamp,
            tags: presented.tags,
        }
    }

    fn finish(self, verifier: &Verifier, now: UnixMillis, whole: bool) -> Result<Proof, Failure> {
        let tail = self.tail;
        let computed = self.running.into_iter().map(|Running { id, mut mac }| {
            mac.update(&tail);
            (id, mac.finish())
        });
        let mut digests = Vec::with_capacity(computed.len());
        let mut matched: Option<&Arc<str>> = None;
        for (id, computed) in computed {
            let any = self
                .tags
                .iter()
                .fold(Choice::from(0), |any, tag| any | tag.ct_eq(&computed));
            if bool::from(any) {
                matched = matched.or(Some(id));
            }
            digests.push(computed.digest());
        }
        if let Some(failure) = self.known {
            return Err(failure);
        }
        let Some(key_id) = matched.filter(|_| whole) else {
            return Err(Failure::Mismatch);
        };
        let found = Found {
            matched: None,
            digests,
            signed_id: self.signed_id,
            timestamp: self.timestamp,
            strength: verifier.strength,
        };
        prove(verifier, found, key_id.clone(), now)
    }
}

impl<'v> Running<'v> {
    /// Starts a key's MAC where it will run. Streamed schemes have no other keys.
    fn push(running: &mut Vec<Running<'v>>, key: &'v Key) {
        if let Material::Mac(mac) = &key.material {
            running.push(Running {
                id: &key.id,
                mac: mac.clone(),
            });
        }
    }
}

impl Received {
    fn message<'a>(&'a self, verifier: &'a Verifier, body: &'a [u8]) -> Message<'a> {
        Message {
            method: self.method.as_str(),
            target: &self.target,
            headers: &self.headers,
            body,
            public_url: verifier.public_url.as_ref(),
            settings: &verifier.settings,
        }
    }
}

/// A verification that goes on when its key is there. Everything that can be judged without the key has been.
pub struct KeyWanted<'v> {
    verifier: &'v Verifier,
    now: UnixMillis,
    received: Box<Received>,
    pending: Pending,
}

impl KeyWanted<'_> {
    /// What to fetch.
    pub fn source(&self) -> &KeySource {
        self.pending.source()
    }

    /// Ends the check with the key. `body` is what [`Check::finish`] was given.
    ///
    /// # Errors
    /// The [`Failure`]; [`Failure::UnknownKey`] when `fetched` is not the wanted key.
    pub fn resume(self, fetched: &FetchedKey, body: &[u8]) -> Result<Proof, Failure> {
        let message = self.received.message(self.verifier, body);
        let key_id = Arc::from(self.pending.source().url().host());
        let confirmation = self.pending.confirmation().cloned();
        let found = self.pending.judge(self.verifier, &message, fetched, self.now)?;
        match found.matched {
            Some(_) => prove(self.verifier, found, key_id, self.now).map(|proof| proof.asking(confirmation)),
            None => Err(Failure::Mismatch),
        }
    }
}

/// The last question, age; then it is a proof. The signature has matched.
fn prove(verifier: &Verifier, found: Found, key_id: Arc<str>, now: UnixMillis) -> Result<Proof, Failure> {
    if let (Some(signed), Some(tolerance)) = (found.timestamp, verifier.tolerance)
        && !is_fresh(signed, now, tolerance)
    {
        return Err(Failure::Stale);
    }
    let mut digests = found.digests;
    digests.sort_unstable();
    digests.dedup();
    Ok(Proof::new(
        found.strength,
        key_id,
        found.signed_id,
        digests,
        found.timestamp,
    ))
}

/// What stands in for headers that could not be read, so that the work goes on as if they could.
fn nothing() -> Presented<'static> {
    Presented {
        tags: Vec::new(),
        values: Values::default(),
        timestamp: None,
        id: None,
    }
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("scheme", &self.verifier.scheme.name())
            .field("body_bytes", &self.body_bytes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyWanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyWanted").field(self.source()).finish()
    }
}
