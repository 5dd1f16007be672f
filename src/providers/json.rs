//! A few members of a JSON body, found in one pass and without building a tree.
//!
//! Called once for each proven request whose provider keeps its event's names in the body. Whatever is not asked for is
//! skipped, so that the cost is a scan. A member that occurs twice is not used: two parsers would read two different
//! values, and the one that matters is the backend's. A body that is not exactly one JSON document has no members.
//!
//! Depth is bounded by the paths (8 names) and by the parser's own limit; values by what the caller asks for.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::signature::SchemeError;

/// Most names in a path.
const NAMES_MAX: usize = 8;

/// The way to a member of nested objects: `event.type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    names: Vec<String>,
}

impl JsonPath {
    /// Reads a path; `key` is where it was typed.
    pub(crate) fn parse(key: &str, text: &str) -> Result<JsonPath, SchemeError> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.len() > NAMES_MAX || names.iter().any(String::is_empty) {
            let error = SchemeError::new(key, format!("{text:?} is not a path"));
            return Err(error.suggest(format!(
                "write 1 to {NAMES_MAX} names with full stops between: event.type"
            )));
        }
        Ok(JsonPath { names })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join("."))
    }
}

/// A member to look for, and how long its text may be in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'p> {
    pub(crate) path: &'p JsonPath,
    pub(crate) bytes_max: usize,
}

/// The text of each wanted member: a string's content or an integer's digits. `None` when it is not wanted, absent,
/// repeated, of another type or too long, and for all of them when the body is not one JSON document.
pub(crate) fn find<const N: usize>(body: &[u8], wanted: [Option<Wanted<'_>>; N]) -> [Option<String>; N] {
    const { assert!(N <= 8) };
    let mut search = Search {
        wanted: &wanted,
        found: &mut [const { Found::Nothing }; N],
    };
    let all = wanted
        .iter()
        .enumerate()
        .filter(|(_, wanted)| wanted.is_some())
        .fold(0, |all, (at, _)| all | 1 << at);
    if all == 0 {
        return [const { None }; N];
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let walk = Walk {
        search: &mut search,
        paths: all,
        depth: 0,
    };
    if walk.deserialize(&mut json).and_then(|()| json.end()).is_err() {
        return [const { None }; N];
    }
    let mut found = search.found.iter_mut();
    std::array::from_fn(|_| match found.next() {
        Some(Found::Text(text)) => Some(std::mem::take(text)),
        _ => None,
    })
}

enum Found {
    Nothing,
    Text(String),
    /// Seen twice.
    Ambiguous,
}

/// What is looked for and what was found, by position.
struct Search<'s, 'p> {
    wanted: &'s [Option<Wanted<'p>>],
    found: &'s mut [Found],
}

impl Search<'_, '_> {
    /// The paths among `paths` whose name at `depth` is `name`, one bit each.
    fn matching(&self, paths: u8, depth: usize, name: &str) -> u8 {
        self.each(paths, |wanted| {
            wanted.path.names.get(depth).is_some_and(|wanted| wanted == name)
        })
    }

    /// Keeps `text` for those of `paths` that end at `depth`.
    fn keep(&mut self, paths: u8, depth: usize, text: &str) {
        let ending = self.each(paths, |wanted| {
            wanted.path.names.len() == depth && text.len() <= wanted.bytes_max
        });
        self.set(ending, || Found::Text(text.to_owned()));
    }

    fn set(&mut self, paths: u8, found: impl Fn() -> Found) {
        for (at, slot) in self.found.iter_mut().enumerate() {
            if paths & 1 << at != 0 {
                *slot = found();
            }
        }
    }

    fn each(&self, paths: u8, holds: impl Fn(&Wanted<'_>) -> bool) -> u8 {
        let wanted = self.wanted.iter().enumerate();
        wanted
            .filter(|(at, wanted)| paths & 1 << at != 0 && wanted.as_ref().is_some_and(&holds))
            .fold(0, |mask, (at, _)| mask | 1 << at)
    }
}

/// A value at which some paths have arrived.
struct Walk<'w, 's, 'p> {
    search: &'w mut Search<'s, 'p>,
    paths: u8,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: u8 = 0;
        loop {
            let name = Name {
                search: self.search,
                paths: self.paths,
                depth: self.depth,
            };
            let Some(paths) = map.next_key_seed(name)? else {
                return Ok(());
            };
            if paths == 0 {
                map.next_value::<IgnoredAny>()?;
            } else if seen & paths != 0 {
                self.search.set(paths, || Found::Ambiguous);
                map.next_value::<IgnoredAny>()?;
            } else {
                seen |= paths;
                map.next_value_seed(Walk {
                    search: self.search,
                    paths,
                    depth: self.depth + 1,
                })?;
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.search.keep(self.paths, self.depth, text);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.search.keep(self.paths, self.depth, &number.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.search.keep(self.paths, self.depth, &number.to_string());
        Ok(())
    }

    // A fraction or an exponent has many spellings and names nothing.
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name, turned into the paths that go on there; nothing is copied.
struct Name<'w, 's, 'p> {
    search: &'w Search<'s, 'p>,
    paths: u8,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_, '_> {
    type Value = u8;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u8, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_, '_> {
    type Value = u8;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<u8, E> {
        Ok(self.search.matching(self.paths, self.depth, name))
    }
}
