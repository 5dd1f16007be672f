//! What the engine does on this machine, printed. Run by name, in a release build:
//! `cargo test --release --lib queue::sqlite::measure -- --ignored --nocapture --test-threads 1`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::{Change, End, Filter, Lane, NewEvent, Queue};
use super::{DataSettings, History, SqliteQueue, SqliteSettings};
use crate::clock::{Clock, UnixMillis};
use crate::queue::Attempt;

fn open(name: &str) -> (Arc<SqliteQueue>, std::path::PathBuf) {
    let dir = std::env::var("HOOKWARD_MEASURE_DIR").map_or_else(|_| std::env::temp_dir(), Into::into);
    let dir = dir.join(format!("hookward-measure-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let queue = SqliteQueue::open(&settings(&dir), Clock::system(), Box::new(|_| {}))
        .unwrap()
        .0;
    (queue, dir)
}

fn settings(dir: &std::path::Path) -> SqliteSettings {
    SqliteSettings {
        data: DataSettings {
            dir: dir.to_owned(),
            bytes_max: None,
            reserve_bytes: 16 << 20,
        },
        history: History {
            keep: Duration::from_secs(86_400),
            bytes_max: 1 << 40,
        },
        replay_entries_max: 10_000_000,
    }
}

/// Seconds of processor that the writer's thread has taken, and the whole process.
fn processor() -> (f64, f64) {
    let seconds = |stat: &str| {
        let after = stat.rsplit(')').next().unwrap();
        let fields: Vec<&str> = after.split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    };
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path());
    let writers = tasks.filter(|task| read(&task.join("comm")).trim() == "database");
    let of_writers = writers.map(|task| seconds(&read(&task.join("stat")))).sum();
    (of_writers, seconds(&read("/proc/self/stat".as_ref())))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn lane() -> Lane {
    Lane {
        route: "github".into(),
        destination: "app".into(),
    }
}

/// Publishes `events` by `writers` at once; returns the latencies in microseconds, sorted.
fn publish(queue: &Arc<SqliteQueue>, writers: u64, events: u64) -> Vec<u64> {
    let rest = Arc::new(AtomicU64::new(events));
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..writers {
            let (queue, rest) = (Arc::clone(queue), Arc::clone(&rest));
            tasks.spawn(async move {
                let mut took = Vec::new();
                let body = bytes::Bytes::from(vec![b'x'; 1024]);
                while rest
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    let now = UnixMillis(Clock::system().wall().0);
                    let event = NewEvent::sample("github", &["app"], body.clone(), now);
                    let started = Instant::now();
                    let _ = queue.publish(event, None).await.unwrap();
                    took.push(started.elapsed().as_micros() as u64);
                }
                took
            });
        }
        let mut all: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
        all.sort_unstable();
        all
    })
}

#[test]
#[ignore = "a measurement"]
fn publishing() {
    // Figures that nobody took are guesses.
    for (writers, events) in [(1, 2_000), (64, 300_000), (256, 300_000)] {
        let (queue, dir) = open("publish");
        let before = processor().1;
        let started = Instant::now();
        let took = publish(&queue, writers, events);
        let seconds = started.elapsed().as_secs_f64();
        let (writer, process) = processor();
        let each = |all: f64| all * 1e6 / events as f64;
        println!(
            "    processor: writer {:.1} us, process {:.1} us for each event",
            each(writer),
            each(process - before)
        );
        let at = |part: f64| took[(took.len() as f64 * part) as usize];
        println!(
            "publish, {writers} writers: {:.0}/s, p50 {} us, p99 {} us, max {} us",
            events as f64 / seconds,
            at(0.5),
            at(0.99),
            took.last().unwrap()
        );
        runtime().block_on(queue.close());
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
#[ignore = "a measurement"]
fn draining() {
    // As above.
    let (queue, dir) = open("drain");
    publish(&queue, 256, 200_000);
    for workers in [1, 16, 64] {
        let started = Instant::now();
        let done = Arc::new(AtomicU64::new(0));
        runtime().block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..workers {
                let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
                tasks.spawn(async move {
                    while done.load(Ordering::Relaxed) < 30_000 {
                        let batch = queue.lease(&lane(), 32, Duration::from_secs(60)).await.unwrap();
                        let ends = batch.leased.iter().map(|leased| {
                            let attempt = Attempt {
                                at: UnixMillis(0),
                                took: Duration::ZERO,
                                status: Some(200),
                                error: String::new(),
                            };
                            queue.end(&leased.lease, End::Ack(attempt))
                        });
                        let ended = futures_join(ends.collect()).await;
                        done.fetch_add(ended as u64, Ordering::Relaxed);
                    }
                });
            }
            tasks.join_all().await;
        });
        let rate = done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
        println!("lease 32 + ack, {workers} workers: {rate:.0}/s");
    }
    runtime().block_on(queue.close());
    std::fs::remove_dir_all(dir).unwrap();
}

/// Resident memory of this process, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

#[test]
#[ignore = "a measurement"]
fn starting_with_a_backlog() {
    // As above.
    let (queue, dir) = open("backlog");
    let before = resident();
    publish(&queue, 256, 1_000_000);
    println!("memory: {before} MiB before, {} MiB after a backlog of 1e6", resident());
    runtime().block_on(queue.close());
    drop(queue);
    let started = Instant::now();
    let (queue, leased) = {
        let settings = settings(&dir);
        let queue = SqliteQueue::open(&settings, Clock::system(), Box::new(|_| {}))
            .unwrap()
            .0;
        let opened = started.elapsed();
        let leased = runtime()
            .block_on(queue.lease(&lane(), 32, Duration::from_secs(60)))
            .unwrap()
            .leased
            .len();
        println!(
            "start with a backlog of 1e6: open {opened:?}, {leased} leased after {:?}",
            started.elapsed()
        );
        (queue, leased)
    };
    assert_eq!(leased, 32);
    let started = Instant::now();
    runtime()
        .block_on(queue.lease(&lane(), 32, Duration::from_secs(60)))
        .unwrap();
    println!("lease 32 of 1e6: {:?}", started.elapsed());
    runtime().block_on(queue.close());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "a measurement"]
fn changing_by_type() {
    // As above.
    let (queue, dir) = open("change");
    publish(&queue, 256, 1_000_000);
    let rare = Filter {
        event_type: Some("a.type.that.nothing.has".into()),
        ..Filter::default()
    };
    let changing = Arc::clone(&queue);
    let changing = std::thread::spawn(move || {
        let started = Instant::now();
        runtime().block_on(async {
            let (mut after, mut calls) = (None, 0);
            loop {
                let done = changing.change(Change::Cancel, &rare, after, 1024).await.unwrap();
                calls += 1;
                after = done.next;
                if after.is_none() {
                    return (started.elapsed(), calls);
                }
            }
        })
    });
    let mut worst = Duration::ZERO;
    while !changing.is_finished() {
        let took = publish(&queue, 1, 20);
        worst = worst.max(Duration::from_micros(took.last().copied().unwrap()));
    }
    let (took, calls) = changing.join().unwrap();
    println!("cancel by a type that none of 1e6 has: {took:?}, {calls} calls; slowest publication meanwhile {worst:?}");
    runtime().block_on(queue.close());
    std::fs::remove_dir_all(dir).unwrap();
}

async fn futures_join<F: Future>(futures: Vec<F>) -> usize {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let all = futures.len();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all
}
