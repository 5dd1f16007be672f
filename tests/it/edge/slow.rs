//! Heads that are too large or too slow.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Client, Gateway, Upstream, github, request, route_yaml};

/// Bytes of a head that the gateways here take.
const HEAD_BYTES: usize = 2048;

async fn gateway(upstream: &Upstream, client: &str) -> Gateway {
    let yaml = format!(
        "client: {{ {client} }}\npassthrough: app\n{}",
        route_yaml(upstream.address, "")
    );
    Gateway::start(&yaml).await
}

fn refused(reason: &str) -> String {
    format!(r#"hookward_requests_total{{outcome="refused",provider="-",reason="head/{reason}",route="-"}}"#)
}

/// A genuine event whose head has `bytes` bytes.
fn head_of(bytes: usize, body: &[u8]) -> Vec<u8> {
    let genuine = github(body);
    let padding = bytes - (genuine.len() - body.len()) - b"X-Padding: \r\n".len();
    let line = format!("X-Padding: {}\r\nX-GitHub-Event", "x".repeat(padding));
    String::from_utf8(genuine)
        .unwrap()
        .replacen("X-GitHub-Event", &line, 1)
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    // Without a bound one connection fills the memory; a byte too strict and a provider's longest head is lost.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "head_bytes: 2KiB").await;
    assert_eq!(
        request(gateway.address, &head_of(HEAD_BYTES, b"{\"fits\":1}"))
            .await
            .status,
        200
    );
    let filler = "x".repeat(HEAD_BYTES);
    let heads = [
        head_of(HEAD_BYTES + 1, b"{}"),
        head_of(100_000, b"{}"),
        format!("POST /{filler} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
        format!("POST / HTTP/1.1\r\n{}", "X-A: 1\r\n".repeat(HEAD_BYTES / 8)).into_bytes(),
        // Ends nowhere.
        filler.into_bytes(),
        vec![b'x'; 1 << 20],
    ];
    for head in &heads {
        let mut client = Client::connect(gateway.address).await;
        client.send(head).await;
        client.send(&github(b"{\"hidden\":1}")).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text()),
            (431, "too_large\n"),
            "{} bytes",
            head.len()
        );
        assert_eq!(answer.header("connection"), Some("close"));
        // Whether it was read to its end or cut off, nothing else is said.
        assert!(client.closes().await);
    }
    let lines = gateway.lines(1 + heads.len()).await;
    let refusals = lines.iter().filter(|line| line["outcome"] == "refused");
    let reasons: Vec<_> = refusals
        .map(|line| format!("{}/{}", line["stage"], line["reason"]))
        .collect();
    assert_eq!(reasons, vec!["\"head\"/\"too_large\""; heads.len()]);
    assert_eq!(gateway.metric(&refused("too_large")), heads.len() as f64);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_stops_is_refused_in_time() {
    // Otherwise a thousand half heads hold a thousand connections for ever.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "head_timeout: 200ms").await;
    let genuine = github(b"{}");
    let halves = [
        &b"P"[..],
        b"POST / HTTP/1.1\r\n",
        &genuine[..genuine.len() - 4],
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ];
    for half in halves {
        let mut client = Client::connect(gateway.address).await;
        client.send(half).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text()),
            (408, "too_slow\n"),
            "{}",
            half.escape_ascii()
        );
        assert!(client.ends_in_order().await);
    }
    let lines = gateway.lines(halves.len()).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "head" && line["reason"] == "too_slow"),
        "{lines:?}"
    );
    assert_eq!(gateway.metric(&refused("too_slow")), halves.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_is_refused_in_time() {
    // A byte now and then keeps every timeout of a single read from firing.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "head_timeout: 200ms").await;
    let (mut reader, mut writer) = TcpStream::connect(gateway.address).await.unwrap().into_split();
    let trickle = tokio::spawn(async move {
        writer.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        // Ends when the gateway has closed.
        while writer.write_all(b"X-A: 1\r\n").await.is_ok() {
            pace.tick().await;
        }
    });
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    drop(reader);
    trickle.await.unwrap();
    assert_eq!(gateway.lines(1).await[0]["reason"], "too_slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_ended_without_a_word() {
    // Idle connections are no requests: neither an answer, which the next request would take for its own, nor a line.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "head_timeout: 200ms, idle_timeout: 200ms").await;
    let mut client = Client::connect(gateway.address).await;
    assert!(client.ends_in_order().await, "never said a word");
    let mut client = Client::connect(gateway.address).await;
    client.send(&github(b"{}")).await;
    assert_eq!(client.answer().await.status, 200);
    assert!(client.ends_in_order().await, "idle after a request");
    assert_eq!(gateway.lines(1).await.len(), 1);
}
