//! Project Wycheproof's vectors for every algorithm that is verified here: what broke the libraries of others.
//!
//! The files lie in `tests/wycheproof/`; each verdict must be ours. Where a set leaves the verdict open, or differs from
//! what this house promises elsewhere, the case is listed with the reason, and a case that is listed without need fails.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::encoding::from_jose;
use super::jwt::{Jwt, TokenKey};
use super::mac::{Mac, MacKind};
use super::pubkey::{EcdsaForm, KeySet, PublicKey, PublicKeyForm, SignatureAlgorithm};
use crate::secret::Secret;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Valid,
    Invalid,
    Acceptable,
}

fn read<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/wycheproof/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Collects disagreements, so that one run shows all of them.
#[derive(Default)]
struct Tally {
    cases: usize,
    wrong: Vec<String>,
    listed: BTreeSet<(String, u32)>,
}

impl Tally {
    /// Takes a case. `exceptions`: cases that are refused here although the set calls them valid or acceptable.
    fn take(&mut self, set: &str, id: u32, verdict: Verdict, accepted: bool, exceptions: &[(&str, u32)]) {
        self.cases += 1;
        let expected = if exceptions.contains(&(set, id)) {
            assert_ne!(verdict, Verdict::Invalid, "{set} {id} needs no exception");
            self.listed.insert((set.to_owned(), id));
            false
        } else {
            assert_ne!(verdict, Verdict::Acceptable, "{set} {id} needs a decision");
            verdict == Verdict::Valid
        };
        if accepted != expected {
            self.wrong
                .push(format!("{set} {id}: accepted {accepted}, the set says {verdict:?}"));
        }
    }

    fn is_right(&self, cases: usize, exceptions: &[(&str, u32)]) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert_eq!((self.cases, self.listed.len()), (cases, exceptions.len()));
    }
}

#[derive(Deserialize)]
struct MacGroup {
    tag_bits: usize,
    tests: Vec<MacCase>,
}

#[derive(Deserialize)]
struct MacCase {
    id: u32,
    key: String,
    msg: String,
    tag: String,
    result: Verdict,
}

#[test]
fn macs_are_those_of_the_standard() {
    // A MAC that differs for long keys or odd lengths refuses one provider's events and nobody knows why.
    let sets = [
        ("hmac_sha1", MacKind::HmacSha1, 170),
        ("hmac_sha256", MacKind::HmacSha256, 174),
        ("hmac_sha384", MacKind::HmacSha384, 174),
        ("hmac_sha512", MacKind::HmacSha512, 174),
    ];
    for (set, kind, cases) in sets {
        let mut tally = Tally::default();
        for group in read::<MacGroup>(set) {
            for case in group.tests {
                let mut mac = Mac::keyed(kind, &hex::decode(&case.key).unwrap());
                mac.update(&hex::decode(&case.msg).unwrap());
                // Some groups cut the MAC; schemes here never do.
                let right = mac.finish().as_bytes()[..group.tag_bits / 8] == hex::decode(&case.tag).unwrap();
                tally.take(set, case.id, case.result, right, &[]);
            }
        }
        tally.is_right(cases, &[]);
    }
}

#[derive(Deserialize)]
struct KeyGroup {
    set: String,
    der: String,
    jwk: Option<Value>,
    tests: Vec<SignatureCase>,
}

#[derive(Deserialize)]
struct SignatureCase {
    id: u32,
    msg: String,
    sig: String,
    result: Verdict,
}

/// Runs a file with each spelling of its keys.
fn run(file: &str, algorithm: SignatureAlgorithm, ecdsa: EcdsaForm, cases: usize, exceptions: &[(&str, u32)]) {
    let mut tally = Tally::default();
    for group in read::<KeyGroup>(file) {
        let key = PublicKey::parse(PublicKeyForm::Hex, group.der.as_bytes());
        let key = key.unwrap_or_else(|e| panic!("{}: {e}", group.set));
        let jwk = group.jwk.map(|jwk| {
            let key = PublicKey::parse(PublicKeyForm::Jwk, jwk.to_string().as_bytes());
            key.unwrap_or_else(|e| panic!("{}: {e}", group.set))
        });
        for case in group.tests {
            let (message, signature) = (hex::decode(&case.msg).unwrap(), hex::decode(&case.sig).unwrap());
            let accepted = key.verify(algorithm, ecdsa, &message, &signature);
            if let Some(jwk) = &jwk {
                assert_eq!(
                    jwk.verify(algorithm, ecdsa, &message, &signature),
                    accepted,
                    "{} {}",
                    group.set,
                    case.id
                );
            }
            tally.take(&group.set, case.id, case.result, accepted, exceptions);
        }
    }
    tally.is_right(cases, exceptions);
}

#[test]
fn ed25519_is_strict() {
    // A second valid form of a signature, or one that fits every message, is a forgery kit.
    run("ed25519", SignatureAlgorithm::Ed25519, EcdsaForm::Der, 151, &[]);
}

#[test]
fn ecdsa_takes_neither_odd_numbers_nor_odd_spellings() {
    // Signatures of zeros have opened more than one verifier to everybody.
    run(
        "ecdsa_p256_sha256_der",
        SignatureAlgorithm::EcdsaP256Sha256,
        EcdsaForm::Der,
        484,
        &[],
    );
    run(
        "ecdsa_p256_sha256_raw",
        SignatureAlgorithm::EcdsaP256Sha256,
        EcdsaForm::Raw,
        262,
        &[],
    );
}

#[test]
fn ecdsa_by_digest_is_as_strict() {
    // There is no set with SHA-1: the library behind that algorithm is shown to be right with SHA-256.
    for (file, form) in [
        ("ecdsa_p256_sha256_der", EcdsaForm::Der),
        ("ecdsa_p256_sha256_raw", EcdsaForm::Raw),
    ] {
        for group in read::<KeyGroup>(file) {
            let key = PublicKey::parse(PublicKeyForm::Hex, group.der.as_bytes()).unwrap();
            for case in group.tests {
                let digest = Sha256::digest(hex::decode(&case.msg).unwrap());
                let accepted = key.verify_p256_digest(form, &digest, &hex::decode(&case.sig).unwrap());
                assert_eq!(accepted, case.result == Verdict::Valid, "{file} {}", case.id);
            }
        }
    }
}

#[test]
fn rsa_padding_is_compared_whole() {
    // Bytes that a verifier skips in the padding are bytes that a forger fills, for exponent 3 by hand.
    const MISSING_NULL: [(&str, u32); 8] = [
        ("rsa_signature_2048_sha256", 8),
        ("rsa_signature_3072_sha256", 8),
        ("rsa_signature_4096_sha256", 8),
        ("rsa_signature_8192_sha256", 8),
        ("rsa_signature_2048_sha512", 8),
        ("rsa_signature_3072_sha512", 8),
        ("rsa_signature_4096_sha512", 8),
        ("rsa_signature_8192_sha512", 8),
    ];
    let (sha256, sha512) = MISSING_NULL.split_at(4);
    run(
        "rsa_pkcs1_sha256",
        SignatureAlgorithm::RsaSha256,
        EcdsaForm::Der,
        1034,
        sha256,
    );
    run(
        "rsa_pkcs1_sha512",
        SignatureAlgorithm::RsaSha512,
        EcdsaForm::Der,
        1037,
        sha512,
    );
}

#[test]
fn pss_has_one_salt_length() {
    // A salt of any length is a signature under parameters that nobody pinned.
    run(
        "rsa_pss_sha256",
        SignatureAlgorithm::RsaPssSha256,
        EcdsaForm::Der,
        325,
        &[],
    );
    run(
        "rsa_pss_sha512",
        SignatureAlgorithm::RsaPssSha512,
        EcdsaForm::Der,
        180,
        &[],
    );
}

#[derive(Deserialize)]
struct TokenGroup {
    name: String,
    key: Value,
    tests: Vec<TokenCase>,
}

#[derive(Deserialize)]
struct TokenCase {
    id: u32,
    jws: String,
    result: Verdict,
}

/// The scheme that a JSON Web Key of the sets is for, and its key; `None` when no scheme has its algorithm.
fn token_scheme(jwk: &Value) -> Option<(Jwt, Option<TokenKey>)> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let algorithm = member("alg").unwrap_or(match member("kty") {
        Some("EC") => "ES256",
        _ => "RS256",
    });
    let form = if algorithm.starts_with("HS") { "hex" } else { "jwk" };
    let file = format!("{{ algorithm: {algorithm}, key: {form}, in: {{ header: x }} }}");
    let scheme = Jwt::build(&serde_yaml::from_str(&file).ok()?).unwrap();
    let text = match member("k") {
        Some(shared) => hex::encode(from_jose(shared.as_bytes()).unwrap()),
        None => jwk.to_string(),
    };
    let key = Secret::new(text)
        .ok()
        .and_then(|text| scheme.read_key("test", &text).ok());
    Some((scheme, key))
}

#[test]
fn tokens_are_read_in_one_way() {
    // Two readers that differ about a token are two verdicts about one event.
    const EXCEPTIONS: [(&str, u32); 4] = [
        // A character that is not of the alphabet makes no token, wherever it stands.
        ("base64", 372),
        ("base64", 373),
        // The key says PS256, the token PS384.
        ("rfc7520", 346),
        ("rfc7520WithKeyOps", 350),
    ];
    // Called invalid, though they are letter by letter a case of the same group that is called valid: the padding that
    // their names speak of is not in the file.
    const CONTRADICTED: [(&str, u32, u32); 2] = [("base64", 367, 357), ("base64", 370, 357)];
    let mut tally = Tally::default();
    let mut elsewhere = BTreeSet::new();
    for group in read::<TokenGroup>("jws") {
        let Some((scheme, key)) = token_scheme(&group.key) else {
            elsewhere.insert(group.key["alg"].as_str().unwrap().to_owned());
            tally.cases += group.tests.len();
            continue;
        };
        for case in &group.tests {
            let twin = CONTRADICTED
                .iter()
                .find(|(name, id, _)| (*name, *id) == (group.name.as_str(), case.id));
            let verdict = match twin.and_then(|(_, _, valid)| group.tests.iter().find(|other| other.id == *valid)) {
                Some(valid) if valid.jws == case.jws => valid.result,
                _ => case.result,
            };
            let accepted = key.as_ref().is_some_and(|key| scheme.is_signed_by(&case.jws, key));
            tally.take(&group.name, case.id, verdict, accepted, &EXCEPTIONS);
        }
    }
    tally.is_right(401, &EXCEPTIONS);
    // ES521 is the set's own slip for ES512.
    assert_eq!(
        elsewhere,
        ["ES521", "PS384", "PS512", "RS384"].map(str::to_owned).into()
    );
}

#[test]
fn key_sets_say_one_thing() {
    // A set that mixes shared and public keys lets a public key be used as a secret.
    const EXCEPTIONS: [(&str, u32); 4] = [
        // Shared secrets come from the operator; a set that publishes one is refused whole.
        ("jws_keyset", 2),
        ("HS256", 13),
        ("HS384", 14),
        ("HS512", 15),
    ];
    let mut tally = Tally::default();
    for group in read::<TokenGroup>("jwk") {
        let set = KeySet::parse(group.key.to_string().as_bytes());
        for case in group.tests {
            let header = from_jose(case.jws.split('.').next().unwrap().as_bytes()).unwrap();
            let header: Value = serde_json::from_slice(&header).unwrap();
            let file = format!(
                "{{ algorithm: {}, key: jwks, in: {{ header: x }}, keys: {{ jwks: \"https://h/\" }} }}",
                header["alg"]
            );
            let accepted = set.as_ref().is_ok_and(|set| {
                let scheme = Jwt::build(&serde_yaml::from_str(&file).unwrap()).unwrap();
                let mut keys = set.named(header["kid"].as_str());
                keys.any(|key| scheme.is_signed_by(&case.jws, &TokenKey::Public(key.clone())))
            });
            tally.take(&group.name, case.id, case.result, accepted, &EXCEPTIONS);
        }
    }
    tally.is_right(26, &EXCEPTIONS);
}
