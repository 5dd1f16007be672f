//! What a user types about TLS towards an upstream.

use std::path::PathBuf;

use serde::Deserialize;

/// `upstreams.<name>.tls`: by whom the servers' certificates are signed, and what they are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTlsFile {
    /// PEM: who signs the certificates of the servers; absent: the system's authorities.
    pub ca: Option<PathBuf>,
    /// PEM: the gateway's own certificate, for servers that ask for one.
    pub certificate: Option<PathBuf>,
    /// PEM: its key.
    pub key: Option<PathBuf>,
    /// The name in the servers' certificates; absent: the host of each.
    pub name: Option<String>,
}
