//! Where events go: a named group of servers, and the client that talks to them.
//!
//! The gateway calls [`Upstream::send`] with a [`Request`] made from an event; the queue's worker will do the same.
//! Promises: a server that refuses a connection is passed over at once and left out for a while; a request of which
//! a byte was sent is never sent again, because the upstream may have acted on it; the whole exchange, connecting
//! included, ends within the configured time. What an answer means is decided by the caller.

mod answer;
mod client;
mod head;
mod idle;
mod pick;
mod resign;
mod resolve;
mod tls;
mod wire;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::ErrorType;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};

use crate::clock::{Alarm, Clock, Moment};
use crate::observe::metrics::{Attempt, UpstreamMetrics};

pub use answer::Answer;
pub use head::Request;
pub(crate) use head::{Nominated, Parts, forwarded, is_hop_by_hop, is_ours};
pub(crate) use pick::{Candidate, Turn};
pub use resign::{Resign, ResignError, Resigned};
pub(crate) use resolve::resolve;
pub use tls::{UpstreamTls, UpstreamTlsError, UpstreamTlsFiles};

/// How an upstream is reached; made from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The name routes refer to.
    pub name: String,
    /// The built-in sample backend; whoever starts it fills the servers in.
    pub sample: bool,
    /// At least one server; requests go round.
    pub servers: Vec<ServerSettings>,
    /// How those of them are spoken to that speak TLS; `None`: the system's authorities, their own names, no certificate
    /// of ours.
    pub tls: Option<UpstreamTls>,
    /// Replaces the received `Host` header.
    pub host: Option<String>,
    /// The whole exchange: connecting, sending, waiting for and reading the answer. Of one that is passed through:
    /// how long the server may say nothing.
    pub timeout: Duration,
    /// One connection attempt, TLS included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept; must be below the servers' own keep-alive time.
    pub idle_timeout: Duration,
    /// How long a server that refused a connection is left out.
    pub fail_timeout: Duration,
    /// How often host names are looked up again.
    pub resolve: Duration,
}

/// One server of an upstream, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// TLS with verification of certificate and name.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Opens connections for every upstream of a process. Cheap to clone.
#[derive(Clone)]
pub struct Connector(Arc<TransportConnector>);

impl Connector {
    /// A connector that trusts the system's certificate authorities.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        // Its pool is not used, see `idle`.
        Connector(Arc::new(TransportConnector::new(Some(ConnectorOptions::new(0)))))
    }

    /// What opens the connections, for the fetcher of keys, which judges addresses itself.
    pub(crate) fn transport(&self) -> &TransportConnector {
        &self.0
    }
}

/// A named group of servers.
pub struct Upstream {
    settings: UpstreamSettings,
    servers: pick::Servers,
    connector: Connector,
    metrics: Arc<UpstreamMetrics>,
    clock: Clock,
    /// Of exchanges that are over, for the next ones.
    alarms: Mutex<Vec<Alarm>>,
}

/// More alarms than this are not kept: as many exchanges go on at once in a busy process.
const ALARMS_MAX: usize = 256;

impl Upstream {
    /// Makes the upstream; servers given by address are ready at once, host names after [`resolve`].
    pub fn new(
        settings: UpstreamSettings,
        connector: &Connector,
        metrics: Arc<UpstreamMetrics>,
        clock: &Clock,
    ) -> Self {
        Upstream {
            servers: pick::Servers::new(&settings),
            settings,
            connector: connector.clone(),
            metrics,
            clock: clock.clone(),
            alarms: Mutex::default(),
        }
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The settings it was made from; equal settings after a reload mean that it is kept, health and all.
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Sends `request` to one of the servers and returns the head of the answer; its body is read from it. `tries`
    /// learns which servers were tried, whatever comes of it.
    ///
    /// # Errors
    /// See [`SendError`]. Whatever the error, no server got the complete request twice.
    pub async fn send(&self, request: &Request, started: Moment, tries: &mut Tries) -> Result<Answer, SendError> {
        // Pinned in place: the future is large, and would be moved into the timeout.
        let exchange = std::pin::pin!(self.exchange(request, started, tries));
        let mut alarm = self.alarms.lock().pop().unwrap_or_default();
        let sent = alarm.within(self.settings.timeout, exchange).await;
        let sent = sent.unwrap_or(Err(SendError::Timeout));
        self.spare(alarm);
        if let Err(problem) = &sent {
            if let Some(attempt) = problem.attempt() {
                self.metrics.attempted(attempt);
            }
            self.metrics.took(self.clock.moment().since(started));
        }
        sent
    }

    /// Keeps an alarm for another exchange.
    fn spare(&self, alarm: Alarm) {
        let mut alarms = self.alarms.lock();
        if alarms.len() < ALARMS_MAX {
            alarms.push(alarm);
        }
    }

    /// The servers in turn, for the pass-through to try.
    pub(crate) fn turn(&self) -> Turn {
        self.servers.turn()
    }

    /// Closes unused connections that have lain too long.
    pub(crate) fn sweep(&self) {
        self.servers.sweep(self.clock.moment());
    }

    /// What takes the place of the `Host` that was asked for: the configured one, or, since HTTP/1.0 may ask for none and
    /// nginx, Apache and lighttpd refuse an empty one, the name of the first server.
    pub(crate) fn host(&self, asked: Option<&[u8]>) -> Option<Cow<'_, str>> {
        if let Some(configured) = &self.settings.host {
            return Some(configured.into());
        }
        let server = self.settings.servers.first().filter(|_| asked.is_none())?;
        match server.host.contains(':') {
            true => Some(format!("[{}]", server.host).into()),
            false => Some((&*server.host).into()),
        }
    }

    /// The counters, for the pass-through.
    pub(crate) fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    /// Leaves out a server to which a connection could not be made.
    pub(crate) fn failed(&self, server: &Candidate) {
        self.metrics.attempted(Attempt::ConnectFailed);
        server.leave_out(self.clock.moment().plus(self.settings.fail_timeout));
    }
}

/// The servers that one request was tried on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How many.
    pub count: u32,
    /// The one that answered, or that was tried last.
    pub last: Option<SocketAddr>,
}

impl Tries {
    /// Another one is tried.
    pub(crate) fn note(&mut self, server: SocketAddr) {
        self.count = self.count.saturating_add(1);
        self.last = Some(server);
    }
}

/// Why an event did not get an answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No server accepted a connection; nothing was sent.
    #[error("no server of the upstream accepts connections")]
    Unreachable,
    /// The connection ended before the answer was complete. The upstream may have acted on the request.
    #[error("the upstream broke off: {0}")]
    Broken(String),
    /// What came back is no HTTP, or none that can be passed on. The upstream may have acted on the request.
    #[error("the upstream's answer cannot be read: {0}")]
    BadAnswer(&'static str),
    /// The configured time was over.
    #[error("the upstream did not answer in time")]
    Timeout,
}

impl SendError {
    /// What an error of Pingora's on an established connection means. What it says about bytes that are no HTTP quotes them;
    /// they are the upstream's and no business of a log.
    pub(crate) fn of(e: &pingora_core::Error) -> Self {
        match e.etype() {
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => SendError::Timeout,
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
                SendError::Broken(e.to_string())
            }
            other => SendError::BadAnswer(other.as_str()),
        }
    }

    /// How the attempt counts; servers that could not be reached were counted one by one.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        match self {
            SendError::Unreachable => None,
            SendError::Broken(_) => Some(Attempt::Reset),
            SendError::BadAnswer(_) => Some(Attempt::BadAnswer),
            SendError::Timeout => Some(Attempt::Timeout),
        }
    }
}
