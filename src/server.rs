//! Pingora's services put together: listeners, the admin side, the sample backend, and their orderly end.
//!
//! Sockets are bound before anything starts, so an address in use is an error message and not a service that dies
//! later; the ports of `:0` are known to whoever asks. The services run on the caller's Tokio runtime. Pingora's own
//! `Server` is not used: it sleeps out its grace period even when nothing is in flight, and binds by retrying.

mod admin;
mod api;
mod connection;
mod date;
mod desk;
mod doors;
mod drain;
mod frames;
mod handshake;
mod http2;
mod ingress;
mod listen;
mod proxied;
mod proxy;
mod sample;
mod session;
mod strain;
mod tally;
mod tls;
mod turnstile;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::Fds;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::gateway::{Guard, Shared};
use admin::Admin;
use doors::Doors;
use ingress::Ingress;
use listen::Door;
use proxy::Gateway;
use sample::Sample;
use turnstile::Turnstile;

pub(crate) use desk::Desk;
pub use doors::DoorSettings;
pub use ingress::IngressSettings;
pub use tls::{CertificateFiles, Certificates, TlsError, TlsSettings};

/// Collected before it is sent: an answer's head and a small body then leave in one packet.
const WRITE_BUFFER_BYTES: usize = 1460;

/// Servers of the pass-through that one request may try.
const PASSTHROUGH_TRIES_MAX: usize = 8;

/// How the server runs; fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where webhooks and requests for the passed-through application come in.
    pub listen: Vec<ListenSettings>,
    /// The address for operators.
    pub admin: Option<String>,
    /// How many connections may be open.
    pub doors: DoorSettings,
    /// Bounds on each of them.
    pub ingress: IngressSettings,
    /// Whether there is a sample backend.
    pub sample: bool,
    /// Longest wait for requests in flight at the end.
    pub drain: Duration,
    /// Worker threads of the runtime; `None`: one per core.
    pub threads: Option<usize>,
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    /// Address and port.
    pub address: String,
    /// TLS, if it is spoken here.
    pub tls: Option<TlsSettings>,
    /// The load balancers that begin each connection with a PROXY protocol header; `None`: nobody does.
    pub proxies: Option<Vec<IpNet>>,
}

/// Sockets that are bound and not yet served.
pub struct Bound {
    listen: Vec<TcpListener>,
    admin: Option<TcpListener>,
    sample: Option<TcpListener>,
}

impl Bound {
    /// Binds every address of `settings`.
    ///
    /// # Errors
    /// The first address that cannot be bound, with the system's reason.
    pub fn new(settings: &ServerSettings) -> Result<Self, BindError> {
        let bind = |address: &String| {
            TcpListener::bind(address).map_err(|source| BindError {
                address: address.clone(),
                source,
            })
        };
        Ok(Bound {
            listen: settings
                .listen
                .iter()
                .map(|listen| bind(&listen.address))
                .collect::<Result<_, _>>()?,
            admin: settings.admin.as_ref().map(bind).transpose()?,
            sample: settings.sample.then(|| bind(&"127.0.0.1:0".to_owned())).transpose()?,
        })
    }

    /// Where webhooks come in; ports are the real ones.
    pub fn listen(&self) -> Vec<SocketAddr> {
        self.listen
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Where operators look.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Where the sample backend is, if there is one.
    pub fn sample(&self) -> Option<SocketAddr> {
        self.sample.as_ref()?.local_addr().ok()
    }
}

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: String,
    source: io::Error,
}

/// A server at work.
pub struct Server {
    guard: Arc<Guard>,
    /// Ends the listeners for webhooks.
    stop: watch::Sender<bool>,
    /// Ends the others, once nothing is in flight.
    end: watch::Sender<bool>,
    services: Vec<JoinHandle<()>>,
    certificates: Vec<Option<Certificates>>,
    drain: Duration,
}

impl Server {
    /// Starts serving on `bound`, on the Tokio runtime this is called on.
    ///
    /// # Errors
    /// A socket that the system does not give out, or certificates that cannot be used.
    pub fn start(bound: Bound, settings: &ServerSettings, guard: &Arc<Guard>) -> io::Result<Self> {
        guard.shared().start_serving();
        guard.start_background();
        let (stop, stopping) = watch::channel(false);
        // While webhooks are drained, operators still ask whether the gateway is ready, and the last events are still
        // to arrive.
        let (end, ending) = watch::channel(false);
        let turnstile = Turnstile::new(Arc::clone(&guard.shared().strain));
        let ingress = Arc::new(Ingress {
            settings: settings.ingress,
            turnstile: Arc::clone(&turnstile),
            guard: Arc::clone(guard),
            http2: http2::options(settings.ingress),
            proxy: Arc::new(proxy(guard)),
        });
        let doors = Doors::new(settings.doors);
        let mut services = vec![
            tokio::spawn(strain::watch(Arc::clone(&turnstile))),
            tokio::spawn(turnstile.serve()),
        ];
        let mut certificates = Vec::new();
        for (listener, listen) in bound.listen.into_iter().zip(&settings.listen) {
            let own = listen.tls.as_ref().map(Certificates::read).transpose();
            let own = own.map_err(io::Error::other)?;
            let door = Door {
                ingress: Arc::clone(&ingress),
                doors: Arc::clone(&doors),
                certificates: own.clone(),
                proxies: listen.proxies.as_deref().map(Arc::from),
            };
            certificates.push(own);
            listen::prepare(&listener)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            services.push(tokio::spawn(door.accept(listener, stopping.clone())));
        }
        if let Some(listener) = bound.admin {
            let guard = Arc::clone(guard);
            services.push(serve(listener, "admin", Admin { guard }, &ending)?);
        }
        if let Some(listener) = bound.sample {
            services.push(serve(listener, "sample", Sample, &ending)?);
        }
        Ok(Server {
            guard: Arc::clone(guard),
            stop,
            end,
            services,
            certificates,
            drain: settings.drain,
        })
    }

    /// The certificates of each listener that speaks TLS, in the order of the settings.
    pub fn certificates(&self) -> &[Option<Certificates>] {
        &self.certificates
    }

    /// The guard at work.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Ends in order: not ready, no new connections, requests in flight finished or refused in time, log written.
    pub async fn stop(self) {
        let shared: &Shared = self.guard.shared();
        let delivering = async {
            if let Some(worker) = shared.worker() {
                worker.stop(self.drain).await;
            }
        };
        tokio::join!(drain::drain(shared, &self.stop, self.drain), delivering);
        // After the last event was accepted: every lease goes back, and the next start delivers at once.
        if let Some(worker) = shared.worker() {
            worker.queue().close().await;
        }
        // Fails only when no service is left to hear it.
        let _ = self.end.send(true);
        for service in self.services {
            service.abort();
        }
    }
}

/// Pingora's proxy, for what is passed through.
fn proxy(guard: &Arc<Guard>) -> pingora_proxy::HttpProxy<Gateway> {
    let conf = ServerConf {
        max_retries: PASSTHROUGH_TRIES_MAX,
        ..ServerConf::default()
    };
    let gateway = Gateway {
        guard: Arc::clone(guard),
    };
    pingora_proxy::http_proxy(&Arc::new(conf), gateway)
}

/// Starts one service on a bound socket.
fn serve<A>(listener: TcpListener, name: &str, app: A, stopping: &watch::Receiver<bool>) -> io::Result<JoinHandle<()>>
where
    A: ServerApp + Send + Sync + 'static,
{
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.to_string();
    let mut sockets = Fds::new();
    sockets.add(address.clone(), listener.into_raw_fd());
    let mut service = Service::new(name.to_owned(), app);
    // No read buffer: every reader brings its own, and an idle connection should hold none.
    let buffers = L4BufferSettings::new(0, WRITE_BUFFER_BYTES);
    service.add_listener(ListenerConfig::tcp(address).l4_buffer(buffers));
    let stopping = stopping.clone();
    Ok(tokio::spawn(async move {
        service
            .start_service(Some(Arc::new(Mutex::new(sockets))), stopping, 1)
            .await;
    }))
}
