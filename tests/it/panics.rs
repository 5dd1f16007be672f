//! Mistakes of our own, as far as one can be brought about: a resolver that panics in the middle of a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use hookward::fetch::Resolve;

use crate::harness::{Client, Conf, Event, Gateway, H2, Sns, Upstream, request, sns_event, sns_message};

/// Who looks the first name up, and then no more.
struct Broken {
    address: SocketAddr,
    asked: AtomicBool,
}

#[async_trait]
impl Resolve for Broken {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<SocketAddr>> {
        assert!(
            !self.asked.swap(true, Ordering::SeqCst),
            "a mistake that a test has made"
        );
        Ok(vec![self.address])
    }
}

/// A gateway that has the key of SNS, and panics in the middle of each confirmation.
async fn gateway(sns: &Sns, upstream: &Upstream) -> Gateway {
    let conf = Sns::route(Conf::to(upstream.address), "confirm: true, limits: { in_flight: 4 }").route("github", "");
    let resolver = Broken {
        address: sns.address(),
        asked: AtomicBool::new(false),
    };
    let gateway = Gateway::start_in(sns.world_resolved_by(Arc::new(resolver)), &conf.yaml()).await;
    let event = sns_event(sns_message("Notification", "first"));
    assert_eq!(request(gateway.address, &event.bytes()).await.status, 200);
    gateway
}

fn confirmation(id: usize) -> Event {
    sns_event(sns_message("SubscriptionConfirmation", &id.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_request() {
    // One request that meets a mistake of ours would be an outage, or leak a place each time until there are none.
    let (sns, upstream) = (Sns::start().await, Upstream::ok().await);
    let gateway = gateway(&sns, &upstream).await;
    let mut beside = Client::connect(gateway.address).await;
    // A route may visit ten addresses a minute.
    for n in 0..8 {
        let mut client = Client::connect(gateway.address).await;
        client.send(&confirmation(n).bytes()).await;
        // Nothing that could be taken for a yes.
        assert_eq!(client.rest().await, b"");
        beside.send(&Event::of("github", &n.to_string()).bytes()).await;
        assert_eq!(beside.answer().await.status, 200, "the connection beside it");
    }
    gateway.idle().await;
    for series in [
        "hookward_in_flight{route=\"sns\"}",
        "hookward_in_flight{route=\"github\"}",
        "hookward_buffered_bytes",
    ] {
        assert_eq!(gateway.metric(series), 0.0, "{series}");
    }
    assert_eq!(
        request(gateway.address, &Event::of("github", "last").bytes())
            .await
            .status,
        200
    );
    assert_eq!(upstream.count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_a_panic_costs_one_stream() {
    // A connection of HTTP/2 carries the events of many.
    let (sns, upstream) = (Sns::start().await, Upstream::ok().await);
    let gateway = gateway(&sns, &upstream).await;
    let mut client = H2::connect(gateway.address).await;
    let of = |event: Event| {
        let mut request = http::Request::post(format!("http://gateway.test{}", event.path));
        for (name, value) in &event.headers {
            request = request.header(name, value);
        }
        request.body(bytes::Bytes::from(event.body)).unwrap()
    };
    for n in 0..5 {
        assert!(client.ask(of(confirmation(n))).await.is_err());
        let answer = client.ask(of(Event::of("github", &n.to_string()))).await;
        assert_eq!(answer.unwrap().status(), 200, "the next stream");
    }
    gateway.idle().await;
    assert_eq!(upstream.count(), 6);
}
