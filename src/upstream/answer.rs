//! The upstream's answer: its head, and its body to be read piece by piece.
//!
//! The connection goes back to lie beside its server only when the answer was complete and well framed; in every other
//! case it is closed, so that bytes of one exchange cannot be taken for the answer of the next.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use tokio::io::AsyncWriteExt;

use super::pick::Candidate;
use super::wire::Wire;
use super::{Request, SendError};
use crate::clock::{Clock, Moment};
use crate::http1::{AnswerHead, BadAnswer, Broken, Chunks, Framing, HEAD_BYTES_MAX, READ_BYTES, read_some};
use crate::observe::metrics::{Attempt, UpstreamMetrics};

/// More informational answers than this before the final one are not waited for.
const INFORMATIONAL_MAX: usize = 8;

/// How long an unused TLS connection may take for its farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// The head of an upstream's answer, and its body to be read.
pub struct Answer {
    pub(super) head: AnswerHead,
    pub(super) body: Body,
    pub(super) server: Candidate,
    pub(super) deadline: Moment,
    pub(super) idle_timeout: Duration,
    pub(super) end: End,
}

/// Counts the attempt when the answer has ended, or whoever reads it has gone.
pub(super) struct End {
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) clock: Clock,
    pub(super) started: Moment,
    pub(super) attempt: Attempt,
}

impl Drop for End {
    fn drop(&mut self) {
        self.metrics.attempted(self.attempt);
        self.metrics.took(self.clock.moment().since(self.started));
    }
}

impl Answer {
    /// The final status; never informational.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The head as received.
    pub fn head(&self) -> &AnswerHead {
        &self.head
    }

    /// The next piece of the body, if it is there already; what is not may yet come.
    ///
    /// # Errors
    /// [`SendError::BadAnswer`] when the answer breaks its framing.
    pub fn at_hand(&mut self) -> Result<Option<Bytes>, SendError> {
        self.body.at_hand().map_err(|problem| self.fail(problem))
    }

    /// The next piece of the body, never empty; `None` at its end.
    ///
    /// # Errors
    /// [`SendError::Broken`] when the answer ends before its framing says so, [`SendError::BadAnswer`] when it breaks
    /// it, [`SendError::Timeout`] when the upstream's total time is over.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SendError> {
        if let Some(piece) = self.at_hand()? {
            return Ok(Some(piece));
        }
        if self.is_whole() {
            return Ok(None);
        }
        let left = self.deadline.since(self.end.clock.moment());
        match pingora_timeout::timeout(left, self.body.next()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(problem)) => Err(self.fail(problem)),
            Err(_) => Err(self.fail(SendError::Timeout)),
        }
    }

    /// Whether the body has been read to its end.
    pub fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    fn fail(&mut self, problem: SendError) -> SendError {
        self.end.attempt = problem.attempt().unwrap_or(Attempt::Reset);
        problem
    }

    /// Gives the connection back for the next exchange, if it may be used again; otherwise closes it.
    pub async fn finish(mut self) {
        let idle_max = self.idle_max();
        if self.head.keeps && self.body.request_whole && self.body.is_whole() && self.body.unread.is_empty() {
            let now = self.end.clock.moment();
            self.server.idle().park(self.body.wire, now, idle_max);
        } else {
            // Who is gone already misses nothing.
            let _ = pingora_timeout::timeout(FAREWELL, self.body.wire.shutdown()).await;
        }
    }

    /// How long the connection may lie unused: the configured time, or a second less than the server itself
    /// announces, so that a request is not written into a connection that is just being closed.
    fn idle_max(&self) -> Duration {
        let announced = self.head.only("keep-alive");
        let announced = announced
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|value| {
                let parameters = value.split(',').map(str::trim);
                parameters
                    .filter_map(|p| p.strip_prefix("timeout="))
                    .next()?
                    .parse()
                    .ok()
            });
        let announced = announced.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(1)));
        announced.map_or(self.idle_timeout, |announced| announced.min(self.idle_timeout))
    }
}

/// A body on its way, and the connection it comes on.
pub(super) struct Body {
    wire: Wire,
    /// Read and not yet handed out.
    unread: Bytes,
    left: Left,
    /// A server may refuse a body before it has read it, and close; its answer counts, its connection does not.
    request_whole: bool,
}

/// What is to come of a body.
enum Left {
    Bytes(u64),
    Chunks(Chunks),
    UntilClose { closed: bool },
}

impl Body {
    /// Reads up to the head of the final answer.
    pub(super) async fn begin(
        mut wire: Wire,
        request: &Request,
        request_whole: bool,
    ) -> Result<(AnswerHead, Self), SendError> {
        let mut bytes = BytesMut::new();
        for _ in 0..=INFORMATIONAL_MAX {
            let head = read_head(&mut wire, &mut bytes, request.bodiless_answer).await?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(SendError::BadAnswer("protocols switched unasked"));
            }
            if head.status.is_informational() {
                continue;
            }
            let body = Body {
                wire,
                unread: bytes.freeze(),
                left: match head.framing {
                    Framing::Bodiless => Left::Bytes(0),
                    Framing::Length(length) => Left::Bytes(length),
                    Framing::Chunked => Left::Chunks(Chunks::new()),
                    Framing::Close => Left::UntilClose { closed: false },
                },
                request_whole,
            };
            return Ok((head, body));
        }
        Err(SendError::BadAnswer("too many informational answers"))
    }

    fn is_whole(&self) -> bool {
        match &self.left {
            Left::Bytes(left) => *left == 0,
            Left::Chunks(chunks) => chunks.is_whole(),
            Left::UntilClose { closed } => *closed,
        }
    }

    /// The next piece among the bytes that were read already.
    fn at_hand(&mut self) -> Result<Option<Bytes>, SendError> {
        let piece = match &mut self.left {
            Left::Bytes(left) => {
                let length = usize::try_from(*left).map_or(self.unread.len(), |left| left.min(self.unread.len()));
                *left = left.saturating_sub(length as u64);
                self.unread.split_to(length)
            }
            Left::Chunks(chunks) => {
                let data = chunks
                    .data(&self.unread)
                    .map_err(|Broken| SendError::BadAnswer("its chunks are none"))?;
                let mut piece = self.unread.split_to(data.end.min(self.unread.len()));
                piece.advance(data.start.min(piece.len()));
                piece
            }
            Left::UntilClose { .. } => std::mem::take(&mut self.unread),
        };
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    /// Reads until there is a piece, or the body has ended.
    async fn next(&mut self) -> Result<Option<Bytes>, SendError> {
        while !self.is_whole() {
            let mut bytes = BytesMut::new();
            if read_some(&mut self.wire, &mut bytes, READ_BYTES)
                .await
                .map_err(broken)?
                == 0
            {
                match &mut self.left {
                    Left::UntilClose { closed } => *closed = true,
                    _ => return Err(SendError::Broken("its end is missing".to_owned())),
                }
            }
            self.unread = bytes.freeze();
            if let Some(piece) = self.at_hand()? {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// Reads one head, and leaves in `bytes` what came behind it.
async fn read_head(wire: &mut Wire, bytes: &mut BytesMut, bodiless: bool) -> Result<AnswerHead, SendError> {
    let mut seen = 0;
    loop {
        if let Some(end) = AnswerHead::end(bytes, &mut seen) {
            let head = bytes.split_to(end.min(bytes.len())).freeze();
            return Ok(AnswerHead::read(&head, bodiless)?);
        }
        if !AnswerHead::may_begin(bytes) {
            return Err(SendError::BadAnswer("it is no HTTP/1"));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(SendError::BadAnswer("its head is too long"));
        }
        if read_some(wire, bytes, READ_BYTES).await.map_err(broken)? == 0 {
            return Err(SendError::Broken(
                "it closed the connection before it answered".to_owned(),
            ));
        }
    }
}

fn broken(problem: io::Error) -> SendError {
    SendError::Broken(problem.to_string())
}

impl From<BadAnswer> for SendError {
    fn from(BadAnswer(problem): BadAnswer) -> Self {
        SendError::BadAnswer(problem)
    }
}
