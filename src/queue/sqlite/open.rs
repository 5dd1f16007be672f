//! The start and the end of an engine's life, and the census: what is read from the file at the start is what the
//! counts begin with.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};

use super::desk::Desk;
use super::lease;
use super::pause;
use super::schema::{self, LaneNumber};
use crate::clock::{Clock, UnixMillis};
use crate::database::{Failure, Job};
use crate::queue::{Count, EventState, History, Lane};

/// Reads the memory of an engine back from its file, and gives back what was out when the last one ended.
pub(super) fn desk(db: &Connection, clock: Clock, history: History) -> rusqlite::Result<Desk> {
    let now = clock.steady();
    let mut desk = Desk::new(clock, history);
    db.execute_batch("BEGIN IMMEDIATE")?;
    step_back(db, now)?;
    lease::recover(db, now)?;
    let epoch = "UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value";
    desk.epoch = db.query_row(epoch, (), |row| row.get(0))?;
    let last_id = "SELECT max(value, coalesce((SELECT max(id) FROM event), 0)) FROM meta WHERE name = 'last_id'";
    desk.last_id = db.query_row(last_id, (), |row| row.get(0))?;
    remember_last_id(db, desk.last_id)?;
    db.execute_batch("COMMIT")?;
    lanes(db, &mut desk)?;
    pause::load(db, &mut desk)?;
    let share = "SELECT coalesce(sum(share), 0) FROM done";
    desk.history_bytes = db.query_row(share, (), |row| row.get(0))?;
    Ok(desk)
}

/// Times in the file are by the wall clock of the start that wrote them. When that was ahead of this one's, as after a
/// start with a wrong clock, what waits would wait for as long as it was wrong: it is moved by the difference.
fn step_back(db: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    let sql = "SELECT value FROM meta WHERE name = 'started'";
    let before: Option<u64> = db.query_row(sql, (), |row| row.get(0)).optional()?;
    let ahead = before.unwrap_or(0).saturating_sub(now.0);
    if ahead > 0 {
        let sql = "UPDATE waiting SET due = max(?1, due - ?2) WHERE due > ?1";
        let moved = db.execute(sql, (now.0, ahead))?;
        log::warn!("queue: the clock was {ahead} ms ahead at the start before; {moved} waiting deliveries moved");
    }
    db.execute("INSERT OR REPLACE INTO meta VALUES ('started', ?1)", (now.0,))?;
    Ok(())
}

fn lanes(db: &Connection, desk: &mut Desk) -> rusqlite::Result<()> {
    let mut select = db.prepare("SELECT number, route, destination FROM lane")?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        let (route, destination): (String, String) = (row.get(1)?, row.get(2)?);
        let lane = Lane {
            route: route.into(),
            destination: destination.into(),
        };
        desk.add_lane(row.get(0)?, lane);
    }
    for (table, state) in [
        ("fresh", EventState::Pending),
        ("waiting", EventState::Waiting),
        ("blocked", EventState::Blocked),
        ("dead", EventState::Dead),
    ] {
        let sql = format!("SELECT lane, count(*) FROM {table} GROUP BY lane");
        let mut select = db.prepare(&sql)?;
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            desk.set_count(row.get(0)?, state, row.get(1)?);
        }
    }
    let mut select = db.prepare("SELECT lane, state, count(*) FROM done GROUP BY lane, state")?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        desk.set_count(row.get(0)?, schema::done_state(row.get(1)?), row.get(2)?);
    }
    Ok(())
}

fn remember_last_id(db: &Connection, last_id: u64) -> rusqlite::Result<()> {
    db.execute("UPDATE meta SET value = ?1 WHERE name = 'last_id'", (last_id,))?;
    Ok(())
}

/// The last job: nothing is out any more.
pub(super) struct Farewell {
    pub(super) desk: Arc<Mutex<Desk>>,
}

impl Job for Farewell {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let mut desk = self.desk.lock();
        db.execute("DELETE FROM lease", ())?;
        remember_last_id(db, desk.last_id)?;
        let out: Vec<(LaneNumber, u64)> = desk.held().map(|(lane, event, _)| (lane, event)).collect();
        for (lane, event) in out {
            desk.let_go(lane, event);
        }
        Ok(())
    }

    fn undo(&mut self) {}

    fn finish(self: Box<Self>, _: Result<(), Failure>) {}

    fn needs_room(&self) -> bool {
        false
    }
}

/// The counts at one moment, and what is still to be asked of the file: since when the oldest waits.
pub(super) struct Census {
    lanes: Vec<LaneCensus>,
}

struct LaneCensus {
    number: LaneNumber,
    lane: Lane,
    lying: [u64; EventState::ALL.len()],
    /// What is out, ascending, and where it lies.
    out: Vec<(u64, EventState)>,
}

impl Census {
    pub(super) fn new(desk: &Desk) -> Self {
        let lanes = desk.lanes().map(|(number, lane)| LaneCensus {
            number,
            lane: lane.clone(),
            lying: EventState::ALL.map(|state| desk.lying(number, state)),
            out: desk.held_of(number).map(|(event, held)| (event, held.state)).collect(),
        });
        Census { lanes: lanes.collect() }
    }

    pub(super) fn take(&self, db: &Connection) -> rusqlite::Result<Vec<Count>> {
        let mut counts = Vec::with_capacity(self.lanes.len().saturating_mul(EventState::ALL.len()));
        for lane in &self.lanes {
            for (state, lying) in EventState::ALL.into_iter().zip(lane.lying) {
                counts.push(Count {
                    lane: lane.lane.clone(),
                    state,
                    deliveries: lane.deliveries(state, lying),
                    oldest: lane.oldest(db, state)?.map(|id| UnixMillis(id / 1000)),
                });
            }
        }
        Ok(counts)
    }
}

impl LaneCensus {
    fn deliveries(&self, state: EventState, lying: u64) -> u64 {
        match state {
            EventState::Leased => self.out.len() as u64,
            _ => lying.saturating_sub(self.out.iter().filter(|(_, lies)| *lies == state).count() as u64),
        }
    }

    fn oldest(&self, db: &Connection, state: EventState) -> rusqlite::Result<Option<u64>> {
        let table = match state {
            EventState::Pending => "fresh",
            EventState::Waiting => "waiting",
            EventState::Blocked => "blocked",
            EventState::Dead => "dead",
            EventState::Leased => return Ok(self.out.first().map(|(event, _)| *event)),
            EventState::Delivered | EventState::Cancelled => return Ok(None),
        };
        let sql = format!("SELECT event FROM {table} WHERE lane = ?1 ORDER BY event");
        let mut select = db.prepare_cached(&sql)?;
        let mut rows = select.query((self.number,))?;
        while let Some(row) = rows.next()? {
            let event = row.get(0)?;
            if self.out.iter().all(|(out, _)| *out != event) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}
