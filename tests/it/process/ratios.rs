//! How much others notice: measurements, printed. Run by name, in a release build:
//! `cargo test --release --test it process::ratios -- --ignored --nocapture --test-threads 1`

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::kills::empty;
use crate::harness::process::Running;
use crate::harness::{Client, Event, Folder, Queueing, Recorded, Refusing, Upstream, amount, bare};

/// When each event was sent, and how long it took to its destination.
#[derive(Default)]
struct Times {
    sent: Mutex<HashMap<Vec<u8>, Instant>>,
    took: Mutex<Vec<Duration>>,
}

impl Times {
    fn arrived(&self, request: &Recorded) {
        if let Some(sent) = self.sent.lock().unwrap().remove(&request.body) {
            self.took.lock().unwrap().push(sent.elapsed());
        }
    }

    /// p50 and p99 of what arrived since the last call, in milliseconds.
    fn percentiles(&self) -> (f64, f64) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort();
        let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1000.0;
        (at(50), at(99))
    }
}

async fn timed(times: &Arc<Times>) -> Upstream {
    let times = Arc::clone(times);
    Upstream::answering(move |_, request| {
        times.arrived(request);
        bare(200)
    })
    .await
}

/// Sends `count` events, so many a second, to the routes in turn; `name` makes them new.
async fn send(running: &Running, times: &Times, routes: &[String], name: &str, (count, rate): (usize, usize)) {
    let mut client = Client::connect(running.address).await;
    let started = Instant::now();
    for n in 0..count {
        let due = started + Duration::from_micros(n as u64 * 1_000_000 / rate as u64);
        tokio::time::sleep_until(due.into()).await;
        let path = format!("/webhooks/{}", routes[n % routes.len()]);
        let event = Event::of("github", &format!("{name}-{n}")).to(&path);
        times.sent.lock().unwrap().insert(event.body.clone(), Instant::now());
        client.send(&event.bytes()).await;
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn isolation() {
    // Figures that nobody took are guesses.
    const HEALTHY: usize = 48;
    let amounts = (amount("HOOKWARD_EVENTS", 20_000), 500);
    for round in 0..2 {
        let (folder, times) = (Folder::new(), Arc::new(Times::default()));
        let (dead, slow) = (Refusing::new(), Upstream::holding(|_| 200).await);
        let mut conf = Queueing::in_folder(&folder)
            .upstream("dead", dead.address, "")
            .upstream("slow", slow.address, "concurrency: 4")
            .route("dead", "github", "dead", "")
            .route("slow", "github", "slow", "");
        let mut others = Vec::new();
        for n in 0..HEALTHY {
            let upstream = timed(&times).await;
            let (name, route) = (format!("u{n}"), format!("r{n}"));
            conf = conf
                .upstream(&name, upstream.address, "")
                .route(&route, "github", &name, "");
            others.push(upstream);
        }
        let running = Running::start(&conf.yaml()).await;
        let healthy: Vec<String> = (0..HEALTHY).map(|n| format!("r{n}")).collect();
        let all = [&healthy[..], &["dead".to_owned(), "slow".to_owned()]].concat();
        send(&running, &times, &healthy, "warm", (2000, 500)).await;
        times.percentiles();
        let mut p99 = Vec::new();
        // Alternately, so that what the machine does meanwhile meets both.
        for part in 0..4 {
            let (name, routes) = if part % 2 == 0 {
                ("well", &healthy)
            } else {
                ("ill", &all)
            };
            send(
                &running,
                &times,
                routes,
                &format!("{name}{part}"),
                (amounts.0 / 4, amounts.1),
            )
            .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (half, most) = times.percentiles();
            println!("round {round}, {name}: p50 {half:.2} ms, p99 {most:.2} ms");
            p99.push(most);
        }
        println!(
            "ratios of p99, ill to well: {:.2}, {:.2}",
            p99[1] / p99[0],
            p99[3] / p99[2]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn herd() {
    // As above.
    const RATE: usize = 2000;
    let backlog = amount("HOOKWARD_EVENTS", 100_000);
    let (folder, times, away) = (Folder::new(), Arc::new(Times::default()), Refusing::new());
    let well = timed(&times).await;
    let delivery = format!("rate: {RATE}/s, concurrency: 64, breaker_pause: 1s");
    let conf = Queueing::in_folder(&folder)
        .upstream("away", away.address, &delivery)
        .upstream("well", well.address, "")
        .route("old", "github", "away", "")
        .route("fresh", "github", "well", "");
    let running = Running::start(&conf.yaml()).await;
    let fresh = ["fresh".to_owned()];
    let sending = (0..16).map(|sender| {
        let address = running.address;
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for n in 0..backlog / 16 {
                let event = Event::of("github", &format!("{sender}-{n}")).to("/webhooks/old");
                client.send(&event.bytes()).await;
                assert_eq!(client.answer().await.status, 200);
            }
        })
    });
    for sender in sending.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    send(&running, &times, &fresh, "warm", (2000, 500)).await;
    times.percentiles();
    send(&running, &times, &fresh, "before", (5000, 500)).await;
    let (_, before) = times.percentiles();
    let back = away.recovers();
    // The breaker lets one through, then two, then four.
    back.reached(64).await;
    let rates = Arc::new(Mutex::new(Vec::new()));
    let last = AtomicUsize::new(back.count());
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = back.count();
            rates.lock().unwrap().push(now - last.swap(now, Ordering::SeqCst));
        }
    };
    tokio::select! {
        () = watching => {}
        () = send(&running, &times, &fresh, "during", (5000, 500)) => {}
    }
    let (_, during) = times.percentiles();
    println!(
        "fresh events, p99: {before:.2} ms before, {during:.2} ms during, ratio {:.2}",
        during / before
    );
    println!("a second, of {RATE} allowed: {:?}", rates.lock().unwrap());
    let started = Instant::now();
    while back.count() < backlog / 16 * 16 && started.elapsed() < Duration::from_secs(300) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    empty(&running).await;
    println!("{} attempts for a backlog of {backlog}", back.count());
}
