//! Copies that meet while the event is on its way: one is forwarded, the others hear how that ended.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::{every_provider, send};
use crate::harness::{Act, Client, Conf, Event, Gateway, PROVIDERS, Upstream, amount, bare, until};

#[tokio::test(flavor = "multi_thread")]
async fn of_64_copies_at_once_one_is_forwarded() {
    // Check and record in two steps, and whoever sends copies in parallel is paid as often as he has connections.
    const COPIES: usize = 64;
    let rounds = amount("HOOKWARD_ROUNDS", 40);
    let upstream = Upstream::status(|n| 200 + (n % 5) as u16).await;
    let conf = every_provider(
        Conf::to(upstream.address),
        "replay: { wait: 20s }, limits: { rate: 100000/s, burst: 100000 }",
    );
    let gateway = Gateway::start(&conf.yaml()).await;
    let barrier = Arc::new(Barrier::new(COPIES));
    let copy = |address, barrier: Arc<Barrier>| async move {
        let mut client = Client::connect(address).await;
        let mut statuses = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let event = Event::of(PROVIDERS[round % PROVIDERS.len()], &format!("{round}")).bytes();
            barrier.wait().await;
            client.send(&event).await;
            statuses.push(client.answer().await.status);
        }
        statuses
    };
    let copies: Vec<_> = (0..COPIES)
        .map(|_| tokio::spawn(copy(gateway.address, Arc::clone(&barrier))))
        .collect();
    let expected: Vec<u16> = (0..rounds).map(|round| 200 + (round % 5) as u16).collect();
    for copy in copies {
        assert_eq!(copy.await.unwrap(), expected);
    }
    assert_eq!(upstream.count(), rounds);
}

/// Holds one event at the upstream and sends `copies` more of it, all of which are at the gateway afterwards.
async fn pile_up(gateway: &Gateway, upstream: &Upstream, event: &Event, copies: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..=copies {
        let mut client = Client::connect(gateway.address).await;
        client.send(&event.bytes()).await;
        if n == 0 {
            upstream.reached(1).await;
        }
        clients.push(client);
    }
    let bytes = ((copies + 1) * event.body.len()) as f64;
    until("all copies to be read", || {
        gateway.metric("hookward_buffered_bytes") == bytes
    })
    .await;
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_an_event_in_flight_shares_its_success() {
    // Providers give up after seconds and send again while the first copy is still being worked on.
    let upstream = Upstream::holding(|_| 201).await;
    let conf = Conf::to(upstream.address).route("github", "replay: { wait: 20s }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut clients = pile_up(&gateway, &upstream, &Event::of("github", "1"), 10).await;
    upstream.release(1);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 201);
    }
    assert_eq!(upstream.count(), 1);
    gateway.lines(11).await;
    assert!(gateway.metric("hookward_replays_total{result=\"shared\",route=\"github\"}") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_an_event_in_flight_shares_its_failure() {
    // A 2xx for a copy of an event that nobody took is the one answer that loses it.
    let upstream = Upstream::holding(|n| if n == 0 { 500 } else { 200 }).await;
    let conf = Conf::to(upstream.address).route("github", "replay: { wait: 20s }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let event = Event::of("github", "1");
    let mut clients = pile_up(&gateway, &upstream, &event, 10).await;
    upstream.release(1);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 500);
    }
    assert_eq!(upstream.count(), 1);
    upstream.release(1);
    assert_eq!(send(&gateway, &event).await.status, 200, "the retry after the failure");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_an_event_in_flight_is_not_sent_when_the_first_one_gets_no_answer() {
    // Nobody knows whether the upstream acted on it: ten copies that wait must not become ten more attempts.
    let upstream = Upstream::acting(|n, _| if n == 0 { Act::Silence } else { Act::Answer(bare(200)) }).await;
    let conf = Conf::to(upstream.address).app("timeout: 2s");
    let gateway = Gateway::start(&conf.route("github", "replay: { wait: 20s }").yaml()).await;
    let event = Event::of("github", "1");
    let mut clients = pile_up(&gateway, &upstream, &event, 10).await;
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 504);
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(send(&gateway, &event).await.status, 200, "the retry after the failure");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_waits_for_a_bounded_time() {
    // Waiting for ever holds connections and places; answering 2xx promises a delivery that may fail.
    let upstream = Upstream::holding(|_| 200).await;
    let conf = Conf::to(upstream.address).route("github", "replay: { wait: 200ms }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let event = Event::of("github", "1");
    let mut first = Client::connect(gateway.address).await;
    first.send(&event.bytes()).await;
    upstream.reached(1).await;
    let answer = send(&gateway, &event).await;
    assert_eq!((answer.status, answer.text()), (503, "in_flight\n"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    upstream.release(1);
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(send(&gateway, &event).await.status, 200);
    assert_eq!(upstream.count(), 1);
    let timeouts = "hookward_replays_total{result=\"in_flight_timeout\",route=\"github\"}";
    assert_eq!(gateway.metric(timeouts), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_undo_a_delivery() {
    // Providers hang up at their deadline and come back; the upstream has the event all the same.
    let upstream = Upstream::holding(|n| if n == 1 { 500 } else { 202 }).await;
    let conf = Conf::to(upstream.address).route("github", "replay: { wait: 20s }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let leave = async |id: &str, sent: usize| {
        let mut client = Client::connect(gateway.address).await;
        client.send(&Event::of("github", id).bytes()).await;
        upstream.reached(sent).await;
        drop(client);
    };
    // It comes back while the first copy is still in flight, and again afterwards.
    leave("taken", 1).await;
    let mut again = Client::connect(gateway.address).await;
    again.send(&Event::of("github", "taken").bytes()).await;
    upstream.release(1);
    assert_eq!(again.answer().await.status, 202);
    assert_eq!(send(&gateway, &Event::of("github", "taken")).await.status, 202);
    assert_eq!(upstream.count(), 1);
    // What failed behind its back is free again.
    leave("failed", 2).await;
    upstream.release(1);
    gateway.idle().await;
    upstream.release(1);
    assert_eq!(send(&gateway, &Event::of("github", "failed")).await.status, 202);
    assert_eq!(upstream.count(), 3);
}
