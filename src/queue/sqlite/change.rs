//! What operators do to deliveries: retry, cancel, purge. A bounded number at a time, so that deliveries go on between.
//!
//! They are searched for on a reader's connection, which may take long and holds up nobody; the writer is given the ones
//! that were found, and looks where each of them stands by then.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::desk::{Changes, Desk};
use super::schema::{self, LaneNumber};
use crate::clock::UnixMillis;
use crate::database::{Failure, Job};
use crate::queue::{Change, Changed, Cursor, EventState, Filter, QueueError};

/// Changes what was found.
pub(super) struct Alter {
    pub(super) desk: Arc<Mutex<Desk>>,
    pub(super) change: Change,
    /// The states that are meant.
    pub(super) states: Vec<EventState>,
    pub(super) found: Vec<(LaneNumber, u64)>,
    /// Where to go on.
    pub(super) next: Option<Cursor>,
    pub(super) told: oneshot::Sender<Result<Changed, QueueError>>,
    pub(super) changed: Changed,
    pub(super) changes: Changes,
}

/// The states that a change speaks about, as far as the filter does; `None` when there is none.
pub(super) fn narrow(change: Change, filter: &Filter) -> Option<Filter> {
    let concerned: &[EventState] = match change {
        Change::Retry => &[
            EventState::Waiting,
            EventState::Leased,
            EventState::Delivered,
            EventState::Dead,
            EventState::Cancelled,
        ],
        Change::Cancel => &[
            EventState::Pending,
            EventState::Waiting,
            EventState::Blocked,
            EventState::Leased,
        ],
        Change::Purge => &[EventState::Delivered, EventState::Dead, EventState::Cancelled],
    };
    let asked = |state: &&EventState| filter.states.is_empty() || filter.states.contains(state);
    let states: Vec<EventState> = concerned.iter().filter(asked).copied().collect();
    (!states.is_empty()).then(|| Filter {
        states,
        ..filter.clone()
    })
}

impl Alter {
    fn one(
        &mut self,
        db: &Connection,
        desk: &Desk,
        (lane, event, state): (LaneNumber, u64, EventState),
        now: UnixMillis,
    ) -> rusqlite::Result<bool> {
        match (self.change, state) {
            (Change::Retry, EventState::Waiting) => {
                let sql = "UPDATE waiting SET due = ?3 WHERE lane = ?1 AND event = ?2 AND due > ?3";
                self.changes.stir(lane);
                Ok(db.prepare_cached(sql)?.execute((lane, event, now.0))? > 0)
            }
            (Change::Retry, _) => self.redrive(db, lane, event, now),
            (Change::Cancel, _) => self.cancel(db, lane, event, now),
            (Change::Purge, _) => {
                let Some((state, _, share)) = schema::revive(db, lane, event)? else {
                    return Ok(false);
                };
                self.changes.leaves(lane, state);
                self.changes.history_shrank(share);
                schema::forget(db, event, lane, &desk.siblings(lane))?;
                Ok(true)
            }
        }
    }

    fn redrive(&mut self, db: &Connection, lane: LaneNumber, event: u64, now: UnixMillis) -> rusqlite::Result<bool> {
        let Some((state, owed, share)) = schema::revive(db, lane, event)? else {
            return Ok(false);
        };
        self.changes.leaves(lane, state);
        self.changes.history_shrank(share);
        self.changes.enters(lane, schema::enter(db, lane, event, &owed, now.0)?);
        Ok(true)
    }

    fn cancel(&mut self, db: &Connection, lane: LaneNumber, event: u64, now: UnixMillis) -> rusqlite::Result<bool> {
        let Some((state, owed)) = schema::leave(db, lane, event)? else {
            return Ok(false);
        };
        self.changes.leaves(lane, state);
        let sql = "SELECT (length(head) + bytes) / max(lanes, 1) FROM event WHERE id = ?1";
        let share: Option<u64> = db
            .prepare_cached(sql)?
            .query_row((event,), |row| row.get(0))
            .optional()?;
        let share = share.unwrap_or(0);
        let sql = "INSERT INTO done (lane, event, key, state, at, attempts, share) VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6)";
        db.prepare_cached(sql)?
            .execute((lane, event, &owed.key, now.0, owed.attempts, share))?;
        self.changes.enters(lane, EventState::Cancelled);
        self.changes.history_grew(share);
        if state != EventState::Blocked
            && let Some(next) = schema::unblock(db, lane, owed.key.as_deref(), now.0)?
        {
            self.changes.leaves(lane, EventState::Blocked);
            self.changes.enters(lane, next);
        }
        Ok(true)
    }
}

impl Job for Alter {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let desk = Arc::clone(&self.desk);
        let mut desk = desk.lock();
        self.changes = Changes::default();
        self.changed = Changed::default();
        let now = desk.clock.steady();
        // A copy: the job may be run again.
        for (lane, event) in self.found.clone() {
            let state = match desk.holder(lane, event) {
                Some(_) => Some(EventState::Leased),
                None => schema::state(db, lane, event)?,
            };
            match state.filter(|state| self.states.contains(state)) {
                Some(EventState::Leased) => self.changed.skipped = self.changed.skipped.saturating_add(1),
                Some(state) if self.one(db, &desk, (lane, event, state), now)? => {
                    self.changed.changed = self.changed.changed.saturating_add(1);
                }
                // Changed hands since it was found, or needs no change.
                _ => {}
            }
        }
        self.changed.next = self.next.clone();
        desk.apply(&self.changes);
        Ok(())
    }

    fn undo(&mut self) {
        self.desk.lock().take_back(&self.changes);
    }

    fn finish(self: Box<Self>, outcome: Result<(), Failure>) {
        let changed = match outcome {
            Ok(()) => {
                self.desk.lock().ring(&self.changes);
                Ok(self.changed)
            }
            Err(failure) => Err(failure.into()),
        };
        // The operator may be gone.
        let _ = self.told.send(changed);
    }

    fn needs_room(&self) -> bool {
        false
    }
}
