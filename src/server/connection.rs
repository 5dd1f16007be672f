//! A connection from outside, as Pingora's sessions see it: TCP or TLS, with little memory of its own.
//!
//! Pingora's own stream reads the clock around every poll, holds buffers while it is idle, and takes the address of
//! whoever connected for the client's. This one holds a buffer only while an answer is being put together, knows the
//! client that a load balancer spoke for (PROXY protocol), and lets the bytes of chunked bodies be judged on their way
//! (see [`Chunks`]) before Pingora parses them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::frames::{Flood, Frames};
use super::strain::Patience;
use super::turnstile::{Turn, Turnstile};
use crate::http1::{Broken, Chunks, poll_write_parts};

/// Collected before it is sent: an answer's head and a small body then leave in one packet.
const WRITE_BUFFER_BYTES: usize = 1460;

/// What is read of a connection of HTTP/2 in one turn: as much as it may send ahead.
const TURN_BYTES: usize = 64 << 10;

/// The same under strain, where the frame that is begun is read to its end, and long bodies as ever: a short request or two.
/// What was taken apart waits for its turn with us and gets cold, what was not read waits with the system.
const SHORT_TURN_BYTES: usize = 2 << 10;

/// Longest wait for a peer to take the end of TLS.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection that was accepted, over TCP or, after its handshake, over TLS.
#[derive(Debug)]
pub(crate) struct Connection {
    io: Transport,
    /// Read already, and to be read again.
    again: BytesMut,
    /// Written, and not yet sent.
    unsent: BytesMut,
    /// The body on its way, if it comes in chunks.
    chunks: Option<Chunks>,
    /// What was read so far, if it is HTTP/2.
    frames: Option<Box<Frames>>,
    /// Who is at the other end, or whom a load balancer spoke for.
    client: SocketAddr,
    tls: Option<Arc<SslDigest>>,
    /// What the client was told about coming back.
    pub(super) patience: Patience,
    /// Its place in line under strain.
    turn: Turn,
    /// What may still be read of HTTP/2 before it has to line up again,
    turn_bytes: usize,
    /// and beyond that, to the end of a frame or of a long body.
    frame_bytes: usize,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// A plain connection of `client`, which is not the peer where a load balancer spoke for it.
    pub(super) fn tcp(stream: TcpStream, client: SocketAddr, turnstile: &Arc<Turnstile>) -> Self {
        Connection::over(Transport::Tcp(stream), client, None, turnstile)
    }

    /// A connection whose handshake is done; `digest` says what was agreed on.
    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        client: SocketAddr,
        digest: SslDigest,
        turnstile: &Arc<Turnstile>,
    ) -> Self {
        Connection::over(
            Transport::Tls(Box::new(stream)),
            client,
            Some(Arc::new(digest)),
            turnstile,
        )
    }

    fn over(io: Transport, client: SocketAddr, tls: Option<Arc<SslDigest>>, turnstile: &Arc<Turnstile>) -> Self {
        Connection {
            io,
            again: BytesMut::new(),
            unsent: BytesMut::new(),
            chunks: None,
            frames: None,
            client,
            tls,
            patience: Patience::new(turnstile.strain()),
            turn: Turn::new(turnstile),
            turn_bytes: 0,
            frame_bytes: 0,
        }
    }

    /// Who is at the other end, or whom a load balancer spoke for.
    pub(super) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Whether TLS is spoken.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What was agreed on, over TLS.
    pub(super) fn tls_digest(&self) -> Option<&SslDigest> {
        self.tls.as_deref()
    }

    /// Whether HTTP/2 may be spoken: by prior knowledge, or over TLS when it was agreed on.
    pub(super) fn may_begin_http2(&self) -> bool {
        self.tls.is_none() || matches!(self.selected_alpn_proto(), Some(ALPN::H2))
    }

    /// Whether something arrived that was not read yet, be it the end.
    pub(super) async fn has_something(&self) -> bool {
        let Some(stream) = self.unread_in() else { return true };
        // Tokio may take a connection for readable whose last read found just as much as it asked for; the system knows.
        poll_fn(|context| {
            let there = stream.poll_peek(context, &mut ReadBuf::new(&mut [0]));
            Poll::Ready(there.is_ready())
        })
        .await
    }

    /// Where the system has what was not read yet; none when some of it is decrypted already, of which it tells nobody.
    fn unread_in(&self) -> Option<&TcpStream> {
        match &self.io {
            Transport::Tcp(stream) => Some(stream),
            Transport::Tls(stream) if !stream.get_ref().1.wants_read() => None,
            Transport::Tls(stream) => Some(stream.get_ref().0),
        }
    }

    /// Ready when one read may be tried: at once, but under strain when something seems to have arrived and it is this
    /// connection's turn.
    pub(super) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.turn.is_needed() {
            return Poll::Ready(());
        }
        if !self.turn.is_awaited()
            && let Some(stream) = self.unread_in()
        {
            // That it broke is for the read to tell.
            let _ = ready!(stream.poll_read_ready(context));
        }
        self.turn.poll(context)
    }

    /// Whether it waits for its turn.
    pub(super) fn is_in_line(&self) -> bool {
        self.turn.is_awaited()
    }

    /// Says over TLS that nothing was cut off; the end of TCP says as much by itself.
    pub(super) async fn farewell(&mut self) {
        if self.tls.is_some() {
            // Who is gone already, or reads nothing, misses nothing.
            let _ = pingora_timeout::timeout(FAREWELL, AsyncWriteExt::shutdown(self)).await;
        }
    }

    /// From here on every byte read goes through `chunks`, which has read what was taken already.
    pub(super) fn judge(&mut self, chunks: Option<Chunks>) {
        self.chunks = chunks;
    }

    /// From here on it is HTTP/2: frames that cost more than they say are counted.
    pub(super) fn count(&mut self, frames: Frames) {
        self.frames = Some(Box::new(frames));
    }

    /// Puts bytes back, to be read before all others.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.again = BytesMut::from(bytes);
    }

    /// Reads into `buf`: what was put back first.
    fn poll_fill(&mut self, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.again.is_empty() {
            return match &mut self.io {
                Transport::Tcp(stream) => Pin::new(stream).poll_read(context, buf),
                Transport::Tls(stream) => Pin::new(stream).poll_read(context, buf),
            };
        }
        let length = self.again.len().min(buf.remaining());
        buf.put_slice(&self.again.split_to(length));
        if self.again.is_empty() {
            self.again = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Of HTTP/2: ready while a turn of reading goes on, or another may begin.
    fn poll_frames_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(frames) = self.frames.as_ref().filter(|_| self.turn_bytes == 0) else {
            return Poll::Ready(());
        };
        if !self.again.is_empty() {
            (self.turn_bytes, self.frame_bytes) = (self.again.len(), 0);
            return Poll::Ready(());
        }
        ready!(frames.poll_begun(context));
        let turn = self.poll_turn(context);
        let in_line = self.is_in_line();
        let Some(frames) = &self.frames else {
            return Poll::Ready(());
        };
        if turn.is_ready() {
            frames.begin_turn();
            (self.turn_bytes, self.frame_bytes) = match self.turn.is_needed() {
                true => (SHORT_TURN_BYTES, TURN_BYTES - SHORT_TURN_BYTES),
                false => (TURN_BYTES, 0),
            };
        } else if in_line {
            frames.line_up();
        }
        turn
    }

    /// Sends what is collected, then, in the same call if the system takes it, `more`; how much of `more` was taken.
    fn poll_send(&mut self, context: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let parts = [IoSlice::new(&self.unsent), IoSlice::new(more)];
            let skip = usize::from(self.unsent.is_empty());
            let parts = parts.get(skip..).unwrap_or_default();
            let sent = match &mut self.io {
                Transport::Tcp(stream) => poll_write_parts(stream, context, parts),
                Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            };
            let sent = ready!(sent)?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let collected = sent.min(self.unsent.len());
            self.unsent.advance(collected);
            if !self.unsent.is_empty() {
                continue;
            }
            // An idle connection holds no buffer.
            self.unsent = BytesMut::new();
            let taken = sent.saturating_sub(collected);
            if taken > 0 || more.is_empty() {
                return Poll::Ready(Ok(taken));
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        let before = buf.filled().len();
        if connection.frames.as_ref().is_some_and(|frames| frames.is_flood()) {
            // Whoever reads looks for that now, and reads no more.
            return Poll::Pending;
        }
        ready!(connection.poll_frames_turn(context));
        let filled = match connection.turn_bytes {
            most if connection.frames.is_some() && most < buf.remaining() => {
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
                let filled = connection.poll_fill(context, &mut part);
                let read = part.filled().len();
                buf.advance(read);
                filled
            }
            _ => connection.poll_fill(context, buf),
        };
        // All that was there is read, or Tokio wants others to run first, which does not end the turn.
        if filled.is_pending() && tokio::task::coop::has_budget_remaining() {
            connection.turn_bytes = 0;
        }
        ready!(filled)?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if let Some(frames) = &mut connection.frames {
            if let Err(Flood) = frames.read(read) {
                log::debug!("{}: a flood of frames", connection.client);
                buf.set_filled(before);
                return Poll::Pending;
            }
            connection.turn_bytes = connection.turn_bytes.saturating_sub(read.len());
            if connection.turn_bytes == 0 {
                connection.turn_bytes = frames.rest().min(connection.frame_bytes);
                connection.frame_bytes = connection.frame_bytes.saturating_sub(connection.turn_bytes);
            }
        }
        let Some(chunks) = &mut connection.chunks else {
            return Poll::Ready(Ok(()));
        };
        // What is broken stays so: `chunks` does not get over the byte that it stumbled on.
        let judged = chunks.read(read);
        Poll::Ready(judged.map_err(|Broken| io::ErrorKind::InvalidData.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if connection.unsent.len().saturating_add(bytes.len()) > WRITE_BUFFER_BYTES {
            return connection.poll_send(context, bytes);
        }
        connection.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// At once, and in one call with what was collected.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        if !connection.unsent.is_empty() {
            ready!(connection.poll_send(context, b""))?;
        }
        match &mut connection.io {
            Transport::Tcp(stream) => poll_write_parts(stream, context, parts),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        if !connection.unsent.is_empty() {
            ready!(connection.poll_send(context, b""))?;
        }
        match &mut connection.io {
            Transport::Tcp(_) => Poll::Ready(Ok(())),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        match &mut self.get_mut().io {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // It ends either way; that the other side is gone already is no news.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        match &self.io {
            Transport::Tcp(stream) => stream.as_raw_fd(),
            Transport::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }
}

impl Ssl for Connection {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        let Transport::Tls(stream) = &self.io else { return None };
        match stream.get_ref().1.alpn_protocol()? {
            b"h2" => Some(ALPN::H2),
            b"http/1.1" => Some(ALPN::H1),
            _ => None,
        }
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        let socket = SocketDigest::from_raw_fd(self.id());
        // Fresh, so nothing is set yet.
        let _ = socket.peer_addr.set(Some(PeerAddress::Inet(self.client)));
        Some(Arc::new(socket))
    }
}

impl Peek for Connection {}

#[cfg(test)]
mod tests;
