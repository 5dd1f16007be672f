//! Random requests: those that are no event never reach the upstream, those that are arrive in the gateway's own words.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::dice::{Dice, amount};
use crate::harness::{Client, Gateway, Recorded, Upstream, bare, route_yaml, sign_github};

/// Connections at a time.
const CLIENTS: usize = 6;

/// Runs `play` on as many clients as there are, each with its dice and its share of `count`.
async fn on_all<F, P>(count: usize, play: F)
where
    F: Fn(Dice, std::ops::Range<usize>) -> P,
    P: Future<Output = ()> + Send + 'static,
{
    let mut clients = JoinSet::new();
    let share = count.div_ceil(CLIENTS);
    for client in 0..CLIENTS {
        let (from, to) = (client * share, count.min((client + 1) * share));
        clients.spawn(play(Dice::new(client as u64 + 1), from..to));
    }
    clients.join_all().await;
}

/// Header lines that must not travel, or not as they are.
const FOR_ONE_HOP: &[&str] = &[
    "Connection: keep-alive",
    "Connection: x-nominated",
    "connection: X-Nominated, te, keep-alive",
    "Connection: content-length",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic eDp5",
    "TE: trailers",
    "TE: gzip;q=0.5, trailers",
    "Trailer: X-Checksum",
    "HTTP2-Settings: AAMAAABkAAQAAP__",
    "Expect: 100-continue",
    "Expect: nothing",
    "X-Hookward-Verified: verified",
    "X_Hookward_Route: other",
    "X-Forwarded-For: 192.0.2.1",
    "Forwarded: for=192.0.2.1",
];

/// Header lines that must.
const TRAVELLING: &[&str] = &[
    "Accept: */*",
    "User-Agent: GitHub-Hookshot/1",
    "X-Empty:",
    "X-Tab: a\tb",
    "Cookie: a=1; b=\"2\"",
    "X-Request: GET /page HTTP/1.1",
    "X-Content-Length: 5",
    "Content-Type: application/json",
];

/// A genuine event that nobody would write like that.
fn odd_event(dice: &mut Dice, id: usize, body: &[u8]) -> Vec<u8> {
    let mut lines = vec![
        format!("X-Id: {id}"),
        "x-github-event: push".to_owned(),
        format!(
            "X-HUB-Signature-256:{}{}",
            dice.of(&["", " ", "\t "]),
            sign_github(body)
        ),
    ];
    let mut nominated = false;
    for _ in 0..dice.below(6) {
        let line = dice.of(FOR_ONE_HOP);
        nominated |=
            line.to_ascii_lowercase().starts_with("connection:") && line.to_ascii_lowercase().contains("nominated");
        lines.push(line.to_owned());
    }
    if nominated {
        lines.push("X-Nominated: 1".to_owned());
    }
    let travelling = &TRAVELLING[dice.below(TRAVELLING.len())..];
    lines.extend(travelling.iter().take(dice.below(4)).map(|line| (*line).to_owned()));
    let chunked = dice.once_in(2);
    match chunked {
        true => lines.push(
            dice.of(&[
                "Transfer-Encoding: chunked",
                "transfer-encoding:CHUNKED",
                "Transfer-Encoding:\tchunked ",
            ])
            .to_owned(),
        ),
        false => lines.push(format!(
            "{}: {}{}",
            dice.of(&["Content-Length", "content-length", "CONTENT-LENGTH"]),
            dice.of(&["", "0", "000"]),
            body.len()
        )),
    }
    // In any order.
    for place in (1..lines.len()).rev() {
        lines.swap(place, dice.below(place + 1));
    }
    let query = dice.of(&["", "?a=1", "?a[]=%20&b={x}|y", "?/../x", "??"]);
    let mut head = format!(
        "POST /webhooks/github{query} HTTP/1.1\r\n{}: gateway.test\r\n",
        dice.of(&["Host", "host", "HOST"])
    );
    for line in lines {
        write!(head, "{line}\r\n").unwrap();
    }
    let mut bytes = format!("{head}\r\n").into_bytes();
    if !chunked {
        bytes.extend_from_slice(body);
        return bytes;
    }
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + dice.below(rest.len()));
        let size = match dice.below(3) {
            0 => format!("{:x}", chunk.len()),
            1 => format!("{:X}", chunk.len()),
            _ => format!("00{:x}", chunk.len()),
        };
        bytes.extend_from_slice(size.as_bytes());
        bytes.extend_from_slice(dice.of(&["", ";a", ";a=b;c=\"d\"", "; x"]).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = after;
    }
    bytes.extend_from_slice(
        dice.of(&[
            "0\r\n\r\n",
            "00;x\r\n\r\n",
            "0\r\nX-Checksum: 1\r\n\r\n",
            "0\r\nX-Hookward-Route: x\r\nCookie: x\r\n\r\n",
        ])
        .as_bytes(),
    );
    bytes
}

/// What is wrong with an event as the upstream got it.
fn misframed(seen: &Recorded, bodies: &Mutex<HashMap<String, Vec<u8>>>) -> Option<String> {
    let id = seen.header("x-id")?.to_owned();
    let Some(body) = bodies.lock().unwrap().remove(&id) else {
        return Some(format!("{id} came twice"));
    };
    let absent = [
        "transfer-encoding",
        "trailer",
        "upgrade",
        "te",
        "expect",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "http2-settings",
        "x-nominated",
        "x-checksum",
        "forwarded",
        "x_hookward_route",
    ];
    let ours = [
        "content-length",
        "host",
        "x-hookward-verified",
        "x-hookward-route",
        "x-forwarded-for",
        "x-id",
    ];
    let there: Vec<_> = absent.into_iter().filter(|name| seen.count(name) > 0).collect();
    let not_once: Vec<_> = ours.into_iter().filter(|name| seen.count(name) != 1).collect();
    let length = seen.header("content-length") == Some(&*body.len().to_string());
    let route =
        seen.header("x-hookward-route") == Some("github") && seen.header("x-forwarded-for") == Some("127.0.0.1");
    match there.is_empty() && not_once.is_empty() && length && route && seen.body == body {
        true => None,
        false => Some(format!("{there:?} {not_once:?} {}", seen.head)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_request_is_framed_anew() {
    // What a client writes about framing must die at the gateway: one leftover word, and the backend reads another body.
    let bodies: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
    let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
    let (known, found) = (Arc::clone(&bodies), Arc::clone(&wrong));
    let upstream = Upstream::answering(move |_, seen| {
        found.lock().unwrap().extend(misframed(seen, &known));
        bare(200)
    })
    .await;
    let gateway = Gateway::start(&route_yaml(
        upstream.address,
        "limits: { rate: 1000000/s, burst: 1000000 }",
    ))
    .await;
    let (address, count) = (gateway.address, amount(3000));
    on_all(count, |mut dice, ids| {
        let bodies = Arc::clone(&bodies);
        async move {
            let mut client = Client::connect(address).await;
            for id in ids {
                let mut body = format!("{{\"id\":{id}}}").into_bytes();
                body.extend((0..dice.below(1500)).map(|_| dice.below(256) as u8));
                bodies.lock().unwrap().insert(id.to_string(), body.clone());
                client.send(&odd_event(&mut dice, id, &body)).await;
                assert_eq!(client.answer().await.status, 200, "{id}");
            }
        }
    })
    .await;
    let wrong = wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} of {count}: {}", wrong.len(), wrong[0]);
    assert_eq!((bodies.lock().unwrap().len(), upstream.count()), (0, count));
    assert!(upstream.connections() <= CLIENTS * 2, "{}", upstream.connections());
}

/// A request that no route verifies.
fn stranger(dice: &mut Dice) -> Vec<u8> {
    let method = dice.of(&[
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "POSTS", "post", "PROPFIND", "M-SEARCH", "QUERY", "X",
    ]);
    let pieces = [
        "webhooks",
        "github",
        "/",
        "//",
        ".",
        "..",
        "%2f",
        "%2e",
        "%00",
        ";",
        "a",
        "index.php",
        "\\",
        "%5c",
        "?",
        "=",
        "Webhooks",
        "GITHUB",
        "%67",
        "+",
        "%20",
        "api",
        "1",
        "-",
        ".json",
        "%c0%af",
        "/webhooks/github",
        "@",
        ":",
        "*",
        "~",
        "{",
        "|",
    ];
    let mut target = dice
        .of(&["/", "/", "/webhooks/", "/webhooks/github", "/webhooks/github?", "//"])
        .to_owned();
    for _ in 0..dice.below(8) {
        target.push_str(dice.of(&pieces));
    }
    let host = dice.of(&[
        "gateway.test",
        "GATEWAY.test:80",
        "evil.test",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "a",
        "gateway.test.",
    ]);
    let body = dice.of(&[
        "",
        "{}",
        "_method=POST",
        "GET /webhooks/github HTTP/1.1\r\nHost: a\r\n\r\n",
    ]);
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n",
        body.len()
    );
    let others = [
        "X-HTTP-Method-Override: POST",
        "X-HTTP-Method: POST",
        "X-Method-Override: POST",
        "X-Original-URL: /webhooks/github",
        "X-Rewrite-URL: /webhooks/github",
        "X-Forwarded-Host: gateway.test",
        "X-Forwarded-Prefix: /webhooks",
        "X-Hookward-Verified: verified",
        "X-GitHub-Event: push",
        "Content-Type: application/x-www-form-urlencoded",
        "X-Hub-Signature-256: sha256=0000000000000000000000000000000000000000000000000000000000000000",
        "Authorization: Bearer x",
        "X-Original-Method: POST",
        "Forwarded: host=gateway.test",
    ];
    for _ in 0..dice.below(4) {
        write!(head, "{}\r\n", dice.of(&others)).unwrap();
    }
    format!("{head}\r\n{body}").into_bytes()
}

async fn is_denied(address: SocketAddr, mut dice: Dice, count: usize) {
    let mut client = Client::connect(address).await;
    for _ in 0..count {
        let request = stranger(&mut dice);
        client.send(&request).await;
        let answer = client.answer().await;
        assert!(
            (400..500).contains(&answer.status),
            "{} {}",
            answer.status,
            request.escape_ascii()
        );
        if answer.header("connection") == Some("close") {
            client = Client::connect(address).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_configured_reaches_nobody() {
    // Default deny: a method, path, host or override header that opens the way by accident opens it for everybody.
    let upstream = Upstream::unreachable().await;
    let other = "  - { name: other, path: /webhooks/other, host: other.test, provider: github, methods: [PUT], upstream: app, secrets: [{ value: another-secret-for-tests }] }\n";
    let gateway = Gateway::start(&format!("{}{other}", route_yaml(upstream.address, ""))).await;
    let (address, count) = (gateway.address, amount(12_000));
    on_all(count, |dice, range| is_denied(address, dice, range.len())).await;
    let refused = |line: &serde_json::Value| line["outcome"] == "refused";
    assert!(gateway.lines(count).await.iter().all(refused));
}
