//! The replay store that survives a restart: claims in memory, done events in memory and on disk.
//!
//! Claims, waiters and bounds are those of [`MemoryReplay`]. What it adds: a settled event is a row before anybody is
//! told that it is done, and every row whose time has not passed is back in memory after a start. So a claim costs no
//! disk, a settle one small row at the end of a table, and the memory is the same as without the disk.
//!
//! The queue settles the claim of an event in the transaction that publishes it, by a [`Settlement`].
//!
//! Ends are kept by a time that is the wall's at the start of the process and runs with the monotonic clock from there:
//! while it runs, a step of the wall clock neither forgets nor prolongs. A wall clock that is wrong at a start does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::memory::MemoryReplay;
use super::{Claimed, ReplayKey, ReplayKeys, ReplayStore, Settled, StoreError, Token};
use crate::clock::{Clock, Moment};
use crate::database::{Condition, Database, Failure, Job, Upkeep};

/// The tables of version 1.
pub(crate) const REPLAY_TABLES: &str = "
    -- Events that are done: all keys of one (32 bytes each, ascending) until the time has come, in ms.
    CREATE TABLE replay (ends INTEGER, keys BLOB, status INTEGER NOT NULL, PRIMARY KEY (ends, keys)) WITHOUT ROWID;
";

/// Rows that are removed at once.
const EXPIRED_MAX: u32 = 256;

/// How often expired rows are looked for.
const EXPIRY_EVERY: Duration = Duration::from_secs(1);

/// Done events outlive the process.
pub struct SqliteReplay {
    memory: Arc<MemoryReplay>,
    time: Time,
    database: Arc<Database>,
}

/// Milliseconds since 1970, as the wall clock had it at the start and the monotonic clock counted since.
#[derive(Clone)]
struct Time {
    clock: Clock,
    started_ms: u64,
}

impl Time {
    fn new(clock: &Clock) -> Self {
        Time {
            clock: clock.clone(),
            started_ms: clock
                .wall()
                .0
                .saturating_sub(millis(Duration::from_nanos(clock.moment().nanos()))),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started_ms
            .saturating_add(millis(Duration::from_nanos(self.clock.moment().nanos())))
    }

    /// The end of what lasts `keep` from now, as far as SQLite's integers go.
    fn end_ms(&self, keep: Duration) -> i64 {
        i64::try_from(self.now_ms().saturating_add(millis(keep))).unwrap_or(i64::MAX)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a start read back, before the writer runs.
pub(crate) struct Restored {
    memory: MemoryReplay,
    time: Time,
}

impl Restored {
    /// For at most `entries_max` keys.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn load(db: &Connection, clock: Clock, entries_max: u32) -> rusqlite::Result<Self> {
        let time = Time::new(&clock);
        let memory = MemoryReplay::new(clock, entries_max);
        let now_ms = time.now_ms();
        let mut rows = db.prepare("SELECT ends, keys, status FROM replay WHERE ends > ?1")?;
        let mut rows = rows.query((i64::try_from(now_ms).unwrap_or(i64::MAX),))?;
        while let Some(row) = rows.next()? {
            let left = Duration::from_millis(row.get::<_, u64>(0)?.saturating_sub(now_ms));
            if let Some(keys) = unpacked(row.get_ref(1)?.as_blob()?) {
                memory.restore(&keys, row.get(2)?, left);
            }
        }
        Ok(Restored { memory, time })
    }

    /// Removes expired rows, as a part of the writer's upkeep.
    pub(crate) fn expiry(&self) -> ReplayExpiry {
        ReplayExpiry {
            time: self.time.clone(),
            next: self.time.clock.moment(),
        }
    }

    /// The store, once the writer runs.
    pub(crate) fn serve(self, database: Arc<Database>) -> SqliteReplay {
        SqliteReplay {
            memory: Arc::new(self.memory),
            time: self.time,
            database,
        }
    }
}

impl SqliteReplay {
    /// What settles `token`'s claim within somebody's transaction.
    pub(crate) fn settlement(&self, keys: ReplayKeys, token: Token, status: u16, keep: Duration) -> Settlement {
        Settlement {
            memory: Arc::clone(&self.memory),
            ends: self.time.end_ms(keep),
            keys,
            token,
            status,
            keep,
            open: true,
        }
    }
}

/// A claim that ends with a transaction; dropped without one, it is released.
pub(crate) struct Settlement {
    memory: Arc<MemoryReplay>,
    ends: i64,
    keys: ReplayKeys,
    token: Token,
    status: u16,
    keep: Duration,
    /// Whether it is released when it is dropped.
    open: bool,
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if self.open {
            self.memory.release(&self.keys, self.token, None);
        }
    }
}

impl Settlement {
    /// The row of the done event.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut row = db.prepare_cached("INSERT OR REPLACE INTO replay (ends, keys, status) VALUES (?1, ?2, ?3)")?;
        row.execute((self.ends, packed(&self.keys), self.status))?;
        Ok(())
    }

    /// After the row is durable: repeats are known, and those who wait are told.
    ///
    /// # Errors
    /// [`StoreError::Full`], see [`ReplayStore::settle`]; repeats are known after the next start alone.
    pub(crate) fn settle(mut self) -> Result<Settled, StoreError> {
        self.open = false;
        self.memory.finish(&self.keys, self.token, self.status, self.keep)
    }
}

#[async_trait]
impl ReplayStore for SqliteReplay {
    async fn claim(self: Arc<Self>, keys: &ReplayKeys, lease: Duration) -> Result<Claimed, StoreError> {
        if self.database.condition() == Condition::Closed {
            return Err(StoreError::Down);
        }
        Ok(self.memory.take(keys, lease)?.claimed(self, keys))
    }

    async fn settle(
        &self,
        keys: &ReplayKeys,
        token: Token,
        status: u16,
        keep: Duration,
    ) -> Result<Settled, StoreError> {
        if self.memory.is_overtaken(keys, token) {
            return Ok(Settled::Overtaken);
        }
        let settlement = Settlement {
            memory: Arc::clone(&self.memory),
            ends: self.time.end_ms(keep),
            keys: keys.clone(),
            token,
            status,
            keep,
            // The event was taken, whatever becomes of the row.
            open: false,
        };
        let (told, settled) = oneshot::channel();
        let job = Settle { settlement, told };
        self.database.submit(Box::new(job)).await;
        settled.await.unwrap_or(Err(StoreError::Down))
    }

    fn release(&self, keys: &ReplayKeys, token: Token, outcome: Option<u16>) {
        self.memory.release(keys, token, outcome);
    }

    fn entries(&self) -> u64 {
        self.memory.entries()
    }

    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    fn survives_restart(&self) -> bool {
        true
    }
}

impl fmt::Debug for SqliteReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteReplay")
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

/// A claim that ends by itself in the next transaction.
struct Settle {
    settlement: Settlement,
    told: oneshot::Sender<Result<Settled, StoreError>>,
}

impl Job for Settle {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.settlement.write(db)
    }

    fn undo(&mut self) {}

    fn finish(self: Box<Self>, outcome: Result<(), Failure>) {
        // The event was taken in any case: until the next start its repeats are known.
        let settled = self.settlement.settle();
        // Nobody may be left who asks.
        let _ = self.told.send(outcome.map_err(|_| StoreError::Down).and(settled));
    }

    fn needs_room(&self) -> bool {
        // A small row, about an event that has been taken already.
        false
    }
}

/// Removes rows whose time has passed.
pub(crate) struct ReplayExpiry {
    time: Time,
    next: Moment,
}

impl Upkeep for ReplayExpiry {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        // Rows of the same millisecond go together.
        let mut expired = db.prepare_cached(
            "DELETE FROM replay WHERE ends <= min(?1,
                coalesce((SELECT ends FROM replay ORDER BY ends LIMIT 1 OFFSET ?2), ?1))",
        )?;
        let gone = expired.execute((self.time.end_ms(Duration::ZERO), EXPIRED_MAX))?;
        if gone < EXPIRED_MAX as usize {
            self.next = self.time.clock.moment().plus(EXPIRY_EVERY);
        }
        Ok(())
    }

    fn undo(&mut self) {}

    fn is_due(&mut self) -> bool {
        self.next <= self.time.clock.moment()
    }

    // Nothing here can be spared: every row is a replay that would get through.
    fn press(&mut self, _: bool) {}
}

fn packed(keys: &ReplayKeys) -> Vec<u8> {
    keys.as_slice().iter().flat_map(|key| *key.as_bytes()).collect()
}

fn unpacked(bytes: &[u8]) -> Option<ReplayKeys> {
    let (keys, rest) = bytes.as_chunks::<32>();
    let keys = ReplayKeys::new(keys.iter().copied().map(ReplayKey)).ok()?;
    rest.is_empty().then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::super::suite::{Bench, replay_suite};
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::database::Opened;
    use crate::database::scratch::Scratch;

    replay_suite!(open);

    fn start(scratch: &Scratch, time: &ManualClock, entries_max: u32) -> Arc<SqliteReplay> {
        let opened = Opened::open(&scratch.settings(), &[REPLAY_TABLES]).unwrap();
        let restored = Restored::load(opened.db(), time.clock(), entries_max).unwrap();
        let expiry = Box::new(restored.expiry());
        let database = opened.start(time.clock(), expiry, Box::new(|_| {})).unwrap();
        Arc::new(restored.serve(Arc::new(database)))
    }

    fn open(entries_max: u32) -> Bench {
        let (scratch, time) = (Scratch::new(), ManualClock::at(UnixMillis(1_000_000)));
        Bench {
            store: start(&scratch, &time, entries_max),
            pass: Box::new(move |by| {
                let _until_the_end = &scratch;
                time.advance(by);
            }),
        }
    }

    struct Nothing;

    impl Job for Nothing {
        fn run(&mut self, _: &Connection) -> rusqlite::Result<()> {
            Ok(())
        }
        fn undo(&mut self) {}
        fn finish(self: Box<Self>, _: Result<(), Failure>) {}
        fn needs_room(&self) -> bool {
            false
        }
    }

    fn keys<const N: usize>(numbers: [u32; N]) -> ReplayKeys {
        ReplayKeys::new(numbers.map(|number| ReplayKey::of_event("route", &number.to_string()))).unwrap()
    }

    async fn claim(store: &Arc<SqliteReplay>, number: u32) -> Claimed {
        Arc::clone(store)
            .claim(&keys([number]), Duration::from_secs(30))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_restart_keeps_the_window() {
        // Whoever can make the gateway restart can replay what was captured.
        let (scratch, time) = (Scratch::new(), ManualClock::at(UnixMillis(1_000_000)));
        let store = start(&scratch, &time, 100);
        let hour = Duration::from_secs(3600);
        for (number, keep) in [(1, hour), (2, hour * 2), (3, Duration::MAX)] {
            let Claimed::New(claim) = claim(&store, number).await else {
                panic!("not new")
            };
            assert_eq!(claim.settle(200 + number as u16, keep).await, Ok(Settled::Recorded));
        }
        let Claimed::New(in_flight) = claim(&store, 4).await else {
            panic!("not new")
        };
        store.database.close(Box::new(Nothing)).await;
        time.advance(hour);
        let store = start(&scratch, &time, 100);
        // In flight at the end: its outcome is not known, so the provider's retry has to go through.
        for (number, known) in [(1, None), (2, Some(202)), (3, Some(203)), (4, None)] {
            match claim(&store, number).await {
                Claimed::Done { status } => assert_eq!(Some(status), known),
                Claimed::New(_) => assert_eq!(None, known),
                Claimed::InFlight(_) => panic!("held by nobody"),
            }
        }
        time.advance(hour);
        assert!(matches!(claim(&store, 2).await, Claimed::New(_)));
        assert!(matches!(claim(&store, 3).await, Claimed::Done { status: 203 }));
        drop(in_flight);
    }

    #[tokio::test]
    async fn several_keys_survive_together() {
        // While secrets rotate, one of an event's two signatures is forgotten by a restart.
        let (scratch, time) = (Scratch::new(), ManualClock::at(UnixMillis(1_000_000)));
        let store = start(&scratch, &time, 100);
        let all = Arc::clone(&store)
            .claim(&keys([1, 2, 3]), Duration::from_secs(30))
            .await;
        let Ok(Claimed::New(claim_of_all)) = all else {
            panic!("not new")
        };
        assert!(claim_of_all.settle(200, Duration::from_secs(60)).await.is_ok());
        store.database.close(Box::new(Nothing)).await;
        // A smaller capacity forgets nothing that was promised.
        let store = start(&scratch, &time, 1);
        assert_eq!(store.entries(), 3);
        for number in [1, 2, 3] {
            assert!(matches!(claim(&store, number).await, Claimed::Done { status: 200 }));
        }
    }

    #[tokio::test]
    async fn expired_rows_leave_the_file() {
        // The file grows with every event there ever was.
        let (scratch, time) = (Scratch::new(), ManualClock::at(UnixMillis(1_000_000)));
        let store = start(&scratch, &time, 10_000);
        let rows = async || {
            let count = |db: &Connection| db.query_row("SELECT count(*) FROM replay", (), |row| row.get::<_, u64>(0));
            store.database.read(count).await.unwrap()
        };
        let settle = async |number| {
            let Claimed::New(claim) = claim(&store, number).await else {
                panic!("not new")
            };
            assert!(claim.settle(200, Duration::from_secs(60)).await.is_ok());
        };
        for number in 0..600 {
            settle(number).await;
            time.advance(Duration::from_millis(1));
        }
        assert_eq!(rows().await, 600);
        time.advance(Duration::from_secs(3600));
        for number in 1000..1004 {
            settle(number).await;
            time.advance(Duration::from_secs(1));
        }
        assert_eq!(rows().await, 4);
    }

    #[tokio::test]
    async fn a_closed_file_claims_nothing() {
        // Events are taken whose repeats nobody will know.
        let (scratch, time) = (Scratch::new(), ManualClock::at(UnixMillis(1_000_000)));
        let store = start(&scratch, &time, 100);
        let Claimed::New(late) = claim(&store, 1).await else {
            panic!("not new")
        };
        store.database.close(Box::new(Nothing)).await;
        assert_eq!(late.settle(200, Duration::from_secs(60)).await, Err(StoreError::Down));
        let refused = Arc::clone(&store).claim(&keys([2]), Duration::from_secs(30)).await;
        assert_eq!(refused.unwrap_err(), StoreError::Down);
    }
}
