//! The whole process stopped for a while, as by a machine that is moved or swaps, while events are out.
//!
//! Once, for longer than an attempt may take, as a rule. For a long run `HOOKWARD_STOPS` says how often, and
//! `HOOKWARD_STOP_SECONDS` for how long: beyond 31 s leases pass as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::kills::empty;
use crate::harness::process::Running;
use crate::harness::{Act, Event, Folder, Queueing, Upstream, amount, bare, request};

/// Attempts under way at a time.
const CONCURRENCY: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_loses_nothing_and_marks_what_comes_again() {
    // A virtual machine is moved to another host: what was out is lost, or comes twice and looks new both times.
    let (folder, holds) = (Folder::new(), Arc::new(AtomicBool::new(true)));
    let held = Arc::clone(&holds);
    let upstream = Upstream::acting(move |_, _| match held.load(Ordering::SeqCst) {
        true => Act::Hold(bare(200)),
        false => Act::Answer(bare(200)),
    })
    .await;
    let delivery = format!("concurrency: {CONCURRENCY}, breaker_failures: 100");
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, &delivery)
        .route("github", "github", "app", "retry: { schedule: [1s, 1s, 1s, 1s, 1s] }");
    let yaml = conf.yaml().replace("timeout: 5s", "timeout: 1s");
    let running = Running::start(&yaml).await;
    let (stops, seconds) = (amount("HOOKWARD_STOPS", 1), amount("HOOKWARD_STOP_SECONDS", 2));
    let mut sent = 0;
    for _ in 0..stops {
        holds.store(true, Ordering::SeqCst);
        let before = upstream.count();
        for _ in 0..8 {
            let event = Event::of("github", &sent.to_string());
            assert_eq!(request(running.address, &event.bytes()).await.status, 200);
            sent += 1;
        }
        upstream.reached(before + CONCURRENCY).await;
        running.process.signal("STOP").await;
        // Answered meanwhile, which the process learns when it goes on.
        holds.store(false, Ordering::SeqCst);
        upstream.release(CONCURRENCY);
        tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
        running.process.signal("CONT").await;
        empty(&running).await;
    }
    let mut attempts: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
    for request in upstream.seen() {
        let number = request.header("x-hookward-attempt").unwrap().parse().unwrap();
        attempts.entry(request.body).or_default().push(number);
    }
    println!(
        "{stops} stops of {seconds} s, {sent} events, {} attempts",
        upstream.count()
    );
    assert_eq!(attempts.len(), sent);
    for numbers in attempts.values() {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    }
}
