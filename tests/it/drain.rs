//! The end of a gateway: what is on its way is finished, nothing new comes in, and nobody waits longer than needed.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::harness::{Answer, Client, Conf, Event, Gateway, H2, Upstream, request, until};

/// Far below the time to drain, and far above what an orderly end takes.
const SOON: Duration = Duration::from_secs(10);

fn event(id: impl std::fmt::Display) -> Event {
    Event::of("github", &id.to_string())
}

async fn admin(gateway: &Gateway, path: &str) -> Answer {
    let get = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    request(gateway.admin, get.as_bytes()).await
}

/// Waits until nobody accepts connections at `address` any more.
async fn refused(address: SocketAddr) {
    until("connections to be refused", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
}

/// The stop has to come to its end soon.
async fn ends(stopping: JoinHandle<()>) {
    tokio::time::timeout(SOON, stopping)
        .await
        .expect("an end in time")
        .unwrap();
}

/// An event as a request over HTTP/2.
fn over_h2(event: &Event) -> http::Request<Bytes> {
    let request = http::Request::post(format!("http://gateway.test{}", event.path));
    let request = event
        .headers
        .iter()
        .fold(request, |request, (name, value)| request.header(name, value));
    request.body(event.body.clone().into()).unwrap()
}

/// Sends an event over an HTTP/2 connection of its own; resolves to the status of the answer.
async fn send_h2(address: SocketAddr, event: &Event) -> JoinHandle<u16> {
    let mut client = H2::connect(address).await;
    let request = over_h2(event);
    tokio::spawn(async move { client.ask(request).await.unwrap().status().as_u16() })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_finished() {
    // Every deployment would lose the events of a second, and providers would see resets instead of answers.
    let upstream = Upstream::holding(|_| 202).await;
    let conf = Conf::to(upstream.address)
        .top("drain: 60s\npassthrough: app")
        .route("github", "");
    let mut gateway = Gateway::start(&conf.yaml()).await;
    let mut at_upstream = Client::connect(gateway.address).await;
    at_upstream.send(&event("at upstream").bytes()).await;
    let over_h2 = send_h2(gateway.address, &event("over h2")).await;
    let mut passed = Client::connect(gateway.address).await;
    passed.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.reached(3).await;
    let mut in_body = Client::connect(gateway.address).await;
    in_body.send(&event("in its body").head()).await;
    until("three events at work", || {
        gateway.metric("hookward_in_flight{route=\"github\"}") == 3.0
    })
    .await;
    let mut in_head = Client::connect(gateway.address).await;
    in_head.send(&event("in its head").head()[..40]).await;
    until("half a head to arrive", || gateway.active() == 5).await;

    let stopping = gateway.stopping();
    refused(gateway.address).await;
    in_body.send(&event("in its body").body).await;
    in_head.send(&event("in its head").head()[40..]).await;
    in_head.send(&event("in its head").body).await;
    upstream.reached(5).await;
    assert!(!stopping.is_finished());
    upstream.release(5);
    for client in [&mut at_upstream, &mut passed, &mut in_body, &mut in_head] {
        let answer = client.answer().await;
        assert_eq!(answer.status, 202);
        // Told to keep the connection, a sender would write its next event into a socket that is being closed.
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.closes().await);
    }
    ends(stopping).await;
    assert_eq!(over_h2.await.unwrap(), 202);
    let outcomes = gateway.lines(5).await;
    let forwarded = outcomes.iter().filter(|line| line["outcome"] == "forwarded").count();
    assert_eq!(
        (outcomes.len(), forwarded),
        (5, 4),
        "all of them are in the log: {outcomes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_nothing_to_do_ends_at_once() {
    // Orchestrators kill after 30 seconds; one that sleeps its grace period out makes every deployment wait.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address).top("drain: 60s").route("github", "");
    let mut gateway = Gateway::start(&conf.yaml()).await;
    let mut silent = Client::connect(gateway.address).await;
    let mut idle = Client::connect(gateway.address).await;
    idle.send(&event(1).bytes()).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut idle_h2 = H2::connect(gateway.address).await;
    assert_eq!(idle_h2.ask(over_h2(&event(2))).await.unwrap().status(), 200);
    let open = || gateway.metric("hookward_open_connections") == 3.0;
    until("three connections", open).await;
    ends(gateway.stopping()).await;
    assert!(silent.closes().await);
    assert!(idle.closes().await);
    assert!(idle_h2.ask(over_h2(&event(3))).await.is_err());
    refused(gateway.address).await;
    refused(gateway.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_drains_says_so() {
    // A load balancer that asks gets no answer, or "ready", and goes on sending to a closed port.
    let upstream = Upstream::holding(|_| 200).await;
    let conf = Conf::to(upstream.address).top("drain: 60s").route("github", "");
    let mut gateway = Gateway::start(&conf.yaml()).await;
    let ready = admin(&gateway, "/readyz").await;
    assert_eq!((ready.status, ready.text()), (200, "ready\n"));
    let mut client = Client::connect(gateway.address).await;
    client.send(&event(1).bytes()).await;
    upstream.reached(1).await;
    let stopping = gateway.stopping();
    refused(gateway.address).await;
    let ready = admin(&gateway, "/readyz").await;
    assert_eq!((ready.status, ready.text()), (503, "draining\n"));
    assert_eq!(
        admin(&gateway, "/healthz").await.status,
        200,
        "it is alive all the same"
    );
    let metrics = admin(&gateway, "/metrics").await;
    assert!(metrics.text().contains("hookward_in_flight{route=\"github\"} 1\n"));
    upstream.release(1);
    assert_eq!(client.answer().await.status, 200);
    ends(stopping).await;
    refused(gateway.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_drain_is_refused_and_not_forgotten_as_done() {
    // The provider must hear that it is to send again, and must find its event free when it does.
    let upstream = Upstream::holding(|_| 200).await;
    let keys = "replay: { wait: 20s }";
    let conf = Conf::to(upstream.address).top("drain: 300ms").route("github", keys);
    let mut gateway = Gateway::start(&conf.yaml()).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(&event(1).bytes()).await;
    let over_h2 = send_h2(gateway.address, &event(2)).await;
    upstream.reached(2).await;
    let mut repeat = Client::connect(gateway.address).await;
    repeat.send(&event(1).bytes()).await;
    let mut in_body = Client::connect(gateway.address).await;
    in_body.send(&event(3).bytes()[..event(3).head().len() + 10]).await;
    let in_flight = || gateway.metric("hookward_in_flight{route=\"github\"}") == 4.0;
    until("four at work", in_flight).await;
    assert_eq!(gateway.metric("hookward_replay_entries"), 2.0);
    ends(gateway.stopping()).await;
    for client in [&mut first, &mut in_body] {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (503, "draining\n"));
        assert!(client.closes().await);
    }
    assert_eq!(
        repeat.answer().await.status,
        503,
        "never a 2xx for what nobody has taken"
    );
    assert_eq!(over_h2.await.unwrap(), 503);
    let lines = gateway.lines(4).await;
    let draining = lines.iter().filter(|line| line["reason"] == "draining").count();
    assert!(draining >= 3, "{lines:?}");
    assert_eq!(
        gateway.metric("hookward_replay_entries"),
        0.0,
        "every claim is free again"
    );
    // Served once more, as after a start over a store that survives it: the retry is no repeat.
    gateway.serve_again();
    upstream.release(10);
    for n in 1..=3 {
        assert_eq!(request(gateway.address, &event(n).bytes()).await.status, 200);
    }
    let delivered: Vec<_> = upstream.seen().iter().skip(2).map(|seen| seen.body.clone()).collect();
    assert_eq!(delivered, [event(1).body, event(2).body, event(3).body]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_http2_is_on_the_wire_before_the_end() {
    // Such answers are written by their connection after the request has ended; the process would end in between, and
    // the provider would never hear that its event was taken.
    for _ in 0..20 {
        let upstream = Upstream::holding(|_| 200).await;
        let conf = Conf::to(upstream.address).top("drain: 60s").route("github", "");
        let mut gateway = Gateway::start(&conf.yaml()).await;
        let answer = send_h2(gateway.address, &event(1)).await;
        upstream.reached(1).await;
        let stopping = gateway.stopping();
        refused(gateway.address).await;
        upstream.release(1);
        ends(stopping).await;
        assert_eq!(gateway.metric("hookward_open_connections"), 0.0);
        assert_eq!(answer.await.unwrap(), 200);
    }
}
