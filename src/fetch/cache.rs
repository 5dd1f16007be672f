//! What the fetcher remembers, and for how long.
//!
//! Good keys are kept for their lifetime and, while their place cannot be reached, for a while beyond it: an outage
//! of a provider's key server must not become one of its webhooks. Failures are kept briefly, so that a forged address
//! is asked for once and not once per forgery. Room is bounded; forgeries can only make failures, and failures go
//! before keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{FetchError, Outcome};
use crate::clock::Moment;
use crate::signature::{FetchedKey, KeySource, PinnedUrl};

/// Addresses remembered at the same time, those under way included.
pub(super) const ENTRIES_MAX: usize = 256;

/// How long a key is used without asking again.
pub(super) const FRESH: Duration = Duration::from_secs(60 * 60);

/// How long a key is used at most while its place cannot be reached.
pub(super) const USABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long nothing there, or nothing of use, is believed.
pub(super) const ABSENT: Duration = Duration::from_secs(60);

/// How long a place is left alone that could not be reached.
pub(super) const UNREACHABLE: Duration = Duration::from_secs(5);

/// How long a key set that lacks a key is believed to lack it.
pub(super) const LACKING: Duration = Duration::from_secs(60);

/// Everything remembered, by address.
#[derive(Default)]
pub(super) struct Cache(HashMap<PinnedUrl, Entry>);

struct Entry {
    known: Option<Known>,
    /// The exchange under way.
    landing: Option<watch::Receiver<Option<Outcome>>>,
}

struct Known {
    outcome: Outcome,
    landed: Moment,
    fresh_until: Moment,
    usable_until: Moment,
    /// The last attempt to refresh it failed; there is no other one before this.
    left_alone_until: Option<Moment>,
}

/// What the cache says about a key.
pub(super) enum Look {
    /// No exchange is needed.
    Known(Outcome),
    /// An exchange is under way; this tells its outcome.
    UnderWay(watch::Receiver<Option<Outcome>>),
    /// An exchange is needed.
    Unknown {
        /// Whether this address has given a key before: asking it again is no forger's choice.
        proven: bool,
    },
}

impl Known {
    fn new(outcome: Outcome, now: Moment) -> Known {
        let (fresh, usable) = match outcome {
            Ok(_) => (FRESH, USABLE),
            Err(FetchError::Absent | FetchError::Refused) => (ABSENT, ABSENT),
            Err(FetchError::Unreachable) => (UNREACHABLE, UNREACHABLE),
        };
        Known {
            outcome,
            landed: now,
            fresh_until: now.plus(fresh),
            usable_until: now.plus(usable),
            left_alone_until: None,
        }
    }

    fn usable(&self, now: Moment) -> Option<&Arc<FetchedKey>> {
        self.outcome.as_ref().ok().filter(|_| now < self.usable_until)
    }

    /// What can be said without an exchange.
    fn says(&self, source: &KeySource, now: Moment) -> Option<Outcome> {
        let lacks = self.outcome.as_ref().is_ok_and(|key| !key.offers(source));
        if now < self.fresh_until && !lacks {
            return Some(self.outcome.clone());
        }
        // Keys are added to sets; but a forger must not have it looked up each time.
        if lacks && now.since(self.landed) < LACKING {
            return Some(Err(FetchError::Absent));
        }
        let left_alone = self.left_alone_until.is_some_and(|until| now < until);
        let stale = || self.usable(now).filter(|_| !lacks).cloned();
        left_alone.then(|| stale().ok_or(FetchError::Unreachable))
    }
}

impl Cache {
    pub(super) fn look(&self, source: &KeySource, now: Moment) -> Look {
        let Some(entry) = self.0.get(source.url()) else {
            return Look::Unknown { proven: false };
        };
        if let Some(outcome) = entry.known.as_ref().and_then(|known| known.says(source, now)) {
            return Look::Known(outcome);
        }
        match &entry.landing {
            Some(landing) => Look::UnderWay(landing.clone()),
            None => Look::Unknown {
                proven: entry.known.as_ref().is_some_and(|known| known.outcome.is_ok()),
            },
        }
    }

    /// A key beyond its time that is still good enough when there is no other.
    pub(super) fn stale(&self, source: &KeySource, now: Moment) -> Option<Arc<FetchedKey>> {
        let known = self.0.get(source.url())?.known.as_ref()?;
        known.usable(now).filter(|key| key.offers(source)).cloned()
    }

    /// Makes room for an exchange and notes that it is under way; `None` when everything is under way or a good key.
    #[allow(clippy::type_complexity, reason = "a channel, both ends")]
    pub(super) fn start(
        &mut self,
        source: &KeySource,
        now: Moment,
    ) -> Option<(watch::Sender<Option<Outcome>>, watch::Receiver<Option<Outcome>>)> {
        if !self.0.contains_key(source.url()) && self.0.len() >= ENTRIES_MAX {
            self.make_room(now);
        }
        if !self.0.contains_key(source.url()) && self.0.len() >= ENTRIES_MAX {
            return None;
        }
        let (sender, landing) = watch::channel(None);
        let entry = self.0.entry(source.url().clone()).or_insert(Entry {
            known: None,
            landing: None,
        });
        entry.landing = Some(landing.clone());
        Some((sender, landing))
    }

    /// Remembers how an exchange ended. A key that is still usable outlives an outage.
    pub(super) fn land(&mut self, source: &KeySource, outcome: Outcome, now: Moment) {
        let entry = self.0.entry(source.url().clone()).or_insert(Entry {
            known: None,
            landing: None,
        });
        entry.landing = None;
        let kept = entry.known.as_mut().filter(|known| known.usable(now).is_some());
        match (&outcome, kept) {
            (Err(FetchError::Unreachable), Some(known)) => known.left_alone_until = Some(now.plus(UNREACHABLE)),
            _ => entry.known = Some(Known::new(outcome, now)),
        }
    }

    /// Drops what is of no use any more and, if that is nothing, the failure that is remembered longest.
    fn make_room(&mut self, now: Moment) {
        self.0.retain(|_, entry| {
            let known = entry.known.as_ref();
            entry.landing.is_some() || known.is_some_and(|known| now < known.usable_until)
        });
        if self.0.len() < ENTRIES_MAX {
            return;
        }
        let failed =
            |entry: &Entry| entry.landing.is_none() && entry.known.as_ref().is_some_and(|k| k.outcome.is_err());
        let landed = |entry: &Entry| entry.known.as_ref().map(|known| known.landed);
        let failures = self.0.iter().filter(|(_, entry)| failed(entry));
        let oldest = failures
            .min_by_key(|(_, entry)| landed(entry))
            .map(|(url, _)| url.clone());
        if let Some(url) = oldest {
            self.0.remove(&url);
        }
    }
}
