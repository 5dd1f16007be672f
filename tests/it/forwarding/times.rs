//! Backends that take too long: nobody waits longer than configured.
//!
//! These deadlines run on real time, so they are configured short, and nothing is asserted about how long they took
//! beyond that they ended.

use super::{config, event, request_with, servers};
use crate::harness::{Blackhole, Client, Gateway, Upstream, Wire, request};

/// Takes requests and says nothing.
async fn silent() -> Upstream {
    Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        wire.ends().await;
    })
    .await
}

fn timeouts(gateway: &Gateway) -> f64 {
    gateway.metric(r#"hookward_upstream_attempts_total{result="timeout",upstream="app"}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_says_nothing_is_a_504() {
    // The provider must be told before it gives up by itself, and the event is not tried elsewhere: it was sent.
    let (silent, other) = (silent().await, Upstream::unreachable().await);
    let yaml = format!("{}, timeout: 150ms", servers(&[silent.address, other.address]));
    let gateway = Gateway::start(&config(&yaml)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(&event("")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (504, "upstream_timeout\n"));
    assert_eq!((timeouts(&gateway), silent.seen().len()), (1.0, 1));
    let line = &gateway.lines(1).await[0];
    let story = ["outcome", "stage", "reason", "server"].map(|key| line[key].as_str().unwrap().to_owned());
    let server = silent.address.to_string();
    assert_eq!(story, ["refused", "dispatch", "upstream_timeout", &server]);
    // What comes too late must find nobody.
    silent.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_do_not_buy_time() {
    // A backend that keeps saying that it is busy would hold the provider's connection for ever.
    let upstream = Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        wire.send(b"HTTP/1.1 102 Processing\r\n\r\n").await;
        wire.ends().await;
    })
    .await;
    let gateway = Gateway::start(&config(&format!("{}, timeout: 150ms", servers(&[upstream.address])))).await;
    assert_eq!(request(gateway.address, &event("")).await.status, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_is_cut() {
    // The sender would wait for the rest as long as its own patience lasts, and the gateway with it.
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked", "X-Until: the end"] {
        let upstream = Upstream::playing(move |mut wire: Wire| async move {
            wire.request().await;
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n").as_bytes())
                .await;
            wire.ends().await;
        })
        .await;
        let gateway = Gateway::start(&config(&format!("{}, timeout: 150ms", servers(&[upstream.address])))).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(&event("")).await;
        assert!(client.whole_answer().await.is_none(), "{head}");
        assert_eq!(gateway.lines(1).await[0]["outcome"], "failed");
        assert_eq!(timeouts(&gateway), 1.0, "{head}");
        upstream.quiet().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_does_not_read_is_a_504() {
    // A large event fills the buffers on the way; the write must not wait for ever either.
    let upstream = Upstream::playing(|mut wire: Wire| async move {
        wire.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = Gateway::start(&config(&format!("{}, timeout: 300ms", servers(&[upstream.address])))).await;
    let start = "POST /webhooks/github HTTP/1.1\r\nHost: gateway.test";
    let answer = request(gateway.address, &request_with(start, "", &vec![b' '; 15 * 1024 * 1024])).await;
    assert_eq!((answer.status, timeouts(&gateway)), (504, 1.0));
    assert_eq!(gateway.metric("hookward_buffered_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_take_the_connection_is_passed_over() {
    // A host that is gone refuses nothing: without a bound on connecting it costs every event the whole time.
    let (gone, alive) = (Blackhole::new().await, Upstream::ok().await);
    let yaml = format!("{}, connect_timeout: 100ms", servers(&[gone.address, alive.address]));
    let gateway = Gateway::start(&config(&yaml)).await;
    for _ in 0..4 {
        assert_eq!(request(gateway.address, &event("")).await.status, 200);
    }
    let failed = r#"hookward_upstream_attempts_total{result="connect_failed",upstream="app"}"#;
    assert_eq!(gateway.metric(failed), 1.0);

    let alone = format!("{}, connect_timeout: 100ms", servers(&[gone.address]));
    let gateway = Gateway::start(&config(&alone)).await;
    let answer = request(gateway.address, &event("")).await;
    assert_eq!((answer.status, answer.text()), (502, "upstream_down\n"));

    let short = format!("{}, connect_timeout: 60s, timeout: 100ms", servers(&[gone.address]));
    let gateway = Gateway::start(&config(&short)).await;
    let answer = request(gateway.address, &event("")).await;
    assert_eq!((answer.status, answer.text()), (504, "upstream_timeout\n"));
}
