//! Signed times: their grammar, their unit and their distance from ours.
//!
//! The grammar is digits without sign, space or leading zero, so that text and value are one to one and nothing can
//! be added to a signed timestamp that leaves its value alone. Arithmetic is checked: a time that does not fit is
//! malformed, not wrapped into the present. Whether a well-formed time is recent is asked last, after the
//! signature matched, so that the answer tells a forger nothing.

use std::time::Duration;

use serde::Deserialize;

use crate::clock::UnixMillis;

/// What a timestamp counts since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Unit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
}

impl Unit {
    /// Reads a timestamp; `None` unless it is `0` or digits that begin with 1 to 9 and fit.
    pub(crate) fn parse(self, text: &[u8]) -> Option<UnixMillis> {
        match text {
            [b'0'] => return Some(UnixMillis(0)),
            [b'1'..=b'9', ..] => {}
            _ => return None,
        }
        let mut value: u64 = 0;
        for byte in text {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
        }
        match self {
            Unit::Seconds => value.checked_mul(1000).map(UnixMillis),
            Unit::Millis => Some(UnixMillis(value)),
        }
    }

    /// Writes `at` as a provider would.
    pub(crate) fn write(self, at: UnixMillis) -> String {
        match self {
            Unit::Seconds => at.seconds().to_string(),
            Unit::Millis => at.0.to_string(),
        }
    }

    /// How many digits a time between September 2001 and November 2286 has.
    pub(crate) fn digits(self) -> usize {
        match self {
            Unit::Seconds => 10,
            Unit::Millis => 13,
        }
    }
}

/// The window around our time in which a signed time counts as fresh: symmetric, both edges inside.
pub(crate) fn is_fresh(signed: UnixMillis, now: UnixMillis, tolerance: Duration) -> bool {
    signed.distance(now) <= tolerance
}
