//! A publisher of keys on loopback, over real TLS, with names that resolve as a test says.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::server::TlsStream;

use super::{Resolve, World};

pub(super) type Wire = TlsStream<TcpStream>;

/// A certificate authority.
pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(super) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What has happened to a publisher.
#[derive(Default)]
pub(super) struct Seen {
    /// Connections that were made, TLS or not.
    pub(super) contacts: AtomicUsize,
    /// Heads of requests.
    pub(super) heads: Mutex<Vec<String>>,
}

pub(super) struct Publisher {
    pub(super) address: SocketAddr,
    pub(super) authority: Vec<u8>,
    pub(super) seen: Arc<Seen>,
}

impl Publisher {
    /// A publisher called `name`, whose certificate is good until the year `until`; `act` answers the request whose
    /// target it is given.
    pub(super) async fn called<F>(
        name: &str,
        until: i32,
        act: impl Fn(String, Wire) -> F + Send + Sync + 'static,
    ) -> Publisher
    where
        F: Future<Output = ()> + Send,
    {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &authority).unwrap();
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config =
            ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], private)
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (noted, act) = (Arc::clone(&seen), Arc::new(act));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                noted.contacts.fetch_add(1, Ordering::SeqCst);
                let (noted, act, acceptor) = (Arc::clone(&noted), Arc::clone(&act), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(mut wire) = acceptor.accept(stream).await else {
                        return;
                    };
                    let head = head(&mut wire).await;
                    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    noted.heads.lock().push(head);
                    act(target, wire).await;
                });
            }
        });
        Publisher {
            address,
            authority: authority.der().to_vec(),
            seen,
        }
    }

    /// A publisher that answers every request with the bytes that `answer` makes for its target, and closes.
    pub(super) async fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Publisher {
        let answer = Arc::new(answer);
        Publisher::called("keys.example", 2999, move |target, mut wire| {
            let answer = Arc::clone(&answer);
            async move {
                let _ = wire.write_all(&answer(&target)).await;
                let _ = wire.shutdown().await;
            }
        })
        .await
    }

    pub(super) fn contacts(&self) -> usize {
        self.seen.contacts.load(Ordering::SeqCst)
    }

    /// A world in which every name is this publisher, and loopback may be asked.
    pub(super) fn world(&self) -> World {
        self.world_resolved_by(Names::always(vec![self.address]))
    }

    pub(super) fn world_resolved_by(&self, names: Arc<Names>) -> World {
        World::of(
            names,
            |address| address.ip().is_loopback(),
            vec![self.authority.clone()],
        )
    }
}

async fn head(wire: &mut Wire) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match wire.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A resolver that gives its answers one after the other, the last one for ever.
pub(super) struct Names {
    answers: Mutex<VecDeque<Vec<SocketAddr>>>,
    pub(super) asked: AtomicUsize,
}

impl Names {
    pub(super) fn always(answer: Vec<SocketAddr>) -> Arc<Names> {
        Names::in_turn(vec![answer])
    }

    pub(super) fn in_turn(answers: Vec<Vec<SocketAddr>>) -> Arc<Names> {
        Arc::new(Names {
            answers: Mutex::new(answers.into()),
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, _host: &str) -> std::io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock();
        let last = answers.len() == 1;
        let answer = if last {
            answers.front().cloned()
        } else {
            answers.pop_front()
        };
        Ok(answer.unwrap_or_default())
    }
}
