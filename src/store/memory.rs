//! The replay store inside the process: exact, bounded, forgotten at restart.
//!
//! Keys are spread over shards by their first byte, each shard behind its own lock. A claim over several keys locks
//! their shards in ascending order, which is the order of the keys, so that two claims never wait for each other.
//!
//! There is no background task: whoever locks a shard first clears some of what has ended there, more than it may
//! add, and no request pays for a long idle night at once. What has ended is free at that very moment, cleared or
//! not. An entry whose time has not passed is never given up: when every place is taken a new event is refused,
//! because forgetting an old one would let anybody who can cause many events replay it.
//!
//! Measured by `benches/replay.rs` at a million entries: about 140 bytes each, about a microsecond for a claim and
//! its settle, 0.1 us for the answer to a repeat.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "counts of entries, of which there are less than u32::MAX"
)]

use std::array;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{
    Claim, Claimed, Outcome, REPLAY_KEYS_MAX, ReplayKey, ReplayKeys, ReplayStore, Settled, StoreError, Token, Waiter,
};
use crate::clock::{Clock, Moment};
use shard::{SWEEP_MAX, Shard, State, Waiters};

mod shard;

/// Shards; a power of two no larger than 256, since the first byte of a key names one.
const SHARDS: usize = 64;
const _: () = assert!(SHARDS.is_power_of_two() && SHARDS <= 256);

// A claim clears more than it adds.
const _: () = assert!(SWEEP_MAX > REPLAY_KEYS_MAX);

/// Holds the keys of one process. Survives a reload of the configuration, not a restart.
pub struct MemoryReplay {
    clock: Clock,
    shards: [Mutex<Shard>; SHARDS],
    entries: AtomicU64,
    entries_max: u64,
    next_token: AtomicU64,
}

impl MemoryReplay {
    /// An empty store for at most `entries_max` keys. Takes memory as it fills and keeps what it took.
    pub fn new(clock: Clock, entries_max: u32) -> Self {
        MemoryReplay {
            clock,
            shards: array::from_fn(|_| Mutex::default()),
            entries: AtomicU64::new(0),
            entries_max: u64::from(entries_max),
            next_token: AtomicU64::new(0),
        }
    }

    /// Claims, or tells what is known.
    pub(super) fn take(&self, keys: &ReplayKeys, lease: Duration) -> Result<Found, StoreError> {
        self.with_room(|| self.try_claim(keys, lease))
    }

    /// Settles, or tells that another claim took over.
    pub(super) fn finish(
        &self,
        keys: &ReplayKeys,
        token: Token,
        status: u16,
        keep: Duration,
    ) -> Result<Settled, StoreError> {
        self.with_room(|| self.try_settle(keys, token, status, keep))
    }

    /// Whether another claim, or a done event, has got hold of one of the keys since `token` did.
    pub(super) fn is_overtaken(&self, keys: &ReplayKeys, token: Token) -> bool {
        let mut locked = self.lock(keys);
        locked.runs().any(|(shard, run)| {
            let other = |key| shard.state(key).is_some_and(|state| !state.is_held_by(token));
            run.iter().any(other)
        })
    }

    /// Puts back what another life of the store knew, for what is left of its time. What was promised to be known is
    /// known even beyond the capacity.
    pub(super) fn restore(&self, keys: &ReplayKeys, status: u16, left: Duration) {
        let mut locked = self.lock(keys);
        let ends = locked.now.plus(left);
        let mut added = 0;
        for (shard, run) in locked.runs() {
            for key in run {
                added += u64::from(shard.state(key).is_none());
                shard.put(key, ends, State::Done { status });
            }
        }
        self.entries.fetch_add(added, Ordering::Relaxed);
    }

    /// Claims, or tells what is known; `None` when the event is new and there is no place for it.
    fn try_claim(&self, keys: &ReplayKeys, lease: Duration) -> Option<Found> {
        let mut locked = self.lock(keys);
        let mut rival = None;
        for (shard, run) in locked.runs() {
            for key in run {
                match shard.state(key) {
                    Some(State::Done { status }) => return Some(Found::Done(*status)),
                    Some(State::InFlight { waiters, .. }) if rival.is_none() => rival = Some(subscribe(waiters)),
                    Some(State::InFlight { .. }) | None => {}
                }
            }
        }
        if let Some(rival) = rival {
            return Some(Found::InFlight(rival));
        }
        self.reserve(keys.as_slice().len())?;
        let token = Token::new(self.next_token.fetch_add(1, Ordering::Relaxed));
        let ends = locked.now.plus(lease);
        for (shard, run) in locked.runs() {
            for key in run {
                shard.put(key, ends, State::InFlight { token, waiters: None });
            }
        }
        Some(Found::New(token))
    }

    /// Settles, or tells that another claim took over; `None` when the lease passed and no place is left.
    fn try_settle(&self, keys: &ReplayKeys, token: Token, status: u16, keep: Duration) -> Option<Settled> {
        let mut locked = self.lock(keys);
        let mut cleared: usize = 0;
        for (shard, run) in locked.runs() {
            for key in run {
                match shard.state(key) {
                    Some(state) if state.is_held_by(token) => {}
                    Some(_) => return Some(Settled::Overtaken),
                    None => cleared += 1,
                }
            }
        }
        self.reserve(cleared)?;
        let ends = locked.now.plus(keep);
        let mut waiting = Vec::new();
        for (shard, run) in locked.runs() {
            for key in run {
                waiting.extend(shard.put(key, ends, State::Done { status }));
            }
        }
        drop(locked);
        tell(waiting, Outcome::Settled(status));
        Some(Settled::Recorded)
    }

    /// Runs `attempt`, and once more after every shard gave up what has ended: one full of the dead must not refuse
    /// the living, however the keys fell.
    fn with_room<T>(&self, attempt: impl Fn() -> Option<T>) -> Result<T, StoreError> {
        if let Some(done) = attempt() {
            return Ok(done);
        }
        for shard in &self.shards {
            let mut dead = Vec::new();
            let mut shard = shard.lock();
            self.give_back(shard.sweep(self.clock.moment(), &mut dead));
        }
        attempt().ok_or(StoreError::Full)
    }

    /// Locks the shards of `keys` and clears what has ended there; none of `keys` is known by an ended entry then.
    fn lock<'a>(&'a self, keys: &'a ReplayKeys) -> Locked<'a> {
        // Ascending keys make ascending shards: every claim locks in the same order.
        let mut runs = keys.as_slice().chunk_by(|a, b| shard_index(a) == shard_index(b));
        let mut runs: [Option<Run<'a>>; REPLAY_KEYS_MAX] = array::from_fn(|_| {
            let keys = runs.next()?;
            let shard = self.shards.get(shard_index(keys.first()?))?;
            Some(Run {
                shard: shard.lock(),
                keys,
            })
        });
        // Read under the locks: nobody sees a key as ended that a later claimant sees alive.
        let now = self.clock.moment();
        let mut dead = Vec::new();
        let mut cleared = 0;
        for run in runs.iter_mut().flatten() {
            cleared += run.shard.sweep(now, &mut dead);
            for key in run.keys {
                cleared += run.shard.remove_if(key, &mut dead, |entry| entry.ends <= now);
            }
        }
        self.give_back(cleared);
        Locked { runs, now, _dead: dead }
    }

    /// Takes `places` of the capacity, or none.
    fn reserve(&self, places: usize) -> Option<()> {
        let places = u64::try_from(places).ok()?;
        let grown = |entries: u64| entries.checked_add(places).filter(|n| *n <= self.entries_max);
        self.entries
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .ok()
            .map(drop)
    }

    fn give_back(&self, places: usize) {
        if places > 0 {
            self.entries.fetch_sub(places as u64, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl ReplayStore for MemoryReplay {
    async fn claim(self: Arc<Self>, keys: &ReplayKeys, lease: Duration) -> Result<Claimed, StoreError> {
        Ok(self.take(keys, lease)?.claimed(self, keys))
    }

    async fn settle(
        &self,
        keys: &ReplayKeys,
        token: Token,
        status: u16,
        keep: Duration,
    ) -> Result<Settled, StoreError> {
        self.finish(keys, token, status, keep)
    }

    fn release(&self, keys: &ReplayKeys, token: Token, outcome: Option<u16>) {
        let mut locked = self.lock(keys);
        let mut waiting = Vec::new();
        let mut freed = 0;
        for (shard, run) in locked.runs() {
            for key in run {
                freed += shard.remove_if(key, &mut waiting, |entry| entry.state.is_held_by(token));
            }
        }
        self.give_back(freed);
        drop(locked);
        tell(waiting, Outcome::Released(outcome));
    }

    fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn capacity(&self) -> u64 {
        self.entries_max
    }

    fn survives_restart(&self) -> bool {
        false
    }
}

impl fmt::Debug for MemoryReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReplay")
            .field("entries", &self.entries())
            .field("entries_max", &self.entries_max)
            .finish_non_exhaustive()
    }
}

/// What a claim found, before it is dressed for the caller.
pub(super) enum Found {
    New(Token),
    InFlight(watch::Receiver<Option<Outcome>>),
    Done(u16),
}

impl Found {
    /// The answer to a claim of `keys` at `store`, which will be asked to end it.
    pub(super) fn claimed(self, store: Arc<dyn ReplayStore>, keys: &ReplayKeys) -> Claimed {
        match self {
            Found::New(token) => Claimed::New(Claim::new(store, keys.clone(), token)),
            Found::InFlight(waiting) => Claimed::InFlight(Waiter::new(outcome(waiting))),
            Found::Done(status) => Claimed::Done { status },
        }
    }
}

/// The shards of a set of keys, locked.
struct Locked<'a> {
    runs: [Option<Run<'a>>; REPLAY_KEYS_MAX],
    now: Moment,
    /// Holders that died while others waited. Dropping wakes those, which must not happen under a lock: waking may
    /// run foreign code. Fields are dropped in order, so the locks above are gone by then.
    _dead: Vec<Waiters>,
}

struct Run<'a> {
    shard: MutexGuard<'a, Shard>,
    keys: &'a [ReplayKey],
}

impl Locked<'_> {
    /// Each shard with those of the keys that live in it.
    fn runs(&mut self) -> impl Iterator<Item = (&mut Shard, &[ReplayKey])> {
        self.runs.iter_mut().flatten().map(|run| (&mut *run.shard, run.keys))
    }
}

/// Which shard holds `key`: ascending with the key.
fn shard_index(key: &ReplayKey) -> usize {
    let [first, ..] = *key.as_bytes();
    usize::from(first) * SHARDS / 256
}

fn subscribe(waiters: &mut Option<Waiters>) -> watch::Receiver<Option<Outcome>> {
    waiters.get_or_insert_with(|| watch::Sender::new(None)).subscribe()
}

fn tell(waiting: Vec<Waiters>, outcome: Outcome) {
    for waiters in waiting {
        // Replaced, not sent: the last waiter may have left, which is no failure.
        waiters.send_replace(Some(outcome));
    }
}

async fn outcome(mut waiting: watch::Receiver<Option<Outcome>>) -> Outcome {
    match waiting.wait_for(Option::is_some).await {
        Ok(outcome) => (*outcome).unwrap_or(Outcome::Released(None)),
        // The sender is gone: the holder died, and its lease with it.
        Err(_) => Outcome::Released(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::{Bench, replay_suite};
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    fn open(entries_max: u32) -> Bench {
        let time = ManualClock::at(UnixMillis(0));
        let store = Arc::new(MemoryReplay::new(time.clock(), entries_max));
        Bench {
            store,
            pass: Box::new(move |by| time.advance(by)),
        }
    }

    replay_suite!(open);

    fn keys(number: u64) -> ReplayKeys {
        ReplayKey::of_event("route", &number.to_string()).into()
    }

    fn take(store: &MemoryReplay, number: u64, lease: Duration) -> Option<Token> {
        match store.try_claim(&keys(number), lease) {
            Some(Found::New(token)) => Some(token),
            _ => None,
        }
    }

    #[test]
    fn ascending_keys_make_ascending_shards() {
        // Two claims that lock the same shards in different orders stop the gateway for ever.
        let mut all: Vec<ReplayKey> = (0..10_000)
            .map(|n| ReplayKey::of_event("route", &n.to_string()))
            .collect();
        all.sort();
        let shards: Vec<usize> = all.iter().map(shard_index).collect();
        assert!(shards.is_sorted());
        assert_eq!((shards.first(), shards.last()), (Some(&0), Some(&(SHARDS - 1))));
    }

    #[test]
    fn a_million_failures_leave_nothing() {
        // A long outage with retries of ever new events would eat the memory of the process.
        let store = MemoryReplay::new(ManualClock::at(UnixMillis(0)).clock(), 1);
        for number in 0..1_000_000 {
            let token = take(&store, number, Duration::MAX).unwrap();
            store.release(&keys(number), token, Some(500));
        }
        assert_eq!(store.entries(), 0);
    }

    #[test]
    fn wall_clock_steps_neither_forget_nor_prolong() {
        // Whoever can step the wall clock of the machine would open the window for replays.
        let time = ManualClock::at(UnixMillis(1_000_000_000));
        let store = MemoryReplay::new(time.clock(), 10);
        let token = take(&store, 1, Duration::from_secs(30)).unwrap();
        assert_eq!(
            store.try_settle(&keys(1), token, 200, Duration::from_secs(60)),
            Some(Settled::Recorded)
        );
        for wall in [0, u64::MAX, 999_999_999] {
            time.set_wall(UnixMillis(wall));
            assert!(take(&store, 1, Duration::from_secs(30)).is_none());
        }
        time.advance(Duration::from_secs(60));
        assert!(take(&store, 1, Duration::from_secs(30)).is_some());
    }

    #[test]
    fn no_capacity_is_full_not_a_panic() {
        // A mistake in the configuration must show as the alarm it is.
        let store = MemoryReplay::new(ManualClock::at(UnixMillis(0)).clock(), 0);
        assert!(take(&store, 1, Duration::from_secs(1)).is_none());
        assert_eq!(
            (store.entries(), store.capacity(), store.survives_restart()),
            (0, 0, false)
        );
    }

    #[test]
    fn the_longest_times_do_not_overflow() {
        // A window of "for ever" must not wrap round to the past.
        let time = ManualClock::at(UnixMillis(0));
        time.advance(Duration::from_secs(1));
        let store = MemoryReplay::new(time.clock(), 10);
        let token = take(&store, 1, Duration::MAX).unwrap();
        assert_eq!(
            store.try_settle(&keys(1), token, 200, Duration::MAX),
            Some(Settled::Recorded)
        );
        time.advance(Duration::from_secs(100 * 365 * 24 * 60 * 60));
        assert!(take(&store, 1, Duration::MAX).is_none());
    }
}
