//! The values a user types, in the units people use: `10s`, `1MiB`, `50/s`, addresses, networks, names, dates.
//!
//! Each is a small type that reads one spelling and refuses the rest with a message that shows a right one. They hold
//! plain values for `build` to take and know nothing of keys or lines; `load` adds those. A bare number where a unit
//! belongs is refused: `timeout: 10` means seconds to one reader and milliseconds to the next.
//!
//! Messages quote what was typed, cut short and escaped. [`Written`], the type of a secret, quotes nothing.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, Unexpected, Visitor};

use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::units;

/// Longest [`Name`], in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A length of time such as `250ms`, `10s` or `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes such as `512`, `64KiB` or `1MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A count per time such as `50/s`; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In which time.
    pub per: Duration,
}

/// A whole number from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub NonZeroU32);

/// An address to listen on such as `0.0.0.0:8080` or `[::]:8080`; no host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// A name for metrics, logs and headers: `[a-z0-9-]`, 1 to [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// An HTTP method, in upper case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(pub http::Method);

/// An instant in RFC 3339 such as `2026-12-31T00:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(pub UnixMillis);

/// A secret written into the file itself. `Debug` and messages show no byte of it; the text it was read from is not
/// wiped.
#[derive(Clone, Debug)]
pub struct Written(pub Secret);

/// Something that can be switched off with the word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch<T> {
    /// The word `off`.
    Off,
    /// Anything else.
    On(T),
}

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks and takes a name.
    ///
    /// # Errors
    /// A message for the user, when `text` is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(plain) {
            let typed = quoted(text);
            return Err(format!(
                "{typed} is not a name; use a-z, 0-9 and -, at most {NAME_BYTES_MAX} of them"
            ));
        }
        Ok(Name(text.to_owned()))
    }
}

impl Network {
    /// Reads a network or an address.
    ///
    /// # Errors
    /// A message for the user, when `text` is neither, or points inside a network.
    pub fn new(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Network(IpNet::from(address)));
        }
        let wrong = |_| format!("{} is not a network; write one such as 10.0.0.0/8", quoted(text));
        let network: IpNet = text.parse().map_err(wrong)?;
        if network.trunc() != network {
            return Err(format!("{network} points inside a network; write {}", network.trunc()));
        }
        Ok(Network(network))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So that a map keyed by names is searched with what a route refers to.
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a duration such as 10s", |text| {
            units::duration(text).map(Span)
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a size such as 64KiB", |text| {
            units::bytes(text).map(Size)
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a rate such as 50/s", |text| {
            let (count, per) = units::rate(text)?;
            let nothing = || format!("{} lets nothing through; write a rate such as 50/s", quoted(text));
            Ok(Rate {
                count: NonZeroU32::new(count).ok_or_else(nothing)?,
                per,
            })
        })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a whole number such as 100", |text| {
            let wrong = || format!("{} is not a whole number from 1 to {}", quoted(text), u32::MAX);
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.map(Count).ok_or_else(wrong)
        })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "an address such as 127.0.0.1:8080", |text| {
            let wrong = |_| {
                let typed = quoted(text);
                format!("{typed} is not an address; write IP and port such as 127.0.0.1:8080 or [::1]:8080")
            };
            text.parse().map(Address).map_err(wrong)
        })
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a network such as 10.0.0.0/8", Network::new)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a name such as github", Name::new)
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a method such as POST", |text| {
            let wrong = || format!("{} is not a method; write one in upper case such as POST", quoted(text));
            let upper = !text.is_empty() && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_uppercase());
            let method = upper.then(|| http::Method::from_bytes(text.as_bytes()).ok()).flatten();
            method.map(Method).ok_or_else(wrong)
        })
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        typed(deserializer, "a date such as 2026-12-31T00:00:00Z", |text| {
            let wrong = || format!("{} is not a date; write one such as 2026-12-31T00:00:00Z", quoted(text));
            let instant: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
            let millis = u64::try_from(instant.as_millisecond()).map_err(|_| wrong())?;
            Ok(Date(UnixMillis(millis)))
        })
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchVisitor(PhantomData))
    }
}

/// What was typed, for a message: escaped, and cut after 40 characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{:?}...", text.get(..cut).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// Reads a scalar through `read`. Numbers are passed on as text, so that the message about a missing unit has one
/// source.
fn typed<'de, D, T>(deserializer: D, expected: &'static str, read: fn(&str) -> Result<T, String>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Typed { expected, read })
}

struct Typed<T> {
    expected: &'static str,
    read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Typed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        // `{:?}` keeps the point, so that 1.0 is not taken for the whole number 1.
        self.visit_str(&format!("{number:?}"))
    }
}

struct WrittenVisitor;

impl Visitor<'_> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
        Secret::new(text).map(Written).map_err(E::custom)
    }

    // The three below keep serde's own message away, which would quote the secret.

    fn visit_u64<E: Error>(self, _: u64) -> Result<Written, E> {
        Err(E::invalid_type(Unexpected::Other("a number"), &self))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Written, E> {
        Err(E::invalid_type(Unexpected::Other("a number"), &self))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Written, E> {
        Err(E::invalid_type(Unexpected::Other("a number"), &self))
    }
}

struct SwitchVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for SwitchVisitor<T> {
    type Value = Switch<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or the word off")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Switch<T>, E> {
        if text == "off" {
            return Ok(Switch::Off);
        }
        let or_off = |error: E| E::custom(format!("{error}, or the word off"));
        T::deserialize(text.into_deserializer()).map(Switch::On).map_err(or_off)
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Switch<T>, E> {
        let word = if on { "true" } else { "false" };
        Err(E::custom(format!(
            "{word} is not known here; the word off switches it off"
        )))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Switch<T>, E> {
        T::deserialize(number.into_deserializer()).map(Switch::On)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switch<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Switch::On)
    }
}

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(value: impl Into<Value>) -> Result<T, String> {
        T::deserialize(value.into()).map_err(|error| error.to_string())
    }

    #[test]
    fn bare_numbers_have_no_unit() {
        // Ten seconds would become ten milliseconds.
        assert_eq!(read("10s"), Ok(Span(Duration::from_secs(10))));
        assert!(read::<Span>(10).is_err());
        assert!(read::<Span>(1.5).is_err());
        assert!(read::<Rate>(50).is_err());
        assert_eq!(read(512), Ok(Size(512)));
        assert_eq!(read("64KiB"), Ok(Size(65536)));
    }

    #[test]
    fn nothing_that_counts_is_zero() {
        // A limit of zero refuses everything, or nothing, by the taste of who reads it.
        for zero in [
            Value::from(0),
            Value::from("0"),
            Value::from(-1),
            Value::from(1.0),
            Value::from(""),
        ] {
            assert!(read::<Count>(zero.clone()).is_err(), "{zero:?}");
        }
        assert!(read::<Count>(u64::from(u32::MAX) + 1).is_err());
        assert_eq!(read::<Count>(u32::MAX).map(|count| count.0.get()), Ok(u32::MAX));
        assert!(read::<Rate>("0/s").is_err());
    }

    #[test]
    fn networks_say_what_they_cover() {
        // 10.0.0.1/8 typed for one proxy would trust sixteen million addresses.
        let networks = ["10.0.0.0/8", "192.0.2.1", "::/0", "2001:db8::1"];
        for network in networks {
            assert!(read::<Network>(network).is_ok(), "{network}");
        }
        for wrong in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "localhost", "", "10.0.0.0/08 "] {
            assert!(read::<Network>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            read::<Network>("192.0.2.1").map(|network| network.0.prefix_len()),
            Ok(32)
        );
    }

    #[test]
    fn names_fit_into_labels_and_headers() {
        // A name with a line end would write headers of its own.
        for name in ["a", "github-2", "-", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(Name::new(name).map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for wrong in [
            "",
            "A",
            "a b",
            "a\n",
            "a_b",
            "a.b",
            "\u{e9}",
            &"x".repeat(NAME_BYTES_MAX + 1),
        ] {
            assert!(Name::new(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn dates_are_instants() {
        // A secret that was withdrawn would verify for some hours more, or for some less.
        let table = [
            ("2026-12-31T00:00:00Z", Some(1_798_675_200_000)),
            ("2026-12-31T01:00:00+01:00", Some(1_798_675_200_000)),
            ("2026-12-31T00:00:00.5Z", Some(1_798_675_200_500)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-12-31T00:00:00", None),
            ("2026-12-31", None),
            ("2026-13-01T00:00:00Z", None),
            ("1798675200", None),
        ];
        for (text, millis) in table {
            assert_eq!(read::<Date>(text).ok().map(|date| date.0.0), millis, "{text}");
        }
    }

    #[test]
    fn off_is_a_word() {
        // `replay: no` that switches nothing off, or everything, must not pass.
        assert_eq!(read::<Switch<Size>>("off"), Ok(Switch::Off));
        assert_eq!(read::<Switch<Size>>("1KiB"), Ok(Switch::On(Size(1024))));
        for wrong in [
            Value::from("no"),
            Value::from("OFF"),
            Value::from(false),
            Value::from(true),
            Value::Null,
        ] {
            assert!(read::<Switch<Size>>(wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_written_secret_is_text_and_never_quoted() {
        // The report of a wrong secret is read by more people than the secret.
        assert!(read::<Written>("hunter2").is_ok());
        let table = [
            Value::from(72_727_272_u64),
            Value::from(-7272),
            Value::from(72.5),
            Value::from("  "),
        ];
        for wrong in table {
            let message = read::<Written>(wrong).unwrap_err();
            assert!(!message.contains("72"), "{message}");
        }
    }

    #[test]
    fn quotes_are_short_and_on_one_line() {
        // A megabyte of text would scroll the other problems away.
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(&"\u{e9}".repeat(41)), format!("\"{}\"...", "\u{e9}".repeat(40)));
    }
}
