//! An event that was not taken: its retry is the delivery, however often that takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{every_provider, later, send};
use crate::harness::{Act, Client, Conf, Event, Gateway, NOBODY, PROVIDERS, Upstream, amount, bare, until};

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
    let upstream = Upstream::acting(|_, request| match request.header("x-act") {
        Some("hold") => Act::Hold(bare(200)),
        _ => Act::Answer(bare(200)),
    })
    .await;
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
    waiting
        .send(&Event::of("github", "2").with("X-Act", "hold").bytes())
        .await;
    upstream.reached(1).await;
    assert_eq!(send(&gateway, &event).await.status, 503, "busy");
    upstream.release(1);
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
    let histories = amount("HOOKWARD_HISTORIES", 500) as u64;
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
        for seed in (lane..histories).step_by(AT_ONCE as usize) {
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
    let attempts: usize = (0..histories).map(|seed| history(seed).len() + 1).sum();
    assert_eq!(upstream.count(), attempts);
    assert_eq!(gateway.metric("hookward_replay_entries"), histories as f64);
}
