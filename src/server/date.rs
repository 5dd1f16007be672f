//! The `Date` of answers (RFC 9110 section 6.6.1), made once a second and thread.

use std::cell::RefCell;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::clock::UnixMillis;

/// Appends the header line for `now`.
pub(super) fn line(out: &mut Vec<u8>, now: UnixMillis) {
    thread_local! {
        static LAST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
    }
    LAST.with_borrow_mut(|(second, line)| {
        if *second != now.seconds() {
            *second = now.seconds();
            *line = written(*second).unwrap_or_default();
        }
        out.extend_from_slice(line);
    });
}

/// `None` for times without a date, after the year 9999.
fn written(second: u64) -> Option<Vec<u8>> {
    let time = Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()?;
    Some(format!("date: {date}\r\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_answer() {
        // Senders compare it with their own clock when signatures are called stale.
        let mut out = Vec::new();
        for second in [784_111_777, 784_111_777, 784_111_778] {
            line(&mut out, UnixMillis::from_seconds(second));
        }
        let lines = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n".repeat(2) + "date: Sun, 06 Nov 1994 08:49:38 GMT\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), lines);
    }
}
