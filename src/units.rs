//! Human units of the configuration: durations, sizes and rates.
//!
//! Read by everything that a person types: scheme files, provider files and the gateway's own configuration. The
//! grammar is an integer and a unit, nothing between them and nothing around them. A number without a unit is
//! refused instead of guessed, because `timeout: 30` has been read as milliseconds and as minutes by two programs
//! of one house; arithmetic is checked, because `999999999999d` must be an error and not zero.
//!
//! Every message says what is wrong and shows a value that would be right.

use std::fmt;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{self, Visitor};

/// A duration such as `250ms`, `10s`, `5m`, `1h` or `1d`. Integers only; zero is a duration.
///
/// # Errors
/// A sentence for the person who typed it: no unit, unknown unit, not an integer, or out of range.
pub fn duration(text: &str) -> Result<Duration, String> {
    const EXAMPLE: &str = "write a duration such as 10s, 5m or 250ms";
    let (number, unit) = number_and_unit(text, EXAMPLE)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("{text:?} has no unit; {EXAMPLE}")),
        _ => return Err(format!("{text:?}: the units are ms, s, m, h and d; {EXAMPLE}")),
    };
    match number.checked_mul(unit_ms) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(format!("{text:?} is too long; {EXAMPLE}")),
    }
}

/// A size in bytes: `512`, `64KiB`, `1MiB`, `2GiB` (powers of 1024) or `10kB`, `1MB`, `1GB` (powers of 1000).
///
/// # Errors
/// A sentence for the person who typed it: unknown unit, not an integer, or out of range.
pub fn bytes(text: &str) -> Result<u64, String> {
    const EXAMPLE: &str = "write a size such as 512, 64KiB or 1MiB";
    let (number, unit) = number_and_unit(text, EXAMPLE)?;
    let unit_bytes = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => {
            return Err(format!(
                "{text:?}: the units are KiB, MiB, GiB, kB, MB and GB; {EXAMPLE}"
            ));
        }
    };
    number
        .checked_mul(unit_bytes)
        .ok_or_else(|| format!("{text:?} is too large; {EXAMPLE}"))
}

/// A rate such as `50/s`, `600/m` or `1000/h`: how many, and in which time. The count is at least one.
///
/// # Errors
/// A sentence for the person who typed it: no unit, unknown unit, zero, not an integer, or out of range.
pub fn rate(text: &str) -> Result<(u32, Duration), String> {
    const EXAMPLE: &str = "write a rate such as 50/s, 600/m or 1000/h";
    let (number, unit) = number_and_unit(text, EXAMPLE)?;
    let per_seconds = match unit {
        "/s" => 1,
        "/m" => 60,
        "/h" => 3_600,
        "" => return Err(format!("{text:?} has no unit; {EXAMPLE}")),
        _ => return Err(format!("{text:?}: the units are /s, /m and /h; {EXAMPLE}")),
    };
    match u32::try_from(number) {
        Ok(0) => Err(format!("{text:?} lets nothing through; {EXAMPLE}")),
        Ok(count) => Ok((count, Duration::from_secs(per_seconds))),
        Err(_) => Err(format!("{text:?} is too fast; {EXAMPLE}")),
    }
}

/// A field of type [`Duration`], typed as [`duration`] reads it, that may be left out:
/// `#[serde(default, deserialize_with = ...)]`.
pub(crate) fn deserialize_some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_any(DurationText).map(Some)
}

struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 10s, 5m or 250ms")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        duration(text).map_err(E::custom)
    }
}

fn number_and_unit<'t>(text: &'t str, example: &str) -> Result<(u64, &'t str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || unit.starts_with(['.', ',', '_', ' ']) {
        return Err(format!("{text:?} is not an integer and a unit; {example}"));
    }
    match number.parse() {
        Ok(number) => Ok((number, unit)),
        Err(_) => Err(format!("{text:?} is too large a number; {example}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        // A tolerance or deadline would be a thousand times too long.
        let good = [
            ("0s", 0),
            ("1ms", 1),
            ("250ms", 250),
            ("10s", 10_000),
            ("300s", 300_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("18446744073709551615ms", u64::MAX),
        ];
        for (text, ms) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        let bad = [
            "",
            "10",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1,5s",
            "1_000s",
            "10 s",
            " 10s",
            "10s ",
            "10S",
            "10sec",
            "10us",
            "1w",
            "1h30m",
            "0x10s",
            "1e3s",
            "\u{0661}s",
            "18446744073709551616ms",
            "18446744073709551615s",
            "213503982335d",
        ];
        for text in bad {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        // A body limit would be off by a factor of 1024, or zero.
        let good = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("10kB", 10_000),
            ("10KB", 10_000),
            ("1MB", 1_000_000),
            ("1GB", 1_000_000_000),
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("17179869183GiB", 17_179_869_183 << 30),
        ];
        for (text, count) in good {
            assert_eq!(bytes(text), Ok(count), "{text}");
        }
        let bad = [
            "",
            "B",
            "1K",
            "1k",
            "1M",
            "1m",
            "1Mib",
            "1mb",
            "1 MiB",
            "-1",
            "1.5MiB",
            "1_024",
            " 1",
            "1 ",
            "0x10",
            "1TiB",
            "17179869184GiB",
            "18446744073709551616",
        ];
        for text in bad {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rates() {
        // A limit of 50 a minute would let 50 a second through.
        let (second, minute, hour) = (
            Duration::from_secs(1),
            Duration::from_secs(60),
            Duration::from_secs(3600),
        );
        let good = [
            ("1/s", (1, second)),
            ("50/s", (50, second)),
            ("600/m", (600, minute)),
            ("1000/h", (1000, hour)),
            ("4294967295/s", (u32::MAX, second)),
        ];
        for (text, rate_read) in good {
            assert_eq!(rate(text), Ok(rate_read), "{text}");
        }
        let bad = [
            "",
            "50",
            "/s",
            "0/s",
            "-1/s",
            "1.5/s",
            "50 /s",
            "50/ s",
            "50/d",
            "50/sec",
            "50/S",
            "50s",
            "50/1s",
            "4294967296/s",
            "18446744073709551616/s",
        ];
        for text in bad {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_message_shows_a_right_value() {
        // Somebody who typed a wrong value would have to search the documentation.
        for text in ["50", "x", "1y", "99999999999999999999s", ""] {
            assert!(duration(text).unwrap_err().contains("such as 10s"), "{text:?}");
            assert!(rate(text).unwrap_err().contains("such as 50/s"), "{text:?}");
        }
        assert!(bytes("1M").unwrap_err().contains("such as 512"));
    }
}
