//! Public keys, and the signatures that private ones make.
//!
//! Keys are read once, when a verifier is built, or from an answer that the guarded fetcher brought; a request only
//! calls [`PublicKey::verify`]. Which algorithm runs is the scheme's word: a key of another kind verifies nothing, so
//! that no byte of a request turns an RSA key into an HMAC secret or a strong hash into a weak one.
//!
//! A key that cannot prove anything is refused where it is read: Ed25519 points of small order (under which one
//! signature fits every message) and second spellings of a point, curves other than P-256, RSA below 2048 bits or with
//! an even or trivial exponent, private and symmetric keys that were pasted by mistake, bytes after the end.
//!
//! Not checked: whether a key belongs to whom it should. A certificate given as a key is a key; who signed it and how
//! long it is valid is asked in `x509.rs`.

mod jwk;
mod private;
mod read;
mod roca;
mod rsa_sha1;

use std::fmt;

use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey};
use p256::ecdsa::Signature as P256Signature;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::signature as ring_signature;
use serde::Deserialize;
use sha1::{Digest as _, Sha1};

pub(super) use jwk::KeySet;
pub use private::PrivateKey;
pub(super) use read::from_spki;

/// Smallest RSA modulus, in bits. What is shorter can be factored by those who can pay for it.
const RSA_BITS_MIN: usize = 2048;

/// Largest RSA modulus, in bits; the time of a verification grows with its square.
const RSA_BITS_MAX: usize = 8192;

/// Longest text of a key, in bytes.
const KEY_TEXT_BYTES_MAX: usize = 16 * 1024;

/// The signature algorithms with a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum SignatureAlgorithm {
    /// Ed25519 (RFC 8032), verified strictly: canonical values, no points of small order.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5).
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// ECDSA on P-256 with SHA-1, which eBay uses. A forger needs a second preimage, not a collision, unless he chooses
    /// what the provider signs.
    #[serde(rename = "ecdsa-p256-sha1")]
    EcdsaP256Sha1,
    /// RSA with PKCS#1 v1.5 and SHA-1 (RFC 8017); some providers offer nothing else.
    #[serde(rename = "rsa-sha1")]
    RsaSha1,
    /// RSA with PKCS#1 v1.5 and SHA-256.
    #[serde(rename = "rsa-sha256")]
    RsaSha256,
    /// RSA with PKCS#1 v1.5 and SHA-512.
    #[serde(rename = "rsa-sha512")]
    RsaSha512,
    /// RSA-PSS with SHA-256 for message and mask, salt of 32 bytes.
    #[serde(rename = "rsa-pss-sha256")]
    RsaPssSha256,
    /// RSA-PSS with SHA-512 for message and mask, salt of 64 bytes.
    #[serde(rename = "rsa-pss-sha512")]
    RsaPssSha512,
}

impl SignatureAlgorithm {
    /// Every algorithm.
    pub const ALL: [SignatureAlgorithm; 8] = [
        SignatureAlgorithm::Ed25519,
        SignatureAlgorithm::EcdsaP256Sha256,
        SignatureAlgorithm::EcdsaP256Sha1,
        SignatureAlgorithm::RsaSha1,
        SignatureAlgorithm::RsaSha256,
        SignatureAlgorithm::RsaSha512,
        SignatureAlgorithm::RsaPssSha256,
        SignatureAlgorithm::RsaPssSha512,
    ];

    /// The name of RFC 7518 and RFC 8037, where there is one.
    pub(super) fn jose_name(self) -> Option<&'static str> {
        match self {
            SignatureAlgorithm::Ed25519 => Some("EdDSA"),
            SignatureAlgorithm::EcdsaP256Sha256 => Some("ES256"),
            SignatureAlgorithm::RsaSha256 => Some("RS256"),
            SignatureAlgorithm::RsaSha512 => Some("RS512"),
            SignatureAlgorithm::RsaPssSha256 => Some("PS256"),
            SignatureAlgorithm::RsaPssSha512 => Some("PS512"),
            SignatureAlgorithm::EcdsaP256Sha1 | SignatureAlgorithm::RsaSha1 => None,
        }
    }

    fn rsa_parameters(self) -> Option<&'static ring_signature::RsaParameters> {
        match self {
            SignatureAlgorithm::RsaSha1 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            SignatureAlgorithm::RsaSha256 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
            SignatureAlgorithm::RsaSha512 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
            SignatureAlgorithm::RsaPssSha256 => Some(&ring_signature::RSA_PSS_2048_8192_SHA256),
            SignatureAlgorithm::RsaPssSha512 => Some(&ring_signature::RSA_PSS_2048_8192_SHA512),
            SignatureAlgorithm::Ed25519 | SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP256Sha1 => {
                None
            }
        }
    }
}

/// How the two numbers of an ECDSA signature are written as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EcdsaForm {
    /// An ASN.1 sequence of two integers, strictly DER.
    #[default]
    Der,
    /// r and s, 32 bytes each, as in IEEE P1363 and JWS.
    Raw,
}

/// How the text of a public key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublicKeyForm {
    /// Hexadecimal: the 32 bytes of an Ed25519 key, or a SubjectPublicKeyInfo.
    Hex,
    /// Padded base64 of the same, or of a whole PEM text.
    Base64,
    /// Base64 for URLs of the same, padded or not.
    Base64url,
    /// One PEM block: `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`.
    Pem,
    /// One JSON Web Key (RFC 7517), public and asymmetric.
    Jwk,
}

/// A public key that may verify signatures.
#[derive(Clone)]
pub struct PublicKey {
    material: Material,
    kid: Option<Box<str>>,
    /// The one algorithm a JWK says it is for.
    alg: Option<Box<str>>,
}

#[derive(Clone)]
enum Material {
    Ed25519(Box<VerifyingKey>),
    P256(Box<P256>),
    Rsa(Box<Rsa>),
}

/// A point on the curve, for both of the libraries that verify with it.
#[derive(Clone)]
struct P256 {
    key: p256::ecdsa::VerifyingKey,
    uncompressed: Vec<u8>,
}

/// Modulus and exponent, big-endian without leading zeros.
#[derive(Clone)]
struct Rsa {
    n: Vec<u8>,
    e: Vec<u8>,
}

impl PublicKey {
    /// Reads a key as an operator or a provider writes it.
    ///
    /// # Errors
    /// The text is not a key of that form, or the key is one that proves nothing. See [`PublicKeyError`].
    pub fn parse(form: PublicKeyForm, text: &[u8]) -> Result<PublicKey, PublicKeyError> {
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(PublicKeyError::Malformed("longer than any public key"));
        }
        match form {
            PublicKeyForm::Jwk => jwk::read(text),
            _ => read::read(form, text),
        }
    }

    /// The key's own name, if it was a JWK with one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// That this key can serve `algorithm`. To be asked once, where a scheme and its keys come together.
    ///
    /// # Errors
    /// [`PublicKeyError::WrongKind`] when the key is of another kind, or a JWK that says it is for another algorithm.
    pub fn check(&self, algorithm: SignatureAlgorithm) -> Result<(), PublicKeyError> {
        let kind_fits = match (&self.material, algorithm) {
            (Material::Ed25519(_), SignatureAlgorithm::Ed25519)
            | (Material::P256(_), SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP256Sha1) => true,
            (Material::Rsa(_), other) => other.rsa_parameters().is_some(),
            _ => false,
        };
        let named = |alg: &str| algorithm.jose_name() == Some(alg) || names_curve(alg, algorithm);
        match kind_fits && self.alg.as_deref().is_none_or(named) {
            true => Ok(()),
            false => Err(PublicKeyError::WrongKind),
        }
    }

    /// Whether `signature` is this key's over `message`. `ecdsa` is ignored by the other algorithms.
    ///
    /// Never panics and never errs: what cannot be read as a signature is none, and neither is one under an algorithm
    /// that [`check`](PublicKey::check) refuses.
    pub fn verify(&self, algorithm: SignatureAlgorithm, ecdsa: EcdsaForm, message: &[u8], signature: &[u8]) -> bool {
        if self.check(algorithm).is_err() {
            return false;
        }
        match &self.material {
            Material::Ed25519(key) => Ed25519Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Material::P256(key) if algorithm == SignatureAlgorithm::EcdsaP256Sha1 => {
                key.verify_digest(ecdsa, &Sha1::digest(message), signature)
            }
            Material::P256(key) => key.verify_sha256(ecdsa, message, signature),
            Material::Rsa(key) => algorithm.rsa_parameters().is_some_and(|parameters| {
                let key = ring_signature::RsaPublicKeyComponents { n: &key.n, e: &key.e };
                key.verify(parameters, message, signature).is_ok()
            }),
        }
    }

    fn from_ed25519(bytes: &[u8; 32]) -> Result<PublicKey, PublicKeyError> {
        let off_curve = |_| PublicKeyError::Malformed("not a point of Ed25519");
        let key = VerifyingKey::from_bytes(bytes).map_err(off_curve)?;
        if key.is_weak() {
            return Err(PublicKeyError::Weak(
                "an Ed25519 point of small order fits every message",
            ));
        }
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(PublicKeyError::Malformed("a second spelling of an Ed25519 point"));
        }
        Ok(PublicKey::bare(Material::Ed25519(Box::new(key))))
    }

    /// From a point as SEC 1 writes it.
    fn from_p256(point: &[u8]) -> Result<PublicKey, PublicKeyError> {
        let off_curve = |_| PublicKeyError::Malformed("not a point of P-256");
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(off_curve)?;
        let uncompressed = key.to_sec1_point(false).as_bytes().to_vec();
        Ok(PublicKey::bare(Material::P256(Box::new(P256 { key, uncompressed }))))
    }

    /// From modulus and exponent, big-endian without leading zeros.
    fn from_rsa(n: &[u8], e: &[u8]) -> Result<PublicKey, PublicKeyError> {
        let bits = n.first().map_or(0, |top| {
            n.len().saturating_mul(8).saturating_sub(top.leading_zeros() as usize)
        });
        if bits < RSA_BITS_MIN {
            return Err(PublicKeyError::Weak("RSA below 2048 bits can be factored"));
        }
        if bits > RSA_BITS_MAX {
            return Err(PublicKeyError::Malformed("RSA above 8192 bits"));
        }
        let odd = |number: &[u8]| number.last().is_some_and(|low| low & 1 == 1);
        if !odd(n) || !odd(e) || e == [1] {
            return Err(PublicKeyError::Weak("an even or trivial number in an RSA key"));
        }
        if roca::has_marks(n) {
            return Err(PublicKeyError::Weak(
                "an RSA key that a broken generator made (CVE-2017-15361)",
            ));
        }
        if e.len() > 5 || e > [1, 0xff, 0xff, 0xff, 0xff].as_slice() && e.len() == 5 {
            return Err(PublicKeyError::Malformed("an RSA exponent above 33 bits"));
        }
        Ok(PublicKey::bare(Material::Rsa(Box::new(Rsa {
            n: n.to_vec(),
            e: e.to_vec(),
        }))))
    }

    fn bare(material: Material) -> PublicKey {
        PublicKey {
            material,
            kid: None,
            alg: None,
        }
    }
}

/// RFC 9864 names the curve where RFC 8037 named the family.
fn names_curve(alg: &str, algorithm: SignatureAlgorithm) -> bool {
    alg == "Ed25519" && algorithm == SignatureAlgorithm::Ed25519
}

impl P256 {
    fn verify_sha256(&self, ecdsa: EcdsaForm, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn ring_signature::VerificationAlgorithm = match ecdsa {
            EcdsaForm::Der => &ring_signature::ECDSA_P256_SHA256_ASN1,
            EcdsaForm::Raw => &ring_signature::ECDSA_P256_SHA256_FIXED,
        };
        let key = ring_signature::UnparsedPublicKey::new(algorithm, &self.uncompressed);
        key.verify(message, signature).is_ok()
    }

    /// By the digest of the message, since ring has no ECDSA with SHA-1.
    fn verify_digest(&self, ecdsa: EcdsaForm, digest: &[u8], signature: &[u8]) -> bool {
        let signature = match ecdsa {
            EcdsaForm::Der => P256Signature::from_der(signature),
            EcdsaForm::Raw => P256Signature::from_slice(signature),
        };
        signature.is_ok_and(|signature| self.key.verify_prehash(digest, &signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    /// Kind and name; the key itself is public but long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.material {
            Material::Ed25519(_) => "ed25519",
            Material::P256(_) => "p256",
            Material::Rsa(_) => "rsa",
        };
        write!(f, "PublicKey({kind}, kid {:?})", self.kid)
    }
}

/// Why a text is no key to verify or sign with. No variant carries a byte of the text, which may be a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// The text cannot be read as the form says, or what it holds is none of the kinds of key.
    #[error("is no public key: {0}")]
    Malformed(&'static str),
    /// The key is one that others can sign for.
    #[error("is too weak: {0}")]
    Weak(&'static str),
    /// A private or symmetric key where a public one belongs.
    #[error("is not public: a private or shared key belongs to the one who signs")]
    Secret,
    /// Not a key for the scheme's algorithm.
    #[error("is a key for another algorithm")]
    WrongKind,
}

#[cfg(test)]
mod tests;
