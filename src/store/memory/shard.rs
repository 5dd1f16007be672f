//! One lock's worth of replay entries: found by key, and in the order in which they end.
//!
//! Plain data behind the lock of `memory.rs`, which decides what a state means; this file only keeps three views
//! of the same entries in step. Entries live in chunks of one page, so that growing neither copies old entries
//! while others wait for the lock nor leaves a half-empty copy behind. Nothing shrinks: places are used again.
//!
//! Keys are kept whole. Half of one would do against strangers, but 16 bytes saved in a hundred are not worth an
//! argument about who can search for collisions.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use tokio::sync::watch;

use crate::clock::Moment;
use crate::store::{Outcome, ReplayKey, Token};

/// Ended entries that one sweep removes at most.
pub(super) const SWEEP_MAX: usize = 64;

/// Entries in a chunk of 4 KiB.
const CHUNK: usize = 64;
const _: () = assert!(size_of::<Option<Entry>>() == 64);

/// Wakes the duplicates that wait for a claim; dropped without a word, it tells them that nobody answered.
pub(super) type Waiters = watch::Sender<Option<Outcome>>;

pub(super) enum State {
    InFlight {
        token: Token,
        /// Made for the first duplicate; most claims never meet one.
        waiters: Option<Waiters>,
    },
    Done {
        status: u16,
    },
}

impl State {
    pub(super) fn is_held_by(&self, holder: Token) -> bool {
        matches!(self, State::InFlight { token, .. } if *token == holder)
    }

    fn into_waiters(self) -> Option<Waiters> {
        match self {
            State::InFlight { waiters, .. } => waiters,
            State::Done { .. } => None,
        }
    }
}

pub(super) struct Entry {
    key: ReplayKey,
    pub(super) ends: Moment,
    pub(super) state: State,
}

/// Every entry sits in one place, whose number is in `index` under the entry's key and in `ends` under its end.
#[derive(Default)]
pub(super) struct Shard {
    chunks: Vec<Box<[Option<Entry>; CHUNK]>>,
    /// Places whose entry was removed.
    free: Vec<u32>,
    /// Places used so far, free ones included.
    used: u32,
    index: HashTable<u32>,
    ends: BTreeSet<(Moment, u32)>,
}

impl Shard {
    pub(super) fn state(&mut self, key: &ReplayKey) -> Option<&mut State> {
        let place = self.find(key)?;
        place_mut(&mut self.chunks, place)
            .as_mut()
            .map(|entry| &mut entry.state)
    }

    /// Writes the entry of `key`, known or not. Returns whoever waited for the one that was there.
    pub(super) fn put(&mut self, key: &ReplayKey, ends: Moment, state: State) -> Option<Waiters> {
        let place = match self.find(key) {
            Some(place) => place,
            None => self.make_place(key),
        };
        let entry = Entry { key: *key, ends, state };
        let before = place_mut(&mut self.chunks, place).replace(entry);
        if let Some(before) = &before {
            self.ends.remove(&(before.ends, place));
        }
        self.ends.insert((ends, place));
        before.and_then(|before| before.state.into_waiters())
    }

    /// Removes the entry of `key` when there is one and `condemned` says so, and hands its waiters to `waiting`.
    /// Returns how many entries that were.
    pub(super) fn remove_if(
        &mut self,
        key: &ReplayKey,
        waiting: &mut Vec<Waiters>,
        condemned: impl Fn(&Entry) -> bool,
    ) -> usize {
        let Some(place) = self.find(key) else { return 0 };
        if !place_mut(&mut self.chunks, place).as_ref().is_some_and(condemned) {
            return 0;
        }
        waiting.extend(self.remove(place));
        1
    }

    /// Removes up to [`SWEEP_MAX`] entries that ended by `now`, the earliest first, and hands their waiters to
    /// `waiting`. Returns how many.
    pub(super) fn sweep(&mut self, now: Moment, waiting: &mut Vec<Waiters>) -> usize {
        let mut swept = 0;
        while swept < SWEEP_MAX {
            match self.ends.first() {
                Some(&(ends, place)) if ends <= now => waiting.extend(self.remove(place)),
                _ => break,
            }
            swept += 1;
        }
        swept
    }

    fn find(&self, key: &ReplayKey) -> Option<u32> {
        let holds_key = |place: &u32| {
            place_ref(&self.chunks, *place)
                .as_ref()
                .is_some_and(|entry| entry.key == *key)
        };
        self.index.find(hash(key), holds_key).copied()
    }

    /// An empty place, known to the index under `key`.
    fn make_place(&mut self, key: &ReplayKey) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            if self.used as usize == self.chunks.len() * CHUNK {
                self.chunks.push(Box::new([const { None }; CHUNK]));
            }
            // Cannot pass u32::MAX: the capacity of the whole store is a u32.
            self.used += 1;
            self.used - 1
        });
        let chunks = &self.chunks;
        let rehash = |place: &u32| place_ref(chunks, *place).as_ref().map_or(0, |entry| hash(&entry.key));
        // More than half full, a table doubles when enough of it was used and freed again, be it after an hour under the
        // same load. So it does at once: memory follows the number of entries, not their age.
        let (entries, full) = (self.index.len(), self.index.num_buckets() / 8 * 7);
        if 2 * (entries + 2) > full {
            self.index.reserve(2 * (entries + 2), rehash);
        }
        self.index.insert_unique(hash(key), place, rehash);
        place
    }

    fn remove(&mut self, place: u32) -> Option<Waiters> {
        let entry = place_mut(&mut self.chunks, place).take()?;
        if let Ok(indexed) = self.index.find_entry(hash(&entry.key), |other| *other == place) {
            indexed.remove();
        }
        self.ends.remove(&(entry.ends, place));
        self.free.push(place);
        entry.state.into_waiters()
    }
}

#[allow(clippy::indexing_slicing, reason = "a place is given out after its chunk was made")]
fn place_ref(chunks: &[Box<[Option<Entry>; CHUNK]>], place: u32) -> &Option<Entry> {
    &chunks[place as usize / CHUNK][place as usize % CHUNK]
}

#[allow(clippy::indexing_slicing, reason = "a place is given out after its chunk was made")]
fn place_mut(chunks: &mut [Box<[Option<Entry>; CHUNK]>], place: u32) -> &mut Option<Entry> {
    &mut chunks[place as usize / CHUNK][place as usize % CHUNK]
}

/// Where the table looks for `key`. Keys are SHA-256 digests, so any eight bytes of one that did not choose the
/// shard are spread as evenly as a keyed hash would spread them; crowding a bucket means searching for digests, and
/// only a sender whose events are genuine gets to try.
fn hash(key: &ReplayKey) -> u64 {
    key.as_bytes().last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    fn key(number: u64) -> ReplayKey {
        ReplayKey::of_event("route", &number.to_string())
    }

    fn at(seconds: u64) -> Moment {
        let clock = ManualClock::at(UnixMillis(0));
        clock.clock().moment().plus(Duration::from_secs(seconds))
    }

    /// Every view shows the same entries.
    fn assert_in_step(shard: &Shard) {
        let held: Vec<u32> = (0..shard.used)
            .filter(|place| place_ref(&shard.chunks, *place).is_some())
            .collect();
        let entry = |place: u32| place_ref(&shard.chunks, place).as_ref().unwrap();
        assert_eq!(shard.index.len(), held.len());
        assert!(held.iter().all(|place| shard.find(&entry(*place).key) == Some(*place)));
        let mut ends: Vec<(Moment, u32)> = held.iter().map(|place| (entry(*place).ends, *place)).collect();
        ends.sort();
        assert!(shard.ends.iter().eq(&ends));
        let mut places: Vec<u32> = held.iter().chain(&shard.free).copied().collect();
        places.sort();
        assert!(places.iter().copied().eq(0..shard.used));
    }

    #[test]
    fn the_views_stay_in_step() {
        // A place that the sweeper no longer sees is lost for good, and the store fills up with the dead.
        let mut shard = Shard::default();
        let mut waiting = Vec::new();
        for number in 0..1000 {
            shard.put(&key(number), at(number % 7), State::Done { status: 200 });
            shard.put(&key(number / 3), at(number % 11), State::Done { status: 200 });
            shard.remove_if(&key(number / 2), &mut waiting, |entry| entry.ends > at(5));
            if number % 100 == 0 {
                shard.sweep(at(2), &mut waiting);
            }
            assert_in_step(&shard);
        }
        while shard.sweep(at(20), &mut waiting) > 0 {}
        assert_in_step(&shard);
        assert_eq!(shard.index.len(), 0);
    }

    #[test]
    fn a_sweep_takes_what_ended_and_no_more_than_its_share() {
        // A request after an idle night must not pay for clearing the whole day before.
        let mut shard = Shard::default();
        let mut waiting = Vec::new();
        for number in 0..100 {
            shard.put(
                &key(number),
                at(if number < 70 { 10 } else { 11 }),
                State::Done { status: 200 },
            );
        }
        assert_eq!(shard.sweep(at(9), &mut waiting), 0);
        assert_eq!(shard.sweep(at(10), &mut waiting), SWEEP_MAX);
        assert_eq!(shard.sweep(at(10), &mut waiting), 70 - SWEEP_MAX);
        assert_eq!(shard.sweep(at(10), &mut waiting), 0);
        assert_eq!(shard.index.len(), 30);
    }

    #[test]
    fn places_are_used_again() {
        // A backend that fails for hours makes every event claim and release: memory must not follow their number.
        let mut shard = Shard::default();
        let mut waiting = Vec::new();
        for number in 0..10_000 {
            shard.put(&key(number), at(60), State::Done { status: 200 });
            assert_eq!(shard.remove_if(&key(number), &mut waiting, |_| true), 1);
        }
        assert_eq!((shard.used, shard.chunks.len(), shard.ends.len()), (1, 1, 0));
    }

    #[test]
    fn memory_follows_the_number_of_entries_and_not_their_age() {
        // What grows after an hour under the same load looks like a leak, and is one to whoever has set a limit.
        for held in [1000_u64, 1700, 3000] {
            let mut shard = Shard::default();
            let mut waiting = Vec::new();
            let mut first = None;
            for number in 0..100 * held {
                shard.sweep(at(number), &mut waiting);
                shard.put(&key(number), at(number + held), State::Done { status: 200 });
                if number == held {
                    first = Some(shard.index.num_buckets());
                }
            }
            assert_eq!(Some(shard.index.num_buckets()), first, "{held}");
            assert!(shard.used <= held as u32 + 1);
        }
    }
}
