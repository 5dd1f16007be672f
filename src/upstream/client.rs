//! One exchange with one server: connect or take a pooled connection, write the request, read the answer.
//!
//! HTTP/1.1 over Pingora's connector and its reader of answers; the request is bytes of our own making in one
//! vectored write. The connection goes back to the pool only when the answer was complete and well framed; in
//! every other case it is closed, so that bytes of one exchange cannot be taken for the answer of the next.

use std::io::IoSlice;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use tokio::io::AsyncWriteExt;

use super::pick::Candidate;
use super::{Request, SendError, Upstream};
use crate::clock::{Clock, Moment};
use crate::observe::metrics::Attempt;

/// More informational answers than this before the final one are not waited for.
const INFORMATIONAL_MAX: usize = 8;

impl Upstream {
    pub(super) async fn exchange(&self, request: &Request, started: Moment) -> Result<Answer, SendError> {
        let (stream, server) = self.connect().await?;
        let session = talk(stream, request)
            .await
            .inspect_err(|_| self.metrics.attempted(Attempt::Reset))?;
        self.metrics.attempted(Attempt::Ok);
        self.metrics
            .answered(session.get_status().map_or(0, |status| status.as_u16()));
        Ok(Answer {
            session,
            server,
            deadline: started.plus(self.settings.timeout),
            clock: self.clock.clone(),
            idle_timeout: self.settings.idle_timeout,
            bodiless: request.bodiless_answer,
        })
    }

    /// A connection to the first server in turn that has one to give. Nothing is sent yet, so trying the next is safe.
    async fn connect(&self) -> Result<(Stream, Candidate), SendError> {
        let mut turn = self.servers.turn();
        loop {
            let now = self.clock.moment();
            let server = turn.next(now).ok_or(SendError::Unreachable)?;
            if let Some(stream) = server.idle().take(now) {
                return Ok((stream, server));
            }
            // Boxed: connecting is rare and its future is large.
            match Box::pin(self.connector.0.new_stream(server.peer())).await {
                Ok(stream) => return Ok((stream, server)),
                Err(refused) => {
                    log::debug!("upstream {}: {}: {refused}", self.name(), server.address());
                    self.failed(&server);
                }
            }
        }
    }
}

/// Writes the request and reads up to the head of the final answer.
async fn talk(mut stream: Stream, request: &Request) -> Result<HttpSession, SendError> {
    let broken = |e: &dyn std::fmt::Display| SendError::Broken(e.to_string());
    write_all(&mut stream, &request.head, &request.body)
        .await
        .map_err(|e| broken(&e))?;
    let mut session = HttpSession::new(stream);
    for _ in 0..INFORMATIONAL_MAX {
        session.read_response().await.map_err(|e| unread(&e))?;
        match session.get_status() {
            Some(StatusCode::SWITCHING_PROTOCOLS) => return Err(broken(&"it switched protocols unasked")),
            Some(status) if status.is_informational() => continue,
            _ => return Ok(session),
        }
    }
    Err(broken(&"too many informational answers"))
}

/// Whole, Pingora's error would quote what was read; that is the upstream's and no business of a log.
fn unread(e: &pingora_core::Error) -> SendError {
    SendError::Broken(e.etype().as_str().to_owned())
}

/// Head and body in one system call where the kernel takes them whole.
async fn write_all(stream: &mut Stream, mut head: &[u8], mut body: &[u8]) -> std::io::Result<()> {
    while !head.is_empty() {
        let written = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        let of_head = written.min(head.len());
        head = head.get(of_head..).unwrap_or_default();
        body = body.get(written.saturating_sub(of_head)..).unwrap_or_default();
    }
    stream.write_all(body).await?;
    stream.flush().await
}

/// The head of an upstream's answer, and its body to be read.
pub struct Answer {
    session: HttpSession,
    server: Candidate,
    deadline: Moment,
    clock: Clock,
    idle_timeout: Duration,
    bodiless: bool,
}

impl Answer {
    /// The final status; never informational.
    pub fn status(&self) -> StatusCode {
        self.session.get_status().unwrap_or(StatusCode::BAD_GATEWAY)
    }

    /// The headers as received.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.session.resp_header().map(|head| &head.headers)
    }

    /// The server that answered.
    pub fn server(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// [`SendError::Broken`] when the answer ends before its framing says so, [`SendError::Timeout`] when the
    /// upstream's total time is over.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SendError> {
        if self.bodiless {
            return Ok(None);
        }
        let left = self.deadline.since(self.clock.moment());
        match pingora_timeout::timeout(left, self.session.read_body_bytes()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(e)) => Err(unread(&e)),
            Err(_) => Err(SendError::Timeout),
        }
    }

    /// Gives the connection back for the next exchange, if it may be used again; otherwise closes it.
    pub async fn finish(mut self) {
        // After a HEAD the reader still expects the body that the headers speak of.
        if self.bodiless {
            return self.session.shutdown().await;
        }
        let idle_max = self.idle_max();
        self.session.respect_keepalive();
        if let Some(stream) = self.session.reuse().await {
            self.server.idle().park(stream, self.clock.moment(), idle_max);
        }
    }

    /// How long the connection may lie unused: the configured time, or a second less than the server itself
    /// announces, so that a request is not written into a connection that is just being closed.
    fn idle_max(&self) -> Duration {
        let announced = self.session.get_header("keep-alive");
        let announced = announced.and_then(|value| value.to_str().ok()).and_then(|value| {
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
