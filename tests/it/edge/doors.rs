//! How many connections, how many requests on one, and how slow a body may be.

use std::time::Duration;

use crate::harness::{Client, Conf, Event, Gateway, Upstream, request, until};

async fn gateway(upstream: &Upstream, client: &str) -> Gateway {
    Gateway::start(&conf(upstream, client)).await
}

fn conf(upstream: &Upstream, client: &str) -> String {
    let conf = Conf::to(upstream.address).top(&format!("client: {{ {client} }}"));
    conf.top("passthrough: app").route("github", "replay: off").yaml()
}

fn event() -> Vec<u8> {
    Event::of("github", "1").bytes()
}

/// A connection that has a place.
async fn served(address: std::net::SocketAddr, from: &str, header: &[u8]) -> Client {
    let mut client = Client::connect_from(from, address).await;
    client.send(header).await;
    client.send(&event()).await;
    assert_eq!(client.answer().await.status, 200, "{from}");
    client
}

/// A connection that is closed without a word.
async fn shut(address: std::net::SocketAddr, from: &str, header: &[u8]) -> bool {
    let mut client = Client::connect_from(from, address).await;
    client.send(header).await;
    client.send(&event()).await;
    client.rest().await.is_empty()
}

async fn turned_away(gateway: &Gateway, reason: &str, count: f64) {
    let series = format!("hookward_connections_turned_away_total{{reason=\"{reason}\"}}");
    until(&series, || gateway.metric(&series) >= count).await;
    assert_eq!(gateway.metric(&series), count, "{series}");
}

/// Waits until so many connections are open.
async fn open(gateway: &Gateway, count: f64) {
    until("connections to be counted", || {
        gateway.metric("hookward_open_connections") == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_in_all_and_freed_when_they_close() {
    // Without descriptors for its upstreams the gateway is down; with places that are never given back it stays so.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "connections: 3, connections_each: 2").await;
    for round in 1..=3 {
        let first = served(gateway.address, "127.0.0.1", b"").await;
        let second = served(gateway.address, "127.0.0.1", b"").await;
        assert!(shut(gateway.address, "127.0.0.1", b"").await, "a third of one client");
        turned_away(&gateway, "client_full", f64::from(round)).await;
        let third = served(gateway.address, "127.0.0.2", b"").await;
        assert!(shut(gateway.address, "127.0.0.3", b"").await, "a fourth in all");
        turned_away(&gateway, "full", f64::from(round)).await;
        drop((first, second, third));
        open(&gateway, 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_counted_as_they_are_limited() {
    // An IPv6 subscriber has 2^64 addresses to come from; a trusted proxy comes for thousands.
    let upstream = Upstream::ok().await;
    let listen = "{ address: 127.0.0.1:0, proxy_protocol: [127.0.0.1] }";
    let yaml = conf(&upstream, "connections_each: 1, trusted_proxies: [10.0.0.0/8]");
    let gateway = Gateway::listening(listen, &yaml).await;
    let of = |client: &str| format!("PROXY TCP6 {client} 2001:db8::1 1 443\r\n").into_bytes();
    let one = served(gateway.address, "127.0.0.1", &of("2001:db8:0:1::1")).await;
    assert!(
        shut(gateway.address, "127.0.0.1", &of("2001:db8:0:1:ffff::2")).await,
        "the same /64"
    );
    let other = served(gateway.address, "127.0.0.1", &of("2001:db8:0:2::1")).await;
    let proxies = [
        served(gateway.address, "127.0.0.1", &of("::ffff:10.1.2.3")).await,
        served(gateway.address, "127.0.0.1", &of("::ffff:10.1.2.3")).await,
    ];
    turned_away(&gateway, "client_full", 1.0).await;
    drop((one, other, proxies));
    open(&gateway, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_a_reload_names_is_not_counted_as_a_client() {
    // A load balancer that was added at noon would be shut out by the bound for a single client.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "connections_each: 1").await;
    let first = served(gateway.address, "127.0.0.1", b"").await;
    assert!(shut(gateway.address, "127.0.0.1", b"").await);
    gateway.reload(&conf(&upstream, "connections_each: 1, trusted_proxies: [127.0.0.1]"));
    let second = served(gateway.address, "127.0.0.1", b"").await;
    drop((first, second));
    open(&gateway, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closes_after_its_last_request_and_says_so() {
    // Connections that live for ever never reach the instance that was added; one that closes unsaid loses a request.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "requests_each: 3").await;
    let page = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    for requests in [[event(), page.clone(), event()], [event(), event(), page]] {
        let mut client = Client::connect(gateway.address).await;
        for (n, bytes) in requests.iter().enumerate() {
            client.send(bytes).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 200);
            let closing = answer
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"));
            assert_eq!(closing, n == 2, "{}", answer.head);
        }
        assert!(client.closes().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_slower_than_its_rate_is_refused_and_a_faster_one_is_not() {
    // A megabyte a byte at a time holds a place among the requests in flight for as long as the sender likes.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "body_rate: 1KiB, body_timeout: 10m").await;
    let body = vec![b'x'; 100 * 1024];
    let event = Event {
        body,
        ..Event::of("github", "1")
    };
    let event = event.sign("github", "1", crate::harness::NOW, crate::harness::SECRET);
    let (first, last) = event.body.split_at(40 * 1024);
    // 40 KiB earn 40 s, besides the first 5.
    for (seconds, status) in [(30, 200), (200, 408)] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&event.head()).await;
        client.send(first).await;
        let held = "hookward_buffered_bytes";
        until("the first part to arrive", || {
            gateway.metric(held) >= first.len() as f64
        })
        .await;
        gateway.clock.advance(Duration::from_secs(seconds));
        client.send(last).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "after {seconds} s: {}", answer.text());
        gateway.idle().await;
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(
        request(gateway.address, &event.bytes()).await.status,
        200,
        "all at once"
    );
}
