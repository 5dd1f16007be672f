//! Several servers, connections that are kept, and names that are looked up.

use std::net::SocketAddr;
use std::time::Duration;

use super::{config, event, request_with, servers};
use crate::harness::{Client, Gateway, Refusing, Upstream, Wire, request, until};

const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends `count` events one after the other and tells their statuses.
async fn send(gateway: &Gateway, count: usize) -> Vec<u16> {
    send_on(&mut Client::connect(gateway.address).await, count).await
}

async fn send_on(client: &mut Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        client.send(&event("")).await;
        statuses.push(client.answer().await.status);
    }
    statuses
}

fn connect_failed(gateway: &Gateway) -> f64 {
    gateway.metric(r#"hookward_upstream_attempts_total{result="connect_failed",upstream="app"}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_round() {
    // Otherwise one server carries everything and the others are paid for nothing.
    let all = [Upstream::ok().await, Upstream::ok().await, Upstream::ok().await];
    let addresses = [all[0].address, all[1].address, all[2].address];
    let gateway = Gateway::start(&config(&servers(&addresses))).await;
    assert_eq!(send(&gateway, 12).await, [200; 12]);
    assert_eq!(
        [all[0].seen().len(), all[1].seen().len(), all[2].seen().len()],
        [4, 4, 4]
    );
    let lines = gateway.lines(12).await;
    let order: Vec<SocketAddr> = lines
        .iter()
        .map(|line| line["server"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(order.chunks(3).all(|round| round == addresses), "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_passed_over_and_left_out_for_a_while() {
    // A deploy of one server must cost no event, and not a failed connection for each.
    let (dead, alive) = (Refusing::new(), Upstream::ok().await);
    let gateway = Gateway::start(&config(&servers(&[dead.address, alive.address]))).await;
    assert_eq!(send(&gateway, 10).await, [200; 10]);
    assert_eq!(connect_failed(&gateway), 1.0);
    let lines = gateway.lines(10).await;
    let attempts: Vec<_> = lines.iter().map(|line| line["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts, [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert!(lines.iter().all(|line| line["server"] == alive.address.to_string()));

    gateway.clock.advance(FAIL_TIMEOUT - Duration::from_millis(1));
    assert_eq!(send(&gateway, 4).await, [200; 4]);
    assert_eq!(connect_failed(&gateway), 1.0, "still out");
    gateway.clock.advance(Duration::from_millis(1));
    assert_eq!(send(&gateway, 4).await, [200; 4]);
    assert_eq!(connect_failed(&gateway), 2.0, "tried again, once");

    let recovered = dead.recovers();
    assert_eq!(send(&gateway, 4).await, [200; 4]);
    assert_eq!(recovered.seen().len(), 0, "nobody knows yet");
    gateway.clock.advance(FAIL_TIMEOUT);
    assert_eq!(send(&gateway, 4).await, [200; 4]);
    assert_eq!(recovered.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_answers_everybody_is_asked_each_time() {
    // An upstream that is believed dead by mistake must not stay dead until the time is over.
    let dead = [Refusing::new(), Refusing::new()];
    let gateway = Gateway::start(&config(&servers(&[dead[0].address, dead[1].address]))).await;
    for round in 1..=3 {
        let answer = request(gateway.address, &event("")).await;
        assert_eq!((answer.status, answer.text()), (502, "upstream_down\n"));
        assert_eq!(connect_failed(&gateway), 2.0 * f64::from(round));
    }
    let line = &gateway.lines(3).await[2];
    assert_eq!(
        (&line["reason"], &line["attempts"]),
        (&"upstream_down".into(), &2.into())
    );
    let refused = r#"hookward_requests_total{outcome="refused",provider="github",reason="dispatch/upstream_down",route="github"}"#;
    assert_eq!(gateway.metric(refused), 3.0);
    let [first, _still_dead] = dead;
    let recovered = first.recovers();
    assert_eq!(send(&gateway, 2).await, [200; 2]);
    assert_eq!(recovered.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept() {
    // A handshake for each event is most of the cost of a small one, and of TLS even more.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    assert_eq!(send(&gateway, 50).await, [200; 50]);
    assert_eq!(upstream.seen().len(), 50);
    // The pool may miss one that is just being put back.
    assert!(upstream.connections() < 10, "{}", upstream.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_however_many_there_are_at_a_time() {
    // Each one that is closed leaves a port behind that nobody can use for a minute: a busy gateway runs out of ports, and
    // events are lost.
    const MANY: usize = 400;
    let upstream = Upstream::holding(|_| 200).await;
    let yaml = config(&servers(&[upstream.address])).replace("16MiB }", "16MiB, in_flight: 1000 }");
    let gateway = Gateway::start(&yaml).await;
    for round in 1..=2 {
        let mut clients = Vec::new();
        for _ in 0..MANY {
            let mut client = Client::connect(gateway.address).await;
            client.send(&event("")).await;
            clients.push(client);
        }
        upstream.reached(MANY * round).await;
        upstream.release(MANY);
        for client in &mut clients {
            assert_eq!(client.answer().await.status, 200);
        }
    }
    // The pool may miss some that are just being put back.
    assert!(upstream.connections() < MANY + 50, "{}", upstream.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_while_it_lay_idle_costs_no_event_twice() {
    // Servers close idle connections when they like. What was written into one of those is lost, or was acted on:
    // nobody knows, so it may fail but must not be sent again.
    let upstream = Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        // Without a word about it.
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    let mut taken = Vec::new();
    for n in 0..100 {
        let body = format!("{{\"n\":{n}}}").into_bytes();
        let start = "POST /webhooks/github HTTP/1.1\r\nHost: gateway.test";
        client.send(&request_with(start, "", &body)).await;
        match client.answer().await.status {
            200 => taken.push(body),
            status => assert_eq!(status, 502),
        }
    }
    let seen: Vec<_> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(seen, taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lies_idle_no_longer_than_the_server_says() {
    // A server that closes after five seconds must not get an event in the same instant.
    for (more, header, kept) in [
        ("", "Keep-Alive: timeout=60", true),
        ("", "Keep-Alive: timeout=60, max=100", true),
        ("", "Keep-Alive: max=100", true),
        ("", "Keep-Alive: timeout=1", false),
        ("", "Keep-Alive: max=5, timeout=1", false),
        ("", "Keep-Alive: timeout=0", false),
        (", idle_timeout: 20ms", "Keep-Alive: timeout=60", false),
        (", idle_timeout: 20ms", "X-None: 1", false),
    ] {
        let upstream = Upstream::answering(move |_, _| {
            format!("HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 2\r\n\r\nok").into_bytes()
        })
        .await;
        let gateway = Gateway::start(&config(&format!("{}{more}", servers(&[upstream.address])))).await;
        let mut client = Client::connect(gateway.address).await;
        for _ in 0..8 {
            client.send(&event("")).await;
            assert_eq!(client.answer().await.status, 200);
            until("the exchange to be over", || gateway.active() == 0).await;
            gateway.clock.advance(Duration::from_secs(2));
        }
        let connections = upstream.connections();
        match kept {
            true => assert!(connections < 5, "{header}{more}: {connections}"),
            false => assert_eq!(connections, 8, "{header}{more}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_needs_is_closed() {
    // After a burst the backend would be left with as many open connections as the burst had requests.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(&event("")).await;
    assert_eq!(client.answer().await.status, 200);
    until("the exchange to be over", || gateway.active() == 0).await;
    gateway.clock.advance(Duration::from_secs(5));
    upstream.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_looked_up() {
    // A backend is named in most configurations, and a name that is wrong must be a 502, not the end of the process.
    let upstream = Upstream::ok().await;
    let port = upstream.address.port();
    for (server, status) in [
        (format!("localhost:{port}"), 200),
        (format!("http://localhost:{port}"), 200),
        (format!("no-such-host.invalid:{port}"), 502),
    ] {
        let gateway = Gateway::start(&config(&format!("servers: [\"{server}\"]"))).await;
        assert_eq!(request(gateway.address, &event("")).await.status, status, "{server}");
    }
    let servers = format!("servers: [\"no-such-host.invalid:{port}\", \"localhost:{port}\"]");
    let gateway = Gateway::start(&config(&servers)).await;
    assert_eq!(send(&gateway, 4).await, [200; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_connections_and_what_is_known_of_servers() {
    // Otherwise every reload meets every dead server again, and opens every connection anew.
    let (dead, alive) = (Refusing::new(), Upstream::ok().await);
    let yaml = config(&servers(&[dead.address, alive.address]));
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    assert_eq!(send_on(&mut client, 4).await, [200; 4]);
    gateway.reload(&format!("{yaml}    forward_path: /elsewhere\n"));
    assert_eq!(send_on(&mut client, 4).await, [200; 4]);
    assert_eq!(connect_failed(&gateway), 1.0);
    assert!(alive.connections() < 5, "{}", alive.connections());
    assert!(alive.seen()[7].head.starts_with("POST /elsewhere "));
}
