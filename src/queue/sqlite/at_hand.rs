//! Events that are still in memory after their publication, so that the first attempt of each does not read back,
//! check and parse what was just written.
//!
//! For events that are among the next of their lanes: behind a backlog memory that is touched once and again much later
//! costs more than reading. Bounded in bytes and in events, the oldest go first, and are read from the disk like everything
//! after a start. Nothing here is a promise: an event is put here after it is durable, and may be missing at
//! any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::queue::KeptEvent;

/// Heads and bodies that are kept at most, in bytes.
const BYTES_MAX: u64 = 8 << 20;

/// Events that are kept at most: small ones cost more than their bytes.
const EVENTS_MAX: usize = 1024;

/// Deliveries that may wait before one in its lane.
pub(super) const BACKLOG_MAX: u64 = 64;

/// An event that is on disk, and here.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) event: Arc<KeptEvent>,
    pub(super) accepted_at: UnixMillis,
    /// What one delivery of it counts for in the history, in bytes.
    pub(super) share: u64,
}

struct Entry {
    known: Known,
    bytes: u64,
    /// Lanes that have not asked for it yet.
    lanes: usize,
}

/// What is in memory, by id and so by age.
#[derive(Default)]
pub(super) struct AtHand {
    entries: BTreeMap<u64, Entry>,
    bytes: u64,
}

impl AtHand {
    /// Keeps an event of `bytes` until each of `lanes` has asked for it, or longer ones need the room.
    pub(super) fn keep(&mut self, id: u64, known: Known, bytes: u64, lanes: usize) {
        if lanes == 0 || bytes > BYTES_MAX {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.insert(id, Entry { known, bytes, lanes });
        while self.bytes > BYTES_MAX || self.entries.len() > EVENTS_MAX {
            let Some((_, oldest)) = self.entries.pop_first() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
        }
    }

    /// The event, once for each of its lanes.
    pub(super) fn ask(&mut self, id: u64) -> Option<Known> {
        let entry = self.entries.get_mut(&id)?;
        entry.lanes = entry.lanes.saturating_sub(1);
        if entry.lanes > 0 {
            return Some(entry.known.clone());
        }
        let entry = self.entries.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::NewEvent;

    fn known() -> Known {
        let new = NewEvent::sample("github", &["app"], "body", UnixMillis(7));
        Known {
            event: new.event,
            accepted_at: new.accepted_at,
            share: 4,
        }
    }

    #[test]
    fn each_lane_asks_once() {
        // A lane whose backend is down would keep every event that its neighbours have had in memory.
        let mut at_hand = AtHand::default();
        at_hand.keep(1, known(), 100, 2);
        assert!(at_hand.ask(1).is_some());
        assert!(at_hand.ask(1).is_some());
        assert!(at_hand.ask(1).is_none());
        assert_eq!((at_hand.bytes, at_hand.entries.len()), (0, 0));
        at_hand.keep(2, known(), 100, 0);
        assert!(at_hand.ask(2).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go() {
        // A backend that is down for an hour, and the gateway ends for want of memory.
        let mut at_hand = AtHand::default();
        for id in 0..2 * EVENTS_MAX as u64 {
            at_hand.keep(id, known(), 1, 1);
        }
        assert_eq!(at_hand.entries.len(), EVENTS_MAX);
        assert!(at_hand.ask(EVENTS_MAX as u64 - 1).is_none());
        assert!(at_hand.ask(EVENTS_MAX as u64).is_some());
        for id in 0..64 {
            at_hand.keep(id + 100_000, known(), 1 << 20, 1);
            assert!(at_hand.bytes <= BYTES_MAX);
        }
        assert_eq!(at_hand.entries.len(), 8);
        at_hand.keep(200_000, known(), BYTES_MAX + 1, 1);
        assert!(at_hand.ask(200_000).is_none());
        assert_eq!(at_hand.entries.len(), 8);
    }
}
