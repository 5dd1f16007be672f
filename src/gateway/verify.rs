//! Proof, or the same 401 for everybody.
//!
//! The check begins with the head and sees the body's bytes as they arrive, so the MAC is ready when the last byte
//! is. A failure that is clear from the head (no signature at all) changes nothing about what is computed: a forger
//! must not learn from the time a refusal takes how far a forgery got.

use std::sync::Arc;
use std::time::Duration;

use super::Route;
use super::refusal::{Reason, Refusal};
use super::trail::Trail;
use crate::clock::{Clock, UnixMillis};
use crate::event::Permit;
use crate::fetch::Fetcher;
use crate::signature::{Check, Finished, Head};

/// A verification under way.
pub(crate) struct Verification<'a> {
    route: &'a Arc<Route>,
    check: Check<'a>,
    clock: &'a Clock,
    spent: Duration,
}

impl<'a> Verification<'a> {
    /// Begins with the head, at `now` on the wall. `clock` tells how long hashing and checking take.
    pub(crate) fn begin(route: &'a Arc<Route>, head: Head<'_>, now: UnixMillis, clock: &'a Clock) -> Self {
        Verification {
            check: route.verifier().begin(head, now),
            spent: Duration::ZERO,
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
    /// Waits for the provider's published key where the scheme wants one and everything else has passed.
    ///
    /// # Errors
    /// The verifier's reason, for the log alone; [`Reason::KeyDown`](super::Reason::KeyDown) when the key cannot be reached.
    pub(crate) async fn permit(self, body: &[u8], fetcher: &Fetcher, trail: &mut Trail) -> Result<Permit, Refusal> {
        let started = self.clock.moment();
        let finished = self.check.finish(body);
        let mut spent = self.spent.saturating_add(self.clock.moment().since(started));
        let proof = match finished {
            Ok(Finished::Proven(proof)) => Ok(proof),
            Ok(Finished::KeyWanted(wanted)) => {
                // Boxed: it is rare, and its future is large.
                let fetched = Box::pin(fetcher.fetch(wanted.source(), &self.route.fetches)).await;
                let resumed = self.clock.moment();
                let proof = fetched.map_err(Refusal::from);
                let proof = proof.and_then(|key| wanted.resume(&key, body).map_err(Refusal::from));
                spent = spent.saturating_add(self.clock.moment().since(resumed));
                proof
            }
            Err(failure) => Err(failure.into()),
        };
        trail.verify_took(spent);
        let proof = proof?;
        if self.route.provider.handshakes.could_have_lent(body) {
            // The signature may be our own, made for a stranger's challenge.
            return Err(Reason::Mismatch.into());
        }
        Ok(Permit::new(proof, &self.route.name, &self.route.provider_id))
    }
}
