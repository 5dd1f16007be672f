//! What looks wrong about a request without being proven to be: said when no mistake was found that can be undone.

use http::HeaderName;

use super::Finding;
use super::headers;
use super::search::{Search, certain};
use crate::providers::builtin;
use crate::signature::Failure;

/// Most providers that are named as possible senders.
const SENDERS_MAX: usize = 4;

impl Search<'_> {
    /// What looks wrong without being proven to be.
    pub(super) fn guesses(&self, failure: Failure) -> Vec<Finding> {
        let headers = &self.capture.headers;
        let mut guesses = Vec::new();
        let announced = headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if let Some(announced) = announced.filter(|announced: &usize| *announced != self.capture.body.len()) {
            let cause = format!(
                "the capture has {} bytes of body, content-length says {announced}",
                self.capture.body.len()
            );
            guesses.push(guess(
                cause,
                "capture the raw bytes of the body, without a newline more or less",
            ));
        }
        if headers.contains_key(http::header::CONTENT_ENCODING) {
            let cause = "the body is, or was, compressed (content-encoding)".to_owned();
            guesses.push(guess(
                cause,
                "signatures are over the bytes as they were sent: nothing in front may compress or decompress them",
            ));
        }
        match failure {
            Failure::Missing => guesses.extend(self.absent()),
            Failure::Malformed => {
                let cause = "a signature, time or id is not written as this provider writes it".to_owned();
                guesses.push(guess(
                    cause,
                    "compare the headers with `hookward providers`, letter by letter",
                ));
            }
            Failure::Mismatch | Failure::UnknownKey => {
                let cause =
                    "none of the configured secrets signed this body, in any form that was tried of either".to_owned();
                let fix = "copy the secret of exactly this webhook from the provider again (each has its own, test and live \
                           too); if it is the right one, the body is not the one that was signed";
                guesses.push(guess(cause, fix));
            }
            Failure::Stale => {}
        }
        guesses
    }

    fn absent(&self) -> Option<Finding> {
        let needed = self.case.provider.scheme.security_headers();
        let absent = headers::missing(&self.capture.headers, needed);
        let names: Vec<_> = absent.iter().map(|name| name.as_str()).collect();
        let cause = format!("the request has no {}", names.join(" and no "));
        let fix = "set the secret at the provider (without one many do not sign), and let proxies pass the header on";
        (!names.is_empty()).then(|| guess(cause, fix))
    }

    /// Providers whose headers these are.
    pub(super) fn other_senders(&self) -> Vec<Finding> {
        let has_all = |names: &[HeaderName]| {
            let own = names.iter().any(|name| *name != http::header::AUTHORIZATION);
            own && names.iter().all(|name| self.capture.headers.contains_key(name))
        };
        let others = builtin()
            .iter()
            .filter(|provider| has_all(provider.scheme.security_headers()));
        let titles: Vec<_> = others.map(|provider| provider.id.as_str()).take(SENDERS_MAX).collect();
        let cause = format!("the headers are those of {}", titles.join(" or "));
        let fix = "choose the `provider` that sends to this path";
        (!titles.is_empty()).then(|| guess(cause, fix)).into_iter().collect()
    }
}

fn guess(cause: String, fix: &str) -> Finding {
    Finding {
        certain: false,
        ..certain(cause, fix)
    }
}
