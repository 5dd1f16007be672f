//! The one thread that writes: takes what waits, runs it as one transaction, syncs once, tells everybody.
//!
//! Errors come in two kinds. A full disk rolls the group back; its jobs are run again one by one, those that need room
//! are refused, the reserve is given up for the others, and once a second it looks whether there is room again.
//! Anything else (an I/O error of a write, a sync or a checkpoint, a file that makes no sense) closes the file: all
//! that wait and all that come are told [`Failure::Closed`], and nothing is written any more, not even a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::ErrorCode;
use rusqlite::hooks::Wal;
use tokio::sync::{Semaphore, oneshot};

use super::file::Opened;
use super::{Commit, Condition, Failure, Job, OnCommit, Upkeep};
use crate::clock::Clock;

/// Jobs of one transaction at most.
const GROUP_JOBS_MAX: usize = 1024;

/// Bytes of the log after which it is copied into the database. More makes larger pauses, fewer more of them; a page
/// that changes often is copied once each time.
/// Tests meet more of them.
const CHECKPOINT_BYTES: u64 = if cfg!(test) { 640 << 10 } else { 8 << 20 };

/// How often an idle writer looks around.
const TICK: Duration = Duration::from_secs(1);

/// A busy writer looks around after this many groups.
const LOOK_GROUPS: u32 = 1024;

/// SQLite cannot grow the index of its log (`SQLITE_IOERR_SHMSIZE`): no room, by another name.
const SHM_SIZE: i32 = 10 | (19 << 8);

/// What is sent to the writer.
pub(super) enum Message {
    Job(Box<dyn Job>),
    /// A last job, then the end, of which the sender tells.
    Close(Box<dyn Job>, oneshot::Sender<()>),
}

/// The thread's belongings.
pub(super) struct Writer {
    opened: Opened,
    waiting: Receiver<Message>,
    room: Arc<Semaphore>,
    condition: Gauge,
    upkeep: Box<dyn Upkeep>,
    on_commit: OnCommit,
    clock: Clock,
    /// Pages in the log, as of the last commit.
    log_pages: Arc<AtomicU32>,
    groups_since_look: u32,
    closing: Option<(Box<dyn Job>, oneshot::Sender<()>)>,
}

/// The condition that others see. However the thread ends, they see it closed, and nobody waits for room any more.
struct Gauge {
    condition: Arc<AtomicU8>,
    room: Arc<Semaphore>,
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.show(Condition::Closed);
        self.room.close();
    }
}

impl Gauge {
    fn show(&self, condition: Condition) {
        self.condition.store(condition as u8, Ordering::Release);
    }

    fn shows(&self, condition: Condition) -> bool {
        self.condition.load(Ordering::Acquire) == condition as u8
    }
}

impl Writer {
    pub(super) fn new(
        opened: Opened,
        waiting: Receiver<Message>,
        room: Arc<Semaphore>,
        condition: Arc<AtomicU8>,
        (upkeep, on_commit, clock): (Box<dyn Upkeep>, OnCommit, Clock),
    ) -> Self {
        Writer {
            opened,
            waiting,
            condition: Gauge {
                condition,
                room: Arc::clone(&room),
            },
            room,
            upkeep,
            on_commit,
            clock,
            log_pages: Arc::default(),
            groups_since_look: 0,
            closing: None,
        }
    }

    /// Serves until it is told to close or nobody is left who could.
    pub(super) fn serve(mut self) {
        if let Err(problem) = self.begin() {
            self.shut(&problem);
        }
        while self.closing.is_none() {
            let closed = self.condition.shows(Condition::Closed);
            let wait = if !closed && self.upkeep.is_due() {
                Duration::ZERO
            } else {
                TICK
            };
            let message = match self.waiting.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if closed {
                self.turn_away(message);
            } else if let Err(problem) = self.turn(message) {
                self.shut(&problem);
            }
        }
        self.end();
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        let log_pages = Arc::clone(&self.log_pages);
        let count = move |_: &mut Wal, pages| {
            log_pages.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        self.opened.db.wal_hook(Some(count))?;
        self.limit_pages(true)?;
        self.look_for_room()
    }

    /// One round: a group if there is something to write, a checkpoint when it is time, a look around now and then.
    fn turn(&mut self, message: Option<Message>) -> rusqlite::Result<()> {
        let idle = message.is_none();
        if !idle || self.upkeep.is_due() {
            self.group(message)?;
        }
        let log_bytes = u64::from(self.log_pages.load(Ordering::Relaxed)).saturating_mul(self.opened.page_bytes);
        if log_bytes >= CHECKPOINT_BYTES {
            self.checkpoint()?;
        }
        self.groups_since_look = self.groups_since_look.saturating_add(1);
        if idle || self.groups_since_look >= LOOK_GROUPS {
            self.groups_since_look = 0;
            self.look_for_room()?;
        }
        Ok(())
    }

    fn begin_transaction(&self) -> rusqlite::Result<()> {
        let mut begin = self.opened.db.prepare_cached("BEGIN IMMEDIATE")?;
        begin.execute(()).map(drop)
    }

    fn group(&mut self, first: Option<Message>) -> rusqlite::Result<()> {
        let mut ran: Vec<Box<dyn Job>> = Vec::new();
        match self.transaction(first, &mut ran) {
            Ok(()) => {
                ran.into_iter().for_each(|job| job.finish(Ok(())));
                Ok(())
            }
            Err(problem) if is_full(&problem) => {
                self.roll_back();
                // The last one may have failed half-way, with nothing to take back; the others in reverse order.
                self.enter_full()?;
                self.one_by_one(ran)
            }
            Err(problem) => {
                ran.into_iter().for_each(|job| job.finish(Err(Failure::Closed)));
                Err(problem)
            }
        }
    }

    /// Runs what waits, beginning with `first`, and commits. On an error what succeeded was undone; `ran` has what was
    /// tried.
    fn transaction(&mut self, first: Option<Message>, ran: &mut Vec<Box<dyn Job>>) -> rusqlite::Result<()> {
        if let Err(problem) = self.begin_transaction() {
            // Whoever sent it is told, above all who wants the end.
            ran.extend(first.and_then(|message| self.admit(message)));
            return Err(problem);
        }
        let mut next = first;
        let mut problem = None;
        while let Some(message) = next {
            if let Some(mut job) = self.admit(message) {
                problem = job.run(&self.opened.db).err();
                ran.push(job);
            }
            if problem.is_some() {
                break;
            }
            let more = ran.len() < GROUP_JOBS_MAX && self.closing.is_none();
            next = if more { self.waiting.try_recv().ok() } else { None };
        }
        let failed_half_way = usize::from(problem.is_some());
        let problem = problem.or_else(|| self.commit(ran.len()).err());
        let Some(problem) = problem else { return Ok(()) };
        ran.iter_mut().rev().skip(failed_half_way).for_each(|job| job.undo());
        Err(problem)
    }

    /// Takes a message off the queue; `None` when it is no job to run.
    fn admit(&mut self, message: Message) -> Option<Box<dyn Job>> {
        match message {
            Message::Job(job) => {
                self.room.add_permits(1);
                if job.needs_room() && self.condition.shows(Condition::Full) {
                    job.finish(Err(Failure::Full));
                    return None;
                }
                Some(job)
            }
            Message::Close(last, closed) => {
                self.closing = Some((last, closed));
                None
            }
        }
    }

    fn commit(&mut self, jobs: usize) -> rusqlite::Result<()> {
        self.upkeep.run(&self.opened.db)?;
        let started = self.clock.moment();
        let committed = self
            .opened
            .db
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute(()));
        if let Err(problem) = committed {
            self.upkeep.undo();
            return Err(problem);
        }
        let sync = self.clock.moment().since(started);
        (self.on_commit)(Commit { jobs, sync });
        Ok(())
    }

    /// Each job in a transaction of its own, after a group met a full disk.
    fn one_by_one(&mut self, jobs: Vec<Box<dyn Job>>) -> rusqlite::Result<()> {
        let mut closed = None;
        for mut job in jobs {
            if closed.is_some() || job.needs_room() {
                let failure = if closed.is_some() {
                    Failure::Closed
                } else {
                    Failure::Full
                };
                job.finish(Err(failure));
                continue;
            }
            match self.alone(job.as_mut()) {
                Ok(()) => job.finish(Ok(())),
                Err(problem) if is_full(&problem) => {
                    self.roll_back();
                    job.finish(Err(Failure::Full));
                }
                Err(problem) => {
                    job.finish(Err(Failure::Closed));
                    closed = Some(problem);
                }
            }
        }
        closed.map_or(Ok(()), Err)
    }

    fn alone(&mut self, job: &mut dyn Job) -> rusqlite::Result<()> {
        self.begin_transaction()?;
        job.run(&self.opened.db)?;
        self.commit(1).inspect_err(|_| job.undo())
    }

    fn roll_back(&self) {
        // SQLite rolls back by itself on some errors; that there is nothing to roll back then is no problem.
        if !self.opened.db.is_autocommit() {
            let _ = self.opened.db.execute_batch("ROLLBACK");
        }
    }

    /// Copies the log into the database, so that it can start over. As much as readers allow at the moment.
    fn checkpoint(&mut self) -> rusqlite::Result<()> {
        let done = self
            .opened
            .db
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
        match done {
            Err(problem) if is_full(&problem) => self.enter_full(),
            done => done,
        }
    }

    fn enter_full(&mut self) -> rusqlite::Result<()> {
        if !self.condition.shows(Condition::Full) {
            log::error!("database: no room: events are refused until there is; delivering goes on");
            self.condition.show(Condition::Full);
        }
        self.upkeep.press(true);
        self.opened.reserve.give_up();
        self.limit_pages(false)
    }

    /// Keeps the reserve, and opens or refuses accordingly.
    fn look_for_room(&mut self) -> rusqlite::Result<()> {
        let full = self.condition.shows(Condition::Full);
        if !full && self.opened.reserve.is_there {
            return Ok(());
        }
        let number =
            |name| -> rusqlite::Result<u64> { self.opened.db.pragma_query_value(None, name, |row| row.get(0)) };
        let (pages, free) = (number("page_count")?, number("freelist_count")?);
        let reserve = self.opened.reserve.pages;
        // Twice the reserve, so that the next event does not close the door again.
        let wanted = reserve.saturating_mul(2);
        let allowed = self
            .opened
            .pages_max
            .is_none_or(|max| pages.saturating_sub(free).saturating_add(wanted) <= max);
        let kept = self.opened.reserve.keep().is_ok();
        match (full, kept || free >= wanted, allowed) {
            (true, true, true) => {
                log::warn!("database: there is room again");
                self.limit_pages(true)?;
                self.upkeep.press(false);
                self.condition.show(Condition::Open);
                Ok(())
            }
            // Without a reserve, free pages are what deleting lives from.
            (false, false, _) if free < reserve => self.enter_full(),
            _ => Ok(()),
        }
    }

    /// Limits the file to what it may be, less the reserve unless that is what is used now.
    fn limit_pages(&self, less_reserve: bool) -> rusqlite::Result<()> {
        let Some(max) = self.opened.pages_max else {
            return Ok(());
        };
        let reserve = if less_reserve { self.opened.reserve.pages } else { 0 };
        let sql = format!("PRAGMA max_page_count = {}", max.saturating_sub(reserve));
        self.opened.db.query_row(&sql, (), |_| Ok(()))
    }

    fn shut(&mut self, problem: &rusqlite::Error) {
        log::error!("database: closed for good, a restart is needed: {problem}");
        self.condition.show(Condition::Closed);
        self.roll_back();
    }

    fn turn_away(&mut self, message: Option<Message>) {
        match message {
            Some(Message::Job(job)) => {
                self.room.add_permits(1);
                job.finish(Err(Failure::Closed));
            }
            Some(Message::Close(last, closed)) => self.closing = Some((last, closed)),
            None => {}
        }
    }

    /// The clean end: the last job, the log copied, everybody else turned away.
    fn end(mut self) {
        let Some((mut last, closed)) = self.closing.take() else {
            return;
        };
        let outcome = match self.condition.shows(Condition::Closed) {
            true => Err(Failure::Closed),
            false => self
                .alone(last.as_mut())
                .and_then(|()| self.checkpoint())
                .map_err(|problem| {
                    log::error!("database: not closed cleanly: {problem}");
                    Failure::Closed
                }),
        };
        self.condition.show(Condition::Closed);
        last.finish(outcome);
        while let Ok(message) = self.waiting.try_recv() {
            match message {
                Message::Job(job) => job.finish(Err(Failure::Closed)),
                Message::Close(last, _) => last.finish(Err(Failure::Closed)),
            }
        }
        // The lock goes with the file, before anybody is told that it is free.
        drop(self);
        let _ = closed.send(());
    }
}

fn is_full(problem: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(error, _) = problem else {
        return false;
    };
    error.code == ErrorCode::DiskFull || error.extended_code == SHM_SIZE
}
