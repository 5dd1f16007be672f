//! Hookward: a webhook gateway.
//!
//! It stands in front of a backend, takes the requests that Stripe, GitHub, Slack and others send, proves that each
//! is genuine, fresh and not seen before, keeps within the limits of its route, and only then hands it on. What is
//! forged, repeated or malformed ends here: one uninformative answer outside, a precise reason in metrics and log.
//!
//! Every request walks one corridor, [`gateway`]:
//!
//! ```text
//! head -> route -> admit -> body -> verify -> spend -> handshake -> replay -> dispatch -> respond
//! ```
//!
//! What holds, by construction:
//! - nothing goes upstream without an [`event::Event`], which needs a [`event::Permit`], which needs the verifier's
//!   [`signature::Proof`];
//! - forgeries touch neither a provider's budget nor the memory of events;
//! - an event is remembered as done only when the backend took it, so a provider's retry is never a replay;
//! - the upstream gets the bytes that were signed, under one `Content-Length` that we wrote;
//! - a queued event's provider is told so on the strength of a [`queue::Receipt`], which only the queue makes, about
//!   what is on disk.
//!
//! The `hookward` binary is the first user of this library. Another Pingora proxy can protect its own paths with
//! [`open`] and [`gateway::Guard::request_filter`]; see `examples/`. [`signature`] and [`providers`] are usable alone.

// What comes from outside is neither indexed nor counted unchecked. Where a place or a sum cannot leave its bounds, the
// exception says why; tests may fail as they like.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod cli;
pub mod config;
pub mod server;

pub mod gateway;
pub mod queue;

pub mod database;
pub mod event;
pub mod fetch;
pub mod providers;
pub mod signature;
pub mod store;
pub mod upstream;

pub mod clock;
pub mod http1;
mod nearest;
pub mod observe;
pub mod secret;
pub mod units;

use std::path::Path;
use std::sync::Arc;

/// The guard that a configuration file describes, for use inside another Pingora proxy. Listeners, threads and logs
/// of the file are not used: those are the proxy's own. Nor is there a sample backend. What is queued is delivered from
/// the first request on.
///
/// # Errors
/// Every problem of the file; warnings go to the `log` facade.
pub fn open(path: impl AsRef<Path>) -> Result<Arc<gateway::Guard>, Box<config::Problems>> {
    let clock = clock::Clock::system();
    let (plan, mut problems) = config::plan_file(path.as_ref(), clock.wall());
    for upstream in plan
        .iter()
        .flat_map(|plan| &plan.gateway.upstreams)
        .filter(|upstream| upstream.sample)
    {
        let path = config::KeyPath::root().key("upstreams").key(&upstream.name);
        let problem = problems.error(&path, "is the sample backend, which only `hookward run` has");
        problem.suggest("servers: [127.0.0.1:3000]");
    }
    match plan {
        Some(plan) if !problems.has_errors() => {
            problems.to_string().lines().for_each(|problem| log::warn!("{problem}"));
            plan.guard(clock, observe::AccessLog::off()).map_err(|problem| {
                problems.error(&config::KeyPath::root().key("data"), problem.to_string());
                Box::new(problems)
            })
        }
        _ => Err(Box::new(problems)),
    }
}
