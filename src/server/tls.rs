//! TLS on the listeners: certificates by name, client certificates, and their replacement while connections live.
//!
//! TLS 1.2 and 1.3 by rustls with its default suites, all of them with forward secrecy. Sessions resume by stateless
//! tickets whose keys rotate, so a restart costs full handshakes and nothing else. A certificate that changes on disk
//! is in force for the next handshake; connections keep what they agreed on. Tickets outlive a reload that changes no
//! certificate, and none that does: a resumed session is asked for no certificate and shown none, so that a client whose
//! authority was taken away, or who must not trust the old certificate any more, would go on for half a day.
//!
//! The name a client asks for chooses the certificate; a name that none has gets the first one, as clients without
//! names do, and their own check decides.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora_core::protocols::tls::SslDigest;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use sha2::{Digest, Sha256};

use crate::gateway::ClientName;

/// Sessions of TLS 1.2 clients that know no tickets.
const SESSIONS_KEPT: usize = 4096;

/// Most names of a client certificate that are looked at.
const NAMES_MAX: usize = 32;

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificate chains and their keys, as PEM files; at least one. The first is the one for unknown names.
    pub certificates: Vec<CertificateFiles>,
    /// Who signs the certificates of clients; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away in the handshake.
    pub client_required: bool,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate first, then those between it and its root.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Why TLS cannot be spoken with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key are not a pair.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    NoPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// A listener's certificates, to be replaced while it serves.
#[derive(Clone)]
pub struct Certificates(Arc<ArcSwap<InForce>>);

/// What handshakes are made with.
struct InForce {
    config: Arc<ServerConfig>,
    /// Tells whether others are the same: a digest of all certificates, and of who may show one.
    print: [u8; 32],
}

impl Certificates {
    /// Reads them from disk.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn read(settings: &TlsSettings) -> Result<Certificates, TlsError> {
        in_force(settings).map(|read| Certificates(Arc::new(ArcSwap::from_pointee(read))))
    }

    /// Puts others in force, for handshakes from here on. The same ones change nothing: sessions go on resuming.
    pub fn replace(&self, by: &Certificates) {
        let by = by.0.load_full();
        if by.print != self.0.load().print {
            self.0.store(by);
        }
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.load().config)
    }
}

impl fmt::Debug for Certificates {
    /// Nothing of what is in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

fn in_force(settings: &TlsSettings) -> Result<InForce, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let keys = settings.certificates.iter().map(certified);
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let authorities = settings.client_ca.as_deref().map(certificates).transpose()?;
    // A key belongs to its certificate, so the certificates say it all.
    let mut print = Sha256::new();
    for chain in keys.iter().map(|key| &key.cert).chain(&authorities) {
        print.update(chain.len().to_be_bytes());
        for certificate in chain {
            print.update(certificate.len().to_be_bytes());
            print.update(certificate);
        }
    }
    print.update([u8::from(authorities.is_some()), u8::from(settings.client_required)]);
    let unusable = |problem: &dyn std::fmt::Display| TlsError::Settings(problem.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|problem| unusable(&problem))?;
    let builder = match settings.client_ca.as_deref().zip(authorities) {
        None => builder.with_no_client_auth(),
        Some((path, authorities)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path, authorities)?), provider);
            let verifier = match settings.client_required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|problem| unusable(&problem))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(|problem| unusable(&problem))?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_KEPT);
    Ok(InForce {
        config: Arc::new(config),
        print: print.finalize().into(),
    })
}

fn certified(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let CertificateFiles { certificate, key } = files;
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|problem| unreadable(key, &problem))?;
    let certified = CertifiedKey::from_der(chain, secret, &ring::default_provider());
    certified.map(Arc::new).map_err(|problem| match problem {
        rustls::Error::InconsistentKeys(_) => TlsError::NoPair {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        other => unreadable(certificate, &other),
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|problem| unreadable(path, &problem))?;
    let certificates: Vec<_> = certificates
        .collect::<Result<_, _>>()
        .map_err(|problem| unreadable(path, &problem))?;
    match certificates.is_empty() {
        true => Err(unreadable(path, &"has no certificate")),
        false => Ok(certificates),
    }
}

fn roots(path: &Path, authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(|problem| unreadable(path, &problem))?;
    }
    Ok(roots)
}

fn unreadable(path: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

/// Certificates, chosen by the name that a client asks for.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| self.0.iter().find(|key| is_for(key, &name)));
        named.or(self.0.first()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key
        .cert
        .first()
        .and_then(|der| webpki::EndEntityCert::try_from(der).ok());
    certificate.is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(name).is_ok())
}

/// What a handshake agreed on, in the form that Pingora hands to whoever looks at a session.
///
/// The digest has no place for the names of a client's certificate, DNS names and URIs; its `organization`, which nothing
/// else here sets, holds them, a line each. See [`crate::gateway`]'s head for the reader.
pub(super) fn agreed(connection: &ServerConnection) -> SslDigest {
    let version = connection.protocol_version().and_then(|version| version.as_str());
    let suite = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str());
    let client = connection.peer_certificates().and_then(|chain| chain.first());
    let names = client
        .and_then(|der| webpki::EndEntityCert::try_from(der).ok())
        .map(|certificate| {
            // A URI may hold anything; one with a line end would be two names.
            let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_graphic());
            let dns = certificate.valid_dns_names().filter(plain);
            let uris = certificate.valid_uri_names().filter(plain);
            let names = dns.map(|name| ClientName::Dns(name.to_owned()));
            let names = names.chain(uris.map(|uri| ClientName::Uri(uri.to_owned())));
            let names: Vec<_> = names.take(NAMES_MAX).map(|name| name.to_string()).collect();
            names.join("\n")
        });
    let print = client.map(|der| Sha256::digest(der).to_vec()).unwrap_or_default();
    SslDigest::new(
        suite.unwrap_or_default(),
        version.unwrap_or_default(),
        names,
        None,
        print,
    )
}
