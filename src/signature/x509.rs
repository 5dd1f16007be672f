//! X.509 certificates (RFC 5280), as far as webhooks need them: a key, its validity, its names, and a chain to a root.
//!
//! Called by the verifiers whose providers send a certificate, or the address of one, beside the signature. Such a
//! certificate is the sender's word: whoever wants to forge brings his own. So it counts only when it was fetched from
//! a pinned host, or when [`Certificate::check_chain`] leads to a pinned root; never by its own text alone.
//!
//! Not checked: revocation. Providers rotate these keys by publishing another address, and the time of a chain is
//! judged by the clock of the caller.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert, ring as algorithms,
};
use x509_cert::Certificate as Parsed;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};

use super::pubkey::{PublicKey, PublicKeyError, from_spki};
use crate::clock::UnixMillis;

/// Longest PEM text or chain, in bytes.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// Most certificates in a text.
const CHAIN_MAX: usize = 8;

/// A certificate that has been read and says something; nobody has vouched for it yet.
#[derive(Clone)]
pub(super) struct Certificate {
    der: Vec<u8>,
    spki: Vec<u8>,
    not_before: UnixMillis,
    not_after: UnixMillis,
    extensions: Vec<ObjectIdentifier>,
}

impl Certificate {
    /// Reads a text of PEM blocks, all of them certificates, the holder's first.
    ///
    /// # Errors
    /// See [`CertificateError`]; none, more than 8 or more than 64 KiB are malformed.
    pub(super) fn parse_pem(text: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
        if text.len() > PEM_BYTES_MAX {
            return Err(CertificateError::Malformed);
        }
        let chain = Parsed::load_pem_chain(text).map_err(|_| CertificateError::Malformed)?;
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(CertificateError::Malformed);
        }
        chain.iter().map(Certificate::from_parsed).collect()
    }

    /// Reads one certificate as DER, to its last byte.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub(super) fn parse_der(der: &[u8]) -> Result<Certificate, CertificateError> {
        let parsed = Parsed::from_der(der).map_err(|_| CertificateError::Malformed)?;
        Certificate::from_parsed(&parsed)
    }

    fn from_parsed(parsed: &Parsed) -> Result<Certificate, CertificateError> {
        let malformed = |_| CertificateError::Malformed;
        let tbs = parsed.tbs_certificate();
        let millis = |at: Duration| UnixMillis::from_seconds(at.as_secs());
        Ok(Certificate {
            der: parsed.to_der().map_err(malformed)?,
            spki: tbs.subject_public_key_info().to_der().map_err(malformed)?,
            not_before: millis(tbs.validity().not_before.to_unix_duration()),
            not_after: millis(tbs.validity().not_after.to_unix_duration()),
            extensions: tbs.extensions().into_iter().flatten().map(|e| e.extn_id).collect(),
        })
    }

    /// The holder's key. Authorities in the middle of a chain may have kinds of keys that no scheme uses, so it is read
    /// only when it is wanted.
    ///
    /// # Errors
    /// The key is of no kind that a scheme uses, or weak.
    pub(super) fn key(&self) -> Result<PublicKey, PublicKeyError> {
        from_spki(&self.spki)
    }

    /// Whether `now` is within the time for which it was issued, both ends included.
    pub(super) fn is_valid_at(&self, now: UnixMillis) -> bool {
        // The last second counts to its end.
        self.not_before <= now && now.seconds() <= self.not_after.seconds()
    }

    /// Whether it has an extension of this identifier (`1.2.840.113635.100.6.11.1`), whatever is in it.
    pub(super) fn has_extension(&self, identifier: &str) -> bool {
        ObjectIdentifier::new(identifier).is_ok_and(|wanted| self.extensions.contains(&wanted))
    }

    /// That a path of valid signatures leads from this certificate through `intermediates` to the certificate `root`,
    /// at `now`: RFC 5280 section 6, signatures with SHA-256 or better, RSA from 2048 bits.
    ///
    /// `root` is pinned by the program, and its own validity is not asked. What the certificate was issued *for* is the
    /// caller's to check, by [`Certificate::has_extension`].
    ///
    /// # Errors
    /// [`CertificateError::Untrusted`] when there is no such path.
    pub(super) fn check_chain(
        &self,
        intermediates: &[Certificate],
        root: &Certificate,
        now: UnixMillis,
    ) -> Result<(), CertificateError> {
        let untrusted = |_| CertificateError::Untrusted;
        let own = CertificateDer::from(self.der.as_slice());
        let root = CertificateDer::from(root.der.as_slice());
        let between = intermediates.iter().map(|one| CertificateDer::from(one.der.as_slice()));
        let anchor = anchor_from_trusted_cert(&root).map_err(untrusted)?;
        let certificate = EndEntityCert::try_from(&own).map_err(untrusted)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.seconds()));
        let between: Vec<_> = between.collect();
        let anchors = [anchor];
        let path = certificate.verify_for_usage(ALGORITHMS, &anchors, &between, at, AnyUsage, None, None);
        path.map(drop).map_err(untrusted)
    }
}

/// How certificates of a chain may be signed.
const ALGORITHMS: &[&dyn rustls_pki_types::SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

/// Extended key usages are for TLS and code; what a provider signs its events with has none or one of its own.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

impl fmt::Debug for Certificate {
    /// Its validity alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a certificate does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateError {
    /// It is none, or one that contradicts itself.
    #[error("not an X.509 certificate")]
    Malformed,
    /// No path leads from it to the root.
    #[error("no path leads to the pinned root")]
    Untrusted,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = include_str!("../../tests/keys/apple_chain.pem");
    const ROOT: &str = include_str!("native/apple_root_ca_g3.pem");
    const OTHER: &str = include_str!("../../tests/keys/p256.crt.pem");

    /// April 2023, between the dates of the chain.
    const THEN: UnixMillis = UnixMillis(1_681_312_846_000);

    fn read(pem: &str) -> Vec<Certificate> {
        Certificate::parse_pem(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_chain_leads_to_the_pinned_root_or_nowhere() {
        // Whoever forges brings a certificate; the root is what he cannot bring.
        let (chain, root, other) = (read(CHAIN), read(ROOT).remove(0), read(OTHER).remove(0));
        let [own, between] = chain.as_slice() else {
            panic!("{chain:?}")
        };
        let untrusted = Err(CertificateError::Untrusted);
        assert_eq!(own.check_chain(std::slice::from_ref(between), &root, THEN), Ok(()));
        assert_eq!(own.check_chain(&[], &root, THEN), untrusted);
        assert_eq!(own.check_chain(std::slice::from_ref(&root), &root, THEN), untrusted);
        assert_eq!(own.check_chain(std::slice::from_ref(between), &other, THEN), untrusted);
        assert_eq!(
            own.check_chain(&[between.clone(), other.clone()], &other, THEN),
            untrusted
        );
        assert_eq!(other.check_chain(std::slice::from_ref(between), &root, THEN), untrusted);
        for far in [0, 1_600_000_000_000, 1_700_000_000_000, u64::MAX] {
            let checked = own.check_chain(std::slice::from_ref(between), &root, UnixMillis(far));
            assert_eq!(checked, untrusted, "{far}");
        }
        let mut changed = own.clone();
        for at in [100, 400, own.der.len() - 1] {
            changed.der = own.der.clone();
            changed.der[at] ^= 1;
            assert_eq!(
                changed.check_chain(std::slice::from_ref(between), &root, THEN),
                untrusted,
                "{at}"
            );
        }
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_for_how_long() {
        // A certificate for another purpose of the same authority is as good a signature and no provider's.
        let chain = read(CHAIN);
        let own = &chain[0];
        assert!(own.has_extension("1.2.840.113635.100.6.11.1"));
        assert!(!own.has_extension("1.2.840.113635.100.6.2.1") && !own.has_extension("") && !own.has_extension("x"));
        assert!(chain[1].has_extension("1.2.840.113635.100.6.2.1"));
        // 2021-08-25T02:50:34Z and 2023-09-24T02:50:33Z.
        let times = [
            (1_629_859_833_999, false),
            (1_629_859_834_000, true),
            (1_695_523_833_999, true),
            (1_695_523_834_000, false),
        ];
        for (at, valid) in times {
            assert_eq!(own.is_valid_at(UnixMillis(at)), valid, "{at}");
        }
        assert!(own.key().is_ok());
        // The authority signs with a curve that no scheme uses.
        assert!(chain[1].key().is_err());
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        // The text comes from a stranger, or from a server that a stranger chose among many.
        let der = &read(OTHER).remove(0).der;
        let key = include_str!("../../tests/keys/p256.pub.pem");
        for pem in [
            "",
            "x",
            key,
            &format!("{OTHER}{key}"),
            &OTHER.replace("MII", "MIJ"),
            &OTHER.repeat(9),
            &" ".repeat(70_000),
        ] {
            assert!(Certificate::parse_pem(pem.as_bytes()).is_err(), "{pem}");
        }
        assert_eq!(read(&OTHER.repeat(8)).len(), 8);
        assert!(Certificate::parse_der(der).is_ok());
        assert!(Certificate::parse_der(&[der.as_slice(), &[0]].concat()).is_err());
        for cut in 0..der.len() {
            assert!(Certificate::parse_der(&der[..cut]).is_err(), "{cut}");
        }
    }
}
