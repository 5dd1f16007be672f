//! Verifiers and checks: keys, rotation, age, what is missing and what is malformed.

use http::HeaderValue;

use super::*;
use crate::secret::Secret;
use crate::signature::testing::{GITHUB, STANDARD_WEBHOOKS, STRIPE, headers_of, post, scheme, verifier, verify};
use crate::signature::{Failure, Strength, sign};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const A: &str = "secret-a-of-sufficient-length";
const B: &str = "secret-b-of-sufficient-length";
const C: &str = "secret-c-of-sufficient-length";

fn stripe_signature(secret: &str, body: &[u8]) -> String {
    let signed = sign(&scheme(STRIPE), &Secret::new(secret).unwrap(), "", NOW, body).unwrap();
    signed[0].1.rsplit_once("v1=").unwrap().1.to_owned()
}

fn stripe_headers(signatures: &[&str]) -> HeaderMap {
    let listed: String = signatures.iter().map(|text| format!(",v1={text}")).collect();
    headers_of(&[("stripe-signature", &format!("t=1700000000{listed}"))])
}

#[test]
fn every_secret_meets_every_signature() {
    // During a rotation half of the events would be refused.
    let body = b"{}";
    let wrong = "00".repeat(32);
    for secrets in [[A, B, C], [C, A, B], [B, C, A]] {
        for (at, secret) in secrets.iter().enumerate() {
            for place in 0..16 {
                let right = stripe_signature(secret, body);
                let mut signatures = vec![wrong.as_str(); 16];
                signatures[place] = &right;
                let verifier = verifier(STRIPE, &secrets);
                let proof = verify(&verifier, &stripe_headers(&signatures), body, NOW).unwrap();
                assert_eq!(&**proof.key_id(), format!("key{at}"));
                assert_eq!(proof.digests().len(), 3);
            }
        }
    }
}

#[test]
fn sixteen_signatures_are_read_and_seventeen_are_not() {
    // An unbounded list lets one forged request buy any amount of comparing.
    let right = stripe_signature(A, b"");
    let verifier = verifier(STRIPE, &[A]);
    let of = |count: usize| verify(&verifier, &stripe_headers(&vec![right.as_str(); count]), b"", NOW);
    assert_eq!(of(0).err(), Some(Failure::Malformed));
    assert!(of(1).is_ok() && of(16).is_ok());
    assert_eq!(of(17).err(), Some(Failure::Malformed));
    let garbage = vec!["x"; 16];
    let after_garbage = [garbage, vec![right.as_str()]].concat();
    let headers = stripe_headers(&after_garbage);
    assert_eq!(verify(&verifier, &headers, b"", NOW).err(), Some(Failure::Malformed));
}

#[test]
fn a_long_header_is_not_read() {
    // A header of a megabyte must not be parsed once per request.
    let right = stripe_signature(A, b"");
    let verifier = verifier(STRIPE, &[A]);
    let padded = |bytes: usize| {
        let signed = format!("t=1700000000,v1={right},");
        let padding = "x".repeat(bytes - signed.len());
        verify(
            &verifier,
            &headers_of(&[("stripe-signature", &(signed + &padding))]),
            b"",
            NOW,
        )
    };
    assert!(padded(8 * 1024).is_ok());
    assert_eq!(padded(8 * 1024 + 1).err(), Some(Failure::Malformed));
}

#[test]
fn digests_do_not_depend_on_what_was_presented() {
    // A captured request with one signature taken away would be delivered a second time.
    let body = b"{\"id\":1}";
    let (a, b) = (stripe_signature(A, body), stripe_signature(B, body));
    let both = verify(&verifier(STRIPE, &[A, B]), &stripe_headers(&[&a, &b]), body, NOW).unwrap();
    let presented = [
        stripe_headers(&[&a]),
        stripe_headers(&[&b]),
        stripe_headers(&[&b, "junk", &a]),
        stripe_headers(&[&a.to_ascii_uppercase()]),
        headers_of(&[("stripe-signature", &format!(" v1={b} , x=y , t=1700000000\t"))]),
    ];
    for headers in presented {
        for order in [[A, B], [B, A]] {
            let proof = verify(&verifier(STRIPE, &order), &headers, body, NOW).unwrap();
            assert_eq!(proof.digests(), both.digests());
        }
    }
    let rotated = verify(&verifier(STRIPE, &[B, C]), &stripe_headers(&[&b]), body, NOW).unwrap();
    assert_eq!(
        rotated.digests().iter().filter(|d| both.digests().contains(d)).count(),
        1
    );
}

#[test]
fn digests_of_every_mac_have_32_bytes() {
    // A digest cut to the length of another algorithm's would let two messages share a replay key.
    for (mac, tag_bytes) in [("hmac-sha1", 20), ("hmac-sha256", 32), ("hmac-sha512", 64)] {
        let yaml = GITHUB.replace("hmac-sha256", mac);
        let scheme = scheme(&yaml);
        let signed = sign(&scheme, &Secret::new(A).unwrap(), "", NOW, b"body").unwrap();
        let tag = hex::decode(signed[0].1.strip_prefix("sha256=").unwrap()).unwrap();
        assert_eq!(tag.len(), tag_bytes);
        let headers = headers_of(&[("x-hub-signature-256", &signed[0].1)]);
        let proof = verify(&verifier(&yaml, &[A]), &headers, b"body", NOW).unwrap();
        let digest = proof.digests()[0];
        assert_eq!(digest[..20] == tag[..20], tag_bytes <= 32, "{mac}");
        assert_eq!(digest[20..] == [0; 12], tag_bytes == 20, "{mac}");
    }
}

#[test]
fn a_secret_ends_at_its_cut_off() {
    // A leaked secret that was given an end would go on opening the gate.
    let body = b"{}";
    let headers = stripe_headers(&[&stripe_signature(A, body)]);
    let keyed = |id: &str, secret: &str, until| KeyedSecret {
        id: id.into(),
        secret: Secret::new(secret).unwrap(),
        until,
    };
    let at = |secrets: &[(&str, Option<UnixMillis>)]| {
        let secrets = secrets.iter().map(|(text, until)| keyed(text, text, *until)).collect();
        let options = VerifierOptions::default();
        let verifier = Verifier::new(Arc::new(scheme(STRIPE)), secrets, options).unwrap();
        verify(&verifier, &headers, body, NOW)
    };
    let proof = at(&[(A, Some(UnixMillis(NOW.0 + 1))), (B, None)]).unwrap();
    assert_eq!(proof.digests().len(), 2);
    assert_eq!(at(&[(A, Some(NOW)), (B, None)]).err(), Some(Failure::Mismatch));
    assert_eq!(
        at(&[(A, Some(UnixMillis(0))), (B, None)]).err(),
        Some(Failure::Mismatch)
    );
    assert_eq!(at(&[(A, Some(NOW))]).err(), Some(Failure::UnknownKey));
    let proof = at(&[(B, Some(NOW)), (A, None)]).unwrap();
    assert_eq!(proof.digests().len(), 1, "an ended secret leaves no digest");
}

#[test]
fn age_is_asked_last_and_both_edges_are_inside() {
    // A forger could read our clock from the answers; a provider one second off would be refused.
    let verifier = verifier(STRIPE, &[A]);
    let headers = stripe_headers(&[&stripe_signature(A, b"")]);
    let at = |ms: i64, body: &[u8]| {
        let now = UnixMillis(NOW.0.checked_add_signed(ms).unwrap());
        verify(&verifier, &headers, body, now).err()
    };
    assert_eq!([at(-300_000, b""), at(0, b""), at(300_000, b"")], [None; 3]);
    assert_eq!([at(-300_001, b""), at(300_001, b"")], [Some(Failure::Stale); 2]);
    assert_eq!(at(300_001, b"forged"), Some(Failure::Mismatch));
}

#[test]
fn a_route_may_set_the_tolerance_within_bounds() {
    // A tolerance of a year, by a slip of a unit, would switch the age check off.
    let with = |yaml: &str, seconds: u64| {
        let secret = KeyedSecret {
            id: "a".into(),
            secret: Secret::new(A).unwrap(),
            until: None,
        };
        let options = VerifierOptions {
            tolerance: Some(Duration::from_secs(seconds)),
            allow_short: false,
            ..VerifierOptions::default()
        };
        Verifier::new(Arc::new(scheme(yaml)), vec![secret], options)
    };
    let headers = stripe_headers(&[&stripe_signature(A, b"")]);
    let wide = with(STRIPE, 3600).unwrap();
    let narrow = with(STRIPE, 1).unwrap();
    let later = UnixMillis(NOW.0 + 3_600_000);
    assert!(verify(&wide, &headers, b"", later).is_ok());
    assert_eq!(verify(&narrow, &headers, b"", later).err(), Some(Failure::Stale));
    for seconds in [0, 172_801, u64::MAX / 1000] {
        assert!(
            matches!(with(STRIPE, seconds), Err(KeyError::Tolerance(_))),
            "{seconds}"
        );
    }
    assert!(matches!(with(GITHUB, 300), Err(KeyError::Tolerance(_))));
}

#[test]
fn what_is_missing_and_what_is_malformed_are_told_apart() {
    // The person at night could not tell a stripped header from a broken sender.
    let verifier = verifier(STANDARD_WEBHOOKS, &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let good = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let now = UnixMillis::from_seconds(1_614_265_330);
    let body = b"{\"test\": 2432232314}";
    let with = |at: usize, value: Option<&str>| {
        let mut pairs: Vec<(&str, &str)> = good.to_vec();
        match value {
            Some(value) => pairs[at].1 = value,
            None => drop(pairs.remove(at)),
        }
        verify(&verifier, &headers_of(&pairs), body, now).err()
    };
    assert_eq!(with(0, Some(good[0].1)), None);
    for at in 0..3 {
        assert_eq!(with(at, None), Some(Failure::Missing));
        assert_eq!(with(at, Some("")), Some(Failure::Malformed));
        assert_eq!(with(at, Some("\t ")), Some(Failure::Malformed));
    }
    let long = "x".repeat(513);
    for id in ["msg.1", "msg 1", "msg\t1", long.as_str()] {
        assert_eq!(with(0, Some(id)), Some(Failure::Malformed), "{id:?}");
    }
    assert_eq!(with(0, Some(&long[..512])), Some(Failure::Mismatch));
    let unusable = [
        "v1",
        "v1,",
        "v2,abc",
        "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "g0hM",
    ];
    for text in unusable {
        assert_eq!(with(2, Some(text)), Some(Failure::Malformed), "{text:?}");
    }
}

#[test]
fn a_listed_time_occurs_exactly_once() {
    // Of two times one would be signed and the other one judged.
    let right = stripe_signature(A, b"");
    let verifier = verifier(STRIPE, &[A]);
    let rows = [
        ("t=1700000000,v1={}", None),
        ("v1={},t=1700000000", None),
        ("v0=x,t=1700000000,,v1={},=,t", None),
        ("t=1700000000,t=1700000000,v1={}", Some(Failure::Malformed)),
        ("t=1700000000,v1={},t=1700000001", Some(Failure::Malformed)),
        ("t=1700000000,v1={},t=", Some(Failure::Malformed)),
        ("v1={}", Some(Failure::Malformed)),
        ("t=,v1={}", Some(Failure::Malformed)),
        ("t= 1700000000,v1={}", Some(Failure::Malformed)),
        ("t =1700000000,v1={}", Some(Failure::Malformed)),
        ("T=1700000000,v1={}", Some(Failure::Malformed)),
        ("t=01700000000,v1={}", Some(Failure::Malformed)),
        ("t=1700000000,V1={}", Some(Failure::Malformed)),
        ("t=1700000000;v1={}", Some(Failure::Malformed)),
        ("t=1700000000,v1=={}", Some(Failure::Malformed)),
        ("t=1700000001,v1={}", Some(Failure::Mismatch)),
    ];
    for (text, expected) in rows {
        let header = text.replace("{}", &right);
        let headers = headers_of(&[("stripe-signature", &header)]);
        assert_eq!(verify(&verifier, &headers, b"", NOW).err(), expected, "{text}");
    }
}

#[test]
fn a_repeated_header_has_to_agree_with_itself() {
    // The backend might read the other one.
    let verifier = verifier(GITHUB, &[A]);
    let signed = sign(&scheme(GITHUB), &Secret::new(A).unwrap(), "", NOW, b"").unwrap();
    let (name, right) = ("x-hub-signature-256", signed[0].1.as_str());
    let upper = right.to_uppercase().replace("SHA", "sha");
    let verdict = |values: &[&str]| {
        let pairs: Vec<(&str, &str)> = values.iter().map(|value| (name, *value)).collect();
        verify(&verifier, &headers_of(&pairs), b"", NOW).err()
    };
    assert_eq!(verdict(&[right, right]), None);
    let joined = format!("{right},{right}");
    for values in [
        [right, ""],
        ["", right],
        [right, "sha256=00"],
        [right, upper.as_str()],
        [joined.as_str(); 2],
    ] {
        assert_eq!(verdict(&values), Some(Failure::Malformed), "{values:?}");
    }
    assert_eq!(verdict(&[upper.as_str()]), None);
}

#[test]
fn an_id_outside_of_ascii_is_malformed() {
    // Bytes that mean two things to two readers must not name an event.
    let verifier = verifier(STANDARD_WEBHOOKS, &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let mut headers = headers_of(&[
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]);
    headers.insert("webhook-id", HeaderValue::from_bytes(b"msg_\xc3\xa9").unwrap());
    let now = UnixMillis::from_seconds(1_614_265_330);
    assert_eq!(verify(&verifier, &headers, b"", now).err(), Some(Failure::Malformed));
}

#[test]
fn a_hopeless_request_is_hashed_all_the_same() {
    // The time until the 401 would tell a forger which check ended it.
    let verifier = verifier(GITHUB, &[A, B]);
    let mut check = verifier.begin(post(&HeaderMap::new()), NOW);
    check.update(b"bo");
    check.update(b"dy");
    let signed = sign(&scheme(GITHUB), &Secret::new(A).unwrap(), "", NOW, b"body").unwrap();
    let tags: Vec<String> = check
        .macs_so_far()
        .iter()
        .map(|tag| hex::encode(tag.as_bytes()))
        .collect();
    assert_eq!(tags.len(), 2);
    assert_eq!(format!("sha256={}", tags[0]), signed[0].1);
    assert_eq!(check.finish(b"body").err(), Some(Failure::Missing));
}

#[test]
fn a_body_that_was_not_hashed_is_not_proven() {
    // A caller that forgets a chunk would forward bytes nobody signed.
    let verifier = verifier(GITHUB, &[A]);
    let signed = sign(&scheme(GITHUB), &Secret::new(A).unwrap(), "", NOW, b"body").unwrap();
    let mut check = verifier.begin(post(&headers_of(&[("x-hub-signature-256", &signed[0].1)])), NOW);
    check.update(b"body");
    assert_eq!(check.finish(b"body and more").err(), Some(Failure::Mismatch));
}

#[test]
fn a_scheme_without_the_body_proves_less() {
    // A backend would trust a body that anybody may have changed.
    let yaml = r#"
        algorithm: hmac-sha256
        key: utf8
        message: "{timestamp}:{id}"
        signature: { header: sig, encoding: base64url }
        timestamp: { header: ts, unit: ms, tolerance: 5m }
        id: { header: event }
    "#;
    let signed = sign(&scheme(yaml), &Secret::new(A).unwrap(), "e1", NOW, b"").unwrap();
    let pairs: Vec<(&str, &str)> = signed
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let proof = verify(&verifier(yaml, &[A]), &headers_of(&pairs), b"any body", NOW).unwrap();
    assert_eq!(proof.strength(), Strength::Authenticated);
    assert_eq!(proof.signed_id(), Some("e1"));
    assert_eq!(proof.timestamp(), Some(NOW));
}

#[test]
fn the_first_of_several_matching_secrets_is_named() {
    // During a rotation the metrics would say that the old secret is gone while it is still in use.
    let headers = stripe_headers(&[&stripe_signature(B, b""), &stripe_signature(A, b"")]);
    let proof = verify(&verifier(STRIPE, &[C, A, B]), &headers, b"", NOW).unwrap();
    assert_eq!(&**proof.key_id(), "key1");
}

#[test]
fn a_short_key_needs_to_be_allowed() {
    // A key of a few bytes is found by trying.
    let new = |text: &str, allow_short| {
        let secret = KeyedSecret {
            id: "a".into(),
            secret: Secret::new(text).unwrap(),
            until: None,
        };
        let options = VerifierOptions {
            tolerance: None,
            allow_short,
            ..VerifierOptions::default()
        };
        Verifier::new(Arc::new(scheme(STANDARD_WEBHOOKS)), vec![secret], options).err()
    };
    let short = |bytes| Some(KeyError::Short { id: "a".into(), bytes });
    assert_eq!(new("whsec_YWJjZGVmZ2hpamtsbW5v", false), short(15));
    assert_eq!(new("whsec_YWJjZGVmZ2hpamtsbW5v", true), None);
    assert_eq!(new("whsec_YWJjZGVmZ2hpamtsbW5vcA==", false), None);
    assert_eq!(new("whsec_", true), Some(KeyError::Empty { id: "a".into() }));
}

#[test]
fn lists_of_secrets_that_cannot_be_meant_are_refused() {
    // The cut-off of one entry would be undone by its twin.
    let new = |secrets: &[(&str, &str)]| {
        let secrets = secrets.iter().map(|(id, text)| KeyedSecret {
            id: (*id).into(),
            secret: Secret::new(*text).unwrap(),
            until: None,
        });
        let options = VerifierOptions::default();
        Verifier::new(Arc::new(scheme(GITHUB)), secrets.collect(), options).err()
    };
    assert_eq!(new(&[]), Some(KeyError::NoSecret));
    assert_eq!(new(&[("a", A), ("b", B)]), None);
    let id = "a".to_owned();
    assert_eq!(new(&[("a", A), ("a", B)]), Some(KeyError::DuplicateId { id }));
    let (first, second) = ("a".to_owned(), "b".to_owned());
    assert_eq!(new(&[("a", A), ("b", A)]), Some(KeyError::SameKey { first, second }));
}

#[test]
fn nothing_secret_is_printed() {
    // A debug line in a log would give the key or a valid signature away.
    let verifier = verifier(GITHUB, &[A]);
    let signed = sign(&scheme(GITHUB), &Secret::new(A).unwrap(), "", NOW, b"").unwrap();
    let headers = headers_of(&[("x-hub-signature-256", &signed[0].1)]);
    let check = verifier.begin(post(&headers), NOW);
    let mut shown = format!("{verifier:?} {check:?}");
    let proof = check.finish(b"").unwrap().without_fetching().unwrap();
    shown += &format!("{proof:?}");
    let digest = format!("{:?}", proof.digests()[0]);
    assert!(!shown.contains(A) && !shown.contains(&signed[0].1[7..]) && !shown.contains(&digest[1..40]));
}
