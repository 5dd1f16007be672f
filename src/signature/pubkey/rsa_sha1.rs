//! RSA signatures with SHA-1, as Travis CI still makes them: for `hookward sign` and `hookward send` alone.
//!
//! The library that verifies them signs with nothing older than SHA-256, so the one modular power is done here. It takes
//! as long as the key says, which matters to nobody who signs test events with a key of his own; no request comes here.

use num_bigint::BigUint;
use sha1::{Digest as _, Sha1};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};
use zeroize::Zeroizing;

/// The identifier of RSA keys in PKCS #8.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// SHA-1's name and the digest's length, in DER: what precedes the digest (RFC 8017, 9.2).
const DIGEST_INFO: [u8; 15] = [
    0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14,
];

/// Modulus and private exponent.
pub(super) struct Exponent {
    modulus: BigUint,
    exponent: BigUint,
}

impl Exponent {
    /// From an `RSAPrivateKey` (PKCS #1).
    pub(super) fn from_pkcs1(der: &[u8]) -> Option<Exponent> {
        let mut reader = SliceReader::new(der).ok()?;
        let parts = reader.sequence(|inner| {
            let _version = inner.decode::<UintRef<'_>>()?;
            let modulus = inner.decode::<UintRef<'_>>()?;
            let _public = inner.decode::<UintRef<'_>>()?;
            let exponent = inner.decode::<UintRef<'_>>()?;
            while !inner.is_finished() {
                inner.decode::<AnyRef<'_>>()?;
            }
            let number = |uint: UintRef<'_>| BigUint::from_bytes_be(uint.as_bytes());
            Ok::<_, x509_cert::der::Error>((number(modulus), number(exponent)))
        });
        let (modulus, exponent) = parts.ok()?;
        Some(Exponent { modulus, exponent })
    }

    /// From a `PrivateKeyInfo` (PKCS #8).
    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Exponent> {
        let mut reader = SliceReader::new(der).ok()?;
        let inside = reader.sequence(|inner| {
            let _version = inner.decode::<UintRef<'_>>()?;
            let kind = inner.sequence(|kind| {
                let name = kind.decode::<ObjectIdentifier>()?;
                while !kind.is_finished() {
                    kind.decode::<AnyRef<'_>>()?;
                }
                Ok::<_, x509_cert::der::Error>(name)
            })?;
            let key = <&OctetStringRef>::decode(inner)?;
            while !inner.is_finished() {
                inner.decode::<AnyRef<'_>>()?;
            }
            Ok::<_, x509_cert::der::Error>((kind, key.as_bytes()))
        });
        let (kind, key) = inside.ok()?;
        (kind == RSA).then(|| Exponent::from_pkcs1(key))?
    }

    /// Signs by PKCS #1 v1.5.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let bytes = usize::try_from(self.modulus.bits().div_ceil(8)).ok()?;
        let info = [DIGEST_INFO.as_slice(), &Sha1::digest(message)].concat();
        let padding = bytes.checked_sub(info.len())?.checked_sub(3)?;
        let mut padded = Zeroizing::new(vec![0, 1]);
        padded.extend(std::iter::repeat_n(0xff, padding));
        padded.push(0);
        padded.extend_from_slice(&info);
        let power = BigUint::from_bytes_be(&padded).modpow(&self.exponent, &self.modulus);
        let power = power.to_bytes_be();
        let mut signature = vec![0; bytes.checked_sub(power.len())?];
        signature.extend_from_slice(&power);
        Some(signature)
    }
}
