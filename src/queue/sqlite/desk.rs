//! What the engine keeps in memory: the lanes and how many deliveries each has by state, what is out, and the numbers
//! given last. All of it can be read back from the file, except who holds what; it does not grow with the backlog.
//!
//! Locked by the writer's jobs while they run, and by those who ask for counts. A job changes it at the end of its run,
//! and takes that back when its transaction is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::Notify;

use super::at_hand::AtHand;
use super::schema::LaneNumber;
use crate::clock::{Clock, Moment};
use crate::queue::{EventState, History, Lane};

/// The engine's memory.
pub(super) struct Desk {
    pub(super) clock: Clock,
    pub(super) history: History,
    /// Bytes of the deliveries in the history.
    pub(super) history_bytes: u64,
    pub(super) last_id: u64,
    /// Counts the starts of the data directory; the upper bits of every token.
    pub(super) epoch: u32,
    pub(super) tokens: u64,
    pub(super) batches: u64,
    /// Routes that operators paused.
    pub(super) paused: BTreeSet<Arc<str>>,
    /// What was published a moment ago.
    pub(super) at_hand: AtHand,
    lanes: BTreeMap<LaneNumber, LaneEntry>,
    numbers: HashMap<Lane, LaneNumber>,
    bells: HashMap<Lane, Arc<Notify>>,
    /// What is out.
    held: BTreeMap<(LaneNumber, u64), Held>,
    /// How many of each batch are out.
    out: BTreeMap<u64, usize>,
}

struct LaneEntry {
    lane: Lane,
    bell: Arc<Notify>,
    /// By table, so that what is leased is counted where it lies.
    counts: [u64; EventState::ALL.len()],
}

/// A delivery that is out.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) token: u64,
    pub(super) ends: Moment,
    /// The number of the attempt it is out for.
    pub(super) attempt: u32,
    pub(super) batch: u64,
    /// Where its row lies.
    pub(super) state: EventState,
}

/// What a job changes in the counts; to be applied at the end of its run and taken back with it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    counts: Vec<(LaneNumber, EventState, i64)>,
    history_bytes: i64,
    stirred: BTreeSet<LaneNumber>,
}

impl Changes {
    /// A delivery has come into `state`.
    pub(super) fn enters(&mut self, lane: LaneNumber, state: EventState) {
        self.counts.push((lane, state, 1));
        if matches!(state, EventState::Pending | EventState::Waiting) {
            self.stirred.insert(lane);
        }
    }

    /// A delivery has left `state`.
    pub(super) fn leaves(&mut self, lane: LaneNumber, state: EventState) {
        self.counts.push((lane, state, -1));
    }

    /// Something in the lane may be due.
    pub(super) fn stir(&mut self, lane: LaneNumber) {
        self.stirred.insert(lane);
    }

    /// The history has become larger.
    pub(super) fn history_grew(&mut self, bytes: u64) {
        self.history_bytes = self.history_bytes.saturating_add_unsigned(bytes);
    }

    /// The history has become smaller.
    pub(super) fn history_shrank(&mut self, bytes: u64) {
        self.history_bytes = self.history_bytes.saturating_sub_unsigned(bytes);
    }
}

impl Desk {
    pub(super) fn new(clock: Clock, history: History) -> Self {
        Desk {
            clock,
            history,
            history_bytes: 0,
            last_id: 0,
            epoch: 0,
            tokens: 0,
            batches: 0,
            paused: BTreeSet::new(),
            at_hand: AtHand::default(),
            lanes: BTreeMap::new(),
            numbers: HashMap::new(),
            bells: HashMap::new(),
            held: BTreeMap::new(),
            out: BTreeMap::new(),
        }
    }

    /// The number of a lane, if it ever had an event.
    pub(super) fn number(&self, lane: &Lane) -> Option<LaneNumber> {
        self.numbers.get(lane).copied()
    }

    /// The lane of a number.
    pub(super) fn lane(&self, number: LaneNumber) -> Option<&Lane> {
        self.lanes.get(&number).map(|entry| &entry.lane)
    }

    /// Every lane, by number.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (LaneNumber, &Lane)> {
        self.lanes.iter().map(|(number, entry)| (*number, &entry.lane))
    }

    /// The lanes of the route that `lane` belongs to.
    pub(super) fn siblings(&self, lane: LaneNumber) -> Vec<LaneNumber> {
        let Some(route) = self.lane(lane).map(|lane| &lane.route) else {
            return Vec::new();
        };
        let of_route = self.lanes().filter(|(_, other)| other.route == *route);
        of_route.map(|(number, _)| number).collect()
    }

    /// The lane's number, made when it has none; true when it was made and is to be dropped with the transaction.
    pub(super) fn number_or_new(&mut self, db: &Connection, lane: &Lane) -> rusqlite::Result<(LaneNumber, bool)> {
        if let Some(number) = self.number(lane) {
            return Ok((number, false));
        }
        let sql = "INSERT INTO lane (route, destination) VALUES (?1, ?2)";
        db.prepare_cached(sql)?.execute((&*lane.route, &*lane.destination))?;
        let number = db.last_insert_rowid();
        self.add_lane(number, lane.clone());
        Ok((number, true))
    }

    pub(super) fn add_lane(&mut self, number: LaneNumber, lane: Lane) {
        self.numbers.insert(lane.clone(), number);
        let entry = LaneEntry {
            bell: self.bell(&lane),
            lane,
            counts: [0; EventState::ALL.len()],
        };
        self.lanes.insert(number, entry);
    }

    /// Takes back a lane that was made in a transaction that was rolled back.
    pub(super) fn drop_lane(&mut self, number: LaneNumber) {
        if let Some(entry) = self.lanes.remove(&number) {
            self.numbers.remove(&entry.lane);
        }
    }

    /// The bell of a lane, whether or not it ever had an event.
    pub(super) fn bell(&mut self, lane: &Lane) -> Arc<Notify> {
        Arc::clone(self.bells.entry(lane.clone()).or_default())
    }

    /// Rings for everything that the changes may have made due.
    pub(super) fn ring(&self, changes: &Changes) {
        for lane in &changes.stirred {
            if let Some(entry) = self.lanes.get(lane) {
                entry.bell.notify_one();
            }
        }
    }

    pub(super) fn apply(&mut self, changes: &Changes) {
        self.count(changes, 1);
        self.history_bytes = self.history_bytes.saturating_add_signed(changes.history_bytes);
    }

    pub(super) fn take_back(&mut self, changes: &Changes) {
        self.count(changes, -1);
        self.history_bytes = self
            .history_bytes
            .saturating_add_signed(changes.history_bytes.saturating_neg());
    }

    /// Bytes of the history once the changes are applied.
    pub(super) fn history_bytes_after(&self, changes: &Changes) -> u64 {
        self.history_bytes.saturating_add_signed(changes.history_bytes)
    }

    fn count(&mut self, changes: &Changes, sign: i64) {
        for (lane, state, by) in &changes.counts {
            let count = self
                .lanes
                .get_mut(lane)
                .and_then(|entry| entry.counts.get_mut(*state as usize));
            if let Some(count) = count {
                *count = count.saturating_add_signed(by.saturating_mul(sign));
            }
        }
    }

    /// Sets a count that was read from the file.
    pub(super) fn set_count(&mut self, lane: LaneNumber, state: EventState, deliveries: u64) {
        let count = self
            .lanes
            .get_mut(&lane)
            .and_then(|entry| entry.counts.get_mut(state as usize));
        if let Some(count) = count {
            *count = deliveries;
        }
    }

    /// How many deliveries of a lane lie in the table of `state`; of the leased, how many are out.
    pub(super) fn lying(&self, lane: LaneNumber, state: EventState) -> u64 {
        let entry = self.lanes.get(&lane);
        entry
            .and_then(|entry| entry.counts.get(state as usize))
            .copied()
            .unwrap_or(0)
    }

    /// What is out of a lane, by event.
    pub(super) fn held_of(&self, lane: LaneNumber) -> impl Iterator<Item = (u64, &Held)> {
        let all = (lane, u64::MIN)..=(lane, u64::MAX);
        self.held.range(all).map(|((_, event), held)| (*event, held))
    }

    /// What is out.
    pub(super) fn held(&self) -> impl Iterator<Item = (LaneNumber, u64, &Held)> {
        self.held.iter().map(|((lane, event), held)| (*lane, *event, held))
    }

    pub(super) fn holder(&self, lane: LaneNumber, event: u64) -> Option<&Held> {
        self.held.get(&(lane, event))
    }

    /// How many of a batch are out.
    pub(super) fn out_of(&self, batch: u64) -> usize {
        self.out.get(&batch).copied().unwrap_or(0)
    }

    pub(super) fn hold(&mut self, lane: LaneNumber, event: u64, held: Held) {
        let out = self.out.entry(held.batch).or_default();
        *out = out.saturating_add(1);
        self.held.insert((lane, event), held);
    }

    pub(super) fn let_go(&mut self, lane: LaneNumber, event: u64) -> Option<Held> {
        let held = self.held.remove(&(lane, event))?;
        if let Some(out) = self.out.get_mut(&held.batch) {
            *out = out.saturating_sub(1);
            if *out == 0 {
                self.out.remove(&held.batch);
            }
        }
        Some(held)
    }

    /// A number that no lease of this data directory had.
    pub(super) fn next_token(&mut self) -> u64 {
        self.tokens = self.tokens.wrapping_add(1);
        u64::from(self.epoch) << 40 | self.tokens
    }
}
