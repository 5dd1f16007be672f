//! Signing as a provider would: for `hookward sign` and `send`, for re-signing towards the backend, and for tests.
//!
//! The same scheme, template and keys as verification, so that the two cannot drift apart; what the verifier would
//! refuse by its grammar is not signed either.

use http::HeaderName;

use super::extract::{read_id, read_timestamp};
use super::key::{self, KeyError};
use super::mac::Mac;
use super::scheme::{Scheme, Spelling, StampPlace};
use super::template::Values;
use crate::clock::UnixMillis;
use crate::secret::Secret;

/// The headers of a signed request: signature, timestamp and id, as far as the scheme has them.
///
/// `id` is used only by schemes that sign one. Short secrets are signed with: what is weak is for the verifier's
/// operator to judge.
///
/// # Errors
/// [`KeyError`] when the secret cannot be decoded, or when the id or time cannot occur in this scheme.
pub fn sign(
    scheme: &Scheme,
    secret: &Secret,
    id: &str,
    now: UnixMillis,
    body: &[u8],
) -> Result<Vec<(HeaderName, String)>, KeyError> {
    if let Some(rule) = scheme.template.id()
        && read_id(rule, id.as_bytes()).is_none()
    {
        return Err(KeyError::Unsignable(
            "the id must be 1 to 512 visible ASCII characters without the delimiter behind it",
        ));
    }
    let mut timestamp = String::new();
    if let Some(stamp) = &scheme.timestamp {
        timestamp = stamp.unit.write(now);
        if read_timestamp(stamp, timestamp.as_bytes()).is_none() {
            return Err(KeyError::Unsignable(
                "the time has too few or too many digits for this scheme",
            ));
        }
    }
    let key = key::decode(scheme.key, "signing", secret)?;
    let mut mac = Mac::keyed(scheme.mac, &key);
    let values = Values {
        timestamp: timestamp.as_bytes(),
        id: id.as_bytes(),
    };
    scheme.template.write_head(values, |bytes| mac.update(bytes));
    if scheme.template.has_body() {
        mac.update(body);
    }
    scheme.template.write_tail(values, |bytes| mac.update(bytes));
    let signature = scheme.signature.encoding.encode(mac.finish().as_bytes());
    Ok(headers(scheme, &signature, id, timestamp))
}

fn headers(scheme: &Scheme, signature: &str, id: &str, timestamp: String) -> Vec<(HeaderName, String)> {
    let mut headers = Vec::with_capacity(3);
    if let Some(name) = &scheme.id {
        headers.push((name.clone(), id.to_owned()));
    }
    let mut value = String::new();
    match (&scheme.timestamp, &scheme.signature.spelling) {
        (Some(stamp), Spelling::Kv { separator, assign, .. }) => match &stamp.place {
            StampPlace::Field(field) => {
                value = format!("{field}{}{timestamp}{}", char::from(*assign), char::from(*separator));
            }
            StampPlace::Header(name) => headers.push((name.clone(), timestamp)),
        },
        (Some(stamp), _) => {
            if let StampPlace::Header(name) = &stamp.place {
                headers.push((name.clone(), timestamp));
            }
        }
        (None, _) => {}
    }
    match &scheme.signature.spelling {
        Spelling::Plain { prefix } => value.push_str(prefix),
        Spelling::List { .. } => {}
        Spelling::Kv { assign, fields, .. } => {
            value.push_str(fields.first().map_or("", String::as_str));
            value.push(char::from(*assign));
        }
    }
    value.push_str(signature);
    headers.push((scheme.signature.header.clone(), value));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::testing::{GITHUB, STANDARD_WEBHOOKS, STRIPE, scheme as built};

    fn signed(yaml: &str, secret: &str, id: &str, now: u64, body: &[u8]) -> Result<Vec<(String, String)>, KeyError> {
        let headers = sign(&built(yaml), &Secret::new(secret).unwrap(), id, UnixMillis(now), body)?;
        Ok(headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect())
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn published_signatures_come_out() {
        // A signer and a verifier that are wrong in the same way would pass every other test.
        let github = signed(GITHUB, "It's a Secret to Everybody", "", 0, b"Hello, World!").unwrap();
        let digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(github, pairs([("x-hub-signature-256", digest)]));

        let body = b"{\"id\":\"evt_test_webhook\",\"object\":\"event\"}";
        let stripe = signed(STRIPE, "whsec_test_secret", "", 1_700_000_000_999, body).unwrap();
        let digest = "t=1700000000,v1=d95c6b7477fbd7e9f90b1b0ef5f9c7ac25abca5382460e0d988c2b2a5b71b990";
        assert_eq!(stripe, pairs([("stripe-signature", digest)]));

        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = b"{\"test\": 2432232314}";
        let standard = signed(STANDARD_WEBHOOKS, secret, id, 1_614_265_330_000, body).unwrap();
        let expected = [
            ("webhook-id", id),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        assert_eq!(standard, pairs(expected));
    }

    #[test]
    fn what_would_be_refused_is_not_signed() {
        // A request re-signed for the backend would be refused there.
        let long = "x".repeat(513);
        for id in ["", "a.b", "a b", "caf\u{e9}", "a\n", long.as_str()] {
            let result = signed(STANDARD_WEBHOOKS, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id, 0, b"");
            assert!(matches!(result, Err(KeyError::Unsignable(_))), "{id:?}");
        }
        let unfenced = STRIPE.replace("{timestamp}.{body}", "{timestamp}{body}");
        let early = signed(&unfenced, "secret", "", 999_999_999_000, b"");
        assert!(matches!(early, Err(KeyError::Unsignable(_))));
        assert!(signed(&unfenced, "secret", "", 1_000_000_000_000, b"").is_ok());
        let undecodable = signed(STANDARD_WEBHOOKS, "whsec_???", "a", 0, b"");
        assert!(matches!(undecodable, Err(KeyError::Undecodable { .. })));
    }
}
