//! A million random changes to accepted requests, of which none may open anything.
//!
//! Each takes an accepted vector and changes a bit, a byte or a run of bytes in its body or in one of the headers that
//! decide. A changed body must be refused wherever the body is bound. A changed header may be another spelling of the
//! same signature (hexadecimal in capitals, a space): then it must be the same request to the replay guard as well.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::spoilt::accepted;
use super::{Provider, Vector, check};
use crate::signature::{Head, Proof, Strength, Verifier};

/// Changes in all; `HOOKWARD_CHANGES` says otherwise for a long run.
const CHANGES: usize = 1_000_000;

/// Providers that sign the whole of what a body says and not its bytes: a space between two members, or an escape in
/// small letters, makes no other event.
const MEMBERS_ONLY: [&str; 2] = ["braintree", "exact-online"];

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A small generator, the same on every machine (xorshift, Marsaglia 2003).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides.max(1)
    }
}

/// A vector with everything that does not change parsed once.
pub(super) struct Case {
    pub(super) provider: &'static Provider,
    vector: &'static Vector,
    verifier: Verifier,
    names: Vec<HeaderName>,
    proof: Proof,
}

impl Case {
    pub(super) fn of(provider: &'static Provider, vector: &'static Vector) -> Option<Case> {
        let verifier = vector.verifier(provider)?;
        let headers = vector.headers();
        let decides = |name: &&HeaderName| provider.scheme.security_headers().contains(name);
        let names: Vec<_> = headers.keys().filter(decides).cloned().collect();
        let proof = judged(&verifier, vector, &headers, &vector.body())?;
        Some(Case {
            provider,
            vector,
            verifier,
            names,
            proof,
        })
    }

    /// One change; what is wrong about its verdict.
    fn change(&self, dice: &mut Dice) -> Option<String> {
        let (mut headers, mut body) = (self.vector.headers(), self.vector.body());
        let in_body = self.spoil(&mut headers, &mut body, dice)?;
        let proof = judged(&self.verifier, self.vector, &headers, &body)?;
        let same = proof.digests() == self.proof.digests() && proof.signed_id() == self.proof.signed_id();
        let exact = in_body && !MEMBERS_ONLY.contains(&self.provider.id.as_str());
        (exact || !same).then(|| format!("{}: {}: {headers:?}", self.provider.id, self.vector.case))
    }

    /// A changed request as a vector, with its verdict.
    pub(super) fn changed(&self, dice: &mut Dice) -> Option<(Vector, bool)> {
        let (mut headers, mut body) = (self.vector.headers(), self.vector.body());
        self.spoil(&mut headers, &mut body, dice)?;
        let accepted = judged(&self.verifier, self.vector, &headers, &body).is_some();
        let mut changed = self.vector.clone();
        let text = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        changed.headers = headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        changed.body_base64 = Some(STANDARD.encode(body));
        Some((changed, accepted))
    }

    /// Changes one thing; whether that was in the body. `None` when nothing came of it.
    fn spoil(&self, headers: &mut HeaderMap, body: &mut Vec<u8>, dice: &mut Dice) -> Option<bool> {
        let bound = self.proof.strength() == Strength::Verified;
        let in_body = bound && (self.names.is_empty() || dice.roll(2) == 0);
        if in_body {
            let before = body.clone();
            change_bytes(body, dice);
            return (*body != before).then_some(true);
        }
        let name = self.names.get(dice.roll(self.names.len()))?;
        let mut value = headers.get(name)?.as_bytes().to_vec();
        change_bytes(&mut value, dice);
        headers.insert(name, HeaderValue::from_bytes(&value).ok()?);
        Some(false)
    }
}

pub(super) fn judged(verifier: &Verifier, vector: &Vector, headers: &HeaderMap, body: &[u8]) -> Option<Proof> {
    let url: http::Uri = vector.url.parse().unwrap();
    let head = Head {
        method: &vector.method.parse().unwrap(),
        target: url.path_and_query().map_or("/", |target| target.as_str()),
        headers,
    };
    check(verifier, head, body, vector.now(), vector.fetched.as_deref()).ok()
}

fn change_bytes(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.roll(bytes.len());
    match dice.roll(6) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
        1 if !bytes.is_empty() => drop(bytes.remove(at)),
        2 if !bytes.is_empty() => bytes.insert(at, bytes[at]),
        3 if !bytes.is_empty() => bytes.truncate(at),
        4 if !bytes.is_empty() => {
            let other = dice.roll(bytes.len());
            bytes.swap(at, other);
        }
        _ => bytes.insert(at, dice.roll(256) as u8),
    }
}

#[test]
fn a_million_changes_open_nothing() {
    // A forger who tries long enough would be let in.
    let cases: Vec<_> = accepted()
        .filter_map(|(provider, vector)| Case::of(provider, vector))
        .collect();
    let cases: Vec<_> = cases
        .iter()
        .filter(|case| !case.names.is_empty() || case.proof.strength() == Strength::Verified)
        .collect();
    assert!(cases.len() > 350, "{} requests to change", cases.len());
    let changes = std::env::var("HOOKWARD_CHANGES").map_or(CHANGES, |count| count.parse().unwrap());
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let done = AtomicUsize::new(0);
    let wrong: Vec<String> = thread::scope(|scope| {
        let work = |lane: usize| {
            let mut dice = Dice(SEED ^ (lane as u64 + 1));
            let mut wrong = Vec::new();
            // Every case comes as often as any other.
            for turn in (lane..changes).step_by(threads) {
                wrong.extend(cases[turn % cases.len()].change(&mut dice));
                done.fetch_add(1, Ordering::Relaxed);
            }
            wrong
        };
        let lanes: Vec<_> = (0..threads).map(|lane| scope.spawn(move || work(lane))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of them, such as {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert_eq!(done.load(Ordering::Relaxed), changes);
}
