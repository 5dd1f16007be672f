//! How connections of HTTP/2 end: with a word, and without a loss.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::frames::{
    BODY, DATA, END_HEADERS, END_STREAM, End, GOAWAY, HEADERS, PREFACE, SETTINGS, block, exchange, farewell, frame,
    genuine, next, pair, request, status,
};
use crate::harness::{Client, Conf, Event, Gateway, Upstream, hold_thread, route_yaml, until};

/// `ENHANCE_YOUR_CALM` (RFC 9113 section 7).
const CALM: u32 = 11;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_left_is_told_why() {
    // A client that is left without a word takes it for a fault of the network, and tries the same again at once.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let head = frame(HEADERS, END_HEADERS, 1, &block(&genuine()));
    let crumbs = [head, frame(DATA, 0, 1, b"x").repeat(300)].concat();
    let pings = frame(6, 0, 0, b"12345678").repeat(1001);
    for (name, frames) in [("crumbs", crumbs), ("pings", pings)] {
        assert_eq!(farewell(gateway.address, &frames).await, Some(CALM), "{name}");
    }
    let yaml = format!(
        "client: {{ idle_timeout: 100ms }}\n{}",
        route_yaml(upstream.address, "")
    );
    let idle = Gateway::start(&yaml).await;
    assert_eq!(farewell(idle.address, b"").await, Some(0));
}

/// Forty requests that are for nobody, each on a stream of its own.
fn meaningless() -> Vec<u8> {
    let needed = |name: &[u8]| name != b":authority" && name != b"content-length";
    let fields: Vec<_> = genuine().into_iter().filter(|(name, _)| needed(name)).collect();
    let heads = (0..40).map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&fields)));
    Vec::from_iter(heads).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_meaning_are_seen_and_have_an_end() {
    // Answered where nobody looks, they would be in no log and no count, however many a stranger sends.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    assert_eq!(farewell(gateway.address, &meaningless()).await, Some(CALM));
    let lines = gateway.lines(32).await;
    assert_eq!(lines.len(), 32);
    for line in lines {
        assert_eq!(
            (&line["reason"], &line["client"]),
            (&"bad_framing".into(), &"127.0.0.1".into())
        );
    }
    assert_eq!(
        gateway.metric("hookward_connections_turned_away_total{reason=\"flood\"}"),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_not_left_for_what_it_hands_on() {
    // One client behind it would end the requests of all others.
    let upstream = Upstream::ok().await;
    let yaml = format!(
        "client: {{ trusted_proxies: [127.0.0.1] }}\n{}",
        route_yaml(upstream.address, "")
    );
    let gateway = Gateway::start(&yaml).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let event = [
        frame(HEADERS, END_HEADERS, 101, &block(&genuine())),
        frame(DATA, END_STREAM, 101, BODY),
    ];
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, b""), &meaningless(), &event.concat()].concat();
    stream.write_all(&bytes).await.unwrap();
    let answered = loop {
        match next(&mut stream).await.expect("the connection lives") {
            (HEADERS, 101, payload) => break status(&payload),
            (kind, ..) => assert_ne!(kind, GOAWAY),
        }
    };
    assert_eq!(answered, "200");
    assert_eq!(gateway.lines(41).await.len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_refused_where_it_is_seen() {
    // Pingora refuses it before anybody hears of it, where the rest of the application is passed through.
    let upstream = Upstream::unreachable().await;
    let yaml = format!("{}passthrough: app\n", route_yaml(upstream.address, ""));
    let gateway = Gateway::start(&yaml).await;
    let tunnel = [pair(":method", "CONNECT"), pair(":authority", "gateway.test:443")];
    let end = exchange(gateway.address, &frame(HEADERS, END_HEADERS, 1, &block(&tunnel))).await;
    assert_eq!(end, End::Status("400".into()));
    assert_eq!(gateway.lines(1).await[0]["reason"], "bad_framing");
}

/// A connection on which an event is on its way to an upstream that does not answer yet.
async fn under_way(gateway: &Gateway, upstream: &Upstream) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, b""), &request(&genuine())].concat();
    stream.write_all(&bytes).await.unwrap();
    upstream.reached(1).await;
    stream
}

/// Another event, on a stream of its own.
fn event(on: u32) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, on, &block(&genuine())),
        frame(DATA, END_STREAM, on, BODY),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_request_at_the_end_of_the_process_ends_no_other() {
    // The connection had carried as many as it may just when it was to end in order: all that was under way was cut off.
    let upstream = Upstream::holding(|_| 200).await;
    let conf = Conf::to(upstream.address)
        .top("client: { requests_each: 2 }")
        .route("github", "replay: off");
    let mut gateway = Gateway::start(&conf.yaml()).await;
    let mut stream = under_way(&gateway, &upstream).await;
    let stopping = gateway.stopping();
    while next(&mut stream).await.expect("the connection lives").0 != GOAWAY {}
    // Sent before the client had heard of the end, as far as anybody can tell.
    stream.write_all(&event(3)).await.unwrap();
    upstream.reached(2).await;
    upstream.release(2);
    let mut answers = Vec::new();
    while answers.len() < 2 {
        if let (HEADERS, on, payload) = next(&mut stream).await.expect("the connection lives") {
            answers.push((on, status(&payload)));
        }
    }
    answers.sort();
    assert_eq!(answers, [(1, "200".into()), (3, "200".into())]);
    drop(stream);
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_is_in_line_is_neither_idle_nor_left_behind() {
    // The request came in time; that it waits is the gateway's doing.
    for stops in [false, true] {
        let upstream = Upstream::ok().await;
        let conf = Conf::to(upstream.address).top("client: { idle_timeout: 200ms }").route(
            "github",
            "replay: off, limits: { rate: 1000/s, burst: 1000, in_flight: 1000 }",
        );
        let mut gateway = Gateway::start(&conf.yaml()).await;
        gateway.strain().await;
        let mut others = Vec::new();
        for _ in 0..400 {
            others.push(Client::connect(gateway.address).await);
        }
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream
            .write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat())
            .await
            .unwrap();
        // The gateway's settings, and its answer to ours.
        next(&mut stream).await.unwrap();
        until("all connections to be open", || {
            gateway.metric("hookward_open_connections") == 401.0
        })
        .await;
        let thread = hold_thread().await;
        for (n, other) in others.iter_mut().enumerate() {
            assert!(other.send(&Event::of("github", &n.to_string()).bytes()).await);
        }
        stream.write_all(&event(1)).await.unwrap();
        // Timers of connections go by real time.
        std::thread::sleep(Duration::from_millis(300));
        drop(thread);
        let stopping = stops.then(|| gateway.stopping());
        let answered = loop {
            if let (HEADERS, 1, payload) = next(&mut stream).await.expect("the connection lives") {
                break status(&payload);
            }
        };
        assert_eq!(answered, "200", "stops: {stops}");
        drop(stream);
        if let Some(stopping) = stopping {
            stopping.await.unwrap();
        }
    }
}
