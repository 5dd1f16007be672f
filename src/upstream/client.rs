//! One exchange with one server: connect or take a pooled connection, write the request, read the answer.
//!
//! HTTP/1.1 over Pingora's connector and its reader of answers; the request is bytes of our own making in one
//! vectored write. The connection goes back to the pool only when the answer was complete and well framed; in
//! every other case it is closed, so that bytes of one exchange cannot be taken for the answer of the next.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use tokio::io::AsyncWriteExt;

use super::pick::Candidate;
use super::{Request, SendError, Tries, Upstream};
use crate::clock::{Clock, Moment};
use crate::observe::metrics::{Attempt, UpstreamMetrics};

/// More informational answers than this before the final one are not waited for.
const INFORMATIONAL_MAX: usize = 8;

impl Upstream {
    pub(super) async fn exchange(
        &self,
        request: &Request,
        started: Moment,
        tries: &mut Tries,
    ) -> Result<Answer, SendError> {
        let (stream, server) = self.connect(tries).await?;
        let (session, request_whole) = talk(stream, request).await?;
        self.metrics
            .answered(session.get_status().map_or(0, |status| status.as_u16()));
        Ok(Answer {
            session,
            server,
            deadline: started.plus(self.settings.timeout),
            idle_timeout: self.settings.idle_timeout,
            request_whole,
            bodiless: request.bodiless_answer,
            end: End {
                metrics: Arc::clone(&self.metrics),
                clock: self.clock.clone(),
                started,
                attempt: Attempt::Ok,
            },
        })
    }

    /// A connection to the first server in turn that has one to give. Nothing is sent yet, so trying the next is safe.
    async fn connect(&self, tries: &mut Tries) -> Result<(Stream, Candidate), SendError> {
        let mut turn = self.servers.turn();
        loop {
            let now = self.clock.moment();
            let server = turn.next(now).ok_or(SendError::Unreachable)?;
            tries.note(server.address());
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

/// Writes the request and reads up to the head of the final answer. Tells whether the whole request went out: a
/// server may refuse a body before it has read it, and close; its answer counts, its connection does not.
async fn talk(mut stream: Stream, request: &Request) -> Result<(HttpSession, bool), SendError> {
    let written = write_all(&mut stream, &request.head, &request.body).await;
    let mut session = HttpSession::new(stream);
    match (written, final_head(&mut session).await) {
        (written, Ok(())) => Ok((session, written.is_ok())),
        (Ok(()), Err(problem)) => Err(problem),
        (Err(first), Err(_)) => Err(SendError::Broken(first.to_string())),
    }
}

async fn final_head(session: &mut HttpSession) -> Result<(), SendError> {
    for _ in 0..INFORMATIONAL_MAX {
        session.read_response().await.map_err(|e| SendError::of(&e))?;
        match session.get_status() {
            Some(StatusCode::SWITCHING_PROTOCOLS) => return Err(SendError::BadAnswer("protocols switched unasked")),
            Some(status) if status.is_informational() => continue,
            _ => return readable(session),
        }
    }
    Err(SendError::BadAnswer("too many informational answers"))
}

/// We ask for no transfer coding and read none but chunks; another one, passed on as if it were the body, would be
/// taken for what the upstream meant.
fn readable(session: &HttpSession) -> Result<(), SendError> {
    let headers = session.resp_header().map(|head| &head.headers);
    let mut codings = headers
        .into_iter()
        .flat_map(|headers| headers.get_all(header::TRANSFER_ENCODING));
    match codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        true => Ok(()),
        false => Err(SendError::BadAnswer("unknown transfer coding")),
    }
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
    idle_timeout: Duration,
    request_whole: bool,
    bodiless: bool,
    end: End,
}

/// Counts the attempt when the answer has ended, or whoever reads it has gone.
struct End {
    metrics: Arc<UpstreamMetrics>,
    clock: Clock,
    started: Moment,
    attempt: Attempt,
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
        self.session.get_status().unwrap_or(StatusCode::BAD_GATEWAY)
    }

    /// The headers as received.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.session.resp_header().map(|head| &head.headers)
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// [`SendError::Broken`] when the answer ends before its framing says so, [`SendError::BadAnswer`] when it breaks
    /// it, [`SendError::Timeout`] when the upstream's total time is over.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SendError> {
        if self.bodiless {
            return Ok(None);
        }
        let left = self.deadline.since(self.end.clock.moment());
        let problem = match pingora_timeout::timeout(left, self.session.read_body_bytes()).await {
            Ok(Ok(chunk)) => return Ok(chunk),
            Ok(Err(e)) => SendError::of(&e),
            Err(_) => SendError::Timeout,
        };
        self.end.attempt = problem.attempt().unwrap_or(Attempt::Reset);
        Err(problem)
    }

    /// Gives the connection back for the next exchange, if it may be used again; otherwise closes it.
    pub async fn finish(mut self) {
        // After a HEAD the reader still expects the body that the headers speak of.
        if self.bodiless || !self.request_whole {
            return self.session.shutdown().await;
        }
        let idle_max = self.idle_max();
        self.session.respect_keepalive();
        if let Some(stream) = self.session.reuse().await {
            self.server.idle().park(stream, self.end.clock.moment(), idle_max);
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
