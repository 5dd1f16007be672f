//! What no signature covers, dropped, changed, doubled and added: such a request is refused, or it is the very same event
//! to the replay guard.
//!
//! Whoever has one captured request can choose all of that freely, and would have it delivered again under each choice.

use super::mutated::judged;
use super::spoilt::accepted;
use super::{Provider, Vector};

/// Labels that some provider or proxy writes, and others read.
const LABELS: [&str; 6] = [
    "x-request-id",
    "x-github-delivery",
    "idempotency-key",
    "webhook-id",
    "svix-id",
    "date",
];

type Headers = Vec<(String, String)>;

/// What the replay guard knows a request by.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    Event(String),
    Digests(Vec<[u8; 32]>),
}

/// `None` for a request that is refused.
fn identity(provider: &Provider, vector: &Vector) -> Option<Identity> {
    let verifier = vector.verifier(provider)?;
    let (headers, body) = (vector.headers(), vector.body());
    let proof = judged(&verifier, vector, &headers, &body)?;
    let facts = provider.facts(&headers, &body, Some(&proof));
    Some(match facts.event_id {
        Some(id) => Identity::Event(id),
        None => Identity::Digests(proof.digests().to_vec()),
    })
}

/// Every change of one header, and of what might be taken for an id.
fn changed(provider: &Provider, vector: &Vector) -> Vec<(String, Vector)> {
    let mut all = Vec::new();
    let mut push = |name: String, change: &dyn Fn(&mut Headers)| {
        let mut other = vector.clone();
        change(&mut other.headers);
        all.push((name, other));
    };
    for (at, (name, value)) in vector.headers.iter().enumerate() {
        push(format!("without {name}"), &|headers| drop(headers.remove(at)));
        for other in [
            format!("{value}1"),
            format!("1{value}"),
            "other".to_owned(),
            String::new(),
        ] {
            push(format!("{name}: {other:?}"), &|headers| headers[at].1 = other.clone());
            push(format!("{name} and {other:?}"), &|headers| {
                headers.insert(at + 1, (name.clone(), other.clone()));
            });
            push(format!("{other:?} and {name}"), &|headers| {
                headers.insert(at, (name.clone(), other.clone()));
            });
        }
        push(format!("{name} twice"), &|headers| headers.push(headers[at].clone()));
    }
    let delivery = provider.event.delivery.iter().map(http::HeaderName::as_str);
    for label in LABELS.into_iter().chain(delivery) {
        for value in ["1", "2"] {
            push(format!("with {label}: {value}"), &|headers| {
                headers.push((label.to_owned(), value.to_owned()));
            });
        }
    }
    let mut query = vector.clone();
    let public_url = query.public_url.take().unwrap_or_else(|| query.url.clone());
    query.public_url = Some(public_url);
    query.url.push_str(if query.url.contains('?') {
        "&added=1"
    } else {
        "?added=1"
    });
    all.push(("with more in the query".to_owned(), query));
    all
}

#[test]
fn what_is_not_signed_makes_no_other_event() {
    // One captured request would be as many events as there are ids to think of.
    let (mut count, mut same) = (0, 0);
    let mut wrong = Vec::new();
    for (provider, vector) in accepted() {
        let Some(own) = identity(provider, vector) else {
            continue;
        };
        for (name, other) in changed(provider, vector) {
            count += 1;
            match identity(provider, &other) {
                Some(other) if other == own => same += 1,
                Some(_) => wrong.push(format!("{}: {}: {name}", provider.id, vector.case)),
                None => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
    assert!(
        count >= 10_000 && same >= 5_000,
        "{count} changes, {same} of them the same event"
    );
}
