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

/// A field of type [`Duration`], typed as [`duration`] reads it.
pub(crate) fn deserialize_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationText)
}

/// The same for a field that may be left out: `#[serde(default, deserialize_with = ...)]`.
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
