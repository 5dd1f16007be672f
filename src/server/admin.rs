//! The operators' side: `/metrics`, `/healthz`, `/readyz` and `/api/`, on a listener of their own that is never the
//! public one.
//!
//! Healthy means that the process answers. Ready means that it wants traffic: false from the moment it drains, so
//! that a load balancer stops sending before the listeners close, and false when the queue's disk has failed, which
//! only a restart mends. The API asks for a secret; the rest does not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::json;

use super::api;
use super::desk::Desk;
use crate::gateway::{Guard, Shared};
use crate::observe::metrics::{self, Waiting};
use crate::queue::{BreakerState, Count, Health, Worker};

/// The application behind the admin listener.
pub(crate) struct Admin {
    pub(crate) guard: Arc<Guard>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let path = request.uri.path();
        if path.starts_with("/api/") {
            return self.api(session).await;
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        let shared = self.guard.shared();
        match path {
            "/metrics" => {
                show_queue(shared).await;
                respond(
                    StatusCode::OK,
                    metrics::CONTENT_TYPE,
                    shared.metrics().text().into_bytes(),
                )
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if shared.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/readyz" if queue_closed(shared) => text(StatusCode::SERVICE_UNAVAILABLE, "queue closed\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "/metrics /healthz /readyz /api/\n"),
        }
    }
}

impl Admin {
    async fn api(&self, session: &ServerSession) -> Response<Vec<u8>> {
        let (request, shared) = (session.req_header(), self.guard.shared());
        let rules = self.guard.rules();
        let (Some(worker), false) = (shared.worker(), rules.operators().is_empty()) else {
            let words = "the API needs `api.secrets` and `data`";
            return api::respond((StatusCode::NOT_FOUND, json!({ "error": words })));
        };
        if !api::may_ask(&request.headers, rules.operators(), shared.clock().wall()) {
            return api::respond((StatusCode::UNAUTHORIZED, json!({ "error": "unauthorized" })));
        }
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let desk = Desk {
            queue: worker.queue(),
            worker: Some(worker),
            clock: shared.clock(),
        };
        api::respond(desk.answer(&request.method, target).await)
    }
}

fn queue_closed(shared: &Shared) -> bool {
    shared
        .worker()
        .is_some_and(|worker| worker.queue().health() == Health::Closed)
}

/// Asks the queue and the worker what the metrics are to show.
async fn show_queue(shared: &Shared) {
    let Some(worker) = shared.worker() else { return };
    let metrics = shared.metrics();
    let now = shared.clock().steady();
    let waiting = |count: Count| Waiting {
        route: count.lane.route.to_string(),
        destination: count.lane.destination.to_string(),
        state: count.state.as_str(),
        deliveries: count.deliveries,
        oldest: count
            .oldest
            .map(|oldest| Duration::from_millis(now.0.saturating_sub(oldest.0))),
    };
    // A queue that cannot count shows nothing rather than what was.
    let counts = worker.queue().counts().await.unwrap_or_default();
    let waiting: Vec<Waiting> = counts.into_iter().map(waiting).collect();
    metrics.show_queue(&waiting, worker.queue().health() == Health::Open);
    show_worker(worker, metrics);
}

fn show_worker(worker: &Worker, metrics: &metrics::Metrics) {
    for (upstream, state) in worker.breakers() {
        let state = match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        metrics.show_breaker(&upstream, state);
    }
    for (route, paused) in worker.routes() {
        metrics.show_paused(&route, paused);
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
