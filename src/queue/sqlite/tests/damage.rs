//! Bytes that change on the disk by themselves.

use std::collections::BTreeMap;

use super::super::super::suite::lane;
use super::super::super::{EventState, NewEvent, Queue, QueueError};
use super::{SqliteQueue, TERM, clock, event, listed, rows, settings, start};
use crate::database::scratch::Scratch;

#[tokio::test]
async fn an_altered_event_is_never_handed_out() {
    // A failing disk turns an amount into another, and the backend books it: the signature was checked long before.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let mut bodies = BTreeMap::new();
    for number in 0..24_usize {
        let body = vec![b'a' + number as u8; number * 389 % 6000];
        let new = NewEvent::sample("github", &["app"], body.clone(), time.clock().wall());
        bodies.insert(queue.publish(new, None).await.unwrap().id(), body);
    }
    queue.close().await;
    let original = std::fs::read(scratch.dir().join("hookward.db")).unwrap();
    let mut noticed = 0;
    for at in (0..original.len()).step_by(original.len() / 300) {
        let copy = Scratch::new();
        std::fs::create_dir_all(copy.dir()).unwrap();
        let mut altered = original.clone();
        altered[at] ^= 1 << (at % 8);
        std::fs::write(copy.dir().join("hookward.db"), altered).unwrap();
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
    assert!(noticed > 100, "{noticed}");
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
