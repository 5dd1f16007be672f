//! What must hold for every native verifier: what is signed is accepted, a changed byte is refused or changes nothing
//! that counts, and no request stops the program.

use std::sync::Arc;

use http::{HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::*;

use super::testing::{
    ED25519_PRIVATE, ED25519_PUBLIC, P256_PRIVATE, P256_PUBLIC, RSA_PRIVATE, RSA_PUBLIC, Request, digests, found,
    judged, pem, private,
};
use super::{Native, NativeKey, Settings, SigningKey};
use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::signature::testing::scheme;
use crate::signature::{Failure, Head, KeyError, KeyedSecret, Proof, Strength, Verifier, VerifierOptions};

/// All but those whose provider publishes the key and those that are tokens, which have tests of their own.
fn signable() -> Vec<Native> {
    let signs = |native: &Native| {
        let has_key = !matches!(native.key(), NativeKey::Published | NativeKey::Pinned);
        has_key && *native != Native::AtlassianConnect
    };
    Native::ALL.into_iter().filter(signs).collect()
}

const URL: &str = "https://hooks.example.com/in/1?a=b";
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const SECRET: &str = "abcdef0123456789abcdef0123456789";
const FORM: &str = "Digits=12&From=%2B1&To=%2b2";
const ADYEN: &str = r#"{"notificationItems":[{"NotificationRequestItem":{"pspReference":"p","merchantReference":"r:1",
    "amount":{"value":10,"currency":"EUR"},"eventCode":"E","success":"true"}}]}"#;

/// The names of all, as files write them.
const SCHEMES: [&str; 18] = [
    "adyen",
    "alipay-antom",
    "apple-app-store",
    "atlassian-connect",
    "aws-sns",
    "braintree",
    "bridge-xyz",
    "contentful",
    "dropbox-sign",
    "ebay",
    "exact-online",
    "hubspot-v3",
    "keygen",
    "neon-auth",
    "paypal",
    "plivo-v3",
    "treezor",
    "twilio",
];

/// A signed request with the key that verifies it.
struct Sample {
    native: Native,
    request: Request,
    key: String,
    strength: Strength,
}

fn sample(native: Native) -> Sample {
    let (body, strength) = match native {
        Native::Adyen => (ADYEN, Strength::Authenticated),
        Native::DropboxSign => (
            r#"{"event":{"event_time":"17","event_type":"t"}}"#,
            Strength::Authenticated,
        ),
        Native::ExactOnline => (r#"{"Content":{"Key":1.50}}"#, Strength::Verified),
        Native::PlivoV3 => (FORM, Strength::Authenticated),
        Native::Treezor => (
            r#"{"webhook":"w","object_payload":{"a":"b/c"}}"#,
            Strength::Authenticated,
        ),
        _ => (r#"{"a":"b","n":1.50}"#, Strength::Verified),
    };
    let plain = Request::post(URL, body).setting("public_key", "ours");
    let (key, request) = match native {
        Native::AlipayAntom => (RSA_PUBLIC.to_owned(), signed_by(native, &plain, RSA_PRIVATE)),
        Native::BridgeXyz => (pem("PUBLIC KEY", RSA_PUBLIC), signed_by(native, &plain, RSA_PRIVATE)),
        Native::Ebay => (pem("PUBLIC KEY", P256_PUBLIC), signed_by(native, &plain, P256_PRIVATE)),
        Native::Keygen => (ED25519_PUBLIC.to_owned(), signed_by(native, &plain, ED25519_PRIVATE)),
        Native::Adyen => {
            let key = hex::decode(SECRET).unwrap();
            (SECRET.to_owned(), plain.signed(native, SigningKey::Shared(&key), NOW))
        }
        _ => (
            SECRET.to_owned(),
            plain.signed(native, SigningKey::Shared(SECRET.as_bytes()), NOW),
        ),
    };
    Sample {
        native,
        request,
        key,
        strength,
    }
}

fn signed_by(native: Native, plain: &Request, key: &str) -> Request {
    plain.signed(native, SigningKey::Private(&private(key)), NOW)
}

/// Every request that differs from this one in one byte of body, target or a header's value.
fn changed(request: &Request) -> Vec<Request> {
    let mut all = Vec::new();
    for at in 0..request.body.len() {
        for flip in [1, 2, 0x20] {
            let mut body = request.body.clone();
            body[at] ^= flip;
            all.push(request.clone().body(body));
        }
    }
    for at in 0..request.target.len() {
        let mut target = request.target.clone().into_bytes();
        target[at] ^= 1;
        all.push(request.clone().target(std::str::from_utf8(&target).unwrap()));
    }
    for (name, value) in &request.headers {
        for at in 0..value.len() {
            let mut bytes = value.as_bytes().to_vec();
            bytes[at] ^= if at % 2 == 0 { 1 } else { 0x20 };
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut other = request.clone();
                other.headers.insert(name, value);
                all.push(other);
            }
        }
    }
    all
}

#[test]
fn what_is_signed_is_accepted_under_its_key_alone() {
    // Real events would be refused, or somebody else's accepted.
    for native in signable() {
        let Sample {
            request, key, strength, ..
        } = sample(native);
        assert_eq!(judged(native, &request, &key), Ok(strength), "{native:?}");
        let other = match native {
            Native::AlipayAntom | Native::BridgeXyz | Native::Ebay | Native::Keygen => continue,
            _ => SECRET.replace('a', "b"),
        };
        assert!(judged(native, &request, &other).is_err(), "{native:?}");
    }
}

#[test]
fn a_changed_byte_is_refused_or_changes_nothing_that_counts() {
    // A captured event could be changed, or sent again as a new one.
    for Sample {
        native, request, key, ..
    } in signable().into_iter().map(sample)
    {
        // What is not covered may be changed there; what is has its own tests.
        let remembers_body = matches!(native, Native::DropboxSign | Native::Treezor);
        let expected = digests(native, &request, &key);
        for other in changed(&request) {
            if judged(native, &other, &key).is_ok() {
                let same = remembers_body || digests(native, &other, &key) == expected;
                assert!(
                    same,
                    "{native:?} {} {:?}",
                    other.target,
                    String::from_utf8_lossy(&other.body)
                );
            }
        }
    }
}

#[test]
fn a_verified_body_is_bound_to_the_last_byte() {
    // The backend is told that these bytes came from the provider.
    for Sample {
        native,
        request,
        key,
        strength,
    } in signable().into_iter().map(sample)
    {
        // Their signature is in the body, where hex has two cases and escapes too.
        let is_inside = matches!(native, Native::Braintree | Native::ExactOnline);
        if strength != Strength::Verified || is_inside {
            continue;
        }
        for other in changed(&request).into_iter().filter(|other| other.body != request.body) {
            assert!(
                judged(native, &other, &key).is_err(),
                "{native:?} {:?}",
                String::from_utf8_lossy(&other.body)
            );
        }
        let longer = request.clone().body([request.body.as_slice(), b" "].concat());
        assert!(judged(native, &longer, &key).is_err(), "{native:?}");
    }
}

#[test]
fn a_form_of_twilios_is_covered_too() {
    // The sample above is JSON; calls and messages are forms.
    let key = SigningKey::Shared(SECRET.as_bytes());
    let request = Request::post(URL, FORM).signed(Native::Twilio, key, NOW);
    let expected = digests(Native::Twilio, &request, SECRET);
    assert_eq!(judged(Native::Twilio, &request, SECRET), Ok(Strength::Authenticated));
    for other in changed(&request) {
        if judged(Native::Twilio, &other, SECRET).is_ok() {
            assert_eq!(
                digests(Native::Twilio, &other, SECRET),
                expected,
                "{:?}",
                String::from_utf8_lossy(&other.body)
            );
        }
    }
}

/// A route of this verifier.
fn route(native: Native, request: &Request, key: &str) -> Result<Verifier, KeyError> {
    let name = SCHEMES
        .iter()
        .find(|name| serde_yaml::from_str::<Native>(name).unwrap() == native)
        .unwrap();
    let secret = KeyedSecret {
        id: "key0".into(),
        secret: Secret::new(key).unwrap(),
        until: None,
    };
    let options = VerifierOptions {
        public_url: native.uses_public_url().then(|| request.public_url.clone()),
        settings: match native.settings() {
            [] => Settings::default(),
            _ => request.settings.clone(),
        },
        ..VerifierOptions::default()
    };
    Verifier::new(Arc::new(scheme(&format!("native: {name}"))), vec![secret], options)
}

fn through(verifier: &Verifier, request: &Request, now: UnixMillis) -> Result<Proof, Failure> {
    let head = Head {
        method: &Method::POST,
        target: &request.target,
        headers: &request.headers,
    };
    let mut check = verifier.begin(head, now);
    check.update(&request.body);
    check.finish(&request.body)?.without_fetching()
}

#[test]
fn a_route_judges_age_where_a_time_is_signed() {
    // A captured event could be sent again for ever; or every retry would be refused.
    for Sample {
        native,
        request,
        key,
        strength,
    } in signable().into_iter().map(sample)
    {
        let verifier = route(native, &request, &key).unwrap();
        let at = |later: u64| through(&verifier, &request, UnixMillis(NOW.0 + later)).map(|proof| proof.strength());
        let late = native.tolerance().map_or(0, |tolerance| tolerance.as_millis() as u64);
        assert_eq!(at(late), Ok(strength), "{native:?}");
        let expected = native.tolerance().map_or(Ok(strength), |_| Err(Failure::Stale));
        assert_eq!(at(late + 1), expected, "{native:?}");
        let empty = request.clone().body("");
        assert!(
            through(&verifier, &empty, UnixMillis(NOW.0 + late + 1)).is_err_and(|why| why != Failure::Stale),
            "{native:?}"
        );
    }
}

#[test]
fn a_key_of_another_kind_stops_the_start() {
    // A private key, a symmetric key in place of a public one, or text in place of bytes would never match.
    let wrong = [
        (Native::Adyen, "not hexadecimal at all"),
        (Native::Ebay, ED25519_PUBLIC),
        (Native::Ebay, SECRET),
        (Native::Keygen, RSA_PUBLIC),
        (Native::AlipayAntom, P256_PUBLIC),
        (Native::BridgeXyz, ED25519_PRIVATE),
    ];
    for (native, key) in wrong {
        assert!(route(native, &sample(native).request, key).is_err(), "{native:?} {key}");
    }
}

#[test]
fn a_challenge_is_answered_through_the_route() {
    // Braintree would not save the URL; and any other text would be signed for a stranger.
    let Sample { request, key, .. } = sample(Native::Braintree);
    let braintree = route(Native::Braintree, &request, &key).unwrap();
    let answer = braintree.challenge("20f9f8ed05f77439fe955c977e4c8a53", NOW).unwrap();
    assert!(answer.starts_with("ours|") && answer.len() == 45);
    assert_eq!(braintree.challenge("PG5vdGlmaWNhdGlvbj4=", NOW), None);
    let Sample { request, key, .. } = sample(Native::Twilio);
    let twilio = route(Native::Twilio, &request, &key).unwrap();
    assert_eq!(twilio.challenge("20f9f8ed05f77439fe955c977e4c8a53", NOW), None);
}

#[test]
fn a_name_in_a_file_is_one_of_the_list() {
    // A verifier that no file can name is never used.
    let read = |name: &str| serde_yaml::from_str::<Native>(name).unwrap();
    assert_eq!(SCHEMES.map(read), Native::ALL);
    assert!(serde_yaml::from_str::<Native>("none").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // A request that is no signature at all would stop the program or pass.
    #[test]
    fn any_request_is_survived_and_refused(
        which in any::<proptest::sample::Index>(), body in vec(any::<u8>(), 0..80), target in "/[!-~]{0,40}",
        values in vec(vec(any::<u8>(), 0..60), 3), kind in 0..4,
    ) {
        let Sample { native, request, key, .. } = sample(*which.get(&signable()));
        let mut other = request.body(body).target(&target);
        let kinds = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"];
        other.headers.insert("content-type", HeaderValue::from_static(kinds[kind as usize]));
        for (name, value) in native.security_headers().into_iter().zip(values) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                other.headers.insert(name, value);
            }
        }
        prop_assert!(judged(native, &other, &key).is_err());
        prop_assert!(!found(native, &other, &key).is_ok_and(|found| found.matched.is_some()));
    }
}
