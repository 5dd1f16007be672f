//! A gateway that has more to do than its processors can.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::harness::{Answer, Client, Conf, Event, Gateway, H2, Upstream, hold_thread, sign_github, until};

/// A gateway under strain that takes one event a second from each client, and another client that was refused.
async fn refused(upstream: &Upstream, more: &str) -> (Gateway, Client) {
    let conf = Conf::to(upstream.address)
        .limits("client_rate: 1/s, client_burst: 1")
        .top(more);
    let gateway = Gateway::start(&conf.route("github", "").yaml()).await;
    gateway.strain().await;
    let mut client = Client::connect(gateway.address).await;
    assert_eq!(ask(&mut client, "1").await.status, 200);
    let answer = ask(&mut client, "2").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")));
    (gateway, client)
}

async fn ask(client: &mut Client, id: &str) -> Answer {
    client.send(&Event::of("github", id).bytes()).await;
    client.answer().await
}

/// What others are answered meanwhile.
async fn others(gateway: &Gateway, from: std::ops::Range<u8>) {
    for n in from {
        let mut other = Client::connect_from(&format!("127.0.0.{n}"), gateway.address).await;
        assert_eq!(ask(&mut other, &format!("other {n}")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn under_strain_nobody_is_heard_before_the_time_he_was_told() {
    // Whoever sends again as soon as he is refused would have the processor spent on refusals: of what a gateway can do,
    // a fifth was left for events.
    let upstream = Upstream::ok().await;
    let (gateway, mut early) = refused(&upstream, "").await;
    early.send(&Event::of("github", "3").bytes()).await;
    gateway.clock.advance(Duration::from_millis(4900));
    others(&gateway, 10..20).await;
    assert_eq!(upstream.seen().len(), 11, "it was heard");
    gateway.clock.advance(Duration::from_millis(100));
    assert_eq!(early.answer().await.status, 200);
    assert_eq!(upstream.seen().len(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_keeps_to_it_is_heard_at_once() {
    // A provider's retry that comes when it was asked for must not be made to wait once more.
    let upstream = Upstream::ok().await;
    let (gateway, mut client) = refused(&upstream, "").await;
    gateway.clock.advance(Duration::from_secs(5));
    assert_eq!(ask(&mut client, "2").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_sent_apart_from_its_head_is_no_impatience() {
    // The last read of such a body found just what it asked for, and Tokio took the connection for readable afterwards: who
    // kept to the time he was told was taken for one who did not, and told half of the time that he was to wait.
    let upstream = Upstream::ok().await;
    let (gateway, mut client) = refused(&upstream, "").await;
    let mut other = Client::connect(gateway.address).await;
    gateway.clock.advance(Duration::from_secs(10));
    gateway.strain().await;
    assert_eq!(ask(&mut other, "3").await.status, 200);
    let event = Event::of("github", "4");
    client.send(&event.head()).await;
    until("the head to be read", || gateway.active() == 1).await;
    client.send(&event.body).await;
    assert_eq!(client.answer().await.status, 429);
    // It waits for its time.
    gateway.clock.advance(Duration::from_secs(10));
    gateway.strain().await;
    assert_eq!(ask(&mut other, "5").await.status, 200);
    assert_eq!(ask(&mut client, "6").await.status, 429);
    gateway.clock.advance(Duration::from_secs(5));
    assert_eq!(ask(&mut client, "7").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_trusted_proxy_is_heard_always() {
    // Its connections carry many clients: one that was refused would hold up all others.
    let upstream = Upstream::ok().await;
    let (gateway, mut proxy) = refused(&upstream, "client: { trusted_proxies: [127.0.0.1] }").await;
    let again = ask(&mut proxy, "3");
    gateway.clock.advance(Duration::from_millis(10));
    assert_eq!(again.await.status, 429);
    let event = Event::of("github", "4").with("X-Forwarded-For", "192.0.2.1").bytes();
    proxy.send(&event).await;
    assert_eq!(proxy.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refusals_go_out_in_turn_and_streams_beside_them_at_once() {
    // Over HTTP/2 and behind a proxy a connection carries many: whoever sends again at once must not have the processor,
    // and nobody may be held up by what a refused neighbour has sent, which is nearly all that a connection may.
    let upstream = Upstream::ok().await;
    let (gateway, _client) = refused(&upstream, "client: { trusted_proxies: [127.0.0.1] }").await;
    let body = Bytes::from(vec![b'x'; 60_000]);
    let signature = sign_github(&body);
    let event = |client: &str, id: &str| {
        let request = Request::post("http://gateway.test/webhooks/github").header("x-forwarded-for", client);
        let request = request.header("x-hub-signature-256", signature.clone());
        request.header("x-github-delivery", id).body(body.clone()).unwrap()
    };
    let mut proxy = H2::connect(gateway.address).await;
    assert_eq!(proxy.ask(event("192.0.2.9", "1")).await.unwrap().status(), 200);
    let (head, body) = event("192.0.2.9", "2").into_parts();
    let mut second = proxy.open(Request::from_parts(head, ()), false).await.unwrap();
    second.send(body, usize::MAX, true).await;
    let second = tokio::spawn(second.answer());
    assert_eq!(proxy.ask(event("192.0.2.10", "3")).await.unwrap().status(), 200);
    assert!(!second.is_finished(), "it was not its turn");
    gateway.clock.advance(Duration::from_millis(1));
    let second = second.await.unwrap().unwrap();
    assert_eq!(
        (second.status().as_u16(), &second.headers()["retry-after"]),
        (429, &"5".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn operators_see_that_the_processors_are_behind() {
    // Requests that wait are neither refused nor failed: without this nothing would tell why providers give up.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    assert_eq!(gateway.metric("hookward_overloaded"), 0.0);
    gateway.strain().await;
    assert_eq!(gateway.metric("hookward_overloaded"), 1.0);
    until("the end of it", || {
        gateway.clock.advance(Duration::from_secs(4));
        gateway.metric("hookward_overloaded") == 0.0
    })
    .await;
}

/// A gateway, and clients that are connected to it and have said nothing.
async fn crowd(upstream: &Upstream, count: usize, client: &str) -> (Gateway, Vec<Client>) {
    let conf = Conf::to(upstream.address)
        .top(client)
        .route("github", "limits: { rate: 1000/s, burst: 1000, in_flight: 1000 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(gateway.address).await);
    }
    until("all connections to be open", || {
        gateway.metric("hookward_open_connections") == count as f64
    })
    .await;
    (gateway, clients)
}

/// Has each client send an event, before anybody hears of any.
async fn all_at_once(clients: &mut [Client]) -> mpsc::Sender<()> {
    let thread = hold_thread().await;
    for (n, client) in clients.iter_mut().enumerate() {
        assert!(client.send(&Event::of("github", &n.to_string()).bytes()).await);
    }
    thread
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_are_begun_a_few_at_a_time_under_strain_and_at_once_without() {
    // A gateway that is behind and begins whatever has arrived finds the memory of each request cold when its backend has
    // answered. Connections that were open and silent when the strain began waited for nothing but their data.
    for strained in [false, true] {
        let upstream = Upstream::holding(|_| 200).await;
        let (gateway, mut clients) = crowd(&upstream, 100, "").await;
        if strained {
            gateway.strain().await;
        }
        let thread = all_at_once(&mut clients).await;
        let most = gateway.most_begun("github", 100);
        drop(thread);
        upstream.reached(100).await;
        upstream.release(100);
        for client in &mut clients {
            assert_eq!(client.answer().await.status, 200);
        }
        let most = most.load(Ordering::Relaxed);
        assert_eq!(most <= 40, strained, "{most} at a time, strain: {strained}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_is_in_line_is_not_timed_out() {
    // The request came in time; that it waits is the gateway's doing.
    let upstream = Upstream::ok().await;
    let (gateway, _) = crowd(&upstream, 0, "client: { head_timeout: 200ms }").await;
    gateway.strain().await;
    let mut client = Client::connect(gateway.address).await;
    until("the connection to be open", || {
        gateway.metric("hookward_open_connections") == 1.0
    })
    .await;
    let thread = all_at_once(std::slice::from_mut(&mut client)).await;
    // Timers of connections go by real time: it is over when the gateway hears of the request.
    std::thread::sleep(Duration::from_millis(400));
    drop(thread);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_is_in_line_at_the_end_is_served() {
    // Closed without an answer, a sender does not know whether the event arrived.
    let upstream = Upstream::ok().await;
    let (mut gateway, mut clients) = crowd(&upstream, 500, "").await;
    gateway.strain().await;
    let thread = all_at_once(&mut clients).await;
    drop(thread);
    upstream.reached(1).await;
    let stopping = gateway.stopping();
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    stopping.await.unwrap();
    assert_eq!(upstream.count(), 500);
}
