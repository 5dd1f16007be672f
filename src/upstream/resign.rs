//! A signature of our own for the upstream, after Standard Webhooks: `webhook-id`, `webhook-timestamp`,
//! `webhook-signature`.
//!
//! Whoever sends an event on, the corridor or the queue's worker, asks for one per attempt: the time is that of the
//! attempt, the id that of the event. A backend then checks one scheme for all providers, and need not believe the
//! network between. Under several secrets the event is signed with each, so that a secret can be changed without a gap.
//!
//! The id is a digest and never what the provider called the event: an id with a full stop could be cut in another
//! place, and would make two messages of one signature. What came in under the three names, in any spelling, goes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderName;
use sha2::{Digest, Sha256};

use super::head::family;
use crate::clock::UnixMillis;
use crate::secret::Secret;

/// What every library of Standard Webhooks takes as a key, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs for one upstream's eyes. `Debug` shows no key.
#[derive(Clone)]
pub struct Resign {
    keys: Vec<Hmac<Sha256>>,
    fingerprint: [u8; 32],
}

/// Why a secret cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResignError {
    /// Not of the form that receivers' libraries read.
    #[error("is not `whsec_` and 24 to 64 bytes in base64")]
    Form,
}

/// The three headers of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resigned {
    id: String,
    timestamp: String,
    signature: String,
}

impl Resign {
    /// Signs with every one of `secrets`.
    ///
    /// # Errors
    /// The position of the first secret that is not of the form `whsec_` and base64 of 24 to 64 bytes.
    pub fn new(secrets: &[Secret]) -> Result<Self, (usize, ResignError)> {
        let keys: Vec<Vec<u8>> = secrets
            .iter()
            .enumerate()
            .map(|(position, secret)| key(secret).ok_or((position, ResignError::Form)))
            .collect::<Result<_, _>>()?;
        let mut fingerprint = Sha256::new();
        for key in &keys {
            fingerprint.update(Sha256::digest(key));
        }
        Ok(Resign {
            // A MAC takes a key of any length.
            keys: keys.iter().filter_map(|key| Hmac::new_from_slice(key).ok()).collect(),
            fingerprint: fingerprint.finalize().into(),
        })
    }

    /// The headers for an attempt made at `now`. `route` and `event` name the event: the same names give the same
    /// `webhook-id`.
    pub fn sign(&self, route: &str, event: &[u8], now: UnixMillis, body: &[u8]) -> Resigned {
        let id = id(route, event);
        let timestamp = now.seconds().to_string();
        let mut signature = String::new();
        for key in &self.keys {
            let mut mac = key.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !signature.is_empty() {
                signature.push(' ');
            }
            signature.push_str("v1,");
            STANDARD.encode_string(mac.finalize().into_bytes(), &mut signature);
        }
        Resigned {
            id,
            timestamp,
            signature,
        }
    }
}

impl Resigned {
    /// Names and values.
    pub fn headers(&self) -> [(&'static str, &str); 3] {
        [
            ("webhook-id", &self.id),
            ("webhook-timestamp", &self.timestamp),
            ("webhook-signature", &self.signature),
        ]
    }
}

impl PartialEq for Resign {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Resign {}

impl fmt::Debug for Resign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resign(..)")
    }
}

/// Whether a header that came in stands in the way of ours.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .into_iter()
        .any(|ours| ours.len() == name.len() && family(name, ours))
}

fn key(secret: &Secret) -> Option<Vec<u8>> {
    let text = secret.expose().strip_prefix(b"whsec_")?;
    let key = STANDARD.decode(text).ok()?;
    KEY_BYTES.contains(&key.len()).then_some(key)
}

/// `msg_` and 128 bits of a digest, each part with its length in front.
fn id(route: &str, event: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"hookward webhook-id 1\n");
    for part in [route.as_bytes(), event] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (half, _) = digest.split_at(16);
    format!("msg_{}", hex::encode(half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::builtin;
    use crate::signature::{Head, KeyedSecret, Verifier, VerifierOptions};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text).unwrap()).collect()
    }

    #[test]
    fn receivers_can_check_it_under_each_secret() {
        // A backend that checks would refuse every event, or every event while a secret is changed.
        let resign = Resign::new(&secrets(&[NEW, OLD])).unwrap();
        let resigned = resign.sign("github", b"evt_1", NOW, b"body");
        let mut headers = http::HeaderMap::new();
        for (name, value) in resigned.headers() {
            headers.insert(name, value.parse().unwrap());
        }
        for text in [NEW, OLD] {
            let keyed = KeyedSecret {
                id: "a".into(),
                secret: Secret::new(text).unwrap(),
                until: None,
            };
            let scheme = &builtin().find("standard-webhooks").unwrap().scheme;
            let verifier = Verifier::new(scheme.clone(), vec![keyed], VerifierOptions::default()).unwrap();
            let head = Head {
                method: &http::Method::POST,
                target: "/",
                headers: &headers,
            };
            let mut check = verifier.begin(head, NOW);
            check.update(b"body");
            assert!(check.finish(b"body").is_ok());
        }
    }

    #[test]
    fn an_event_has_one_id_and_no_other_has_it() {
        // A backend that remembers ids would take the same event twice, or drop another one.
        let resign = Resign::new(&secrets(&[OLD])).unwrap();
        let id = |route: &str, event: &[u8], now| resign.sign(route, event, now, b"").id;
        let first = id("ab", b"c", NOW);
        assert_eq!(first, id("ab", b"c", UnixMillis(NOW.0 + 60_000)));
        assert_eq!(first.len(), 36);
        for (route, event) in [("a", b"bc".as_slice()), ("ab", b"d"), ("b", b"c"), ("ab", b"")] {
            assert_ne!(first, id(route, event, NOW));
        }
    }

    #[test]
    fn weak_or_misread_secrets_are_refused() {
        // A secret that the receiver's library decodes otherwise verifies nothing.
        for wrong in [
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            "whsec_!!KQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            let refused = Resign::new(&secrets(&[OLD, wrong]));
            assert_eq!(refused, Err((1, ResignError::Form)), "{wrong}");
        }
        let resign = Resign::new(&secrets(&[OLD])).unwrap();
        assert_eq!(format!("{resign:?}"), "Resign(..)");
    }

    #[test]
    fn look_alikes_of_our_headers_are_ours() {
        // A CGI-like backend reads `webhook_id` and `webhook-id` as one variable, and may get the stranger's.
        for (name, ours) in [
            ("webhook-id", true),
            ("webhook_id", true),
            ("webhook.signature", true),
            ("webhook-timestamp", true),
            ("webhook-ids", false),
            ("webhookxid", false),
            ("x-webhook-id", false),
        ] {
            assert_eq!(is_ours(&HeaderName::from_static(name)), ours, "{name}");
        }
    }
}
