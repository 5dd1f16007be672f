//! Requests that are refused before their end, with others in their bodies, ten thousand times.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::cases::{genuine, marker, page};
use super::dice::{Dice, amount};
use super::{echo, marked};
use crate::harness::{Client, Gateway, Upstream, route_yaml};

/// Refusals: status, request line, more lines.
const REFUSALS: &[(u16, &str, &str)] = &[
    (404, "POST /elsewhere", ""),
    (404, "GET /elsewhere", "Expect: 100-continue\r\n"),
    (401, "POST /webhooks/github", ""),
    (
        401,
        "POST /webhooks/github",
        "X-Hub-Signature-256: sha256=0000000000000000000000000000000000000000000000000000000000000000\r\n",
    ),
    (
        401,
        "POST /webhooks/github",
        "X-Hub-Signature-256: x\r\nExpect: 100-continue\r\n",
    ),
    (405, "PUT /webhooks/github", ""),
    (405, "DELETE /webhooks/github", "Expect: 100-continue\r\n"),
    (400, "POST /webhooks//github", ""),
    (413, "POST /webhooks/small", ""),
    (413, "POST /webhooks/small", "Expect: 100-continue\r\n"),
    (415, "POST /webhooks/github", "Content-Encoding: gzip\r\n"),
    (429, "POST /webhooks/github", "X-Forwarded-For: 192.0.2.1\r\n"),
    (
        429,
        "POST /webhooks/small",
        "X-Forwarded-For: 192.0.2.1\r\nExpect: 100-continue\r\n",
    ),
];

/// A refused request whose body is made of requests that would be executed if anybody took them for that.
fn refused(dice: &mut Dice, number: usize) -> (u16, Vec<u8>) {
    let (status, start, lines) = REFUSALS[dice.below(REFUSALS.len())];
    // Who is over its rate has an address of its own; everybody else has one that nobody has had.
    let client = format!(
        "X-Forwarded-For: 10.{}.{}.{}\r\n",
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255
    );
    let lines = if status == 429 {
        lines.to_owned()
    } else {
        format!("{lines}{client}")
    };
    let hidden = [genuine(&format!("g{number}")), page(&format!("p{number}"))];
    let mut body: Vec<u8> = b"\r\n".repeat(dice.below(3));
    if status == 413 {
        body.extend(hidden[0].clone());
    }
    for _ in 0..1 + dice.below(6) {
        body.extend(&hidden[dice.below(2)]);
    }
    if dice.once_in(40) {
        // More than is read away.
        body.extend(hidden[0].repeat(1500));
    }
    let chunked = dice.once_in(3);
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", body.len()),
    };
    let mut bytes = format!("{start} HTTP/1.1\r\nHost: gateway.test\r\n{lines}{framing}\r\n\r\n").into_bytes();
    if chunked {
        let (first, rest) = body.split_at(body.len() / 2);
        for piece in [first, rest] {
            bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    } else {
        bytes.extend(body);
    }
    (status, bytes)
}

/// Sends from one address until it is over its rate.
async fn over_its_rate(address: SocketAddr) {
    let mut client = Client::connect(address).await;
    let forged =
        b"POST /webhooks/github HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 0\r\n\r\n";
    loop {
        client.send(forged).await;
        match client.answer().await.status {
            429 => return,
            status => assert_eq!(status, 401),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hidden_in_a_refused_body_is_executed() {
    // An answer before the end of a body leaves bytes on the connection: read as the next request, they are somebody's
    // event that nobody sent.
    let upstream = Upstream::answering(echo).await;
    let yaml = route_yaml(upstream.address, "limits: { rate: 1000000/s, burst: 1000000 }").replace(
        "client_rate: 100000/s, client_burst: 100000",
        "client_rate: 1/h, client_burst: 200",
    );
    let small = yaml
        .split("routes:\n")
        .nth(1)
        .unwrap()
        .replace("github\n    path: /webhooks/github", "small\n    path: /webhooks/small")
        .replace("limits: { ", "limits: { body: 64, ");
    let yaml = format!("client: {{ trusted_proxies: [127.0.0.1] }}\n{yaml}{small}");
    let gateway = Gateway::start(&yaml).await;
    let passing = Gateway::start(&format!("{yaml}passthrough: app\n")).await;
    for address in [gateway.address, passing.address] {
        over_its_rate(address).await;
    }
    let count = amount(10_000);
    let (next, kept) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for client in 0..6_usize {
        let (next, kept) = (Arc::clone(&next), Arc::clone(&kept));
        // Where everything else is passed through there is no 404, and a page that is executed comes through.
        let (address, passes) = if client % 2 == 0 {
            (gateway.address, false)
        } else {
            (passing.address, true)
        };
        clients.spawn(async move {
            let mut dice = Dice::new(client as u64 + 77);
            let mut connection = Client::connect(address).await;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let (status, bytes) = refused(&mut dice, number);
                if status == 404 && passes {
                    continue;
                }
                connection.send(&bytes).await;
                let answer = connection.answer().await;
                assert_eq!(
                    answer.status,
                    status,
                    "{}",
                    bytes[..bytes.len().min(900)].escape_ascii()
                );
                if answer.header("connection") == Some("close") {
                    assert!(connection.closes().await, "{number} {status}: more came");
                    connection = Client::connect(address).await;
                    continue;
                }
                kept.fetch_add(1, Ordering::Relaxed);
                // What follows on a connection that was kept is the next request, and its answer the next answer.
                let id = format!("n{number}");
                let honest = String::from_utf8(genuine(&id)).unwrap();
                let sender = format!(
                    "X-Forwarded-For: 172.{}.{}.{}\r\nHost",
                    number >> 16 & 255,
                    number >> 8 & 255,
                    number & 255
                );
                connection.send(honest.replacen("Host", &sender, 1).as_bytes()).await;
                let answer = connection.answer().await;
                assert!(
                    answer.status == 200 && answer.text().contains(&marker(&id)),
                    "{number}: {answer:?}"
                );
            }
        });
    }
    clients.join_all().await;
    let seen = upstream.seen();
    let executed = seen.iter().filter(|seen| {
        let id = seen.head.split(' ').nth(1).and_then(marked).unwrap_or_default();
        !id.starts_with('n')
    });
    assert_eq!(executed.count(), 0);
    let kept = kept.load(Ordering::Relaxed);
    assert!(kept > count / 3, "{kept} connections kept");
    let honest = seen.iter().filter(|seen| seen.head.contains("?m=n")).count();
    assert_eq!(honest, kept);
}
