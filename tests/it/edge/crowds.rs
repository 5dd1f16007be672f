//! Requests at the same time: those of one client that prove nothing, those of a route, and all of them.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::harness::{Act, Client, Conf, Event, Gateway, H2, NOW, Upstream, bare, until};

/// Nobody is limited but by `limits`.
fn conf(upstream: &Upstream, limits: &str) -> Conf {
    Conf::to(upstream.address).limits(&format!("client_rate: 100000/s, client_burst: 100000, {limits}"))
}

fn event(id: impl std::fmt::Display) -> Event {
    Event::of("github", &id.to_string())
}

/// What a client at `from` is answered to `bytes`.
async fn answered(gateway: &Gateway, from: &str, bytes: &[u8]) -> (u16, String) {
    let mut client = Client::connect_from(from, gateway.address).await;
    client.send(bytes).await;
    let answer = client.answer().await;
    (answer.status, answer.text().to_owned())
}

/// Clients at `from` that send all of an event but its last byte.
async fn slow(gateway: &Gateway, from: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..count {
        let mut client = Client::connect_from(from, gateway.address).await;
        let bytes = event(format!("{from}-{n}")).bytes();
        client.send(&bytes[..bytes.len() - 1]).await;
        clients.push(client);
    }
    clients
}

async fn in_flight(gateway: &Gateway, count: usize) {
    until(&format!("{count} on their way"), || {
        gateway.metric("hookward_in_flight{route=\"github\"}") == count as f64
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_proves_nothing_occupies_no_place_of_a_route() {
    // Slow bodies, or forged ones, without end from a handful of addresses would keep the provider's own events out.
    let upstream = Upstream::ok().await;
    let conf = conf(&upstream, "client_in_flight: 4").route("github", "limits: { in_flight: 1 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut slow_ones = slow(&gateway, "127.0.0.2", 4).await;
    slow_ones.extend(slow(&gateway, "127.0.0.3", 4).await);
    in_flight(&gateway, 8).await;
    // Whoever has too much under way gets no more, before his body; and nobody else notices.
    for from in ["127.0.0.2", "127.0.0.3"] {
        let mut client = Client::connect_from(from, gateway.address).await;
        client.send(&event("one more").head()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (429, "client_busy\n"), "{from}");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    for n in 0..20 {
        let forged = Event::signed_with("github", "forged", NOW, "guessed-by-a-stranger").bytes();
        assert_eq!(answered(&gateway, "127.0.0.4", &forged).await.0, 401);
        assert_eq!(answered(&gateway, "127.0.0.1", &event(n).bytes()).await.0, 200, "{n}");
    }
    // What is proven at last needs no second try, and the place of what went away is free.
    for client in &mut slow_ones[..2] {
        client.send(b"}").await;
        assert_eq!(client.answer().await.status, 200);
    }
    slow_ones.truncate(2);
    in_flight(&gateway, 0).await;
    assert_eq!(slow(&gateway, "127.0.0.2", 4).await.len(), 4);
    let hits = |limit: &str| format!("hookward_limit_hits_total{{limit=\"{limit}\",route=\"github\"}}");
    assert_eq!(gateway.metric(&hits("client_in_flight")), 2.0);
    assert_eq!(gateway.metric(&hits("in_flight")), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_proven_counts_no_longer() {
    // A provider sends everything from two addresses: a slow backend would turn its limit into a total one.
    let upstream = Upstream::holding(|_| 200).await;
    let gateway = Gateway::start(&conf(&upstream, "client_in_flight: 1").route("github", "").yaml()).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = Client::connect(gateway.address).await;
        client.send(&event(n).bytes()).await;
        upstream.reached(n + 1).await;
        clients.push(client);
    }
    upstream.release(20);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_count_like_connections() {
    // One connection of HTTP/2 carries a hundred requests at a time.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&conf(&upstream, "client_in_flight: 3").route("github", "").yaml()).await;
    let mut client = H2::connect(gateway.address).await;
    let head = || {
        let event = event("over h2");
        let mut request = Request::post(format!("http://a{}", event.path));
        for (name, value) in &event.headers {
            request = request.header(name, value);
        }
        request.body(()).unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.open(head(), false).await.unwrap());
    }
    in_flight(&gateway, 3).await;
    let fourth = client.open(head(), false).await.unwrap();
    assert_eq!(fourth.answer().await.unwrap().status(), 429);
    for mut stream in open {
        stream.send(Bytes::from(event("over h2").body), 100, true).await;
        assert_eq!(stream.answer().await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_what_the_process_takes_the_answer_is_quick_and_says_when() {
    // Ten routes with backends that hang, each within its own bound, are what takes a small machine down.
    let upstream = Upstream::acting(|_, request| match request.header("x-act") {
        Some("hold") => Act::Hold(bare(200)),
        _ => Act::Answer(bare(200)),
    })
    .await;
    let conf = conf(&upstream, "in_flight: 3")
        .top("passthrough: app")
        .route("github", "")
        .route("shopify", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut held = Vec::new();
    for (n, provider) in ["github", "shopify", "github"].into_iter().enumerate() {
        let mut client = Client::connect(gateway.address).await;
        let event = Event::of(provider, &format!("held {n}")).with("X-Act", "hold");
        client.send(&event.bytes()).await;
        upstream.reached(n + 1).await;
        held.push(client);
    }
    for provider in ["github", "shopify"] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&Event::of(provider, "one more").head()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (503, "overload\n"), "{provider}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let hits = format!("hookward_limit_hits_total{{limit=\"overload\",route=\"{provider}\"}}");
        until("the hit to be counted", || gateway.metric(&hits) == 1.0).await;
    }
    // What is no webhook goes its way.
    assert_eq!(
        answered(&gateway, "127.0.0.1", b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .0,
        200
    );
    upstream.release(3);
    for client in &mut held {
        assert_eq!(client.answer().await.status, 200);
    }
    gateway.idle().await;
    assert_eq!(answered(&gateway, "127.0.0.1", &event("later").bytes()).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_bounds_and_forgets_no_count() {
    // A bound that is lowered in an emergency must hold for those who are there already.
    let upstream = Upstream::holding(|_| 200).await;
    let conf = |limits: &str| conf(&upstream, limits).route("github", "").yaml();
    let gateway = Gateway::start(&conf("in_flight: 3")).await;
    let _slow = slow(&gateway, "127.0.0.2", 3).await;
    in_flight(&gateway, 3).await;
    for (limits, word) in [
        ("in_flight: 3", "overload\n"),
        ("client_in_flight: 3", "client_busy\n"),
        ("client_in_flight: 2, in_flight: 2", "client_busy\n"),
    ] {
        gateway.reload(&conf(limits));
        let (_, told) = answered(&gateway, "127.0.0.2", &event("x").bytes()).await;
        assert_eq!(told, word, "{limits}");
    }
    gateway.reload(&conf("client_in_flight: 4, in_flight: 4"));
    let mut client = Client::connect_from("127.0.0.2", gateway.address).await;
    client.send(&event("y").bytes()).await;
    tokio::time::timeout(Duration::from_secs(20), upstream.reached(1))
        .await
        .unwrap();
    upstream.release(1);
    assert_eq!(client.answer().await.status, 200);
}
