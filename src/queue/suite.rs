//! What every queue engine must do, run on each by one `queue_suite!(open)` line in the engine's own tests.
//!
//! An engine brings a function that opens an empty queue on a clock that stands still, and can be restarted; the suite
//! brings the statements, a plain model with random histories against it, and races. What only one engine promises
//! is tested beside it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{ack, attempt, bury, retry};

use super::{
    Batch, Change, Changed, Count, End, Ended, EventId, EventState, Filter, Lane, Lease, Leased, NewEvent, Queue,
    QueueError,
};
use crate::clock::{ManualClock, UnixMillis};

#[cfg(test)]
pub(crate) mod histories;

/// An empty engine under test.
pub(crate) struct Bench {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) time: ManualClock,
    pub(crate) restart: Restart,
}

/// Closes the engine and opens it again on what it left.
pub(crate) type Restart = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Arc<dyn Queue>> + Send>> + Send + Sync>;

/// Opens an empty engine.
pub(crate) type Open = fn() -> Bench;

/// One named test for each statement of the suite.
macro_rules! queue_suite {
    ($open:expr) => {
        $crate::queue::suite::queue_suite!($open;
            an_event_arrives_as_it_was_published
            a_taken_event_is_never_seen_again
            a_failed_event_comes_back_at_its_time
            a_dead_letter_stays_until_somebody_cares
            what_was_not_tried_is_due_at_once
            a_lost_lease_comes_back_as_another_attempt
            a_zombie_changes_nothing
            a_late_word_counts_when_nobody_took_over
            every_destination_has_its_own_state
            events_of_a_key_go_one_by_one
            an_ended_one_lets_the_next_of_its_key_go
            a_retried_one_of_a_key_waits_for_its_turn
            neither_new_nor_old_starve
            the_lane_tells_when_to_come_again
            the_bell_rings_for_what_is_due
            a_listing_finds_what_was_asked_for
            a_listing_has_pages
            changes_may_be_repeated
            what_is_out_is_left_alone
            a_restart_keeps_everything
            ids_ascend_whatever_the_clock_does
            a_closed_queue_says_so
            racing_workers_deliver_each_event_once
            an_event_nobody_wants_is_taken
            a_pause_survives_a_restart
            a_change_by_type_comes_to_the_last
        );
        #[test]
        fn histories_agree_with_the_model() {
            $crate::queue::suite::histories::agree($open);
        }
        #[test]
        fn one_that_was_let_go_is_due_from_then() {
            $crate::queue::suite::run($crate::queue::suite::histories::one_that_was_let_go_is_due_from_then($open));
        }
    };
    ($open:expr; $($statement:ident)*) => {
        $(#[test]
        fn $statement() {
            $crate::queue::suite::run($crate::queue::suite::$statement($open));
        })*
    };
}
pub(crate) use queue_suite;

/// Runs one statement on two threads; one that hangs fails.
pub(crate) fn run(statement: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), statement)
            .await
            .expect("somebody waits for ever");
    });
}

const TERM: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn lane(destination: &str) -> Lane {
    Lane {
        route: "github".into(),
        destination: destination.into(),
    }
}

/// Words of a worker.
mod futures {
    use super::*;
    use crate::queue::Attempt;

    pub(crate) fn attempt(status: Option<u16>) -> Attempt {
        Attempt {
            at: UnixMillis(1_000),
            took: Duration::from_millis(7),
            status,
            error: if status == Some(200) {
                String::new()
            } else {
                "no".to_owned()
            },
        }
    }

    pub(crate) fn ack() -> End {
        End::Ack(attempt(Some(200)))
    }

    pub(crate) fn bury() -> End {
        End::Bury(attempt(Some(410)))
    }

    pub(crate) fn retry(at: UnixMillis) -> End {
        End::Retry(attempt(None), at)
    }
}

impl Bench {
    fn now(&self) -> UnixMillis {
        self.time.clock().wall()
    }

    /// The time after this much more.
    fn later(&self, by: Duration) -> UnixMillis {
        UnixMillis(self.now().0 + by.as_millis() as u64)
    }

    fn event(&self, destinations: &[&str], body: impl Into<Bytes>) -> NewEvent {
        NewEvent::sample("github", destinations, body, self.now())
    }

    async fn publish(&self, destinations: &[&str], body: impl Into<Bytes>) -> EventId {
        self.queue
            .publish(self.event(destinations, body), None)
            .await
            .unwrap()
            .id()
    }

    async fn publish_keyed(&self, key: &'static str) -> EventId {
        let event = NewEvent {
            order_key: Some(Bytes::from_static(key.as_bytes())),
            ..self.event(&["app"], "{}")
        };
        self.queue.publish(event, None).await.unwrap().id()
    }

    async fn lease(&self, destination: &str, max: usize) -> Batch {
        self.queue.lease(&lane(destination), max, TERM).await.unwrap()
    }

    async fn one(&self, destination: &str) -> Leased {
        let mut batch = self.lease(destination, 1).await;
        batch.leased.pop().expect("nothing is due")
    }

    async fn none(&self, destination: &str) {
        assert!(self.lease(destination, 10).await.leased.is_empty());
    }

    async fn end(&self, lease: &Lease, end: End) {
        assert_eq!(self.queue.end(lease, end).await, Ok(Ended::Recorded));
    }

    async fn change(&self, change: Change, filter: &Filter) -> (u64, u64) {
        let Changed { changed, skipped, next } = self.queue.change(change, filter, None, 1000).await.unwrap();
        assert_eq!(next, None);
        (changed, skipped)
    }

    /// The states of an event's deliveries with their attempts, by lane.
    async fn states(&self, id: EventId) -> Vec<(EventState, u32)> {
        let shown = self.queue.show(id).await.unwrap();
        let deliveries = shown.into_iter().flat_map(|shown| shown.deliveries);
        deliveries
            .map(|(delivery, _)| (delivery.state, delivery.attempts))
            .collect()
    }

    async fn count(&self, destination: &str, state: EventState) -> u64 {
        let counts = self.queue.counts().await.unwrap();
        let of = |count: &Count| count.lane == lane(destination) && count.state == state;
        counts.into_iter().filter(of).map(|count| count.deliveries).sum()
    }
}

pub(crate) async fn an_event_arrives_as_it_was_published(open: Open) {
    // A signature that the backend checks again fails over one byte that was changed on the way.
    let bench = open();
    let all_bytes: Vec<u8> = (0..=255).collect();
    for body in [Vec::new(), all_bytes, vec![b'x'; 1 << 20]] {
        let event = bench.event(&["app"], body.clone());
        let sent = event.event.clone();
        let id = bench.queue.publish(event, None).await.unwrap().id();
        let leased = bench.one("app").await;
        let kept = &leased.event;
        assert_eq!(leased.lease.id(), id);
        assert_eq!((leased.attempt, leased.tries, leased.accepted_at), (1, 1, bench.now()));
        assert_eq!(kept.body, body);
        assert_eq!(kept.headers, sent.headers);
        assert_eq!(
            (&kept.method, &kept.target, &kept.host),
            (&sent.method, &sent.target, &sent.host)
        );
        assert_eq!(
            (&kept.route, &kept.provider, kept.strength),
            (&sent.route, &sent.provider, sent.strength)
        );
        assert_eq!(
            (&kept.event_id, &kept.event_type, &kept.delivery_id),
            (&sent.event_id, &sent.event_type, &sent.delivery_id)
        );
        assert_eq!(
            (kept.sender.peer, kept.sender.trusted, kept.sender.tls),
            (sent.sender.peer, sent.sender.trusted, sent.sender.tls)
        );
        bench.end(&leased.lease, ack()).await;
    }
}

pub(crate) async fn a_taken_event_is_never_seen_again(open: Open) {
    // The backend books a payment twice.
    let bench = open();
    let id = bench.publish(&["app"], "{}").await;
    let leased = bench.one("app").await;
    bench.none("app").await;
    bench.end(&leased.lease, ack()).await;
    bench.time.advance(TERM * 2);
    bench.none("app").await;
    assert_eq!(bench.states(id).await, [(EventState::Delivered, 1)]);
    assert_eq!(
        bench.queue.end(&leased.lease, retry(bench.now())).await,
        Ok(Ended::Fenced)
    );
    bench.none("app").await;
}

pub(crate) async fn a_failed_event_comes_back_at_its_time(open: Open) {
    // Back-off that is not kept breaks a backend that comes up again; one that is forgotten loses the event.
    let bench = open();
    let id = bench.publish(&["app"], "{}").await;
    for number in 1..=70 {
        let leased = bench.one("app").await;
        assert_eq!((leased.attempt, leased.tries), (number, number));
        bench.end(&leased.lease, retry(bench.later(SECOND * 5))).await;
        bench.time.advance(SECOND * 5 - Duration::from_millis(1));
        bench.none("app").await;
        bench.time.advance(Duration::from_millis(1));
    }
    bench.end(&bench.one("app").await.lease, ack()).await;
    let shown = bench.queue.show(id).await.unwrap().unwrap();
    let (delivery, attempts) = &shown.deliveries[0];
    assert_eq!(delivery.attempts, 71);
    // The last ones are told one by one, the success at the end.
    assert!((50..=71).contains(&attempts.len()));
    assert_eq!(attempts.last(), Some(&attempt(Some(200))));
    assert!(
        attempts[..attempts.len() - 1]
            .iter()
            .all(|failed| *failed == attempt(None))
    );
}

pub(crate) async fn a_dead_letter_stays_until_somebody_cares(open: Open) {
    // What was given up vanishes, and nobody can send it again after the backend is repaired.
    let bench = open();
    let id = bench.publish(&["app"], "precious").await;
    bench.end(&bench.one("app").await.lease, bury()).await;
    bench.time.advance(SECOND * 86_400 * 400);
    bench.none("app").await;
    let shown = bench.queue.show(id).await.unwrap().unwrap();
    assert_eq!(shown.event.body, "precious");
    assert_eq!(shown.deliveries[0].0.state, EventState::Dead);
    assert_eq!(shown.deliveries[0].1, [attempt(Some(410))]);
    let dead = Filter {
        states: vec![EventState::Dead],
        ..Filter::default()
    };
    assert_eq!(bench.change(Change::Retry, &dead).await, (1, 0));
    let again = bench.one("app").await;
    // The number goes on, so that a backend can tell; the schedule begins anew.
    assert_eq!((again.attempt, again.tries), (2, 1));
    bench.end(&again.lease, ack()).await;
    assert_eq!(bench.states(id).await, [(EventState::Delivered, 2)]);
}

pub(crate) async fn what_was_not_tried_is_due_at_once(open: Open) {
    // A worker that stops takes its share of the lane with it, or uses up attempts that were never made.
    let bench = open();
    bench.publish(&["app"], "{}").await;
    for _ in 0..3 {
        let leased = bench.one("app").await;
        assert_eq!(leased.attempt, 1);
        bench.end(&leased.lease, End::Release).await;
    }
    assert_eq!(bench.count("app", EventState::Pending).await, 1);
}

pub(crate) async fn a_lost_lease_comes_back_as_another_attempt(open: Open) {
    // A worker that died in the middle: its event is lost, or delivered twice under the same number.
    let bench = open();
    let id = bench.publish(&["app"], "{}").await;
    let lost = bench.one("app").await;
    bench.time.advance(TERM - SECOND);
    bench.none("app").await;
    bench.time.advance(SECOND);
    let again = bench.one("app").await;
    assert_eq!((again.lease.id(), again.attempt), (id, 2));
    bench.end(&again.lease, ack()).await;
    let shown = bench.queue.show(id).await.unwrap().unwrap();
    assert_eq!(shown.deliveries[0].1.len(), 2);
    drop(lost);
}

pub(crate) async fn a_zombie_changes_nothing(open: Open) {
    // A worker back from a long pause ends the delivery that its successor is in the middle of.
    let bench = open();
    let id = bench.publish(&["app"], "{}").await;
    let zombie = bench.one("app").await;
    bench.time.advance(TERM);
    let successor = bench.one("app").await;
    for word in [ack(), bury(), retry(bench.now()), End::Release] {
        assert_eq!(bench.queue.end(&zombie.lease, word).await, Ok(Ended::Fenced));
        bench.none("app").await;
        assert_eq!(bench.states(id).await, [(EventState::Leased, 1)]);
    }
    bench.end(&successor.lease, ack()).await;
    assert_eq!(bench.queue.end(&zombie.lease, bury()).await, Ok(Ended::Fenced));
    assert_eq!(bench.states(id).await, [(EventState::Delivered, 2)]);
}

pub(crate) async fn a_late_word_counts_when_nobody_took_over(open: Open) {
    // The backend was slow and took the event; forgetting that delivers it twice.
    let bench = open();
    let id = bench.publish(&["app"], "{}").await;
    let slow = bench.one("app").await;
    bench.time.advance(TERM * 3);
    bench.end(&slow.lease, ack()).await;
    assert_eq!(bench.states(id).await, [(EventState::Delivered, 1)]);
}

pub(crate) async fn every_destination_has_its_own_state(open: Open) {
    // One destination that is down makes the others get everything again, or nothing.
    let bench = open();
    let id = bench.publish(&["a", "b", "c"], "{}").await;
    bench.end(&bench.one("a").await.lease, ack()).await;
    bench.end(&bench.one("b").await.lease, bury()).await;
    assert_eq!(
        bench.states(id).await,
        [
            (EventState::Delivered, 1),
            (EventState::Dead, 1),
            (EventState::Pending, 0)
        ]
    );
    bench.none("a").await;
    bench.none("b").await;
    assert_eq!(bench.one("c").await.lease.id(), id);
    let other_route = Lane {
        route: "stripe".into(),
        ..lane("c")
    };
    assert!(
        bench
            .queue
            .lease(&other_route, 10, TERM)
            .await
            .unwrap()
            .leased
            .is_empty()
    );
}

pub(crate) async fn events_of_a_key_go_one_by_one(open: Open) {
    // "cancelled" overtakes "created", and the backend keeps a subscription that nobody has.
    let bench = open();
    let [first, second, third] = [
        bench.publish_keyed("sub_1").await,
        bench.publish_keyed("sub_1").await,
        bench.publish_keyed("sub_1").await,
    ];
    let [other, free] = [bench.publish_keyed("sub_2").await, bench.publish(&["app"], "{}").await];
    let batch = bench.lease("app", 10).await;
    let ids: Vec<EventId> = batch.leased.iter().map(|leased| leased.lease.id()).collect();
    assert_eq!(ids, [first, other, free]);
    assert_eq!(bench.count("app", EventState::Blocked).await, 2);
    bench.end(&batch.leased[0].lease, retry(bench.later(SECOND))).await;
    bench.none("app").await;
    bench.time.advance(SECOND);
    for expected in [first, second, third] {
        let leased = bench.one("app").await;
        assert_eq!(leased.lease.id(), expected);
        bench.none("app").await;
        bench.end(&leased.lease, ack()).await;
    }
}

pub(crate) async fn an_ended_one_lets_the_next_of_its_key_go(open: Open) {
    // One poisoned event stops everything of its key for ever.
    let bench = open();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.publish_keyed("k").await);
    }
    let only = |id| Filter {
        id: Some(id),
        ..Filter::default()
    };
    bench.end(&bench.one("app").await.lease, bury()).await;
    assert_eq!(bench.change(Change::Cancel, &only(ids[2])).await, (1, 0));
    assert_eq!(bench.change(Change::Cancel, &only(ids[1])).await, (1, 0));
    let fourth = bench.one("app").await;
    assert_eq!(fourth.lease.id(), ids[3]);
    bench.time.advance(TERM);
    assert_eq!(bench.one("app").await.lease.id(), ids[3]);
    bench.none("app").await;
}

pub(crate) async fn a_retried_one_of_a_key_waits_for_its_turn(open: Open) {
    // An operator's retry breaks the order that the route promises while another of the key is out.
    let bench = open();
    let [first, second, third] = [
        bench.publish_keyed("k").await,
        bench.publish_keyed("k").await,
        bench.publish_keyed("k").await,
    ];
    bench.end(&bench.one("app").await.lease, bury()).await;
    let out = bench.one("app").await;
    assert_eq!(out.lease.id(), second);
    let dead = Filter {
        states: vec![EventState::Dead],
        ..Filter::default()
    };
    assert_eq!(bench.change(Change::Retry, &dead).await, (1, 0));
    bench.none("app").await;
    bench.end(&out.lease, ack()).await;
    for (expected, attempt) in [(first, 2), (third, 1)] {
        let leased = bench.one("app").await;
        assert_eq!((leased.lease.id(), leased.attempt), (expected, attempt));
        bench.end(&leased.lease, ack()).await;
    }
}

pub(crate) async fn neither_new_nor_old_starve(open: Open) {
    // After an outage the backlog keeps new events waiting for hours, or new events keep the backlog waiting.
    let bench = open();
    for _ in 0..30 {
        bench.publish(&["app"], "old").await;
    }
    for leased in bench.lease("app", 30).await.leased {
        bench.end(&leased.lease, retry(bench.now())).await;
    }
    for _ in 0..30 {
        bench.publish(&["app"], "new").await;
    }
    let batch = bench.lease("app", 10).await;
    let old = |batch: &Batch| batch.leased.iter().filter(|leased| leased.attempt > 1).count();
    assert_eq!((batch.leased.len(), old(&batch)), (10, 5));
    let mut one_by_one = 0;
    for _ in 0..10 {
        one_by_one += old(&bench.lease("app", 1).await);
    }
    assert_eq!(one_by_one, 5);
    let batch = bench.lease("app", 100).await;
    assert_eq!((batch.leased.len(), old(&batch)), (40, 20));
}

pub(crate) async fn the_lane_tells_when_to_come_again(open: Open) {
    // A worker that sleeps too long delivers late; one that does not sleep burns a core for each lane.
    let bench = open();
    assert_eq!(bench.lease("app", 10).await.next_at, None);
    bench.publish(&["app"], "1").await;
    bench.publish(&["app"], "2").await;
    let first = bench.lease("app", 1).await;
    assert!(first.next_at.unwrap() <= bench.now());
    let second = bench.lease("app", 1).await;
    bench.end(&first.leased[0].lease, ack()).await;
    bench.end(&second.leased[0].lease, retry(bench.later(SECOND * 7))).await;
    assert_eq!(bench.lease("app", 10).await.next_at, Some(bench.later(SECOND * 7)));
    bench.time.advance(SECOND * 7);
    let out = bench.lease("app", 10).await;
    // What is out comes back by itself at the end of its lease.
    let back = out.next_at.unwrap();
    assert!(
        back >= bench.later(TERM) && back <= bench.later(TERM + SECOND),
        "{back:?}"
    );
    bench.end(&out.leased[0].lease, ack()).await;
    assert_eq!(bench.lease("app", 10).await.next_at, None);
}

pub(crate) async fn the_bell_rings_for_what_is_due(open: Open) {
    // An idle worker hears of a new event when its sleep is over, not when it is published.
    let bench = open();
    let bell = bench.queue.bell(&lane("app"));
    let heard = async || {
        tokio::time::timeout(SECOND * 20, bell.notified())
            .await
            .expect("nobody rang")
    };
    bench.publish(&["app"], "{}").await;
    heard().await;
    let leased = bench.one("app").await;
    bench.end(&leased.lease, End::Release).await;
    heard().await;
    let leased = bench.one("app").await;
    bench.end(&leased.lease, bury()).await;
    bench.change(Change::Retry, &Filter::default()).await;
    heard().await;
    bench.publish_keyed("k").await;
    heard().await;
}

pub(crate) async fn a_listing_finds_what_was_asked_for(open: Open) {
    // An operator redrives the wrong events, or never finds the one a customer asks about.
    let bench = open();
    let mut ids = Vec::new();
    for (kind, id) in [
        ("invoice.paid", "evt_1"),
        ("invoice.voided", "evt_2"),
        ("customer.created", "evt_3"),
    ] {
        let mut event = bench.event(&["a", "b"], "{}");
        let kept = Arc::make_mut(&mut event.event);
        kept.event_type = Some(kind.to_owned());
        kept.event_id = Some(id.to_owned());
        ids.push(bench.queue.publish(event, None).await.unwrap().id());
        bench.time.advance(SECOND * 10);
    }
    bench.end(&bench.one("a").await.lease, ack()).await;
    bench.one("b").await;
    let all = Filter::default();
    let start = bench.now().0 - 30_000;
    let table: [(Filter, &[(usize, &str)]); 12] = [
        (
            all.clone(),
            &[(2, "a"), (2, "b"), (1, "a"), (1, "b"), (0, "a"), (0, "b")],
        ),
        (
            Filter {
                id: Some(ids[1]),
                ..all.clone()
            },
            &[(1, "a"), (1, "b")],
        ),
        (
            Filter {
                destination: Some("b".into()),
                ..all.clone()
            },
            &[(2, "b"), (1, "b"), (0, "b")],
        ),
        (
            Filter {
                route: Some("github".into()),
                id: Some(ids[0]),
                ..all.clone()
            },
            &[(0, "a"), (0, "b")],
        ),
        (
            Filter {
                route: Some("stripe".into()),
                ..all.clone()
            },
            &[],
        ),
        (
            Filter {
                states: vec![EventState::Delivered],
                ..all.clone()
            },
            &[(0, "a")],
        ),
        (
            Filter {
                states: vec![EventState::Leased],
                ..all.clone()
            },
            &[(0, "b")],
        ),
        (
            Filter {
                states: vec![EventState::Pending, EventState::Leased],
                destination: Some("b".into()),
                ..all.clone()
            },
            &[(2, "b"), (1, "b"), (0, "b")],
        ),
        (
            Filter {
                event_type: Some("invoice.*".into()),
                destination: Some("a".into()),
                ..all.clone()
            },
            &[(1, "a"), (0, "a")],
        ),
        (
            Filter {
                event_type: Some("invoice.paid".into()),
                destination: Some("a".into()),
                ..all.clone()
            },
            &[(0, "a")],
        ),
        (
            Filter {
                event_id: Some("evt_3".into()),
                ..all.clone()
            },
            &[(2, "a"), (2, "b")],
        ),
        (
            Filter {
                since: Some(UnixMillis(start + 10_000)),
                until: Some(UnixMillis(start + 20_000)),
                ..all.clone()
            },
            &[(1, "a"), (1, "b")],
        ),
    ];
    for (filter, expected) in table {
        let expected: Vec<_> = expected.iter().map(|(at, to)| (ids[*at], lane(to))).collect();
        for max in [100, 2] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = bench.queue.list(&filter, after, max).await.unwrap();
                assert!(page.deliveries.len() <= max);
                found.extend(page.deliveries.iter().map(|d| (d.id, d.lane.clone())));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{filter:?}");
        }
    }
}

pub(crate) async fn a_listing_has_pages(open: Open) {
    // A listing of a large backlog shows some twice and others never.
    let bench = open();
    for _ in 0..7 {
        bench.publish(&["a", "b", "c"], "{}").await;
    }
    // Some are out, which must not make holes.
    bench.lease("b", 3).await;
    let states = [EventState::Pending];
    for states in [&states[..], &[]] {
        let filter = Filter {
            states: states.to_vec(),
            ..Filter::default()
        };
        let whole = bench.queue.list(&filter, None, 100).await.unwrap().deliveries;
        assert_eq!(whole.len(), if states.is_empty() { 21 } else { 18 });
        for max in [1, 2, 5, 17] {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let page = bench.queue.list(&filter, after, max).await.unwrap();
                assert!(page.deliveries.len() <= max);
                pages.extend(page.deliveries);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(pages, whole, "{max}");
        }
    }
}

pub(crate) async fn changes_may_be_repeated(open: Open) {
    // An operator whose connection broke repeats the command, and everything is delivered twice.
    let bench = open();
    for _ in 0..6 {
        bench.publish(&["app"], "{}").await;
    }
    let batch = bench.lease("app", 4).await;
    bench.end(&batch.leased[0].lease, ack()).await;
    bench.end(&batch.leased[1].lease, bury()).await;
    bench.end(&batch.leased[2].lease, retry(bench.later(SECOND * 60))).await;
    bench.end(&batch.leased[3].lease, End::Release).await;
    let of = |states: &[EventState]| Filter {
        states: states.to_vec(),
        ..Filter::default()
    };
    let (waiting, dead) = (of(&[EventState::Waiting]), of(&[EventState::Dead]));
    assert_eq!(bench.change(Change::Retry, &waiting).await, (1, 0));
    assert_eq!(bench.change(Change::Retry, &waiting).await, (0, 0));
    assert_eq!(bench.change(Change::Retry, &dead).await, (1, 0));
    assert_eq!(bench.change(Change::Retry, &dead).await, (0, 0));
    assert_eq!(bench.lease("app", 10).await.leased.len(), 5);
    bench.time.advance(TERM);
    assert_eq!(bench.change(Change::Purge, &of(&[EventState::Delivered])).await, (1, 0));
    assert_eq!(bench.change(Change::Purge, &Filter::default()).await, (0, 0));
    assert_eq!(
        bench.queue.show(batch.leased[0].lease.id()).await.unwrap().map(|_| ()),
        None
    );
    // Pages of a change go over everything once.
    bench.end(&bench.one("app").await.lease, End::Release).await;
    let (mut changed, mut after) = (0, None);
    loop {
        let step = bench
            .queue
            .change(Change::Cancel, &Filter::default(), after, 2)
            .await
            .unwrap();
        changed += step.changed;
        after = step.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(changed, bench.count("app", EventState::Cancelled).await);
    assert_eq!(
        bench.change(Change::Retry, &of(&[EventState::Cancelled])).await,
        (changed, 0)
    );
}

pub(crate) async fn what_is_out_is_left_alone(open: Open) {
    // A cancelled event that is being delivered at that moment is told to be cancelled, and arrives.
    let bench = open();
    let id = bench.publish(&["app"], "{}").await;
    let leased = bench.one("app").await;
    for change in [Change::Cancel, Change::Retry] {
        assert_eq!(bench.change(change, &Filter::default()).await, (0, 1));
    }
    assert_eq!(bench.change(Change::Purge, &Filter::default()).await, (0, 0));
    bench.end(&leased.lease, ack()).await;
    assert_eq!(bench.states(id).await, [(EventState::Delivered, 1)]);
}

pub(crate) async fn a_restart_keeps_everything(open: Open) {
    // A deployment loses events, delivers what was out a second time under the same number, or forgets the schedule.
    let mut bench = open();
    let mut ids = Vec::new();
    for body in ["fresh", "waiting", "dead", "done", "out"] {
        ids.push(bench.publish(&["app"], body).await);
    }
    let keyed = [bench.publish_keyed("k").await, bench.publish_keyed("k").await];
    let batch = bench.lease("app", 5).await;
    bench.end(&batch.leased[0].lease, End::Release).await;
    bench.end(&batch.leased[1].lease, retry(bench.later(SECOND * 60))).await;
    bench.end(&batch.leased[2].lease, bury()).await;
    bench.end(&batch.leased[3].lease, ack()).await;
    let before = bench.queue.list(&Filter::default(), None, 100).await.unwrap();
    bench.queue = (bench.restart)().await;
    let after = bench.queue.list(&Filter::default(), None, 100).await.unwrap();
    let returned = |delivery: &super::Delivery| super::Delivery {
        state: if delivery.state == EventState::Leased {
            EventState::Pending
        } else {
            delivery.state
        },
        ..delivery.clone()
    };
    assert_eq!(
        after.deliveries,
        before.deliveries.iter().map(returned).collect::<Vec<_>>()
    );
    assert_eq!(bench.queue.end(&batch.leased[4].lease, ack()).await, Ok(Ended::Fenced));
    let batch = bench.lease("app", 10).await;
    let due: Vec<_> = batch
        .leased
        .iter()
        .map(|leased| (leased.lease.id(), leased.attempt))
        .collect();
    assert_eq!(due, [(ids[0], 1), (ids[4], 1), (keyed[0], 1)]);
    assert_eq!(
        batch.next_at.unwrap().min(bench.later(SECOND * 60)),
        batch.next_at.unwrap()
    );
    bench.time.advance(SECOND * 60);
    let due: Vec<_> = bench
        .lease("app", 10)
        .await
        .leased
        .iter()
        .map(|leased| (leased.lease.id(), leased.attempt))
        .collect();
    assert!(due.contains(&(ids[1], 2)));
    assert_eq!(bench.count("app", EventState::Dead).await, 1);
}

pub(crate) async fn ids_ascend_whatever_the_clock_does(open: Open) {
    // Two events share an id, and one of them is gone.
    let mut bench = open();
    let mut last = bench.publish(&["app"], "{}").await;
    for wall in [0, 5, u64::MAX / 2_000_000, 7] {
        bench.time.set_wall(UnixMillis(wall));
        let id = bench.publish(&["app"], "{}").await;
        assert!(id > last);
        last = id;
    }
    bench.change(Change::Cancel, &Filter::default()).await;
    bench.change(Change::Purge, &Filter::default()).await;
    bench.queue = (bench.restart)().await;
    assert!(bench.publish(&["app"], "{}").await > last);
}

pub(crate) async fn a_closed_queue_says_so(open: Open) {
    // After the end of the process was ordered, a provider is told "taken" about an event that nobody keeps.
    let bench = open();
    bench.publish(&["app"], "{}").await;
    let leased = bench.one("app").await;
    bench.queue.close().await;
    assert_eq!(
        bench
            .queue
            .publish(bench.event(&["app"], "{}"), None)
            .await
            .unwrap_err(),
        QueueError::Closed
    );
    assert_eq!(bench.queue.end(&leased.lease, ack()).await, Err(QueueError::Closed));
    assert_eq!(
        bench.queue.lease(&lane("app"), 1, TERM).await.unwrap_err(),
        QueueError::Closed
    );
    assert_eq!(
        bench.queue.list(&Filter::default(), None, 1).await,
        Err(QueueError::Closed)
    );
    assert_eq!(bench.queue.health(), super::Health::Closed);
    bench.queue.close().await;
}

pub(crate) async fn racing_workers_deliver_each_event_once(open: Open) {
    // Two workers of a lane deliver the same event, or both leave it to the other.
    const EVENTS: usize = 600;
    let bench = Arc::new(open());
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..6 {
        let bench = Arc::clone(&bench);
        tasks.spawn(async move {
            for _ in 0..EVENTS / 6 {
                let destinations: &[&str] = if publisher % 2 == 0 { &["a"] } else { &["b", "a"] };
                bench.publish(destinations, "{}").await;
            }
            Vec::new()
        });
    }
    for worker in 0..6 {
        let bench = Arc::clone(&bench);
        tasks.spawn(async move {
            let mut delivered = Vec::new();
            let mut idle = 0;
            while idle < 200 {
                let batch = bench.lease(["a", "b"][worker % 2], 1 + worker * 3).await;
                idle = if batch.leased.is_empty() { idle + 1 } else { 0 };
                for leased in batch.leased {
                    let fails = leased.attempt == 1 && leased.lease.id().0 % 5 == 0;
                    let end = if fails { retry(bench.now()) } else { ack() };
                    bench.end(&leased.lease, end.clone()).await;
                    delivered.extend((end == ack()).then(|| (leased.lease.lane().clone(), leased.lease.id())));
                }
                tokio::task::yield_now().await;
            }
            delivered
        });
    }
    let mut delivered: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    // Those that gave up early leave the rest to us.
    for destination in ["a", "b"] {
        for leased in bench.lease(destination, 1000).await.leased {
            bench.end(&leased.lease, ack()).await;
            delivered.push((leased.lease.lane().clone(), leased.lease.id()));
        }
    }
    let all = delivered.len();
    delivered.sort();
    delivered.dedup();
    assert_eq!((all, delivered.len()), (EVENTS + EVENTS / 2, EVENTS + EVENTS / 2));
    assert_eq!(bench.count("a", EventState::Delivered).await, EVENTS as u64);
}

pub(crate) async fn an_event_nobody_wants_is_taken(open: Open) {
    // Every destination filters it out; an error would make the provider send it for days.
    let bench = open();
    let id = bench.publish(&[], "{}").await;
    assert!(bench.queue.show(id).await.unwrap().is_none());
}

pub(crate) async fn a_pause_survives_a_restart(open: Open) {
    // A route was paused for the night's migration, the gateway is restarted in the middle of it, and delivers.
    let mut bench = open();
    assert!(bench.queue.paused().is_empty());
    for route in ["b", "a", "a"] {
        bench.queue.pause(route, true).await.unwrap();
    }
    let routes = ["a", "b"].map(Arc::from);
    assert_eq!(bench.queue.paused(), routes);
    bench.queue = (bench.restart)().await;
    assert_eq!(bench.queue.paused(), routes);
    bench.queue.pause("a", false).await.unwrap();
    bench.queue.pause("c", false).await.unwrap();
    bench.queue = (bench.restart)().await;
    assert_eq!(bench.queue.paused(), routes[1..]);
    // It is the worker that obeys.
    bench.publish(&["app"], "{}").await;
    assert_eq!(bench.lease("app", 1).await.leased.len(), 1);
    bench.queue.close().await;
    assert_eq!(bench.queue.pause("a", true).await, Err(QueueError::Closed));
}

pub(crate) async fn a_change_by_type_comes_to_the_last(open: Open) {
    // A search for few among many ends before it has come to them, and the operator believes that there are none.
    let bench = open();
    for number in 0..40 {
        let mut event = bench.event(&["a", "b"], "{}");
        Arc::make_mut(&mut event.event).event_type = Some(if number % 13 == 7 { "rare" } else { "push" }.to_owned());
        let _ = bench.queue.publish(event, None).await.unwrap();
    }
    let rare = Filter {
        event_type: Some("rare".into()),
        ..Filter::default()
    };
    let (mut changed, mut after) = (0, None);
    loop {
        let done = bench.queue.change(Change::Cancel, &rare, after, 4).await.unwrap();
        changed += done.changed;
        after = done.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(changed, 6);
    assert_eq!(bench.count("a", EventState::Cancelled).await, 3);
    assert_eq!(bench.count("b", EventState::Pending).await, 37);
}
