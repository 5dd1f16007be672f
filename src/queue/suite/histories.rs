//! Random histories of a queue against a plain model: a list of deliveries and a loop over it.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::futures::{ack, bury, retry};
use super::{Bench, Open, lane};
use crate::clock::UnixMillis;
use crate::queue::{Change, End, Ended, EventId, EventState, Filter, Leased};

const LANES: [&str; 2] = ["a", "b"];
const KEYS: [&str; 2] = ["k", "l"];

/// One step of a history. `which` picks one of the leases of before.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        lanes: usize,
        key: Option<usize>,
    },
    Lease {
        lane: usize,
        max: usize,
        term: u64,
    },
    End {
        which: usize,
        word: Word,
    },
    Change {
        change: Change,
        state: Option<EventState>,
        lane: Option<usize>,
    },
    Pass {
        seconds: u64,
    },
    Restart,
}

#[derive(Clone, Debug)]
enum Word {
    Ack,
    Bury,
    Retry(u64),
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let word = prop_oneof![
        3 => Just(Word::Ack),
        1 => Just(Word::Bury),
        3 => (0..6u64).prop_map(Word::Retry),
        1 => Just(Word::Release),
    ];
    let change = prop_oneof![Just(Change::Retry), Just(Change::Cancel), Just(Change::Purge)];
    let state = prop::option::of(prop::sample::select(&EventState::ALL[..]));
    prop_oneof![
        6 => (1..4usize, prop::option::of(0..KEYS.len())).prop_map(|(lanes, key)| Step::Publish { lanes, key }),
        6 => (0..LANES.len(), 1..5usize, 1..5u64).prop_map(|(lane, max, term)| Step::Lease { lane, max, term }),
        8 => (any::<usize>(), word).prop_map(|(which, word)| Step::End { which, word }),
        2 => (change, state, prop::option::of(0..LANES.len()))
            .prop_map(|(change, state, lane)| Step::Change { change, state, lane }),
        4 => (1..4u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Restart),
    ]
}

/// A delivery, as the documentation has it.
#[derive(Clone, Debug)]
struct Owed {
    id: EventId,
    lane: usize,
    key: Option<usize>,
    /// Anything but leased, which `held` tells.
    state: EventState,
    attempts: u32,
    spent: u32,
    due: u64,
    held: Option<Hold>,
}

#[derive(Clone, Debug)]
struct Hold {
    lease: usize,
    ends: u64,
}

impl Owed {
    fn shown(&self) -> EventState {
        if self.held.is_some() {
            EventState::Leased
        } else {
            self.state
        }
    }

    fn is_due(&self, now: u64) -> bool {
        self.held.is_none()
            && (self.state == EventState::Pending || (self.state == EventState::Waiting && self.due <= now))
    }
}

struct History {
    bench: Bench,
    now: u64,
    model: Vec<Owed>,
    leases: Vec<Leased>,
}

impl History {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Publish { lanes, key } => self.publish(lanes, key).await,
            Step::Lease { lane, max, term } => self.lease(lane, max, term).await,
            Step::End { which, word } if !self.leases.is_empty() => self.end(which % self.leases.len(), word).await,
            Step::End { .. } => {}
            Step::Change { change, state, lane } => self.change(change, state, lane).await,
            Step::Pass { seconds } => {
                self.now += seconds * 1000;
                self.bench.time.advance(Duration::from_secs(seconds));
            }
            Step::Restart => {
                self.bench.queue = (self.bench.restart)().await;
                self.model.iter_mut().for_each(|owed| owed.held = None);
            }
        }
        self.compare().await;
    }

    async fn publish(&mut self, lanes: usize, key: Option<usize>) {
        let chosen: Vec<usize> = (0..LANES.len()).filter(|lane| lanes >> lane & 1 == 1).collect();
        let names: Vec<&str> = chosen.iter().map(|lane| LANES[*lane]).collect();
        let mut event = self.bench.event(&names, "{}");
        event.order_key = key.map(|key| Bytes::from_static(KEYS[key].as_bytes()));
        let id = self.bench.queue.publish(event, None).await.unwrap().id();
        for lane in chosen {
            self.model.push(Owed {
                id,
                lane,
                key,
                state: EventState::Cancelled,
                attempts: 0,
                spent: 0,
                due: 0,
                held: None,
            });
            self.open(self.model.len() - 1, 0);
        }
    }

    /// Makes the delivery owed, behind another of its key if there is one.
    fn open(&mut self, at: usize, due: u64) {
        let (lane, key) = (self.model[at].lane, self.model[at].key);
        let first = |state| matches!(state, EventState::Pending | EventState::Waiting);
        let taken = |owed: &Owed| owed.lane == lane && owed.key == key && first(owed.state);
        let blocked = key.is_some() && self.model.iter().any(taken);
        let owed = &mut self.model[at];
        owed.due = due;
        owed.state = match (blocked, owed.attempts) {
            (true, _) => EventState::Blocked,
            (false, 0) => EventState::Pending,
            (false, _) => EventState::Waiting,
        };
    }

    /// Ends the delivery, and lets the next of its key go.
    fn close(&mut self, at: usize, state: EventState) {
        let was = self.model[at].state;
        self.model[at].state = state;
        let (lane, key) = (self.model[at].lane, self.model[at].key);
        if key.is_none() || was == EventState::Blocked {
            return;
        }
        let behind = |owed: &Owed| owed.lane == lane && owed.key == key && owed.state == EventState::Blocked;
        let next = (0..self.model.len())
            .filter(|at| behind(&self.model[*at]))
            .min_by_key(|at| self.model[*at].id);
        if let Some(next) = next {
            self.open(next, self.now);
        }
    }

    async fn lease(&mut self, lane: usize, max: usize, term: u64) {
        for at in 0..self.model.len() {
            let owed = &mut self.model[at];
            if owed.lane == lane && owed.held.as_ref().is_some_and(|held| held.ends <= self.now) {
                owed.held = None;
                owed.attempts += 1;
                owed.state = EventState::Waiting;
                owed.due = self.now;
            }
        }
        let due = |owed: &&Owed| owed.lane == lane && owed.is_due(self.now);
        let due: Vec<Owed> = self.model.iter().filter(due).cloned().collect();
        let batch = self
            .bench
            .queue
            .lease(&super::lane(LANES[lane]), max, Duration::from_secs(term))
            .await
            .unwrap();
        let (again, fresh): (Vec<&Leased>, Vec<&Leased>) = batch.leased.iter().partition(|leased| leased.attempt > 1);
        let waiting = due.iter().filter(|owed| owed.state == EventState::Waiting).count();
        assert_eq!(batch.leased.len(), max.min(due.len()));
        assert!(again.len() >= waiting.min(max / 2) && fresh.len() >= (due.len() - waiting).min(max / 2));
        assert!(fresh.is_sorted_by_key(|leased| leased.lease.id()));
        let due_of = |leased: &&Leased| {
            due.iter()
                .find(|owed| owed.id == leased.lease.id())
                .map(|owed| owed.due)
        };
        assert!(again.is_sorted_by_key(due_of));
        for leased in batch.leased {
            let is_it = |owed: &&mut Owed| owed.id == leased.lease.id() && owed.lane == lane;
            let owed = self.model.iter_mut().find(is_it).unwrap();
            assert!(owed.is_due(self.now));
            assert_eq!(
                (leased.attempt, leased.tries),
                (owed.attempts + 1, owed.attempts + 1 - owed.spent)
            );
            owed.held = Some(Hold {
                lease: self.leases.len(),
                ends: self.now + term * 1000,
            });
            self.leases.push(leased);
        }
        let next =
            self.model
                .iter()
                .filter(|owed| owed.lane == lane)
                .filter_map(|owed| match (&owed.held, owed.state) {
                    (Some(held), _) => Some(held.ends),
                    (None, EventState::Pending) => Some(0),
                    (None, EventState::Waiting) => Some(owed.due),
                    (None, _) => None,
                });
        match (next.min(), batch.next_at) {
            (None, None) => {}
            (Some(due), Some(told)) if due <= self.now => assert!(told.0 <= self.now),
            // The end of a lease is told a little late rather than early.
            (Some(due), Some(told)) => assert!((due..=due + 2).contains(&told.0), "{due} {told:?}"),
            other => panic!("{other:?}"),
        }
    }

    async fn end(&mut self, which: usize, word: Word) {
        let lease = self.leases[which].lease.clone();
        let is_held = |owed: &Owed| owed.held.as_ref().is_some_and(|held| held.lease == which);
        let at = self.model.iter().position(is_held);
        let due = match word {
            Word::Retry(seconds) => self.now + seconds * 1000,
            _ => 0,
        };
        let end = match word {
            Word::Ack => ack(),
            Word::Bury => bury(),
            Word::Retry(_) => retry(UnixMillis(due)),
            Word::Release => End::Release,
        };
        let expected = if at.is_some() { Ended::Recorded } else { Ended::Fenced };
        assert_eq!(self.bench.queue.end(&lease, end).await, Ok(expected));
        let Some(at) = at else { return };
        self.model[at].held = None;
        if matches!(word, Word::Release) {
            return;
        }
        self.model[at].attempts += 1;
        match word {
            Word::Ack => self.close(at, EventState::Delivered),
            Word::Bury => self.close(at, EventState::Dead),
            _ => {
                self.model[at].state = EventState::Waiting;
                self.model[at].due = due;
            }
        }
    }

    async fn change(&mut self, change: Change, state: Option<EventState>, to: Option<usize>) {
        let filter = Filter {
            destination: to.map(|to| LANES[to].into()),
            states: state.into_iter().collect(),
            ..Filter::default()
        };
        let meant =
            |owed: &Owed| to.is_none_or(|to| to == owed.lane) && state.is_none_or(|state| state == owed.shown());
        let mut meant: Vec<usize> = (0..self.model.len()).filter(|at| meant(&self.model[*at])).collect();
        meant.sort_by_key(|at| (self.model[*at].id, self.model[*at].lane));
        let (mut changed, mut skipped, mut purged) = (0, 0, Vec::new());
        for at in meant {
            let ended = !self.model[at].state.is_open();
            match change {
                _ if self.model[at].held.is_some() => skipped += u64::from(change != Change::Purge),
                Change::Retry if ended => {
                    self.model[at].spent = self.model[at].attempts;
                    self.open(at, self.now);
                    changed += 1;
                }
                Change::Retry if self.model[at].state == EventState::Waiting && self.model[at].due > self.now => {
                    self.model[at].due = self.now;
                    changed += 1;
                }
                Change::Cancel if !ended => {
                    self.close(at, EventState::Cancelled);
                    changed += 1;
                }
                Change::Purge if ended => {
                    purged.push((self.model[at].id, self.model[at].lane));
                    changed += 1;
                }
                _ => {}
            }
        }
        self.model.retain(|owed| !purged.contains(&(owed.id, owed.lane)));
        assert_eq!(self.bench.change(change, &filter).await, (changed, skipped));
    }

    /// Everything that can be seen is as in the model.
    async fn compare(&self) {
        let mut expected: Vec<_> = self.model.iter().collect();
        expected.sort_by_key(|owed| (std::cmp::Reverse(owed.id), owed.lane));
        let expected: Vec<_> = expected
            .iter()
            .map(|owed| (owed.id, lane(LANES[owed.lane]), owed.shown(), owed.attempts))
            .collect();
        let page = self.bench.queue.list(&Filter::default(), None, 1000).await.unwrap();
        let listed: Vec<_> = page
            .deliveries
            .into_iter()
            .map(|d| (d.id, d.lane, d.state, d.attempts))
            .collect();
        assert_eq!(listed, expected);
        for count in self.bench.queue.counts().await.unwrap() {
            let those = expected
                .iter()
                .filter(|(_, lane, state, _)| *lane == count.lane && *state == count.state);
            let ids: Vec<EventId> = those.map(|(id, ..)| *id).collect();
            assert_eq!(count.deliveries, ids.len() as u64, "{count:?}");
            if count.state.is_open() || count.state == EventState::Dead {
                assert_eq!(count.oldest, ids.last().map(|id| UnixMillis(id.0 / 1000)), "{count:?}");
            }
        }
    }
}

/// Plays `steps` on an empty queue, compared with the model after each.
async fn play(open: Open, steps: Vec<Step>) {
    let bench = open();
    let now = bench.now().0;
    let mut history = History {
        bench,
        now,
        model: Vec::new(),
        leases: Vec::new(),
    };
    for step in steps {
        history.take(step).await;
    }
}

pub(crate) fn agree(open: Open) {
    // Some order of successes, failures, crashes of workers and commands that nobody thought of loses an event,
    // delivers it twice, or forgets the order.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 250,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Default::default()
    });
    let history = |steps: Vec<Step>| {
        runtime.block_on(play(open, steps));
        Ok(())
    };
    runner.run(&vec(step(), 1..50), history).unwrap();
}

/// A history that was found to fail: a delivery was due from the time its predecessor's attempt reported, not from the
/// time it was let go.
pub(crate) async fn one_that_was_let_go_is_due_from_then(open: Open) {
    // An attempt reported with a wrong time would put the next event of its key before older ones, or years off.
    let publish = |lanes, key| Step::Publish { lanes, key };
    let lease = |lane, max, term| Step::Lease { lane, max, term };
    let end = |which, word| Step::End { which, word };
    let change = |change, lane| Step::Change {
        change,
        state: None,
        lane,
    };
    let steps = vec![
        publish(1, Some(0)),
        publish(2, None),
        publish(1, None),
        lease(1, 1, 1),
        publish(3, Some(0)),
        lease(0, 1, 1),
        end(1, Word::Ack),
        lease(0, 2, 1),
        change(Change::Cancel, None),
        change(Change::Purge, Some(1)),
        end(2, Word::Ack),
        change(Change::Retry, None),
        end(2, Word::Retry(1)),
        Step::Pass { seconds: 3 },
        lease(1, 3, 4),
        lease(0, 4, 3),
        end(5, Word::Release),
        end(6, Word::Ack),
        lease(0, 2, 1),
    ];
    play(open, steps).await;
}
