//! Signed times: their grammar, their unit and their distance from ours.
//!
//! The grammar of numbers is digits without sign, space or leading zero, so that text and value are one to one and
//! nothing can be added to a signed timestamp that leaves its value alone; that of dates is the strict form of RFC 3339, or
//! the one that HTTP writes.
//! Arithmetic is checked: a time that does not fit is malformed, not wrapped into the present. Whether a well-formed
//! time is recent is asked last, after the signature matched, so that the answer tells a forger nothing.

use std::time::Duration;

use serde::Deserialize;

use crate::clock::UnixMillis;

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Unit {
    /// Seconds since 1970-01-01T00:00:00Z.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds since then.
    #[serde(rename = "ms")]
    Millis,
    /// Microseconds since then.
    #[serde(rename = "us")]
    Micros,
    /// `2026-11-23T14:02:11.5Z` or with a distance from UTC: RFC 3339 in capitals.
    #[serde(rename = "rfc3339")]
    Rfc3339,
    /// The same without a zone, in UTC.
    #[serde(rename = "datetime")]
    DateTime,
    /// `Mon, 23 Nov 2026 14:02:11 GMT`, as HTTP writes a date (RFC 9110 section 5.6.7), and no other spelling of it.
    #[serde(rename = "http-date")]
    HttpDate,
}

impl Unit {
    /// Reads a timestamp; `None` unless it is `0` or digits that begin with 1 to 9 and fit, or a date of this century's
    /// calendar that is not before 1970.
    pub(crate) fn parse(self, text: &[u8]) -> Option<UnixMillis> {
        match self {
            Unit::Seconds => number(text)?.checked_mul(1000).map(UnixMillis),
            Unit::Millis => number(text).map(UnixMillis),
            Unit::Micros => number(text).map(|micros| UnixMillis(micros / 1000)),
            Unit::Rfc3339 => date(std::str::from_utf8(text).ok().filter(|_| has_zone(text))?),
            Unit::DateTime => match has_shape(text) {
                true => date(&format!("{}Z", std::str::from_utf8(text).ok()?)),
                false => None,
            },
            Unit::HttpDate => http_date(std::str::from_utf8(text).ok()?),
        }
    }

    /// Writes `at` as a provider would.
    pub(crate) fn write(self, at: UnixMillis) -> String {
        match self {
            Unit::Seconds => at.seconds().to_string(),
            Unit::Millis => at.0.to_string(),
            Unit::Micros => at.0.saturating_mul(1000).to_string(),
            Unit::Rfc3339 => written_date(at),
            Unit::DateTime => written_date(at).trim_end_matches('Z').to_owned(),
            Unit::HttpDate => written_http_date(at).unwrap_or_default(),
        }
    }

    /// How many digits a time between September 2001 and November 2286 has; `None` for dates.
    pub(crate) fn digits(self) -> Option<usize> {
        match self {
            Unit::Seconds => Some(10),
            Unit::Millis => Some(13),
            Unit::Micros => Some(16),
            Unit::Rfc3339 | Unit::DateTime | Unit::HttpDate => None,
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for byte in text {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// The instant of a text whose shape has been checked.
fn date(text: &str) -> Option<UnixMillis> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(UnixMillis)
}

fn written_date(at: UnixMillis) -> String {
    let at = i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(String::new, |at| at.to_string())
}

/// The instant of a date that is written as HTTP would.
fn http_date(text: &str) -> Option<UnixMillis> {
    let instant = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let at = u64::try_from(instant.as_millisecond()).ok().map(UnixMillis)?;
    written_http_date(at).filter(|written| written == text).map(|_| at)
}

fn written_http_date(at: UnixMillis) -> Option<String> {
    let instant = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&instant)
        .ok()
}

/// A date and time of strict shape, then `Z` or a distance from UTC.
fn has_zone(text: &[u8]) -> bool {
    if let Some(local) = text.strip_suffix(b"Z") {
        return has_shape(local);
    }
    let Some((local, zone)) = text.split_last_chunk::<6>() else {
        return false;
    };
    let [sign, h1, h2, colon, m1, m2] = zone;
    let digits = [h1, h2, m1, m2].into_iter().all(u8::is_ascii_digit);
    matches!(sign, b'+' | b'-') && *colon == b':' && digits && has_shape(local)
}

/// `2026-11-23T14:02:11`, and a fraction of 1 to 9 digits or none.
fn has_shape(text: &[u8]) -> bool {
    let Some((whole, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let shaped = whole
        .iter()
        .zip(b"dddd-dd-ddTdd:dd:dd")
        .all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    let fraction = match rest.strip_prefix(b".") {
        None => rest.is_empty(),
        Some(digits) => (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
    };
    shaped && fraction
}

/// The window around our time in which a signed time counts as fresh: symmetric, both edges inside.
pub(crate) fn is_fresh(signed: UnixMillis, now: UnixMillis, tolerance: Duration) -> bool {
    signed.distance(now) <= tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_time() {
        // A second spelling of a signed time would make a captured request look new.
        let seconds: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("1", Some(1_000)),
            ("9", Some(9_000)),
            ("10", Some(10_000)),
            ("1700000000", Some(1_700_000_000_000)),
            ("9999999999", Some(9_999_999_999_000)),
            ("1700000000000", Some(1_700_000_000_000_000)),
            ("2147483647", Some(2_147_483_647_000)),
            ("2147483648", Some(2_147_483_648_000)),
            ("4294967296", Some(4_294_967_296_000)),
            ("18446744073709551", Some(18_446_744_073_709_551_000)),
            ("18446744073709552", None),
            ("9223372036854775807", None),
            ("9223372036854775808", None),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            ("18446744073709551617", None),
            ("36893488149119103232", None),
            ("99999999999999999999", None),
            ("100000000000000000000", None),
            ("340282366920938463463374607431768211456", None),
            ("", None),
            (" ", None),
            ("00", None),
            ("01", None),
            ("0000000000", None),
            ("01700000000", None),
            ("-0", None),
            ("-1", None),
            ("-1700000000", None),
            ("+0", None),
            ("+1700000000", None),
            (" 1700000000", None),
            ("1700000000 ", None),
            ("\t1700000000", None),
            ("1700000000\n", None),
            ("1700000000\r\n", None),
            ("1700000000\0", None),
            ("17 00000000", None),
            ("1700000000.0", None),
            ("1700000000.", None),
            (".1700000000", None),
            ("1,700,000,000", None),
            ("1_700_000_000", None),
            ("1'700'000'000", None),
            ("1.7e9", None),
            ("17e8", None),
            ("1700000000e0", None),
            ("0x6553f100", None),
            ("6553f100", None),
            ("0b1", None),
            ("0o17", None),
            ("1700000000s", None),
            ("1700000000,1700000000", None),
            ("1700000000;", None),
            ("\"1700000000\"", None),
            ("[1700000000]", None),
            ("{timestamp}", None),
            ("now", None),
            ("NaN", None),
            ("Infinity", None),
            ("null", None),
            ("true", None),
            ("hello", None),
            ("2023-11-14T22:13:20Z", None),
            ("Tue, 14 Nov 2023 22:13:20 GMT", None),
            ("\u{0661}\u{0667}\u{0660}\u{0660}", None),
            ("\u{ff11}\u{ff17}\u{ff10}\u{ff10}", None),
            ("1700000000\u{200b}", None),
            ("\u{feff}1700000000", None),
            ("1700000000/", None),
            ("1700000000:", None),
        ];
        assert!(seconds.len() >= 60);
        for (text, ms) in seconds {
            let read = Unit::Seconds.parse(text.as_bytes());
            assert_eq!(read, ms.map(UnixMillis), "{text:?}");
            if let Some(at) = read {
                assert_eq!(Unit::Seconds.write(at), *text);
            }
        }
    }

    #[test]
    fn one_text_for_each_date_of_http() {
        // Klaviyo signs such a date behind the body; as a number it would be refused with every event, and in a second
        // spelling a captured event would look new.
        let dates: &[(&str, Option<u64>)] = &[
            ("Thu, 04 Jan 2024 18:05:25 GMT", Some(1_704_391_525_000)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("Fri, 04 Jan 2024 18:05:25 GMT", None),
            ("Thu, 4 Jan 2024 18:05:25 GMT", None),
            ("Thu, 04 Jan 2024 18:05:25 UTC", None),
            ("Thu, 04 Jan 2024 18:05:25 +0000", None),
            ("Thu, 04 Jan 2024 19:05:25 +0100", None),
            ("thu, 04 jan 2024 18:05:25 gmt", None),
            ("Thu,  04 Jan 2024 18:05:25 GMT", None),
            ("Thu, 04 Jan 24 18:05:25 GMT", None),
            ("Thursday, 04-Jan-24 18:05:25 GMT", None),
            ("Thu Jan  4 18:05:25 2024", None),
            ("04 Jan 2024 18:05:25 GMT", None),
            ("Thu, 04 Jan 2024 18:05 GMT", None),
            ("Thu, 04 Jan 2024 18:05:60 GMT", None),
            ("Thu, 04 Jan 2024 18:05:25 GMT ", None),
            ("Thu, 04 Jan 2024 18:05:25 GMT (x)", None),
            ("1704391525", None),
            ("2024-01-04T18:05:25Z", None),
            ("", None),
        ];
        for (text, ms) in dates {
            let read = Unit::HttpDate.parse(text.as_bytes());
            assert_eq!(read, ms.map(UnixMillis), "{text:?}");
            if let Some(at) = read {
                assert_eq!(Unit::HttpDate.write(at), *text);
            }
        }
        assert_eq!(Unit::HttpDate.parse(b"Thu, 04 Jan 2024 18:05:25 \xff"), None);
        assert_eq!(Unit::HttpDate.write(UnixMillis(u64::MAX)), "");
    }

    #[test]
    fn milliseconds_fill_the_whole_range() {
        // The same text in the wrong unit would be accepted as fresh.
        for value in [0, 1, 999, 1_700_000_000_000, u64::MAX] {
            assert_eq!(
                Unit::Millis.parse(value.to_string().as_bytes()),
                Some(UnixMillis(value))
            );
            assert_eq!(Unit::Millis.write(UnixMillis(value)), value.to_string());
        }
        assert_eq!(Unit::Millis.parse(b"18446744073709551616"), None);
        assert_eq!(Unit::Millis.parse(b"\xff"), None);
    }

    #[test]
    fn the_window_is_symmetric_and_closed() {
        // Extreme times must not wrap around into the window.
        let tolerance = Duration::from_secs(300);
        let now = UnixMillis(1_700_000_000_000);
        let fresh = |at: u64| is_fresh(UnixMillis(at), now, tolerance);
        assert!(fresh(now.0) && fresh(now.0 - 300_000) && fresh(now.0 + 300_000));
        assert!(!fresh(now.0 - 300_001) && !fresh(now.0 + 300_001));
        assert!(!fresh(0) && !fresh(u64::MAX));
        assert!(!is_fresh(UnixMillis(u64::MAX), UnixMillis(0), tolerance));
    }
}
