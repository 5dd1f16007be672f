//! Plivo's third signature: HMAC-SHA-256 over the URL, the sorted query, the sorted form and a random number.
//!
//! Source: plivo.com/docs/voice/concepts/signature-validation and the libraries of Plivo. Which dots and question marks
//! stand between depends on what is there: `URL?query.form.random`, `URL?form.random`, `URL?query.random`, `URL.random`.
//! Voice is signed in one header and messaging in another; both are under the account's token.
//!
//! The names and values of the form are joined without anything between, so that a form is not bound byte for byte:
//! this proves the origin. No time is signed; the random number makes every captured request one that can be
//! recognised.

use std::borrow::Cow;

use http::HeaderName;

use super::form::{self, Pair};
use super::judge::{Claim, SIGNATURES_MAX, Verdict, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, PublicUrl};
use crate::signature::encoding::Encoding;
use crate::signature::extract::field_value;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::{MacKind, Tag};
use crate::signature::proof::{Failure, Strength};

const VOICE: HeaderName = HeaderName::from_static("x-plivo-signature-v3");
const MESSAGING: HeaderName = HeaderName::from_static("x-plivo-signature-ma-v3");
const RANDOM: HeaderName = HeaderName::from_static("x-plivo-signature-v3-nonce");

/// Longest random number, in bytes.
const RANDOM_BYTES_MAX: usize = 128;

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Authenticated,
    tolerance: None,
    uses_public_url: true,
    settings: &[],
    headers: || vec![VOICE, MESSAGING, RANDOM],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let verdict = Verdict::of(MacKind::HmacSha256, keys, read(message), message.body)?;
    Ok(verdict.found(Strength::Authenticated, None))
}

fn read(message: &Message<'_>) -> Result<Claim<'static>, Failure> {
    let tags = tags(message)?;
    let random = field_value(message.headers, &RANDOM)?;
    // A dot in it could be one of the scheme's own.
    if random.len() > RANDOM_BYTES_MAX || !random.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
        return Err(Failure::Malformed);
    }
    let url = message.public_url.ok_or(Failure::Mismatch)?;
    if !url.query().is_empty() && url.query() != message.query() {
        return Err(Failure::Mismatch);
    }
    let query = form::pairs(message.query().as_bytes())?;
    let pieces = joined(url, query, form::of_body(message)?, random);
    let readings = vec![vec![Cow::Owned(pieces)]];
    Ok(Claim { tags, readings })
}

/// All signatures of both headers; at least one of them is there and readable.
fn tags(message: &Message<'_>) -> Result<Vec<Tag>, Failure> {
    let mut texts = Vec::new();
    for name in [&VOICE, &MESSAGING] {
        match field_value(message.headers, name) {
            Ok(list) => texts.extend(list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)),
            Err(Failure::Missing) => {}
            Err(failure) => return Err(failure),
        }
    }
    if texts.is_empty() {
        return Err(Failure::Missing);
    }
    let read = |text: &[u8]| Encoding::Base64.decode(text, MacKind::HmacSha256.tag_bytes());
    let tags: Vec<Tag> = texts.iter().copied().filter_map(read).collect();
    match tags.is_empty() || texts.len() > SIGNATURES_MAX {
        true => Err(Failure::Malformed),
        false => Ok(tags),
    }
}

fn joined(url: &PublicUrl, mut query: Vec<Pair>, form: Vec<Pair>, random: &[u8]) -> Vec<u8> {
    query.sort_unstable();
    let query: Vec<Vec<u8>> = query
        .iter()
        .map(|(name, value)| [name, b"=".as_slice(), value].concat())
        .collect();
    let query = query.join(b"&".as_slice());
    let mark: &[u8] = if query.is_empty() && form.is_empty() { b"" } else { b"?" };
    let dot: &[u8] = if query.is_empty() || form.is_empty() { b"" } else { b"." };
    let form = form::sorted(form);
    [url.base().as_bytes(), mark, &query, dot, &form, b".", random].concat()
}

/// Signs a form as voice is signed; the random number is the event's id.
pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    let url = request.public_url()?;
    let no_form = |_| KeyError::Unsignable("the body is no form");
    let query = form::pairs(url.query().as_bytes()).map_err(no_form)?;
    let form = form::pairs(request.body).map_err(no_form)?;
    let random: String = request
        .id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(RANDOM_BYTES_MAX)
        .collect();
    if random.is_empty() {
        return Err(KeyError::Unsignable("the id has no letter and no digit"));
    }
    let text = joined(url, query, form, random.as_bytes());
    let mut signed = Signed::default();
    signed.content_type("application/x-www-form-urlencoded");
    signed.headers.push((RANDOM, random));
    signed
        .headers
        .push((VOICE, write_mac(MacKind::HmacSha256, key, &[&text], Encoding::Base64)));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, judged};
    use super::*;
    use crate::clock::UnixMillis;

    const KEY: &str = "my_auth_token";
    const URL: &str = "https://hooks.example.com/in/1";
    const FORM: &str = "From=%2B1&To=%2B2&Text=caf%C3%A9+au+lait";
    const RANDOM_TEXT: &str = "05429567804466091622";
    const OF_FORM: &str = "vj47uH6lQLQ4jrspuMdEmVNKXPxV/uHTedcCMfEfILU=";

    fn request(url: &str, form: &str, header: &str, signature: &str) -> Request {
        let request = Request::form(url, form).header(header, signature);
        request.header("x-plivo-signature-v3-nonce", RANDOM_TEXT)
    }

    fn valid() -> Request {
        request(URL, FORM, "x-plivo-signature-v3", OF_FORM)
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::PlivoV3, request, KEY)
    }

    #[test]
    fn every_shape_of_url_and_form_is_accepted() {
        // Computed apart from this code, by the rules of plivo-python plivo/utils/signature_v3.py. Calls would not connect.
        let with_query = "https://hooks.example.com/in/1?b=2&a=1&a=0";
        let rows = [
            (URL, FORM, OF_FORM),
            (with_query, FORM, "b0eXxPlOi4uAy4vcB2cPpaThV2GYqgx0arbkw8cdUxc="),
            (with_query, "", "quMjvAw1h8bZ4YfwzeujW3JHqYqnFg2zkVVDPNxX6rY="),
            (URL, "", "fxBdPRfQyhSZuLUpQH23Xmp9pMpxqQlMuwBU1864wUo="),
        ];
        for (url, form, signature) in rows {
            for header in ["x-plivo-signature-v3", "x-plivo-signature-ma-v3"] {
                let expected = Ok(Strength::Authenticated);
                assert_eq!(
                    judge(&request(url, form, header, signature)),
                    expected,
                    "{url} {form} {header}"
                );
                let list = format!("{}, {signature},x", "A".repeat(44));
                assert_eq!(judge(&request(url, form, header, &list)), expected, "{list}");
            }
        }
        // The query is the application's own when the URL that was configured has none.
        let own = request(
            URL,
            FORM,
            "x-plivo-signature-v3",
            "b0eXxPlOi4uAy4vcB2cPpaThV2GYqgx0arbkw8cdUxc=",
        );
        assert_eq!(judge(&own.target("/in/1?b=2&a=1&a=0")), Ok(Strength::Authenticated));
    }

    #[test]
    fn what_is_missing_or_changed_is_refused() {
        // A captured call could be sent again as another one.
        let both = valid().header("x-plivo-signature-ma-v3", "x");
        assert_eq!(judge(&both), Ok(Strength::Authenticated));
        let rows = [
            (valid().without("x-plivo-signature-v3"), Failure::Missing),
            (valid().without("x-plivo-signature-v3-nonce"), Failure::Missing),
            (valid().replaced("x-plivo-signature-v3", "x,y"), Failure::Malformed),
            (
                valid().replaced("x-plivo-signature-v3", &"x,".repeat(17)),
                Failure::Malformed,
            ),
            (
                valid().replaced("x-plivo-signature-v3-nonce", "05429567804466091623"),
                Failure::Mismatch,
            ),
            (
                valid().replaced("x-plivo-signature-v3-nonce", "a.b"),
                Failure::Malformed,
            ),
            (
                valid().replaced("x-plivo-signature-v3-nonce", &"1".repeat(129)),
                Failure::Malformed,
            ),
            (valid().target("/in/1?a=b"), Failure::Mismatch),
            (valid().body(FORM.replace("To=%2B2", "To=%2B3")), Failure::Mismatch),
            (valid().body("a=%"), Failure::Malformed),
            (valid().replaced("content-type", "application/json"), Failure::Malformed),
        ];
        for (request, failure) in rows {
            assert_eq!(
                judge(&request),
                Err(failure),
                "{:?} {}",
                request.headers,
                request.target
            );
        }
    }

    #[test]
    fn what_is_signed_here_is_signed_as_plivo_does() {
        // A test request that no real one is like proves nothing.
        let signed =
            Request::post(URL, FORM).signed(Native::PlivoV3, SigningKey::Shared(KEY.as_bytes()), UnixMillis(0));
        assert_eq!(judge(&signed), Ok(Strength::Authenticated));
        assert_eq!(signed.headers["x-plivo-signature-v3-nonce"], "evt1");
    }
}
