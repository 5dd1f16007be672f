//! Whether the event was seen before, and the hold on it while it is dispatched.
//!
//! Comes after verification, so a forgery neither reads nor writes the store. A repeat of an event that was taken
//! is answered as the first was; a repeat of one that is on its way waits for the outcome and shares it; a repeat of
//! one that failed is the provider's retry and goes through. The key is the provider's signed event id where there
//! is one, since a retry is stamped and signed afresh; else the digests of the signed bytes.

use std::sync::Arc;
use std::time::Duration;

use super::Route;
use super::refusal::{Reason, Refusal};
use crate::clock::Clock;
use crate::event::Permit;
use crate::observe::metrics::Replay;
use crate::providers::Facts;
use crate::queue;
use crate::store::{Claim, Claimed, Outcome, ReplayKey, ReplayKeys, ReplayStore, Settled, StoreError};

/// Remembered for this much longer than asked. Whether a repeat is fresh is judged by wall time, in whole milliseconds
/// and with both edges inside; what is remembered is measured in monotonic time. Where `keep` is exactly twice the
/// tolerance, a request signed ahead of our clock would otherwise be forgotten in its last fresh millisecond.
const KEEP_MARGIN: Duration = Duration::from_secs(1);

/// How repeats are met on one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayPolicy {
    /// Repeats are recognised.
    Guard {
        /// How long an event that was taken is remembered.
        keep: Duration,
        /// How long a repeat waits for the first copy's outcome.
        wait: Duration,
    },
    /// Every copy is dispatched.
    Off,
}

/// What the replay guard says about an event.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is this request's to dispatch.
    Ours(Hold),
    /// It was dispatched by another; this is the status to repeat.
    Repeat(u16),
}

/// The hold on an event that is being dispatched; dropped, the event is free again.
#[derive(Debug)]
pub(crate) enum Hold {
    Claimed { claim: Claim, keep: Duration },
    Unguarded,
}

impl Hold {
    /// The hold in the terms of the queue, which settles it with the event's publication.
    pub(crate) fn into_queue(self, status: u16) -> Option<queue::Hold> {
        let Hold::Claimed { claim, keep } = self else {
            return None;
        };
        let keep = keep.saturating_add(KEEP_MARGIN);
        Some(queue::Hold { claim, status, keep })
    }

    /// Ends the hold with the upstream's answer: 2xx is remembered, anything else frees the event for a retry.
    pub(crate) async fn end(self, status: u16) {
        let Hold::Claimed { claim, keep } = self else { return };
        if !(200..300).contains(&status) {
            return claim.release(Some(status));
        }
        match claim.settle(status, keep.saturating_add(KEEP_MARGIN)).await {
            Ok(Settled::Recorded) => {}
            Ok(Settled::Overtaken) => log::error!("an event was delivered twice: its dispatch outlived its claim"),
            Err(problem) => {
                log::error!("an event was delivered but is not remembered: {problem}; a repeat may be delivered again");
            }
        }
    }
}

/// Claims the event that `permit` proves, for the time a dispatch may take.
///
/// # Errors
/// [`Reason::InFlight`] when the first copy's outcome is not known in time, [`Reason::StoreDown`] when the store
/// cannot answer: an event that may be a repeat is not dispatched.
pub(crate) async fn claim(
    store: &Arc<dyn ReplayStore>,
    clock: &Clock,
    route: &Route,
    permit: &Permit,
    facts: &Facts,
) -> Result<Verdict, Refusal> {
    let ReplayPolicy::Guard { keep, wait } = route.replay else {
        return Ok(Verdict::Ours(Hold::Unguarded));
    };
    let keys = keys(route, permit, facts)?;
    let mut waits_since = None;
    loop {
        let waiter = match Arc::clone(store).claim(&keys, route.lease).await.map_err(down)? {
            Claimed::New(claim) => return Ok(Verdict::Ours(Hold::Claimed { claim, keep })),
            Claimed::Done { status } => {
                route.metrics.replayed(Replay::Done);
                return Ok(Verdict::Repeat(status));
            }
            Claimed::InFlight(waiter) => waiter,
        };
        let now = clock.moment();
        let left = wait.saturating_sub(now.since(*waits_since.get_or_insert(now)));
        match tokio::time::timeout(left, waiter.outcome()).await {
            Ok(Outcome::Settled(status) | Outcome::Released(Some(status))) => {
                route.metrics.replayed(Replay::Shared);
                return Ok(Verdict::Repeat(status));
            }
            // The first copy's sender went away before there was an answer: this copy may try.
            Ok(Outcome::Released(None)) if !left.is_zero() => continue,
            Ok(Outcome::Released(None)) | Err(_) => {
                route.metrics.replayed(Replay::InFlightTimeout);
                return Err(Refusal::until(Reason::InFlight, Duration::from_secs(1)));
            }
        }
    }
}

fn keys(route: &Route, permit: &Permit, facts: &Facts) -> Result<ReplayKeys, Refusal> {
    if let Some(id) = &facts.event_id {
        return Ok(ReplayKey::of_event(&route.name, id).into());
    }
    let digests = permit.proof().digests();
    let keys = digests.iter().map(|digest| ReplayKey::of_digest(&route.name, digest));
    ReplayKeys::new(keys).map_err(|problem| {
        log::error!("route {}: {problem}", route.name);
        Reason::StoreDown.into()
    })
}

fn down(problem: StoreError) -> Refusal {
    log::error!("replay store: {problem}");
    Refusal::until(Reason::StoreDown, Duration::from_secs(5))
}
