//! Proof, or the same 401 for everybody.
//!
//! The check begins with the head and sees the body's bytes as they arrive, so the MAC is ready when the last byte
//! is. A failure that is clear from the head (no signature at all) changes nothing about what is computed: a forger
//! must not learn from the time a refusal takes how far a forgery got.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::Route;
use super::refusal::Refusal;
use super::trail::Trail;
use crate::clock::Clock;
use crate::event::Permit;
use crate::signature::Check;

/// A verification under way.
pub(crate) struct Verification<'a> {
    route: &'a Arc<Route>,
    check: Check<'a>,
    clock: &'a Clock,
    spent: Duration,
}

impl<'a> Verification<'a> {
    /// Begins with the headers; the clock is read once, here.
    pub(crate) fn begin(route: &'a Arc<Route>, headers: &HeaderMap, clock: &'a Clock) -> Self {
        let started = clock.moment();
        Verification {
            check: route.verifier.begin(headers, clock.wall()),
            spent: clock.moment().since(started),
            route,
            clock,
        }
    }

    /// The next bytes of the body.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        let started = self.clock.moment();
        self.check.update(piece);
        self.spent = self.spent.saturating_add(self.clock.moment().since(started));
    }

    /// Ends the verification: the only place where a permit comes from. `body` is all that [`update`](Self::update) saw.
    ///
    /// # Errors
    /// The verifier's reason, for the log alone.
    pub(crate) fn permit(self, body: &[u8], trail: &mut Trail) -> Result<Permit, Refusal> {
        let started = self.clock.moment();
        let proof = self.check.finish(body);
        trail.verify_took(self.spent.saturating_add(self.clock.moment().since(started)));
        Ok(Permit::new(proof?, &self.route.name, &self.route.provider_id))
    }
}
