//! Antom and Alipay+: RSA over method, path, client, time and body, in a field that is base64 escaped for URLs.
//!
//! Source: global.alipay.com/docs/ac/ams/digital_signature and Alipay's own `global-open-sdk`. The signed text is
//! `POST /path?query`, a line end, and `client.time.body`; path and query are those of the public URL. Client and time
//! must have no dots, or they could take bytes from the body or give it some. The header's word about the algorithm is
//! compared with ours and never obeyed; its key version decides nothing, every key is tried.
//!
//! The answer has to be signed as well, which is the backend's business.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::HeaderName;

use super::form::{escape, unescape};
use super::judge::{PublicClaim, text_header};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, PublicUrl};
use crate::clock::UnixMillis;
use crate::signature::key::KeyError;
use crate::signature::proof::{Failure, Strength};
use crate::signature::pubkey::{EcdsaForm, PrivateKey, PublicKeyForm, SignatureAlgorithm};
use crate::signature::timestamp::Unit;

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const CLIENT: HeaderName = HeaderName::from_static("client-id");
const TIME: HeaderName = HeaderName::from_static("request-time");
const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::RsaSha256;

/// What the header calls our algorithm.
const ALGORITHM_NAME: &str = "RSA256";

pub(super) const FACTS: Facts = Facts {
    // As the dashboard shows it.
    key: NativeKey::Public(PublicKeyForm::Base64, ALGORITHM),
    strength_min: Strength::Verified,
    tolerance: None,
    uses_public_url: true,
    settings: &[],
    headers: || vec![SIGNATURE, CLIENT, TIME],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let header = text_header(message.headers, &SIGNATURE)?;
    let client = text_header(message.headers, &CLIENT)?;
    let time = text_header(message.headers, &TIME)?;
    let signature = read(header).ok_or(Failure::Malformed)?;
    let timestamp = read_time(time).ok_or(Failure::Malformed)?;
    if !client.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.') {
        return Err(Failure::Malformed);
    }
    let url = message.public_url.ok_or(Failure::Mismatch)?;
    if url.query() != message.query() {
        return Err(Failure::Mismatch);
    }
    let claim = PublicClaim {
        signature,
        signed: content(message.method, url, client, time, message.body),
    };
    Ok(claim.found(ALGORITHM, keys, Strength::Verified, Some(timestamp)))
}

/// The signature of `algorithm=RSA256,keyVersion=1,signature=...`.
fn read(header: &str) -> Option<Vec<u8>> {
    let (mut algorithm, mut signature) = (None, None);
    for field in header.split(',') {
        let (name, value) = field.trim().split_once('=')?;
        let repeated = match name {
            "algorithm" => algorithm.replace(value).is_some(),
            "signature" => signature.replace(value).is_some(),
            _ => false,
        };
        if repeated {
            return None;
        }
    }
    if algorithm? != ALGORITHM_NAME {
        return None;
    }
    let text = unescape(signature?.as_bytes()).ok()?;
    let engine = if text.contains(&b'-') || text.contains(&b'_') {
        &URL_SAFE
    } else {
        &STANDARD
    };
    engine.decode(text).ok()
}

/// Milliseconds, or RFC 3339 to the second, which older versions of the interface send.
fn read_time(text: &str) -> Option<UnixMillis> {
    if let Some(at) = Unit::Millis.parse(text.as_bytes()) {
        return Some(at);
    }
    let instant: jiff::Timestamp = text.parse().ok().filter(|_| !text.contains('.'))?;
    u64::try_from(instant.as_millisecond()).ok().map(UnixMillis)
}

fn content(method: &str, url: &PublicUrl, client: &str, time: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {}\n{client}.{time}.", url.target());
    [head.as_bytes(), body].concat()
}

/// Signs for a client that is called after the event's id.
pub(super) fn sign(request: &Unsigned<'_>, key: &PrivateKey) -> Result<Signed, KeyError> {
    let url = request.public_url()?;
    let client: String = request
        .id
        .chars()
        .filter(|c| c.is_ascii_graphic() && *c != '.')
        .collect();
    let time = Unit::Millis.write(request.now);
    let text = content("POST", url, &client, &time, request.body);
    let signature = key.sign(ALGORITHM, EcdsaForm::Der, &text);
    let signature = signature.map_err(|_| KeyError::Unsignable("the key is not one of RSA"))?;
    let signature = escape(STANDARD.encode(signature).as_bytes());
    let header = format!("algorithm={ALGORITHM_NAME},keyVersion=1,signature={signature}");
    let mut signed = Signed::default();
    signed.headers.push((CLIENT, client));
    signed.headers.push((TIME, time));
    signed.headers.push((SIGNATURE, header));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{RSA_PRIVATE, RSA_PUBLIC, Request, found, judged, private};
    use super::*;

    const URL: &str = "https://hooks.example.com/in/1?a=b";
    const BODY: &str = r#"{"notifyType":"PAYMENT_RESULT","paymentId":"20190101"}"#;
    /// Computed apart from this code, as Alipay's global-open-sdk-java does in SignatureTool; escaped.
    const OF_MILLIS: &str = "lh1gbo4a%2BWD8sIS3ZCZq7xNhsV79jMvqL9qmdP9CJ%2F0fo%2Fhzead5rNCh1zopiZD6IFWju1v%2FhQlwc1WCmwUyE73f\
        jtsCW2eJD48ZX5%2FpaZtkH4i3T0OFHvKSTNhg8hKAIGG8KHya655XcwvmkPXcnip7zMQjidvvgrj92mMoMR9J3x99XR4bMx\
        nKgYW2xj7ldgyT7QhiKcuq8OdSc0gz57PPNuKf%2FJ1PVFkQMVRrfNxDEHip1pmEe1XGDbYmxIc3vgL9CjicG6mOXR6H3OFB\
        7CRGsF5a6lh%2BFNK%2B3rqJoK499S7H8eGpln2ttUqf1n%2BvM9a56F1IKZzyoi1Aj9j1hw%3D%3D";
    const OF_DATE: &str = "IMDrg8R%2B%2BAhBOsGjELyS5hQxwjcunBMgvlZscU%2B9wtD9DboicZTgn2pVBIlFYDoDMl6SbfaetvxBT8f1wAEvP1NG1w\
        CQRUMJlvQxGnliA5TEk%2BO66OS2iC06XbgVwfhWhi%2BEPPwGoF8NCq9xJhlxGi%2Bhw5xqvakzDKSh%2B1opV2%2FgEVmK\
        5XyOH%2BAGYhWKHzZSy3OFdnVaf1kGs0fQQq111brlUS94WI7fd23e4euN%2BNgSkD7YrgL%2F8axGh%2FdtEvEYaEFI1w%2\
        BrPXuO87EWkg6R5WkeyfLDtaOFbMDeCy6q0qsNiWN6%2B5kdoVpmjssk7w3XYkIQuiF9YLX0QiFycmw2vw%3D%3D";

    fn request(time: &str, signature: &str) -> Request {
        Request::post(URL, BODY)
            .header("client-id", "SANDBOX_5X00000000000000")
            .header("request-time", time)
            .header(
                "signature",
                &format!("algorithm=RSA256,keyVersion=1,signature={signature}"),
            )
    }

    fn valid() -> Request {
        request("1685599933871", OF_MILLIS)
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::AlipayAntom, request, RSA_PUBLIC)
    }

    #[test]
    fn both_spellings_of_time_and_signature_are_accepted() {
        // Paid orders would stay unpaid.
        let bare = String::from_utf8(unescape(OF_MILLIS.as_bytes()).unwrap()).unwrap();
        let for_urls = bare.replace('+', "-").replace('/', "_");
        for signature in [OF_MILLIS, &bare, &for_urls] {
            assert_eq!(
                judge(&request("1685599933871", signature)),
                Ok(Strength::Verified),
                "{signature}"
            );
        }
        let dated = request("2020-11-17T18:38:55+08:00", OF_DATE);
        assert_eq!(judge(&dated), Ok(Strength::Verified));
        let timestamp = |request: &Request| found(Native::AlipayAntom, request, RSA_PUBLIC).unwrap().timestamp;
        assert_eq!(timestamp(&valid()), Some(UnixMillis(1_685_599_933_871)));
        assert_eq!(timestamp(&dated), Some(UnixMillis(1_605_609_535_000)));
    }

    #[test]
    fn what_is_missing_or_changed_is_refused() {
        // A captured payment could be sent again as another one.
        let with = |text: String| valid().replaced("signature", &text);
        let rows = [
            (valid().without("signature"), Failure::Missing),
            (valid().without("client-id"), Failure::Missing),
            (valid().without("request-time"), Failure::Missing),
            (valid().body(BODY.replace("2019", "2020")), Failure::Mismatch),
            (valid().replaced("request-time", "1685599933872"), Failure::Mismatch),
            (valid().replaced("client-id", "other"), Failure::Mismatch),
            (valid().target("/in/1"), Failure::Mismatch),
            (
                Request {
                    method: "PUT",
                    ..valid()
                },
                Failure::Mismatch,
            ),
            // One text, two readings.
            (
                valid().replaced("client-id", "SANDBOX_5X00000000000000.1685599933871"),
                Failure::Malformed,
            ),
            (
                valid().replaced("request-time", "2020-11-17T18:38:55.123+08:00"),
                Failure::Malformed,
            ),
            (valid().replaced("request-time", "yesterday"), Failure::Malformed),
            (
                with(format!(
                    "algorithm=RSA256,keyVersion=1,signature={OF_MILLIS},signature=x"
                )),
                Failure::Malformed,
            ),
            (
                with(format!("algorithm=none,keyVersion=1,signature={OF_MILLIS}")),
                Failure::Malformed,
            ),
            (with(format!("keyVersion=1,signature={OF_MILLIS}")), Failure::Malformed),
            (with("algorithm=RSA256,keyVersion=1".to_owned()), Failure::Malformed),
            (
                with("algorithm=RSA256,keyVersion=1,signature=%4".to_owned()),
                Failure::Malformed,
            ),
            (
                with("algorithm=RSA256,keyVersion=1,signature=AAAA".to_owned()),
                Failure::Mismatch,
            ),
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
    fn what_is_signed_here_is_accepted() {
        // A test request that no real one is like proves nothing.
        let key = private(RSA_PRIVATE);
        let signed = Request::post(URL, BODY).signed(
            Native::AlipayAntom,
            SigningKey::Private(&key),
            UnixMillis(1_700_000_000_000),
        );
        assert_eq!(judge(&signed), Ok(Strength::Verified));
    }
}
