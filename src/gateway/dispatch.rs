//! The event leaves: it is forwarded, or put into the queue, and what comes of that decides about the claim on it.
//!
//! Forwarded, the upstream's answer is the provider's. Queued, the provider is told "taken" on the strength of a
//! [`Receipt`], which the queue gives only for what is on disk; event and claim get there together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::refusal::{Reason, Refusal};
use super::replay::Hold;
use super::rules::{Forward, QUEUED_STATUS, Queued};
use super::trail::Trail;
use super::{Route, Shared};
use crate::event::Event;
use crate::queue::{NewEvent, QueueError, Receipt};
use crate::upstream::{Answer, Request, SendError, Tries};

/// When a provider may come again whose event the queue could not take.
const QUEUE_RETRY: Duration = Duration::from_secs(5);

/// Longest value of the member that orders events; events with a longer one are not ordered.
const ORDER_BYTES_MAX: usize = 512;

/// Sends `event` to the route's upstream and returns the head of the answer. The claim is settled or released by
/// then: once the upstream has said yes, a client that disconnects while the answer streams changes nothing.
///
/// # Errors
/// [`Reason::UpstreamDown`], [`Reason::UpstreamTimeout`], or [`Reason::Draining`] when the process ends first.
pub(crate) async fn forward(
    shared: &Shared,
    route: &Route,
    way: &Forward,
    event: Event<'_>,
    hold: Hold,
    trail: &mut Trail,
) -> Result<Answer, Refusal> {
    let resigned = route.resign.as_ref().map(|resign| {
        let digests = event.permit().proof().digests();
        let unnamed = || digests.first().map_or(&[][..], |digest| digest.as_slice());
        let name = event.facts().event_id.as_deref().map_or_else(unnamed, str::as_bytes);
        resign.sign(&route.name, name, shared.clock.wall(), event.body())
    });
    let host = way.upstream.host(event.received().host);
    let request = Request::new(&event, 1, host.as_deref(), resigned.as_ref());
    drop(event);
    let started = shared.clock.moment();
    let mut tries = Tries::default();
    // The end of the drain is noticed here, too, and not only by whoever walks the corridor: the claim has to end with
    // an answer, or a copy that waits takes it for abandoned and is sent as well.
    let sent = tokio::select! {
        biased;
        sent = way.upstream.send(&request, started, &mut tries) => sent.map_err(|problem| refused(route, way, &problem)),
        () = shared.drain_over() => Err(Reason::Draining),
    };
    trail.tried(tries);
    trail.upstream_took(shared.clock.moment().since(started));
    match sent {
        Ok(answer) => {
            hold.end(answer.status().as_u16()).await;
            Ok(answer)
        }
        Err(reason) => {
            hold.end(reason.row().status).await;
            Err(reason.into())
        }
    }
}

/// Puts `event` into the queue, for every destination that wants it.
///
/// # Errors
/// [`Reason::QueueDown`] when it has no room or its disk failed; the claim is released then.
pub(crate) async fn enqueue(
    shared: &Shared,
    route: &Route,
    way: &Queued,
    event: Event<'_>,
    hold: Hold,
) -> Result<Receipt, Refusal> {
    let Some(worker) = &shared.worker else {
        // A configuration without problems has no route that queues without a queue.
        log::error!("route {}: there is no queue", route.name);
        return Err(Refusal::until(Reason::QueueDown, QUEUE_RETRY));
    };
    let event_type = event.facts().event_type.as_deref();
    let wanting = way.destinations.iter().filter(|(_, types)| types.wants(event_type));
    let destinations = wanting.map(|(name, _)| Arc::clone(name)).collect();
    let order_key = way
        .order_by
        .as_ref()
        .and_then(|path| path.text_in(event.body(), ORDER_BYTES_MAX));
    let event = NewEvent::new(&event, shared.clock.steady(), destinations, order_key.map(Bytes::from));
    match worker.queue().publish(event, hold.into_queue(QUEUED_STATUS)).await {
        Ok(receipt) => {
            if !receipt.remembered() && route.is_guarded() {
                log::error!(
                    "route {}: event {} is queued but not remembered; a repeat may be queued again",
                    route.name,
                    receipt.id()
                );
            }
            Ok(receipt)
        }
        Err(problem) => {
            log::error!("route {}: {problem}", route.name);
            let again = match problem {
                QueueError::Full => QUEUE_RETRY,
                QueueError::Closed | QueueError::Damaged => QUEUE_RETRY.saturating_mul(6),
            };
            Err(Refusal::until(Reason::QueueDown, again))
        }
    }
}

fn refused(route: &Route, way: &Forward, problem: &SendError) -> Reason {
    log::warn!("route {}: upstream {}: {problem}", route.name, way.upstream.name());
    match problem {
        SendError::Unreachable | SendError::Broken(_) | SendError::BadAnswer(_) => Reason::UpstreamDown,
        SendError::Timeout => Reason::UpstreamTimeout,
    }
}
