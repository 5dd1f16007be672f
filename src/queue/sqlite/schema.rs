//! The tables of the queue, and the statements that move deliveries between them.
//!
//! A delivery (one event in one lane) is one narrow row in the table of its state; the event itself, head and body, is
//! one row however many lanes it has. Moving a delivery never touches the event. Leases are not on disk at all, but for
//! a note of what was out, so that after a crash its attempt is counted.
//!
//! All tables of deliveries are ordered by lane and event: a lane's oldest is its first row, whatever the backlog.
//! Event ids ascend with acceptance, so these tables grow at their ends.

use rusqlite::{Connection, OptionalExtension};

use crate::queue::{Attempt, ERROR_BYTES_MAX, EventState};

/// Version 1. The statement of a version that was released never changes; the next one is another step.
pub(super) const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('epoch', 0), ('last_id', 0);

    CREATE TABLE lane (number INTEGER PRIMARY KEY, route TEXT NOT NULL, destination TEXT NOT NULL,
        UNIQUE (route, destination));

    -- accepted: ms since 1970. lanes: how many it was published to. bytes: of the body. digest: over head and body.
    CREATE TABLE event (id INTEGER PRIMARY KEY, accepted INTEGER NOT NULL, lanes INTEGER NOT NULL,
        bytes INTEGER NOT NULL, type TEXT, event_id TEXT, digest BLOB NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL);

    -- Never tried.
    CREATE TABLE fresh (lane INTEGER, event INTEGER, key BLOB, PRIMARY KEY (lane, event)) WITHOUT ROWID;
    CREATE INDEX fresh_key ON fresh (lane, key) WHERE key IS NOT NULL;

    -- Tried, or asked for again. attempts: made so far; spent: those before an operator's last retry.
    CREATE TABLE waiting (lane INTEGER, event INTEGER, key BLOB, due INTEGER NOT NULL, attempts INTEGER NOT NULL,
        spent INTEGER NOT NULL, PRIMARY KEY (lane, event)) WITHOUT ROWID;
    CREATE INDEX waiting_due ON waiting (lane, due);
    CREATE INDEX waiting_key ON waiting (lane, key) WHERE key IS NOT NULL;

    -- Behind another of its key, which is in fresh or waiting.
    CREATE TABLE blocked (lane INTEGER, event INTEGER, key BLOB NOT NULL, attempts INTEGER NOT NULL,
        spent INTEGER NOT NULL, PRIMARY KEY (lane, event)) WITHOUT ROWID;
    CREATE INDEX blocked_key ON blocked (lane, key, event);

    CREATE TABLE dead (lane INTEGER, event INTEGER, key BLOB, at INTEGER NOT NULL, attempts INTEGER NOT NULL,
        PRIMARY KEY (lane, event)) WITHOUT ROWID;

    -- Delivered (0) or cancelled (1). began, took, status: of the successful attempt. share: of the event's bytes.
    CREATE TABLE done (lane INTEGER, event INTEGER, key BLOB, state INTEGER NOT NULL, at INTEGER NOT NULL,
        attempts INTEGER NOT NULL, share INTEGER NOT NULL, began INTEGER, took INTEGER, status INTEGER,
        PRIMARY KEY (lane, event)) WITHOUT ROWID;

    -- Attempts that failed.
    CREATE TABLE attempt (lane INTEGER, event INTEGER, number INTEGER, at INTEGER NOT NULL, took INTEGER NOT NULL,
        status INTEGER, error TEXT NOT NULL, PRIMARY KEY (lane, event, number)) WITHOUT ROWID;

    -- What is out: for each batch the events (8 bytes, big-endian) and the numbers of their attempts (4 bytes).
    CREATE TABLE lease (batch INTEGER PRIMARY KEY, lane INTEGER NOT NULL, events BLOB NOT NULL);
";

/// Version 2: routes that operators paused, since when (ms since 1970).
pub(super) const PAUSES: &str = "
    CREATE TABLE paused (route TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
";

/// Version 3: `event.digest` of what is written from here on is a checksum of four bytes, where it was a SHA-256. No row
/// changes; a program of before would take the new ones for damaged.
pub(super) const CHECKSUMS: &str = "
    -- Nothing to do.
";

/// Attempts of a delivery that are remembered one by one.
const ATTEMPTS_KEPT: u32 = 64;

/// The number of a lane in the file.
pub(super) type LaneNumber = i64;

/// A delivery that is owed, wherever it waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed {
    pub(super) key: Option<Vec<u8>>,
    pub(super) attempts: u32,
    pub(super) spent: u32,
}

/// Where a delivery is owed again.
pub(super) type Entered = EventState;

/// Puts an owed delivery where it belongs: behind an open one of its key, else among those never tried, else due at
/// `due_ms`. Tells which.
pub(super) fn enter(
    db: &Connection,
    lane: LaneNumber,
    event: u64,
    owed: &Owed,
    due_ms: u64,
) -> rusqlite::Result<Entered> {
    if let Some(key) = &owed.key
        && is_key_taken(db, lane, key)?
    {
        let sql = "INSERT INTO blocked (lane, event, key, attempts, spent) VALUES (?1, ?2, ?3, ?4, ?5)";
        db.prepare_cached(sql)?
            .execute((lane, event, key, owed.attempts, owed.spent))?;
        return Ok(EventState::Blocked);
    }
    if owed.attempts == 0 {
        let sql = "INSERT INTO fresh (lane, event, key) VALUES (?1, ?2, ?3)";
        db.prepare_cached(sql)?.execute((lane, event, &owed.key))?;
        return Ok(EventState::Pending);
    }
    let sql = "INSERT INTO waiting (lane, event, key, due, attempts, spent) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = db.prepare_cached(sql)?;
    insert.execute((lane, event, &owed.key, due_ms, owed.attempts, owed.spent))?;
    Ok(EventState::Waiting)
}

fn is_key_taken(db: &Connection, lane: LaneNumber, key: &[u8]) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM fresh WHERE lane = ?1 AND key = ?2)
        OR EXISTS (SELECT 1 FROM waiting WHERE lane = ?1 AND key = ?2)";
    db.prepare_cached(sql)?.query_row((lane, key), |row| row.get(0))
}

/// Takes an owed delivery out of its table; `None` when it is owed no more.
pub(super) fn leave(db: &Connection, lane: LaneNumber, event: u64) -> rusqlite::Result<Option<(EventState, Owed)>> {
    let sql = "DELETE FROM fresh WHERE lane = ?1 AND event = ?2 RETURNING key, 0, 0";
    if let Some(owed) = take(db, sql, lane, event)? {
        return Ok(Some((EventState::Pending, owed)));
    }
    let sql = "DELETE FROM waiting WHERE lane = ?1 AND event = ?2 RETURNING key, attempts, spent";
    if let Some(owed) = take(db, sql, lane, event)? {
        return Ok(Some((EventState::Waiting, owed)));
    }
    let sql = "DELETE FROM blocked WHERE lane = ?1 AND event = ?2 RETURNING key, attempts, spent";
    Ok(take(db, sql, lane, event)?.map(|owed| (EventState::Blocked, owed)))
}

/// Takes an ended delivery out of its table, with the bytes it counted for in the history.
pub(super) fn revive(
    db: &Connection,
    lane: LaneNumber,
    event: u64,
) -> rusqlite::Result<Option<(EventState, Owed, u64)>> {
    let sql = "DELETE FROM dead WHERE lane = ?1 AND event = ?2 RETURNING key, attempts, attempts";
    if let Some(owed) = take(db, sql, lane, event)? {
        return Ok(Some((EventState::Dead, owed, 0)));
    }
    // The attempt that succeeded is one among others from here on.
    let sql = "INSERT OR REPLACE INTO attempt (lane, event, number, at, took, status, error)
        SELECT lane, event, attempts, began, took, status, '' FROM done
        WHERE lane = ?1 AND event = ?2 AND began IS NOT NULL";
    db.prepare_cached(sql)?.execute((lane, event))?;
    let sql = "DELETE FROM done WHERE lane = ?1 AND event = ?2 RETURNING key, attempts, state, share";
    let mut delete = db.prepare_cached(sql)?;
    let found = delete.query_row((lane, event), |row| {
        let attempts = row.get(1)?;
        let owed = Owed {
            key: row.get(0)?,
            attempts,
            spent: attempts,
        };
        Ok((done_state(row.get(2)?), owed, row.get(3)?))
    });
    found.optional()
}

/// The state whose table a delivery lies in; `None` when it is gone.
pub(super) fn state(db: &Connection, lane: LaneNumber, event: u64) -> rusqlite::Result<Option<EventState>> {
    let sql = "SELECT -1 FROM fresh WHERE lane = ?1 AND event = ?2
        UNION ALL SELECT -2 FROM waiting WHERE lane = ?1 AND event = ?2
        UNION ALL SELECT -3 FROM blocked WHERE lane = ?1 AND event = ?2
        UNION ALL SELECT -4 FROM dead WHERE lane = ?1 AND event = ?2
        UNION ALL SELECT state FROM done WHERE lane = ?1 AND event = ?2";
    let mut select = db.prepare_cached(sql)?;
    let found = select.query_row((lane, event), |row| row.get(0)).optional()?;
    Ok(found.map(|number| match number {
        -1 => EventState::Pending,
        -2 => EventState::Waiting,
        -3 => EventState::Blocked,
        -4 => EventState::Dead,
        ended => done_state(ended),
    }))
}

/// The meaning of `done.state`.
pub(super) fn done_state(number: i64) -> EventState {
    match number {
        0 => EventState::Delivered,
        _ => EventState::Cancelled,
    }
}

fn take(db: &Connection, sql: &str, lane: LaneNumber, event: u64) -> rusqlite::Result<Option<Owed>> {
    let mut delete = db.prepare_cached(sql)?;
    let owed = delete.query_row((lane, event), |row| {
        Ok(Owed {
            key: row.get(0)?,
            attempts: row.get(1)?,
            spent: row.get(2)?,
        })
    });
    owed.optional()
}

/// After an open delivery of `key` has ended: lets the next one go. Tells where it went.
pub(super) fn unblock(
    db: &Connection,
    lane: LaneNumber,
    key: Option<&[u8]>,
    now_ms: u64,
) -> rusqlite::Result<Option<Entered>> {
    let Some(key) = key else { return Ok(None) };
    if is_key_taken(db, lane, key)? {
        return Ok(None);
    }
    let sql = "SELECT event FROM blocked WHERE lane = ?1 AND key = ?2 ORDER BY event LIMIT 1";
    let next: Option<u64> = db
        .prepare_cached(sql)?
        .query_row((lane, key), |row| row.get(0))
        .optional()?;
    let Some(next) = next else { return Ok(None) };
    let sql = "DELETE FROM blocked WHERE lane = ?1 AND event = ?2 RETURNING key, attempts, spent";
    match take(db, sql, lane, next)? {
        Some(owed) => enter(db, lane, next, &owed, now_ms).map(Some),
        None => Ok(None),
    }
}

/// Puts down an attempt that did not succeed.
pub(super) fn note_attempt(
    db: &Connection,
    lane: LaneNumber,
    event: u64,
    number: u32,
    attempt: &Attempt,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO attempt (lane, event, number, at, took, status, error)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let ends = attempt
        .error
        .char_indices()
        .map(|(at, c)| at.saturating_add(c.len_utf8()));
    let end = ends.take_while(|end| *end <= ERROR_BYTES_MAX).last().unwrap_or(0);
    let error = attempt.error.get(..end).unwrap_or_default();
    let took_ms = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
    let mut insert = db.prepare_cached(sql)?;
    insert.execute((lane, event, number, attempt.at.0, took_ms, attempt.status, error))?;
    if number > ATTEMPTS_KEPT {
        let sql = "DELETE FROM attempt WHERE lane = ?1 AND event = ?2 AND number <= ?3";
        db.prepare_cached(sql)?
            .execute((lane, event, number.saturating_sub(ATTEMPTS_KEPT)))?;
    }
    Ok(())
}

/// Removes what is known of an ended delivery, and the event when no other lane has it. The row of the delivery itself
/// is gone already.
pub(super) fn forget(
    db: &Connection,
    event: u64,
    lane: LaneNumber,
    lanes_of_route: &[LaneNumber],
) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM attempt WHERE lane = ?1 AND event = ?2")?
        .execute((lane, event))?;
    let lanes: Option<u32> = db
        .prepare_cached("SELECT lanes FROM event WHERE id = ?1")?
        .query_row((event,), |row| row.get(0))
        .optional()?;
    if lanes.is_some_and(|lanes| lanes > 1) {
        let sql = "SELECT EXISTS (SELECT 1 FROM fresh WHERE lane = ?1 AND event = ?2)
            OR EXISTS (SELECT 1 FROM waiting WHERE lane = ?1 AND event = ?2)
            OR EXISTS (SELECT 1 FROM blocked WHERE lane = ?1 AND event = ?2)
            OR EXISTS (SELECT 1 FROM dead WHERE lane = ?1 AND event = ?2)
            OR EXISTS (SELECT 1 FROM done WHERE lane = ?1 AND event = ?2)";
        let mut has = db.prepare_cached(sql)?;
        for other in lanes_of_route {
            if has.query_row((other, event), |row| row.get(0))? {
                return Ok(());
            }
        }
    }
    db.prepare_cached("DELETE FROM event WHERE id = ?1")?
        .execute((event,))?;
    Ok(())
}
