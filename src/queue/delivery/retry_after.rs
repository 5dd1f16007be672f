//! `Retry-After` as upstreams write it (RFC 9110 section 10.2.3): seconds, or a date.
//!
//! The worker reads it from answers of 429 and 503 alone. What cannot be read counts as not there; bounds are the
//! business of whoever uses the time.

use std::time::Duration;

use crate::clock::UnixMillis;

/// Longer values are no time.
const BYTES_MAX: usize = 64;

/// How long the upstream asks to be left alone with `value`, seen from `now`. A date in the past is no time at all.
pub(crate) fn retry_after(value: &[u8], now: UnixMillis) -> Option<Duration> {
    let short = Some(value).filter(|value| value.len() <= BYTES_MAX);
    let text = std::str::from_utf8(short?).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long time all the same.
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
    let left = u64::try_from(date).ok()?.saturating_sub(now.0);
    Some(Duration::from_millis(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        // A backend that asks for a minute would be asked again at once.
        let now = UnixMillis(784_111_777_000);
        let table = [
            ("120", Some(120_000)),
            ("0", Some(0)),
            (" 7 ", Some(7000)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("120, 130", None),
        ];
        for (text, millis) in table {
            let read = retry_after(text.as_bytes(), now);
            assert_eq!(read, millis.map(Duration::from_millis), "{text:?}");
        }
        assert_eq!(retry_after(b"99999999999999999999999", now), Some(Duration::MAX));
        assert_eq!(retry_after(b"\xff", now), None);
    }
}
