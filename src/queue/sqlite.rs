//! The embedded queue: events in one SQLite file beside the gateway, and the replay store in the same.
//!
//! Publishing costs the writer two rows at the ends of their tables, leasing reads from the front, and neither depends
//! on the backlog. A lease is in memory: a restart gives everything back at once, and no lease of a former life can
//! end anything, since its token has another epoch. Bodies are checked against their checksum whenever they are read,
//! which the first attempt of an event that did not have to wait spares.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use tokio::sync::{Notify, oneshot};

use super::{
    Attempt, BATCH_MAX, Batch, Change, Changed, Count, Cursor, End, Ended, EventId, Filter, Health, History, Hold,
    KeptEvent, Lane, Lease, Leased, NewEvent, Page, Queue, QueueError, Receipt, Shown,
};
use crate::clock::{Clock, UnixMillis};
use crate::database::{Condition, DataSettings, Database, Failure, Job, OnCommit, OpenError, Opened};
use crate::store::{REPLAY_TABLES, Restored, Settled, SqliteReplay};
use at_hand::Known;
use change::{Alter, narrow};
use desk::{Changes, Desk};
use end::Finish;
use find::{Direction, Scope, find};
use lease::{Choice, Picked, Take};
use pause::Pause;
use publish::Publish;
use sweep::Sweep;

mod at_hand;
mod change;
mod desk;
mod end;
mod find;
mod lease;
#[cfg(test)]
mod measure;
mod open;
mod pause;
mod publish;
mod schema;
mod sweep;
#[cfg(test)]
mod tests;

/// After this long, in milliseconds, an event that could not be read is read again.
const UNREADABLE_PAUSE_MS: u64 = 60_000;

/// How the embedded queue is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSettings {
    /// The directory and its bounds.
    pub data: DataSettings,
    /// What is kept of what was delivered.
    pub history: History,
    /// Replay keys held at most.
    pub replay_entries_max: u32,
}

/// The embedded engine.
pub struct SqliteQueue {
    database: Arc<Database>,
    desk: Arc<Mutex<Desk>>,
    replay: Arc<SqliteReplay>,
    clock: Clock,
}

impl SqliteQueue {
    /// Opens the data directory, makes it if there is none, brings it to this version, and gives back what was out when
    /// the process ended.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        settings: &SqliteSettings,
        clock: Clock,
        on_commit: OnCommit,
    ) -> Result<(Arc<SqliteQueue>, Arc<SqliteReplay>), OpenError> {
        let version_1 = [schema::TABLES, REPLAY_TABLES].concat();
        let opened = Opened::open(&settings.data, &[&version_1, schema::PAUSES, schema::CHECKSUMS])?;
        let desk = open::desk(opened.db(), clock.clone(), settings.history)?;
        let desk = Arc::new(Mutex::new(desk));
        let replay = Restored::load(opened.db(), clock.clone(), settings.replay_entries_max)?;
        let upkeep = Sweep::new(&desk, replay.expiry());
        let database = Arc::new(opened.start(clock.clone(), Box::new(upkeep), on_commit)?);
        let replay = Arc::new(replay.serve(Arc::clone(&database)));
        let queue = SqliteQueue {
            database,
            desk,
            replay: Arc::clone(&replay),
            clock,
        };
        Ok((Arc::new(queue), replay))
    }

    /// Changes what is kept of what was delivered, as a reload does.
    pub fn keep_history(&self, history: History) {
        self.desk.lock().history = history;
    }

    /// Hands in a job made around the sender of its answer, and waits for that.
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, QueueError>>) -> Box<dyn Job>,
    ) -> Result<T, QueueError> {
        let (told, answer) = oneshot::channel();
        self.database.submit(job(told)).await;
        answer.await.unwrap_or(Err(QueueError::Closed))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        Ok(self.database.read(read).await?)
    }

    /// The events of what was leased, from memory as far as they are there, else from the disk. A damaged one is buried:
    /// nothing will mend it.
    async fn load(&self, lane: &Lane, picked: Vec<Picked>) -> Result<Vec<Leased>, QueueError> {
        let mut known: HashMap<u64, Known> = HashMap::with_capacity(picked.len());
        {
            let mut desk = self.desk.lock();
            let each = picked.iter().map(|picked| picked.event);
            known.extend(each.filter_map(|event| Some((event, desk.at_hand.ask(event)?))));
        }
        let mut stored = self.stored(lane, &picked, &known).await?;
        let mut leased = Vec::with_capacity(picked.len());
        for picked in picked {
            let found = match known.remove(&picked.event) {
                Some(known) => Ok(Some(Stored::from(known))),
                None => stored.remove(&picked.event).unwrap_or(Ok(None)),
            };
            let share = found
                .as_ref()
                .ok()
                .and_then(Option::as_ref)
                .map_or(0, |found| found.share);
            let lease = Lease::new(lane.clone(), EventId(picked.event), picked.token, share);
            let event = match found {
                Ok(found) => found
                    .ok_or(QueueError::Damaged)
                    .and_then(|found| Ok((found.accepted_at, found.event?))),
                Err(problem) => {
                    self.put_off(&lease, &problem).await;
                    continue;
                }
            };
            match event {
                Ok((accepted_at, event)) => leased.push(Leased {
                    lease,
                    attempt: picked.attempt,
                    tries: picked.tries,
                    accepted_at,
                    event,
                }),
                Err(problem) => self.bury_damaged(&lease, problem).await,
            }
        }
        Ok(leased)
    }

    /// Reads those of `picked` that are not known; on an error none of `picked` is out any more.
    async fn stored(
        &self,
        lane: &Lane,
        picked: &[Picked],
        known: &HashMap<u64, Known>,
    ) -> Result<HashMap<u64, rusqlite::Result<Option<Stored>>>, QueueError> {
        let ids = picked.iter().map(|picked| picked.event);
        let ids: Vec<u64> = ids.filter(|id| !known.contains_key(id)).collect();
        if ids.is_empty() {
            // Reading takes another thread, which nobody has to wait for then.
            return Ok(HashMap::new());
        }
        let read = move |db: &Connection| Ok(ids.into_iter().map(|id| (id, Stored::load(db, id))).collect());
        let stored = self.read(read).await;
        if stored.is_err() {
            for picked in picked {
                let lease = Lease::new(lane.clone(), EventId(picked.event), picked.token, 0);
                let _ = self.end(&lease, End::Release).await;
            }
        }
        stored
    }

    /// What cannot be read at the moment makes room for what is behind it.
    async fn put_off(&self, lease: &Lease, problem: &rusqlite::Error) {
        log::error!("queue: event {}: cannot be read: {problem}", lease.id());
        let now = self.clock.steady();
        let attempt = Attempt {
            at: now,
            took: Duration::ZERO,
            status: None,
            error: format!("the event cannot be read: {problem}"),
        };
        let again = UnixMillis(now.0.saturating_add(UNREADABLE_PAUSE_MS));
        // Without an end the lease passes, which puts it off as well.
        let _ = self.end(lease, End::Retry(attempt, again)).await;
    }

    async fn bury_damaged(&self, lease: &Lease, problem: QueueError) {
        log::error!(
            "queue: event {} for {}: {problem}",
            lease.id(),
            lease.lane().destination
        );
        let attempt = Attempt {
            at: self.clock.steady(),
            took: Duration::ZERO,
            status: None,
            error: problem.to_string(),
        };
        // Without an end the lease passes, and the damage is met again.
        let _ = self.end(lease, End::Bury(attempt)).await;
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn publish(&self, event: NewEvent, hold: Option<Hold>) -> Result<Receipt, QueueError> {
        let mut settlement = None;
        let mut foreign = None;
        if let Some(Hold { claim, status, keep }) = hold {
            match claim.hand_over(&self.replay) {
                Ok((keys, token)) => settlement = Some(self.replay.settlement(keys, token, status, keep)),
                Err(claim) => foreign = Some((claim, status, keep)),
            }
        }
        let receipt = self
            .ask(|told| Box::new(Publish::new(&self.desk, event, settlement, told)))
            .await?;
        match foreign {
            None => Ok(receipt),
            Some((claim, status, keep)) => {
                let settled = claim.settle(status, keep).await;
                Ok(Receipt::new(receipt.id(), settled == Ok(Settled::Recorded)))
            }
        }
    }

    async fn lease(&self, lane: &Lane, max: usize, term: Duration) -> Result<Batch, QueueError> {
        let choice: Choice = self
            .ask(|told| {
                Box::new(Take {
                    desk: Arc::clone(&self.desk),
                    lane: lane.clone(),
                    max: max.min(BATCH_MAX),
                    term,
                    told,
                    choice: Choice::default(),
                    changes: Changes::default(),
                    passed: Vec::new(),
                })
            })
            .await?;
        let next_at = choice.next_at;
        let leased = match choice.picked.is_empty() {
            true => Vec::new(),
            false => self.load(lane, choice.picked).await?,
        };
        Ok(Batch { leased, next_at })
    }

    async fn end(&self, lease: &Lease, end: End) -> Result<Ended, QueueError> {
        self.ask(|told| Box::new(Finish::new(&self.desk, lease.clone(), end, told)))
            .await
    }

    fn bell(&self, lane: &Lane) -> Arc<Notify> {
        self.desk.lock().bell(lane)
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, max: usize) -> Result<Page, QueueError> {
        let scope = Scope::new(&self.desk.lock(), filter);
        let (filter, max) = (filter.clone(), max.min(BATCH_MAX));
        let page = move |db: &Connection| find(db, &scope, &filter, after.as_ref(), max, Direction::NewestFirst);
        let (found, next) = self.read(page).await?;
        let deliveries = found.into_iter().map(|found| found.delivery).collect();
        Ok(Page { deliveries, next })
    }

    async fn show(&self, id: EventId) -> Result<Option<Shown>, QueueError> {
        let filter = Filter {
            id: Some(id),
            ..Filter::default()
        };
        let scope = Scope::new(&self.desk.lock(), &filter);
        let read = move |db: &Connection| {
            let stored = Stored::load(db, id.0)?;
            let (found, _) = find(db, &scope, &filter, None, BATCH_MAX, Direction::OldestFirst)?;
            let with_attempts = found.into_iter().map(|found| {
                let attempts = find::attempts(db, found.lane, found.delivery.id.0)?;
                Ok((found.delivery, attempts))
            });
            Ok((stored, with_attempts.collect::<rusqlite::Result<Vec<_>>>()?))
        };
        let (stored, deliveries) = self.read(read).await?;
        let Some(stored) = stored else { return Ok(None) };
        Ok(Some(Shown {
            event: stored.event?,
            deliveries,
        }))
    }

    async fn change(
        &self,
        change: Change,
        filter: &Filter,
        after: Option<Cursor>,
        max: usize,
    ) -> Result<Changed, QueueError> {
        let Some(filter) = narrow(change, filter) else {
            return Ok(Changed::default());
        };
        let (scope, max) = (Scope::new(&self.desk.lock(), &filter), max.min(BATCH_MAX));
        let states = filter.states.clone();
        let search = move |db: &Connection| find(db, &scope, &filter, after.as_ref(), max, Direction::OldestFirst);
        let (found, next) = self.read(search).await?;
        let found = found.into_iter().map(|found| (found.lane, found.delivery.id.0));
        let found = found.collect();
        self.ask(|told| {
            Box::new(Alter {
                desk: Arc::clone(&self.desk),
                change,
                states,
                found,
                next,
                told,
                changed: Changed::default(),
                changes: Changes::default(),
            })
        })
        .await
    }

    async fn pause(&self, route: &str, paused: bool) -> Result<(), QueueError> {
        self.ask(|told| {
            Box::new(Pause {
                desk: Arc::clone(&self.desk),
                route: Arc::from(route),
                paused,
                told,
                before: false,
            })
        })
        .await
    }

    fn paused(&self) -> Vec<Arc<str>> {
        self.desk.lock().paused.iter().cloned().collect()
    }

    async fn counts(&self) -> Result<Vec<Count>, QueueError> {
        let census = open::Census::new(&self.desk.lock());
        self.read(move |db| census.take(db)).await
    }

    fn health(&self) -> Health {
        match self.database.condition() {
            Condition::Open => Health::Open,
            Condition::Full => Health::Full,
            Condition::Closed => Health::Closed,
        }
    }

    async fn close(&self) {
        let desk = Arc::clone(&self.desk);
        self.database.close(Box::new(open::Farewell { desk })).await;
    }
}

/// An event as it was read.
struct Stored {
    accepted_at: UnixMillis,
    /// What one delivery of it counts for in the history.
    share: u64,
    event: Result<Arc<KeptEvent>, QueueError>,
}

impl From<Known> for Stored {
    fn from(known: Known) -> Self {
        Stored {
            accepted_at: known.accepted_at,
            share: known.share,
            event: Ok(known.event),
        }
    }
}

impl Stored {
    /// The event, if it is there. What cannot be read, or not as what it must be, is damaged, and is that event's
    /// trouble alone.
    fn load(db: &Connection, id: u64) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT accepted, lanes, digest, head, body FROM event WHERE id = ?1";
        let mut select = db.prepare_cached(sql)?;
        let found = select.query_row((id,), |row| {
            let (head, body) = (row.get_ref(3)?.as_bytes()?, row.get_ref(4)?.as_bytes()?);
            let bytes = head.len().saturating_add(body.len()) as u64;
            Ok(Stored {
                accepted_at: UnixMillis(row.get(0)?),
                share: bytes.checked_div(row.get(1)?).unwrap_or(bytes),
                event: KeptEvent::read(head, Bytes::copy_from_slice(body), row.get_ref(2)?.as_bytes()?).map(Arc::new),
            })
        });
        match found.optional() {
            Err(problem) if is_damage(&problem) => {
                log::error!("queue: event {id}: {problem}");
                Ok(Some(Stored {
                    accepted_at: UnixMillis(0),
                    share: 0,
                    event: Err(QueueError::Damaged),
                }))
            }
            found => found,
        }
    }
}

/// Whether the event is at fault, and not the moment: a row that is no row, or a value of another type.
fn is_damage(problem: &rusqlite::Error) -> bool {
    match problem.sqlite_error_code() {
        None => true,
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
    }
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => QueueError::Full,
            Failure::Closed => QueueError::Closed,
            Failure::Damaged => QueueError::Damaged,
        }
    }
}
