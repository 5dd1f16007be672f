//! A backend to try the gateway with: prints each event it gets and answers 200.
//!
//! It listens on a loopback port of its own and is reached like any other upstream, so what it shows is what a real
//! backend would get.

use std::io::Write;

use async_trait::async_trait;
use http::{Response, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

/// Bytes of a body that are shown.
const SHOWN_BYTES: usize = 200;

/// The application behind the sample's listener.
pub(crate) struct Sample;

#[async_trait]
impl ServeHttp for Sample {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let mut body = Vec::new();
        while let Ok(Some(piece)) = session.read_request_body().await {
            body.extend_from_slice(&piece);
        }
        let request = session.req_header();
        let said = |name: &str| {
            let value = request.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("-").to_owned()
        };
        let line = format!(
            "sample backend: {} {} route={} provider={} {} type={} id={} {} bytes: {}\n",
            request.method,
            request.uri.path(),
            said("x-hookward-route"),
            said("x-hookward-provider"),
            said("x-hookward-verified"),
            said("x-hookward-event-type"),
            said("x-hookward-event-id"),
            body.len(),
            shown(&body),
        );
        // Somebody who closed standard output still wants the answer.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
        let mut response = Response::new(b"ok\n".to_vec());
        response.headers_mut().insert(header::CONTENT_LENGTH, 3.into());
        response
    }
}

/// The beginning of a body, with everything that could steer a terminal escaped.
fn shown(body: &[u8]) -> String {
    let start = body.get(..SHOWN_BYTES).unwrap_or(body);
    let mut text = String::from_utf8_lossy(start)
        .escape_debug()
        .to_string()
        .replace("\\\"", "\"");
    if body.len() > SHOWN_BYTES {
        text.push('…');
    }
    text
}
