//! One attempt to deliver one event: the request, the answer, and what becomes of the event.
//!
//! Called by a courier that holds a turn and a lease. The request is the one that forwarding would send, written by the
//! same hand, with the attempt's number, the same event id as ever, and a fresh signature of ours where the route is
//! configured with one. A 2xx is a delivery; everything else is weighed by the destination's retry policy. What a
//! failure says about the upstream is told apart from what it says about the event: see [`Wellness`].

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::backoff::{Chance, DeadReason, Failed, Next, RetryPolicy};
use super::line::{Line, Wellness};
use super::retry_after::retry_after;
use crate::clock::{Clock, UnixMillis};
use crate::observe::metrics::{Delivered, DeliveryMetrics};
use crate::queue::{Attempt, End, KeptEvent, Lane, Leased};
use crate::upstream::{Answer, Parts, Request, Resign, Resigned, SendError, Tries, Upstream};

/// More of an answer's body than this is not read for the sake of its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where the events of one lane go, and how; made from the configuration.
pub struct Destination {
    /// The lane it empties.
    pub lane: Lane,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// What it shares with other lanes to the same upstream.
    pub line: Arc<Line>,
    /// The path the upstream sees; `None`: the one received.
    pub forward_path: Option<String>,
    /// What becomes of failures.
    pub retry: RetryPolicy,
    /// Signs each attempt.
    pub resign: Option<Resign>,
    /// Its counters.
    pub metrics: Arc<DeliveryMetrics>,
}

/// How an attempt ended, for the queue and for the line.
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) wellness: Wellness,
    /// What the upstream asked for.
    pub(super) rest: Option<Duration>,
}

impl Outcome {
    /// An attempt that began at `at` and was not waited for to its end. It may have been heard, so it counts; the event
    /// is due at once.
    pub(super) fn cut_off(at: UnixMillis, took: Duration) -> Self {
        let attempt = Attempt {
            at,
            took,
            status: None,
            error: "cut off by the end of the process".to_owned(),
        };
        Outcome {
            end: End::Retry(attempt, at),
            wellness: Wellness::Unknown,
            rest: None,
        }
    }
}

/// What came back.
struct Heard {
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    error: String,
    wellness: Wellness,
}

impl Destination {
    /// Tries to deliver `leased`, once.
    pub(super) async fn attempt(&self, leased: &Leased, clock: &Clock, chance: &Chance) -> Outcome {
        let (at, started) = (clock.steady(), clock.moment());
        let age = Duration::from_millis(at.0.saturating_sub(leased.accepted_at.0));
        // What an operator asked for again is bounded by its attempts alone, however old it is.
        let counts = leased.tries == leased.attempt;
        if counts && self.retry.is_too_old(age) {
            return self.never_sent(at);
        }
        let request = self.request(leased, clock.wall());
        let sent = self.upstream.send(&request, started, &mut Tries::default()).await;
        let heard = hear(sent, clock.wall()).await;
        let attempt = Attempt {
            at,
            took: clock.moment().since(started),
            status: heard.status.map(|status| status.as_u16()),
            error: heard.error,
        };
        let rest = heard.retry_after.map(|asked| asked.min(self.retry.retry_after_max));
        let end = match heard.status.filter(|status| status.is_success()) {
            Some(_) => self.delivered(attempt, age),
            None => {
                let failed = Failed {
                    attempt: leased.tries,
                    status: attempt.status,
                    retry_after: heard.retry_after,
                    age: match counts {
                        true => age.saturating_add(attempt.took),
                        false => Duration::ZERO,
                    },
                };
                self.failed(attempt, failed, clock, chance)
            }
        };
        Outcome {
            end,
            wellness: heard.wellness,
            rest,
        }
    }

    fn delivered(&self, attempt: Attempt, age: Duration) -> End {
        self.metrics.attempted(Delivered::Yes, attempt.took);
        self.metrics.arrived(age.saturating_add(attempt.took));
        End::Ack(attempt)
    }

    fn failed(&self, mut attempt: Attempt, failed: Failed, clock: &Clock, chance: &Chance) -> End {
        match self.retry.next(failed, chance.next()) {
            Next::Again(delay) => {
                self.metrics.attempted(Delivered::Later, attempt.took);
                let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                let next_at = UnixMillis(clock.steady().0.saturating_add(delay_ms));
                End::Retry(attempt, next_at)
            }
            Next::Dead(reason) => {
                self.metrics.attempted(Delivered::Never, attempt.took);
                attempt.error = match attempt.error.as_str() {
                    "" => reason.to_string(),
                    error => format!("{reason}; {error}"),
                };
                End::Bury(attempt)
            }
        }
    }

    /// Too old before this attempt began.
    fn never_sent(&self, at: UnixMillis) -> Outcome {
        self.metrics.attempted(Delivered::Never, Duration::ZERO);
        Outcome {
            end: End::Bury(Attempt {
                at,
                took: Duration::ZERO,
                status: None,
                error: DeadReason::TooOld.to_string(),
            }),
            wellness: Wellness::Unknown,
            rest: None,
        }
    }

    fn request(&self, leased: &Leased, now: UnixMillis) -> Request {
        let event = &leased.event;
        // The same for every attempt: an event without a signed id is known by its number in the queue.
        let event_id = match &event.event_id {
            Some(id) => id.clone(),
            None => format!("queue-{}", leased.lease.id()),
        };
        let target = self.target(event);
        let parts = Parts {
            method: &event.method,
            target: &target,
            headers: &event.headers,
            host: event.host.as_deref(),
            sender: event.sender,
            route: &event.route,
            provider: &event.provider,
            strength: event.strength,
            event_id: Some(&event_id),
            event_type: event.event_type.as_deref(),
            body: &event.body,
        };
        let sign = |resign: &Resign| -> Resigned { resign.sign(&event.route, event_id.as_bytes(), now, &event.body) };
        let resigned = self.resign.as_ref().map(sign);
        let host = self.upstream.host(parts.host);
        Request::of(&parts, leased.attempt, host.as_deref(), resigned.as_ref())
    }

    fn target(&self, event: &KeptEvent) -> String {
        match (&self.forward_path, event.target.split_once('?')) {
            (None, _) => event.target.clone(),
            (Some(path), None) => path.clone(),
            (Some(path), Some((_, query))) => format!("{path}?{query}"),
        }
    }
}

/// Reads an answer to its end, so that its connection can be used again; its status counts even when the end is
/// missing, since the upstream has said its word.
async fn hear(sent: Result<Answer, SendError>, now: UnixMillis) -> Heard {
    let mut answer = match sent {
        Ok(answer) => answer,
        Err(problem) => {
            return Heard {
                status: None,
                retry_after: None,
                error: problem.to_string(),
                wellness: Wellness::Unwell,
            };
        }
    };
    let status = answer.status();
    let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let asked = answer.head().only("retry-after").filter(|_| asks);
    let retry_after = asked.and_then(|asked| retry_after(asked, now));
    if read_away(&mut answer).await {
        answer.finish().await;
    }
    Heard {
        status: Some(status),
        retry_after,
        error: String::new(),
        wellness: match status.as_u16() {
            502..=504 => Wellness::Unwell,
            _ => Wellness::Well,
        },
    }
}

/// True when the body has ended within bounds.
async fn read_away(answer: &mut Answer) -> bool {
    let mut bytes = 0_usize;
    while bytes <= ANSWER_BYTES_MAX {
        match answer.chunk().await {
            Ok(Some(piece)) => bytes = bytes.saturating_add(piece.len()),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
    false
}
