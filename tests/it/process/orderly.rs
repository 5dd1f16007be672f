//! Ended in order and started again, and reloaded, over and over under load.
//!
//! 10 ends and 50 reloads as a rule; `HOOKWARD_RESTARTS` and `HOOKWARD_RELOADS` say otherwise for a long run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::kills::{Sent, checkpoint, empty, send};
use crate::harness::process::Running;
use crate::harness::{Client, Event, Folder, Queueing, Recorded, Upstream, amount};

/// Senders at a time.
const SENDERS: usize = 4;

/// Each event came once, as its first attempt.
fn once(seen: &[Recorded]) -> usize {
    let mut by_body: HashMap<&[u8], usize> = HashMap::new();
    for request in seen {
        assert_eq!(request.header("x-hookward-attempt"), Some("1"));
        *by_body.entry(&request.body).or_default() += 1;
    }
    let repeated = by_body.values().filter(|times| **times > 1).count();
    assert_eq!(repeated, 0, "delivered again without a need");
    by_body.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_loses_nothing_and_repeats_nothing() {
    // Every deployment of the gateway would lose events, or book some of them twice.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "concurrency: 8")
        .route("github", "github", "app", "");
    let (restarts, sent) = (amount("HOOKWARD_RESTARTS", 10), Arc::new(Sent::default()));
    let mut longest = Duration::ZERO;
    for restart in 0..restarts {
        let mut running = Running::start(&conf.yaml()).await;
        checkpoint(&running, &sent).await;
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| tokio::spawn(send(running.address, Arc::clone(&sent))))
            .collect();
        let so_many = upstream.count() + 1 + restart * 13 % 60;
        upstream.reached(so_many).await;
        let asked = Instant::now();
        running.process.signal("TERM").await;
        assert_eq!(running.process.end().await, Some(0), "{}", running.process.said());
        longest = longest.max(asked.elapsed());
        for sender in senders {
            sender.await.unwrap();
        }
    }
    let running = Running::start(&conf.yaml()).await;
    empty(&running).await;
    checkpoint(&running, &sent).await;
    let delivered = once(&upstream.seen());
    let accepted = sent.accepted.lock().unwrap().len();
    println!("{restarts} ends, {accepted} accepted, {delivered} delivered, the longest end took {longest:?}");
    assert!(
        delivered >= accepted && accepted > restarts,
        "{delivered} of {accepted}"
    );
    assert!(longest < PATIENCE, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_good_and_bad_refuse_nobody_and_lose_nothing() {
    // Every change of the configuration would cost a few events, or a bad one all that come after it.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = |pause: usize, provider: &str| {
        let schedule = format!("retry: {{ schedule: [{}s] }}", 1 + pause % 9);
        let conf = Queueing::in_folder(&folder).upstream("app", upstream.address, "");
        format!(
            "watch: off\n{}",
            conf.route("github", provider, "app", &schedule).yaml()
        )
    };
    let running = Running::start(&conf(0, "github")).await;
    let (over, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (over, number, address) = (Arc::clone(&over), Arc::clone(&number), running.address);
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while !over.load(Ordering::SeqCst) {
                    let event = Event::of("github", &number.fetch_add(1, Ordering::SeqCst).to_string());
                    client.send(&event.bytes()).await;
                    assert_eq!(client.answer().await.status, 200);
                }
            })
        })
        .collect();
    let reloads = amount("HOOKWARD_RELOADS", 50);
    for reload in 0..reloads {
        let bad = reload % 2 == 1;
        running.rewrite(&conf(reload, if bad { "githob" } else { "github" }));
        running.process.signal("HUP").await;
        let series = format!(
            "hookward_config_reloads_total{{result=\"{}\"}}",
            if bad { "failed" } else { "ok" }
        );
        let wanted = (reload / 2 + 1) as f64;
        let taken = async {
            while running.metric(&series).await < wanted {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("never reloaded");
    }
    over.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.await.unwrap();
    }
    empty(&running).await;
    let delivered = once(&upstream.seen());
    let accepted = number.load(Ordering::SeqCst);
    println!("{reloads} reloads, {accepted} events");
    assert_eq!(delivered, accepted);
    assert!(accepted > reloads, "hardly any load: {accepted}");
}
