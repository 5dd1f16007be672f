//! Consent to a subscription: some providers ask whether the webhook is wanted, in a signed message of their own.
//!
//! Behind the proof and the budget. Only a route that says `confirm: true` consents; on every other one the question is
//! an event like any other, for the upstream to answer. What is visited was made by the scheme out of what the route
//! has pinned, never taken from the message: a gateway that follows addresses out of messages is a proxy for whoever
//! writes them.

use super::Route;
use super::refusal::{Reason, Refusal};
use crate::event::Permit;
use crate::fetch::Fetcher;

/// Confirms what the message asks, if it asks and the route consents. Tells whether it has.
///
/// # Errors
/// [`Reason::ConfirmDown`] when the provider did not take the confirmation; it asks again.
pub(crate) async fn confirmed(route: &Route, permit: &Permit, fetcher: &Fetcher) -> Result<bool, Refusal> {
    let Some(url) = permit.proof().confirmation().filter(|_| route.confirm) else {
        return Ok(false);
    };
    // Boxed: it is rare, and its future is large.
    let visited = Box::pin(fetcher.visit(url, &route.fetches)).await;
    visited.map_err(|_| Reason::ConfirmDown)?;
    log::info!("route {}: a subscription is confirmed at {}", route.name, url.host());
    Ok(true)
}
