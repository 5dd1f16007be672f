//! The data directory: one SQLite file, one thread that writes it, and readers on connections of their own.
//!
//! The queue's and the replay store's engines bring their tables and hand in [`Job`]s; the writer runs whatever is
//! waiting as one transaction, makes it durable by one fsync, and then tells each job so. A group is as large as the
//! last fsync was long: nobody waits for company. Readers see the last commit and never hold up the writer.
//!
//! What is promised to a job: `finish` is called once, with `Ok` only after its writes are on disk
//! (`synchronous=FULL`). An I/O error, whichever, closes the file for good: after a failed fsync nobody knows what
//! is on disk, and asking again gives the wrong answer (PostgreSQL lost data so for twenty years). A full disk is
//! no such error: jobs that need room are refused, the others live from a reserve, and it ends by itself.
//!
//! Only the writer's connection writes and checkpoints. SQLite's own coordination between several of them, where the
//! WAL-reset bug of 3.7.0 to 3.51.2 was, is not used; the bundled version (3.54) has it fixed, too.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

pub(crate) use file::Opened;

use crate::clock::Clock;
use writer::{Message, Writer};

mod file;
#[cfg(test)]
pub(crate) mod scratch;
mod writer;

/// Jobs that wait for the writer at most; who comes later waits before handing in.
const JOBS_MAX: usize = 4096;

/// Reads that run at the same time at most.
const READERS_MAX: usize = 4;

/// Where the file is and how large it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSettings {
    /// The directory, made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// The database file grows to this many bytes at most; `None`: as far as the disk goes.
    pub bytes_max: Option<u64>,
    /// Kept back for delivering and deleting when nothing else is left, in bytes.
    pub reserve_bytes: u64,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be made, read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Made by a later version of the program, whose tables this one does not know.
    #[error("the file is of version {0}, later than this program's {1}")]
    TooNew(i64, i64),
    /// Not a file of ours.
    #[error("{} is not a file of this program", .0.display())]
    Foreign(PathBuf),
    /// SQLite refuses it.
    #[error("the database cannot be opened: {0}")]
    Database(#[from] rusqlite::Error),
}

/// What the disk lets the writer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Everything.
    Open,
    /// What needs no room.
    Full,
    /// Nothing, until the next start.
    Closed,
}

/// Why a job or a read was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No room; nothing was changed.
    Full,
    /// The file is closed; what was changed may or may not be there after the next start.
    Closed,
    /// The file's content makes no sense. Of reads only: a writer that meets this closes.
    Damaged,
}

/// A piece of a transaction.
pub(crate) trait Job: Send {
    /// Writes. May be called again after the transaction was rolled back, then after `undo` if it had succeeded.
    /// Whatever else it changes it changes last, when nothing can fail any more.
    ///
    /// # Errors
    /// Those of SQLite; they end the transaction of the whole group. What is no disk's or file's fault is no error.
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;

    /// Takes back what a successful `run` changed outside of the file.
    fn undo(&mut self);

    /// The end: with `Ok` everything is durable.
    fn finish(self: Box<Self>, outcome: Result<(), Failure>);

    /// Whether it is refused while the disk is full. What delivers and deletes is not.
    fn needs_room(&self) -> bool;
}

/// Work of the writer's own in a group's transaction: a bounded piece at a time.
pub(crate) trait Upkeep: Send {
    /// Does a little if there is something to do; called at every group's end, and once a second at least.
    ///
    /// # Errors
    /// As [`Job::run`].
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;

    /// As [`Job::undo`].
    fn undo(&mut self);

    /// Whether there is anything to do, so that an idle file stays untouched.
    fn is_due(&mut self) -> bool;

    /// The disk has become full, or is so no more: what can be spared is to go.
    fn press(&mut self, full: bool);
}

/// What one commit was like, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Jobs in the group.
    pub jobs: usize,
    /// From the end of the statements to durability.
    pub sync: Duration,
}

/// Told of every commit, on the writer's thread: be quick.
pub type OnCommit = Box<dyn Fn(Commit) + Send>;

/// The open file.
pub(crate) struct Database {
    jobs: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    condition: Arc<AtomicU8>,
    readers: Readers,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Readers {
    file: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Semaphore,
}

impl Opened {
    /// Starts the writer.
    ///
    /// # Errors
    /// [`OpenError::File`] when the system gives no thread.
    pub(crate) fn start(
        self,
        clock: Clock,
        upkeep: Box<dyn Upkeep>,
        on_commit: OnCommit,
    ) -> Result<Database, OpenError> {
        let (jobs, waiting) = mpsc::channel();
        let room = Arc::new(Semaphore::new(JOBS_MAX));
        let condition = Arc::new(AtomicU8::new(Condition::Open as u8));
        let file = self.file.clone();
        let writer = Writer::new(
            self,
            waiting,
            Arc::clone(&room),
            Arc::clone(&condition),
            (upkeep, on_commit, clock),
        );
        let thread = std::thread::Builder::new().name("database".to_owned());
        let writer = thread.spawn(move || writer.serve()).map_err(|error| OpenError::File {
            path: file.clone(),
            error,
        })?;
        Ok(Database {
            jobs,
            room,
            condition,
            readers: Readers {
                file,
                idle: Arc::default(),
                places: Semaphore::new(READERS_MAX),
            },
            writer: Mutex::new(Some(writer)),
        })
    }
}

impl Database {
    /// Hands in a job; it is told its end by `finish`, whether or not this future is dropped after it was handed in.
    pub(crate) async fn submit(&self, job: Box<dyn Job>) {
        match self.room.acquire().await {
            Ok(place) => {
                // The writer gives the place back when the job is taken off the queue.
                place.forget();
                if let Err(mpsc::SendError(Message::Job(job))) = self.jobs.send(Message::Job(job)) {
                    job.finish(Err(Failure::Closed));
                }
            }
            Err(_) => job.finish(Err(Failure::Closed)),
        }
    }

    /// Reads what is committed, on a thread that may block.
    ///
    /// # Errors
    /// [`Failure::Closed`] after the writer failed: what can be read then may not be on disk. [`Failure::Damaged`].
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let place = self.readers.places.acquire().await;
        if place.is_err() || self.condition() == Condition::Closed {
            return Err(Failure::Closed);
        }
        let (idle, file) = (Arc::clone(&self.readers.idle), self.readers.file.clone());
        let reading = move || {
            let taken = idle.lock().pop();
            let db = match taken {
                Some(db) => db,
                None => file::reader(&file)?,
            };
            let found = read(&db);
            // A connection that met an error is not asked again.
            if found.is_ok() {
                idle.lock().push(db);
            }
            found
        };
        match tokio::task::spawn_blocking(reading).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(problem)) => {
                log::error!("database: cannot read: {problem}");
                Err(Failure::Damaged)
            }
            Err(_) => Err(Failure::Closed),
        }
    }

    /// What can be done at this moment.
    pub(crate) fn condition(&self) -> Condition {
        Condition::from_number(self.condition.load(Ordering::Acquire))
    }

    /// Finishes what was handed in, runs `last` as the last job, and lets go of the file.
    pub(crate) async fn close(&self, last: Box<dyn Job>) {
        let (closed, end) = oneshot::channel();
        if self.jobs.send(Message::Close(last, closed)).is_ok() {
            // An error means that the writer is gone, which is what was asked for.
            let _ = end.await;
        }
        self.room.close();
        self.readers.places.close();
        self.readers.idle.lock().clear();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

impl Condition {
    fn from_number(number: u8) -> Self {
        match number {
            n if n == Condition::Open as u8 => Condition::Open,
            n if n == Condition::Full as u8 => Condition::Full,
            _ => Condition::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::scratch::Scratch;
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    /// Nothing to look after.
    struct Idle;

    impl Upkeep for Idle {
        fn run(&mut self, _: &Connection) -> rusqlite::Result<()> {
            Ok(())
        }

        fn undo(&mut self) {}

        fn is_due(&mut self) -> bool {
            false
        }

        fn press(&mut self, _: bool) {}
    }

    /// Tells how it ended.
    struct Work {
        panics: bool,
        told: oneshot::Sender<Result<(), Failure>>,
    }

    impl Job for Work {
        fn run(&mut self, _: &Connection) -> rusqlite::Result<()> {
            assert!(!self.panics, "a mistake of ours");
            Ok(())
        }

        fn undo(&mut self) {}

        fn finish(self: Box<Self>, outcome: Result<(), Failure>) {
            let _ = self.told.send(outcome);
        }

        fn needs_room(&self) -> bool {
            false
        }
    }

    /// The end of one job; `None` when it was never told.
    async fn work(database: &Database, panics: bool) -> Option<Result<(), Failure>> {
        let (told, end) = oneshot::channel();
        database.submit(Box::new(Work { panics, told })).await;
        end.await.ok()
    }

    async fn within_a_minute<T>(wait: impl Future<Output = T>) -> T {
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.expect("somebody waits for ever")
    }

    fn last() -> Box<Work> {
        let (told, _) = oneshot::channel();
        Box::new(Work { panics: false, told })
    }

    #[tokio::test]
    async fn a_file_that_others_lock_ends_in_an_answer() {
        // Whoever looks into the file with a tool of their own, and the gateway can no longer be stopped.
        let scratch = Scratch::new();
        let opened = Opened::open(&scratch.settings(), &["CREATE TABLE a (x)"]).unwrap();
        opened.db().busy_timeout(Duration::ZERO).unwrap();
        let other = Connection::open(&opened.file).unwrap();
        let clock = ManualClock::at(UnixMillis(0)).clock();
        let database = opened.start(clock, Box::new(Idle), Box::new(|_| {})).unwrap();
        assert_eq!(work(&database, false).await, Some(Ok(())));
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        within_a_minute(database.close(last())).await;
        assert_eq!(database.condition(), Condition::Closed);
    }

    #[tokio::test]
    async fn a_job_that_met_a_locked_file_is_told() {
        // As above, with a publisher instead of the end.
        let scratch = Scratch::new();
        let opened = Opened::open(&scratch.settings(), &["CREATE TABLE a (x)"]).unwrap();
        opened.db().busy_timeout(Duration::ZERO).unwrap();
        let other = Connection::open(&opened.file).unwrap();
        let clock = ManualClock::at(UnixMillis(0)).clock();
        let database = opened.start(clock, Box::new(Idle), Box::new(|_| {})).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(
            within_a_minute(work(&database, false)).await,
            Some(Err(Failure::Closed))
        );
        within_a_minute(database.close(last())).await;
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_keeps_nobody_waiting() {
        // A mistake in one job, and every provider waits until its connection times out instead of being refused.
        let scratch = Scratch::new();
        let opened = Opened::open(&scratch.settings(), &["CREATE TABLE a (x)"]).unwrap();
        let clock = ManualClock::at(UnixMillis(0)).clock();
        let database = opened.start(clock, Box::new(Idle), Box::new(|_| {})).unwrap();
        assert_eq!(work(&database, true).await, None);
        for _ in 0..=JOBS_MAX {
            let end = within_a_minute(work(&database, false)).await;
            assert!(!matches!(end, Some(Ok(()))), "{end:?}");
        }
        within_a_minute(database.close(last())).await;
    }
}
