//! Private keys, for signing what a provider would have signed: `hookward sign`, `hookward send` and tests.
//!
//! No request path comes here. The gateway holds public keys alone; whoever runs it cannot forge a provider.

use std::fmt;

use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature as ring_signature;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_cert::der::pem::Decoder;
use zeroize::Zeroizing;

use super::rsa_sha1::Exponent;
use super::{EcdsaForm, PublicKey, PublicKeyError, SignatureAlgorithm};
use crate::secret::Secret;
use crate::signature::encoding::{key_from_base64, key_from_hex};

/// A private key; prints nothing.
pub struct PrivateKey(Kind);

enum Kind {
    Ed25519(Box<SigningKey>),
    P256(Box<p256::ecdsa::SigningKey>),
    /// The second for SHA-1, which the first does not sign with.
    Rsa(Box<KeyPair>, Box<Exponent>),
}

impl PrivateKey {
    /// Reads a PEM block (`PRIVATE KEY` of any kind, `EC PRIVATE KEY`, `RSA PRIVATE KEY`), or the 32 bytes of an Ed25519
    /// seed in hexadecimal or padded base64.
    ///
    /// # Errors
    /// The text is none of these, or an RSA key of less than 2048 or more than 4096 bits.
    pub fn parse(text: &Secret) -> Result<PrivateKey, PublicKeyError> {
        let text = text.expose().trim_ascii();
        if text.starts_with(b"-----BEGIN ") {
            return PrivateKey::from_pem(text);
        }
        let seed = key_from_hex(text).or_else(|| key_from_base64(text));
        let seed = seed.and_then(|seed| Some(Zeroizing::new(<[u8; 32]>::try_from(seed.as_slice()).ok()?)));
        let seed = seed.ok_or(PublicKeyError::Malformed("neither PEM nor an Ed25519 seed"))?;
        Ok(PrivateKey(Kind::Ed25519(Box::new(SigningKey::from_bytes(&seed)))))
    }

    fn from_pem(text: &[u8]) -> Result<PrivateKey, PublicKeyError> {
        let not_pem = |_| PublicKeyError::Malformed("not one PEM block");
        let mut decoder = Decoder::new_detect_wrap(text).map_err(not_pem)?;
        let label = decoder.type_label();
        let mut der = Zeroizing::new(Vec::new());
        decoder.decode_to_end(&mut der).map_err(not_pem)?;
        let kind = match label {
            "PRIVATE KEY" => Kind::from_pkcs8(&der),
            "EC PRIVATE KEY" => p256::SecretKey::from_sec1_der(&der)
                .ok()
                .map(|key| Kind::P256(Box::new(key.into()))),
            "RSA PRIVATE KEY" => Kind::from_rsa(KeyPair::from_der(&der).ok(), Exponent::from_pkcs1(&der)),
            _ => None,
        };
        let unusable = PublicKeyError::Malformed("a private key of a kind that no scheme uses");
        kind.map(PrivateKey).ok_or(unusable)
    }

    /// The public key that verifies what this one signs.
    ///
    /// # Errors
    /// The public half is one that this house refuses.
    pub fn public(&self) -> Result<PublicKey, PublicKeyError> {
        match &self.0 {
            Kind::Ed25519(key) => PublicKey::from_ed25519(key.verifying_key().as_bytes()),
            Kind::P256(key) => PublicKey::from_p256(key.verifying_key().to_sec1_point(false).as_bytes()),
            Kind::Rsa(key, _) => {
                let public = ring_signature::RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                PublicKey::from_rsa(&public.n, &public.e)
            }
        }
    }

    /// Signs `message`. `ecdsa` is ignored by the other algorithms.
    ///
    /// # Errors
    /// [`PublicKeyError::WrongKind`] when the key is for another algorithm.
    pub fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        ecdsa: EcdsaForm,
        message: &[u8],
    ) -> Result<Vec<u8>, PublicKeyError> {
        match &self.0 {
            Kind::Ed25519(key) if algorithm == SignatureAlgorithm::Ed25519 => Ok(key.sign(message).to_bytes().to_vec()),
            Kind::P256(key) => sign_p256(key, algorithm, ecdsa, message),
            Kind::Rsa(_, key) if algorithm == SignatureAlgorithm::RsaSha1 => {
                key.sign(message).ok_or(PublicKeyError::WrongKind)
            }
            Kind::Rsa(key, _) => sign_rsa(key, algorithm, message),
            Kind::Ed25519(_) => Err(PublicKeyError::WrongKind),
        }
    }
}

impl Kind {
    fn from_pkcs8(der: &[u8]) -> Option<Kind> {
        if let Ok(key) = SigningKey::from_pkcs8_der(der) {
            return Some(Kind::Ed25519(Box::new(key)));
        }
        if let Ok(key) = p256::ecdsa::SigningKey::from_pkcs8_der(der) {
            return Some(Kind::P256(Box::new(key)));
        }
        Kind::from_rsa(KeyPair::from_pkcs8(der).ok(), Exponent::from_pkcs8(der))
    }

    fn from_rsa(key: Option<KeyPair>, exponent: Option<Exponent>) -> Option<Kind> {
        Some(Kind::Rsa(Box::new(key?), Box::new(exponent?)))
    }
}

fn sign_p256(
    key: &p256::ecdsa::SigningKey,
    algorithm: SignatureAlgorithm,
    ecdsa: EcdsaForm,
    message: &[u8],
) -> Result<Vec<u8>, PublicKeyError> {
    let signature: Result<p256::ecdsa::Signature, _> = match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => key.sign_prehash(&Sha256::digest(message)),
        SignatureAlgorithm::EcdsaP256Sha1 => key.sign_prehash(&Sha1::digest(message)),
        _ => return Err(PublicKeyError::WrongKind),
    };
    let signature = signature.map_err(|_| PublicKeyError::WrongKind)?;
    Ok(match ecdsa {
        EcdsaForm::Der => signature.to_der().as_bytes().to_vec(),
        EcdsaForm::Raw => signature.to_bytes().to_vec(),
    })
}

fn sign_rsa(key: &KeyPair, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, PublicKeyError> {
    let padding: &dyn ring_signature::RsaEncoding = match algorithm {
        SignatureAlgorithm::RsaSha256 => &ring_signature::RSA_PKCS1_SHA256,
        SignatureAlgorithm::RsaSha512 => &ring_signature::RSA_PKCS1_SHA512,
        SignatureAlgorithm::RsaPssSha256 => &ring_signature::RSA_PSS_SHA256,
        SignatureAlgorithm::RsaPssSha512 => &ring_signature::RSA_PSS_SHA512,
        _ => return Err(PublicKeyError::WrongKind),
    };
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| PublicKeyError::WrongKind)?;
    Ok(signature)
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
