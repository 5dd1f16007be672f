//! The route's budget of verified events.
//!
//! Taken after proof and nowhere else. A limit that is counted before proof is a weapon: whoever can send forgeries
//! spends the provider's budget and has the provider's own events refused.

use super::Route;
use super::refusal::{Reason, Refusal};

impl Route {
    /// Takes one event from the budget.
    ///
    /// # Errors
    /// [`Reason::RouteRate`] with the time after which there is one again.
    pub(crate) fn spend(&self) -> Result<(), Refusal> {
        self.budget
            .take()
            .map_err(|wait| Refusal::until(Reason::RouteRate, wait))
    }
}
