//! What operators ask a queue and what they are told: which deliveries, where they stand, what a change did.
//!
//! Plain values, for the admin interface and the command line; engines fill them in.

use std::sync::Arc;

use super::{Attempt, EventId, EventState, KeptEvent, Lane};
use crate::clock::UnixMillis;

/// Which deliveries are meant; the empty filter means all. Conditions are joined by "and", states by "or".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This event alone.
    pub id: Option<EventId>,
    /// Of this route.
    pub route: Option<Arc<str>>,
    /// To this destination.
    pub destination: Option<Arc<str>>,
    /// In any of these states; empty means in any.
    pub states: Vec<EventState>,
    /// Accepted at or after.
    pub since: Option<UnixMillis>,
    /// Accepted before.
    pub until: Option<UnixMillis>,
    /// Of this event type; `invoice.*` means all that start with `invoice.`.
    pub event_type: Option<Arc<str>>,
    /// With this event id of the provider.
    pub event_id: Option<Arc<str>>,
}

/// A place in a listing: continue behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last event seen.
    pub id: EventId,
    /// And its lane.
    pub lane: Lane,
}

/// Some deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order asked for.
    pub deliveries: Vec<Delivery>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// One event on its way to one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub id: EventId,
    /// Where it goes.
    pub lane: Lane,
    /// Where it stands.
    pub state: EventState,
    /// Attempts made.
    pub attempts: u32,
    /// When the event was accepted.
    pub accepted_at: UnixMillis,
    /// When the next attempt is due, for a waiting one.
    pub next_at: Option<UnixMillis>,
    /// When it ended, for an ended one.
    pub ended_at: Option<UnixMillis>,
    /// The provider's event id, if the event has a signed one.
    pub event_id: Option<String>,
    /// The event's type, if the provider tells it.
    pub event_type: Option<String>,
    /// Length of the body in bytes.
    pub body_bytes: u64,
}

/// One event with all that is known of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The event.
    pub event: Arc<KeptEvent>,
    /// Its deliveries, by lane, each with its attempts in order. Of very many attempts the oldest may be gone.
    pub deliveries: Vec<(Delivery, Vec<Attempt>)>,
}

/// What an operator does to deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Dead, cancelled and delivered ones are due again, the schedule beginning anew (attempt numbers go on); waiting
    /// ones are due now.
    Retry,
    /// Open ones end as cancelled.
    Cancel,
    /// Ended ones are removed, and with the last of them the event.
    Purge,
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Deliveries changed.
    pub changed: u64,
    /// Deliveries that matched and were left as they are, since they are out for an attempt.
    pub skipped: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// How many deliveries of a lane are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The lane.
    pub lane: Lane,
    /// The state.
    pub state: EventState,
    /// How many.
    pub deliveries: u64,
    /// When the oldest of them was accepted; told for the open states and the dead, `None` for the others.
    pub oldest: Option<UnixMillis>,
}
