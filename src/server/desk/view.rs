//! What operators see of events, as JSON. The words are those of docs/openapi.yaml.
//!
//! Some providers prove themselves by a secret in a header or in the query, and what they sent is kept as it came. What
//! such a name announces is not shown: whoever may read events may not, for that, send them. Times are RFC 3339 in UTC. A
//! body is shown only when it is asked for, in base64, so that it is the bytes that were
//! signed; a header value that is no text is shown with its strange bytes replaced.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::clock::UnixMillis;
use crate::queue::{Attempt, Count, Cursor, Delivery, EventId, Page, Shown};

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Parts of names under which secrets are sent.
const SECRET_NAMES: [&str; 9] = [
    "auth",
    "cookie",
    "credential",
    "hash",
    "key",
    "pass",
    "secret",
    "token",
    "pwd",
];

/// Whether a header or a member of a query of this name may be a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Path and query, without the secrets in it.
fn target(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        // A name with an escape in it may be any name.
        Some((name, _)) if is_secret(name) || name.contains('%') => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    });
    format!("{path}?{}", shown.collect::<Vec<_>>().join("&"))
}

/// A page of deliveries.
pub(super) fn page(page: &Page) -> Value {
    let deliveries: Vec<Value> = page.deliveries.iter().map(delivery).collect();
    json!({ "deliveries": deliveries, "next": page.next.as_ref().map(cursor) })
}

/// One event with all of its deliveries and attempts.
#[allow(clippy::indexing_slicing, reason = "members of objects that are made here")]
pub(super) fn shown(id: EventId, shown: &Shown, with_body: bool) -> Value {
    let event = &shown.event;
    let headers = event.headers.iter();
    let headers: Vec<Value> = headers
        .map(|(name, value)| match is_secret(name.as_str()) {
            true => json!([name.as_str(), HIDDEN]),
            false => json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]),
        })
        .collect();
    let deliveries = shown.deliveries.iter();
    let deliveries: Vec<Value> = deliveries
        .map(|(one, attempts)| {
            let mut view = delivery(one);
            view["history"] = attempts.iter().map(attempt).collect();
            view
        })
        .collect();
    let mut view = json!({
        "id": id.0,
        "route": &*event.route,
        "provider": &*event.provider,
        "verified": event.strength.as_str(),
        "event_id": event.event_id,
        "event_type": event.event_type,
        "delivery_id": event.delivery_id,
        "method": event.method.as_str(),
        "target": target(&event.target),
        "client": event.sender.peer.to_string(),
        "headers": headers,
        "body_bytes": event.body.len(),
        "deliveries": deliveries,
    });
    if with_body {
        view["body_base64"] = STANDARD.encode(&event.body).into();
    }
    view
}

/// A place in a listing.
pub(super) fn cursor(cursor: &Cursor) -> String {
    format!("{}:{}:{}", cursor.id, cursor.lane.route, cursor.lane.destination)
}

/// How much waits where.
pub(super) fn counts(counts: &[Count], now: UnixMillis) -> Value {
    let each = counts.iter().map(|count| {
        json!({
            "route": &*count.lane.route,
            "destination": &*count.lane.destination,
            "state": count.state.as_str(),
            "deliveries": count.deliveries,
            "oldest_seconds": count.oldest.map(|oldest| now.0.saturating_sub(oldest.0) as f64 / 1000.0),
        })
    });
    each.collect()
}

fn delivery(delivery: &Delivery) -> Value {
    json!({
        "id": delivery.id.0,
        "route": &*delivery.lane.route,
        "destination": &*delivery.lane.destination,
        "state": delivery.state.as_str(),
        "attempts": delivery.attempts,
        "accepted_at": time(delivery.accepted_at),
        "next_at": delivery.next_at.map(time),
        "ended_at": delivery.ended_at.map(time),
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "body_bytes": delivery.body_bytes,
    })
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "at": time(attempt.at),
        "took_ms": millis(attempt.took),
        "status": attempt.status,
        "error": Some(attempt.error.as_str()).filter(|error| !error.is_empty()),
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

fn time(at: UnixMillis) -> String {
    let instant = i64::try_from(at.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    format!("{:.3}", instant.unwrap_or(jiff::Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_provider_s_secret_is_shown() {
        // Whoever may look at events, or has an export of them, could forge them from then on.
        let providers = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/providers");
        let mut seen = 0;
        for file in std::fs::read_dir(providers).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            if !text.contains("algorithm: token") {
                continue;
            }
            let places = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("signature: { "));
            for (kind, name) in places.filter_map(|place| place.trim_end_matches(" }").split_once(": ")) {
                if matches!(kind, "header" | "query") {
                    assert!(is_secret(name), "{name}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "{seen}");
        assert!(is_secret("Authorization") && is_secret("cookie"));
        for name in [
            "content-type",
            "x-github-event",
            "x-hub-signature-256",
            "webhook-id",
            "user-agent",
        ] {
            assert!(!is_secret(name), "{name}");
        }
        for (received, shown) in [
            ("/a", "/a"),
            ("/a?b", "/a?b"),
            ("/a?b=c&token=d=e&f=", "/a?b=c&token=***&f="),
            ("/a?Token=d", "/a?Token=***"),
            ("/a?t%6fken=d", "/a?t%6fken=***"),
        ] {
            assert_eq!(target(received), shown);
        }
    }
}
