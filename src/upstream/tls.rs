//! TLS towards servers that have an authority of their own, or ask for a certificate of ours.
//!
//! Certificate and name of a server are verified always; what is configured here only says by whom the certificate may
//! be signed, and which name it has to have. An authority that is named replaces those of the system: whoever runs one
//! does not want a public one to be able to speak for his backend.
//!
//! Everything that can be wrong with the files is found when they are read. What is read with them decides which
//! connections may be used again: never one that was made under other terms.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

/// What a configuration says about TLS towards an upstream.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTlsFiles {
    /// PEM: who signs the certificates of the servers; `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// PEM: our certificate and those between it and its root, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name that the certificates of the servers have to have; `None`: the host as configured.
    pub name: Option<String>,
}

/// Why TLS cannot be spoken so.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// The file of authorities.
    #[error("{}: {problem}", path.display())]
    Ca {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file of our certificate.
    #[error("{}: {problem}", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file of its key.
    #[error("{}: {problem}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The name is none that a certificate can have.
    #[error("{0:?} is no name of a server")]
    Name(String),
}

/// TLS towards an upstream, read and checked. Equal when everything that was read is.
#[derive(Clone)]
pub struct UpstreamTls {
    ca: Option<Arc<CaType>>,
    own: Option<Arc<CertKey>>,
    name: Option<String>,
    /// Of everything in it.
    print: [u8; 32],
}

impl UpstreamTls {
    /// Reads the files.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(files: &UpstreamTlsFiles) -> Result<Self, UpstreamTlsError> {
        let mut print = Sha256::new();
        let ca = files.ca.as_ref().map(|path| roots(path, &mut print)).transpose()?;
        let own = files.own.as_ref();
        let own = own.map(|(path, key)| own_certificate(path, key, &mut print));
        let own = own.transpose()?;
        if let Some(name) = &files.name {
            ServerName::try_from(name.as_str()).map_err(|_| UpstreamTlsError::Name(name.clone()))?;
            noted(&mut print, b'n', name.as_bytes());
        }
        Ok(UpstreamTls {
            ca,
            own,
            name: files.name.clone(),
            print: print.finalize().into(),
        })
    }

    /// Makes connections to `peer` ones under these terms.
    pub(super) fn apply(&self, peer: &mut HttpPeer) {
        if let Some(name) = &self.name {
            peer.sni.clone_from(name);
        }
        peer.options.ca.clone_from(&self.ca);
        peer.client_cert_key.clone_from(&self.own);
        // The authority is no part of what Pingora tells connections apart by.
        let [a, b, c, d, e, f, g, h, ..] = self.print;
        peer.group_key = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Eq for UpstreamTls {}

impl fmt::Debug for UpstreamTls {
    /// Nothing of what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").finish_non_exhaustive()
    }
}

/// One more thing that was read, so that no two readings have the same print.
fn noted(print: &mut Sha256, kind: u8, bytes: &[u8]) {
    print.update([kind]);
    print.update((bytes.len() as u64).to_be_bytes());
    print.update(bytes);
}

fn roots(path: &Path, print: &mut Sha256) -> Result<Arc<CaType>, UpstreamTlsError> {
    let wrong = |problem: String| UpstreamTlsError::Ca {
        path: path.to_owned(),
        problem,
    };
    let mut store = RootCertStore::empty();
    let mut roots = Vec::new();
    for der in certificates(path).map_err(wrong)? {
        store.add(der.clone()).map_err(|problem| wrong(problem.to_string()))?;
        noted(print, b'a', &der);
        roots.push(WrappedX509::new(der.to_vec(), parse_x509));
    }
    Ok(roots.into())
}

fn own_certificate(path: &Path, key: &Path, print: &mut Sha256) -> Result<Arc<CertKey>, UpstreamTlsError> {
    let wrong = |problem: String| UpstreamTlsError::Certificate {
        path: path.to_owned(),
        problem,
    };
    let wrong_key = |problem: String| UpstreamTlsError::Key {
        path: key.to_owned(),
        problem,
    };
    let chain = certificates(path).map_err(wrong)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|problem| wrong_key(problem.to_string()))?;
    let der = secret.secret_der().to_vec();
    // Pingora guesses again which kind of key it is.
    PrivateKeyDer::try_from(der.as_slice()).map_err(|problem| wrong_key(problem.to_owned()))?;
    match CertifiedKey::from_der(chain.clone(), secret, &ring::default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(wrong_key(format!("is not the key of {}", path.display())));
        }
        Err(problem) => return Err(wrong_key(problem.to_string())),
    }
    for der in &chain {
        noted(print, b'c', der);
    }
    noted(print, b'k', &der);
    let chain = chain.iter().map(|der| der.to_vec()).collect();
    Ok(Arc::new(CertKey::new(chain, der)))
}

/// At least one certificate, each of which Pingora can read: it panics at what it cannot.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|problem| problem.to_string())?;
    let certificates: Vec<_> = certificates
        .collect::<Result<_, _>>()
        .map_err(|problem| problem.to_string())?;
    for der in &certificates {
        x509_parser::parse_x509_certificate(der).map_err(|problem| problem.to_string())?;
    }
    match certificates.is_empty() {
        true => Err("has no certificate".to_owned()),
        false => Ok(certificates),
    }
}
