//! One request of HTTP/1 on a connection of our own, and its answer.
//!
//! The head was read and judged by [`ingress`](super::ingress); here its body is read, in pieces that are slices of
//! what arrived, and the answer written: its head together with the first piece of its body, in one system call. What
//! came in behind the body is nobody's: the connection ends then, and nothing of it is looked at.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::Connection;
use super::date;
use crate::clock::{Clock, within};
use crate::gateway::{AnswerHead, Exchange, Gone, Length, Next, Request, Unread, WRITE_TIMEOUT, certified};
use crate::http1::{Broken, Chunks, Framed, READ_BYTES, read_some};
use crate::observe::decimal;

/// Room for the head of an answer.
const HEAD_ROOM: usize = 1024;

/// One request and its answer.
pub(super) struct Session<'a> {
    connection: &'a mut Connection,
    clock: &'a Clock,
    /// Read from the connection and not yet handed out.
    unread: Bytes,
    body: Body,
    version: Version,
    is_head: bool,
    /// Whether the connection may serve another request.
    keeps: bool,
    /// How long the rest of the body is read after the answer.
    drain: Option<Duration>,
    /// What of the answer waits to leave together with what follows.
    held: Vec<u8>,
    answer: Framing,
}

/// What is to come of the request's body.
pub(super) enum Body {
    Left(u64),
    Chunks(Chunks),
    /// It broke, or its sender left.
    Lost(Unread),
}

impl Body {
    /// The whole body behind the head `framed`.
    pub(super) fn of(framed: &Framed<'_>) -> Self {
        match framed.chunked {
            true => Body::Chunks(Chunks::new()),
            false => Body::Left(framed.length.unwrap_or(0)),
        }
    }
}

/// How the pieces of the answer's body are written.
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    /// No head was written.
    None,
    Plain,
    Chunked,
}

impl<'a> Session<'a> {
    /// The request `request` with all of its `body` to come, of which `unread` was read with the head. `last`: the
    /// connection has served as many as it may.
    pub(super) fn new(
        connection: &'a mut Connection,
        clock: &'a Clock,
        request: &Request,
        body: Body,
        unread: Bytes,
        last: bool,
    ) -> Self {
        let tokens = request.headers.get_all(http::header::CONNECTION).into_iter();
        let (mut close, mut keep_alive) = (false, false);
        for token in tokens
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
        {
            close |= token.eq_ignore_ascii_case(b"close");
            keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
        Session {
            connection,
            clock,
            unread,
            body,
            version: request.version,
            is_head: request.is_head(),
            keeps: !last && !close && (request.version == Version::HTTP_11 || keep_alive),
            drain: None,
            held: Vec::new(),
            answer: Framing::None,
        }
    }

    /// What becomes of the connection after the answer: true when it can serve the next request.
    pub(super) async fn finish(mut self) -> bool {
        if !self.keeps || self.answer == Framing::None {
            return false;
        }
        if !self.is_body_done() {
            let Some(patience) = self.drain else { return false };
            let rest = async { while let Ok(Some(_)) = self.piece().await {} };
            if pingora_timeout::timeout(patience, rest).await.is_err() {
                return false;
            }
        }
        self.is_body_done() && self.unread.is_empty()
    }

    /// The next piece among the bytes that were read already; empty when there is none.
    fn at_hand(&mut self) -> Result<Bytes, Unread> {
        match &mut self.body {
            Body::Left(left) => {
                let length = usize::try_from(*left).map_or(self.unread.len(), |left| left.min(self.unread.len()));
                *left = left.saturating_sub(length as u64);
                Ok(self.unread.split_to(length))
            }
            Body::Chunks(chunks) => {
                let data = chunks.data(&self.unread).map_err(|Broken| Unread::BadFraming)?;
                let mut piece = self.unread.split_to(data.end.min(self.unread.len()));
                piece.advance(data.start.min(piece.len()));
                Ok(piece)
            }
            Body::Lost(why) => Err(*why),
        }
    }

    async fn read_on(&mut self) -> Result<Option<Bytes>, Unread> {
        loop {
            let piece = self.at_hand()?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if self.is_body_done() {
                return Ok(None);
            }
            // No more than belongs to the body, where that is known.
            let most = match &self.body {
                Body::Left(left) => usize::try_from(*left).unwrap_or(READ_BYTES),
                _ => READ_BYTES,
            };
            let mut bytes = BytesMut::new();
            match read_some(self.connection, &mut bytes, most).await {
                Ok(read) if read > 0 => self.unread = bytes.freeze(),
                _ => return Err(Unread::Truncated),
            }
        }
    }

    fn lost(&mut self, why: Unread) -> Unread {
        self.body = Body::Lost(why);
        self.keeps = false;
        why
    }

    /// Writes what is held back and `piece`, together where the system takes them together.
    async fn write(&mut self, piece: &[u8], tail: &'static [u8]) -> Result<(), Gone> {
        let held = std::mem::take(&mut self.held);
        let connection = &mut *self.connection;
        let written = async {
            let (mut first, mut second, mut third) = (&held[..], piece, tail);
            while !(first.is_empty() && second.is_empty() && third.is_empty()) {
                let parts = [IoSlice::new(first), IoSlice::new(second), IoSlice::new(third)];
                let written =
                    poll_fn(|context| Pin::new(&mut *connection).poll_write_vectored(context, &parts)).await?;
                if written == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                let mut left = written;
                for part in [&mut first, &mut second, &mut third] {
                    let taken = left.min(part.len());
                    *part = part.get(taken..).unwrap_or_default();
                    left = left.saturating_sub(taken);
                }
            }
            connection.flush().await
        };
        match within(WRITE_TIMEOUT, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.keeps = false;
                Err(Gone)
            }
        }
    }
}

impl Exchange for Session<'_> {
    fn peer(&self) -> Option<IpAddr> {
        Some(self.connection.client().ip())
    }

    fn is_tls(&self) -> bool {
        self.connection.is_tls()
    }

    fn certified(&self) -> impl Iterator<Item = &str> {
        certified(self.connection.tls_digest())
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Unread> {
        let piece = self.read_on().await;
        piece.map_err(|why| self.lost(why))
    }

    /// Reads straight into `body` what has no framing of its own.
    async fn append(&mut self, body: &mut Vec<u8>) -> Result<Next, Unread> {
        match &mut self.body {
            Body::Left(left @ 1..) if self.unread.is_empty() => {
                // No more than belongs to the body, and no more than there is room for.
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let most = most.min(body.capacity().saturating_sub(body.len()));
                match self.connection.read_buf(&mut body.limit(most)).await {
                    Ok(read) if read > 0 => {
                        *left = left.saturating_sub(read as u64);
                        Ok(Next::Appended)
                    }
                    _ => Err(self.lost(Unread::Truncated)),
                }
            }
            _ => Ok(self.piece().await?.map_or(Next::End, Next::Piece)),
        }
    }

    fn is_body_done(&mut self) -> bool {
        match &mut self.body {
            Body::Left(left) => *left == 0,
            Body::Chunks(chunks) => chunks.is_whole(),
            Body::Lost(_) => false,
        }
    }

    async fn invite(&mut self) -> Result<(), Gone> {
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n", b"").await
    }

    fn close(&mut self) {
        self.keeps = false;
    }

    fn closes(&self) -> bool {
        !self.keeps
    }

    fn drain(&mut self, patience: Duration) {
        self.drain = Some(patience);
    }

    fn later(&mut self, wait: Duration) -> Duration {
        self.connection.patience.told(wait)
    }

    fn begin(&mut self, head: AnswerHead) -> impl Future<Output = Result<(), Gone>> + Send {
        let out = &mut self.held;
        out.reserve(HEAD_ROOM);
        status_line(out, head.status);
        out.extend_from_slice(&head.lines);
        if !head.is_dated {
            date::line(out, self.clock.wall());
        }
        self.answer = Framing::Plain;
        match head.length {
            Length::Known(length) => {
                out.extend_from_slice(b"content-length: ");
                decimal::number(out, length);
                out.extend_from_slice(b"\r\n");
            }
            Length::Unknown if self.version == Version::HTTP_11 => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                self.answer = Framing::Chunked;
            }
            // It ends with the connection.
            Length::Unknown => self.keeps = false,
            Length::Unsaid => {}
        }
        out.extend_from_slice(match self.keeps {
            true => b"connection: keep-alive\r\n\r\n",
            false => b"connection: close\r\n\r\n",
        });
        std::future::ready(Ok(()))
    }

    async fn send(&mut self, piece: Bytes, last: bool) -> Result<(), Gone> {
        match (self.answer, piece.len()) {
            (Framing::Chunked, 0) if last => self.write(b"", b"0\r\n\r\n").await,
            (Framing::Chunked, 1..) => {
                hex(&mut self.held, piece.len());
                self.write(&piece, if last { b"\r\n0\r\n\r\n" } else { b"\r\n" }).await
            }
            _ if self.is_head => self.write(b"", b"").await,
            // A short answer is one buffer, which costs the system less to send than two.
            (_, ..=HEAD_ROOM) => {
                self.held.extend_from_slice(&piece);
                self.write(b"", b"").await
            }
            _ => self.write(&piece, b"").await,
        }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        match self.held.is_empty() {
            true => Ok(()),
            false => self.write(b"", b"").await,
        }
    }

    async fn half_close(&mut self) {
        // Whoever is gone already misses nothing.
        let _ = self.connection.shutdown().await;
    }

    async fn cut(&mut self) {
        // What is held back goes nowhere.
        self.held.clear();
        let _ = self.connection.shutdown().await;
    }
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The size line of a chunk.
fn hex(out: &mut Vec<u8>, length: usize) {
    let _ = std::io::Write::write_fmt(out, format_args!("{length:x}\r\n"));
}
