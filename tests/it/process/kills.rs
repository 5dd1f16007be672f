//! Killed at any moment, over and over, reloaded in between, under load and before a backend that comes and goes: what was
//! answered 200 is delivered, and nothing is counted twice or lost.
//!
//! 100 cycles as a rule; for a long run `HOOKWARD_CYCLES` says otherwise, and `HOOKWARD_EVENTS` that it goes on until so
//! many events were accepted.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::process::Running;
use crate::harness::{
    API_SECRET, Act, Event, Folder, NOW, Queueing, Recorded, SECRET, Upstream, amount, api, bare, request,
};

/// Senders at a time.
const SENDERS: usize = 6;

/// Attempts under way at a time.
const CONCURRENCY: usize = 8;

/// What the senders know.
#[derive(Default)]
pub(super) struct Sent {
    next: AtomicUsize,
    pub(super) accepted: Mutex<HashSet<Vec<u8>>>,
    /// Sent without an answer: they may have been taken.
    unanswered: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost() {
    // An order whose provider was told "taken" would never arrive.
    let (least, events) = (amount("HOOKWARD_CYCLES", 100), amount("HOOKWARD_EVENTS", 0));
    let folder = Folder::new();
    let well = Arc::new(AtomicBool::new(false));
    let flapping = Arc::clone(&well);
    let upstream = Upstream::acting(move |n, _| match (flapping.load(Ordering::SeqCst), n % 7) {
        (true, _) => Act::Answer(bare(200)),
        (false, 0) => Act::Answer(bare(500)),
        (false, 3) => Act::Reset,
        (false, _) => Act::Answer(bare(200)),
    })
    .await;
    let delivery = format!("concurrency: {CONCURRENCY}, breaker_failures: 3, breaker_pause: 50ms");
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, &delivery)
        .route(
            "github",
            "github",
            "app",
            "retry: { exponential: { base: 20ms, factor: 2, cap: 200ms, attempts: 1000 } }",
        );
    let sent = Arc::new(Sent::default());
    let mut moment = 7_u64;
    let mut cycles = 0;
    while cycles < least || sent.accepted.lock().unwrap().len() < events {
        let mut running = Running::start(&conf.yaml()).await;
        checkpoint(&running, &sent).await;
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| tokio::spawn(send(running.address, Arc::clone(&sent))))
            .collect();
        // Different in each cycle, the same in each run.
        moment = moment
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let millis = 20 + (moment >> 33) % 150;
        tokio::time::sleep(Duration::from_millis(millis / 2)).await;
        running.process.signal("HUP").await;
        tokio::time::sleep(Duration::from_millis(millis / 2)).await;
        // Now and then in order: nobody may be told anything else than by a kill.
        running
            .process
            .signal(if cycles % 5 == 4 { "TERM" } else { "KILL" })
            .await;
        running.process.end().await;
        for sender in senders {
            sender.await.unwrap();
        }
        cycles += 1;
    }
    well.store(true, Ordering::SeqCst);
    let running = Running::start(&conf.yaml()).await;
    let to_go = owed(&running).await;
    let (accepted, attempts) = (sent.accepted.lock().unwrap().len(), upstream.count());
    println!("{cycles} cycles, {accepted} events accepted, {attempts} attempts, {to_go} to go");
    empty(&running).await;
    checkpoint(&running, &sent).await;
    judge(&upstream.seen(), &sent, cycles);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_knows_every_repeat() {
    // The process dies, the provider sends again what was answered already, and the customer is charged twice.
    let cycles = amount("HOOKWARD_CYCLES", 20);
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "");
    let yaml = conf.yaml().replace("deliver: queue, ", "");
    let (sent, mut known) = (Arc::new(Sent::default()), 0);
    for cycle in 0..cycles {
        let mut running = Running::start(&yaml).await;
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| tokio::spawn(send(running.address, Arc::clone(&sent))))
            .collect();
        upstream.reached(upstream.count() + 1 + cycle * 7 % 31).await;
        running.process.signal("KILL").await;
        running.process.end().await;
        for sender in senders {
            sender.await.unwrap();
        }
        let mut running = Running::start(&yaml).await;
        let taken = std::mem::take(&mut *sent.accepted.lock().unwrap());
        let before = upstream.count();
        for body in &taken {
            let event = Event {
                body: body.clone(),
                ..Event::of("github", "")
            };
            let event = event.sign("github", "", NOW, SECRET);
            assert_eq!(request(running.address, &event.bytes()).await.status, 200);
        }
        assert_eq!(upstream.count(), before, "sent again, of {}", taken.len());
        known += taken.len();
        running.process.signal("KILL").await;
        running.process.end().await;
    }
    println!("{cycles} kills, {known} repeats known");
    assert!(known > cycles, "hardly any load: {known}");
}

/// Sends one event after another until nobody answers.
pub(super) async fn send(address: std::net::SocketAddr, sent: Arc<Sent>) {
    loop {
        let number = sent.next.fetch_add(1, Ordering::SeqCst);
        let event = Event::of("github", &format!("event-{number}"));
        sent.unanswered.fetch_add(1, Ordering::SeqCst);
        let Some(answer) = exchange(address, &event.bytes()).await else {
            return;
        };
        // An orderly end refuses what it does not take.
        if answer == 503 {
            sent.unanswered.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        assert_eq!(answer, 200);
        sent.unanswered.fetch_sub(1, Ordering::SeqCst);
        sent.accepted.lock().unwrap().insert(event.body);
    }
}

/// The status; `None` when the process is gone.
async fn exchange(address: std::net::SocketAddr, bytes: &[u8]) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

/// At every checkpoint: accepted = delivered + dead + owed, and the events without an answer that were taken all the same.
pub(super) async fn checkpoint(running: &Running, sent: &Sent) {
    let (status, queue) = api(running.admin, "GET", "/api/queue", API_SECRET).await;
    assert_eq!(status, 200, "{queue}");
    let lanes = queue["lanes"].as_array().unwrap().iter();
    let kept: usize = lanes.map(|lane| lane["deliveries"].as_u64().unwrap() as usize).sum();
    let accepted = sent.accepted.lock().unwrap().len();
    let most = accepted + sent.unanswered.load(Ordering::SeqCst);
    assert!((accepted..=most).contains(&kept), "{kept} kept of {accepted} to {most}");
}

pub(super) async fn empty(running: &Running) {
    let (mut least, mut in_vain) = (u64::MAX, 0);
    while least > 0 {
        let now = owed(running).await;
        in_vain = if now < least { 0 } else { in_vain + 1 };
        least = least.min(now);
        assert!(
            in_vain < 6000,
            "the queue does not become empty\n{}",
            running.process.said()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Deliveries that have not ended.
pub(super) async fn owed(running: &Running) -> u64 {
    let (_, queue) = api(running.admin, "GET", "/api/queue", API_SECRET).await;
    let lanes = queue["lanes"].as_array().unwrap().iter();
    let open = lanes.filter(|lane| {
        ["pending", "waiting", "blocked", "leased"]
            .iter()
            .any(|open| lane["state"] == *open)
    });
    open.map(|lane| lane["deliveries"].as_u64().unwrap()).sum()
}

fn judge(seen: &[Recorded], sent: &Sent, cycles: usize) {
    let mut attempts: HashMap<&[u8], Vec<(&str, u32)>> = HashMap::new();
    for request in seen {
        let id = request.header("x-hookward-event-id").unwrap();
        let attempt = request.header("x-hookward-attempt").unwrap().parse().unwrap();
        attempts.entry(&request.body).or_default().push((id, attempt));
    }
    let accepted = sent.accepted.lock().unwrap();
    let lost: Vec<_> = accepted
        .iter()
        .filter(|body| !attempts.contains_key(body.as_slice()))
        .collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), accepted.len());
    for attempts in attempts.values() {
        assert!(attempts.iter().all(|(id, _)| *id == attempts[0].0), "{attempts:?}");
        let numbers: Vec<u32> = attempts.iter().map(|(_, number)| *number).collect();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "a repeat that looks like the first: {numbers:?}"
        );
    }
    // Failures and kills alone make a second attempt: every seventh twice, and what was out at each kill.
    let repeats = seen.len() - attempts.len();
    let failures = seen.len() * 2 / 7 + 1;
    assert!(
        repeats <= failures + cycles * CONCURRENCY,
        "{repeats} repeats of {}",
        seen.len()
    );
    assert!(accepted.len() > cycles, "hardly any load: {}", accepted.len());
}
