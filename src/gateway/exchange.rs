//! One request and its answer, as the corridor sees the connection below them.
//!
//! HTTP/1 on our own listeners is read and written by `server`; HTTP/2, and whatever another Pingora proxy has in hand,
//! by Pingora's session. The steps know neither: they read pieces of a body, and write one answer.
//!
//! What an exchange promises: bytes of a body are handed out once, in order, and an error is never its end; after
//! [`close`](Exchange::close) no further request is read from the connection; an answer that is cut never looks whole.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_core::ErrorType;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_core::protocols::tls::SslDigest;
use pingora_http::ResponseHeader;

/// How long a sender may leave a piece of its answer unread.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The connection's side of one request.
pub(crate) trait Exchange: Send {
    /// The address that connected.
    fn peer(&self) -> Option<IpAddr>;

    /// Whether the connection is encrypted.
    fn is_tls(&self) -> bool;

    /// The names in the verified certificate of the client; none without one.
    fn certified(&self) -> impl Iterator<Item = &str>;

    /// The next piece of the body; `None` at its end.
    fn piece(&mut self) -> impl Future<Output = Result<Option<Bytes>, Unread>> + Send;

    /// What comes next of the body: appended to `body`, as much as that has room for, where it can be read straight into
    /// it; otherwise the next piece.
    fn append(&mut self, body: &mut Vec<u8>) -> impl Future<Output = Result<Next, Unread>> + Send {
        let _ = body;
        async { Ok(self.piece().await?.map_or(Next::End, Next::Piece)) }
    }

    /// Whether the body has been read to its end.
    fn is_body_done(&mut self) -> bool;

    /// Tells a sender that asked for it to go ahead with the body.
    fn invite(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// No further request after this one.
    fn close(&mut self);

    /// Whether the connection ends with this request as far as is known.
    fn closes(&self) -> bool;

    /// What is left of the body is to be read away after the answer, within `patience`, so that the connection can
    /// serve the next request.
    fn drain(&mut self, patience: Duration);

    /// The sender is to come back after `wait`; returns what it is to be told. It may be left waiting until then.
    fn later(&mut self, wait: Duration) -> Duration {
        wait
    }

    /// Begins the answer. Its head goes out with the first piece of its body, or with [`flush`](Self::flush).
    fn begin(&mut self, head: AnswerHead) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends a piece of the answer's body, at its end with `last`.
    fn send(&mut self, piece: Bytes, last: bool) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends what is held back.
    fn flush(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Ends our half of a connection that is to be closed; over HTTP/2 other requests are on it.
    fn half_close(&mut self) -> impl Future<Output = ()> + Send;

    /// Ends the connection, or over HTTP/2 the stream, in the middle of an answer.
    fn cut(&mut self) -> impl Future<Output = ()> + Send;
}

/// What came next of a body.
#[derive(Debug)]
pub(crate) enum Next {
    /// It was appended.
    Appended,
    Piece(Bytes),
    End,
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Its chunks have no single meaning, or its frames carry hardly anything.
    BadFraming,
    /// The sender stopped in the middle.
    Truncated,
    /// The connection took too long by its own bounds.
    TooSlow,
}

/// The other side reads no answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// The head of an answer, as it is to reach the sender.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    /// Header lines, less those about length and connection.
    pub(crate) lines: Vec<u8>,
    pub(crate) length: Length,
    /// Whether there is a `Date` among the lines.
    pub(crate) is_dated: bool,
}

/// What an answer says about the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// Nothing: it has none by its status or by the request's method.
    Unsaid,
    /// So many bytes. The answer to a HEAD has it and no body.
    Known(u64),
    /// It ends when it ends.
    Unknown,
}

impl AnswerHead {
    pub(crate) fn new(status: StatusCode, length: Length) -> Self {
        AnswerHead {
            status,
            lines: Vec::with_capacity(512),
            length,
            is_dated: false,
        }
    }

    /// Adds a header line. Neither name nor value may hold a line end; both come from values that were checked.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.is_dated |= name.eq_ignore_ascii_case(b"date");
        for part in [name, b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }

    /// The names and values that were added.
    fn fields(&self) -> impl Iterator<Item = Option<(HeaderName, HeaderValue)>> {
        let lines = self
            .lines
            .split(|b| *b == b'\n')
            .filter_map(|line| line.strip_suffix(b"\r"));
        lines.map(|line| {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let value = value.get(2..).unwrap_or_default();
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
    }
}

impl Exchange for ServerSession {
    fn peer(&self) -> Option<IpAddr> {
        Some(self.client_addr()?.as_inet()?.ip())
    }

    fn is_tls(&self) -> bool {
        self.digest().is_some_and(|digest| digest.ssl_digest.is_some())
    }

    fn certified(&self) -> impl Iterator<Item = &str> {
        certified(self.digest().and_then(|digest| digest.ssl_digest.as_deref()))
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Unread> {
        match self.read_request_body().await {
            Ok(piece) => Ok(piece),
            Err(e) if e.etype == ErrorType::ReadTimedout => Err(Unread::TooSlow),
            Err(e) if is_badly_framed(&e) => Err(Unread::BadFraming),
            Err(_) => Err(Unread::Truncated),
        }
    }

    fn is_body_done(&mut self) -> bool {
        ServerSession::is_body_done(self)
    }

    /// Pingora never does so by itself, and takes the interim answer for a final one that came before the body unless
    /// told otherwise.
    async fn invite(&mut self) -> Result<(), Gone> {
        self.set_close_on_response_before_downstream_finish(false);
        let invited = self.write_continue_response().await;
        self.set_close_on_response_before_downstream_finish(true);
        invited.map_err(|_| Gone)
    }

    fn close(&mut self) {
        self.set_keepalive(None);
    }

    fn closes(&self) -> bool {
        let ends = |http1: &HttpSession| !http1.will_keepalive();
        self.as_http1().is_some_and(ends)
    }

    fn drain(&mut self, patience: Duration) {
        // Pingora drains before it reads the next request.
        self.set_close_on_response_before_downstream_finish(false);
        self.set_total_drain_timeout(Some(patience));
    }

    async fn begin(&mut self, answer: AnswerHead) -> Result<(), Gone> {
        self.set_write_timeout(Some(WRITE_TIMEOUT));
        let http1 = self.as_http1().is_some();
        let chunked = http1 && self.req_header().version == http::Version::HTTP_11;
        let head = ResponseHeader::build(answer.status, Some(16)).and_then(|mut head| {
            for (name, value) in answer.fields().flatten() {
                head.append_header(name, value)?;
            }
            match answer.length {
                Length::Known(length) => head.insert_header(header::CONTENT_LENGTH, length)?,
                Length::Unknown if chunked => head.insert_header(header::TRANSFER_ENCODING, "chunked")?,
                Length::Unknown | Length::Unsaid => {}
            }
            Ok(head)
        });
        let head = head.map_err(|_| Gone)?;
        self.write_response_header(Box::new(head)).await.map_err(|_| Gone)
    }

    async fn send(&mut self, piece: Bytes, last: bool) -> Result<(), Gone> {
        self.write_response_body(piece, last).await.map_err(|_| Gone)
    }

    /// Pingora sends a piece when it gets it, and the head before the first one.
    async fn flush(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    async fn half_close(&mut self) {
        if self.as_http1().is_some() {
            self.shutdown().await;
        }
    }

    async fn cut(&mut self) {
        self.shutdown().await;
    }
}

/// Whether the body did not end but break: its chunks have no single meaning, as our own connection says by the kind of
/// its error, or it came in more frames of HTTP/2 than it may.
fn is_badly_framed(e: &pingora_core::Error) -> bool {
    let Some(cause) = &e.cause else { return false };
    let http1 = cause.downcast_ref::<io::Error>();
    http1.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData) || is_flood(e)
}

/// Whether a connection of HTTP/2 was ended from our side because it cost more than it carried.
pub(crate) fn is_flood(e: &pingora_core::Error) -> bool {
    let http2 = e.cause.as_ref().and_then(|cause| cause.downcast_ref::<h2::Error>());
    http2.is_some_and(|e| e.is_go_away() && !e.is_remote() && e.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// The names in the verified certificate of the client; none without one.
///
/// The listener writes them where Pingora has the certificate's organization, a line each. Another proxy that embeds
/// the guard may have an organization there; Pingora then has a serial number beside it, which our listener never sets.
pub(crate) fn certified(tls: Option<&SslDigest>) -> impl Iterator<Item = &str> {
    let ours = tls.filter(|tls| tls.serial_number.is_none());
    ours.and_then(|tls| tls.organization.as_deref())
        .into_iter()
        .flat_map(str::lines)
}
