//! The keys that say who clients are and whom a route hears at all, as a user types them.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::value::Network;

/// `routes[].allow`: addresses; those of both keys together.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllowFile {
    /// Networks or addresses.
    pub networks: Vec<Network>,
    /// Files with one network or address in a line; `#` begins a comment.
    pub files: Vec<PathBuf>,
}

/// `routes[].client_certificate`: what the certificate of a client has to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateFile {
    /// DNS names or URIs; it has to be for one of them.
    pub names: Vec<String>,
}

/// `client.proxy_header`: where trusted proxies say for whom they speak.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}
