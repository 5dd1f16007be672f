//! The front door: accepting connections, and what comes before the first byte of HTTP.
//!
//! A connection is counted, says for whom it is where the listener asks for that (PROXY protocol), and shakes hands
//! where it speaks TLS; all of that within the time a head may take, so that a peer that connects and says nothing is
//! gone when a slow head would be. Pingora's own accept loop has no place for the first two on plain TCP, a fixed
//! minute for the third, and sleeps a second on any shortage.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::doors::{Doors, Place, Shut};
use super::ingress::Ingress;
use super::tls::{self, Certificates};
use super::{IngressSettings, proxied};
use crate::observe::Metrics;
use crate::observe::metrics::Turned;

/// A pause when the system has no descriptor or memory left for one more connection.
const SHORTAGE: Duration = Duration::from_millis(50);

/// Bytes of an answer that the system takes without being able to send them. As many as it likes would be megabytes for a
/// client that does not read, carried over at once: beside a thousand of those, everybody else waits for seconds. What is
/// on its way to a client that reads is not counted, so that no download is slower.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;

/// Makes a listener what its connections inherit.
pub(super) fn prepare(listener: &std::net::TcpListener) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(problem) = socket2::SockRef::from(listener).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        log::debug!("unsent answers are not bounded: {problem}");
    }
    listener.set_nonblocking(true)
}

/// One listening socket.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) ingress: Arc<Ingress>,
    pub(super) doors: Arc<Doors>,
    /// TLS, if it is spoken here.
    pub(super) certificates: Option<Certificates>,
    /// The load balancers that say for whom they connect; `None`: nobody is asked.
    pub(super) proxies: Option<Arc<[IpNet]>>,
}

impl Door {
    /// Accepts until `stopping`; connections that are open then go on.
    pub(super) async fn accept(self, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                // An error means that nobody is left to say so.
                _ = stopping.wait_for(|stopping| *stopping) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.welcome(stream, peer, &stopping),
                Err(problem) => shortage(&problem).await,
            }
        }
    }

    fn welcome(&self, stream: TcpStream, peer: SocketAddr, stopping: &watch::Receiver<bool>) {
        let place = match self.doors.enter() {
            Ok(place) => place,
            Err(shut) => return self.turn_away(turned(shut), peer),
        };
        let (door, stopping) = (self.clone(), stopping.clone());
        tokio::spawn(async move {
            let IngressSettings { head_timeout, .. } = door.ingress.settings;
            let opened = door.open(stream, peer, place);
            match pingora_timeout::timeout(head_timeout, opened).await {
                Ok(Ok((connection, place))) => {
                    // Given back in this order: whoever sees that a connection is gone finds its place free.
                    let _open = door.metrics().connection_opened();
                    let _place = place;
                    door.ingress.serve(connection, stopping).await;
                }
                Ok(Err(turned)) => door.turn_away(turned, peer),
                Err(_) => door.turn_away(Turned::TooSlow, peer),
            }
        });
    }

    /// Everything before HTTP.
    async fn open(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        mut place: Place,
    ) -> Result<(Box<Connection>, Place), Turned> {
        // Fails on connections that are gone already, which the first read will tell.
        let _ = stream.set_nodelay(true);
        let client = match &self.proxies {
            None => peer,
            Some(networks)
                if !networks
                    .iter()
                    .any(|network| network.contains(&peer.ip().to_canonical())) =>
            {
                return Err(Turned::Stranger);
            }
            Some(_) => proxied::read(&mut stream, peer)
                .await
                .map_err(|_| Turned::ProxyHeader)?,
        };
        if !self.ingress.guard.rules().trusts(client.ip().to_canonical()) {
            place.of(client.ip()).map_err(turned)?;
        }
        let Some(certificates) = &self.certificates else {
            return Ok((
                Box::new(Connection::tcp(stream, client, &self.ingress.turnstile)),
                place,
            ));
        };
        let acceptor = TlsAcceptor::from(certificates.current());
        let stream = acceptor.accept(stream).await.map_err(|problem| {
            log::debug!("{client}: no TLS: {problem}");
            Turned::Handshake
        })?;
        let agreed = tls::agreed(stream.get_ref().1);
        self.metrics().handshake_done();
        Ok((
            Box::new(Connection::tls(stream, client, agreed, &self.ingress.turnstile)),
            place,
        ))
    }

    fn turn_away(&self, why: Turned, peer: SocketAddr) {
        self.metrics().connection_turned_away(why);
        log::debug!("{peer}: turned away: {why:?}");
    }

    fn metrics(&self) -> &Metrics {
        self.ingress.guard.shared().metrics()
    }
}

fn turned(shut: Shut) -> Turned {
    match shut {
        Shut::Full => Turned::Full,
        Shut::Client => Turned::ClientFull,
    }
}

/// A connection that broke before it was accepted concerns nobody. When descriptors or memory run out, accepting at
/// once again would only spin.
async fn shortage(problem: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(problem.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        log::error!("cannot accept connections: {problem}");
        pingora_timeout::sleep(SHORTAGE).await;
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_takes_no_megabytes_for_a_client_that_does_not_read() {
        // A thousand clients that ask for large answers and read nothing would have a gigabyte moved at once.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        prepare(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = TcpListener::from_std(listener).unwrap().accept().await.unwrap();
        let lowat = socket2::SockRef::from(&stream).tcp_notsent_lowat().unwrap();
        assert_eq!(lowat, UNSENT_BYTES_MAX);
    }
}
