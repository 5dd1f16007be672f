//! Whose events are remembered, and how many: never a forger's, each route's for itself, within bounds.

use std::time::Duration;

use super::{every_provider, send};
use crate::harness::{Client, Conf, Event, Gateway, NOW, PROVIDERS, Upstream, request, secret_of};

/// A token.
const SECRET: &str = "a-token-of-some-length";

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_with_real_ids_do_not_poison() {
    // Who records before he verifies lets anybody who can guess an id have the real event thrown away.
    let upstream = Upstream::ok().await;
    let conf = every_provider(Conf::to(upstream.address), "limits: { rate: 100000/s, burst: 100000 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let ids: Vec<String> = (0..30).map(|n| format!("{n}")).collect();
    let guessed = "whsec_Z3Vlc3NlZC1ieS1hLXN0cmFuZ2Vy";
    for provider in PROVIDERS {
        let mut client = Client::connect(gateway.address).await;
        for id in &ids {
            client
                .send(&Event::signed_with(provider, id, NOW, guessed).bytes())
                .await;
            assert_eq!(client.answer().await.status, 401, "{provider} {id}");
        }
    }
    assert_eq!((gateway.metric("hookward_replay_entries"), upstream.count()), (0.0, 0));
    for provider in PROVIDERS {
        let mut client = Client::connect(gateway.address).await;
        for id in &ids {
            client.send(&Event::of(provider, id).bytes()).await;
            assert_eq!(client.answer().await.status, 200, "{provider} {id}");
        }
    }
    assert_eq!(upstream.count(), PROVIDERS.len() * ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_on_two_routes_is_two_deliveries() {
    // Two subscriptions get the same event under the same id; one of them would silently miss it.
    let upstream = Upstream::ok().await;
    let mut conf = Conf::to(upstream.address);
    for provider in PROVIDERS {
        let verified = format!(
            "provider: {provider}, secrets: [{{ value: \"{}\" }}]",
            secret_of(provider)
        );
        conf = conf
            .route(provider, "")
            .route_called(&format!("{provider}-two"), &verified, "");
    }
    let gateway = Gateway::start(&conf.yaml()).await;
    for (n, provider) in PROVIDERS.into_iter().enumerate() {
        let event = Event::of(provider, "1");
        let other = event.clone().to(&format!("/webhooks/{provider}-two"));
        for event in [&event, &other, &event, &other] {
            assert_eq!(send(&gateway, event).await.status, 200);
        }
        assert_eq!(upstream.count(), 2 * n + 2, "{provider}");
    }
    let routes: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| seen.header("x-hookward-route").unwrap().to_owned())
        .collect();
    assert_eq!(routes[..4], ["github", "github-two", "shopify", "shopify-two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_valid_for_one_route_is_refused_on_every_other() {
    // A tenant's own secret must not open another tenant's route.
    let upstream = Upstream::ok().await;
    const TENANTS: usize = 4;
    let secret = |route: usize| {
        let digits = [route / TENANTS, route % TENANTS].map(|digit| ["QUFB", "QkJC", "Q0ND", "RERE", "RUVF"][digit]);
        format!("whsec_{}", digits.concat().repeat(3))
    };
    let routes: Vec<_> = PROVIDERS.iter().flat_map(|provider| [*provider; TENANTS]).collect();
    let conf = routes
        .iter()
        .enumerate()
        .fold(Conf::to(upstream.address), |conf, (n, provider)| {
            let verified = format!("provider: {provider}, secrets: [{{ value: {} }}]", secret(n));
            conf.route_called(&format!("route-{n}"), &verified, "")
        });
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut client = Client::connect(gateway.address).await;
    for (from, provider) in routes.iter().enumerate() {
        for to in 0..routes.len() {
            let event = Event::signed_with(provider, "1", NOW, &secret(from)).to(&format!("/webhooks/route-{to}"));
            client.send(&event.bytes()).await;
            let expected = if from == to { 200 } else { 401 };
            assert_eq!(client.answer().await.status, expected, "of route {from} to route {to}");
        }
    }
    assert_eq!(upstream.count(), routes.len(), "equal ids, and each route got its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_can_be_alike_are_all_delivered() {
    // A calendar's second change of the day reads like its first; taken for a repeat, nobody would ever learn of it.
    let upstream = Upstream::ok().await;
    let verified = format!("provider: google-channels, secrets: [{{ value: {SECRET} }}]");
    let conf = Conf::to(upstream.address)
        .route_called("changes", &verified, "")
        .route_called("guarded", &verified, "replay: { keep: 10m }");
    let gateway = Gateway::start(&conf.yaml()).await;
    for route in ["changes", "guarded"] {
        let event = Event {
            path: format!("/webhooks/{route}"),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let event = event
            .with("X-Goog-Channel-Token", SECRET)
            .with("X-Goog-Resource-State", "exists");
        for number in ["1", "2", "3"] {
            let event = event.clone().with("X-Goog-Message-Number", number);
            assert_eq!(send(&gateway, &event).await.status, 200);
        }
    }
    let routes: Vec<_> = upstream
        .seen()
        .iter()
        .map(|seen| seen.header("x-hookward-route").unwrap().to_owned())
        .collect();
    assert_eq!(routes, ["changes", "changes", "changes", "guarded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_guard_every_copy_is_forwarded() {
    // Who switches it off has a reason (a backend that wants every copy); half a guard would be the worst of both.
    let upstream = Upstream::holding(|_| 200).await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "replay: off").yaml()).await;
    let event = Event::of("github", "1").bytes();
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = Client::connect(gateway.address).await;
        client.send(&event).await;
        upstream.reached(n + 1).await;
        clients.push(client);
    }
    upstream.release(4);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(request(gateway.address, &event).await.status, 200);
    assert_eq!((upstream.count(), gateway.metric("hookward_replay_entries")), (4, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_the_new_and_knows_the_old() {
    // Forgetting old events to make room would let anybody who can cause many events replay an old one.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address)
        .top("replay: { entries: 3 }")
        .route("github", "replay: { keep: 1h }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let events: Vec<Event> = (0..6).map(|n| Event::of("github", &format!("{n}"))).collect();
    for event in &events[..3] {
        assert_eq!(send(&gateway, event).await.status, 200);
    }
    for event in &events[3..] {
        let answer = send(&gateway, event).await;
        assert_eq!((answer.status, answer.text()), (503, "store_down\n"));
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    for event in &events[..3] {
        assert_eq!(send(&gateway, event).await.status, 200, "a known one");
    }
    assert_eq!((upstream.count(), gateway.metric("hookward_replay_entries")), (3, 3.0));
    gateway.clock.advance(Duration::from_secs(3_605));
    for event in &events[3..] {
        assert_eq!(send(&gateway, event).await.status, 200, "there is room again");
    }
    assert_eq!(upstream.count(), 6);
}
