//! What a user types about queued delivery: where events lie, where they go, how often they are tried.
//!
//! Part of [`File`](super::File); the same rules hold. The defaults are those of a backend that is down for a night and
//! comes back.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{SecretFile, count, seconds};
use crate::config::value::{Count, Name, Rate, Size, Span};

/// `data`: where events and the memory of repeats lie on disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// A directory of the gateway's own.
    pub dir: PathBuf,
    /// The most bytes of the file in it; absent: as many as the disk has.
    pub bytes: Option<Size>,
    /// What is kept of events that have ended.
    #[serde(default)]
    pub history: HistoryFile,
}

/// `data.history`: what is kept of events that were delivered or cancelled. Dead letters stay.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryFile {
    /// Since their acceptance.
    pub keep: Span,
    /// Heads and bodies together; the oldest go first.
    pub bytes: Size,
}

/// `api`: who may use the operators' HTTP API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiFile {
    /// What a caller sends as its bearer token; any of them.
    pub secrets: Vec<SecretFile>,
}

/// `upstreams.<name>.delivery`: how queued events reach an upstream.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryFile {
    /// Attempts under way at a time.
    pub concurrency: Count,
    /// Attempts in a time; absent: as fast as they are answered.
    pub rate: Option<Rate>,
    /// Attempts that may come at once under `rate`.
    pub burst: Count,
    /// Failures in a row after which the upstream is left alone.
    pub breaker_failures: Count,
    /// For how long.
    pub breaker_pause: Span,
}

/// `routes[].deliver`: what happens to a proven event.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// It is sent on while the provider waits, who gets the upstream's own answer.
    #[default]
    Forward,
    /// The provider is answered as soon as it is on disk.
    Queue,
}

/// `routes[].destinations[]`: one of several places to which a queued event goes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationFile {
    /// What logs, metrics and operators call it; absent: the upstream's name.
    pub name: Option<Name>,
    /// One of `upstreams`.
    pub upstream: String,
    /// The types of events it wants; none: every event.
    #[serde(default)]
    pub types: Vec<String>,
    /// The path the upstream sees; absent: the route's.
    pub forward_path: Option<String>,
}

/// `routes[].retry`: how a queued event is tried again.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryFile {
    /// The longest pause after each failed attempt; the attempt after the last one is the last.
    pub schedule: Vec<Span>,
    /// Takes the place of `schedule`.
    pub exponential: Option<ExponentialFile>,
    /// An event older than this is not tried any more.
    pub max_age: Span,
    /// The most that a `Retry-After` may add to a pause.
    pub retry_after: Span,
    /// Statuses after which an event is given up at once, besides 410.
    pub final_statuses: Vec<Count>,
}

/// `routes[].retry.exponential`: pauses by a formula.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExponentialFile {
    /// The longest pause after the first failed attempt.
    pub base: Span,
    /// How many times as long the next one is.
    pub factor: Count,
    /// No pause is longer.
    pub cap: Span,
    /// All attempts, the first one included.
    pub attempts: Count,
}

/// `routes[].resign`: a signature of the gateway's own for the upstream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResignFile {
    /// What signs: `whsec_` and base64; each of them signs every event.
    pub secrets: Vec<SecretFile>,
}

impl Default for HistoryFile {
    fn default() -> Self {
        HistoryFile {
            keep: seconds(7 * DAY_SECONDS),
            bytes: Size(1024 * 1024 * 1024),
        }
    }
}

impl Default for DeliveryFile {
    fn default() -> Self {
        DeliveryFile {
            concurrency: count(16),
            rate: None,
            burst: Count(NonZeroU32::MIN),
            breaker_failures: count(5),
            breaker_pause: seconds(10),
        }
    }
}

impl Default for RetryFile {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let pauses = [
            5,
            30,
            2 * MINUTE,
            10 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
        ];
        RetryFile {
            schedule: pauses.map(|pause| Span(Duration::from_secs(pause))).into(),
            exponential: None,
            max_age: seconds(3 * DAY_SECONDS),
            retry_after: seconds(HOUR),
            final_statuses: Vec::new(),
        }
    }
}

const DAY_SECONDS: u64 = 24 * 60 * 60;
