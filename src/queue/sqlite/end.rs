//! The end of a lease: taken, to be tried again, given up, or not tried.
//!
//! The fence is the token: whoever comes with another than the one that is out changes nothing. What was recalled and
//! not leased again is not out any more, so its late end finds no token; what only passed its time still counts.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::desk::{Changes, Desk, Held};
use super::lease::forget_note;
use super::schema::{self, LaneNumber, Owed};
use crate::clock::UnixMillis;
use crate::database::{Failure, Job};
use crate::queue::{Attempt, End, Ended, EventState, Lease, QueueError};

/// Ends one lease.
pub(super) struct Finish {
    desk: Arc<Mutex<Desk>>,
    lease: Lease,
    end: End,
    told: oneshot::Sender<Result<Ended, QueueError>>,
    changes: Changes,
    /// The hold that ended, to be put back with the transaction.
    ended: Option<(LaneNumber, Held)>,
}

impl Finish {
    pub(super) fn new(
        desk: &Arc<Mutex<Desk>>,
        lease: Lease,
        end: End,
        told: oneshot::Sender<Result<Ended, QueueError>>,
    ) -> Self {
        Finish {
            desk: Arc::clone(desk),
            lease,
            end,
            told,
            changes: Changes::default(),
            ended: None,
        }
    }

    fn record(&mut self, db: &Connection, desk: &Desk, lane: LaneNumber, held: &Held) -> rusqlite::Result<()> {
        let event = self.lease.id().0;
        if self.end == End::Release {
            self.changes.stir(lane);
            return Ok(());
        }
        let Some((state, mut owed)) = schema::leave(db, lane, event)? else {
            return Ok(());
        };
        self.changes.leaves(lane, state);
        owed.attempts = held.attempt;
        match &self.end {
            End::Ack(attempt) => {
                deliver(
                    db,
                    &mut self.changes,
                    desk,
                    (lane, event),
                    &owed,
                    attempt,
                    self.lease.share(),
                )?;
                next_of_key(db, &mut self.changes, desk, lane, &owed)
            }
            End::Bury(attempt) => {
                schema::note_attempt(db, lane, event, owed.attempts, attempt)?;
                let sql = "INSERT INTO dead (lane, event, key, at, attempts) VALUES (?1, ?2, ?3, ?4, ?5)";
                db.prepare_cached(sql)?
                    .execute((lane, event, &owed.key, ended_at(attempt).0, owed.attempts))?;
                self.changes.enters(lane, EventState::Dead);
                next_of_key(db, &mut self.changes, desk, lane, &owed)
            }
            End::Retry(attempt, at) => {
                schema::note_attempt(db, lane, event, owed.attempts, attempt)?;
                self.changes.enters(lane, schema::enter(db, lane, event, &owed, at.0)?);
                Ok(())
            }
            End::Release => Ok(()),
        }
    }
}

impl Job for Finish {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let desk = Arc::clone(&self.desk);
        let mut desk = desk.lock();
        self.changes = Changes::default();
        self.ended = None;
        let event = self.lease.id().0;
        let lane = desk.number(self.lease.lane());
        let held = lane.and_then(|lane| desk.holder(lane, event)).cloned();
        let (Some(lane), Some(held)) = (lane, held) else {
            return Ok(());
        };
        if held.token != self.lease.token() {
            return Ok(());
        }
        self.record(db, &desk, lane, &held)?;
        if desk.out_of(held.batch) <= 1 {
            forget_note(db, held.batch)?;
        }
        desk.let_go(lane, event);
        desk.apply(&self.changes);
        self.ended = Some((lane, held));
        Ok(())
    }

    fn undo(&mut self) {
        let mut desk = self.desk.lock();
        if let Some((lane, held)) = self.ended.take() {
            desk.hold(lane, self.lease.id().0, held);
            desk.take_back(&self.changes);
        }
    }

    fn finish(self: Box<Self>, outcome: Result<(), Failure>) {
        let ended = match (outcome, &self.ended) {
            (Err(failure), _) => Err(failure.into()),
            (Ok(()), None) => Ok(Ended::Fenced),
            (Ok(()), Some(_)) => {
                self.desk.lock().ring(&self.changes);
                Ok(Ended::Recorded)
            }
        };
        // The worker may be gone; its word is on record.
        let _ = self.told.send(ended);
    }

    fn needs_room(&self) -> bool {
        false
    }
}

/// An open delivery has ended: the next one of its key may go, as of now by the clock that leases go by. The attempt's
/// own times are a report, made by another clock.
fn next_of_key(
    db: &Connection,
    changes: &mut Changes,
    desk: &Desk,
    lane: LaneNumber,
    owed: &Owed,
) -> rusqlite::Result<()> {
    let next = schema::unblock(db, lane, owed.key.as_deref(), desk.clock.steady().0)?;
    if let Some(state) = next {
        changes.leaves(lane, EventState::Blocked);
        changes.enters(lane, state);
    }
    Ok(())
}

/// The delivery is history, or nothing when none is kept.
fn deliver(
    db: &Connection,
    changes: &mut Changes,
    desk: &Desk,
    (lane, event): (LaneNumber, u64),
    owed: &Owed,
    attempt: &Attempt,
    share: u64,
) -> rusqlite::Result<()> {
    if desk.history.keep.is_zero() || desk.history.bytes_max == 0 {
        return schema::forget(db, event, lane, &desk.siblings(lane));
    }
    let sql = "INSERT INTO done (lane, event, key, state, at, attempts, share, began, took, status)
        VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9)";
    let took_ms = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
    db.prepare_cached(sql)?.execute((
        lane,
        event,
        &owed.key,
        ended_at(attempt).0,
        owed.attempts,
        share,
        attempt.at.0,
        took_ms,
        attempt.status,
    ))?;
    changes.enters(lane, EventState::Delivered);
    changes.history_grew(share);
    Ok(())
}

fn ended_at(attempt: &Attempt) -> UnixMillis {
    let took_ms = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(attempt.at.0.saturating_add(took_ms))
}
