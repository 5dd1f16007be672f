//! A disk that is full: events are refused, delivering goes on, and it ends by itself.
//!
//! 40 rounds at its edge as a rule; `HOOKWARD_FILLS` says otherwise for a long run.

use super::super::super::suite::lane;
use super::super::super::{End, Health, NewEvent, Queue, QueueError};
use super::{Duration, TERM, attempt, clock, deliver_all, settings, start};
use crate::clock::ManualClock;
use crate::database::scratch::Scratch;
use crate::queue::sqlite::SqliteSettings;

/// A file of 2 MiB, an eighth of which is kept back.
fn small(scratch: &Scratch) -> SqliteSettings {
    let mut settings = settings(scratch);
    settings.data.bytes_max = Some(2 << 20);
    settings.data.reserve_bytes = 256 << 10;
    settings.history.keep = Duration::ZERO;
    settings
}

fn large(time: &ManualClock, bytes: usize) -> NewEvent {
    NewEvent::sample("github", &["app"], vec![b'x'; bytes], time.clock().wall())
}

#[tokio::test]
async fn a_full_disk_refuses_delivers_and_resumes() {
    // A backlog fills the disk: nothing can be delivered any more, because deleting takes room as well.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&small(&scratch), &time);
    for bytes in [4000, 100, 60_000, 1000, 300_000] {
        let mut taken = 0;
        let refused = loop {
            match queue.publish(large(&time, bytes), None).await {
                Ok(_) => taken += 1,
                Err(problem) => break problem,
            }
        };
        assert_eq!((refused, queue.health()), (QueueError::Full, Health::Full));
        assert!(taken > 3, "{bytes}: {taken}");
        assert_eq!(deliver_all(&queue).await, taken);
        let mut asked = 0;
        while queue.health() == Health::Full {
            // Somebody asks for work all the time; room is looked for now and then.
            assert!(queue.lease(&lane("app"), 1, TERM).await.unwrap().leased.is_empty());
            asked += 1;
            assert!(asked < 100_000, "never resumed");
        }
    }
    let _ = queue.publish(large(&time, 1000), None).await.unwrap();
    assert_eq!(deliver_all(&queue).await, 1);
}

#[tokio::test]
async fn those_that_deliver_do_not_pay_for_those_that_publish() {
    // A group that meets a full disk is rolled back with the deliveries in it, which then happen twice.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&small(&scratch), &time);
    let mut owed = 0;
    let rounds = std::env::var("HOOKWARD_FILLS").map_or(40, |count| count.parse().unwrap());
    for round in 0..rounds {
        let mut publishing = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let (queue, event) = (queue.clone(), large(&time, 9000));
            publishing.spawn(async move { queue.publish(event, None).await.map(|_| ()) });
        }
        let leased = queue.lease(&lane("app"), 15, TERM).await.unwrap().leased;
        for (number, leased) in leased.iter().enumerate() {
            let end = if number % 5 == 0 {
                End::Release
            } else {
                End::Ack(attempt(200))
            };
            owed -= i64::from(end != End::Release);
            assert_eq!(
                queue.end(&leased.lease, end).await,
                Ok(crate::queue::Ended::Recorded),
                "{round}"
            );
        }
        for published in publishing.join_all().await {
            match published {
                Ok(()) => owed += 1,
                Err(problem) => assert_eq!(problem, QueueError::Full),
            }
        }
    }
    assert!(owed > 0);
    let counts = queue.counts().await.unwrap();
    let counted: u64 = counts
        .iter()
        .filter(|count| count.state.is_open())
        .map(|count| count.deliveries)
        .sum();
    assert_eq!(counted as i64, owed);
    assert_eq!(deliver_all(&queue).await as i64, owed);
}

#[tokio::test]
async fn a_lane_that_did_not_fit_is_made_again() {
    // The disk fills between the first event's lane and its delivery: later events of that lane are acknowledged and,
    // after the next start, belong to no lane, or to another one.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&small(&scratch), &time);
    let event = |lane: &str| NewEvent::sample("github", &[lane], "{}", time.clock().wall());
    let mut too_large = event("app");
    too_large.order_key = Some(vec![b'k'; 4 << 20].into());
    assert_eq!(queue.publish(too_large, None).await.map(drop), Err(QueueError::Full));
    while queue.health() == Health::Full {
        assert!(queue.lease(&lane("app"), 1, TERM).await.unwrap().leased.is_empty());
    }
    let _ = queue.publish(event("app"), None).await.unwrap();
    let _ = queue.publish(event("other"), None).await.unwrap();
    queue.close().await;
    let (queue, _) = start(&small(&scratch), &time);
    for destination in ["app", "other"] {
        let batch = queue.lease(&lane(destination), 9, TERM).await.unwrap();
        assert_eq!(batch.leased.len(), 1, "{destination}");
    }
}

#[tokio::test]
async fn a_full_disk_is_found_full_again() {
    // A restart on a full disk takes events that it cannot keep, or does not start at all.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&small(&scratch), &time);
    let mut taken = 0;
    while queue.publish(large(&time, 5000), None).await.is_ok() {
        taken += 1;
    }
    queue.close().await;
    let (queue, _) = start(&small(&scratch), &time);
    let refused = loop {
        match queue.publish(large(&time, 5000), None).await {
            Ok(_) => taken += 1,
            Err(problem) => break problem,
        }
    };
    assert_eq!(refused, QueueError::Full);
    assert_eq!(deliver_all(&queue).await, taken);
}

#[tokio::test]
async fn a_full_disk_costs_the_history_first() {
    // Copies of what was delivered last week keep today's events out.
    let (scratch, time) = (Scratch::new(), clock());
    let mut settings = small(&scratch);
    settings.history.keep = Duration::from_secs(86_400);
    let (queue, _) = start(&settings, &time);
    let mut refused = 0;
    for _ in 0..1000 {
        match queue.publish(large(&time, 9000), None).await {
            Ok(_) => assert_eq!(deliver_all(&queue).await, 1),
            Err(problem) => {
                assert_eq!(problem, QueueError::Full);
                refused += 1;
                while queue.health() == Health::Full {
                    assert!(queue.lease(&lane("app"), 1, TERM).await.unwrap().leased.is_empty());
                }
            }
        }
    }
    assert!((1..50).contains(&refused), "{refused}");
}

#[tokio::test]
async fn what_waits_for_one_destination_holds_no_room_of_the_others() {
    // One destination is dead for a week, and everything that the others took in that week stays on the disk.
    let (scratch, time) = (Scratch::new(), clock());
    let mut settings = settings(&scratch);
    settings.history.keep = Duration::ZERO;
    let (queue, _) = start(&settings, &time);
    let stuck = NewEvent::sample("github", &["dead"], vec![b'x'; 2000], time.clock().wall());
    let _ = queue.publish(stuck, None).await.unwrap();
    for _ in 0..150 {
        for _ in 0..20 {
            let _ = queue.publish(large(&time, 2000), None).await.unwrap();
        }
        assert_eq!(deliver_all(&queue).await, 20);
    }
    let bytes = |name: &str| std::fs::metadata(scratch.dir().join(name)).unwrap().len();
    let all = bytes("hookward.db") + bytes("hookward.db-wal");
    // Six megabytes went through.
    assert!(all < 1_500_000, "{all}");
}
