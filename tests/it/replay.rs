//! Repeats: absorbed when the event was taken, let through when it was not, whatever was changed about them.
//!
//! The upstream is the judge: what it received is what was forwarded, and every test counts it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookward::clock::UnixMillis;
use tokio::sync::Barrier;

use crate::harness::{
    Act, Answer, Client, Conf, Event, Gateway, NOBODY, NOW, PROVIDERS, SECRET, Upstream, bare, request, secret_of,
    until,
};

async fn send(gateway: &Gateway, event: &Event) -> Answer {
    request(gateway.address, &event.bytes()).await
}

fn every_provider(conf: Conf, keys: &str) -> Conf {
    PROVIDERS.iter().fold(conf, |conf, provider| conf.route(provider, keys))
}

fn later(seconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 + seconds * 1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_taken_event_gets_the_first_status_and_goes_nowhere() {
    // A provider that lost our answer sends the event again; the customer would be charged twice.
    const STATUSES: [u16; 5] = [200, 201, 202, 204, 299];
    let upstream = Upstream::status(|n| STATUSES[n]).await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    for (n, status) in STATUSES.into_iter().enumerate() {
        let event = Event::of("github", &format!("{n}"));
        for _ in 0..3 {
            assert_eq!(send(&gateway, &event).await.status, status);
        }
        assert_eq!(upstream.count(), n + 1, "{status}");
    }
    let lines = gateway.lines(15).await;
    let duplicates = lines.iter().filter(|line| line["outcome"] == "duplicate");
    assert_eq!(duplicates.count(), 10);
    assert_eq!(
        gateway.metric("hookward_replays_total{result=\"done\",route=\"github\"}"),
        10.0
    );
    assert_eq!(gateway.metric("hookward_replay_entries"), 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_204_has_no_length() {
    // RFC 9110 section 8.6 forbids it, and a client that believes the header waits for a body on a shared connection.
    let upstream = Upstream::status(|_| 204).await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..3 {
        client.send(&Event::of("github", "1").bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("content-length")), (204, None));
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_remembered_for_as_long_as_the_route_says() {
    // Forgotten early, a captured request is delivered again; never forgotten, the store fills up for good.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(
        &Conf::to(upstream.address)
            .route("github", "replay: { keep: 1h }")
            .yaml(),
    )
    .await;
    let event = Event::of("github", "1");
    let timeline = [(0, 1), (1, 1), (3_598, 1), (1, 1), (5, 2), (3_595, 2)];
    for (seconds, forwarded) in timeline {
        gateway.clock.advance(Duration::from_secs(seconds));
        assert_eq!(send(&gateway, &event).await.status, 200);
        assert_eq!(upstream.count(), forwarded, "after {seconds} more seconds");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_repeat_is_fresh_when_its_event_is_forgotten() {
    // The shortest window that the configuration allows ends in the very millisecond in which a request that was
    // signed ahead of our clock stops to be fresh; whoever captured it could replay it then.
    let upstream = Upstream::ok().await;
    let stamped = ["slack", "standard-webhooks", "stripe"];
    let conf = stamped.iter().fold(Conf::to(upstream.address), |conf, provider| {
        conf.route(provider, "tolerance: 5m, replay: { keep: 10m }")
    });
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut events: Vec<Event> = stamped
        .map(|provider| Event::signed_at(provider, "1", later(300)))
        .into();
    // A slash command: no id, so its signed bytes are what is remembered.
    let command = Event {
        body: b"command=/deploy&text=now".to_vec(),
        ..Event::of("slack", "1")
    };
    events.push(command.sign("slack", "", later(300), SECRET));
    for event in &events {
        assert_eq!(send(&gateway, event).await.status, 200);
    }
    let mut elapsed = 0;
    for (at_ms, status) in [
        (1, 200),
        (300_000, 200),
        (599_999, 200),
        (600_000, 200),
        (600_001, 401),
        (900_000, 401),
    ] {
        gateway.clock.advance(Duration::from_millis(at_ms - elapsed));
        elapsed = at_ms;
        for event in &events {
            assert_eq!(
                send(&gateway, event).await.status,
                status,
                "{} at {at_ms} ms",
                event.path
            );
        }
    }
    assert_eq!(upstream.count(), events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_forgets_nothing() {
    // An operator or NTP sets the clock; every event of the last day could be replayed at that moment.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    let event = Event::of("github", "1");
    assert_eq!(send(&gateway, &event).await.status, 200);
    for step in [1_i64, -1, 300, -300, 3_600, -3_600, 86_400, -86_400] {
        gateway
            .clock
            .set_wall(UnixMillis(NOW.0.saturating_add_signed(step * 1000)));
        assert_eq!(send(&gateway, &event).await.status, 200, "{step} s");
        assert_eq!(upstream.count(), 1, "{step} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_event_is_free_for_its_retry() {
    // Body-only signatures make a provider's retry look exactly like a replay; taken for one, the event is lost.
    let failures: [(fn() -> Act, u16); 9] = [
        (|| Act::Answer(bare(500)), 500),
        (|| Act::Answer(bare(503)), 503),
        (|| Act::Answer(bare(404)), 404),
        (|| Act::Answer(bare(429)), 429),
        (|| Act::Answer(bare(302)), 302),
        (|| Act::Answer(Vec::new()), 502),
        (|| Act::Answer(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), 502),
        (|| Act::Reset, 502),
        (|| Act::Silence, 504),
    ];
    let count = failures.len();
    let upstream = Upstream::acting(move |n, _| match n % 2 {
        0 => failures[n / 2].0(),
        _ => Act::Answer(bare(200)),
    })
    .await;
    let conf = Conf::to(upstream.address).app("timeout: 2s").route("github", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    for (n, (_, status)) in failures.into_iter().enumerate() {
        let event = Event::of("github", &format!("{n}"));
        assert_eq!(send(&gateway, &event).await.status, status, "failure {n}");
        assert_eq!(send(&gateway, &event).await.status, 200, "retry after failure {n}");
        assert_eq!(send(&gateway, &event).await.status, 200, "repeat after failure {n}");
        assert_eq!(upstream.count(), 2 * n + 2, "failure {n}");
    }
    assert_eq!(gateway.metric("hookward_replay_entries"), count as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_ours_is_no_replay_either() {
    // An event that we had no room, budget or upstream for was never delivered: its retry is the delivery.
    let upstream = Upstream::ok().await;
    let keys = "limits: { rate: 1/s, burst: 2, in_flight: 1 }";
    let gateway = Gateway::start(&Conf::to_app(NOBODY).route("github", keys).yaml()).await;
    let event = Event::of("github", "1");
    until("the upstream's port to close", || {
        std::net::TcpListener::bind("127.0.0.1:0").is_ok()
    })
    .await;
    assert_eq!(send(&gateway, &event).await.status, 502);
    gateway.reload(&Conf::to(upstream.address).route("github", keys).yaml());
    let mut waiting = Client::connect(gateway.address).await;
    waiting.send(&Event::of("github", "2").head()).await;
    until("its place to be taken", || {
        gateway.metric("hookward_in_flight{route=\"github\"}") == 1.0
    })
    .await;
    assert_eq!(send(&gateway, &event).await.status, 503, "busy");
    waiting.send(&Event::of("github", "2").body).await;
    assert_eq!(waiting.answer().await.status, 200);
    gateway.idle().await;
    assert_eq!(send(&gateway, &event).await.status, 429, "the budget is spent");
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(send(&gateway, &event).await.status, 200);
    assert_eq!(upstream.count(), 2);
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// How the upstream fails before it takes an event.
fn history(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let failures = dice.roll(5);
    (0..failures).map(|_| dice.roll(24) as u8).collect()
}

fn fail(how: u8) -> Act {
    match how {
        0..=7 => Act::Answer(bare(500)),
        8..=10 => Act::Answer(bare(503)),
        11 | 12 => Act::Answer(bare(404)),
        13 | 14 => Act::Answer(bare(301)),
        15..=18 => Act::Reset,
        19..=22 => Act::Answer(Vec::new()),
        _ => Act::Silence,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_history_of_failures_ends_in_one_delivery() {
    // The promise to every provider that retries: each attempt after a failure is delivered, none after a success.
    const HISTORIES: u64 = 500;
    const AT_ONCE: u64 = 64;
    let attempts: Mutex<HashMap<u64, usize>> = Mutex::default();
    let upstream = Upstream::acting(move |_, request| {
        let seed = request.header("x-history").unwrap().parse().unwrap();
        let mut attempts = attempts.lock().unwrap();
        let attempt = attempts.entry(seed).or_default();
        *attempt += 1;
        history(seed)
            .get(*attempt - 1)
            .map_or_else(|| Act::Answer(bare(200)), |how| fail(*how))
    })
    .await;
    let conf = Conf::to(upstream.address).app("timeout: 2s");
    let conf = every_provider(conf, "limits: { rate: 100000/s, burst: 100000 }");
    let gateway = Arc::new(Gateway::start(&conf.yaml()).await);
    let live = |lane: u64, gateway: Arc<Gateway>| async move {
        for seed in (lane..HISTORIES).step_by(AT_ONCE as usize) {
            let provider = PROVIDERS[seed as usize % PROVIDERS.len()];
            let failures = history(seed).len();
            let mut statuses = Vec::new();
            // A stamped event is signed afresh for each attempt, others are repeated byte by byte; then one repeat.
            for attempt in 0..failures + 2 {
                let event = Event::signed_at(provider, &format!("{seed}"), later(attempt as u64));
                let event = event.with("X-History", &format!("{seed}"));
                statuses.push(send(&gateway, &event).await.status);
            }
            let taken = statuses.iter().position(|status| *status == 200);
            assert_eq!(taken, Some(failures), "history {seed} of {provider}: {statuses:?}");
            assert_eq!(
                statuses.last(),
                Some(&200),
                "history {seed} of {provider}: {statuses:?}"
            );
        }
    };
    let lanes: Vec<_> = (0..AT_ONCE)
        .map(|lane| tokio::spawn(live(lane, Arc::clone(&gateway))))
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    let attempts: usize = (0..HISTORIES).map(|seed| history(seed).len() + 1).sum();
    assert_eq!(upstream.count(), attempts);
    assert_eq!(gateway.metric("hookward_replay_entries"), HISTORIES as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_copies_at_once_one_is_forwarded() {
    // Check and record in two steps, and whoever sends copies in parallel is paid as often as he has connections.
    const COPIES: usize = 64;
    const ROUNDS: usize = 40;
    let upstream = Upstream::status(|n| 200 + (n % 5) as u16).await;
    let conf = every_provider(
        Conf::to(upstream.address),
        "replay: { wait: 20s }, limits: { rate: 100000/s, burst: 100000 }",
    );
    let gateway = Gateway::start(&conf.yaml()).await;
    let barrier = Arc::new(Barrier::new(COPIES));
    let copy = |address, barrier: Arc<Barrier>| async move {
        let mut client = Client::connect(address).await;
        let mut statuses = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
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
    let expected: Vec<u16> = (0..ROUNDS).map(|round| 200 + (round % 5) as u16).collect();
    for copy in copies {
        assert_eq!(copy.await.unwrap(), expected);
    }
    assert_eq!(upstream.count(), ROUNDS);
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

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_headers_do_not_make_an_event_new() {
    // GitHub's delivery id is not signed: with it as the key, one captured push is delivered as often as one likes.
    let upstream = Upstream::ok().await;
    let conf = every_provider(Conf::to(upstream.address), "limits: { rate: 100000/s, burst: 100000 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let signed = [
        "x-hub-signature-256",
        "x-shopify-hmac-sha256",
        "x-slack-signature",
        "x-slack-request-timestamp",
        "stripe-signature",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ];
    let mut tried = 0;
    for (n, provider) in PROVIDERS.into_iter().enumerate() {
        let captured = Event::of(provider, "1")
            .with("X-Request-Id", "1")
            .with("User-Agent", "other");
        assert_eq!(send(&gateway, &captured).await.status, 200);
        let labels: Vec<String> = captured.headers.iter().map(|(name, _)| name.clone()).collect();
        let labels = labels
            .iter()
            .filter(|name| !signed.contains(&name.to_ascii_lowercase().as_str()));
        for name in labels {
            let value = captured.value(name).to_owned();
            let mut changed = captured.clone();
            changed.set(name, "f00d");
            let variants = [
                captured.clone().without(name),
                changed,
                captured.clone().with(name, &value),
                captured.clone().with(name, "f00d"),
                captured
                    .clone()
                    .with("X-GitHub-Delivery", "f00d")
                    .with("Idempotency-Key", "f00d"),
            ];
            for (which, variant) in variants.iter().enumerate() {
                assert_eq!(
                    send(&gateway, variant).await.status,
                    200,
                    "{provider}, {name}, variant {which}"
                );
                tried += 1;
            }
        }
        assert_eq!(upstream.count(), n + 1, "{provider}");
    }
    assert!(tried >= 80, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stripped_signature_does_not_make_an_event_new() {
    // While a secret is rolled, requests carry one signature for each; a captured one can be sent without either.
    const OLD: &str = "the-old-secret-of-the-route";
    const WHSEC_OLD: &str = "whsec_dGhlLW9sZC1zZWNyZXQtb2YtdGhlLXJvdXRl";
    let upstream = Upstream::ok().await;
    let both = |new: &str, old: &str| format!("secrets: [{{ value: \"{new}\" }}, {{ value: \"{old}\" }}]");
    let schemes = "schemes: { house: { scheme: { mac: hmac-sha256, key: utf8, message: \"{body}\", \
                   signature: { header: x-house, format: list, separator: \" \", encoding: hex } } } }";
    let conf = Conf::to(upstream.address)
        .top(schemes)
        .route_called("stripe", &format!("provider: stripe, {}", both(SECRET, OLD)), "")
        .route_called(
            "standard-webhooks",
            &format!(
                "provider: standard-webhooks, {}",
                both(secret_of("standard-webhooks"), WHSEC_OLD)
            ),
            "",
        )
        .route_called("house", &format!("scheme: house, {}", both(SECRET, OLD)), "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let pair = |provider: &str, old: &str| {
        let signed = |secret| Event::signed_with(provider, "1", NOW, secret);
        (signed(secret_of(provider)), signed(old))
    };
    let mut sets: Vec<[Event; 4]> = Vec::new();
    for (provider, header, separator, old) in [
        ("stripe", "stripe-signature", ",", OLD),
        ("standard-webhooks", "webhook-signature", " ", WHSEC_OLD),
    ] {
        let (new, old) = pair(provider, old);
        let old_value = old.value(header).rsplit(separator).next().unwrap();
        let old_value = if provider == "stripe" {
            old_value
        } else {
            old.value(header)
        };
        let mut with_both = new.clone();
        with_both.set(header, &format!("{}{separator}{old_value}", new.value(header)));
        let mut padded = new.clone();
        padded.set(header, &format!("{}{separator}v9,x", new.value(header)));
        sets.push([with_both, old, new, padded]);
    }
    // Our own scheme signs no id: what is remembered are the signed bytes.
    let hex = |secret| Event::signed_with("github", "1", NOW, secret).value("x-hub-signature-256")[7..].to_owned();
    let house = |value: &str| Event::of("github", "1").to("/webhooks/house").with("x-house", value);
    let (new, old) = (hex(SECRET), hex(OLD));
    let swapped = format!("{old} {new}");
    sets.push([
        house(&format!("{new} {old}")),
        house(&new),
        house(&old),
        house(&swapped),
    ]);
    for (n, set) in sets.iter().enumerate() {
        for variant in set {
            let answer = send(&gateway, variant).await;
            assert_eq!(answer.status, 200, "{}: {:?}", variant.path, variant.headers);
        }
        assert_eq!(upstream.count(), n + 1, "{}", set[0].path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_does_not_make_an_event_new() {
    // The digest of a body-only event depends on the secret: an event taken under the old one, sent again after the
    // rotation, has to be found under the new one.
    const OLD: &str = "the-old-secret-of-the-route";
    const NEXT: &str = "the-next-secret-of-the-route";
    let upstream = Upstream::ok().await;
    let conf = |secrets: &[&str]| {
        let secrets: Vec<_> = secrets.iter().map(|secret| format!("{{ value: {secret} }}")).collect();
        let verified = format!("provider: github, secrets: [{}]", secrets.join(", "));
        Conf::to(upstream.address).route_called("github", &verified, "").yaml()
    };
    let gateway = Gateway::start(&conf(&[OLD, SECRET])).await;
    let signed = |secret| Event::signed_with("github", "1", NOW, secret);
    assert_eq!(send(&gateway, &signed(OLD)).await.status, 200);
    assert_eq!(send(&gateway, &signed(SECRET)).await.status, 200);
    gateway.reload(&conf(&[SECRET]));
    assert_eq!(send(&gateway, &signed(OLD)).await.status, 401);
    assert_eq!(send(&gateway, &signed(SECRET)).await.status, 200);
    gateway.reload(&conf(&[NEXT, SECRET]));
    assert_eq!(send(&gateway, &signed(SECRET)).await.status, 200);
    assert_eq!(send(&gateway, &signed(NEXT)).await.status, 200);
    assert_eq!(upstream.count(), 1);
}

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
    let secret = |route: usize| {
        format!(
            "whsec_{}",
            ["QUFB", "QkJC", "Q0ND", "RERE", "RUVF", "RkZG"][route].repeat(6)
        )
    };
    let routes = ["github", "shopify", "slack", "standard-webhooks", "stripe", "github"];
    let conf = routes
        .iter()
        .enumerate()
        .fold(Conf::to(upstream.address), |conf, (n, provider)| {
            let verified = format!("provider: {provider}, secrets: [{{ value: {} }}]", secret(n));
            conf.route_called(&format!("route-{n}"), &verified, "")
        });
    let gateway = Gateway::start(&conf.yaml()).await;
    for (from, provider) in routes.iter().enumerate() {
        for to in 0..routes.len() {
            let event = Event::signed_with(provider, "1", NOW, &secret(from)).to(&format!("/webhooks/route-{to}"));
            let expected = if from == to { 200 } else { 401 };
            assert_eq!(
                send(&gateway, &event).await.status,
                expected,
                "of route {from} to route {to}"
            );
        }
    }
    assert_eq!(upstream.count(), routes.len());
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
