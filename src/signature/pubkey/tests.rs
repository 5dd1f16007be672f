use super::*;
use crate::secret::Secret;
use crate::signature::encoding::to_jose;

mod keys {
    pub(super) const ED25519: &str = include_str!("../../../tests/keys/ed25519.pem");
    pub(super) const ED25519_PUBLIC: &str = include_str!("../../../tests/keys/ed25519.pub.pem");
    pub(super) const P256: &str = include_str!("../../../tests/keys/p256.pem");
    pub(super) const P256_PUBLIC: &str = include_str!("../../../tests/keys/p256.pub.pem");
    pub(super) const RSA: &str = include_str!("../../../tests/keys/rsa2048.pem");
    pub(super) const RSA_PUBLIC: &str = include_str!("../../../tests/keys/rsa2048.pub.pem");
}

const P256_SEC1: &str = include_str!("../../../tests/keys/p256.sec1.pem");
const P256_CERTIFICATE: &str = include_str!("../../../tests/keys/p256.crt.pem");
const RSA_PKCS1: &str = include_str!("../../../tests/keys/rsa2048.pkcs1.pem");
const RSA_PKCS1_PUBLIC: &str = include_str!("../../../tests/keys/rsa2048.pkcs1.pub.pem");
const RSA_1024_PUBLIC: &str = include_str!("../../../tests/keys/rsa1024.pub.pem");
const P384_PUBLIC: &str = include_str!("../../../tests/keys/p384.pub.pem");

/// openssl dgst -sha1 -sign over "hello".
const P256_SHA1: &str = "3045022100c1e8081ebd51c16899ac4f284e76a4c64779a3ccb9242977f277b93e00579d250220594638cd1614fdfaf610bde15392b09e70a8504ae78b5470fe8c48398ea907e8";
const RSA_SHA1: &str = "55d852ad1d18cc57ec8e79d668e48c9048c81b56615592f6db32b51f251d0d5f70163237f4780b4ac4207bef7fe19347c03841c2cf3e714aaa7846b29653807a2730bac5bfb1c6a00e4af8ee0cdbca81a61885f2859e3311b759413cd65ec1df812f13928ad9135d2f372be09b8a6dc15d1e643a312b716437f376c73cbd69054b70cfab78984c3c67d5a84a310b40fec0e019c56d8633c2528cf89331bc06186063bc656e6012d012b3916f452f25bb9be834a2f10dd85682187a3186736068fa5d32fc367c58d011fee40f98a19024c71968cf0367d9f58a61e9139a1cf3ce1ec7556c0f30a43a2c03ce0c4ce18ffbcfc7cd73128004b760d8e1200042409b";

impl PublicKey {
    /// The verification behind `ecdsa-p256-sha1`, by any digest.
    pub(in crate::signature) fn verify_p256_digest(&self, ecdsa: EcdsaForm, digest: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::P256(key) => key.verify_digest(ecdsa, digest, signature),
            _ => false,
        }
    }

    /// The key's own bytes: a point or a modulus.
    fn bytes(&self) -> Vec<u8> {
        match &self.material {
            Material::Ed25519(key) => key.as_bytes().to_vec(),
            Material::P256(key) => key.uncompressed.clone(),
            Material::Rsa(key) => key.n.clone(),
        }
    }
}

fn public(form: PublicKeyForm, text: &str) -> Result<PublicKey, PublicKeyError> {
    PublicKey::parse(form, text.as_bytes())
}

fn private(text: &str) -> PrivateKey {
    PrivateKey::parse(&Secret::new(text).unwrap()).unwrap()
}

/// The bytes of a PEM block.
fn der(pem: &str) -> Vec<u8> {
    x509_cert::der::pem::decode_vec(pem.as_bytes()).unwrap().1
}

const ALL: [(&str, &str, &[SignatureAlgorithm]); 3] = [
    (keys::ED25519, keys::ED25519_PUBLIC, &[SignatureAlgorithm::Ed25519]),
    (
        keys::P256,
        keys::P256_PUBLIC,
        &[SignatureAlgorithm::EcdsaP256Sha256, SignatureAlgorithm::EcdsaP256Sha1],
    ),
    (
        keys::RSA,
        keys::RSA_PUBLIC,
        &[
            SignatureAlgorithm::RsaSha1,
            SignatureAlgorithm::RsaSha256,
            SignatureAlgorithm::RsaSha512,
            SignatureAlgorithm::RsaPssSha256,
            SignatureAlgorithm::RsaPssSha512,
        ],
    ),
];

#[test]
fn a_signature_holds_for_its_key_message_and_algorithm_alone() {
    // Each of these accepted would be a forgery with a key or a signature that lies about openly.
    for (secret, text, algorithms) in ALL {
        let (signer, key) = (private(secret), public(PublicKeyForm::Pem, text).unwrap());
        assert_eq!(signer.public().unwrap().bytes(), key.bytes());
        for (algorithm, form) in algorithms
            .iter()
            .flat_map(|a| [(*a, EcdsaForm::Der), (*a, EcdsaForm::Raw)])
        {
            let signature = signer.sign(algorithm, form, b"message").unwrap();
            assert!(key.verify(algorithm, form, b"message", &signature), "{algorithm:?}");
            for at in 0..signature.len() {
                let mut other = signature.clone();
                other[at] ^= 1;
                assert!(
                    !key.verify(algorithm, form, b"message", &other),
                    "{algorithm:?} byte {at}"
                );
            }
            for other in [b"".as_slice(), b"Message", b"message\0", b"messag"] {
                assert!(
                    !key.verify(algorithm, form, other, &signature),
                    "{algorithm:?} {other:?}"
                );
            }
            let longer = [signature.as_slice(), &[0]].concat();
            for other in [&longer, &signature[1..], &signature[..signature.len() - 1], &[]] {
                assert!(!key.verify(algorithm, form, b"message", other), "{algorithm:?}");
            }
            for other in SignatureAlgorithm::ALL.iter().filter(|other| **other != algorithm) {
                assert!(
                    !key.verify(*other, form, b"message", &signature),
                    "{algorithm:?} as {other:?}"
                );
            }
            for (_, stranger, _) in ALL.iter().filter(|(_, other, _)| *other != text) {
                let stranger = public(PublicKeyForm::Pem, stranger).unwrap();
                assert!(
                    !stranger.verify(algorithm, form, b"message", &signature),
                    "{algorithm:?}"
                );
            }
        }
    }
}

#[test]
fn signatures_with_sha1_are_those_of_openssl() {
    // Two providers still sign so, and no set of vectors covers it.
    let rows = [
        (keys::P256_PUBLIC, SignatureAlgorithm::EcdsaP256Sha1, P256_SHA1),
        (keys::RSA_PUBLIC, SignatureAlgorithm::RsaSha1, RSA_SHA1),
    ];
    for (key, algorithm, signature) in rows {
        let (key, signature) = (
            public(PublicKeyForm::Pem, key).unwrap(),
            hex::decode(signature).unwrap(),
        );
        assert!(
            key.verify(algorithm, EcdsaForm::Der, b"hello", &signature),
            "{algorithm:?}"
        );
        assert!(
            !key.verify(algorithm, EcdsaForm::Der, b"hell0", &signature),
            "{algorithm:?}"
        );
    }
    // The padding has no chance in it, so that what is made here is what openssl made.
    let rsa = private(keys::RSA).sign(SignatureAlgorithm::RsaSha1, EcdsaForm::Der, b"hello");
    assert_eq!(rsa.map(hex::encode), Ok(RSA_SHA1.to_owned()));
}

#[test]
fn one_key_in_every_spelling() {
    // An operator pastes what the provider's console shows.
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
    let ed = public(PublicKeyForm::Pem, keys::ED25519_PUBLIC).unwrap();
    let ec = public(PublicKeyForm::Pem, keys::P256_PUBLIC).unwrap();
    let rsa = public(PublicKeyForm::Pem, keys::RSA_PUBLIC).unwrap();
    let (raw, point) = (ed.bytes(), ec.bytes());
    let rows = [
        (&ed, PublicKeyForm::Hex, hex::encode(&raw)),
        (&ed, PublicKeyForm::Hex, hex::encode_upper(&raw) + "\n"),
        (&ed, PublicKeyForm::Base64, STANDARD.encode(&raw)),
        (&ed, PublicKeyForm::Base64url, URL_SAFE.encode(&raw)),
        (&ed, PublicKeyForm::Base64url, URL_SAFE_NO_PAD.encode(&raw)),
        (&ed, PublicKeyForm::Hex, hex::encode(der(keys::ED25519_PUBLIC))),
        (
            &ed,
            PublicKeyForm::Jwk,
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, to_jose(&raw)),
        ),
        (&ec, PublicKeyForm::Base64, STANDARD.encode(der(keys::P256_PUBLIC))),
        (&ec, PublicKeyForm::Base64, STANDARD.encode(keys::P256_PUBLIC)),
        (&ec, PublicKeyForm::Pem, format!("a file\n\n{}", keys::P256_PUBLIC)),
        (&ec, PublicKeyForm::Pem, keys::P256_PUBLIC.replace('\n', "\r\n")),
        (&ec, PublicKeyForm::Pem, P256_CERTIFICATE.to_owned()),
        (
            &ec,
            PublicKeyForm::Jwk,
            format!(
                r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}","created_at":1,"expired_at":null}}"#,
                to_jose(&point[1..33]),
                to_jose(&point[33..])
            ),
        ),
        (&rsa, PublicKeyForm::Pem, RSA_PKCS1_PUBLIC.to_owned()),
        (
            &rsa,
            PublicKeyForm::Jwk,
            format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, to_jose(&rsa.bytes())),
        ),
    ];
    for (key, form, text) in rows {
        let read = public(form, &text).unwrap_or_else(|e| panic!("{form:?} {text}: {e}"));
        assert_eq!(read.bytes(), key.bytes(), "{form:?} {text}");
    }
    for (one, same) in [(P256_SEC1, keys::P256), (RSA_PKCS1, keys::RSA)] {
        assert_eq!(
            private(one).public().unwrap().bytes(),
            private(same).public().unwrap().bytes()
        );
    }
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    // RFC 8032 section 7.1, the first test.
    let first = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(hex::encode(private(seed).public().unwrap().bytes()), first);
}

#[test]
fn keys_that_prove_nothing_stop_the_start() {
    // Under a point of small order one signature fits every message; a short modulus is factored over a weekend.
    let small_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        // The same again, spelled with numbers beyond the field.
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for text in small_order {
        assert!(public(PublicKeyForm::Hex, text).is_err(), "{text}");
    }
    // y = p + 3 and y = p + 4 are on the curve as 3 and 4 are, of large order, and spelled a second time.
    let mut second_spellings = 0;
    for low in 0xed..=0xff_u8 {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (low, 0x7f);
        second_spellings += usize::from(VerifyingKey::from_bytes(&bytes).is_ok());
        assert!(public(PublicKeyForm::Hex, &hex::encode(bytes)).is_err(), "{low:x}");
    }
    assert!(second_spellings > 4, "{second_spellings}");
    assert!(matches!(
        public(PublicKeyForm::Pem, RSA_1024_PUBLIC),
        Err(PublicKeyError::Weak(_))
    ));
    let big = |low: u8, e: &[u8]| {
        let mut n = vec![0xa5; 256];
        n[255] = low;
        PublicKey::from_rsa(&n, e).err()
    };
    assert!(matches!(big(0xa4, &[1, 0, 1]), Some(PublicKeyError::Weak(_))));
    for e in [[].as_slice(), &[1], &[2], &[1, 0, 0]] {
        assert!(matches!(big(0xa5, e), Some(PublicKeyError::Weak(_))), "{e:?}");
    }
    assert!(matches!(
        big(0xa5, &[2, 0, 0, 0, 1]),
        Some(PublicKeyError::Malformed(_))
    ));
    assert_eq!(big(0xa5, &[3]), None);
    assert_eq!(big(0xa5, &[1, 0xff, 0xff, 0xff, 0xff]), None);
    assert!(matches!(
        PublicKey::from_rsa(&[0xa5; 1025], &[3]),
        Err(PublicKeyError::Malformed(_))
    ));
}

#[test]
fn what_is_no_public_key_is_not_taken_for_one() {
    // A private key in a gateway's configuration is a provider that can be forged by whoever reads the file.
    let der = der(keys::P256_PUBLIC);
    let trailing = hex::encode([der.as_slice(), &[0]].concat());
    let two = format!("{}{}", keys::P256_PUBLIC, keys::ED25519_PUBLIC);
    let rows = [
        (PublicKeyForm::Pem, keys::P256, "secret"),
        (PublicKeyForm::Pem, keys::ED25519, "secret"),
        (PublicKeyForm::Pem, RSA_PKCS1, "secret"),
        (PublicKeyForm::Pem, P256_SEC1, "secret"),
        (PublicKeyForm::Jwk, r#"{"kty":"oct","k":"AAAA"}"#, "secret"),
        (
            PublicKeyForm::Jwk,
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"AA"}"#,
            "secret",
        ),
        (
            PublicKeyForm::Jwk,
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","use":"enc"}"#,
            "kind",
        ),
        (
            PublicKeyForm::Jwk,
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","x":"AA"}"#,
            "malformed",
        ),
        (
            PublicKeyForm::Jwk,
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="}"#,
            "malformed",
        ),
        (
            PublicKeyForm::Jwk,
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            "malformed",
        ),
        (PublicKeyForm::Jwk, r#"{"kty":"RSA","n":"AA","e":"AQAB"}"#, "malformed"),
        (PublicKeyForm::Jwk, "{}", "malformed"),
        (PublicKeyForm::Jwk, "[]", "malformed"),
        (PublicKeyForm::Pem, P384_PUBLIC, "malformed"),
        (PublicKeyForm::Pem, &two, "malformed"),
        (PublicKeyForm::Pem, "", "malformed"),
        (PublicKeyForm::Hex, &trailing, "malformed"),
        (PublicKeyForm::Hex, "00", "malformed"),
        (PublicKeyForm::Hex, "zz", "malformed"),
        (
            PublicKeyForm::Base64,
            "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "malformed",
        ),
    ];
    for (form, text, expected) in rows {
        let word = match public(form, text).unwrap_err() {
            PublicKeyError::Secret => "secret",
            PublicKeyError::WrongKind => "kind",
            PublicKeyError::Weak(_) => "weak",
            PublicKeyError::Malformed(_) => "malformed",
        };
        assert_eq!(word, expected, "{form:?} {text}");
    }
    let long = "0".repeat(KEY_TEXT_BYTES_MAX + 1);
    assert!(public(PublicKeyForm::Hex, &long).is_err());
}

#[test]
fn a_jwk_serves_the_algorithm_it_names() {
    // A key that its owner made for one algorithm must not be used for a weaker one.
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for (alg, expected) in [
        ("EdDSA", true),
        ("Ed25519", true),
        ("ES256", false),
        ("none", false),
        ("", false),
    ] {
        let text = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","alg":"{alg}"}}"#);
        let key = public(PublicKeyForm::Jwk, &text).unwrap();
        assert_eq!(key.check(SignatureAlgorithm::Ed25519).is_ok(), expected, "{alg}");
    }
}

#[test]
fn key_sets_skip_what_they_cannot_use() {
    // A provider that adds a key of a new kind must not end the verification under the old one.
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = |kid: &str, more: &str| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{kid}"{more}}}"#);
    let set = |keys: &[String]| KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes());
    let future = r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#.to_owned();
    let read = set(&[future.clone(), key("a", ""), key("b", r#","use":"enc""#), key("c", "")]).unwrap();
    let named = |kid: Option<&str>| read.named(kid).map(|key| key.kid().unwrap()).collect::<Vec<_>>();
    assert_eq!(named(None), ["a", "c"]);
    assert_eq!(named(Some("c")), ["c"]);
    assert_eq!(named(Some("b")), [""; 0]);
    assert!(set(&[future]).is_err() && set(&[]).is_err());
    assert_eq!(
        set(&[key("a", ""), key("b", r#","d":"AA""#)]).err(),
        Some(PublicKeyError::Secret)
    );
    assert!(set(&vec![key("a", ""); 65]).is_err() && set(&vec![key("a", ""); 64]).is_ok());
    assert!(KeySet::parse(b"{\"keys\":[],\"keys\":[]}").is_err());
}

#[test]
fn errors_show_no_byte_of_a_key() {
    // What is pasted by mistake is a private key, and the log of a failed start is read by many.
    let error = public(PublicKeyForm::Pem, keys::P256).unwrap_err();
    let body = keys::P256.lines().nth(1).unwrap();
    assert!(!format!("{error} {error:?}").contains(body));
    assert_eq!(format!("{:?}", private(keys::P256)), "PrivateKey(..)");
}
