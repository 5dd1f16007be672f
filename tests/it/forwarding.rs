//! What the backend gets, what comes back, and what happens when a backend is slow, broken or away.
//!
//! Every test stands on the same sentence: the sender's bytes arrive once or not at all, and an answer that looks
//! whole is whole. The access log and the metrics must tell the same story as the wire.

mod answers;
mod broken;
mod challenge;
pub mod heads;
mod own_tls;
mod servers;
mod times;
mod tls;

use std::net::SocketAddr;

use crate::harness::{SECRET, sign_github};

/// One GitHub route, repeats let through, to an upstream given as the inside of its mapping.
fn config(upstream: &str) -> String {
    format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
         upstreams: {{ app: {{ {upstream} }} }}\n\
         routes:\n  - name: github\n    path: /webhooks/github\n    provider: github\n    \
         secrets: [{{ value: {SECRET} }}]\n    upstream: app\n    replay: off\n    \
         limits: {{ rate: 100000/s, burst: 100000, body: 16MiB }}\n"
    )
}

/// The `servers` of an upstream.
fn servers(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("servers: [{}]", addresses.join(", "))
}

/// A genuine event with more header lines, each ending in CRLF.
fn event(lines: &str) -> Vec<u8> {
    request_with("POST /webhooks/github HTTP/1.1\r\nHost: gateway.test", lines, b"{}")
}

/// A genuine event; `start` is the request line and what goes first.
fn request_with(start: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{start}\r\n{lines}X-GitHub-Event: push\r\nX-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        sign_github(body),
        body.len()
    );
    [head.as_bytes(), body].concat()
}
