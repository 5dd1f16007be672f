//! A reload under load: every request sees one configuration, and nothing that was counted, claimed or connected is
//! lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Answer, Client, Conf, Event, Gateway, NOW, SECRET, Upstream, request, until};

async fn send(gateway: &Gateway, event: &Event) -> Answer {
    request(gateway.address, &event.bytes()).await
}

fn event(id: impl std::fmt::Display) -> Event {
    Event::of("github", &id.to_string())
}

/// The secret and the upstream's path that the changing route has in one of four configurations.
fn secret_of(configuration: usize) -> String {
    format!("the-secret-of-configuration-{}", configuration % 4)
}

fn forward_path_of(configuration: usize) -> String {
    format!("/internal/{}", configuration % 4)
}

const UNLIMITED: &str = "limits: { rate: 100000/s, burst: 100000 }";

fn configuration(upstream: &Upstream, n: usize) -> String {
    let verified = format!("provider: github, secrets: [{{ value: {} }}]", secret_of(n));
    let keys = format!("{UNLIMITED}, forward_path: {}", forward_path_of(n));
    let conf = Conf::to(upstream.address)
        .route("github", UNLIMITED)
        .route_called("changing", &verified, &keys);
    // A route that comes and goes, and an upstream that changes half of the time.
    let conf = if n.is_multiple_of(2) {
        conf.route("shopify", UNLIMITED)
    } else {
        conf
    };
    let conf = if n % 4 < 2 { conf.app("timeout: 9s") } else { conf };
    conf.yaml()
}

/// Which configuration is in force: twice its number, and odd while it is being replaced.
#[derive(Default)]
struct Era(AtomicUsize);

impl Era {
    fn read(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn change(&self, replace: impl FnOnce(usize)) {
        let next = self.0.fetch_add(1, Ordering::SeqCst) / 2 + 1;
        replace(next);
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_sees_two_configurations_and_none_is_lost() {
    // A secret is rotated at noon, under load: no event may be refused, none accepted under a secret that is gone,
    // none verified by one configuration and sent where another says.
    const RELOADS: usize = 250;
    const CLIENTS: usize = 6;
    let upstream = Upstream::ok().await;
    let gateway = Arc::new(Gateway::start(&configuration(&upstream, 0)).await);
    let era = Arc::new(Era::default());
    let over = Arc::new(AtomicBool::new(false));
    let judged = Arc::new(AtomicUsize::new(0));
    let live = |n: usize| {
        let (gateway, era, over) = (Arc::clone(&gateway), Arc::clone(&era), Arc::clone(&over));
        let judged = Arc::clone(&judged);
        async move {
            let mut client = Client::connect(gateway.address).await;
            let mut delivered = 0;
            for round in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let id = format!("{n}-{round}");
                client.send(&event(&id).bytes()).await;
                assert_eq!(client.answer().await.status, 200, "the route that stays, {id}");
                let before = era.read();
                let configuration = before / 2;
                let changing = Event::signed_with("github", &id, NOW, &secret_of(configuration));
                client.send(&changing.to("/webhooks/changing").bytes()).await;
                let status = client.answer().await.status;
                assert!(status == 200 || status == 401, "the changing route, {id}: {status}");
                let gone = Event::signed_with("github", &id, NOW, &secret_of(configuration + 2));
                client.send(&gone.to("/webhooks/changing").bytes()).await;
                let gone = client.answer().await.status;
                delivered += 1 + usize::from(status == 200) + usize::from(gone == 200);
                // Judged only when nothing changed in between.
                if era.read() == before && before.is_multiple_of(2) {
                    assert_eq!((status, gone), (200, 401), "configuration {configuration}, {id}");
                    judged.fetch_add(1, Ordering::SeqCst);
                }
            }
            delivered
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(live(n))).collect();
    for n in 0..RELOADS {
        let (seen, before) = (upstream.count(), judged.load(Ordering::SeqCst));
        era.change(|n| gateway.reload(&configuration(&upstream, n)));
        until("requests under the new configuration", || upstream.count() > seen + 2).await;
        // Some configurations stay until a request has met them from beginning to end, however slow the machine is.
        if n.is_multiple_of(5) {
            until("a whole request under it", || judged.load(Ordering::SeqCst) > before).await;
        }
    }
    over.store(true, Ordering::SeqCst);
    let mut delivered = 0;
    for client in clients {
        delivered += client.await.unwrap();
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), delivered, "what was answered 200 is what arrived");
    // The path that the upstream sees belongs to the secret that proved the request.
    for request in seen
        .iter()
        .filter(|request| request.header("x-hookward-route") == Some("changing"))
    {
        let path = request.head.split(' ').nth(1).unwrap();
        let signed = request.header("x-hub-signature-256").unwrap();
        let configuration = (0..4).find(|n| path == forward_path_of(*n)).unwrap();
        let again = Event {
            body: request.body.clone(),
            ..event("")
        };
        let again = again.sign("github", "", NOW, &secret_of(configuration));
        assert_eq!(again.value("x-hub-signature-256"), signed, "{path}");
    }
    gateway.idle().await;
    let counted: f64 = ["github", "changing"]
        .iter()
        .map(|route| {
            let labels = format!("outcome=\"forwarded\",provider=\"github\",reason=\"-\",route=\"{route}\"");
            gateway.metric(&format!("hookward_requests_total{{{labels}}}"))
        })
        .sum();
    assert_eq!(counted, delivered as f64, "counters went on over all reloads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_finished_under_the_rules_it_began_with() {
    // Its route is removed, or its secret changed, while it is on its way: it was accepted, and is delivered as such.
    let upstream = Upstream::holding(|_| 200).await;
    let with = Conf::to(upstream.address)
        .route("github", "forward_path: /then")
        .route("shopify", "");
    let without = Conf::to(upstream.address).route("shopify", "");
    let gateway = Gateway::start(&with.yaml()).await;
    let mut in_flight = Client::connect(gateway.address).await;
    in_flight.send(&event("1").bytes()).await;
    upstream.reached(1).await;
    let mut in_body = Client::connect(gateway.address).await;
    in_body.send(&event("2").head()).await;
    let two = || gateway.metric("hookward_in_flight{route=\"github\"}") == 2.0;
    until("both to be at work", two).await;
    gateway.reload(&without.yaml());
    assert_eq!(send(&gateway, &event("3")).await.status, 404, "the route is gone");
    in_body.send(&event("2").body).await;
    upstream.reached(2).await;
    upstream.release(10);
    for client in [&mut in_flight, &mut in_body] {
        assert_eq!(client.answer().await.status, 200);
        // The next request on the same connection sees the new rules.
        client.send(&event("4").bytes()).await;
        assert_eq!(client.answer().await.status, 404);
    }
    let paths: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| seen.head.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(paths, ["/then", "/then"]);
    gateway.idle().await;
    assert_eq!(gateway.metric("hookward_in_flight{route=\"github\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_survive_a_reload() {
    // A reload that forgets what was seen is a way to have everything delivered a second time.
    let upstream = Upstream::holding(|_| 201).await;
    let conf = |keys: &str| Conf::to(upstream.address).route("github", keys).yaml();
    let gateway = Gateway::start(&conf("replay: { wait: 20s }")).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(&event("1").bytes()).await;
    upstream.reached(1).await;
    gateway.reload(&conf("replay: { wait: 10s, keep: 2h }, limits: { in_flight: 7 }"));
    let mut repeat = Client::connect(gateway.address).await;
    repeat.send(&event("1").bytes()).await;
    let both = || gateway.metric("hookward_in_flight{route=\"github\"}") == 2.0;
    until("the repeat to be at work", both).await;
    upstream.release(1);
    assert_eq!(first.answer().await.status, 201);
    assert_eq!(repeat.answer().await.status, 201);
    for _ in 0..3 {
        gateway.reload(&conf(""));
        assert_eq!(send(&gateway, &event("1")).await.status, 201);
    }
    // Gone for a while and back again: still the same events.
    gateway.reload(&Conf::to(upstream.address).route("shopify", "").yaml());
    assert_eq!(send(&gateway, &event("1")).await.status, 404);
    gateway.reload(&conf(""));
    assert_eq!(send(&gateway, &event("1")).await.status, 201);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_upstream_keeps_connections_and_health() {
    // Otherwise every reload opens all connections anew, and sends requests to servers known to be dead.
    let upstream = Upstream::ok().await;
    let conf = |keys: &str| {
        Conf::to_app(&format!(
            "servers: [\"127.0.0.1:1\", \"{}\"], fail_timeout: 1h",
            upstream.address
        ))
        .route("github", keys)
        .yaml()
    };
    let gateway = Gateway::start(&conf("")).await;
    let failed = || gateway.metric("hookward_upstream_attempts_total{result=\"connect_failed\",upstream=\"app\"}");
    let mut client = Client::connect(gateway.address).await;
    for n in 0..20 {
        client.send(&event(n).bytes()).await;
        assert_eq!(client.answer().await.status, 200);
        gateway.idle().await;
        gateway.reload(&conf(&format!("limits: {{ in_flight: {} }}", 100 + n)));
    }
    assert_eq!(failed(), 1.0, "the dead server was asked once");
    assert!(
        upstream.seen().iter().all(|seen| seen.connection == 0),
        "one connection is enough"
    );
    gateway.clock.advance(Duration::from_secs(3600));
    for n in 20..22 {
        assert_eq!(send(&gateway, &event(n)).await.status, 200);
    }
    assert_eq!(failed(), 2.0, "and once more after an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_upstream_is_used_at_once() {
    // A backend is moved: the old one must not get another event, whatever connections are still open to it.
    let (old, new) = (Upstream::ok().await, Upstream::ok().await);
    let gateway = Gateway::start(&Conf::to(old.address).route("github", "").yaml()).await;
    let mut client = Client::connect(gateway.address).await;
    for n in 0..5 {
        client.send(&event(n).bytes()).await;
        assert_eq!(client.answer().await.status, 200);
    }
    gateway.reload(&Conf::to(new.address).route("github", "").yaml());
    for n in 5..10 {
        client.send(&event(n).bytes()).await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!((old.count(), new.count()), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_clients_change_with_a_reload() {
    // A proxy that is no longer trusted must not speak for others one request longer.
    let upstream = Upstream::ok().await;
    let conf = |trusted: &str| {
        let verified = format!("provider: github, secrets: [{{ value: {SECRET} }}]");
        Conf::to(upstream.address)
            .top(&format!("client: {{ trusted_proxies: [{trusted}] }}"))
            .route_called("github", &verified, "")
            .yaml()
    };
    let gateway = Gateway::start(&conf("127.0.0.1")).await;
    let mut client = Client::connect(gateway.address).await;
    for (n, (trusted, seen)) in [
        ("127.0.0.1", "192.0.2.1"),
        ("", "127.0.0.1"),
        ("127.0.0.0/8", "192.0.2.1"),
    ]
    .into_iter()
    .enumerate()
    {
        gateway.reload(&conf(trusted));
        client
            .send(&event(n).with("X-Forwarded-For", "192.0.2.1").bytes())
            .await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(gateway.lines(n + 1).await[n]["client"], seen, "{trusted:?}");
    }
}
