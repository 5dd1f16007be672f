//! The queue: events that were acknowledged to their provider and are still owed to a destination.
//!
//! The corridor calls [`Queue::publish`] with a [`NewEvent`], which only an [`Event`](crate::event::Event) makes, and
//! gets a [`Receipt`], which only an engine makes: an event without proof cannot be queued, and nobody is told "taken"
//! about an event that is not on disk. The worker leases what is due, lane by lane, and ends every lease with its
//! word: taken, try again at, give up, or not tried. Operators look and change through [`list`](Queue::list),
//! [`show`](Queue::show) and [`change`](Queue::change).
//!
//! An engine promises: a published event is leased again and again until its lease is *ended* with an ack, a burial,
//! or an operator's word; a lease that passed, or a crash, brings it back with a higher attempt number; the late word
//! of a worker whose lease went to another changes nothing; bytes that were altered on disk are never handed out. It
//! does not promise order, except within an order key, and delivers more than once when a worker dies in between.
//!
//! What shaped this room: queues that acknowledge from memory lose events when the power goes; queues that trust a
//! disk after a failed fsync lose them later. Here such an engine closes for good and says so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::clock::UnixMillis;
use crate::store::Claim;

pub use delivery::{
    BreakerSettings, BreakerState, DeadReason, Delays, Destination, Line, LineSettings, PaceSettings, RetryPolicy,
    TypeFilter, Worker,
};
pub use inspect::{Change, Changed, Count, Cursor, Delivery, Filter, Page, Shown};
pub use kept::{KeptEvent, NewEvent};
pub use sqlite::{SqliteQueue, SqliteSettings};

mod delivery;
mod inspect;
mod kept;
mod sqlite;
#[cfg(test)]
mod suite;

/// The most destinations of one event, which is the most that a route may have.
pub const DESTINATIONS_MAX: usize = 64;

/// The most deliveries one lease call hands out, and the most rows of one page of a listing.
pub const BATCH_MAX: usize = 1024;

/// Keeps events until every destination has taken them. One queue serves all routes of a process.
///
/// Every method may be called at any time from any task and dropped at any await: what was already handed to the
/// engine then happens all the same.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Puts an event on disk, once for each of its destinations, and settles the claim that guards it.
    ///
    /// With a `hold` whose store lives in the same engine both happen in one transaction: the event is in the queue
    /// exactly if its repeats are known. With another store the claim is settled right after. When nothing was
    /// published the claim is released.
    ///
    /// # Errors
    /// [`QueueError`]; with [`QueueError::Full`] nothing was published, with [`QueueError::Closed`] the event may or
    /// may not be found after the next start. The provider must not be told "taken" in either case.
    async fn publish(&self, event: NewEvent, hold: Option<Hold>) -> Result<Receipt, QueueError>;

    /// Takes up to `max` deliveries of `lane` that are due, each for `term`: those never tried in the order of their
    /// acceptance, those tried before by the time they are due; when there are both, each gets at least half of the
    /// batch, so that neither starves the other.
    ///
    /// At most one event of an order key is out at a time, in the order of acceptance; a dead or cancelled one lets
    /// the next go. `term` should exceed the time of an attempt. `max` beyond [`BATCH_MAX`] is cut.
    ///
    /// # Errors
    /// [`QueueError`]; nothing was leased then.
    async fn lease(&self, lane: &Lane, max: usize, term: Duration) -> Result<Batch, QueueError>;

    /// The worker's last word on a leased delivery.
    ///
    /// A lease that passed without a successor can still be ended: the attempt did happen.
    ///
    /// # Errors
    /// [`QueueError`]: the word is not known to be recorded. The lease stays, ends by itself, and the event is
    /// delivered again.
    async fn end(&self, lease: &Lease, end: End) -> Result<Ended, QueueError>;

    /// Is rung when a delivery of `lane` may have become due before the time the last lease call told: published,
    /// released, redriven, unblocked. Rings of before the wait are kept (one, not each). Hold on to it: cheap to wait
    /// for, not to look up.
    fn bell(&self, lane: &Lane) -> Arc<Notify>;

    /// Deliveries that match, newest first, at most `max` (cut to [`BATCH_MAX`]), below `after`. A search that would take
    /// long ends with fewer, or none, and with the place to go on from: only a page without one is the last.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn list(&self, filter: &Filter, after: Option<Cursor>, max: usize) -> Result<Page, QueueError>;

    /// Everything about one event; `None` when there is none of that id.
    ///
    /// # Errors
    /// [`QueueError`]; [`QueueError::Damaged`] when its bytes are not those that were published.
    async fn show(&self, id: EventId) -> Result<Option<Shown>, QueueError>;

    /// Changes up to `max` matching deliveries (cut to [`BATCH_MAX`]), oldest first, above `after`. Call it again with
    /// the cursor it returns until there is none, also after it changed none. States that the change says nothing about are not concerned, so that
    /// it may be repeated; what is leased at that moment is left alone and counted as skipped.
    ///
    /// # Errors
    /// [`QueueError`]; nothing of this call was changed then.
    async fn change(
        &self,
        change: Change,
        filter: &Filter,
        after: Option<Cursor>,
        max: usize,
    ) -> Result<Changed, QueueError>;

    /// Puts on record that deliveries of `route` are paused, or are not any more; survives a restart. The worker obeys
    /// it, the engine itself leases all the same.
    ///
    /// # Errors
    /// [`QueueError`]; nothing was changed then, or with [`QueueError::Closed`] nobody knows until the next start.
    async fn pause(&self, route: &str, paused: bool) -> Result<(), QueueError>;

    /// The routes that are paused, in order.
    fn paused(&self) -> Vec<Arc<str>>;

    /// How many deliveries there are by lane and state, and since when the oldest waits. Cheap: counted as they move.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn counts(&self) -> Result<Vec<Count>, QueueError>;

    /// What the engine can do at this moment, for readiness and the alarm.
    fn health(&self) -> Health;

    /// Returns every lease, finishes what was handed in, and lets go of the file. Everything after it is
    /// [`QueueError::Closed`]. Without it (a crash) the next start finds the same events, and counts an attempt for
    /// those that were out.
    async fn close(&self);
}

/// Where deliveries of one destination of one route wait. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The route's name.
    pub route: Arc<str>,
    /// The destination's name, unique within the route.
    pub destination: Arc<str>,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.route, self.destination)
    }
}

/// An event in a queue. Ascending in the order of acceptance, never given twice by one data directory, and about the
/// microseconds from 1970 to its acceptance; fits into the integers of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u64);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The queue's word that an event is durable. Only engines make one; a 2xx to the provider needs one.
#[derive(Debug)]
#[must_use = "the event is on disk: tell the provider"]
pub struct Receipt {
    id: EventId,
    remembered: bool,
}

impl Receipt {
    /// For engines, after the event is durable. `remembered`: the replay claim is settled, too.
    pub(in crate::queue) fn new(id: EventId, remembered: bool) -> Self {
        Receipt { id, remembered }
    }

    /// The event's id in the queue.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Whether the claim that came with the event is settled. False when there was none, and when its own store
    /// failed after the event was published: a repeat may be queued again.
    pub fn remembered(&self) -> bool {
        self.remembered
    }
}

/// The claim on an event's replay keys, to be settled with its publication.
#[derive(Debug)]
pub struct Hold {
    /// The claim.
    pub claim: Claim,
    /// The status that repeats are answered with.
    pub status: u16,
    /// How long repeats are known.
    pub keep: Duration,
}

/// What a lease call found.
#[derive(Debug, Default)]
pub struct Batch {
    /// Deliveries to attempt.
    pub leased: Vec<Leased>,
    /// When the lane has something to do next, as far as is known: a time in the past means now. `None`: nothing
    /// waits; the bell rings when something does.
    pub next_at: Option<UnixMillis>,
}

/// A delivery that is the caller's to attempt.
#[derive(Debug)]
pub struct Leased {
    /// To end it with.
    pub lease: Lease,
    /// The number of this attempt, from 1. Rises with every lease that may have been attempted, crashes included.
    pub attempt: u32,
    /// The number of this attempt since the event was accepted or an operator asked for it again: what the schedule
    /// counts.
    pub tries: u32,
    /// When the event was accepted.
    pub accepted_at: UnixMillis,
    /// The event, byte for byte as published.
    pub event: Arc<KeptEvent>,
}

/// The hold on one delivery. Its token is the fence: once another lease was given for the same delivery, this one's
/// word does not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    lane: Lane,
    id: EventId,
    token: u64,
    share: u64,
}

impl Lease {
    /// For engines, which never give the same token twice in the life of a data directory. `share` is for them, too:
    /// what the delivery counts for in the history, in bytes.
    pub(in crate::queue) fn new(lane: Lane, id: EventId, token: u64, share: u64) -> Self {
        Lease { lane, id, token, share }
    }

    /// Where the delivery waits.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The event.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// For engines.
    pub(in crate::queue) fn token(&self) -> u64 {
        self.token
    }

    /// For engines.
    pub(in crate::queue) fn share(&self) -> u64 {
        self.share
    }
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The destination took it: delivered.
    Ack(Attempt),
    /// It did not, and is to be tried again at this time.
    Retry(Attempt, UnixMillis),
    /// It did not and will not: a dead letter, kept until an operator retries or purges it.
    Bury(Attempt),
    /// It was not tried: due at once, its attempt number not used up.
    Release,
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: UnixMillis,
    /// How long it took.
    pub took: Duration,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why it failed, in a few words for people; empty when it did not. Cut to [`ERROR_BYTES_MAX`].
    pub error: String,
}

/// Longest [`Attempt::error`] that is kept, in bytes.
pub const ERROR_BYTES_MAX: usize = 256;

/// Whether a lease was still held by the one who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The word is on record.
    Recorded,
    /// The lease had passed to another, or the delivery was ended otherwise: nothing was changed.
    Fenced,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventState {
    /// Due, never tried.
    Pending,
    /// Tried, to be tried again at its time.
    Waiting,
    /// Behind another event of its order key.
    Blocked,
    /// Out for an attempt.
    Leased,
    /// Taken by the destination.
    Delivered,
    /// Given up: a dead letter.
    Dead,
    /// Ended by an operator.
    Cancelled,
}

impl EventState {
    /// Every state, in the order of a delivery's life.
    pub const ALL: [EventState; 7] = [
        EventState::Pending,
        EventState::Waiting,
        EventState::Blocked,
        EventState::Leased,
        EventState::Delivered,
        EventState::Dead,
        EventState::Cancelled,
    ];

    /// The word for it in metrics, filters and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            EventState::Pending => "pending",
            EventState::Waiting => "waiting",
            EventState::Blocked => "blocked",
            EventState::Leased => "leased",
            EventState::Delivered => "delivered",
            EventState::Dead => "dead",
            EventState::Cancelled => "cancelled",
        }
    }

    /// Whether the event is still owed to the destination.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            EventState::Pending | EventState::Waiting | EventState::Blocked | EventState::Leased
        )
    }
}

/// How long ended deliveries are kept to look at. Dead letters are not concerned: they stay until purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Since their acceptance. Zero keeps nothing.
    pub keep: Duration,
    /// At most this many bytes of them, heads and bodies together; the oldest go first.
    pub bytes_max: u64,
}

/// What an engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything.
    Open,
    /// Deliver and remove, not publish: the disk is full.
    Full,
    /// Nothing more: the disk failed, or the queue was closed. Only a restart helps.
    Closed,
}

/// Why the queue did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// No room on the disk. Delivering goes on; try again later.
    #[error("the queue has no room")]
    Full,
    /// The engine is closed for good: the disk failed, or the process ends.
    #[error("the queue is closed")]
    Closed,
    /// The event's bytes are not those that were published. It is not handed out; the engine works on.
    #[error("the event is damaged on disk")]
    Damaged,
}
