//! One GET of one pinned address: look up, judge, connect, ask, read.
//!
//! HTTP/1.1 over Pingora's connector; the connection is used once. The name is looked up once, and when any of its
//! addresses is one that may not be asked the whole answer is distrusted: a resolver that mixes inside and outside
//! addresses is being bent. TLS is verified for the pinned name. Every answer but a 200 with a body within its bound is
//! a failure; a redirect is never followed, because where it leads was not pinned.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use tokio::io::AsyncWriteExt;

use super::FetchError;
use super::world::World;
use crate::signature::PinnedUrl;
use crate::upstream::Connector;

/// Longest body of an answer, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Addresses of one name that are tried.
const TRIES_MAX: usize = 3;

/// Informational answers before the final one that are read past.
const INFORMATIONAL_MAX: usize = 8;

/// Longest time for connecting to one address, TLS included.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// Opens the fetcher's connections.
pub(super) struct Transport {
    connector: Connector,
    authorities: Option<Arc<CaType>>,
}

impl Transport {
    pub(super) fn new(world: &World, connector: &Connector) -> Transport {
        let trusted = |der: &Vec<u8>| WrappedX509::new(der.clone(), parse_x509);
        let authorities = world.authorities.as_ref();
        Transport {
            connector: connector.clone(),
            authorities: authorities.map(|ders| ders.iter().map(trusted).collect()),
        }
    }

    /// The body of `url`, if it can be had. Its time is bounded by the caller.
    pub(super) async fn get(&self, world: &World, url: &PinnedUrl) -> Result<Vec<u8>, Fault> {
        let addresses = look_up(world, url.host()).await?;
        let stream = self.connect(&addresses, url.host()).await?;
        let mut session = ask(stream, url).await?;
        let body = read(&mut session).await;
        session.shutdown().await;
        body
    }

    /// A connection to the first address that takes one.
    async fn connect(&self, addresses: &[SocketAddr], host: &str) -> Result<Stream, Fault> {
        let mut refused = Fault::NoAddress;
        for address in addresses.iter().take(TRIES_MAX) {
            // From an address, never from a name: Pingora would look the name up again.
            let mut peer = HttpPeer::new(*address, true, host.to_owned());
            peer.options.connection_timeout = Some(CONNECT_TIME_MAX);
            peer.options.total_connection_timeout = Some(CONNECT_TIME_MAX);
            peer.options.ca = self.authorities.clone();
            match self.connector.transport().new_stream(&peer).await {
                Ok(stream) => return Ok(stream),
                Err(problem) => refused = Fault::NoConnection(problem.etype().as_str().to_owned()),
            }
        }
        Err(refused)
    }
}

/// The addresses of `host`, every one of them judged.
async fn look_up(world: &World, host: &str) -> Result<Vec<SocketAddr>, Fault> {
    let addresses = world.resolver.resolve(host).await.map_err(|_| Fault::NoAddress)?;
    match addresses.iter().find(|address| !(world.admits)(**address)) {
        Some(inside) => Err(Fault::Inside(*inside)),
        None => Ok(addresses),
    }
}

/// Sends the request and reads the head of a 200.
async fn ask(mut stream: Stream, url: &PinnedUrl) -> Result<HttpSession, Fault> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: hookward/{}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\
         Connection: close\r\n\r\n",
        url.target(),
        url.host(),
        env!("CARGO_PKG_VERSION"),
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|_| Fault::BrokeOff)?;
    stream.flush().await.map_err(|_| Fault::BrokeOff)?;
    let mut session = HttpSession::new(stream);
    final_head(&mut session).await?;
    if session.get_status() != Some(StatusCode::OK) {
        return Err(Fault::Status(session.get_status().map_or(0, |status| status.as_u16())));
    }
    let coded = |name: header::HeaderName, plain: &str| {
        let coding = session.get_header(name);
        coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(plain.as_bytes()))
    };
    if coded(header::CONTENT_ENCODING, "identity") || coded(header::TRANSFER_ENCODING, "chunked") {
        return Err(Fault::Encoded);
    }
    Ok(session)
}

/// Reads past informational answers, of which there may be a few.
async fn final_head(session: &mut HttpSession) -> Result<(), Fault> {
    for _ in 0..INFORMATIONAL_MAX {
        session.read_response().await.map_err(|_| Fault::BrokeOff)?;
        match session.get_status() {
            Some(status) if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
            _ => return Ok(()),
        }
    }
    Err(Fault::BrokeOff)
}

/// The whole body, within its bound.
async fn read(session: &mut HttpSession) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(piece) = session.read_body_bytes().await.map_err(|_| Fault::BrokeOff)? {
        if body.len().saturating_add(piece.len()) > BODY_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What went wrong, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NoAddress,
    Inside(SocketAddr),
    NoConnection(String),
    BrokeOff,
    TooSlow,
    TooLarge,
    Encoded,
    Status(u16),
}

impl Fault {
    /// What it means for the message that needs the key. Whatever may pass by itself is unreachable, for the sender to
    /// try again: a genuine event must not be lost to an outage of ours or of the provider's.
    pub(super) fn means(&self) -> FetchError {
        match self {
            Fault::Status(408 | 425 | 429) => FetchError::Unreachable,
            Fault::Status(400..=499) => FetchError::Absent,
            Fault::Status(500..) => FetchError::Unreachable,
            Fault::Status(_) | Fault::TooLarge | Fault::Encoded => FetchError::Refused,
            Fault::NoAddress | Fault::Inside(_) | Fault::NoConnection(_) => FetchError::Unreachable,
            Fault::BrokeOff | Fault::TooSlow => FetchError::Unreachable,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoAddress => f.write_str("the name has no address"),
            Fault::Inside(address) => write!(f, "the name resolves to {address}, which is not in the public internet"),
            Fault::NoConnection(problem) => write!(f, "no connection: {problem}"),
            Fault::BrokeOff => f.write_str("the answer broke off"),
            Fault::TooSlow => f.write_str("no answer in time"),
            Fault::TooLarge => write!(f, "the answer is longer than {BODY_BYTES_MAX} bytes"),
            Fault::Encoded => f.write_str("the answer has an encoding that was not asked for"),
            Fault::Status(status) => write!(f, "the answer is {status}"),
        }
    }
}
