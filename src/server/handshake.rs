//! Connections for requests that want to leave HTTP: the handshakes of WebSockets.
//!
//! Pingora 0.9.1 writes such a request, and then waits for two things at once: the upstream's answer, and the end of
//! the request's empty body. When the `101` comes first, as it does from an application nearby, it takes the end of
//! the body for the end of the tunnel, and the WebSocket is closed as soon as it is open (cloudflare/pingora issue
//! 946). So these connections answer a read that follows a write one turn later than they could; by then the end of
//! the body has been seen. They are never pooled: what they are for does not give them back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::header;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Whether a request asks for a WebSocket; Pingora lets nothing else leave HTTP.
pub(crate) fn is_one(request: &RequestHeader) -> bool {
    let protocol = request.headers.get(header::UPGRADE);
    protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Makes the connections to `peer` ones for a handshake.
pub(crate) fn prepare(peer: &mut HttpPeer) {
    peer.options.custom_l4 = Some(Arc::new(Unhurried));
    peer.options.idle_timeout = Some(Duration::ZERO);
    // Never one of the ordinary connections that lie in the pool.
    peer.group_key = peer.group_key.wrapping_add(1);
}

#[derive(Debug)]
struct Unhurried;

#[async_trait]
impl L4Connect for Unhurried {
    async fn connect(&self, address: &PeerAddress) -> Result<Stream> {
        let unknown = || Error::explain(ErrorType::SocketError, "no internet address");
        let address: SocketAddr = address.as_inet().copied().ok_or_else(unknown)?;
        let tcp = TcpStream::connect(address)
            .await
            .or_err(ErrorType::ConnectError, "for a handshake")?;
        let socket = Socket { tcp, wrote: false };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

/// A connection that takes a turn between writing and reading.
#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    /// Something was written since the last read.
    wrote: bool,
}

impl VirtualSocket for Socket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_read(context, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
