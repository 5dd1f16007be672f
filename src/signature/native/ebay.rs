//! eBay: ECDSA over the body with SHA-1, in a header that is JSON in base64.
//!
//! Source: developer.ebay.com/api-docs/commerce/notification/overview.html and eBay's own event notification SDKs. eBay
//! names the key in the header and gives it out to its customers' applications alone, so that the keys are configured
//! and the name in the header decides nothing: every key is tried. What the header says about algorithm and digest is
//! compared with what we do and never obeyed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use serde::Deserialize;

use super::judge::PublicClaim;
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message};
use crate::signature::extract::field_value;
use crate::signature::key::KeyError;
use crate::signature::proof::{Failure, Strength};
use crate::signature::pubkey::{EcdsaForm, PrivateKey, PublicKeyForm, SignatureAlgorithm};

const SIGNATURE: HeaderName = HeaderName::from_static("x-ebay-signature");
const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::EcdsaP256Sha1;

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Public(PublicKeyForm::Pem, ALGORITHM),
    strength_min: Strength::Verified,
    tolerance: None,
    uses_public_url: false,
    settings: &[],
    headers: || vec![SIGNATURE],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let text = field_value(message.headers, &SIGNATURE)?;
    let claim = PublicClaim {
        signature: read(text).ok_or(Failure::Malformed)?,
        signed: message.body.to_vec(),
    };
    Ok(claim.found(ALGORITHM, keys, Strength::Verified, None))
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    digest: String,
    signature: String,
}

fn read(text: &[u8]) -> Option<Vec<u8>> {
    let header: Header = serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()?;
    if !header.alg.eq_ignore_ascii_case("ecdsa") || !header.digest.eq_ignore_ascii_case("sha1") {
        return None;
    }
    STANDARD.decode(header.signature).ok()
}

pub(super) fn sign(request: &Unsigned<'_>, key: &PrivateKey) -> Result<Signed, KeyError> {
    let signature = key.sign(ALGORITHM, EcdsaForm::Der, request.body);
    let signature = signature.map_err(|_| KeyError::Unsignable("the key is not one of P-256"))?;
    let signature = STANDARD.encode(signature);
    let header = serde_json::json!({ "alg": "ecdsa", "kid": "hookward", "signature": signature, "digest": "SHA1" });
    let mut signed = Signed::default();
    signed.headers.push((SIGNATURE, STANDARD.encode(header.to_string())));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{P256_PRIVATE, P256_PUBLIC, Request, judged, pem, private};
    use super::*;
    use crate::clock::UnixMillis;

    const URL: &str = "https://hooks.example.com/in/1";
    /// eBay/event-notification-nodejs-sdk test/test.json
    const BODY: &str = r#"{"metadata":{"topic":"MARKETPLACE_ACCOUNT_DELETION","schemaVersion":"1.0","deprecated":false},"notification":{"notificationId":"49feeaeb-4982-42d9-a377-9645b8479411_33f7e043-fed8-442b-9d44-791923bd9a6d","eventDate":"2021-03-19T20:43:59.462Z","publishDate":"2021-03-19T20:43:59.679Z","publishAttemptCount":1,"data":{"username":"test_user","userId":"ma8vp1jySJC","eiasToken":"nY+sHZ2PrBmdj6wVnY+sEZ2PrA2dj6wJnY+gAZGEpwmdj6x9nY+seQ=="}}}"#;
    const HEADER: &str = "eyJhbGciOiJlY2RzYSIsImtpZCI6Ijk5MzYyNjFhLTdkN2ItNDYyMS1hMGYxLTk2Y2NiNDI4YWY0OSIsInNpZ25hdHVyZSI6\
        Ik1FWUNJUUNmeGZJV3V4bVdjSUJRSjljNS9YN2lHREpxczJSQ0dzQkVhQWppbnlycmZBSWhBSVY2d0djVGlCdVY1S0pVaWYy\
        aG9reXJMK1E5c3NIa2FkK214Mm5FRTI1dyIsImRpZ2VzdCI6IlNIQTEifQ==";
    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZhhxXKtR+TOvtDbgTPCkSof02qgBB7IsYOyf76il\
        ExJ/upAa/vKIKheOoCyOpcLmi4t0b4uepb7LLjmMr90FUg==";

    fn published() -> Request {
        Request::post(URL, BODY).header("x-ebay-signature", HEADER)
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::Ebay, request, &pem("PUBLIC KEY", KEY))
    }

    #[test]
    fn published_and_computed_signatures_are_accepted() {
        // Deletions of accounts would go unanswered, and eBay withdraws the keys of applications for that.
        assert_eq!(judge(&published()), Ok(Strength::Verified));
        let computed = "eyJhbGciOiAiZWNkc2EiLCAia2lkIjogImsiLCAic2lnbmF0dXJlIjogIk1FVUNJRnhjVzNCME42aXpvdmZqRDcyQ2FqRFZJ\
            NWpaTkJSb0hKYk5reTBDSWgySkFpRUF3SVBtMExuRW9ncThvdkVVUW5XVm01eFZPRllxcGVReU9TNG5LTW5EVmx3PSIsICJk\
            aWdlc3QiOiAiU0hBMSJ9";
        let computed = Request::post(URL, "{\"a\":1}").header("x-ebay-signature", computed);
        assert_eq!(
            judged(Native::Ebay, &computed, &pem("PUBLIC KEY", P256_PUBLIC)),
            Ok(Strength::Verified)
        );
    }

    #[test]
    fn what_is_missing_or_changed_is_refused() {
        // The header names its own algorithm: whoever obeys it can be told to check nothing.
        let text = String::from_utf8(STANDARD.decode(HEADER).unwrap()).unwrap();
        let with =
            |from: &str, to: &str| published().replaced("x-ebay-signature", &STANDARD.encode(text.replace(from, to)));
        let rows = [
            (published().without("x-ebay-signature"), Failure::Missing),
            (
                published().body(BODY.replace("test_user", "test_usex")),
                Failure::Mismatch,
            ),
            (published().replaced("x-ebay-signature", "e30="), Failure::Malformed),
            (
                published().replaced("x-ebay-signature", &text.replace(['{', '}'], "")),
                Failure::Malformed,
            ),
            (with("ecdsa", "none"), Failure::Malformed),
            (with("ecdsa", "HMAC"), Failure::Malformed),
            (with("SHA1", "MD5"), Failure::Malformed),
            (
                with("\"signature\"", "\"signature\":\"\",\"signature\""),
                Failure::Malformed,
            ),
            (with("MEYC", "MEYD"), Failure::Mismatch),
            (with("25w\"", "2\""), Failure::Malformed),
        ];
        for (request, failure) in rows {
            assert_eq!(judge(&request), Err(failure), "{:?}", request.headers);
        }
        assert_eq!(judge(&with("9936261a", "00000000")), Ok(Strength::Verified));
    }

    #[test]
    fn what_is_signed_here_is_accepted() {
        // A test request that no real one is like proves nothing.
        let key = private(P256_PRIVATE);
        let signed = Request::post(URL, BODY).signed(Native::Ebay, SigningKey::Private(&key), UnixMillis(0));
        assert_eq!(
            judged(Native::Ebay, &signed, &pem("PUBLIC KEY", P256_PUBLIC)),
            Ok(Strength::Verified)
        );
        assert_eq!(judge(&signed), Err(Failure::Mismatch));
    }
}
