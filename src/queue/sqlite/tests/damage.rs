//! Bytes that change on the disk by themselves, or are missing.
//!
//! 300 places in each file as a rule; `HOOKWARD_DAMAGE` says otherwise for a long run.

use std::collections::BTreeMap;

use super::super::super::suite::lane;
use super::super::super::{End, EventState, NewEvent, Queue, QueueError};
use super::{SqliteQueue, TERM, clock, event, listed, rows, settings, start};
use crate::database::scratch::Scratch;

/// What happens to a file: another bit in a byte, or no bytes from there on.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flipped,
    Cut,
}

/// Damages one of the files of a gateway that was killed, in many places, and looks what is handed out. How many in a
/// hundred were noticed.
async fn damage(log: bool, harm: Harm) -> usize {
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let mut bodies = BTreeMap::new();
    // So many that most of the file is of them, and not of tables that are nearly empty.
    for number in 0..48_usize {
        let body = vec![b'A' + number as u8; number * 3989 % 18_000];
        let new = NewEvent::sample("github", &["app"], body.clone(), time.clock().wall());
        bodies.insert(queue.publish(new, None).await.unwrap().id(), body);
    }
    if !log {
        queue.close().await;
    }
    let read = |name: &str| std::fs::read(scratch.dir().join(name)).unwrap_or_default();
    let (database, wal) = (read("hookward.db"), read("hookward.db-wal"));
    let original = if log { &wal } else { &database };
    assert!(original.len() > 10_000, "{}", original.len());
    let places = std::env::var("HOOKWARD_DAMAGE").map_or(300, |count| count.parse().unwrap());
    let mut noticed = 0;
    for place in 0..places {
        // Spread over the file; every place once before any comes twice, then with another bit.
        let at = (place * 7919) % original.len();
        let bit = place / original.len() + at;
        let mut altered = original.clone();
        match harm {
            Harm::Flipped => altered[at] ^= 1 << (bit % 8),
            Harm::Cut => altered.truncate(at),
        }
        let copy = Scratch::new();
        std::fs::create_dir_all(copy.dir()).unwrap();
        std::fs::write(copy.dir().join("hookward.db"), if log { &database } else { &altered }).unwrap();
        if log {
            std::fs::write(copy.dir().join("hookward.db-wal"), &altered).unwrap();
        }
        let Ok((queue, _)) = SqliteQueue::open(&settings(&copy), time.clock(), Box::new(|_| {})) else {
            noticed += 1;
            continue;
        };
        let batch = queue.lease(&lane("app"), 100, TERM).await;
        let leased = batch.map(|batch| batch.leased).unwrap_or_default();
        noticed += usize::from(leased.len() < bodies.len());
        for leased in leased {
            if let Some(body) = bodies.get(&leased.lease.id()) {
                assert_eq!(leased.event.body, body, "byte {at}");
                assert_eq!(leased.event.headers.get("x-twice").unwrap(), "a");
            }
        }
        queue.close().await;
    }
    let bytes = original.len();
    println!("{harm:?}, log {log}: {places} places of {bytes} bytes, {noticed} noticed");
    noticed * 100 / places
}

#[tokio::test]
async fn an_altered_event_is_never_handed_out() {
    // A failing disk turns an amount into another, and the backend books it: the signature was checked long before.
    assert!(damage(false, Harm::Flipped).await > 30);
}

#[tokio::test]
async fn an_altered_event_of_the_log_is_never_handed_out() {
    // As above, while the event was not yet copied into the database.
    assert!(damage(true, Harm::Flipped).await > 30);
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_no_other_file() {
    // A copy that was interrupted, or a repair by the file system, and what is left is taken for something else.
    assert!(damage(false, Harm::Cut).await > 90);
    // A part of the log is in the database by then.
    assert!(damage(true, Harm::Cut).await > 30);
}

#[tokio::test]
async fn a_damaged_event_does_not_stop_its_lane() {
    // One bad sector, and everything behind it waits for ever.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(queue.publish(event(&time, "precious"), None).await.unwrap().id());
    }
    queue.close().await;
    let file = rusqlite::Connection::open(scratch.dir().join("hookward.db")).unwrap();
    file.execute("UPDATE event SET body = 'precioux' WHERE id = ?1", (ids[0].0,))
        .unwrap();
    file.execute("DELETE FROM event WHERE id = ?1", (ids[1].0,)).unwrap();
    drop(file);
    let (queue, _) = start(&settings(&scratch), &time);
    let leased = queue.lease(&lane("app"), 10, TERM).await.unwrap().leased;
    let good: Vec<_> = leased.iter().map(|leased| leased.lease.id()).collect();
    assert_eq!(good, [ids[2]]);
    assert_eq!(listed(&queue, EventState::Dead).await, 1);
    assert_eq!(rows(&queue, "dead").await, 2);
    assert_eq!(queue.show(ids[0]).await.unwrap_err(), QueueError::Damaged);
}

#[tokio::test]
async fn the_first_attempt_asks_nothing_of_the_disk() {
    // The disk has its hands full with writing, and every delivery waits to read what was in memory a moment ago.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let id = queue.publish(event(&time, "precious"), None).await.unwrap().id();
    let file = rusqlite::Connection::open(scratch.dir().join("hookward.db")).unwrap();
    file.execute("UPDATE event SET body = 'precioux'", ()).unwrap();
    let leased = queue.lease(&lane("app"), 1, TERM).await.unwrap().leased;
    assert_eq!(
        (leased[0].lease.id(), &leased[0].event.body[..]),
        (id, &b"precious"[..])
    );
    queue.end(&leased[0].lease, End::Release).await.unwrap();
    // Once: every other attempt is read, and checked.
    assert!(queue.lease(&lane("app"), 1, TERM).await.unwrap().leased.is_empty());
    assert_eq!(listed(&queue, EventState::Dead).await, 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_put_off() {
    // The disk fails to read one event, time and again, and everything behind it waits for ever.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let first = queue.publish(event(&time, "1"), None).await.unwrap().id();
    let second = queue.publish(event(&time, "2"), None).await.unwrap().id();
    queue.close().await;
    let file = rusqlite::Connection::open(scratch.dir().join("hookward.db")).unwrap();
    let broken = format!(
        "ALTER TABLE event RENAME TO kept; CREATE VIEW event AS SELECT id, accepted, lanes, bytes, type, event_id, digest,
        head, CASE id WHEN {first} THEN abs(-9223372036854775808) ELSE body END AS body FROM kept;"
    );
    file.execute_batch(&broken).unwrap();
    let (queue, _) = start(&settings(&scratch), &time);
    assert!(queue.lease(&lane("app"), 1, TERM).await.unwrap().leased.is_empty());
    let leased = queue.lease(&lane("app"), 1, TERM).await.unwrap().leased;
    assert_eq!(leased[0].lease.id(), second);
    assert_eq!(listed(&queue, EventState::Waiting).await, 1);
    let mended = "DROP VIEW event; ALTER TABLE kept RENAME TO event;";
    file.execute_batch(mended).unwrap();
    time.advance(std::time::Duration::from_secs(600));
    let leased = queue.lease(&lane("app"), 1, TERM).await.unwrap().leased;
    assert_eq!((leased[0].lease.id(), leased[0].attempt), (first, 2));
}

#[test]
fn what_passes_is_no_damage() {
    // The machine is short of memory for a second, and events that are whole become dead letters.
    use rusqlite::ffi;
    let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    for (code, damage) in [
        (ffi::SQLITE_CORRUPT, true),
        (ffi::SQLITE_NOTADB, true),
        (ffi::SQLITE_IOERR, false),
        (ffi::SQLITE_NOMEM, false),
        (ffi::SQLITE_BUSY, false),
        (ffi::SQLITE_CANTOPEN, false),
        (ffi::SQLITE_PROTOCOL, false),
        (ffi::SQLITE_INTERRUPT, false),
    ] {
        assert_eq!(super::super::is_damage(&failure(code)), damage, "{code}");
    }
    let kind = rusqlite::Error::InvalidColumnType(0, "head".to_owned(), rusqlite::types::Type::Null);
    assert!(super::super::is_damage(&kind));
}
