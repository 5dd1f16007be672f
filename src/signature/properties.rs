//! What must hold for every request of every kind of scheme: what is signed is accepted, whatever is changed is not,
//! and how the body is cut up on its way makes no difference.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::testing::{GITHUB, STANDARD_WEBHOOKS, STRIPE, post, scheme, verifier, verify};
use super::{Failure, Proof, sign};
use crate::clock::UnixMillis;
use crate::secret::Secret;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Every kind of place and spelling: prefix, kv, versions, list, own headers, parts behind the body.
const SCHEMES: [&str; 7] = [
    GITHUB,
    STRIPE,
    STANDARD_WEBHOOKS,
    r#"
        algorithm: hmac-sha1
        key: whsec
        message: "{body}{timestamp}"
        signature: { header: s, format: list, separator: ",", encoding: base64url }
        timestamp: { header: t, unit: ms, tolerance: 10m }
    "#,
    r#"
        algorithm: hmac-sha512
        key: utf8
        message: "{body}.{id}.{timestamp}"
        signature: { header: s, format: plain, encoding: base64 }
        timestamp: { header: t, unit: s, tolerance: 1s }
        id: { header: i }
    "#,
    r#"
        algorithm: hmac-sha256
        key: utf8
        message: "v0:{timestamp}:{body}"
        signature: { header: s, prefix: "v0=", encoding: hex }
        timestamp: { header: t, unit: s, tolerance: 5m }
    "#,
    r#"
        algorithm: hmac-sha256
        key: utf8
        message: "{timestamp}{body}"
        signature: { header: s, format: kv, separator: ";", assign: ":", fields: [a, b], encoding: base64 }
        timestamp: { field: t, unit: s, tolerance: 5m }
    "#,
];

fn signed(yaml: &str, id: &str, now: UnixMillis, body: &[u8]) -> Vec<(HeaderName, Vec<u8>)> {
    let secret = Secret::new(KEY).unwrap();
    let headers = sign(&scheme(yaml), &secret, id, now, body).unwrap();
    headers
        .into_iter()
        .map(|(name, value)| (name, value.into_bytes()))
        .collect()
}

/// `None` when a value cannot be a header at all.
fn judge(
    yaml: &str,
    headers: &[(HeaderName, Vec<u8>)],
    body: &[u8],
    now: UnixMillis,
) -> Option<Result<Proof, Failure>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(verify(&verifier(yaml, &[KEY]), &map, body, now))
}

fn any_scheme() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(SCHEMES.to_vec())
}

fn any_now() -> impl Strategy<Value = UnixMillis> {
    // Widths of timestamps are fixed from 2001 to 2286.
    (1_000_000_000_u64..9_999_999_999).prop_map(UnixMillis::from_seconds)
}

/// The same signature in other letters: hex digits have two cases.
fn same_but_for_case(yaml: &str, a: &[u8], b: &[u8]) -> bool {
    yaml.contains("encoding: hex") && a.eq_ignore_ascii_case(b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // Real events would be refused.
    #[test]
    fn what_is_signed_is_accepted(
        yaml in any_scheme(), id in "[!-\\-/-~]{1,40}", now in any_now(), body in vec(any::<u8>(), 0..300),
    ) {
        let proof = judge(yaml, &signed(yaml, &id, now, &body), &body, now).unwrap().unwrap();
        if yaml.contains("id:") {
            prop_assert_eq!(proof.signed_id(), Some(id.as_str()));
        }
    }

    // A forged event would be delivered.
    #[test]
    fn one_changed_byte_of_a_header_is_refused(
        yaml in any_scheme(), now in any_now(), body in vec(any::<u8>(), 0..100),
        which in any::<Index>(), at in any::<Index>(), byte in any::<u8>(),
    ) {
        let headers = signed(yaml, "msg_1", now, &body);
        let mut changed = headers.clone();
        let header = which.index(headers.len());
        let at = at.index(changed[header].1.len());
        prop_assume!(changed[header].1[at] != byte);
        changed[header].1[at] = byte;
        prop_assume!(!same_but_for_case(yaml, &changed[header].1, &headers[header].1));
        if let Some(result) = judge(yaml, &changed, &body, now) {
            // The kv name of a signature may become that of another accepted field.
            let renamed = yaml.contains("fields: [a, b]") && byte == b'b' && result.is_ok();
            prop_assert!(renamed || result.is_err(), "{changed:?}");
        }
    }

    // A changed body would be delivered under the provider's name.
    #[test]
    fn one_changed_byte_of_the_body_is_a_mismatch(
        yaml in any_scheme(), now in any_now(), body in vec(any::<u8>(), 1..300), at in any::<Index>(), flip in 1_u8..,
    ) {
        let headers = signed(yaml, "msg_1", now, &body);
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= flip;
        prop_assert_eq!(judge(yaml, &headers, &changed, now).unwrap().err(), Some(Failure::Mismatch));
        let longer = [body.as_slice(), &[flip]].concat();
        prop_assert_eq!(judge(yaml, &headers, &longer, now).unwrap().err(), Some(Failure::Mismatch));
        let shorter = &body[..body.len() - 1];
        prop_assert_eq!(judge(yaml, &headers, shorter, now).unwrap().err(), Some(Failure::Mismatch));
    }

    // A body that arrives in small pieces would be refused, or accepted where it must not be.
    #[test]
    fn pieces_are_as_good_as_the_whole(
        yaml in any_scheme(), now in any_now(), pieces in vec(vec(any::<u8>(), 0..80), 0..12),
    ) {
        let body = pieces.concat();
        let headers = signed(yaml, "msg_1", now, &body);
        let map = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap())).collect();
        let verifier = verifier(yaml, &[KEY]);
        let mut check = verifier.begin(post(&map), now);
        pieces.iter().for_each(|piece| check.update(piece));
        let in_pieces = check.finish(&body).unwrap().without_fetching().unwrap();
        let whole = verify(&verifier, &map, &body, now).unwrap();
        prop_assert_eq!(in_pieces.digests(), whole.digests());
    }

    // A request that is no signature at all would stop the program or pass.
    #[test]
    fn any_headers_are_survived_and_refused(
        yaml in any_scheme(), now in any_now(), values in vec(vec(any::<u8>(), 0..120), 3),
    ) {
        let mut headers = signed(yaml, "msg_1", now, b"");
        for ((_, value), random) in headers.iter_mut().zip(values) {
            *value = random;
        }
        if let Some(result) = judge(yaml, &headers, b"", now) {
            prop_assert!(result.is_err());
        }
    }
}
