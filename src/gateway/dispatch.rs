//! The event leaves: it is forwarded, and the upstream's answer decides what becomes of the claim on it.

use super::refusal::{Reason, Refusal};
use super::replay::Hold;
use super::trail::Trail;
use super::{Route, Shared};
use crate::event::Event;
use crate::upstream::{Answer, Request, SendError, Tries};

/// Sends `event` to the route's upstream and returns the head of the answer. The claim is settled or released by
/// then: once the upstream has said yes, a client that disconnects while the answer streams changes nothing.
///
/// # Errors
/// [`Reason::UpstreamDown`], [`Reason::UpstreamTimeout`], or [`Reason::Draining`] when the process ends first.
pub(crate) async fn forward(
    shared: &Shared,
    route: &Route,
    event: Event<'_>,
    hold: Hold,
    trail: &mut Trail,
) -> Result<Answer, Refusal> {
    let request = Request::new(&event, 1, route.upstream.host());
    drop(event);
    let started = shared.clock.moment();
    let mut tries = Tries::default();
    // The end of the drain is noticed here, too, and not only by whoever walks the corridor: the claim has to end with
    // an answer, or a copy that waits takes it for abandoned and is sent as well.
    let sent = tokio::select! {
        biased;
        sent = route.upstream.send(&request, started, &mut tries) => sent.map_err(|problem| refused(route, &problem)),
        () = shared.drain_over.notified() => Err(Reason::Draining),
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

fn refused(route: &Route, problem: &SendError) -> Reason {
    log::warn!("route {}: upstream {}: {problem}", route.name, route.upstream.name());
    match problem {
        SendError::Unreachable | SendError::Broken(_) | SendError::BadAnswer(_) => Reason::UpstreamDown,
        SendError::Timeout => Reason::UpstreamTimeout,
    }
}
