//! Data directories of other versions of the program.

use std::sync::Arc;

use super::super::super::{End, EventState, Lane, Queue};
use super::{OpenError, SqliteQueue, TERM, attempt, clock, listed, settings, start};
use crate::clock::{ManualClock, UnixMillis};
use crate::database::scratch::Scratch;
use crate::store::ReplayStore;

/// The version that this program makes.
const OURS: i64 = 3;

fn file(scratch: &Scratch) -> rusqlite::Connection {
    std::fs::create_dir_all(scratch.dir()).unwrap();
    rusqlite::Connection::open(scratch.dir().join("hookward.db")).unwrap()
}

fn version(scratch: &Scratch) -> i64 {
    file(scratch)
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn a_directory_of_the_version_before_is_read_whole() {
    // An update of the program, and what the last version had acknowledged is gone, or sent to nobody.
    // A minute later.
    let (scratch, time) = (Scratch::new(), ManualClock::at(UnixMillis(1_795_944_080_000)));
    file(&scratch).execute_batch(include_str!("version_1.sql")).unwrap();
    assert_eq!(version(&scratch), 1);
    let (queue, replay) = start(&settings(&scratch), &time);
    assert_eq!(version(&scratch), OURS);
    let states = [
        (EventState::Delivered, 2),
        (EventState::Dead, 1),
        (EventState::Waiting, 2),
        (EventState::Blocked, 1),
        (EventState::Pending, 0),
    ];
    for (state, count) in states {
        assert_eq!(listed(&queue, state).await, count, "{state:?}");
    }
    assert_eq!(replay.entries(), 4);
    let billing = |destination: &str| Lane {
        route: "billing".into(),
        destination: destination.into(),
    };
    for (destination, attempts) in [("app", [2].as_slice()), ("mail", &[2, 1])] {
        for number in attempts {
            let leased = queue.lease(&billing(destination), 9, TERM).await.unwrap().leased;
            let [leased] = leased.as_slice() else {
                panic!("{destination}: {leased:?}")
            };
            assert_eq!(leased.attempt, *number, "{destination}");
            assert_eq!(leased.event.event_type.as_deref(), Some("customer.created"));
            assert!(leased.event.body.starts_with(br#"{"id":"evt_"#));
            assert!(leased.event.headers.contains_key("stripe-signature"));
            queue.end(&leased.lease, End::Ack(attempt(200))).await.unwrap();
        }
    }
    queue.pause("billing", true).await.unwrap();
    queue.close().await;
    let (queue, _) = start(&settings(&scratch), &time);
    assert_eq!(queue.paused(), [Arc::from("billing")]);
    assert_eq!(listed(&queue, EventState::Delivered).await, 5);
}

#[tokio::test]
async fn a_later_version_is_not_touched() {
    // A rollback of the program reads tables that it does not know, and drops what it does not find.
    let (scratch, time) = (Scratch::new(), clock());
    start(&settings(&scratch), &time).0.close().await;
    file(&scratch).pragma_update(None, "user_version", OURS + 1).unwrap();
    let opened = SqliteQueue::open(&settings(&scratch), time.clock(), Box::new(|_| {}));
    let Err(OpenError::TooNew(found, ours)) = opened.map(drop) else {
        panic!("opened")
    };
    assert_eq!((found, ours), (OURS + 1, OURS));
}
