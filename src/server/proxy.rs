//! The gateway as Pingora's proxy sees it: the rest of the application, if it is passed through, is Pingora's ordinary
//! streaming proxy. HTTP/2 comes in here as well, so webhooks are handled by the guard inside `request_filter`; those
//! of HTTP/1 need no proxy around them and are handed to the guard by `ingress`.
//!
//! What the gateway says about a request must not be forgeable through the pass-through either, so its own header
//! names are removed here as well, and the client's address is written by us.

use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderName;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::gateway::{Active, Guard, Handled, Passage, Reason, Trail, host};
use crate::upstream::{Candidate, Tries, Turn, forwarded, is_ours};

/// The proxy application.
pub(crate) struct Gateway {
    pub(crate) guard: Arc<Guard>,
}

/// What a request carries through Pingora's phases.
pub(crate) struct Context {
    trail: Option<Trail>,
    pass: Option<Pass>,
    /// Over HTTP/1 the request is counted by `ingress`, from its first byte.
    active: Option<Active>,
}

/// A request on its way through to the application, and the servers it tries.
struct Pass {
    passage: Passage,
    turn: Turn,
    asked: Option<Candidate>,
    tries: Tries,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let shared = self.guard.shared();
        Context {
            trail: Some(Trail::new(shared.clock())),
            pass: None,
            active: None,
        }
    }

    /// None: the default allocates a compression module for every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if session.is_http2() {
            ctx.active = Some(self.guard.shared().enter());
        }
        let Some(trail) = ctx.trail.as_mut() else {
            return Error::e_explain(ErrorType::InternalError, "a request without a trail");
        };
        match self
            .guard
            .handle(&self.guard.rules(), session.as_downstream_mut(), trail)
            .await
        {
            Handled::Answered => Ok(true),
            Handled::Passthrough(passage) => {
                ctx.pass = Some(Pass {
                    turn: passage.upstream.turn(),
                    passage,
                    asked: None,
                    tries: Tries::default(),
                });
                Ok(false)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let down = || Error::explain(ErrorType::ConnectError, "no server of the upstream is left to try").into_up();
        let pass = ctx.pass.as_mut().ok_or_else(down)?;
        let server = pass.turn.next(self.guard.shared().clock().moment()).ok_or_else(down)?;
        let peer = server.peer().clone();
        pass.tries.note(server.address());
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
            request.insert_header(name, value)?;
        }
        Ok(())
    }

    /// What was passed through before the drain began is answered with a farewell, too.
    async fn response_filter(
        &self,
        session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut Context,
    ) -> Result<()> {
        if self.guard.shared().is_draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
        let reason = match (e.esource(), e.etype()) {
            (
                ErrorSource::Upstream,
                ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout,
            ) => Some(Reason::UpstreamTimeout),
            (ErrorSource::Upstream, _) => Some(Reason::UpstreamDown),
            // The sender is gone, or spoke out of turn; there is nobody to tell.
            _ => None,
        };
        if let (Some(reason), Some(trail)) = (reason, ctx.trail.as_mut()) {
            self.guard.refuse(session.as_downstream_mut(), reason, trail).await;
        }
        FailToProxy {
            error_code: reason.map_or(0, |reason| reason.row().status),
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _e: Option<&Error>, ctx: &mut Context) {
        let Some(mut trail) = ctx.trail.take() else { return };
        if let Some(pass) = &ctx.pass {
            trail.tried(pass.tries);
        }
        if ctx.pass.is_some() && !trail.is_refused() {
            let status = session.response_written().map(|head| head.status.as_u16());
            let (bytes_in, bytes_out) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
            trail.passed(status, bytes_in, bytes_out);
        }
        trail.close(self.guard.shared(), Some(session.req_header()));
    }

    /// Said in the access log already.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }
}
