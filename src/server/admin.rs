//! The operators' side: `/metrics`, `/healthz`, `/readyz`, on a listener of their own that is never the public one.
//!
//! Healthy means that the process answers. Ready means that it wants traffic: false from the moment it drains, so
//! that a load balancer stops sending before the listeners close.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use crate::gateway::Shared;
use crate::observe::metrics;

/// The application behind the admin listener.
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        if request.method != Method::GET && request.method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        match request.uri.path() {
            "/metrics" => respond(
                StatusCode::OK,
                metrics::CONTENT_TYPE,
                self.shared.metrics().text().into_bytes(),
            ),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.shared.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "/metrics /healthz /readyz\n"),
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}
