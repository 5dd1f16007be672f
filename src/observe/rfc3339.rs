//! Wall time as RFC 3339 in UTC with milliseconds: `2026-11-23T14:02:11.123Z`, always 24 bytes.
//!
//! Written once per log line, so by plain arithmetic into the line's own buffer. Years end at 9999, where the format
//! does; later times are shown as its last millisecond.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "a date of 64 bits of milliseconds, and its digits"
)]

use crate::clock::UnixMillis;

/// 9999-12-31T23:59:59.999Z.
const LAST_MS: u64 = 253_402_300_799_999;

const MS_PER_DAY: u64 = 86_400_000;

/// Appends `time`.
pub(super) fn push(out: &mut Vec<u8>, time: UnixMillis) {
    let ms = time.0.min(LAST_MS);
    let (year, month, day) = civil(ms / MS_PER_DAY);
    let in_day = ms % MS_PER_DAY;
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, in_day / 3_600_000, 2);
    out.push(b':');
    digits(out, in_day / 60_000 % 60, 2);
    out.push(b':');
    digits(out, in_day / 1000 % 60, 2);
    out.push(b'.');
    digits(out, in_day % 1000, 3);
    out.push(b'Z');
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year and months need no table: from March
/// on, month lengths repeat every five months with 153 days.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01, and of four centuries, a century without its leap day, four years.
    let days = days_since_1970 + 719_468;
    let era = days / 146_097;
    let in_era = days % 146_097;
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (era * 400 + year_of_era + next_year, month, day)
}

/// Appends `width` decimal digits of `number`, zeros in front.
fn digits(out: &mut Vec<u8>, number: u64, width: u32) {
    for place in (0..width).rev() {
        let digit = number / 10u64.pow(place) % 10;
        out.push(b'0' + digit as u8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(ms: u64) -> String {
        let mut out = Vec::new();
        push(&mut out, UnixMillis(ms));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_instants_are_shown_as_they_are_known() {
        // Lines that sort or join wrongly with other logs waste the night of whoever reads them.
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_782_400_001), "2000-02-29T00:00:00.001Z");
        assert_eq!(shown(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(shown(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(shown(LAST_MS), "9999-12-31T23:59:59.999Z");
        assert_eq!(shown(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        // A leap year rule that is wrong once is wrong for a day of everybody's logs.
        for day in 0..146_097 {
            let ms = day * MS_PER_DAY;
            let expected = jiff::Timestamp::from_millisecond(ms as i64).unwrap();
            assert_eq!(shown(ms), format!("{expected:.3}"));
        }
    }

    proptest! {
        #[test]
        fn any_instant_parses_back_to_itself(ms in 0..=LAST_MS) {
            // Times that drift by a rounding make retries look out of order.
            let parsed: jiff::Timestamp = shown(ms).parse().unwrap();
            prop_assert_eq!(parsed.as_millisecond(), ms as i64);
        }
    }
}
