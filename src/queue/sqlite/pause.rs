//! Routes that operators paused: on disk, so that a restart in the middle of the backend's migration does not resume them.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::desk::Desk;
use crate::database::{Failure, Job};
use crate::queue::QueueError;

/// Puts a pause, or its end, on record.
pub(super) struct Pause {
    pub(super) desk: Arc<Mutex<Desk>>,
    pub(super) route: Arc<str>,
    pub(super) paused: bool,
    pub(super) told: oneshot::Sender<Result<(), QueueError>>,
    /// Whether it was paused before.
    pub(super) before: bool,
}

/// The routes that are paused.
pub(super) fn load(db: &Connection, desk: &mut Desk) -> rusqlite::Result<()> {
    let mut select = db.prepare("SELECT route FROM paused")?;
    let routes = select.query_map((), |row| row.get::<_, String>(0))?;
    for route in routes {
        desk.paused.insert(Arc::from(route?));
    }
    Ok(())
}

fn set(desk: &mut Desk, route: &Arc<str>, paused: bool) {
    match paused {
        true => drop(desk.paused.insert(Arc::clone(route))),
        false => drop(desk.paused.remove(route)),
    }
}

impl Job for Pause {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let mut desk = self.desk.lock();
        match self.paused {
            true => db
                .prepare_cached("INSERT OR IGNORE INTO paused (route, since) VALUES (?1, ?2)")?
                .execute((&*self.route, desk.clock.steady().0))?,
            false => db
                .prepare_cached("DELETE FROM paused WHERE route = ?1")?
                .execute((&*self.route,))?,
        };
        self.before = desk.paused.contains(&self.route);
        set(&mut desk, &self.route, self.paused);
        Ok(())
    }

    fn undo(&mut self) {
        set(&mut self.desk.lock(), &self.route, self.before);
    }

    fn finish(self: Box<Self>, outcome: Result<(), Failure>) {
        // The operator may be gone.
        let _ = self.told.send(outcome.map_err(QueueError::from));
    }

    fn needs_room(&self) -> bool {
        false
    }
}
