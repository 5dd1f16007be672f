//! Twilio: HMAC-SHA-1 over the URL and the sorted form, or over the URL alone when it carries the body's digest.
//!
//! Source: twilio.com/docs/usage/webhooks/webhooks-security and the request validators of Twilio's own libraries. The
//! URL is the one in Twilio's console; its query is the request's own where the console's URL has none, because
//! applications put their state there. Twilio itself is of two minds about ports, so that the URL counts both with
//! its port (or the default one) and without.
//!
//! What is proven differs from request to request. A JSON body is bound by `bodySHA256` in the signed query. A form is
//! not bound byte for byte: names and values are joined without anything between, so that whoever has one signed
//! request can move the borders (`Digits=1&From=2` signs like `Digits=1From2`). It stays the same event for the
//! replay guard, whose digest is of the joined text.

use std::borrow::Cow;

use http::HeaderName;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::judge::{Claim, Verdict, one_tag, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, PublicUrl, form};
use crate::signature::encoding::Encoding;
use crate::signature::extract::field_value;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::MacKind;
use crate::signature::proof::{Failure, Strength};

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");

/// The field of the query that binds a body which is no form.
const BODY_DIGEST: &str = "bodySHA256";

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Authenticated,
    tolerance: None,
    uses_public_url: true,
    settings: &[],
    headers: || vec![SIGNATURE],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let read = read(message);
    let strength = read.as_ref().map_or(Strength::Authenticated, |(_, strength)| *strength);
    let claim = read.map(|(claim, _)| claim);
    let verdict = Verdict::of(MacKind::HmacSha1, keys, claim, message.body)?;
    Ok(verdict.found(strength, None))
}

fn read<'a>(message: &Message<'a>) -> Result<(Claim<'a>, Strength), Failure> {
    let tags = one_tag(
        field_value(message.headers, &SIGNATURE)?,
        Encoding::Base64,
        MacKind::HmacSha1,
    )?;
    let url = message.public_url.ok_or(Failure::Mismatch)?;
    let query = message.query();
    let (own, digest) = split(query)?;
    let (configured, _) = split(url.query())?;
    if !url.query().is_empty() && configured != own {
        return Err(Failure::Mismatch);
    }
    let mut strength = Strength::Authenticated;
    let mut tail = Vec::new();
    match digest {
        Some(digest) => {
            check_body(digest, message.body)?;
            // With a query of the application's, the URL could be a URL and a form.
            if configured == own {
                strength = Strength::Verified;
            }
        }
        None => tail = fields(message)?,
    }
    let reading = |base: String| {
        let mark = if message.target.contains('?') { "?" } else { "" };
        let url = format!("{base}{mark}{query}").into_bytes();
        vec![Cow::Owned(url), Cow::Owned(tail.clone())]
    };
    let readings = bases(url).into_iter().map(reading).collect();
    Ok((Claim { tags, readings }, strength))
}

/// The query without the digest of the body, and the digest. It stands at the end, where Twilio puts it: somewhere
/// else it may be a part of what somebody sent through Twilio.
fn split(query: &str) -> Result<(&str, Option<&str>), Failure> {
    let (own, last) = match query.rsplit_once('&') {
        Some(halves) => halves,
        None => ("", query),
    };
    match last.strip_prefix(BODY_DIGEST).and_then(|rest| rest.strip_prefix('=')) {
        Some(_) if own.contains(BODY_DIGEST) => Err(Failure::Malformed),
        Some(digest) => Ok((own, Some(digest))),
        None if query.contains(BODY_DIGEST) => Err(Failure::Malformed),
        None => Ok((query, None)),
    }
}

fn check_body(digest: &str, body: &[u8]) -> Result<(), Failure> {
    let signed = Encoding::Hex.decode(digest.as_bytes(), 32).ok_or(Failure::Malformed)?;
    let computed = Sha256::digest(body);
    match bool::from(signed.as_bytes().ct_eq(computed.as_slice())) {
        true => Ok(()),
        false => Err(Failure::Mismatch),
    }
}

/// The joined fields; a pair that is there twice counts once, as in Twilio's libraries.
fn fields(message: &Message<'_>) -> Result<Vec<u8>, Failure> {
    let mut pairs = form::of_body(message)?;
    pairs.sort_unstable();
    pairs.dedup();
    Ok(form::sorted(pairs))
}

/// The URL without its query in both spellings of its port; as it was configured first.
fn bases(url: &PublicUrl) -> Vec<String> {
    let base = url.base();
    let as_is = base.to_owned();
    let Some((scheme, rest)) = base.split_once("://") else {
        return vec![as_is];
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let other = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => format!("{scheme}://{host}{path}"),
        _ if scheme == "https" => format!("https://{authority}:443{path}"),
        _ => format!("http://{authority}:80{path}"),
    };
    vec![as_is, other]
}

/// A body in braces or brackets is signed as JSON, everything else as a form.
pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    let url = request.public_url()?;
    let mut signed = Signed::default();
    let mut target = url.as_str().to_owned();
    let mut joined = Vec::new();
    if request.body.starts_with(b"{") || request.body.starts_with(b"[") {
        let digest = hex::encode(Sha256::digest(request.body));
        let query = match url.query() {
            "" => format!("{BODY_DIGEST}={digest}"),
            own => format!("{own}&{BODY_DIGEST}={digest}"),
        };
        target = format!("{}?{query}", url.base());
        signed.query = Some(query);
        signed.content_type("application/json");
    } else {
        let mut pairs = form::pairs(request.body).map_err(|_| KeyError::Unsignable("the body is no form"))?;
        pairs.sort_unstable();
        pairs.dedup();
        joined = form::sorted(pairs);
        signed.content_type("application/x-www-form-urlencoded");
    }
    let parts: [&[u8]; 2] = [target.as_bytes(), &joined];
    let signature = write_mac(MacKind::HmacSha1, key, &parts, Encoding::Base64);
    signed.headers.push((SIGNATURE, signature));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, digests, judged};
    use super::*;
    use crate::clock::UnixMillis;

    const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
    const FORM: &str =
        "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309";
    const JSON: &str = "{\"property\": \"value\", \"boolean\": true}";
    const JSON_DIGEST: &str = "bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    const KEY: &str = "12345";

    fn form(url: &str, body: &str, signature: &str) -> Request {
        Request::form(url, body).header("x-twilio-signature", signature)
    }

    fn json(url: &str, signature: &str) -> Request {
        let request = Request::post(url, JSON).header("content-type", "application/json");
        request.header("x-twilio-signature", signature)
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::Twilio, request, KEY)
    }

    #[test]
    fn published_signatures_are_accepted() {
        // twilio-python tests/unit/test_request_validator.py, twilio-go client/request_validator_test.go; the port and the
        // repeated fields computed apart from this code. A customer's calls would not get through.
        let reasons = format!("{FORM}&ReasonConferenceEnded=test&Reason=Participant");
        let forms = [
            (URL, FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            (URL, reasons.as_str(), "vOEb5UThFn24KEfnOFLQY2AE5FY="),
            (
                "http://mycompany.com:1234/myapp.php?foo=1&bar=2",
                FORM,
                "Zmvh+3yNM1Phv2jhDCwEM3q5ebU=",
            ),
            // Signed with the default port, and without the port that was configured.
            (URL, FORM, "kvajT1Ptam85bY51eRf/AJRuM3w="),
            (
                "https://mycompany.com:1234/myapp.php?foo=1&bar=2",
                FORM,
                "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
            ),
            (
                "https://mycompany.com/in",
                "b=2&b=1&b=2&a=&B=x",
                "b0QOS2WC1D3j9JbGStqKR+1pmjw=",
            ),
        ];
        for (url, body, signature) in forms {
            assert_eq!(
                judge(&form(url, body, signature)),
                Ok(Strength::Authenticated),
                "{url} {body}"
            );
        }
        let with_own = format!("{URL}&{JSON_DIGEST}");
        let alone = format!("https://mycompany.com/myapp.php?{JSON_DIGEST}");
        for (url, signature) in [
            (with_own.as_str(), "a9nBmqA0ju/hNViExpshrM61xv4="),
            (alone.as_str(), "y77kIzt2vzLz71DgmJGsen2scGs="),
        ] {
            assert_eq!(judge(&json(url, signature)), Ok(Strength::Verified), "{url}");
        }
    }

    #[test]
    fn another_order_of_fields_or_query_is_refused() {
        // From the same tests of Twilio's: whoever reorders what was signed would be believed.
        let reasons = format!("{FORM}&ReasonConferenceEnded=test&Reason=Participant");
        let wrong = form(URL, &reasons, "95+Bu0JVPi0r/SsESZCVf0dWAjw=");
        assert_eq!(judge(&wrong), Err(Failure::Mismatch));
        let reordered = form(URL, FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8=").target("/myapp.php?bar=2&foo=1");
        assert_eq!(judge(&reordered), Err(Failure::Mismatch));
    }

    #[test]
    fn a_query_of_the_applications_is_signed_but_proves_less() {
        // Applications keep state in the query; but then form and query can take bytes from each other.
        let target = format!("/myapp.php?foo=1&bar=2&{JSON_DIGEST}");
        let request = json("https://mycompany.com/myapp.php", "a9nBmqA0ju/hNViExpshrM61xv4=").target(&target);
        assert_eq!(judge(&request), Ok(Strength::Authenticated));
        let request = form("https://mycompany.com/myapp.php", FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        assert_eq!(
            judge(&request.target("/myapp.php?foo=1&bar=2")),
            Ok(Strength::Authenticated)
        );
    }

    #[test]
    fn a_body_is_what_its_digest_says() {
        // The URL alone is signed: without this check any body would come in under a captured signature.
        let url = format!("{URL}&{JSON_DIGEST}");
        let request = json(&url, "a9nBmqA0ju/hNViExpshrM61xv4=");
        let rows = [
            (request.clone().body(format!("{JSON} ")), Failure::Mismatch),
            (request.clone().body(""), Failure::Mismatch),
            (request.clone().without("x-twilio-signature"), Failure::Missing),
            (
                request
                    .clone()
                    .replaced("x-twilio-signature", "a9nBmqA0ju/hNViExpshrM61xv5="),
                Failure::Malformed,
            ),
            (
                request.clone().target(&format!("/myapp.php?{JSON_DIGEST}&foo=1&bar=2")),
                Failure::Malformed,
            ),
            (
                request
                    .clone()
                    .target(&format!("/myapp.php?foo=1&bar=2&{JSON_DIGEST}&{JSON_DIGEST}")),
                Failure::Malformed,
            ),
            (
                request.clone().target("/myapp.php?foo=1&bar=2&bodySHA256=00"),
                Failure::Malformed,
            ),
            // Without the digest it must be a form.
            (request.clone().target("/myapp.php?foo=1&bar=2"), Failure::Malformed),
        ];
        for (request, failure) in rows {
            assert_eq!(judge(&request), Err(failure), "{} {:?}", request.target, request.body);
        }
    }

    #[test]
    fn moved_borders_of_fields_are_the_same_event() {
        // Whoever captured a call could send it again with other fields, as often as there are borders.
        let genuine = form(URL, FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        let moved = FORM.replace("Digits=1234&From=%2B14158675309&", "Digits=1234From%2B14158675309&");
        let moved = form(URL, &moved, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        assert_eq!(
            digests(Native::Twilio, &genuine, KEY),
            digests(Native::Twilio, &moved, KEY)
        );
        let bare = "https://mycompany.com:443/myapp.php?foo=1&bar=2";
        let signed_bare = form(bare, FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        let signed_with_port = form(bare, FORM, "kvajT1Ptam85bY51eRf/AJRuM3w=");
        assert_eq!(
            digests(Native::Twilio, &signed_bare, KEY),
            digests(Native::Twilio, &signed_with_port, KEY)
        );
    }

    #[test]
    fn what_is_signed_here_is_signed_as_twilio_does() {
        // A test request that no real one is like proves nothing.
        let key = SigningKey::Shared(KEY.as_bytes());
        let signed = Request::post(URL, FORM).signed(Native::Twilio, key, UnixMillis(0));
        assert_eq!(signed.headers["x-twilio-signature"], "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        let signed = Request::post(URL, JSON).signed(Native::Twilio, key, UnixMillis(0));
        assert_eq!(signed.headers["x-twilio-signature"], "a9nBmqA0ju/hNViExpshrM61xv4=");
        assert_eq!(judge(&signed), Ok(Strength::Verified));
    }
}
