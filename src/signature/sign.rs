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
