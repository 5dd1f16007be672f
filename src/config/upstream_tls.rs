//! TLS towards upstreams: whose certificates are believed, which name they have, and which one we show.
//!
//! Files are read here, so that one that cannot be used is a problem with a line and not a backend that is down, and in
//! a reload leaves in force what was read before.

use super::file::{UpstreamFile, UpstreamTlsFile};
use super::path::KeyPath;
use super::problem::Problems;
use crate::upstream::{ServerSettings, UpstreamTls, UpstreamTlsError, UpstreamTlsFiles};

/// How the servers of an upstream are spoken to; `None`: as it is the rule, or wrong.
pub(super) fn read(
    upstream: &UpstreamFile,
    servers: &[ServerSettings],
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<UpstreamTls> {
    let typed = upstream.tls.as_ref()?;
    let path = path.key("tls");
    if !servers.iter().any(|server| server.tls) {
        problems
            .error(&path, "has no effect: TLS is spoken to https:// servers only")
            .suggest("servers: [\"https://127.0.0.1:3000\"]");
    }
    let own = match (&typed.certificate, &typed.key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        (Some(_), None) => {
            problems.error(&path, "has a `certificate` and no `key`");
            return None;
        }
        (None, Some(_)) => {
            problems.error(&path, "has a `key` and no `certificate`");
            return None;
        }
    };
    let files = UpstreamTlsFiles {
        ca: typed.ca.clone(),
        own,
        name: typed.name.clone(),
    };
    match UpstreamTls::read(&files) {
        Ok(tls) => Some(tls),
        Err(problem) => {
            problems.error(&path.key(key(&problem)), problem.to_string());
            None
        }
    }
}

/// The files that are read for it.
pub(super) fn files(typed: &UpstreamTlsFile) -> impl Iterator<Item = &std::path::PathBuf> {
    [&typed.ca, &typed.certificate, &typed.key].into_iter().flatten()
}

fn key(problem: &UpstreamTlsError) -> &'static str {
    match problem {
        UpstreamTlsError::Ca { .. } => "ca",
        UpstreamTlsError::Certificate { .. } => "certificate",
        UpstreamTlsError::Key { .. } => "key",
        UpstreamTlsError::Name(_) => "name",
    }
}
