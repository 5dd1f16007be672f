//! Delivering what is queued: who goes where, how often, how fast, and when no more.
//!
//! ```text
//! Worker          one a process: keeps the couriers in step with the configuration
//!   Courier       one a lane: takes a turn, leases what is due, ends every lease with its word
//!     Line        one an upstream: turns in the order of asking; pace, breaker, places
//!     attempt     one request, one answer, and what the retry policy makes of it
//! ```
//!
//! Everything that decides (backoff, breaker, pace, filter) is a pure room with its time and chance as arguments. What
//! shaped this room: a backend that comes back from an outage and is broken again by everything that waited for it.

mod attempt;
mod backoff;
mod breaker;
mod courier;
mod line;
mod pace;
mod retry_after;
mod types;
mod worker;

pub use attempt::Destination;
pub use backoff::{DeadReason, Delays, RetryPolicy};
pub use breaker::{BreakerSettings, BreakerState};
pub use line::{Line, LineSettings};
pub use pace::PaceSettings;
pub use types::TypeFilter;
pub use worker::Worker;
