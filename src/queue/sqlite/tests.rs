//! What the embedded engine promises beyond the suite: one transaction with the replay store, bounds of the history,
//! a full disk, damage, versions, one process at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::suite::{Bench, Restart, lane, queue_suite};
use super::super::{Attempt, Change, End, EventState, Filter, Health, Hold, NewEvent, Queue, QueueError};
use super::{Alter, Changed, Changes, History, Job, OpenError, SqliteQueue, SqliteReplay, SqliteSettings};
use crate::clock::{ManualClock, UnixMillis};
use crate::database::scratch::Scratch;
use crate::store::{Claim, Claimed, MemoryReplay, Outcome, ReplayKey, ReplayKeys, ReplayStore};

#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod full;
#[cfg(test)]
mod power;
#[cfg(test)]
mod versions;

queue_suite!(open);

const DAY: Duration = Duration::from_secs(86_400);
const TERM: Duration = Duration::from_secs(30);

fn clock() -> ManualClock {
    ManualClock::at(UnixMillis(1_800_000_000_000))
}

fn settings(scratch: &Scratch) -> SqliteSettings {
    SqliteSettings {
        data: scratch.settings(),
        history: History {
            keep: DAY * 1000,
            bytes_max: 1 << 30,
        },
        replay_entries_max: 1000,
    }
}

fn start(settings: &SqliteSettings, time: &ManualClock) -> (Arc<SqliteQueue>, Arc<SqliteReplay>) {
    SqliteQueue::open(settings, time.clock(), Box::new(|_| {})).unwrap()
}

fn open() -> Bench {
    let (scratch, time) = (Scratch::new(), clock());
    let settings = settings(&scratch);
    let queue = start(&settings, &time).0;
    let current = Arc::new(tokio::sync::Mutex::new(Arc::clone(&queue)));
    let (again, scratch) = (time.clone(), Arc::new(scratch));
    let restart: Restart = Box::new(move || {
        let (settings, time, current) = (settings.clone(), again.clone(), Arc::clone(&current));
        let _until_the_end = Arc::clone(&scratch);
        Box::pin(async move {
            let mut current = current.lock().await;
            current.close().await;
            *current = start(&settings, &time).0;
            Arc::clone(&*current) as Arc<dyn Queue>
        })
    });
    Bench { queue, time, restart }
}

fn event(time: &ManualClock, body: &'static str) -> NewEvent {
    NewEvent::sample("github", &["app"], body, time.clock().wall())
}

fn attempt(status: u16) -> Attempt {
    Attempt {
        at: UnixMillis(1),
        took: Duration::from_millis(2),
        status: Some(status),
        error: String::new(),
    }
}

fn keys(number: u32) -> ReplayKeys {
    ReplayKey::of_event("github", &number.to_string()).into()
}

async fn claim(store: Arc<dyn ReplayStore>, number: u32) -> Claim {
    match store.claim(&keys(number), TERM).await.unwrap() {
        Claimed::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn hold(claim: Claim) -> Option<Hold> {
    Some(Hold {
        claim,
        status: 202,
        keep: DAY,
    })
}

async fn deliver_all(queue: &SqliteQueue) -> usize {
    let mut delivered = 0;
    loop {
        let batch = queue.lease(&lane("app"), 100, TERM).await.unwrap();
        if batch.leased.is_empty() {
            return delivered;
        }
        for leased in batch.leased {
            queue.end(&leased.lease, End::Ack(attempt(200))).await.unwrap();
            delivered += 1;
        }
    }
}

async fn listed(queue: &SqliteQueue, state: EventState) -> usize {
    let filter = Filter {
        states: vec![state],
        ..Filter::default()
    };
    queue.list(&filter, None, 1000).await.unwrap().deliveries.len()
}

#[tokio::test]
async fn an_event_is_queued_exactly_if_its_repeats_are_known() {
    // Between the two a crash either loses the event (the retry is a "replay") or queues it twice.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, replay) = start(&settings(&scratch), &time);
    let first = claim(Arc::clone(&replay) as _, 1).await;
    let Claimed::InFlight(waiter) = Arc::clone(&replay).claim(&keys(1), TERM).await.unwrap() else {
        panic!()
    };
    let receipt = queue.publish(event(&time, "1"), hold(first)).await.unwrap();
    assert!(receipt.remembered());
    assert_eq!(waiter.outcome().await, Outcome::Settled(202));
    queue.close().await;
    let (queue, replay) = start(&settings(&scratch), &time);
    let repeat = Arc::clone(&replay).claim(&keys(1), TERM).await.unwrap();
    assert!(matches!(repeat, Claimed::Done { status: 202 }));
    assert_eq!(deliver_all(&queue).await, 1);
}

#[tokio::test]
async fn what_was_not_published_is_no_repeat() {
    // The queue is down for a minute and the provider's retry is taken for a replay: the event is lost.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, replay) = start(&settings(&scratch), &time);
    let dropped = queue.publish(event(&time, "1"), hold(claim(Arc::clone(&replay) as _, 1).await));
    drop(dropped);
    let first = claim(Arc::clone(&replay) as _, 1).await;
    queue.close().await;
    let refused = queue.publish(event(&time, "1"), hold(first)).await;
    assert_eq!(refused.unwrap_err(), QueueError::Closed);
    let (_queue, replay) = start(&settings(&scratch), &time);
    drop(claim(replay, 1).await);
}

#[tokio::test]
async fn a_claim_of_another_store_is_settled_too() {
    // A queue on disk beside a replay store elsewhere queues every retry of the provider.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let elsewhere = Arc::new(MemoryReplay::new(time.clock(), 10));
    let receipt = queue
        .publish(event(&time, "1"), hold(claim(Arc::clone(&elsewhere) as _, 1).await))
        .await
        .unwrap();
    assert!(receipt.remembered());
    let repeat = Arc::clone(&elsewhere).claim(&keys(1), TERM).await.unwrap();
    assert!(matches!(repeat, Claimed::Done { status: 202 }));
    queue.close().await;
    let refused = queue
        .publish(event(&time, "2"), hold(claim(Arc::clone(&elsewhere) as _, 2).await))
        .await;
    assert_eq!(refused.unwrap_err(), QueueError::Closed);
    drop(claim(elsewhere, 2).await);
}

#[tokio::test]
async fn a_publisher_that_leaves_loses_nothing() {
    // The provider closes the connection while its event is being written: it is in the queue but not known, or known
    // but not in the queue.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, replay) = start(&settings(&scratch), &time);
    for number in 0..50 {
        let held = hold(claim(Arc::clone(&replay) as _, number).await);
        let mut publish = Box::pin(queue.publish(event(&time, "1"), held));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(publish.as_mut().poll(context))).await;
        assert!(polled.is_pending() || polled.is_ready());
    }
    // Whatever comes after it in the queue finds it written.
    let _ = queue.publish(event(&time, "last"), None).await.unwrap();
    let known = futures_known(&replay).await;
    assert_eq!((known, deliver_all(&queue).await), (50, 51));
}

async fn futures_known(replay: &Arc<SqliteReplay>) -> usize {
    let mut known = 0;
    for number in 0..50 {
        let claimed = Arc::clone(replay).claim(&keys(number), TERM).await.unwrap();
        known += usize::from(matches!(claimed, Claimed::Done { .. }));
    }
    known
}

#[tokio::test]
async fn the_history_ends_by_time() {
    // The disk fills with what was delivered long ago; or what an operator looks for is gone too early.
    let (scratch, time) = (Scratch::new(), clock());
    let mut settings = settings(&scratch);
    settings.history.keep = DAY;
    let (queue, _) = start(&settings, &time);
    for _ in 0..600 {
        let _ = queue.publish(event(&time, "1"), None).await.unwrap();
    }
    let dead = queue.lease(&lane("app"), 1, TERM).await.unwrap().leased.remove(0);
    queue.end(&dead.lease, End::Bury(attempt(410))).await.unwrap();
    deliver_all(&queue).await;
    time.advance(DAY - Duration::from_secs(1));
    let _ = queue.publish(event(&time, "2"), None).await.unwrap();
    assert_eq!(listed(&queue, EventState::Delivered).await, 599);
    time.advance(Duration::from_secs(2));
    for _ in 0..5 {
        deliver_all(&queue).await;
        time.advance(Duration::from_secs(1));
    }
    assert_eq!(
        (
            listed(&queue, EventState::Delivered).await,
            listed(&queue, EventState::Dead).await
        ),
        (1, 1)
    );
    assert_eq!(rows(&queue, "event").await, 2);
    assert_eq!(rows(&queue, "attempt").await, 1);
}

#[tokio::test]
async fn the_history_ends_by_bytes() {
    // A busy week fills the disk before its time is up.
    let (scratch, time) = (Scratch::new(), clock());
    let mut settings = settings(&scratch);
    settings.history.bytes_max = 20_000;
    let (queue, _) = start(&settings, &time);
    for round in 0..30 {
        for _ in 0..10 {
            let event = NewEvent::sample("github", &["app", "b"], vec![b'x'; 1000], time.clock().wall());
            let _ = queue.publish(event, None).await.unwrap();
        }
        deliver_all(&queue).await;
        for leased in queue.lease(&lane("b"), 100, TERM).await.unwrap().leased {
            queue.end(&leased.lease, End::Ack(attempt(200))).await.unwrap();
        }
        // Beyond the bound by one sweep's step at most.
        assert!(queue.desk.lock().history_bytes < 20_000 + 1500, "{round}");
    }
    let kept = listed(&queue, EventState::Delivered).await;
    assert!((15..40).contains(&kept), "{kept}");
    assert!(rows(&queue, "event").await <= kept as u64);
    let before = queue.desk.lock().history_bytes;
    queue.close().await;
    let (queue, _) = start(&settings, &time);
    assert_eq!(queue.desk.lock().history_bytes, before);
    queue
        .change(Change::Purge, &Filter::default(), None, 1000)
        .await
        .unwrap();
    let left = queue.desk.lock().history_bytes;
    assert_eq!((left, rows(&queue, "event").await), (0, 0));
}

#[tokio::test]
async fn no_history_keeps_nothing() {
    // A user who wants no customer data on the disk has it there for days.
    let (scratch, time) = (Scratch::new(), clock());
    let mut settings = settings(&scratch);
    settings.history.keep = Duration::ZERO;
    let (queue, _) = start(&settings, &time);
    let wanted_twice = NewEvent::sample("github", &["app", "b"], "1", time.clock().wall());
    let id = queue.publish(wanted_twice, None).await.unwrap().id();
    assert_eq!(deliver_all(&queue).await, 1);
    assert_eq!(rows(&queue, "event").await, 1);
    let last = queue.lease(&lane("b"), 1, TERM).await.unwrap().leased.remove(0);
    assert_eq!(last.event.body, "1");
    queue.end(&last.lease, End::Ack(attempt(200))).await.unwrap();
    assert_eq!(rows(&queue, "event").await, 0);
    assert!(queue.show(id).await.unwrap().is_none());
}

async fn rows(queue: &SqliteQueue, table: &'static str) -> u64 {
    let count =
        move |db: &rusqlite::Connection| db.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0));
    queue.read(count).await.unwrap()
}

#[tokio::test]
async fn one_process_has_the_directory() {
    // Two gateways deliver the same queue, each believing that it holds the leases.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let second = SqliteQueue::open(&settings(&scratch), time.clock(), Box::new(|_| {}));
    assert!(matches!(second.map(drop), Err(OpenError::InUse(_))));
    queue.close().await;
    drop(start(&settings(&scratch), &time));
}

#[tokio::test]
async fn somebody_elses_file_is_not_touched() {
    // A wrong directory in the configuration, and another program's data is ours.
    let (scratch, time) = (Scratch::new(), clock());
    std::fs::create_dir_all(scratch.dir()).unwrap();
    let file = rusqlite::Connection::open(scratch.dir().join("hookward.db")).unwrap();
    file.execute_batch("PRAGMA application_id = 77; CREATE TABLE precious (a);")
        .unwrap();
    drop(file);
    let opened = SqliteQueue::open(&settings(&scratch), time.clock(), Box::new(|_| {}));
    assert!(matches!(opened.map(drop), Err(OpenError::Foreign(_))));
}

#[test]
fn leasing_does_not_read_the_backlog() {
    // A night's outage makes every lease slower than the deliveries.
    let (scratch, time) = (Scratch::new(), clock());
    let settings = settings(&scratch);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (queue, _) = start(&settings, &time);
        let _ = queue.publish(event(&time, "1"), None).await.unwrap();
        queue.close().await;
    });
    let db = rusqlite::Connection::open(scratch.dir().join("hookward.db")).unwrap();
    let explain = |sql: &str| -> String {
        let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.query_map((), |row| row.get::<_, String>(3)).unwrap();
        steps.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    for sql in [
        "SELECT event FROM fresh WHERE lane = 1 ORDER BY event",
        "SELECT event, attempts, spent FROM waiting INDEXED BY waiting_due WHERE lane = 1 AND due <= 5 ORDER BY due, event",
        "SELECT min(due) FROM waiting INDEXED BY waiting_due WHERE lane = 1 AND due > 5",
        "SELECT 1 FROM fresh WHERE lane = 1 AND key = x'00'",
        "SELECT event FROM blocked WHERE lane = 1 AND key = x'00' ORDER BY event LIMIT 1",
        "SELECT event FROM done WHERE lane = 1 AND event < 5 ORDER BY event LIMIT 3",
        "SELECT ends FROM replay ORDER BY ends LIMIT 1 OFFSET 256",
    ] {
        let plan = explain(sql);
        assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        assert!(plan.starts_with("SEARCH") || sql.contains("OFFSET"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn health_is_told() {
    // An operator sees green while nothing is taken.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    assert_eq!(queue.health(), Health::Open);
    queue.close().await;
    assert_eq!(queue.health(), Health::Closed);
}

#[tokio::test]
async fn a_start_with_a_wrong_clock_delays_nothing_for_years() {
    // A machine without a battery starts in another year; what failed then waits until that year has come.
    let (scratch, wrong) = (Scratch::new(), ManualClock::at(UnixMillis(4_000_000_000_000)));
    let (queue, _) = start(&settings(&scratch), &wrong);
    let _ = queue.publish(event(&wrong, "{}"), None).await.unwrap();
    let leased = queue.lease(&lane("app"), 1, TERM).await.unwrap().leased;
    let due = UnixMillis(wrong.clock().steady().0 + 60_000);
    queue
        .end(&leased[0].lease, End::Retry(attempt(500), due))
        .await
        .unwrap();
    queue.close().await;
    let right = clock();
    let (queue, _) = start(&settings(&scratch), &right);
    let batch = queue.lease(&lane("app"), 1, TERM).await.unwrap();
    let now = right.clock().steady();
    assert_eq!(
        (batch.leased.len(), batch.next_at),
        (0, Some(UnixMillis(now.0 + 60_000)))
    );
    right.advance(Duration::from_secs(60));
    assert_eq!(queue.lease(&lane("app"), 1, TERM).await.unwrap().leased.len(), 1);
}

#[tokio::test]
async fn who_searches_holds_up_nobody() {
    // An operator cancels by event type among a million events, and nothing is accepted until the search is over.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let _ = queue.publish(event(&time, "1"), None).await.unwrap();
    // Readers that do not end: the search has to wait for one of them.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    let readers = (0..4).map(|_| {
        let (queue, ended) = (Arc::clone(&queue), Arc::clone(&ended));
        tokio::spawn(async move {
            let _ = queue.read(move |_| Ok(ended.lock().recv().is_ok())).await;
        })
    });
    let readers: Vec<_> = readers.collect();
    let pushes = Filter {
        event_type: Some("push".into()),
        ..Filter::default()
    };
    let mut change = Box::pin(queue.change(Change::Cancel, &pushes, None, 10));
    tokio::task::yield_now().await;
    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(change.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    let _ = queue.publish(event(&time, "2"), None).await.unwrap();
    readers.iter().for_each(|_| end.send(()).unwrap());
    assert_eq!(change.await.unwrap().changed, 2);
}

#[tokio::test]
async fn what_has_moved_since_it_was_found_is_left_alone() {
    // A delivery that was dead when an operator looked for dead ones is delivered by now, and would be sent twice.
    let (scratch, time) = (Scratch::new(), clock());
    let (queue, _) = start(&settings(&scratch), &time);
    let mut found = Vec::new();
    for _ in 0..3 {
        let id = queue.publish(event(&time, "1"), None).await.unwrap().id();
        found.push((queue.desk.lock().number(&lane("app")).unwrap(), id.0));
    }
    let leased = queue.lease(&lane("app"), 2, TERM).await.unwrap().leased;
    queue.end(&leased[0].lease, End::Ack(attempt(200))).await.unwrap();
    let alter = async |change, states: &[EventState]| {
        let (found, states, desk) = (found.clone(), states.to_vec(), Arc::clone(&queue.desk));
        let job = move |told| -> Box<dyn Job> {
            Box::new(Alter {
                desk,
                change,
                states,
                found,
                next: None,
                told,
                changed: Changed::default(),
                changes: Changes::default(),
            })
        };
        queue.ask(job).await.unwrap()
    };
    let dead = [EventState::Dead, EventState::Leased];
    let done = alter(Change::Retry, &dead).await;
    assert_eq!((done.changed, done.skipped), (0, 1), "one is out, none is dead");
    let done = alter(Change::Cancel, &[EventState::Waiting]).await;
    assert_eq!((done.changed, done.skipped), (0, 0));
    let done = alter(Change::Cancel, &[EventState::Pending]).await;
    assert_eq!((done.changed, done.skipped), (1, 0));
}
