//! What a request says about its event: id, type, attempt.
//!
//! Called by the gateway after verification. The event id is authenticated or absent; the other names are labels for
//! the backend, the log and people. All of them go into headers and log lines, so what does not fit there (control
//! characters, other alphabets, more than 512 bytes) is not used at all instead of being trimmed into something else.

use http::{HeaderMap, HeaderName};

use super::{EventId, Provider, Selector};
use crate::signature::json::{self, Wanted};
use crate::signature::{Proof, form_value};

/// Longest event id, event type and delivery id, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// What a request says about its event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What identifies the event over all retries. Authenticated; `None` without a proof. Visible ASCII.
    pub event_id: Option<String>,
    /// The provider's name for this attempt. A label: anybody can change it. Visible ASCII.
    pub delivery_id: Option<String>,
    /// The kind of event. A label unless it is read from a signed body. Printable ASCII, no space at the ends.
    pub event_type: Option<String>,
}

impl Provider {
    /// Reads an event's names from a request and, under a proof, its id.
    ///
    /// One pass over the body, and none when this provider has everything in headers.
    pub fn facts(&self, headers: &HeaderMap, body: &[u8], proof: Option<&Proof>) -> Facts {
        let name = |path| Wanted {
            path,
            bytes_max: NAME_BYTES_MAX,
        };
        let wanted = [
            match &self.event.id {
                EventId::Json(path) if proof.is_some() => Some(name(path)),
                _ => None,
            },
            match &self.event.kind {
                Some(Selector::Json(path)) => Some(name(path)),
                _ => None,
            },
        ];
        let [id, kind] = json::find(body, wanted);
        let event_id = match &self.event.id {
            EventId::Json(_) => id.filter(|id| is_id(id)),
            EventId::Form(name) if proof.is_some() => form_value(body, name, NAME_BYTES_MAX).filter(|id| is_id(id)),
            EventId::Form(_) => None,
            EventId::Signed => proof.and_then(Proof::signed_id).map(str::to_owned),
            EventId::Unsigned(_) => None,
        };
        let event_type = match &self.event.kind {
            Some(Selector::Json(_)) => kind.filter(|kind| is_printable(kind)),
            Some(Selector::Form(name)) => form_value(body, name, NAME_BYTES_MAX).filter(|kind| is_printable(kind)),
            Some(Selector::Header(header)) => label(headers, header).filter(|kind| is_printable(kind)),
            None => None,
        };
        let delivery = self.event.delivery.as_ref();
        Facts {
            event_id,
            delivery_id: delivery
                .and_then(|header| label(headers, header))
                .filter(|id| is_id(id)),
            event_type,
        }
    }
}

/// The one value of an unsigned header; `None` when there are several, or none that is text within bounds.
fn label(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() || value.len() > NAME_BYTES_MAX {
        return None;
    }
    value.to_str().ok().map(str::to_owned)
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_printable(text: &str) -> bool {
    let inside = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    inside && !text.is_empty() && !text.starts_with(' ') && !text.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderValue, Method};

    use super::*;
    use crate::clock::UnixMillis;
    use crate::providers::{ProviderFile, builtin};
    use crate::secret::Secret;
    use crate::signature::{Head, KeyedSecret, Verifier, VerifierOptions, sign};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// Signs and verifies `body` and reads its facts, without and with the proof.
    fn facts(provider: &Provider, labels: &[(&'static str, &str)], body: &[u8]) -> (Facts, Facts) {
        let secret = Secret::new(KEY).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in sign(&provider.scheme, &secret, "msg_1", NOW, body).unwrap() {
            headers.insert(name, value.try_into().unwrap());
        }
        for (name, value) in labels {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let keyed = KeyedSecret {
            id: "a".into(),
            secret,
            until: None,
        };
        let options = VerifierOptions::default();
        let verifier = Verifier::new(Arc::clone(&provider.scheme), vec![keyed], options).unwrap();
        let head = Head {
            method: &Method::POST,
            target: "/",
            headers: &headers,
        };
        let mut check = verifier.begin(head, NOW);
        check.update(body);
        let proof = check.finish(body).unwrap().without_fetching().unwrap();
        (
            provider.facts(&headers, body, None),
            provider.facts(&headers, body, Some(&proof)),
        )
    }

    fn preset(id: &str) -> &'static Provider {
        builtin().find(id).unwrap()
    }

    #[test]
    fn an_id_without_a_proof_is_no_id() {
        // Whoever may name events may mark them as done before they arrive.
        for id in ["stripe", "slack", "standard-webhooks"] {
            let body = br#"{"id":"evt_1","event_id":"evt_1","type":"t"}"#;
            let (unproven, proven) = facts(preset(id), &[], body);
            assert_eq!(unproven.event_id, None, "{id}");
            assert!(proven.event_id.is_some(), "{id}");
            assert_eq!(unproven.event_type, proven.event_type, "{id}");
        }
    }

    #[test]
    fn unsigned_headers_are_labels() {
        // A captured event under a fresh delivery id would be a new event.
        let labels = [("x-github-event", "push"), ("x-github-delivery", "d-1")];
        let (_, found) = facts(preset("github"), &labels, br#"{"id":"x"}"#);
        let expected = Facts {
            event_id: None,
            delivery_id: Some("d-1".to_owned()),
            event_type: Some("push".to_owned()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn names_that_fit_no_header_are_not_used() {
        // A line break in an event type would write log lines and headers of its own.
        let long = "x".repeat(513);
        let bad = [
            "",
            " ",
            "a\n",
            "a\u{1b}[2J",
            "caf\u{e9}",
            " a",
            "a ",
            "\u{7f}",
            long.as_str(),
        ];
        for text in bad {
            let json = serde_json::json!({ "id": text, "type": text }).to_string();
            let (_, found) = facts(preset("stripe"), &[], json.as_bytes());
            assert_eq!((found.event_id, found.event_type), (None, None), "{text:?}");
        }
        let json = serde_json::json!({ "id": "a b", "type": "a b" }).to_string();
        let (_, found) = facts(preset("stripe"), &[], json.as_bytes());
        assert_eq!((found.event_id, found.event_type.as_deref()), (None, Some("a b")));
        let bad = ["", "a\tb", "caf\u{e9}", long.as_str()];
        for text in bad {
            let labels = [("x-github-event", text), ("x-github-delivery", text)];
            let (_, found) = facts(preset("github"), &labels, b"");
            assert_eq!((found.delivery_id, found.event_type), (None, None), "{text:?}");
        }
        let twice = [("x-github-event", "push"), ("x-github-event", "ping")];
        let (_, found) = facts(preset("github"), &twice, b"");
        assert_eq!(found.event_type, None);
    }

    #[test]
    fn a_proof_that_leaves_the_body_out_names_nothing_in_it() {
        // Anybody could put any id into a body that nothing signs.
        let yaml = r#"
            scheme:
              algorithm: hmac-sha256
              key: utf8
              message: "{timestamp}"
              signature: { header: sig, encoding: hex }
              timestamp: { header: ts, unit: s, tolerance: 5m }
            event: { id: { json: id } }
        "#;
        let refused = |yaml: &str| {
            let file: ProviderFile = serde_yaml::from_str(yaml).unwrap();
            Provider::own("mine", &file).err().map(|e| e.key)
        };
        assert_eq!(refused(yaml).as_deref(), Some("event.id.json"));
    }
}
