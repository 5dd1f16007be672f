//! Amazon SNS on loopback: publishes a certificate over real TLS, takes confirmations, and sends signed messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookward::fetch::{Resolve, World};
use hookward::secret::Secret;
use hookward::signature::{EcdsaForm, PrivateKey, SignatureAlgorithm};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::{Conf, Event, Upstream, bare};

const CERTIFICATE: &str = include_str!("../../published/signer.crt.pem");
const KEY: &str = include_str!("../../published/signer.key.pem");
const HOST: &str = "sns.us-west-2.amazonaws.com";

/// The topic of every message.
pub const TOPIC: &str = "arn:aws:sns:us-west-2:123456789012:MyTopic";

/// The address of the certificate.
pub const CERTIFICATE_URL: &str = "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-abc.pem";

pub struct Sns {
    upstream: Upstream,
    names: Arc<Names>,
    authority: Vec<u8>,
    status: Arc<AtomicU16>,
}

impl Sns {
    /// SNS as it should be: its one certificate is there, and confirmations are taken.
    pub async fn start() -> Sns {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new([HOST.to_owned()]).unwrap();
        let own = own.signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![own.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let present = Arc::clone(&status);
        let upstream = Upstream::over_tls(TlsAcceptor::from(Arc::new(config)), move |mut wire| {
            let present = Arc::clone(&present);
            async move {
                while let Some((_, seen)) = wire.request().await {
                    let target = seen.head.split(' ').nth(1).unwrap_or_default();
                    let status = present.load(Ordering::SeqCst);
                    let answer = match target {
                        _ if status != 200 => bare(status),
                        "/SimpleNotificationService-abc.pem" => {
                            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", CERTIFICATE.len());
                            (head + CERTIFICATE).into_bytes()
                        }
                        _ if target.starts_with("/?Action=ConfirmSubscription&") => bare(200),
                        _ => bare(404),
                    };
                    wire.send(&answer).await;
                }
            }
        })
        .await;
        let names = Arc::new(Names {
            address: upstream.address,
            asked: AtomicUsize::new(0),
        });
        Sns {
            upstream,
            names,
            authority: authority.der().to_vec(),
            status,
        }
    }

    /// A route of messages to the one topic, called `sns`.
    pub fn route(conf: Conf, keys: &str) -> Conf {
        let scheme =
            "{ settings: { topic_arn: the topic }, scheme: { native: aws-sns }, event: { id: { signed: true } } }";
        let verified = format!("scheme: sns, settings: {{ topic_arn: \"{TOPIC}\" }}");
        conf.top(&format!("schemes: {{ sns: {scheme} }}"))
            .route_called("sns", &verified, keys)
    }

    pub fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// A world in which every name is this one's address.
    pub fn world(&self) -> World {
        self.world_resolved_by(Arc::clone(&self.names) as _)
    }

    /// A world with another resolver.
    pub fn world_resolved_by(&self, names: Arc<dyn Resolve>) -> World {
        World::of(
            names,
            |address| address.ip().is_loopback(),
            vec![self.authority.clone()],
        )
    }

    /// From here on it answers everything with this status; with 200 it is itself again.
    pub fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What was asked of it: targets, in order.
    pub fn asked(&self) -> Vec<String> {
        let target = |head: &str| head.split(' ').nth(1).unwrap().to_owned();
        self.upstream.seen().iter().map(|seen| target(&seen.head)).collect()
    }

    /// Names that were looked up, connections that were made.
    pub fn contacts(&self) -> (usize, usize) {
        (self.names.asked.load(Ordering::SeqCst), self.upstream.connections())
    }
}

struct Names {
    address: SocketAddr,
    asked: AtomicUsize,
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, _host: &str) -> std::io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(vec![self.address])
    }
}

/// A message of SNS, before it is signed.
pub fn sns_message(kind: &str, id: &str) -> Value {
    let mut message = json!({
        "Type": kind,
        "MessageId": id,
        "TopicArn": TOPIC,
        "Message": "{\"order\": 1}",
        "Timestamp": "2023-11-14T22:13:20.000Z",
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE_URL,
    });
    if kind.ends_with("Confirmation") {
        message["Token"] = json!("abc123");
        message["SubscribeURL"] = json!("https://evil.example/?Action=ConfirmSubscription");
    }
    message
}

/// The message as SNS sends it, to the route `sns`.
pub fn sns_event(mut message: Value) -> Event {
    let names = [
        "Message",
        "MessageId",
        "Subject",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ];
    let lines = names
        .iter()
        .filter_map(|name| Some(format!("{name}\n{}\n", message.get(name)?.as_str()?)));
    let signed: String = lines.collect();
    let key = PrivateKey::parse(&Secret::new(KEY.trim()).unwrap()).unwrap();
    let signature = key.sign(SignatureAlgorithm::RsaSha256, EcdsaForm::Der, signed.as_bytes());
    message["Signature"] = json!(STANDARD.encode(signature.unwrap()));
    unsigned_sns_event(&message)
}

/// The message as it stands.
pub fn unsigned_sns_event(message: &Value) -> Event {
    Event {
        path: "/webhooks/sns".to_owned(),
        headers: vec![("Content-Type".to_owned(), "text/plain; charset=UTF-8".to_owned())],
        body: message.to_string().into_bytes(),
    }
}
