//! The gateway as Pingora's proxy sees it: the rest of the application, if it is passed through, is Pingora's ordinary
//! streaming proxy. Webhooks need no proxy around them and are handed to the guard by `ingress` and `http2`; the guard is
//! asked here once more, since it may have new rules by now.
//!
//! What the gateway says about a request must not be forgeable through the pass-through either, so its own header
//! names are removed here as well, and the client's address is written by us. An answer that breaks off is cut off:
//! nothing is written behind the part of it that went out, so that no part looks whole.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderName, StatusCode, Version, header};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::handshake;
use crate::gateway::{Guard, Handled, Passage, Reason, Request, Trail, host};
use crate::observe::metrics::Attempt;
use crate::upstream::{Candidate, Nominated, SendError, Tries, Turn, forwarded, is_ours};

/// The proxy application.
pub(crate) struct Gateway {
    pub(crate) guard: Arc<Guard>,
}

/// What a request carries through Pingora's phases.
pub(crate) struct Context {
    trail: Option<Trail>,
    /// The head as it was received.
    request: Option<Request>,
    pass: Option<Pass>,
}

/// A request on its way through to the application, and the servers it tries.
struct Pass {
    passage: Passage,
    turn: Turn,
    /// The one that a connection is made to, or was made to.
    asked: Option<Candidate>,
    tries: Tries,
    /// The status of its answer.
    answered: Option<StatusCode>,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let shared = self.guard.shared();
        Context {
            trail: Some(Trail::new(shared.clock())),
            request: None,
            pass: None,
        }
    }

    /// None: the default allocates a compression module for every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let Some(trail) = ctx.trail.as_mut() else {
            return Error::e_explain(ErrorType::InternalError, "a request without a trail");
        };
        let request = &*ctx.request.insert(Request::of_parts(session.req_header()));
        let rules = self.guard.rules();
        match self
            .guard
            .handle(&rules, request, session.as_downstream_mut(), trail)
            .await
        {
            Handled::Answered => Ok(true),
            Handled::Passthrough(passage) => {
                ctx.pass = Some(Pass {
                    turn: passage.upstream.turn(),
                    passage,
                    asked: None,
                    tries: Tries::default(),
                    answered: None,
                });
                Ok(false)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let down = || Error::explain(ErrorType::ConnectError, "no server of the upstream is left to try").into_up();
        let pass = ctx.pass.as_mut().ok_or_else(down)?;
        let now = self.guard.shared().clock().moment();
        // Asked again although there was a connection: a kept one had ended while it lay idle, and what was asked may
        // be asked twice. The server is as good as before.
        let server = pass.asked.take().or_else(|| pass.turn.next(now)).ok_or_else(down)?;
        pass.tries.note(server.address());
        let mut peer = server.peer().clone();
        let request = session.req_header();
        if handshake::is_one(request) {
            handshake::prepare(&mut peer);
        } else if !streams_events(request) {
            let timeout = pass.passage.upstream.settings().timeout;
            peer.options.read_timeout = Some(timeout);
            peer.options.write_timeout = Some(timeout);
        }
        pass.asked = Some(server);
        Ok(Box::new(peer))
    }

    /// A connection that could not be made carried nothing: the next server may be tried, whatever the method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut e: Box<Error>,
    ) -> Box<Error> {
        if let Some(Pass { passage, asked, .. }) = &mut ctx.pass
            && let Some(server) = asked.take()
        {
            passage.upstream.failed(&server);
            e.set_retry(true);
        }
        e
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let Some(Pass { passage, .. }) = &ctx.pass else {
            return Ok(());
        };
        let ours = request.headers.keys().filter(|name| is_ours(name, passage.sender));
        let ours: Vec<HeaderName> = ours.cloned().collect();
        for name in &ours {
            request.remove_header(name);
        }
        let received = session.req_header();
        for (name, value) in forwarded(&received.headers, passage.sender, host(received)) {
            request.insert_header(name, &*value)?;
        }
        if let Some(host) = passage.upstream.host(host(received)) {
            request.insert_header(header::HOST, &*host)?;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !session.as_downstream().is_upgrade_req() {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "protocols switched unasked")
                .map_err(Error::into_up);
        }
        if let Some(pass) = &mut ctx.pass
            && (switches || !answer.status.is_informational())
        {
            pass.answered = Some(answer.status);
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, _: &mut Context) -> Result<()> {
        for name in for_one_hop(answer) {
            answer.remove_header(&name);
        }
        // Pingora sends chunks to whoever asks; HTTP/1.0 would take the sizes for the body. Without them, the answer
        // ends with the connection.
        if session.req_header().version == Version::HTTP_10 {
            answer.remove_header(&header::TRANSFER_ENCODING);
        }
        // What was passed through before the drain began is answered with a farewell, too.
        if self.guard.shared().is_draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
        let reason = reason(e);
        let begun = session
            .response_written()
            .is_some_and(|head| !head.status.is_informational());
        let downstream = session.as_downstream_mut();
        match (reason, ctx.trail.as_mut(), &ctx.request) {
            (Some(reason), Some(trail), Some(request)) if !begun => {
                self.guard.refuse(request, downstream, reason, trail).await;
            }
            _ => downstream.shutdown().await,
        }
        FailToProxy {
            error_code: reason.map_or(0, |reason| reason.row().status),
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Context) {
        let Some(mut trail) = ctx.trail.take() else { return };
        if let Some(pass) = &ctx.pass {
            pass.count(e);
            trail.tried(pass.tries);
            if !trail.is_refused() {
                let answered = session.response_written().map(|head| head.status.as_u16());
                let (bytes_in, bytes_out) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
                trail.passed(answered, !e.is_some_and(is_upstreams), bytes_in, bytes_out);
            }
        }
        trail.close(self.guard.shared(), ctx.request.as_ref());
    }

    /// Said in the access log already.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }
}

impl Pass {
    /// Counts the last attempt; those whose connection could not be made were counted one by one.
    fn count(&self, e: Option<&Error>) {
        if self.asked.is_none() {
            return;
        }
        let metrics = self.passage.upstream.metrics();
        let problem = e.filter(|e| is_upstreams(e)).and_then(|e| SendError::of(e).attempt());
        metrics.attempted(problem.unwrap_or(Attempt::Ok));
        if let Some(status) = self.answered {
            metrics.answered(status.as_u16());
        }
    }
}

/// Whether the upstream is to blame.
fn is_upstreams(e: &Error) -> bool {
    *e.esource() == ErrorSource::Upstream
}

/// Why there is no answer; `None` when there is nobody to tell.
fn reason(e: &Error) -> Option<Reason> {
    match (e.esource(), e.etype()) {
        (ErrorSource::Upstream, _) => match SendError::of(e) {
            SendError::Timeout => Some(Reason::UpstreamTimeout),
            _ => Some(Reason::UpstreamDown),
        },
        (
            ErrorSource::Downstream,
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::WriteTimedout | ErrorType::ConnectionClosed,
        ) => None,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Reason::BodyTooSlow),
        (ErrorSource::Downstream, _) => Some(Reason::BadFraming),
        _ => {
            log::error!("passing a request through: {e}");
            None
        }
    }
}

/// What the upstream said to its neighbour alone and Pingora leaves in an answer. What frames it, and a handshake, are
/// Pingora's to judge.
fn for_one_hop(answer: &ResponseHeader) -> Vec<HeaderName> {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return Vec::new();
    }
    let nominated = Nominated::of(&answer.headers);
    let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE];
    let names = answer.headers.keys().filter(|name| match name.as_str() {
        "keep-alive" | "proxy-connection" => true,
        _ => nominated.contains(name) && !framing.contains(name),
    });
    names.cloned().collect()
}

/// Whether the client asked for events from the server: like a tunnel, an exchange in which nothing may be said for as
/// long as there is nothing to say.
fn streams_events(request: &RequestHeader) -> bool {
    let accepted = request.headers.get_all(header::ACCEPT).into_iter();
    let mut accepted = accepted.flat_map(|value| value.as_bytes().split(|b| *b == b',' || *b == b';'));
    accepted.any(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}
