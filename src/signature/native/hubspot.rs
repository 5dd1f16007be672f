//! HubSpot's third signature: HMAC-SHA-256 over method, URL, body and milliseconds, one behind the other.
//!
//! Source: developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation. HubSpot
//! signs the URL with a fixed set of escapes decoded; everything else of it stays as it was sent. Scheme, host and path
//! are those of the public URL, the query is the request's own.
//!
//! Nothing stands between the URL and the body, so that a query could take bytes from the body or give it some. One
//! reading is left when the body begins with a brace or bracket, as JSON does, and the query has none; what has two
//! readings is refused. The time at the end has 13 digits. Older signatures of the same request are not looked at: they
//! bind no time.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderName;

use super::judge::{Claim, Verdict, one_tag, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message};
use crate::clock::UnixMillis;
use crate::signature::encoding::Encoding;
use crate::signature::extract::field_value;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::MacKind;
use crate::signature::proof::{Failure, Strength};
use crate::signature::timestamp::Unit;

const SIGNATURE: HeaderName = HeaderName::from_static("x-hubspot-signature-v3");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-hubspot-request-timestamp");

/// The escapes that HubSpot decodes before it signs.
const DECODED: [(&str, u8); 12] = [
    ("3A", b':'),
    ("2F", b'/'),
    ("3F", b'?'),
    ("40", b'@'),
    ("21", b'!'),
    ("24", b'$'),
    ("27", b'\''),
    ("28", b'('),
    ("29", b')'),
    ("2A", b'*'),
    ("2C", b','),
    ("3B", b';'),
];

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Verified,
    tolerance: Some(Duration::from_secs(300)),
    uses_public_url: true,
    settings: &[],
    headers: || vec![SIGNATURE, TIMESTAMP],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let read = read(message);
    let timestamp = read.as_ref().ok().map(|(_, timestamp)| *timestamp);
    let claim = read.map(|(claim, _)| claim);
    let verdict = Verdict::of(MacKind::HmacSha256, keys, claim, message.body)?;
    Ok(verdict.found(Strength::Verified, timestamp))
}

fn read<'a>(message: &Message<'a>) -> Result<(Claim<'a>, UnixMillis), Failure> {
    let signature = field_value(message.headers, &SIGNATURE)?;
    let digits = field_value(message.headers, &TIMESTAMP)?;
    let tags = one_tag(signature, Encoding::Base64, MacKind::HmacSha256)?;
    let timestamp = fixed_width(digits).ok_or(Failure::Malformed)?;
    let url = message.public_url.ok_or(Failure::Mismatch)?;
    if !url.query().is_empty() && url.query() != message.query() {
        return Err(Failure::Mismatch);
    }
    if !has_one_border(message.target, message.body) {
        return Err(Failure::Malformed);
    }
    let mark = if message.target.contains('?') { "?" } else { "" };
    let uri = decoded(&format!("{}{mark}{}", url.base(), message.query()));
    let pieces = vec![
        Cow::Borrowed(message.method.as_bytes()),
        Cow::Owned(uri),
        Cow::Borrowed(message.body),
        Cow::Borrowed(digits),
    ];
    let readings = vec![pieces];
    Ok((Claim { tags, readings }, timestamp))
}

fn fixed_width(digits: &[u8]) -> Option<UnixMillis> {
    Unit::Millis
        .parse(digits)
        .filter(|_| Some(digits.len()) == Unit::Millis.digits())
}

/// Whether nobody can take the border between URL and body to be elsewhere: with a query it is where the first brace or
/// bracket stands, without one the body must not look like a query.
fn has_one_border(target: &str, body: &[u8]) -> bool {
    match target.split_once('?') {
        Some((_, query)) => matches!(body.first(), None | Some(b'{' | b'[')) && !query.contains(['{', '[']),
        None => body.first() != Some(&b'?'),
    }
}

fn decoded(url: &str) -> Vec<u8> {
    let mut parts = url.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let known = part.split_at_checked(2).and_then(|(digits, rest)| {
            let (_, byte) = DECODED.iter().find(|(escape, _)| escape.eq_ignore_ascii_case(digits))?;
            Some((*byte, rest))
        });
        let (byte, rest) = known.unwrap_or((b'%', part));
        decoded.push(byte);
        decoded.extend_from_slice(rest.as_bytes());
    }
    decoded
}

pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    let url = request.public_url()?;
    let digits = Unit::Millis.write(request.now);
    if fixed_width(digits.as_bytes()).is_none() || !has_one_border(url.path_and_query(), request.body) {
        return Err(KeyError::Unsignable("the time or the body cannot occur in this scheme"));
    }
    let parts = [
        b"POST".as_slice(),
        &decoded(url.as_str()),
        request.body,
        digits.as_bytes(),
    ];
    let signature = write_mac(MacKind::HmacSha256, key, &parts, Encoding::Base64);
    let mut signed = Signed::default();
    signed.headers.push((TIMESTAMP, digits));
    signed.headers.push((SIGNATURE, signature));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, found, judged};
    use super::*;

    const KEY: &str = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy";
    const URL: &str = "https://www.example.com/webhook_uri";
    const NOW: &str = "1693657560000";

    fn request(url: &str, body: &str, signature: &str) -> Request {
        let request = Request::post(url, body).header("x-hubspot-signature-v3", signature);
        request.header("x-hubspot-request-timestamp", NOW)
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::HubspotV3, request, KEY)
    }

    fn sdk() -> Request {
        // HubSpot/hubspot-api-python tests/spec/utils/test_signature.py
        request(
            URL,
            "{'example_field':'example_value'}",
            "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y=",
        )
    }

    #[test]
    fn published_and_computed_signatures_are_accepted() {
        // The other two computed apart from this code. HubSpot's events would not get through.
        assert_eq!(judge(&sdk()), Ok(Strength::Verified));
        assert_eq!(
            found(Native::HubspotV3, &sdk(), KEY).unwrap().timestamp,
            Some(UnixMillis(1_693_657_560_000))
        );
        let base = "https://www.example.com/w";
        let escaped = request(base, "{\"a\":1}", "RoSYrtCjnwjDslLzwxGkIiEf8dse6R/1BVYByAZFhSc=");
        for target in ["/w?a=b%3Ac&d=%20e%25", "/w?a=b%3ac&d=%20e%25", "/w?a=b:c&d=%20e%25"] {
            assert_eq!(
                judge(&escaped.clone().target(target)),
                Ok(Strength::Verified),
                "{target}"
            );
        }
        let empty = request(base, "", "3WNDKz/ktbGaZM4DUvpc31NmTFwYY4etpsSHK0n0TWs=").target("/w?x=1");
        assert_eq!(judge(&empty), Ok(Strength::Verified));
    }

    #[test]
    fn bytes_do_not_move_between_query_body_and_time() {
        // One signed text, read as another request: a captured event would be changed.
        let escaped = request(
            "https://www.example.com/w",
            "{\"a\":1}",
            "RoSYrtCjnwjDslLzwxGkIiEf8dse6R/1BVYByAZFhSc=",
        );
        let moved = [
            ("/w?a=b:c&d=%20e%25{\"a\":1}", "", NOW),
            ("/w?a=b:c&d=%20e%25{\"a\":", "1}", NOW),
            ("/w?a=b:c&d=%20e", "%25{\"a\":1}", NOW),
            ("/w", "?a=b:c&d=%20e%25{\"a\":1}", NOW),
            ("/w?a=b:c&d=%20e%25", "{\"a\":1}1", "693657560000"),
            ("/w?a=b:c&d=%20e%25", "{\"a\":1", "}1693657560000"),
        ];
        for (target, body, time) in moved {
            let request = escaped
                .clone()
                .target(target)
                .body(body)
                .replaced("x-hubspot-request-timestamp", time);
            assert!(judge(&request).is_err(), "{target} {body} {time}");
        }
    }

    #[test]
    fn what_is_missing_or_changed_is_refused() {
        // A captured event would stay fresh, or reach another path.
        let rows = [
            (sdk().without("x-hubspot-signature-v3"), Failure::Missing),
            (sdk().without("x-hubspot-request-timestamp"), Failure::Missing),
            (
                sdk().replaced("x-hubspot-request-timestamp", "1693657560001"),
                Failure::Mismatch,
            ),
            (
                sdk().replaced("x-hubspot-request-timestamp", "1693657560"),
                Failure::Malformed,
            ),
            (
                sdk().replaced("x-hubspot-signature-v3", "K36dawei4A"),
                Failure::Malformed,
            ),
            (sdk().target("/webhook_uri?a=b"), Failure::Mismatch),
            (sdk().body("{}"), Failure::Mismatch),
            (Request { method: "PUT", ..sdk() }, Failure::Mismatch),
        ];
        for (request, failure) in rows {
            assert_eq!(
                judge(&request),
                Err(failure),
                "{} {:?}",
                request.target,
                request.headers
            );
        }
        let own = request(
            "https://www.example.com/w?x=1",
            "",
            "3WNDKz/ktbGaZM4DUvpc31NmTFwYY4etpsSHK0n0TWs=",
        );
        assert_eq!(judge(&own), Ok(Strength::Verified));
        assert_eq!(judge(&own.target("/w")), Err(Failure::Mismatch));
    }

    #[test]
    fn what_is_signed_here_is_signed_as_hubspot_does() {
        // A test request that no real one is like proves nothing.
        let plain = Request::post(URL, "{'example_field':'example_value'}");
        let signed = plain.signed(
            Native::HubspotV3,
            SigningKey::Shared(KEY.as_bytes()),
            UnixMillis(1_693_657_560_000),
        );
        assert_eq!(signed.headers, sdk().headers);
    }
}
