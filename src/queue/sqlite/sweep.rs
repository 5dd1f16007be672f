//! The history's bounds: what was delivered or cancelled goes when its time or its bytes are up, a little at a time.
//!
//! A part of the writer's upkeep, in the transaction of whatever group comes by. On a full disk the history goes before
//! its time: new events are worth more than copies of delivered ones. Dead letters are not touched.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::desk::{Changes, Desk};
use super::schema::{self, LaneNumber};
use crate::clock::Moment;
use crate::database::Upkeep;
use crate::store::ReplayExpiry;

/// Deliveries that are removed at once.
const SWEEP_MAX: usize = 256;

/// How often the time of the oldest is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The writer's own work: the history and the replay store.
pub(super) struct Sweep {
    desk: Arc<Mutex<Desk>>,
    next: Moment,
    replay: ReplayExpiry,
    /// The disk is full: nothing of the history is worth its room.
    pressed: bool,
    changes: Changes,
}

impl Sweep {
    pub(super) fn new(desk: &Arc<Mutex<Desk>>, replay: ReplayExpiry) -> Self {
        let next = desk.lock().clock.moment();
        Sweep {
            desk: Arc::clone(desk),
            next,
            replay,
            pressed: false,
            changes: Changes::default(),
        }
    }

    fn history_is_due(&self) -> bool {
        let desk = self.desk.lock();
        self.next <= desk.clock.moment() || desk.history_bytes > self.bytes_max(&desk)
    }

    fn bytes_max(&self, desk: &Desk) -> u64 {
        if self.pressed { 0 } else { desk.history.bytes_max }
    }
}

impl Upkeep for Sweep {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.changes = Changes::default();
        self.replay.run(db)?;
        if !self.history_is_due() {
            return Ok(());
        }
        let desk = Arc::clone(&self.desk);
        let mut desk = desk.lock();
        let mut left = sweep_time(db, &desk, &mut self.changes, SWEEP_MAX)?;
        let bytes_max = self.bytes_max(&desk);
        let mut is_empty = false;
        while left > 0 && !is_empty && desk.history_bytes_after(&self.changes) > bytes_max {
            let gone = sweep_oldest(db, &desk, &mut self.changes, left)?;
            is_empty = gone == 0;
            left = left.saturating_sub(gone);
        }
        desk.apply(&self.changes);
        if is_empty {
            // Whatever was counted is not there.
            desk.history_bytes = 0;
        }
        if left > 0 {
            self.next = desk.clock.moment().plus(SWEEP_EVERY);
        }
        Ok(())
    }

    fn undo(&mut self) {
        self.desk.lock().take_back(&self.changes);
    }

    fn is_due(&mut self) -> bool {
        self.replay.is_due() || self.history_is_due()
    }

    fn press(&mut self, full: bool) {
        self.pressed = full;
    }
}

/// Removes what is older than is kept; returns how many more could have been.
fn sweep_time(db: &Connection, desk: &Desk, changes: &mut Changes, max: usize) -> rusqlite::Result<usize> {
    let keep_ms = u64::try_from(desk.history.keep.as_millis()).unwrap_or(u64::MAX);
    // Ids are about the microseconds of acceptance.
    let before = desk.clock.steady().0.saturating_sub(keep_ms).saturating_mul(1000);
    let mut left = max;
    for (lane, _) in desk.lanes() {
        if left > 0 {
            left = left.saturating_sub(remove(db, desk, changes, lane, before, left)?);
        }
    }
    Ok(left)
}

/// Removes a few of the oldest; returns how many.
fn sweep_oldest(db: &Connection, desk: &Desk, changes: &mut Changes, max: usize) -> rusqlite::Result<usize> {
    let mut oldest: Vec<(u64, LaneNumber)> = Vec::new();
    for (lane, _) in desk.lanes() {
        let sql = "SELECT min(event) FROM done WHERE lane = ?1";
        let event: Option<u64> = db.prepare_cached(sql)?.query_row((lane,), |row| row.get(0))?;
        oldest.extend(event.map(|event| (event, lane)));
    }
    oldest.sort_unstable();
    let mut lanes = oldest.iter();
    let Some((_, lane)) = lanes.next() else { return Ok(0) };
    // As far as the next lane's oldest, so that the oldest of all go first; a few at a time, not to overshoot.
    let before = lanes.next().map_or(u64::MAX >> 1, |(event, _)| event.saturating_add(1));
    remove(db, desk, changes, *lane, before, max.min(16))
}

fn remove(
    db: &Connection,
    desk: &Desk,
    changes: &mut Changes,
    lane: LaneNumber,
    before: u64,
    max: usize,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM done WHERE lane = ?1 AND event IN
        (SELECT event FROM done WHERE lane = ?1 AND event < ?2 ORDER BY event LIMIT ?3)
        RETURNING event, state, share";
    let mut delete = db.prepare_cached(sql)?;
    let gone = delete.query_map((lane, before, max), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let gone: Vec<(u64, i64, u64)> = gone.collect::<Result<_, _>>()?;
    let siblings = desk.siblings(lane);
    for (event, state, share) in &gone {
        changes.leaves(lane, schema::done_state(*state));
        changes.history_shrank(*share);
        schema::forget(db, *event, lane, &siblings)?;
    }
    Ok(gone.len())
}
