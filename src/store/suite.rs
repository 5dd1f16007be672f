//! What every replay engine must do, run on each by one `replay_suite!(open)` line in the engine's own tests.
//!
//! An engine brings a function that opens an empty store of a given capacity, together with a way to let time
//! pass; the suite brings the statements, a simple model with random histories against it, and races. Times are
//! whole seconds, so an engine may round ends to seconds. What only one engine promises is tested beside it.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Claim, Claimed, Outcome, ReplayKey, ReplayKeys, ReplayStore, Settled, StoreError, Waiter};

/// An empty engine under test.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn ReplayStore>,
    /// Lets this much time pass for the store.
    pub(crate) pass: Box<dyn Fn(Duration) + Send + Sync>,
}

/// Opens an empty engine that holds at most so many keys.
pub(crate) type Open = fn(u32) -> Bench;

/// One named test for each statement of the suite.
macro_rules! replay_suite {
    ($open:expr) => {
        $crate::store::suite::replay_suite!($open;
            the_first_claim_is_new_and_the_next_waits
            a_done_event_is_answered_until_its_time_has_passed
            a_failure_is_no_replay
            a_lease_ends_by_itself
            a_late_settle_counts_when_nobody_took_over
            a_zombie_changes_nothing
            an_abandoned_settle_is_not_released
            any_known_key_makes_a_duplicate
            several_keys_are_claimed_all_or_none
            done_decides_before_in_flight
            every_waiter_hears_the_end
            a_waiter_hears_of_a_takeover
            a_full_store_refuses_the_new_and_knows_the_old
            the_dead_do_not_fill_the_store
            a_night_without_traffic_frees_everything_at_once
            nothing_stays_behind
            histories_agree_with_the_model
            one_winner
            retries_after_failures_end_in_one_success
        );
    };
    ($open:expr; $($statement:ident)*) => {
        $(#[test]
        fn $statement() {
            $crate::store::suite::run($crate::store::suite::$statement($open));
        })*
    };
}
pub(crate) use replay_suite;

/// Runs one statement on two threads; one that hangs fails.
pub(crate) fn run(statement: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), statement)
            .await
            .expect("somebody waits for ever");
    });
}

const LEASE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    async fn claim(&self, keys: &ReplayKeys) -> Result<Claimed, StoreError> {
        Arc::clone(&self.store).claim(keys, LEASE).await
    }

    async fn new_claim(&self, keys: &ReplayKeys) -> Claim {
        match self.claim(keys).await {
            Ok(Claimed::New(claim)) => claim,
            other => panic!("not new: {other:?}"),
        }
    }

    async fn waiter(&self, keys: &ReplayKeys) -> Waiter {
        match self.claim(keys).await {
            Ok(Claimed::InFlight(waiter)) => waiter,
            other => panic!("not in flight: {other:?}"),
        }
    }

    async fn done_status(&self, keys: &ReplayKeys) -> u16 {
        match self.claim(keys).await {
            Ok(Claimed::Done { status }) => status,
            other => panic!("not done: {other:?}"),
        }
    }

    /// Claims and settles.
    async fn finish(&self, keys: &ReplayKeys, status: u16, keep: Duration) {
        assert_eq!(
            self.new_claim(keys).await.settle(status, keep).await,
            Ok(Settled::Recorded)
        );
    }
}

fn key(number: u64) -> ReplayKey {
    ReplayKey::of_event("route", &number.to_string())
}

fn keys<const N: usize>(numbers: [u64; N]) -> ReplayKeys {
    ReplayKeys::new(numbers.map(key)).unwrap()
}

pub(crate) async fn the_first_claim_is_new_and_the_next_waits(open: Open) {
    // Two copies sent at the same time would both be forwarded.
    let bench = open(100);
    let _claim = bench.new_claim(&keys([1])).await;
    let _waiter = bench.waiter(&keys([1])).await;
    let _other = bench.new_claim(&keys([2])).await;
    assert_eq!(bench.store.entries(), 2);
}

pub(crate) async fn a_done_event_is_answered_until_its_time_has_passed(open: Open) {
    // A captured request could be sent again within the window, or an honest id never again.
    let bench = open(100);
    bench.finish(&keys([1]), 202, DAY).await;
    assert_eq!(bench.done_status(&keys([1])).await, 202);
    (bench.pass)(DAY - SECOND);
    assert_eq!(bench.done_status(&keys([1])).await, 202);
    (bench.pass)(SECOND);
    bench.finish(&keys([1]), 200, DAY).await;
    assert_eq!(bench.done_status(&keys([1])).await, 200);
}

pub(crate) async fn a_failure_is_no_replay(open: Open) {
    // The backend was down for a minute, and the provider's retries are swallowed as replays: an event is lost.
    let bench = open(100);
    bench.new_claim(&keys([1])).await.release(Some(500));
    bench.new_claim(&keys([1])).await.release(None);
    drop(bench.new_claim(&keys([1])).await);
    bench.finish(&keys([1]), 200, DAY).await;
    assert_eq!(bench.done_status(&keys([1])).await, 200);
}

pub(crate) async fn a_lease_ends_by_itself(open: Open) {
    // A holder that crashed would lock its event for ever.
    let bench = open(100);
    let crashed = bench.new_claim(&keys([1, 2])).await;
    (bench.pass)(LEASE - SECOND);
    drop(bench.waiter(&keys([2])).await);
    (bench.pass)(SECOND);
    let successor = bench.new_claim(&keys([1, 2])).await;
    assert_eq!(successor.settle(200, DAY).await, Ok(Settled::Recorded));
    drop(crashed);
}

pub(crate) async fn a_late_settle_counts_when_nobody_took_over(open: Open) {
    // The backend took longer than the lease; forgetting that it succeeded delivers the event twice.
    let bench = open(100);
    let slow = bench.new_claim(&keys([1, 2])).await;
    (bench.pass)(LEASE + SECOND);
    assert_eq!(slow.settle(201, DAY).await, Ok(Settled::Recorded));
    assert_eq!(bench.done_status(&keys([1])).await, 201);
    assert_eq!(bench.done_status(&keys([2])).await, 201);
}

pub(crate) async fn a_zombie_changes_nothing(open: Open) {
    // A holder back from a long pause would end the claim of its successor, and a third copy would get through.
    let bench = open(100);
    let settles = bench.new_claim(&keys([1, 2])).await;
    let releases = bench.new_claim(&keys([3, 4])).await;
    let drops = bench.new_claim(&keys([5])).await;
    (bench.pass)(LEASE);
    let successors = [
        bench.new_claim(&keys([2])).await,
        bench.new_claim(&keys([4])).await,
        bench.new_claim(&keys([5])).await,
    ];
    assert_eq!(settles.settle(200, DAY).await, Ok(Settled::Overtaken));
    releases.release(Some(500));
    drop(drops);
    for taken in [2, 4, 5] {
        drop(bench.waiter(&keys([taken])).await);
    }
    // What nobody took over is free, not done: the successor's record is the only one.
    for free in [1, 3] {
        drop(bench.new_claim(&keys([free])).await);
    }
    for successor in successors {
        assert_eq!(successor.settle(204, DAY).await, Ok(Settled::Recorded));
    }
    assert_eq!(bench.done_status(&keys([2])).await, 204);
}

pub(crate) async fn an_abandoned_settle_is_not_released(open: Open) {
    // The client leaves while the outcome is being recorded: freeing the event at that moment delivers it twice.
    let bench = open(100);
    drop(bench.new_claim(&keys([1])).await.settle(200, DAY));
    drop(bench.waiter(&keys([1])).await);
    (bench.pass)(LEASE);
    drop(bench.new_claim(&keys([1])).await);
}

pub(crate) async fn any_known_key_makes_a_duplicate(open: Open) {
    // While secrets rotate a request carries two signatures; with one stripped it must not look new.
    let bench = open(100);
    let claim = bench.new_claim(&keys([1, 2, 3])).await;
    for other in [keys([3]), keys([2, 9]), keys([0, 1, 8])] {
        drop(bench.waiter(&other).await);
    }
    assert_eq!(claim.settle(200, DAY).await, Ok(Settled::Recorded));
    for other in [keys([3]), keys([2, 9]), keys([0, 1, 8])] {
        assert_eq!(bench.done_status(&other).await, 200);
    }
}

pub(crate) async fn several_keys_are_claimed_all_or_none(open: Open) {
    // A duplicate that takes its unknown keys on the way blocks the next event that has one of them.
    let bench = open(100);
    let claim = bench.new_claim(&keys([5])).await;
    drop(bench.waiter(&keys([4, 5, 6])).await);
    assert_eq!(bench.store.entries(), 1);
    claim.release(None);
    bench.new_claim(&keys([4, 5, 6])).await.release(None);
    assert_eq!(bench.store.entries(), 0);
    bench.finish(&keys([4, 5, 6]), 200, DAY).await;
    assert_eq!(bench.store.entries(), 3);
}

pub(crate) async fn done_decides_before_in_flight(open: Open) {
    // The answer is known; making the provider wait for another event's outcome would only cost a retry.
    let bench = open(100);
    bench.finish(&keys([1]), 200, DAY).await;
    bench.finish(&keys([3]), 200, DAY).await;
    let _claim = bench.new_claim(&keys([2])).await;
    assert_eq!(bench.done_status(&keys([1, 2])).await, 200);
    assert_eq!(bench.done_status(&keys([2, 3])).await, 200);
}

pub(crate) async fn every_waiter_hears_the_end(open: Open) {
    // A waiter that sleeps through the end holds a connection until its time is up and makes the provider retry.
    type End = fn(Claim) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    let ends: [(End, Outcome); 4] = [
        (
            |claim| Box::pin(async { assert!(claim.settle(202, DAY).await.is_ok()) }),
            Outcome::Settled(202),
        ),
        (
            |claim| Box::pin(async { claim.release(Some(503)) }),
            Outcome::Released(Some(503)),
        ),
        (|claim| Box::pin(async { claim.release(None) }), Outcome::Released(None)),
        (|claim| Box::pin(async { drop(claim) }), Outcome::Released(None)),
    ];
    for (end, outcome) in ends {
        let bench = open(100);
        let claim = bench.new_claim(&keys([1, 2])).await;
        drop(bench.waiter(&keys([1])).await);
        let mut waiting = tokio::task::JoinSet::new();
        for copy in 0..50 {
            let waiter = bench.waiter(&keys([1 + copy % 2])).await;
            waiting.spawn(waiter.outcome());
        }
        end(claim).await;
        assert_eq!(waiting.join_all().await, [outcome; 50]);
    }
}

pub(crate) async fn a_waiter_hears_of_a_takeover(open: Open) {
    // It waits for a holder that died, while the event is dispatched by another.
    let bench = open(100);
    let dead = bench.new_claim(&keys([1])).await;
    let waiter = bench.waiter(&keys([1])).await;
    (bench.pass)(LEASE);
    let successor = bench.new_claim(&keys([1])).await;
    assert_eq!(waiter.outcome().await, Outcome::Released(None));
    drop((dead, successor));
}

pub(crate) async fn a_full_store_refuses_the_new_and_knows_the_old(open: Open) {
    // Whoever can cause many events would flush the memory of an old one and replay it.
    let bench = open(4);
    bench.finish(&keys([1, 2]), 200, DAY).await;
    let claim = bench.new_claim(&keys([3])).await;
    assert_eq!(bench.claim(&keys([4, 5])).await.unwrap_err(), StoreError::Full);
    let last = bench.new_claim(&keys([4])).await;
    for number in 100..200 {
        assert_eq!(bench.claim(&keys([number])).await.unwrap_err(), StoreError::Full);
    }
    assert_eq!((bench.store.entries(), bench.store.capacity()), (4, 4));
    assert_eq!(bench.done_status(&keys([2, 6])).await, 200);
    drop(bench.waiter(&keys([3, 7])).await);
    last.release(None);
    assert_eq!(claim.settle(201, DAY).await, Ok(Settled::Recorded));
    assert_eq!(bench.done_status(&keys([3])).await, 201);
    bench.finish(&keys([5]), 200, DAY).await;
}

pub(crate) async fn the_dead_do_not_fill_the_store(open: Open) {
    // Yesterday's events, spread over places that nobody touches, would refuse today's.
    let bench = open(200);
    for number in 0..200 {
        bench.finish(&keys([number]), 200, DAY).await;
    }
    assert_eq!(bench.claim(&keys([200])).await.unwrap_err(), StoreError::Full);
    (bench.pass)(DAY);
    for number in 200..400 {
        bench.finish(&keys([number]), 200, DAY).await;
    }
    assert_eq!(bench.claim(&keys([400])).await.unwrap_err(), StoreError::Full);
}

pub(crate) async fn a_night_without_traffic_frees_everything_at_once(open: Open) {
    // An engine that clears bit by bit would still call an event a replay whose window is long over.
    const EVENTS: u64 = 20_000;
    let bench = open(20_000);
    for number in 0..EVENTS {
        bench.finish(&keys([number]), 200, DAY).await;
    }
    (bench.pass)(DAY);
    for number in (0..EVENTS).rev() {
        bench.finish(&keys([number]), 201, DAY).await;
    }
    assert_eq!(bench.store.entries(), EVENTS);
}

pub(crate) async fn nothing_stays_behind(open: Open) {
    // An outage with many retries would leave something of each in memory.
    let bench = open(1000);
    for number in 0..5000 {
        let claim = bench.new_claim(&keys([number, number + 1])).await;
        let waiter = bench.waiter(&keys([number])).await;
        claim.release(Some(503));
        assert_eq!(waiter.outcome().await, Outcome::Released(Some(503)));
    }
    assert_eq!(bench.store.entries(), 0);
}

/// One step of a random history. `which` picks one of the claims held at that point.
#[derive(Clone, Debug)]
enum Step {
    Claim { keys: Vec<u64>, lease: u64 },
    Settle { which: usize, status: u16, keep: u64 },
    Release { which: usize, outcome: Option<u16> },
    Drop { which: usize },
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (vec(0..7u64, 1..4), 1..5u64).prop_map(|(keys, lease)| Step::Claim { keys, lease }),
        2 => (any::<usize>(), 200..300u16, 1..9u64).prop_map(|(which, status, keep)| Step::Settle { which, status, keep }),
        1 => (any::<usize>(), any::<Option<u16>>()).prop_map(|(which, outcome)| Step::Release { which, outcome }),
        1 => any::<usize>().prop_map(|which| Step::Drop { which }),
        3 => (1..4u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// The store as its documentation has it, without any means: a map and a loop over it.
#[derive(Default)]
struct Model {
    now: u64,
    known: BTreeMap<u64, (u64, Known)>,
    capacity: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Known {
    HeldBy(usize),
    Done(u16),
}

impl Model {
    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.known.retain(|_, (ends, _)| *ends > self.now);
    }

    fn among(&self, keys: &[u64]) -> Vec<Known> {
        keys.iter()
            .filter_map(|key| self.known.get(key).map(|(_, known)| *known))
            .collect()
    }

    fn put(&mut self, keys: &[u64], lasts: u64, known: Known) {
        self.known
            .extend(keys.iter().map(|key| (*key, (self.now + lasts, known))));
    }

    fn has_room(&self, keys: &[u64]) -> bool {
        let new = keys.iter().filter(|key| !self.known.contains_key(key)).count();
        self.known.len() + new <= self.capacity
    }
}

/// A claim of the history: the guard until it ended, then what those who wait for it may hear.
struct Held {
    guard: Option<Claim>,
    keys: Vec<u64>,
    lease_ends: u64,
    end: Option<Outcome>,
}

struct Waiting {
    outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    /// The claims in flight it may have run into.
    rivals: Vec<usize>,
}

struct History {
    bench: Bench,
    model: Model,
    held: Vec<Held>,
    waiting: Vec<Waiting>,
}

impl History {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Claim { mut keys, lease } => {
                keys.sort_unstable();
                keys.dedup();
                self.claim(keys, lease).await;
            }
            Step::Settle { which, status, keep } => {
                if let Some(at) = self.pick(which) {
                    self.settle(at, status, keep).await;
                }
            }
            Step::Release { which, outcome } => {
                if let Some(at) = self.pick(which) {
                    let guard = self.free(at, outcome);
                    guard.release(outcome);
                }
            }
            Step::Drop { which } => {
                if let Some(at) = self.pick(which) {
                    drop(self.free(at, None));
                }
            }
            Step::Pass { seconds } => {
                self.model.pass(seconds);
                (self.bench.pass)(Duration::from_secs(seconds));
            }
        }
        self.listen().await;
        assert!(self.bench.store.entries() >= self.model.known.len() as u64);
        assert!(self.bench.store.entries() <= self.bench.store.capacity());
    }

    fn pick(&self, which: usize) -> Option<usize> {
        let open: Vec<usize> = (0..self.held.len())
            .filter(|at| self.held[*at].guard.is_some())
            .collect();
        (!open.is_empty()).then(|| open[which % open.len()])
    }

    async fn claim(&mut self, keys: Vec<u64>, lease: u64) {
        let found = self.model.among(&keys);
        let done: Vec<Known> = found
            .iter()
            .copied()
            .filter(|known| matches!(known, Known::Done(_)))
            .collect();
        let replay_keys = ReplayKeys::new(keys.iter().map(|number| key(*number))).unwrap();
        let answer = Arc::clone(&self.bench.store)
            .claim(&replay_keys, Duration::from_secs(lease))
            .await;
        match answer {
            Ok(Claimed::Done { status }) => assert!(done.contains(&Known::Done(status))),
            Ok(Claimed::InFlight(waiter)) => {
                assert!(done.is_empty() && !found.is_empty());
                let rivals = found.iter().filter_map(|known| match known {
                    Known::HeldBy(at) => Some(*at),
                    Known::Done(_) => None,
                });
                let rivals = rivals.collect();
                self.waiting.push(Waiting {
                    outcome: Box::pin(waiter.outcome()),
                    rivals,
                });
            }
            Ok(Claimed::New(guard)) => {
                assert!(found.is_empty() && self.model.has_room(&keys));
                self.model.put(&keys, lease, Known::HeldBy(self.held.len()));
                let lease_ends = self.model.now + lease;
                self.held.push(Held {
                    guard: Some(guard),
                    keys,
                    lease_ends,
                    end: None,
                });
            }
            Err(error) => {
                assert_eq!(error, StoreError::Full);
                assert!(found.is_empty() && !self.model.has_room(&keys));
            }
        }
    }

    async fn settle(&mut self, at: usize, status: u16, keep: u64) {
        let held = &mut self.held[at];
        let guard = held.guard.take().unwrap();
        let overtaken = self
            .model
            .among(&held.keys)
            .iter()
            .any(|known| *known != Known::HeldBy(at));
        let expected = match (overtaken, self.model.has_room(&held.keys)) {
            (true, _) => Ok(Settled::Overtaken),
            (false, false) => Err(StoreError::Full),
            (false, true) => Ok(Settled::Recorded),
        };
        held.end = Some(Outcome::Released(None));
        if expected == Ok(Settled::Recorded) {
            held.end = Some(Outcome::Settled(status));
            self.model.put(&held.keys, keep, Known::Done(status));
        }
        assert_eq!(guard.settle(status, Duration::from_secs(keep)).await, expected);
    }

    fn free(&mut self, at: usize, outcome: Option<u16>) -> Claim {
        self.model.known.retain(|_, (_, known)| *known != Known::HeldBy(at));
        self.held[at].end = Some(Outcome::Released(outcome));
        self.held[at].guard.take().unwrap()
    }

    /// Polls everybody who waits: what they hear must be true, and whose rivals all ended must hear it.
    async fn listen(&mut self) {
        let mut still = Vec::new();
        for mut waiting in self.waiting.drain(..) {
            let over = waiting.rivals.iter().all(|at| self.held[*at].end.is_some());
            let heard = if over {
                soon(waiting.outcome.as_mut()).await
            } else {
                poll_once(waiting.outcome.as_mut()).await
            };
            let Some(heard) = heard else {
                still.push(waiting);
                continue;
            };
            let (held, now) = (&self.held, self.model.now);
            // Whose lease passed may be found dead at any time.
            let may_say = |at: &usize| {
                held[*at].end == Some(heard) || (heard == Outcome::Released(None) && held[*at].lease_ends <= now)
            };
            assert!(waiting.rivals.iter().any(may_say), "{heard:?}");
        }
        self.waiting = still;
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    let heard = tokio::time::timeout(Duration::from_secs(1), future).await;
    Some(heard.expect("a waiter sleeps through the end"))
}

async fn poll_once<T>(mut future: Pin<&mut (dyn Future<Output = T> + Send)>) -> Option<T> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

pub(crate) async fn histories_agree_with_the_model(open: Open) {
    // Some order of claims, failures, crashes and expiries that nobody thought of loses an event or lets one
    // through twice.
    let handle = tokio::runtime::Handle::current();
    let histories = move || {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 2000,
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Default::default()
        });
        runner.run(&vec(step(), 1..60), |steps| {
            handle.block_on(async {
                let model = Model {
                    capacity: 5,
                    ..Default::default()
                };
                let mut history = History {
                    bench: open(5),
                    model,
                    held: Vec::new(),
                    waiting: Vec::new(),
                };
                for step in steps {
                    history.take(step).await;
                }
            });
            Ok(())
        })
    };
    tokio::task::spawn_blocking(histories).await.unwrap().unwrap();
}

pub(crate) async fn one_winner(open: Open) {
    // A captured request sent 64 times at once would be forwarded more than once.
    const COPIES: usize = 64;
    const ROUNDS: u64 = 10_000;
    let bench = Arc::new(open(100_000));
    let wins: Arc<Vec<AtomicU32>> = Arc::new((0..ROUNDS).map(|_| AtomicU32::new(0)).collect());
    let start = Arc::new(std::sync::Barrier::new(COPIES));
    let handle = tokio::runtime::Handle::current();
    let copy = |copy: u64| {
        let (bench, wins, start, handle) = (
            Arc::clone(&bench),
            Arc::clone(&wins),
            Arc::clone(&start),
            handle.clone(),
        );
        std::thread::spawn(move || {
            start.wait();
            handle.block_on(async {
                for round in 0..ROUNDS {
                    // All copies share one key; most have another, in an order that could lock crosswise.
                    let keys = keys([round, ROUNDS + 1 + (round + copy) % 3 + 3 * round]);
                    match bench.claim(&keys).await.unwrap() {
                        Claimed::New(claim) => {
                            wins[round as usize].fetch_add(1, Ordering::Relaxed);
                            assert_eq!(claim.settle(200, DAY).await, Ok(Settled::Recorded));
                        }
                        Claimed::Done { status } => assert_eq!(status, 200),
                        Claimed::InFlight(_) => {}
                    }
                }
            });
        })
    };
    let copies: Vec<_> = (0..COPIES as u64).map(copy).collect();
    for copy in copies {
        copy.join().unwrap();
    }
    assert!(wins.iter().all(|wins| wins.load(Ordering::Relaxed) == 1));
    assert_eq!(bench.store.entries(), 2 * ROUNDS);
}

pub(crate) async fn retries_after_failures_end_in_one_success(open: Open) {
    // Copies race while the backend fails: one of them must get through in the end, never two at the same time.
    const COPIES: usize = 64;
    const EVENTS: u64 = 200;
    const FAILURES: u32 = 5;
    let bench = Arc::new(open(10_000));
    for event in 0..EVENTS {
        let dispatching = Arc::new(AtomicBool::new(false));
        let dispatched = Arc::new(AtomicU32::new(0));
        let mut copies = tokio::task::JoinSet::new();
        for _ in 0..COPIES {
            let (bench, dispatching, dispatched) =
                (Arc::clone(&bench), Arc::clone(&dispatching), Arc::clone(&dispatched));
            copies.spawn(async move {
                loop {
                    match bench.claim(&keys([event])).await.unwrap() {
                        Claimed::Done { status } => return status,
                        Claimed::InFlight(waiter) => {
                            waiter.outcome().await;
                        }
                        Claimed::New(claim) => {
                            assert!(!dispatching.swap(true, Ordering::SeqCst));
                            tokio::task::yield_now().await;
                            let failed = dispatched.fetch_add(1, Ordering::SeqCst) < FAILURES;
                            dispatching.store(false, Ordering::SeqCst);
                            if !failed {
                                assert_eq!(claim.settle(200, DAY).await, Ok(Settled::Recorded));
                            }
                        }
                    }
                }
            });
        }
        assert_eq!(copies.join_all().await, [200; COPIES]);
        assert_eq!(dispatched.load(Ordering::SeqCst), FAILURES + 1);
    }
}
