//! What the replay guard costs an event: claim and settle, and the answer to a repeat.
//!
//! Before the timings it prints the memory that a million done events take, which `src/store/memory.rs` quotes.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use hookward::clock::Clock;
use hookward::store::{Claimed, MemoryReplay, ReplayKey, ReplayKeys, ReplayStore, Settled};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LEASE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The memory engine never waits, so one poll is the whole call.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the memory engine waited"),
    }
}

fn key(number: u64) -> ReplayKeys {
    ReplayKey::of_event("billing", &format!("evt_{number:020}")).into()
}

fn store() -> Arc<dyn ReplayStore> {
    Arc::new(MemoryReplay::new(Clock::system(), u32::MAX))
}

fn take(store: &Arc<dyn ReplayStore>, keys: &ReplayKeys) {
    match now(Arc::clone(store).claim(keys, LEASE)) {
        Ok(Claimed::New(claim)) => assert_eq!(now(claim.settle(200, DAY)), Ok(Settled::Recorded)),
        other => unreachable!("{other:?}"),
    }
}

fn filled(entries: u64) -> Arc<dyn ReplayStore> {
    let store = store();
    for number in 0..entries {
        take(&store, &key(number));
    }
    store
}

fn main() {
    memory();
    let mut criterion = Criterion::default().configure_from_args();
    timings(&mut criterion);
    criterion.final_summary();
}

fn timings(c: &mut Criterion) {
    c.bench_function("replay/key", |b| {
        b.iter(|| ReplayKey::of_event(black_box("billing"), black_box("evt_1N8dK2")))
    });
    for (name, held) in [("empty", 0), ("1e6 held", 1_000_000)] {
        let store = filled(held);
        let mut number = held;
        c.bench_function(&format!("replay/claim + settle, {name}"), |b| {
            let fresh = || {
                number += 1;
                key(number)
            };
            b.iter_batched_ref(fresh, |keys| take(&store, keys), BatchSize::SmallInput);
        });
        let done = key(number);
        c.bench_function(&format!("replay/claim of a done event, {name}"), |b| {
            b.iter(|| match now(Arc::clone(&store).claim(black_box(&done), LEASE)) {
                Ok(Claimed::Done { status }) => status,
                other => unreachable!("{other:?}"),
            });
        });
    }
}

/// Prints how much the process grows for each of a million done events.
fn memory() {
    let before = resident_bytes();
    let store = filled(1_000_000);
    let grown = resident_bytes().saturating_sub(before);
    println!("replay/memory: {} bytes per entry", grown / store.entries());
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
