//! Vendors as senders: what their own published code signs is accepted, and nothing else is.
//!
//! `tests/vendors/` has the scripts and the pinned versions; `make test` installs them beside the build.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;

use crate::harness::process::complete;
use crate::harness::{Client, Gateway, NOW, Upstream};

/// Headers as a vendor's code made them.
type Headers = serde_json::Map<String, serde_json::Value>;

const TEXT_SECRET: &str = "an-example-of-a-secret";
const WHSEC_SECRET: &str = "whsec_ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u";

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_signs_is_accepted() {
    // Every payment of a customer would be refused, and the vendor's documentation would be right.
    check("stripe", WHSEC_SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slack_signs_is_accepted() {
    // Slack turns an application's events off when too many are refused.
    check("slack", TEXT_SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_standard_webhooks_signs_is_accepted() {
    // Dozens of senders use this very code.
    check("standard-webhooks", WHSEC_SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_github_signs_is_accepted() {
    // Deployments that start on a push would not start.
    check("github", TEXT_SECRET).await;
}

/// Sends each body as signed, and once more with one bit changed.
async fn check(provider: &str, secret: &str) {
    let bodies = bodies();
    let signed = sign(provider, secret, &bodies).await;
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         routes:\n  - {{ name: vendor, path: /in, provider: {provider}, secrets: [{{ value: {secret} }}], upstream: app }}\n",
        upstream.address
    ))
    .await;
    let mut client = Client::connect(gateway.address).await;
    for (headers, body) in signed.iter().zip(&bodies) {
        let mut changed = body.clone();
        changed[body.len() / 2] ^= 1;
        client.send(&request(headers, &changed)).await;
        let refused = client.answer().await;
        assert_eq!((refused.status, refused.text()), (401, "unauthorized\n"), "{headers:?}");
        client.send(&request(headers, body)).await;
        let accepted = client.answer().await;
        assert_eq!((accepted.status, accepted.text()), (200, "ok"), "{headers:?}");
    }
    let arrived: Vec<_> = upstream.seen().into_iter().map(|event| event.body).collect();
    assert!(
        arrived == bodies,
        "{} of {} bodies arrived as they were signed",
        arrived.len(),
        bodies.len()
    );
}

/// What is easily spoilt on its way through text and JSON. All of it is UTF-8: vendors' code signs text.
fn bodies() -> Vec<Vec<u8>> {
    let controls: String = (0_u8..=0x7f).map(char::from).collect();
    let pad = "x".repeat(100 * 1024);
    let texts = [
        "{}".to_owned(),
        " ".to_owned(),
        "{ \"a\" : 1.0 ,\r\n\t\"a\":1e400 }\n".to_owned(),
        "{\"name\":\"naïve 日本語 🦀 \u{202e}\u{feff}\u{e000}\u{10ffff}\",\"e\\u0301\":\"é\"}".to_owned(),
        "\u{feff}{\"id\":\"\\ud83e\\udd80\"}".to_owned(),
        format!("{controls}\u{80}\u{fffd}\0"),
        "payload=%7B%22a%22%3A1%7D&b=+%2B&c=".to_owned(),
        format!("{{\"id\":\"large\",\"pad\":\"{pad}\"}}"),
    ];
    texts.map(String::into_bytes).to_vec()
}

fn request(headers: &Headers, body: &[u8]) -> Vec<u8> {
    let mut head = "POST /in HTTP/1.1\r\nHost: gateway.test\r\n".to_owned();
    for (name, value) in headers {
        head += &format!("{name}: {}\r\n", value.as_str().unwrap());
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Has a vendor's code sign each body, at the time the gateways' clock shows.
async fn sign(provider: &str, secret: &str, bodies: &[Vec<u8>]) -> Vec<Headers> {
    let timestamp = (NOW.0 / 1000).to_string();
    let command = match provider {
        "github" => {
            let mut node = Command::new("node");
            // A module that is given as text looks for others from where it runs.
            node.current_dir(installed("node_modules").parent().unwrap());
            node.args(["--input-type=module", "-e", include_str!("../vendors/sign.mjs"), secret]);
            node
        }
        _ => {
            let mut python = Command::new(installed("python/bin/python"));
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vendors/sign.py");
            python.args([script, provider, secret, &timestamp]);
            python
        }
    };
    let lines: String = bodies.iter().map(|body| STANDARD.encode(body) + "\n").collect();
    let ended = complete(command, lines.as_bytes()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let signed: Vec<Headers> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(signed.len(), bodies.len());
    signed
}

/// What `make test` installs, beside the directory that Cargo gives to tests.
fn installed(what: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("vendors")
        .join(what);
    assert!(path.exists(), "{} is missing: `make test` installs it", path.display());
    path
}
