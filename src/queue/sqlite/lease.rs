//! Leasing: what is due in a lane goes out, and what went out and was not heard of again comes back.
//!
//! Costs as much as the batch and what is out, whatever the backlog: a lane's oldest events are the first rows of its
//! tables. Leases themselves live in memory; the note on disk is for the start after a crash alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::desk::{Changes, Desk, Held};
use super::schema::{self, LaneNumber};
use crate::clock::UnixMillis;
use crate::database::{Failure, Job};
use crate::queue::{Attempt, EventState, Lane, QueueError};

/// The error of an attempt that nobody reported the end of.
const UNHEARD: &str = "no word from the worker before the lease ended";

/// The error of an attempt that a crash cut off.
const CUT_OFF: &str = "the gateway stopped before the attempt ended";

/// A delivery that was chosen, without its event.
#[derive(Clone, Debug)]
pub(super) struct Picked {
    pub(super) event: u64,
    pub(super) attempt: u32,
    pub(super) tries: u32,
    pub(super) token: u64,
    state: EventState,
}

/// What was chosen, and when to ask again.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) picked: Vec<Picked>,
    pub(super) next_at: Option<UnixMillis>,
}

/// Chooses deliveries of one lane.
pub(super) struct Take {
    pub(super) desk: Arc<Mutex<Desk>>,
    pub(super) lane: Lane,
    pub(super) max: usize,
    pub(super) term: Duration,
    pub(super) told: oneshot::Sender<Result<Choice, QueueError>>,
    pub(super) choice: Choice,
    pub(super) changes: Changes,
    /// Leases that passed, to be put back with the transaction.
    pub(super) passed: Vec<(u64, Held)>,
}

impl Take {
    /// Brings back what is out for longer than its lease, as tried.
    fn recall(&mut self, db: &Connection, desk: &mut Desk, lane: LaneNumber) -> rusqlite::Result<()> {
        let (now, wall) = (desk.clock.moment(), desk.clock.steady());
        let passed = desk.held_of(lane).filter(|(_, held)| held.ends <= now);
        self.passed = passed.map(|(event, held)| (event, held.clone())).collect();
        for (event, held) in &self.passed {
            interrupted(db, &mut self.changes, (lane, *event), held.attempt, wall, UNHEARD)?;
        }
        let batches: BTreeSet<u64> = self.passed.iter().map(|(_, held)| held.batch).collect();
        for batch in batches {
            let back = self.passed.iter().filter(|(_, held)| held.batch == batch).count();
            if desk.out_of(batch) <= back {
                forget_note(db, batch)?;
            }
        }
        Ok(())
    }

    fn choose(&mut self, db: &Connection, desk: &mut Desk, lane: LaneNumber) -> rusqlite::Result<()> {
        let now = desk.clock.steady();
        let passed: Vec<u64> = self.passed.iter().map(|(event, _)| *event).collect();
        let is_out = |event| desk.holder(lane, event).is_some() && !passed.contains(&event);
        let mut fresh = pick_fresh(db, lane, self.max.saturating_add(1), &is_out)?;
        let mut again = pick_again(db, lane, now, self.max.saturating_add(1), &is_out)?;
        let more = fresh.len().saturating_add(again.len()) > self.max;
        // Both kinds get their half and what the other leaves of its own; the odd one by turns.
        let turn = usize::from(desk.batches.is_multiple_of(2));
        let share = self.max.saturating_add(turn) / 2;
        again.truncate(self.max.saturating_sub(fresh.len().min(share)));
        fresh.truncate(self.max.saturating_sub(again.len()));
        again.extend(fresh);
        let next_due = if more { Some(now.0) } else { next_due(db, lane, now)? };
        let started = desk.clock.moment();
        let remaining = desk
            .held_of(lane)
            .filter(|(event, _)| !passed.contains(event))
            .map(|(_, held)| held.ends);
        let next_back = remaining
            .min()
            .map(|ends| now.0.saturating_add(millis(ends.since(started))).saturating_add(1));
        let next_taken = (!again.is_empty()).then(|| now.0.saturating_add(millis(self.term)).saturating_add(1));
        let next = [next_due, next_back, next_taken].into_iter().flatten().min();
        self.choice = Choice {
            picked: again,
            next_at: next.map(UnixMillis),
        };
        Ok(())
    }

    /// The note of what goes out.
    fn note(&self, db: &Connection, lane: LaneNumber, batch: u64) -> rusqlite::Result<()> {
        let each = self.choice.picked.iter();
        let events: Vec<u8> = each
            .flat_map(|picked| [&picked.event.to_be_bytes()[..], &picked.attempt.to_be_bytes()[..]].concat())
            .collect();
        let sql = "INSERT INTO lease (batch, lane, events) VALUES (?1, ?2, ?3)";
        db.prepare_cached(sql)?.execute((batch, lane, events))?;
        Ok(())
    }

    fn go_out(&mut self, desk: &mut Desk, lane: LaneNumber, batch: u64) {
        for (event, _) in &self.passed {
            desk.let_go(lane, *event);
        }
        let ends = desk.clock.moment().plus(self.term);
        for picked in &mut self.choice.picked {
            picked.token = desk.next_token();
            let held = Held {
                token: picked.token,
                ends,
                attempt: picked.attempt,
                batch,
                state: picked.state,
            };
            desk.hold(lane, picked.event, held);
        }
        desk.batches = batch;
        desk.apply(&self.changes);
    }
}

impl Job for Take {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let desk = Arc::clone(&self.desk);
        let mut desk = desk.lock();
        self.changes = Changes::default();
        let Some(lane) = desk.number(&self.lane) else {
            return Ok(());
        };
        self.recall(db, &mut desk, lane)?;
        self.choose(db, &mut desk, lane)?;
        let batch = desk.batches.saturating_add(1);
        if !self.choice.picked.is_empty() {
            self.note(db, lane, batch)?;
        }
        self.go_out(&mut desk, lane, batch);
        Ok(())
    }

    fn undo(&mut self) {
        let mut desk = self.desk.lock();
        let Some(lane) = desk.number(&self.lane) else { return };
        for picked in self.choice.picked.drain(..) {
            desk.let_go(lane, picked.event);
        }
        for (event, held) in self.passed.drain(..) {
            desk.hold(lane, event, held);
        }
        desk.take_back(&self.changes);
    }

    fn finish(self: Box<Self>, outcome: Result<(), Failure>) {
        let Take { choice, told, .. } = *self;
        let choice = outcome.map(|()| choice).map_err(QueueError::from);
        // A worker that went away leaves its leases to end by themselves.
        let _ = told.send(choice);
    }

    fn needs_room(&self) -> bool {
        false
    }
}

fn pick_fresh(
    db: &Connection,
    lane: LaneNumber,
    max: usize,
    is_out: &dyn Fn(u64) -> bool,
) -> rusqlite::Result<Vec<Picked>> {
    let mut oldest = db.prepare_cached("SELECT event FROM fresh WHERE lane = ?1 ORDER BY event")?;
    let mut rows = oldest.query((lane,))?;
    let mut picked = Vec::new();
    while picked.len() < max
        && let Some(row) = rows.next()?
    {
        let event = row.get(0)?;
        if !is_out(event) {
            picked.push(Picked {
                event,
                attempt: 1,
                tries: 1,
                token: 0,
                state: EventState::Pending,
            });
        }
    }
    Ok(picked)
}

fn pick_again(
    db: &Connection,
    lane: LaneNumber,
    now: UnixMillis,
    max: usize,
    is_out: &dyn Fn(u64) -> bool,
) -> rusqlite::Result<Vec<Picked>> {
    let sql = "SELECT event, attempts, spent FROM waiting INDEXED BY waiting_due
        WHERE lane = ?1 AND due <= ?2 ORDER BY due, event";
    let mut due = db.prepare_cached(sql)?;
    let mut rows = due.query((lane, now.0))?;
    let mut picked = Vec::new();
    while picked.len() < max
        && let Some(row) = rows.next()?
    {
        let (event, attempts, spent): (u64, u32, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !is_out(event) {
            let attempt = attempts.saturating_add(1);
            picked.push(Picked {
                event,
                attempt,
                tries: attempt.saturating_sub(spent),
                token: 0,
                state: EventState::Waiting,
            });
        }
    }
    Ok(picked)
}

/// Everything of a batch is back.
pub(super) fn forget_note(db: &Connection, batch: u64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM lease WHERE batch = ?1")?
        .execute((batch,))?;
    Ok(())
}

/// When the first of those that wait for their time is due.
fn next_due(db: &Connection, lane: LaneNumber, now: UnixMillis) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT min(due) FROM waiting INDEXED BY waiting_due WHERE lane = ?1 AND due > ?2";
    db.prepare_cached(sql)?.query_row((lane, now.0), |row| row.get(0))
}

/// An attempt that nobody knows the end of counts as one that failed, and is due again at once.
fn interrupted(
    db: &Connection,
    changes: &mut Changes,
    (lane, event): (LaneNumber, u64),
    attempt: u32,
    now: UnixMillis,
    why: &str,
) -> rusqlite::Result<()> {
    let sql = "SELECT attempts FROM waiting WHERE lane = ?1 AND event = ?2
        UNION ALL SELECT attempts FROM blocked WHERE lane = ?1 AND event = ?2";
    let mut made = db.prepare_cached(sql)?;
    let made: Option<u32> = made.query_row((lane, event), |row| row.get(0)).optional()?;
    if made.is_some_and(|made| made >= attempt) {
        // Recorded since: nothing was cut off, and it has its own time.
        return Ok(());
    }
    let Some((state, mut owed)) = schema::leave(db, lane, event)? else {
        return Ok(());
    };
    owed.attempts = attempt;
    let attempt = Attempt {
        at: now,
        took: Duration::ZERO,
        status: None,
        error: why.to_owned(),
    };
    schema::note_attempt(db, lane, event, owed.attempts, &attempt)?;
    changes.leaves(lane, state);
    changes.enters(lane, schema::enter(db, lane, event, &owed, now.0)?);
    Ok(())
}

/// After a crash: what was out is due again, as tried.
pub(super) fn recover(db: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    let mut noted = db.prepare("SELECT lane, events FROM lease ORDER BY batch")?;
    let mut rows = noted.query(())?;
    let mut unused = Changes::default();
    while let Some(row) = rows.next()? {
        let lane = row.get(0)?;
        let (events, _) = row.get_ref(1)?.as_blob()?.as_chunks::<12>();
        for [a, b, c, d, e, f, g, h, attempt @ ..] in events {
            let event = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            let attempt = u32::from_be_bytes(*attempt);
            interrupted(db, &mut unused, (lane, event), attempt, now, CUT_OFF)?;
        }
    }
    db.execute("DELETE FROM lease", ())?;
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
