//! Our no, as a value.
//!
//! Every step of the corridor ends a request early by returning a [`Refusal`]; only `respond` turns it into a
//! response. The enum is closed and its table is one `match` without a wildcard, so a new reason cannot be added
//! without deciding its status, its label and what happens to the connection. All reasons of the stage `verify`
//! look the same from outside: a forger must not learn which part of a forgery to mend.

use std::time::Duration;

use crate::fetch::FetchError;
use crate::signature::Failure;

/// Why a request was refused. Labels of metrics and logs are made from it; the README lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Reason {
    /// The head has no single meaning: line ends, lengths, encodings, names. Or the chunks of the body have none, or the
    /// connection is ended for frames of HTTP/2 that carry hardly anything.
    BadFraming,
    /// A header that verification depends on occurs twice, or has a look-alike.
    AmbiguousHeader,
    /// The head did not arrive in time.
    HeadTooSlow,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// No route, and nothing to pass through to.
    NoRoute,
    /// The route does not take this method.
    Method,
    /// A path that some servers would take for a protected one.
    AmbiguousPath,
    /// The route is not open to the client's address.
    Address,
    /// The route asks for another certificate of the client.
    Certificate,
    /// The client's rate, counted before the body.
    ClientRate,
    /// Too many requests of the client at the same time that have proven nothing yet.
    ClientBusy,
    /// Too many requests of all routes at the same time.
    Overload,
    /// Too many events of the route at the same time.
    Busy,
    /// Too many bytes of bodies in memory.
    Memory,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The body ended before its framing said so.
    Truncated,
    /// A content encoding: what is signed must be what is read.
    Encoded,
    /// No signature.
    Missing,
    /// A signature that cannot be read.
    Malformed,
    /// Signed too long ago, or too far ahead.
    Stale,
    /// Signed with another secret, or changed on the way.
    Mismatch,
    /// Names a key that is not configured.
    UnknownKey,
    /// The provider's published key cannot be reached.
    KeyDown,
    /// The route's rate of verified events.
    RouteRate,
    /// The subscription could not be confirmed.
    ConfirmDown,
    /// The first copy of this event is still on its way.
    InFlight,
    /// The replay store is full or away.
    StoreDown,
    /// The queue has no room, or its disk failed.
    QueueDown,
    /// The upstream could not be reached or broke off.
    UpstreamDown,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The gateway is shutting down.
    Draining,
}

/// What becomes of the connection after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It serves the next request, provided that the rest of this one's body is small enough to read away.
    Keep,
    /// It is closed: where this request ends is unknown or too far away.
    Close,
}

/// One line of the table of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The step of the corridor that refuses and its reason, as `stage/reason`: unique over the table.
    pub label: &'static str,
    /// The response's status.
    pub status: u16,
    /// What becomes of the connection.
    pub connection: Connection,
}

impl Reason {
    /// Every reason, in corridor order. A reason's position is `reason as usize`.
    pub const ALL: [Reason; 32] = {
        use Reason::*;
        [
            BadFraming,
            AmbiguousHeader,
            HeadTooSlow,
            HeadTooLarge,
            NoRoute,
            Method,
            AmbiguousPath,
            Address,
            Certificate,
            ClientRate,
            ClientBusy,
            Overload,
            Busy,
            Memory,
            BodyTooLarge,
            BodyTooSlow,
            Truncated,
            Encoded,
            Missing,
            Malformed,
            Stale,
            Mismatch,
            UnknownKey,
            KeyDown,
            RouteRate,
            ConfirmDown,
            InFlight,
            StoreDown,
            QueueDown,
            UpstreamDown,
            UpstreamTimeout,
            Draining,
        ]
    };

    /// The reason's line of the table.
    pub const fn row(self) -> Row {
        use Connection::{Close, Keep};
        let (label, status, connection) = match self {
            Reason::BadFraming => ("head/bad_framing", 400, Close),
            Reason::AmbiguousHeader => ("head/ambiguous_header", 400, Close),
            Reason::HeadTooSlow => ("head/too_slow", 408, Close),
            Reason::HeadTooLarge => ("head/too_large", 431, Close),
            Reason::NoRoute => ("route/no_route", 404, Keep),
            Reason::Method => ("route/method", 405, Keep),
            Reason::AmbiguousPath => ("route/ambiguous_path", 400, Keep),
            Reason::Address => ("admit/address", 403, Keep),
            Reason::Certificate => ("admit/certificate", 403, Keep),
            Reason::ClientRate => ("admit/client_rate", 429, Keep),
            Reason::ClientBusy => ("admit/client_busy", 429, Keep),
            Reason::Overload => ("admit/overload", 503, Keep),
            Reason::Busy => ("admit/busy", 503, Keep),
            Reason::Memory => ("admit/memory", 503, Keep),
            Reason::BodyTooLarge => ("body/too_large", 413, Close),
            Reason::BodyTooSlow => ("body/too_slow", 408, Close),
            Reason::Truncated => ("body/truncated", 400, Close),
            Reason::Encoded => ("body/encoded", 415, Close),
            Reason::Missing => ("verify/missing", 401, Keep),
            Reason::Malformed => ("verify/malformed", 401, Keep),
            Reason::Stale => ("verify/stale", 401, Keep),
            Reason::Mismatch => ("verify/mismatch", 401, Keep),
            Reason::UnknownKey => ("verify/unknown_key", 401, Keep),
            Reason::KeyDown => ("key/key_down", 503, Keep),
            Reason::RouteRate => ("spend/route_rate", 429, Keep),
            Reason::ConfirmDown => ("confirm/confirm_down", 503, Keep),
            Reason::InFlight => ("replay/in_flight", 503, Keep),
            Reason::StoreDown => ("replay/store_down", 503, Keep),
            Reason::QueueDown => ("dispatch/queue_down", 503, Keep),
            Reason::UpstreamDown => ("dispatch/upstream_down", 502, Keep),
            Reason::UpstreamTimeout => ("dispatch/upstream_timeout", 504, Keep),
            Reason::Draining => ("dispatch/draining", 503, Close),
        };
        Row {
            label,
            status,
            connection,
        }
    }

    /// The step of the corridor that refuses.
    pub fn stage(self) -> &'static str {
        self.row().label.split_once('/').map_or("", |(stage, _)| stage)
    }

    /// The reason within its stage.
    pub fn word(self) -> &'static str {
        self.row().label.split_once('/').map_or("", |(_, word)| word)
    }

    /// Whether the reason can only occur after a route was found.
    pub const fn routed(self) -> bool {
        !matches!(
            self,
            Reason::BadFraming
                | Reason::HeadTooSlow
                | Reason::HeadTooLarge
                | Reason::NoRoute
                | Reason::AmbiguousPath
                | Reason::Draining
        )
    }
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Missing => Reason::Missing,
            Failure::Malformed => Reason::Malformed,
            Failure::Stale => Reason::Stale,
            Failure::Mismatch => Reason::Mismatch,
            Failure::UnknownKey => Reason::UnknownKey,
        }
    }
}

/// What a 503 asks for that does not know better.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// A reason, and when it makes sense to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// For `Retry-After`; rounded up to whole seconds.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal that asks the sender to come back after `wait`.
    pub fn until(reason: Reason, wait: Duration) -> Self {
        Refusal {
            reason,
            retry_after: Some(wait),
        }
    }
}

impl From<Reason> for Refusal {
    /// What passes by itself asks the sender to come back soon.
    fn from(reason: Reason) -> Self {
        Refusal {
            reason,
            retry_after: (reason.row().status == 503).then_some(RETRY_SOON),
        }
    }
}

/// How long the fetcher leaves a place alone that it could not reach.
const KEY_RETRY: Duration = Duration::from_secs(5);

impl From<FetchError> for Refusal {
    /// A key that is not there proves nothing; one that cannot be reached may be there in a moment.
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Refused | FetchError::Absent => Reason::UnknownKey.into(),
            FetchError::Unreachable => Refusal::until(Reason::KeyDown, KEY_RETRY),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Reason::from(failure).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn positions_and_labels_are_unique() {
        // A label used twice would count one attack as another.
        let mut labels = HashSet::new();
        for (position, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
            assert!(labels.insert(reason.row().label), "{reason:?}");
            assert!(!reason.stage().is_empty() && !reason.word().is_empty());
        }
    }

    #[test]
    fn the_outside_cannot_tell_verification_failures_apart() {
        // A forger who learns "stale" knows that the key was right.
        let rows = Reason::ALL.map(|reason| (reason.stage(), reason.row()));
        let verify: HashSet<_> = rows
            .iter()
            .filter(|(stage, _)| *stage == "verify")
            .map(|(_, row)| (row.status, row.connection == Connection::Keep))
            .collect();
        assert_eq!(verify, HashSet::from([(401, true)]));
    }
}
