//! Bridge (bridge.xyz): RSA over the SHA-256 of time and body, which the algorithm hashes once more.
//!
//! Source: apidocs.bridge.xyz/platform/additional-information/webhooks/signature. `t=MILLISECONDS,v0=BASE64`, over
//! `SHA-256("t.body")` with RSA PKCS#1 v1.5 and SHA-256: the digest is the message. Each of Bridge's webhooks has its own
//! key. Retries are signed afresh.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use sha2::{Digest as _, Sha256};

use super::judge::{PublicClaim, text_header};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message};
use crate::clock::UnixMillis;
use crate::signature::key::KeyError;
use crate::signature::proof::{Failure, Strength};
use crate::signature::pubkey::{EcdsaForm, PrivateKey, PublicKeyForm, SignatureAlgorithm};
use crate::signature::timestamp::Unit;

const SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::RsaSha256;

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Public(PublicKeyForm::Pem, ALGORITHM),
    strength_min: Strength::Verified,
    // The age up to which Bridge advises to accept.
    tolerance: Some(Duration::from_secs(600)),
    uses_public_url: false,
    settings: &[],
    headers: || vec![SIGNATURE],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let text = text_header(message.headers, &SIGNATURE)?;
    let (claim, timestamp) = read(text, message.body).ok_or(Failure::Malformed)?;
    Ok(claim.found(ALGORITHM, keys, Strength::Verified, Some(timestamp)))
}

fn read(text: &str, body: &[u8]) -> Option<(PublicClaim, UnixMillis)> {
    let digits = field(text, "t")?;
    let timestamp = Unit::Millis.parse(digits.as_bytes())?;
    let signature = STANDARD.decode(field(text, "v0")?).ok()?;
    let signed = digest(digits, body);
    Some((PublicClaim { signature, signed }, timestamp))
}

/// The value of the only field of this name.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let fields = text.split(',').filter_map(|field| field.trim().split_once('='));
    let mut values = fields.filter(|(known, _)| *known == name);
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value)
}

fn digest(digits: &str, body: &[u8]) -> Vec<u8> {
    let hash = Sha256::new().chain_update(digits).chain_update(b".").chain_update(body);
    hash.finalize().to_vec()
}

pub(super) fn sign(request: &Unsigned<'_>, key: &PrivateKey) -> Result<Signed, KeyError> {
    let digits = Unit::Millis.write(request.now);
    let signature = key.sign(ALGORITHM, EcdsaForm::Der, &digest(&digits, request.body));
    let signature = signature.map_err(|_| KeyError::Unsignable("the key is not one of RSA"))?;
    let mut signed = Signed::default();
    signed
        .headers
        .push((SIGNATURE, format!("t={digits},v0={}", STANDARD.encode(signature))));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{RSA_PRIVATE, RSA_PUBLIC, Request, found, judged, pem, private};
    use super::*;

    const URL: &str = "https://hooks.example.com/in/1";
    /// From the documentation of Bridge.
    const KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAtqsEE4eI7EmzhcquGJXtLX9PMK0UH6Kl1WIR21sv8HtueG8Buvvp\
        P3MiN7ltzmIhS8KaynCjN4l+620PnXeuxWG+CSnEdkinL9hCqbEid5vv9zl0j9LWiJx3FkKHqADU7cgm46aa8dKUdIQYF2X+\
        O7WmyLkC4wUM/mWhBPMsIQBznashRMZxx7XJjsVp27ACUE4eNIjEXbVYN6U8jSbUhG++CfL8xXu+GHDqKmFE6Po6HnuURvLF\
        VnCtE3mXXBcVFlPy+octfx8nOMLT3X8O9UehIigJ34o2yMm/Fq3HUJzg2BsiAiGgtr0vmeoV9Q7upSNj9TuOumAzZFi4pYA+\
        qwIDAQAB";
    const SIGNED: &str = "jz/0dmHJ63FAzacGutrDTEoq+iSz/PHm/ugdooXDQu5NwuVIT2LmZGjsnCsBHgR9Py6OBP9zurzW4dHgygU4EDqmMPTUOvhv\
        ndYb4lWt+TY66LihaFI2whL6DAf/jb1QjYjNU0A6x9SLzC45dgE6X7zTDUM+2Z+scG/WEQf6SxQMt4E2sEipl5PqMK5lYUe3\
        otdJV+X2c9D64bGwCEE7QSia+Vhozg8QNOQEk/rdz2IEONIg6oC43CeiN4E2kF9XLAGuy9uAHx9O9OJH5ZPLJZjyo4VcXYeW\
        QgxaQ1gZ1Qu6hEEzgiPSff/1nou58dm4bIIazgCWli/mO0NyGcpfFw==";
    const BODY: &str = "{\"message\":\"Hello World!\"}";

    fn published() -> Request {
        Request::post(URL, BODY).header("x-webhook-signature", &format!("t=1705854411204,v0={SIGNED}"))
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::BridgeXyz, request, &pem("PUBLIC KEY", KEY))
    }

    #[test]
    fn published_and_computed_signatures_are_accepted() {
        // The digest is hashed a second time: a verifier that hashes once refuses every transfer.
        assert_eq!(judge(&published()), Ok(Strength::Verified));
        let key = pem("PUBLIC KEY", KEY);
        assert_eq!(
            found(Native::BridgeXyz, &published(), &key).unwrap().timestamp,
            Some(UnixMillis(1_705_854_411_204))
        );
        let computed = "Xavl+BoqeRmxTOYt1Q/oeAdRYjk7YOwW8InMP0jHgMUnqsIGfm6HFgjjkLkUBOFBDdR0KuPCQuFFtEre3WGalPcbRLa273Y/\
            C4AReWqkyBwUXGACq4WF9+YbGt330styJ4IPsJ9y6dSedDOVpC2RdJNYyHgO094BSHF3qcQqTvVEx2H43e1C4JsrTJzQe4Q5\
            3Fqlk8LPc9b6Q42ThYtG3TGyqUPDRsXzX0gUcpMkKM5cFi14+lnX6R8zZuiBVodn+zvw11bYmC6bdXKjq1cHOtDbEAAUTatx\
            CwBWFBAgHbjLBUeTMRMZU7qoCTTUPoB+DJPwo27ia0cMThyRuTcAJQ==";
        let computed =
            Request::post(URL, "{\"a\":1}").header("x-webhook-signature", &format!("t=1700000000000,v0={computed}"));
        assert_eq!(
            judged(Native::BridgeXyz, &computed, &pem("PUBLIC KEY", RSA_PUBLIC)),
            Ok(Strength::Verified)
        );
    }

    #[test]
    fn what_is_missing_or_changed_is_refused() {
        // A captured transfer could be sent again as a fresh one, or as another one.
        let with = |text: String| published().replaced("x-webhook-signature", &text);
        let rows = [
            (published().without("x-webhook-signature"), Failure::Missing),
            (published().body(BODY.replace('!', "?")), Failure::Mismatch),
            (with(format!("t=1705854411205,v0={SIGNED}")), Failure::Mismatch),
            (
                with(format!("t=1705854411204,v0={}", SIGNED.replacen('j', "k", 1))),
                Failure::Mismatch,
            ),
            (with(format!("t=1705854411204,v1={SIGNED}")), Failure::Malformed),
            (with(format!("v0={SIGNED}")), Failure::Malformed),
            (with(format!("t=1705854411204.0,v0={SIGNED}")), Failure::Malformed),
            (with(format!("t=1705854411204,t=1,v0={SIGNED}")), Failure::Malformed),
            (
                with(format!("t=1705854411204,v0={}", SIGNED.replace('=', ""))),
                Failure::Malformed,
            ),
        ];
        for (request, failure) in rows {
            assert_eq!(judge(&request), Err(failure), "{:?}", request.headers);
        }
    }

    #[test]
    fn what_is_signed_here_is_accepted() {
        // A test request that no real one is like proves nothing.
        let key = private(RSA_PRIVATE);
        let signed = Request::post(URL, BODY).signed(
            Native::BridgeXyz,
            SigningKey::Private(&key),
            UnixMillis(1_700_000_000_000),
        );
        assert_eq!(
            judged(Native::BridgeXyz, &signed, &pem("PUBLIC KEY", RSA_PUBLIC)),
            Ok(Strength::Verified)
        );
    }
}
