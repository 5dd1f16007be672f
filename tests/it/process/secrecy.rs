//! What is never told: canaries in every place a secret, a body or a signature can be, looked for in every output.

use std::net::SocketAddr;

use super::{genuine, get};
use crate::harness::process::{Running, TestFile};
use crate::harness::{SECRET, Upstream, request, route_yaml};

/// How a text may be spelled in an output that should not hold it.
fn spellings(text: &str) -> Vec<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let bytes = text.as_bytes();
    let mut spellings = vec![text.to_owned(), hex::encode(bytes), hex::encode_upper(bytes)];
    // Base64 has three spellings, by what stands in front. The characters that the surroundings change are left out.
    for shift in 0..3 {
        let shifted = [&[0; 2][..shift], bytes].concat();
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            let first = [0, 2, 3][shift];
            spellings.push(text[first..text.len() - 2].to_owned());
        }
    }
    spellings.push(bytes.iter().map(|b| format!("%{b:02x}")).collect());
    spellings.push(bytes.iter().map(|b| format!("%{b:02X}")).collect());
    // As Debug prints bytes.
    spellings.push(format!("{bytes:?}").trim_matches(['[', ']']).to_owned());
    spellings
}

const BODY: &str = "canary-of-the-body";
const HEADER: &str = "canary-of-a-header";
const QUERY: &str = "canary-of-the-query";
const ANSWER: &str = "canary-of-the-answer";
/// Secrets by where they come from, and one that is configured nowhere.
const SECRETS: [&str; 4] = [
    "canary-secret-of-the-file",
    "canary-secret-of-env",
    "canary-secret-value",
    "canary-secret-foreign",
];
/// A secret that a mistaken edit puts where none belongs.
const MISPLACED: &str = "canary-secret-misplaced";

/// Two routes with all secrets, and a pass-through.
fn telltale_yaml(upstream: SocketAddr, secret_file: &str, level: &str) -> String {
    let secrets = format!(
        "[{{ file: \"{secret_file}\" }}, {{ env: CANARY }}, {{ value: {} }}]",
        SECRETS[2]
    );
    let github = route_yaml(upstream, "").replace(&format!("[{{ value: {SECRET} }}]"), &secrets);
    let stripe = "  - name: stripe\n    path: /webhooks/stripe\n    provider: stripe\n    upstream: app\n    secrets: ";
    format!("{github}{stripe}{secrets}\npassthrough: app\nlog: {{ level: {level}, format: json }}\n")
}

/// Requests of every kind, and the signatures in them.
fn telltale_requests() -> (Vec<Vec<u8>>, Vec<String>) {
    let more = format!("Authorization: Bearer {HEADER}\r\nCookie: {HEADER}\r\n");
    let mut requests = Vec::new();
    for secret in SECRETS {
        let body = format!("{{\"id\":\"{secret}\",\"text\":\"{BODY}\"}}").replace("canary-secret", "event");
        requests.push(genuine(
            "github",
            secret,
            &format!("/webhooks/github?token={QUERY}"),
            &more,
            body.as_bytes(),
        ));
        requests.push(genuine("stripe", secret, "/webhooks/stripe", &more, body.as_bytes()));
    }
    let mut signatures = Vec::new();
    for request in &requests {
        let text = String::from_utf8_lossy(request);
        let (_, signature) = text.split_once("sha256=").or(text.split_once("v1=")).unwrap();
        signatures.push(signature[..64].to_owned());
    }
    let length = BODY.len();
    let rest = format!("Host: a\r\n{more}Content-Length: {length}\r\n\r\n{BODY}");
    requests
        .push(format!("POST /webhooks/github HTTP/1.1\r\nX-Hub-Signature-256: sha1={HEADER}\r\n{rest}").into_bytes());
    // Passed through, to an upstream that answers strangely.
    requests.push(format!("POST /app?token={QUERY} HTTP/1.1\r\n{rest}").into_bytes());
    requests.push(format!("POST /app?token={QUERY} HTTP/1.1\r\n{rest}").into_bytes());
    requests.push(format!("POST /app?token={QUERY} HTTP/1.1\r\n{HEADER} : x\r\n{rest}").into_bytes());
    (requests, signatures)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_secrets_nor_bodies_nor_signatures_are_told() {
    // Logs and metrics are read by more people than may forge events, and kept for longer than secrets live.
    let secret_file = TestFile::new("secret", SECRETS[0]);
    let (requests, signatures) = telltale_requests();
    for level in ["info", "debug", "trace"] {
        let upstream = Upstream::answering(|n, _| match n {
            0 => format!("HTTP/1.1 200 OK\r\nX-Token: {ANSWER}\r\nContent-Length: 20\r\n\r\n{ANSWER}").into_bytes(),
            // The third event, and the first request that is passed through.
            2 | 6 => format!("no HTTP but {ANSWER}\r\n\r\n").into_bytes(),
            _ => Vec::new(),
        })
        .await;
        let yaml = telltale_yaml(upstream.address, secret_file.name(), level);
        let mut gateway = Running::start_with(&yaml, &[], &[("CANARY", SECRETS[1])]).await;
        let mut statuses = Vec::new();
        for bytes in &requests {
            statuses.push(request(gateway.address, bytes).await.status);
        }
        assert_eq!(
            statuses,
            [200, 502, 502, 502, 502, 502, 401, 401, 401, 502, 502, 400],
            "{}",
            gateway.process.said()
        );
        let mistakes = format!("[{MISPLACED}, {{ value: [{MISPLACED}] }}, {{ {MISPLACED}: 1 }}, {{ flie:");
        gateway.rewrite(&yaml.replace("[{ file:", &mistakes));
        gateway.process.signal("HUP").await;
        gateway.process.stderr.has("not reloaded").await;
        let metrics = get(gateway.admin, "/metrics").await.text().to_owned();
        gateway.process.signal("TERM").await;
        assert_eq!(gateway.process.end().await, Some(0));
        let told = gateway.process.said() + &metrics;
        assert!(told.contains("\"event_id\":\"event-of-the-file\""), "{told}");
        let words = [BODY, HEADER, QUERY, ANSWER, MISPLACED].into_iter().chain(SECRETS);
        for canary in words.chain(signatures.iter().map(String::as_str)) {
            absent(canary, &told, level);
        }
    }
}

/// Fails when `told` has `canary` in any spelling, whatever the case of its letters.
pub(super) fn absent(canary: &str, told: &str, level: &str) {
    let told = told.to_lowercase();
    for spelling in spellings(canary) {
        if let Some(at) = told.find(&spelling.to_lowercase()) {
            let line = told[..at].rfind('\n').map_or(0, |end| end + 1);
            let line = told[line..].lines().next().unwrap();
            panic!("at level {level}, {canary:?} as {spelling:?} in {line}");
        }
    }
}
