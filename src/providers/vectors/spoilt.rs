//! Rejections derived from accepted vectors: requests that differ in a single point and must not be accepted.
//!
//! What a scheme does not cover is left alone (a body that nothing binds), and so is a header that is not needed because
//! another one is right as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Basis, End, Provider, Vector, Verdict, all};
use crate::signature::Strength;

type Change = fn(&str) -> String;

/// Changes to a header's value after which it must prove nothing; to each of its entries, since one may suffice.
const HEADER_CHANGES: [(&str, Change); 11] = [
    ("empty", |_| String::new()),
    ("reversed", |value| value.chars().rev().collect()),
    ("first letters gone", |value| {
        each_entry(value, |entry| entry[1..].to_owned())
    }),
    ("quotes", |value| each_entry(value, |entry| format!("\"{entry}"))),
    ("tildes", |value| each_entry(value, |entry| format!("~{entry}"))),
    ("zeros", |value| each_entry(value, |entry| format!("0{entry}"))),
    ("escapes", |value| each_entry(value, |entry| format!("%{entry}"))),
    ("letters twice", |value| {
        each_entry(value, |entry| {
            entry.chars().flat_map(|letter| [letter, letter]).collect()
        })
    }),
    ("letters in the middle gone", |value| {
        each_entry(value, |entry| {
            let middle = entry.len() / 2;
            let letters = entry.char_indices().filter(|(at, _)| *at != middle);
            letters.map(|(_, letter)| letter).collect()
        })
    }),
    ("spaces behind the first letters", |value| {
        each_entry(value, |entry| {
            format!("{} {}", &entry[..1], if entry.len() > 1 { &entry[1..] } else { "x" })
        })
    }),
    ("another letter first", |value| {
        each_entry(value, |entry| {
            format!("{}{}", if entry.starts_with('b') { 'c' } else { 'b' }, &entry[1..])
        })
    }),
];

/// Keys that are nobody's, in every form; the first one that the scheme can read takes the place of the right ones.
pub(super) const SPARE_KEYS: [&str; 14] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e",
    "nobody:AAAAAAAAAAAAAAAAAAAAAAAA",
    "8a263a788c0d0b0f4a6a806723d1ba3169235113940b3d2928817b289c08ecd9",
    "iiY6eIwNCw9KaoBnI9G6MWkjUROUCz0pKIF7KJwI7Nk=",
    "iiY6eIwNCw9KaoBnI9G6MWkjUROUCz0pKIF7KJwI7Nk",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzWNw1p0QOD19m4eyxDqZ\nOTlX+cIN8/XzQ4/RX6ksp4kONdN/eUpsLhsKPfYilM2CY1tpyEFANl9Mjn5Q+JyE\nPeLspQkgyjC23z6NZmKBzpg9sk7F3+JSEPz0Xlt19tQdS/yjss41XDJOhNAgZi2t\nUIFqwUV1fvRz17hwSDt1yuwd3mB8e8yZ/qd3iN6Z8zc+nDs3xX4uaYP7t5Lsajx1\nsdJ/+PZUzms7QG8ZrgcP7yNxZ2lKZGKunAw7t7jpaI1TM3Aci4DpNKJwdDRws3V0\nOEm0AvqnggMXwF6vfaRwBCCPTRNZg3xmY9hgvbr9EfxzXjOvo+QZsge/+s/f3vsK\naQIDAQAB\n-----END PUBLIC KEY-----\n",
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzWNw1p0QOD19m4eyxDqZOTlX+cIN8/XzQ4/RX6ksp4kONdN/eUpsLhsKPfYilM2CY1tpyEFANl9Mjn5Q+JyEPeLspQkgyjC23z6NZmKBzpg9sk7F3+JSEPz0Xlt19tQdS/yjss41XDJOhNAgZi2tUIFqwUV1fvRz17hwSDt1yuwd3mB8e8yZ/qd3iN6Z8zc+nDs3xX4uaYP7t5Lsajx1sdJ/+PZUzms7QG8ZrgcP7yNxZ2lKZGKunAw7t7jpaI1TM3Aci4DpNKJwdDRws3V0OEm0AvqnggMXwF6vfaRwBCCPTRNZg3xmY9hgvbr9EfxzXjOvo+QZsge/+s/f3vsKaQIDAQAB",
    "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUlJQklqQU5CZ2txaGtpRzl3MEJBUUVGQUFPQ0FROEFNSUlCQ2dLQ0FRRUF6V053MXAwUU9EMTltNGV5eERxWgpPVGxYK2NJTjgvWHpRNC9SWDZrc3A0a09OZE4vZVVwc0xoc0tQZllpbE0yQ1kxdHB5RUZBTmw5TWpuNVErSnlFClBlTHNwUWtneWpDMjN6Nk5abUtCenBnOXNrN0YzK0pTRVB6MFhsdDE5dFFkUy95anNzNDFYREpPaE5BZ1ppMnQKVUlGcXdVVjFmdlJ6MTdod1NEdDF5dXdkM21COGU4eVovcWQzaU42Wjh6YytuRHMzeFg0dWFZUDd0NUxzYWp4MQpzZEovK1BaVXptczdRRzhacmdjUDd5TnhaMmxLWkdLdW5Bdzd0N2pwYUkxVE0zQWNpNERwTktKd2REUndzM1YwCk9FbTBBdnFuZ2dNWHdGNnZmYVJ3QkNDUFRSTlpnM3htWTloZ3ZicjlFZnh6WGpPdm8rUVpzZ2UvK3MvZjN2c0sKYVFJREFRQUIKLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0tCg==",
    r#"{"kty": "RSA", "n": "zWNw1p0QOD19m4eyxDqZOTlX-cIN8_XzQ4_RX6ksp4kONdN_eUpsLhsKPfYilM2CY1tpyEFANl9Mjn5Q-JyEPeLspQkgyjC23z6NZmKBzpg9sk7F3-JSEPz0Xlt19tQdS_yjss41XDJOhNAgZi2tUIFqwUV1fvRz17hwSDt1yuwd3mB8e8yZ_qd3iN6Z8zc-nDs3xX4uaYP7t5Lsajx1sdJ_-PZUzms7QG8ZrgcP7yNxZ2lKZGKunAw7t7jpaI1TM3Aci4DpNKJwdDRws3V0OEm0AvqnggMXwF6vfaRwBCCPTRNZg3xmY9hgvbr9EfxzXjOvo-QZsge_-s_f3vsKaQ", "e": "AQAB"}"#,
    r#"{"kty": "OKP", "crv": "Ed25519", "x": "iiY6eIwNCw9KaoBnI9G6MWkjUROUCz0pKIF7KJwI7Nk"}"#,
    r#"{"kty": "EC", "crv": "P-256", "x": "EMxJEX-sZN8ECMBm0LYJ_08TcOUldWWueZT2Je-pYYQ", "y": "0f7Y8XPV3Z62AU2QwG-AWPy60XnV2cAd1IY3eYiYm88"}"#,
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEMxJEX+sZN8ECMBm0LYJ/08TcOUldWWueZT2Je+pYYTR/tjxc9XdnrYBTZDAb4BY/LrRedXZwB3Uhjd5iJibzw==",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEMxJEX+sZN8ECMBm0LYJ/08TcOUl\ndWWueZT2Je+pYYTR/tjxc9XdnrYBTZDAb4BY/LrRedXZwB3Uhjd5iJibzw==\n-----END PUBLIC KEY-----\n",
];

/// A change to everything that separators of signature headers separate.
fn each_entry(value: &str, change: Change) -> String {
    value.trim().split_inclusive([' ', ',', ';', '.']).map(change).collect()
}

fn spoilt(provider: &Provider, vector: &Vector) -> Vec<(String, Vector)> {
    let mut all = Vec::new();
    if provider.scheme.strength() == Strength::Verified {
        for (name, body) in spoilt_bodies(&vector.body()) {
            let mut changed = vector.clone();
            changed.body_base64 = Some(STANDARD.encode(body));
            all.push((format!("body: {name}"), changed));
        }
    }
    for header in provider.scheme.security_headers() {
        all.extend(spoilt_header(provider, vector, header.as_str()));
    }
    if let Some(changed) = other_key(provider, vector) {
        all.push(("another key".to_owned(), changed));
    }
    if let Some(tolerance) = provider.scheme.tolerance() {
        let (mut later, mut earlier) = (vector.clone(), vector.clone());
        later.now += tolerance.as_secs() * 2 + 1;
        earlier.now -= tolerance.as_secs() * 2 + 1;
        all.push(("later".to_owned(), later));
        all.push(("earlier".to_owned(), earlier));
    }
    if provider.scheme.needs_public_url() {
        let mut changed = vector.clone();
        let (base, query) = changed.url.split_at(changed.url.find('?').unwrap_or(changed.url.len()));
        changed.public_url = Some(format!("{base}/x{query}"));
        all.push(("another path".to_owned(), changed));
    }
    all
}

/// Nothing for a header that need not be there.
fn spoilt_header(provider: &Provider, vector: &Vector, header: &str) -> Vec<(String, Vector)> {
    let is_it = |name: &str| name.eq_ignore_ascii_case(header);
    let mut gone = vector.clone();
    gone.headers.retain(|(name, _)| !is_it(name));
    if gone.headers.len() == vector.headers.len() || !matches!(gone.end(provider), End::Refused(_)) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for (name, change) in HEADER_CHANGES {
        let mut changed = vector.clone();
        let it = changed.headers.iter_mut().filter(|(name, _)| is_it(name));
        it.for_each(|(_, value)| *value = change(value));
        if changed.headers != vector.headers {
            all.push((format!("{header}: {name}"), changed));
        }
    }
    let mut alike = vector.clone();
    let it = alike.headers.iter_mut().filter(|(name, _)| is_it(name));
    it.for_each(|(name, _)| {
        *name = if name.contains('-') {
            name.replace('-', "_")
        } else {
            format!("{name}_")
        }
    });
    all.push((format!("{header}: underscores"), alike));
    let mut beside = vector.clone();
    beside.headers.push((header.to_owned(), "other".to_owned()));
    all.push((format!("{header}: another beside it"), beside));
    all
}

/// `None` for schemes whose keys are published.
fn other_key(provider: &Provider, vector: &Vector) -> Option<Vector> {
    let mut changed = vector.clone();
    for key in SPARE_KEYS {
        changed.secrets = vec![key.to_owned()];
        if changed.verifier(provider).is_some() {
            return Some(changed);
        }
    }
    assert!(
        !provider.scheme.needs_secrets(),
        "{}: no spare key of this form",
        provider.id
    );
    None
}

fn spoilt_bodies(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for tail in [&b" "[..], b"\n", b"\r\n", b"\0", b"{}", b"&a=b", b"\xef\xbb\xbf"] {
        all.push((format!("{tail:?} added"), [body, tail].concat()));
        all.push((format!("{tail:?} in front"), [tail, body].concat()));
    }
    let Some(last) = body.len().checked_sub(1) else {
        return all;
    };
    for at in [0, last / 5, last / 3, last / 2, last * 2 / 3, last * 4 / 5, last] {
        let mut changed = body.to_vec();
        changed[at] ^= 1;
        all.push((format!("bit of byte {at}"), changed));
        let (before, after) = body.split_at(at);
        all.push((format!("a byte before byte {at}"), [before, b"x", after].concat()));
    }
    all.push(("first byte gone".to_owned(), body[1..].to_vec()));
    all.push(("last byte gone".to_owned(), body[..last].to_vec()));
    all.push(("gone".to_owned(), Vec::new()));
    all.push(("twice".to_owned(), body.repeat(2)));
    all
}

/// Accepted vectors that nothing has been changed in.
pub(super) fn accepted() -> impl Iterator<Item = (&'static Provider, &'static Vector)> {
    all().iter().flat_map(|(provider, vectors)| {
        let accepted = |vector: &&Vector| {
            vector.expect == Verdict::Accept && vector.basis != Basis::SchemeWeakness && vector.answer.is_none()
        };
        vectors.iter().filter(accepted).map(|vector| (&***provider, vector))
    })
}

#[test]
fn what_is_changed_in_an_accepted_vector_is_refused() {
    // A forged event would be delivered.
    let mut count = 0;
    let mut wrong = Vec::new();
    for (provider, vector) in accepted() {
        for (name, changed) in spoilt(provider, vector) {
            count += 1;
            if !matches!(changed.end(provider), End::Refused(_)) {
                wrong.push(format!("{}: {}: {name}", provider.id, vector.case));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 17_000, "{count} rejections were derived");
}

#[test]
fn a_signature_for_one_provider_opens_no_other() {
    // A secret that is used twice would let one provider's events pass for another's. Some providers sign alike, to the
    // name of the header; these do not.
    let own = ["github", "shopify", "slack", "standard-webhooks", "stripe"];
    let is_own = |provider: &Provider| own.contains(&provider.id.as_str());
    let mut count = 0;
    for (from, vector) in accepted().filter(|(from, _)| is_own(from)) {
        for (to, _) in all().iter().filter(|(to, _)| is_own(to) && to.id != from.id) {
            let mut moved = vector.clone();
            assert!(matches!(moved.end(to), End::Refused(_)), "{} as {}", from.id, to.id);
            let (from_header, to_header) = (&from.scheme.security_headers()[0], &to.scheme.security_headers()[0]);
            for (name, _) in &mut moved.headers {
                if name.eq_ignore_ascii_case(from_header.as_str()) {
                    *name = to_header.to_string();
                }
            }
            assert!(
                matches!(moved.end(to), End::Refused(_)),
                "{} moved to {}",
                from.id,
                to.id
            );
            count += 1;
        }
    }
    assert!(count >= 40, "{count} pairs were tried");
}
