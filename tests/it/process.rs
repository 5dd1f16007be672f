//! The program itself, as a process: what it says, how it ends, what it obeys, and what it never tells.

mod canaries;
mod commands;
mod disk;
mod events;
mod explain;
mod hono;
mod kills;
mod operators;
mod orderly;
mod ratios;
mod run;
mod secrecy;
mod secrets;
mod signals;
mod stopped;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use hookward::clock::Clock;
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature;

use crate::harness::process::Running;
use crate::harness::{Answer, SECRET, request};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The secrets of `conf/quickstart.yaml`, by route and provider.
const QUICKSTART: [(&str, &str, &str); 5] = [
    ("/webhooks/github", "github", "demo-secret-github-do-not-use"),
    ("/webhooks/stripe", "stripe", "whsec_demo_secret_stripe_do_not_use"),
    ("/webhooks/slack", "slack", "demo-secret-slack-do-not-use"),
    ("/webhooks/shopify", "shopify", "demo-secret-shopify-do-not-use"),
    (
        "/webhooks/standard",
        "standard-webhooks",
        "whsec_ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u",
    ),
];

/// The quickstart as it is shipped, on free ports.
async fn quickstart() -> Running {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/quickstart.yaml");
    let text = std::fs::read_to_string(shipped).unwrap();
    let own = |line: &&str| !line.starts_with("listen:") && !line.starts_with("admin:");
    let lines: Vec<_> = text.lines().filter(own).collect();
    assert_eq!(lines.len() + 2, text.lines().count());
    Running::start(&lines.join("\n")).await
}

/// A genuine event of this moment, as bytes on the wire.
fn genuine(provider: &str, secret: &str, path: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let scheme = builtin().find(provider).unwrap().scheme.clone();
    let secret = Secret::new(secret).unwrap();
    let signed = signature::sign(&scheme, &secret, "msg_1", Clock::system().wall(), body).unwrap();
    let signed: String = signed
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: gateway.test\r\n{signed}{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A genuine event for the route of [`route_yaml`].
fn github(body: &[u8]) -> Vec<u8> {
    genuine("github", SECRET, "/webhooks/github", "", body)
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n");
    request(address, bytes.as_bytes()).await
}

/// Asks again until the answer is as wanted.
async fn until_answered(address: SocketAddr, path: &str, status: u16) {
    let asking = async {
        while get(address, path).await.status != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    answered.unwrap_or_else(|_| panic!("{path} never answered {status}"));
}
