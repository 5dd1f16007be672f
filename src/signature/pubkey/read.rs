//! Public keys from text: raw bytes, SubjectPublicKeyInfo, PEM.
//!
//! Called by [`PublicKey::parse`] and by the reader of certificates. Structures are read as DER, not BER, to their last
//! byte: a lenient reader accepts a second key behind the first one, and which of the two counts is then a matter of
//! who reads. Operators paste whole files, so a PEM block may have text before it; there is exactly one block.

use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::pem::Decoder;
use x509_cert::der::{Decode, Reader as _, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::{PublicKey, PublicKeyError, PublicKeyForm};
use crate::signature::encoding::{key_from_base64, key_from_base64url, key_from_hex};

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

pub(super) fn read(form: PublicKeyForm, text: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let text = text.trim_ascii();
    let bytes = match form {
        PublicKeyForm::Hex => key_from_hex(text).ok_or("not hexadecimal"),
        PublicKeyForm::Base64 => key_from_base64(text).ok_or("not padded base64"),
        PublicKeyForm::Base64url => key_from_base64url(text).ok_or("not base64 for URLs"),
        PublicKeyForm::Pem | PublicKeyForm::Jwk => return from_pem(text),
    };
    let bytes = bytes.map_err(PublicKeyError::Malformed)?;
    match bytes.as_slice().try_into() {
        Ok(raw) => PublicKey::from_ed25519(raw),
        Err(_) if bytes.starts_with(b"-----BEGIN ") => from_pem(&bytes),
        Err(_) => from_spki(&bytes),
    }
}

fn from_pem(text: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let not_pem = |_| PublicKeyError::Malformed("not one PEM block");
    let text = text.trim_ascii();
    let mut decoder = Decoder::new_detect_wrap(text).map_err(not_pem)?;
    let label = decoder.type_label();
    let mut der = Vec::new();
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => {}
        _ if label.ends_with("PRIVATE KEY") => return Err(PublicKeyError::Secret),
        _ => return Err(PublicKeyError::Malformed("a PEM block of another kind")),
    }
    decoder
        .decode_to_end(&mut der)
        .map_err(|_| PublicKeyError::Malformed("not one PEM block"))?;
    match label {
        "RSA PUBLIC KEY" => from_pkcs1(&der),
        "CERTIFICATE" => from_certificate(&der),
        _ => from_spki(&der),
    }
}

/// The key of an X.509 certificate; nothing else of it is looked at.
fn from_certificate(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let malformed = |_| PublicKeyError::Malformed("not an X.509 certificate");
    let certificate = Certificate::from_der(der).map_err(malformed)?;
    let key = certificate.tbs_certificate().subject_public_key_info();
    from_spki(&x509_cert::der::Encode::to_der(key).map_err(malformed)?)
}

/// From a SubjectPublicKeyInfo (RFC 5280 section 4.1).
pub(in crate::signature) fn from_spki(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let malformed = |_| PublicKeyError::Malformed("not a SubjectPublicKeyInfo");
    let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
    let bits = spki
        .subject_public_key
        .as_bytes()
        .ok_or(PublicKeyError::Malformed("a key that is no whole number of bytes"))?;
    match (spki.algorithm.oid, spki.algorithm.parameters) {
        (ED25519, None) => match bits.try_into() {
            Ok(raw) => PublicKey::from_ed25519(raw),
            Err(_) => Err(PublicKeyError::Malformed("an Ed25519 key has 32 bytes")),
        },
        (EC_PUBLIC_KEY, Some(curve)) => match curve.decode_as::<ObjectIdentifier>() {
            Ok(P256) => PublicKey::from_p256(bits),
            _ => Err(PublicKeyError::Malformed("a curve other than P-256")),
        },
        (RSA, Some(parameters)) if parameters.is_null() => from_pkcs1(bits),
        _ => Err(PublicKeyError::Malformed("a kind of key that no scheme uses")),
    }
}

/// From an RSAPublicKey (RFC 8017 appendix A.1.1).
fn from_pkcs1(der: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let malformed = |_| PublicKeyError::Malformed("not an RSA key");
    let mut reader = SliceReader::new(der).map_err(malformed)?;
    let numbers = reader.sequence(|numbers| Ok((UintRef::decode(numbers)?, UintRef::decode(numbers)?)));
    let (n, e) = numbers.map_err(|_: x509_cert::der::Error| PublicKeyError::Malformed("not an RSA key"))?;
    reader.finish().map_err(malformed)?;
    PublicKey::from_rsa(n.as_bytes(), e.as_bytes())
}
