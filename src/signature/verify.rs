//! The check itself: from headers, body and time to a proof or a failure.
//!
//! The gateway calls [`Verifier::begin`] when the head is there, [`Check::update`] for every piece of body that
//! arrives and [`Check::finish`] at its end, so that a verdict costs one pass over the body and no second copy.
//!
//! What a forger can measure is the same for every failure: a request whose headers are already known to be useless
//! still has its whole body hashed under every active secret, and every signature is compared with every secret to
//! the last byte. Age is judged only when a signature matched; a stale forgery is a forgery.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use subtle::{Choice, ConstantTimeEq};

use super::extract::{self, Presented};
use super::key::{self, KeyError, KeyedSecret};
use super::mac::{Mac, Tag};
use super::proof::{Failure, Proof, Strength};
use super::scheme::{Scheme, check_tolerance};
use super::template::Values;
use super::timestamp::is_fresh;
use crate::clock::UnixMillis;

/// What a route may say beyond its scheme.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifierOptions {
    /// Replaces the scheme's tolerance; between one second and one day.
    pub tolerance: Option<Duration>,
    /// Allows keys of fewer than [`SECRET_BYTES_MIN`](crate::secret::SECRET_BYTES_MIN) bytes.
    pub allow_short: bool,
}

/// A scheme with the secrets of one route: keys decoded and MACs keyed once, cloned for every request.
pub struct Verifier {
    scheme: Arc<Scheme>,
    keys: Vec<Key>,
    tolerance: Option<Duration>,
}

struct Key {
    id: Arc<str>,
    until: Option<UnixMillis>,
    mac: Mac,
}

impl Verifier {
    /// Decodes and checks the secrets. Their order decides only which id is reported when several match.
    ///
    /// # Errors
    /// [`KeyError`] when there is no secret, when one is empty, short, undecodable or there twice, or when the
    /// tolerance does not fit the scheme.
    pub fn new(scheme: Arc<Scheme>, secrets: Vec<KeyedSecret>, options: VerifierOptions) -> Result<Verifier, KeyError> {
        if secrets.is_empty() {
            return Err(KeyError::NoSecret);
        }
        let tolerance = match (options.tolerance, scheme.tolerance()) {
            (Some(_), None) => return Err(KeyError::Tolerance("has no meaning: the scheme signs no time")),
            (Some(tolerance), Some(_)) => Some(check_tolerance(tolerance).map_err(KeyError::Tolerance)?),
            (None, tolerance) => tolerance,
        };
        let mut decoded = Vec::with_capacity(secrets.len());
        let mut keys: Vec<Key> = Vec::with_capacity(secrets.len());
        for KeyedSecret { id, secret, until } in secrets {
            if keys.iter().any(|other| other.id == id) {
                return Err(KeyError::DuplicateId { id: id.to_string() });
            }
            let bytes = key::decode(scheme.key, &id, &secret)?;
            if !options.allow_short {
                key::check_length(&id, &bytes)?;
            }
            if let Some(at) = decoded.iter().position(|other| *other == bytes) {
                let first = keys.get(at).map(|other| other.id.to_string()).unwrap_or_default();
                let second = id.to_string();
                return Err(KeyError::SameKey { first, second });
            }
            let mac = Mac::keyed(scheme.mac, &bytes);
            decoded.push(bytes);
            keys.push(Key { id, until, mac });
        }
        Ok(Verifier {
            scheme,
            keys,
            tolerance,
        })
    }

    /// The scheme it verifies.
    pub fn key_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.keys.iter().map(|key| &key.id)
    }

    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Starts the check of one request. `now` decides which secrets are active and, at the end, about age.
    ///
    /// Fails never: what the headers lack is reported by [`Check::finish`], after the same work.
    pub fn begin(&self, headers: &HeaderMap, now: UnixMillis) -> Check<'_> {
        let (presented, known) = match extract::read(&self.scheme, headers) {
            Ok(presented) => (presented, None),
            Err(failure) => (nothing(), Some(failure)),
        };
        let mut running: Vec<Running<'_>> = self.active(now).map(Running::from).collect();
        let mut known = known;
        if running.is_empty() {
            known = known.or(Some(Failure::UnknownKey));
            running.extend(self.keys.first().map(Running::from));
        }
        let template = &self.scheme.template;
        template.write_head(presented.values, |bytes| {
            running.iter_mut().for_each(|key| key.mac.update(bytes));
        });
        let mut tail = Vec::new();
        template.write_tail(presented.values, |bytes| tail.extend_from_slice(bytes));
        Check {
            verifier: self,
            running,
            known,
            tail,
            signed_id: presented.id.map(str::to_owned),
            timestamp: presented.timestamp,
            tags: presented.tags,
            now,
            body_bytes: 0,
        }
    }

    fn active(&self, now: UnixMillis) -> impl Iterator<Item = &Key> {
        self.keys
            .iter()
            .filter(move |key| key.until.is_none_or(|until| now < until))
    }
}

impl fmt::Debug for Verifier {
    /// The ids of the secrets, nothing of the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("scheme", &self.scheme.name())
            .field("key_ids", &self.keys.iter().map(|key| &key.id).collect::<Vec<_>>())
            .field("tolerance", &self.tolerance)
            .finish_non_exhaustive()
    }
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

/// One request's verification under way.
pub struct Check<'v> {
    verifier: &'v Verifier,
    running: Vec<Running<'v>>,
    known: Option<Failure>,
    tags: Vec<Tag>,
    tail: Vec<u8>,
    signed_id: Option<String>,
    timestamp: Option<UnixMillis>,
    now: UnixMillis,
    body_bytes: u64,
}

/// A secret at work.
struct Running<'v> {
    id: &'v Arc<str>,
    mac: Mac,
}

impl<'v> From<&'v Key> for Running<'v> {
    fn from(key: &'v Key) -> Self {
        Running {
            id: &key.id,
            mac: key.mac.clone(),
        }
    }
}

impl Check<'_> {
    /// Takes the next bytes of the body, exactly as received. How they are cut up makes no difference.
    pub fn update(&mut self, chunk: &[u8]) {
        self.body_bytes = self.body_bytes.saturating_add(chunk.len() as u64);
        if self.verifier.scheme.template.has_body() {
            self.running.iter_mut().for_each(|key| key.mac.update(chunk));
        }
    }

    /// Ends the check. `body` is the whole of what [`Check::update`] was given; schemes that sign fields of the body
    /// read them from it. A body of another length proves nothing and fails.
    ///
    /// # Errors
    /// The [`Failure`], in the order of [`Failure::ALL`].
    pub fn finish(self, body: &[u8]) -> Result<Proof, Failure> {
        let whole = self.body_bytes == body.len() as u64;
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
        if let (Some(signed), Some(tolerance)) = (self.timestamp, self.verifier.tolerance)
            && !is_fresh(signed, self.now, tolerance)
        {
            return Err(Failure::Stale);
        }
        let strength = if self.verifier.scheme.template.has_body() {
            Strength::Verified
        } else {
            Strength::Authenticated
        };
        digests.sort_unstable();
        Ok(Proof::new(
            strength,
            key_id.clone(),
            self.signed_id,
            digests,
            self.timestamp,
        ))
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
