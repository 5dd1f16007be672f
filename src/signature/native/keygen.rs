//! Keygen: an HTTP signature (draft-cavage-http-signatures) with Ed25519 over target, host, date and body's digest.
//!
//! Source: keygen.sh/docs/api/signatures. Of everything that such signatures can say, one form is accepted: Ed25519 over
//! exactly `(request-target) host date digest`. What the header says about both is compared and never obeyed; a list of
//! headers without the digest or the date would leave the body or the time to whoever captured a request.
//!
//! Target and host are the public URL's, and the digest is computed from the body, so that what proxies made of the
//! request on its way does not count. The `digest` header of the request must be that of the body, if it is there.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::DATE;
use sha2::{Digest as _, Sha256};

use super::judge::{PublicClaim, text_header};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, PublicUrl};
use crate::signature::key::KeyError;
use crate::signature::proof::{Failure, Strength};
use crate::signature::pubkey::{EcdsaForm, PrivateKey, PublicKeyForm, SignatureAlgorithm};
use crate::signature::timestamp::Unit;

const SIGNATURE: HeaderName = HeaderName::from_static("keygen-signature");
const DIGEST: HeaderName = HeaderName::from_static("digest");
const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Ed25519;

/// What the header calls our algorithm, and the only list of headers.
const ALGORITHM_NAME: &str = "ed25519";
const SIGNED_HEADERS: &str = "(request-target) host date digest";

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Public(PublicKeyForm::Hex, ALGORITHM),
    strength_min: Strength::Verified,
    tolerance: Some(Duration::from_secs(300)),
    uses_public_url: true,
    settings: &[],
    headers: || vec![SIGNATURE, DIGEST, DATE],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let header = text_header(message.headers, &SIGNATURE)?;
    let date = text_header(message.headers, &DATE)?;
    let signature = read(header).ok_or(Failure::Malformed)?;
    let timestamp = Unit::HttpDate.parse(date.as_bytes()).ok_or(Failure::Malformed)?;
    let url = message.public_url.ok_or(Failure::Mismatch)?;
    let digest = digest(message.body);
    let told = text_header(message.headers, &DIGEST);
    if url.query() != message.query() || told.is_ok_and(|told| told != digest) {
        return Err(Failure::Mismatch);
    }
    let claim = PublicClaim {
        signature,
        signed: content(message.method, url, date, &digest).into_bytes(),
    };
    Ok(claim.found(ALGORITHM, keys, Strength::Verified, Some(timestamp)))
}

/// The signature of `keyid="...", algorithm="ed25519", signature="...", headers="..."`.
fn read(header: &str) -> Option<Vec<u8>> {
    let (mut algorithm, mut signature, mut headers) = (None, None, None);
    for parameter in header.split(',') {
        let (name, value) = parameter.trim().split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let repeated = match name {
            "algorithm" => algorithm.replace(value).is_some(),
            "signature" => signature.replace(value).is_some(),
            "headers" => headers.replace(value).is_some(),
            _ => false,
        };
        if repeated {
            return None;
        }
    }
    if algorithm? != ALGORITHM_NAME || headers? != SIGNED_HEADERS {
        return None;
    }
    STANDARD.decode(signature?).ok()
}

fn digest(body: &[u8]) -> String {
    format!("sha-256={}", STANDARD.encode(Sha256::digest(body)))
}

fn content(method: &str, url: &PublicUrl, date: &str, digest: &str) -> String {
    let method = method.to_ascii_lowercase();
    let host = url.host();
    let target = url.target();
    format!("(request-target): {method} {target}\nhost: {host}\ndate: {date}\ndigest: {digest}")
}

pub(super) fn sign(request: &Unsigned<'_>, key: &PrivateKey) -> Result<Signed, KeyError> {
    let url = request.public_url()?;
    let date = Unit::HttpDate.write(request.now);
    if date.is_empty() {
        return Err(KeyError::Unsignable("the time is no date"));
    }
    let digest = digest(request.body);
    let signature = key.sign(
        ALGORITHM,
        EcdsaForm::Der,
        content("POST", url, &date, &digest).as_bytes(),
    );
    let signature = signature.map_err(|_| KeyError::Unsignable("the key is not one of Ed25519"))?;
    let signature = STANDARD.encode(signature);
    let parameters = format!("algorithm=\"{ALGORITHM_NAME}\", signature=\"{signature}\", headers=\"{SIGNED_HEADERS}\"");
    let mut signed = Signed::default();
    signed.headers.push((DATE, date));
    signed.headers.push((DIGEST, digest));
    signed
        .headers
        .push((SIGNATURE, format!("keyid=\"hookward\", {parameters}")));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{ED25519_PRIVATE, ED25519_PUBLIC, Request, found, judged, private};
    use super::*;
    use crate::clock::UnixMillis;
    use crate::signature::pubkey::{PublicKey, PublicKeyForm};

    const URL: &str = "https://hooks.example.com:8443/in/1?a=b";
    const BODY: &str = "{\"a\":1}";
    const NOW: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const BODY_DIGEST: &str = "sha-256=AVq9f1zFei3ZS3WQ8ErYCEJzkF7jPsXOvq5iJ2qX+GI=";
    /// Computed apart from this code.
    const SIGNED: &str = "VVLW+5DPhA1gs6lSjr+fUAehxhFUn4rAzMQilnSiczyjJb3md1ZsP461BI7i9ic+CuvAGmiRbKlnyXXo7B27Ag==";

    fn header(signature: &str) -> String {
        let headers = "headers=\"(request-target) host date digest\"";
        format!("keyid=\"1fddcec8\", algorithm=\"ed25519\", signature=\"{signature}\", {headers}")
    }

    fn valid() -> Request {
        Request::post(URL, BODY)
            .header("date", NOW)
            .header("digest", BODY_DIGEST)
            .header("keygen-signature", &header(SIGNED))
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::Keygen, request, ED25519_PUBLIC)
    }

    #[test]
    fn the_signed_text_is_keygens() {
        // Published with keygen-sh/keygen-go for an answer of Keygen's, which is signed like a webhook.
        let key = "e8601e48b69383ba520245fd07971e983d06d22c4257cfd82304601479cee788";
        let key = PublicKey::parse(PublicKeyForm::Hex, key.as_bytes()).unwrap();
        let url = "https://api.keygen.sh/v1/accounts/1fddcec8-8dd3-4d8d-9b16-215cac0f9b52/me";
        let url = PublicUrl::parse(url).unwrap();
        let digest = "sha-256=d4uZ26hjiUNqopuSkYcYwg2aBuNtr4D1/9iDhlvf0H8=";
        let text = content("GET", &url, "Wed, 15 Jun 2022 18:52:14 GMT", digest);
        let signature = "IiyYX1ah2HFzbcCx+3sv+KJpOppFdMRuZ7NWlnwZMKAf5khj9c4TO4z6fr62BqNXlyROOTxZinX8UpXHJHVyAw==";
        let signature = read(&header(signature)).unwrap();
        assert!(key.verify(ALGORITHM, EcdsaForm::Der, text.as_bytes(), &signature));
    }

    #[test]
    fn a_signed_request_is_accepted() {
        // Expired licences would go on.
        assert_eq!(judge(&valid()), Ok(Strength::Verified));
        assert_eq!(judge(&valid().without("digest")), Ok(Strength::Verified));
        assert_eq!(
            found(Native::Keygen, &valid(), ED25519_PUBLIC).unwrap().timestamp,
            Some(UnixMillis(1_700_000_000_000))
        );
    }

    #[test]
    fn what_is_missing_or_changed_is_refused() {
        // Such signatures can say that they cover the date alone; the rest would be whatever somebody likes.
        let with = |from: &str, to: &str| valid().replaced("keygen-signature", &header(SIGNED).replace(from, to));
        let rows = [
            (valid().without("keygen-signature"), Failure::Missing),
            (valid().without("date"), Failure::Missing),
            (valid().body("{\"a\":2}"), Failure::Mismatch),
            (valid().body("{\"a\":2}").without("digest"), Failure::Mismatch),
            (valid().replaced("digest", "sha-256=x"), Failure::Mismatch),
            (
                valid().replaced("date", "Tue, 14 Nov 2023 22:13:21 GMT"),
                Failure::Mismatch,
            ),
            (valid().replaced("date", "14 Nov 2023 22:13:20 GMT"), Failure::Malformed),
            (
                valid().replaced("date", "Tue, 14 Nov 2023 22:13:20 +0000"),
                Failure::Malformed,
            ),
            (valid().target("/in/1?a=c"), Failure::Mismatch),
            (
                Request {
                    method: "PUT",
                    ..valid()
                },
                Failure::Mismatch,
            ),
            (with("(request-target) host date digest", "date"), Failure::Malformed),
            (
                with("(request-target) host date digest", "(request-target) host date"),
                Failure::Malformed,
            ),
            (with("ed25519", "hmac-sha256"), Failure::Malformed),
            (with("algorithm=\"ed25519\", ", ""), Failure::Malformed),
            (with("keyid=", "headers=\"date\", keyid="), Failure::Malformed),
            (with("==", ""), Failure::Malformed),
            (with("VVL", "VVM"), Failure::Mismatch),
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
    fn what_is_signed_here_is_signed_as_keygen_does() {
        // A test request that no real one is like proves nothing.
        let key = private(ED25519_PRIVATE);
        let signed =
            Request::post(URL, BODY).signed(Native::Keygen, SigningKey::Private(&key), UnixMillis(1_700_000_000_999));
        assert_eq!(signed.headers["date"], NOW);
        assert_eq!(signed.headers["digest"], BODY_DIGEST);
        assert!(signed.headers["keygen-signature"].to_str().unwrap().contains(SIGNED));
    }
}
