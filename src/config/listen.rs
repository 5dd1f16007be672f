//! Listeners: where connections come in, what is spoken on them, and how many there may be.
//!
//! An address alone is a listener for plain HTTP. With keys it speaks TLS, or takes the word of load balancers for the
//! clients behind them. Certificates are read here, so that a file that cannot be used is a problem with a line and
//! not a listener that fails in the first handshake.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::file::File;
use super::path::KeyPath;
use super::problem::Problems;
use super::routes::bytes;
use super::value::{Address, Network, Switch};
use crate::server::{
    CertificateFiles, Certificates, DoorSettings, IngressSettings, ListenSettings, ServerSettings, TlsError,
    TlsSettings,
};

/// An entry of `listen`: an address, or an address with keys.
#[derive(Debug)]
pub struct Listen(pub ListenFile);

/// A listener with everything that can be said about it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenFile {
    /// The address.
    pub address: Address,
    /// TLS; absent: plain HTTP.
    pub tls: Option<TlsFile>,
    /// Load balancers that begin each connection with a PROXY protocol header.
    pub proxy_protocol: Option<Vec<Network>>,
}

/// `tls` of a listener.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// Chosen by the name that a client asks for; the first one is for all other names.
    pub certificates: Vec<CertificateFile>,
    /// Who signs the certificates of clients; absent: they are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Turns clients without a certificate away in the handshake.
    #[serde(default)]
    pub client_required: bool,
}

/// A certificate chain and its key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListenVisitor)
    }
}

struct ListenVisitor;

impl<'de> Visitor<'de> for ListenVisitor {
    type Value = Listen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as 127.0.0.1:8080")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Listen, E> {
        let address = Address::deserialize(StrDeserializer::new(text))?;
        Ok(Listen(ListenFile {
            address,
            tls: None,
            proxy_protocol: None,
        }))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Listen, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Listen, E> {
        self.visit_str(&format!("{number:?}"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listen, A::Error> {
        ListenFile::deserialize(MapAccessDeserializer::new(map)).map(Listen)
    }
}

/// Builds the settings of the server.
pub(super) fn server(file: &File, problems: &mut Problems) -> ServerSettings {
    let root = KeyPath::root();
    if file.listen.is_empty() {
        let problem = problems.error(&root.key("listen"), "has no address");
        problem.suggest("0.0.0.0:8080");
    }
    let admin = match &file.admin {
        Switch::On(address) => Some(address.0),
        Switch::Off => None,
    };
    let mut seen = HashMap::new();
    let mut listen = Vec::new();
    for (index, Listen(typed)) in file.listen.iter().enumerate() {
        let path = root.key("listen").index(index);
        let address = typed.address.0;
        let taken = address.port() != 0 && (seen.insert(address, index).is_some() || admin == Some(address));
        if taken {
            problems.error(&path, format!("{address} is listened on already"));
        }
        listen.push(settings(typed, &path, problems));
    }
    let client = &file.client;
    ServerSettings {
        listen,
        admin: admin.map(|address| address.to_string()),
        doors: DoorSettings {
            connections_max: client.connections.0.get() as usize,
            client_connections_max: client.connections_each.0.get() as usize,
        },
        ingress: IngressSettings {
            head_timeout: client.head_timeout.0,
            head_bytes_max: bytes(client.head_bytes.0),
            idle_timeout: client.idle_timeout.0,
            requests_max: client.requests_each.0.get(),
        },
        sample: file.upstreams.values().any(|upstream| upstream.sample),
        drain: file.drain.0,
        threads: file.threads.map(|threads| threads.0.get() as usize),
    }
}

fn settings(typed: &ListenFile, path: &KeyPath, problems: &mut Problems) -> ListenSettings {
    if typed.proxy_protocol.as_ref().is_some_and(Vec::is_empty) {
        let problem = problems.error(
            &path.key("proxy_protocol"),
            "lists nobody, so every connection would be closed",
        );
        problem.suggest("[10.0.0.0/8]");
    }
    ListenSettings {
        address: typed.address.0.to_string(),
        tls: typed.tls.as_ref().map(|typed| tls(typed, &path.key("tls"), problems)),
        proxies: typed
            .proxy_protocol
            .as_ref()
            .map(|networks| networks.iter().map(|network| network.0).collect()),
    }
}

fn tls(typed: &TlsFile, path: &KeyPath, problems: &mut Problems) -> TlsSettings {
    let pairs = typed.certificates.iter().map(|pair| CertificateFiles {
        certificate: pair.certificate.clone(),
        key: pair.key.clone(),
    });
    let settings = TlsSettings {
        certificates: pairs.collect(),
        client_ca: typed.client_ca.clone(),
        client_required: typed.client_required,
    };
    if settings.certificates.is_empty() {
        problems.error(&path.key("certificates"), "has no certificate");
        return settings;
    }
    if settings.client_required && settings.client_ca.is_none() {
        let message = "asks for certificates of clients that nobody could have signed";
        problems
            .error(&path.key("client_required"), message)
            .suggest("client_ca: /etc/hookward/clients.pem");
    }
    if let Err(problem) = Certificates::read(&settings) {
        problems.error(&place(&problem, &settings, path), problem.to_string());
    }
    settings
}

/// The key of the file that is wrong.
fn place(problem: &TlsError, settings: &TlsSettings, path: &KeyPath) -> KeyPath {
    let wrong = match problem {
        TlsError::File { path, .. } => path,
        TlsError::NoPair { key, .. } => key,
        TlsError::Settings(_) => return path.clone(),
    };
    if settings.client_ca.as_ref() == Some(wrong) {
        return path.key("client_ca");
    }
    for (index, pair) in settings.certificates.iter().enumerate() {
        let path = path.key("certificates").index(index);
        if pair.key == *wrong {
            return path.key("key");
        }
        if pair.certificate == *wrong {
            return path.key("certificate");
        }
    }
    path.clone()
}
