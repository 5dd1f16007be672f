//! One exchange with one server: connect or take a pooled connection, write the request, read the answer.
//!
//! HTTP/1.1 over TCP, or over TLS by Pingora's connector; the request is bytes of our own making in one vectored write.

use std::io::IoSlice;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::answer::{Answer, Body, End};
use super::pick::Candidate;
use super::wire::Wire;
use super::{Request, SendError, Tries, Upstream};
use crate::clock::Moment;
use crate::observe::metrics::Attempt;

impl Upstream {
    pub(super) async fn exchange(
        &self,
        request: &Request,
        started: Moment,
        tries: &mut Tries,
    ) -> Result<Answer, SendError> {
        let (mut wire, server) = self.connect(started, tries).await?;
        let written = write_all(&mut wire, &request.head, &request.rest).await;
        let (head, body) = match (&written, Body::begin(wire, request, written.is_ok()).await) {
            (_, Ok(answer)) => answer,
            (Ok(()), Err(problem)) => return Err(problem),
            (Err(first), Err(_)) => return Err(SendError::Broken(first.to_string())),
        };
        self.metrics.answered(head.status.as_u16());
        Ok(Answer {
            head,
            body,
            server,
            deadline: started.plus(self.settings.timeout),
            idle_timeout: self.settings.idle_timeout,
            end: End {
                metrics: Arc::clone(&self.metrics),
                clock: self.clock.clone(),
                started,
                attempt: Attempt::Ok,
            },
        })
    }

    /// A connection to the first server in turn that has one to give. Nothing is sent yet, so trying the next is safe.
    async fn connect(&self, started: Moment, tries: &mut Tries) -> Result<(Wire, Candidate), SendError> {
        let mut turn = self.servers.turn();
        let mut now = started;
        loop {
            let server = turn.next(now).ok_or(SendError::Unreachable)?;
            tries.note(server.address());
            if let Some(wire) = server.idle().take(now) {
                return Ok((wire, server));
            }
            // Boxed: connecting is rare and its future is large.
            match Box::pin(self.open(&server)).await {
                Ok(wire) => return Ok((wire, server)),
                Err(refused) => {
                    log::debug!("upstream {}: {}: {refused}", self.name(), server.address());
                    self.failed(&server);
                }
            }
            now = self.clock.moment();
        }
    }

    async fn open(&self, server: &Candidate) -> Result<Wire, String> {
        if server.speaks_tls() {
            let stream = self.connector.0.new_stream(server.peer()).await;
            return stream.map(Wire::Tls).map_err(|problem| problem.to_string());
        }
        let opening = TcpStream::connect(server.address());
        let stream = pingora_timeout::timeout(self.settings.connect_timeout, opening).await;
        let stream = stream.map_err(|_| "no connection in time".to_owned())?;
        let stream = stream.map_err(|problem| problem.to_string())?;
        // Fails on connections that are gone already, which the first write will tell.
        let _ = stream.set_nodelay(true);
        Ok(Wire::Tcp(stream))
    }
}

/// Head and body in one system call where the kernel takes them whole.
async fn write_all(wire: &mut Wire, mut head: &[u8], mut body: &[u8]) -> std::io::Result<()> {
    while !head.is_empty() {
        let written = wire.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        let of_head = written.min(head.len());
        head = head.get(of_head..).unwrap_or_default();
        body = body.get(written.saturating_sub(of_head)..).unwrap_or_default();
    }
    wire.write_all(body).await?;
    wire.flush().await
}
