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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> JsonPath {
        JsonPath::parse("json", text).unwrap()
    }

    fn look(body: impl AsRef<[u8]>, text: &str) -> Option<String> {
        let path = path(text);
        let [found] = find(
            body.as_ref(),
            [Some(Wanted {
                path: &path,
                bytes_max: 20,
            })],
        );
        found
    }

    #[test]
    fn a_member_has_one_value_or_none() {
        // An id that two parsers read differently would deliver an event twice, or swallow another one.
        let rows = [
            (r#"{"id":"a"}"#, "id", Some("a")),
            (r#" { "x" : [ {"id":"no"} ] , "id" : "a" } "#, "id", Some("a")),
            (r#"{"id":""}"#, "id", Some("")),
            (r#"{"id":"\u0061\n"}"#, "id", Some("a\n")),
            (r#"{"\u0069d":"a"}"#, "id", Some("a")),
            (r#"{"id":"a","\u0069d":"a"}"#, "id", None),
            (r#"{"id":"a","id":"b"}"#, "id", None),
            (r#"{"id":"a","id":null}"#, "id", None),
            (r#"{"id":null,"id":"a"}"#, "id", None),
            (r#"{"id":"a","id":"b","id":"c"}"#, "id", None),
            (r#"{"e":{"id":"a"},"e":{}}"#, "e.id", None),
            (r#"{"e":{},"e":{"id":"a"}}"#, "e.id", None),
            (r#"{"e":{"id":"a","id":"a"}}"#, "e.id", None),
            (r#"{"x":1,"x":2,"id":"a"}"#, "id", Some("a")),
            (r#"{"ID":"a"}"#, "id", None),
            (r#"{"id ":"a"}"#, "id", None),
            (r#"{"id":12}"#, "id", Some("12")),
            (r#"{"id":-12}"#, "id", Some("-12")),
            (r#"{"id":18446744073709551615}"#, "id", Some("18446744073709551615")),
            (r#"{"id":18446744073709551616}"#, "id", None),
            (r#"{"id":1.0}"#, "id", None),
            (r#"{"id":1e3}"#, "id", None),
            (r#"{"id":-0}"#, "id", None),
            (r#"{"id":01}"#, "id", None),
            (r#"{"id":true}"#, "id", None),
            (r#"{"id":null}"#, "id", None),
            (r#"{"id":["a"]}"#, "id", None),
            (r#"{"id":{"id":"a"}}"#, "id", None),
            (r#"{"id":{"id":"a"}}"#, "id.id", Some("a")),
            (r#"{"a":{"b":{"c":"d"}}}"#, "a.b.c", Some("d")),
            (r#"{"a":[{"b":"c"}]}"#, "a.b", None),
            (r#"{"a.b":"c"}"#, "a.b", None),
            (r#"{"id":"0123456789abcdefghij"}"#, "id", Some("0123456789abcdefghij")),
            (r#"{"id":"0123456789abcdefghijk"}"#, "id", None),
            (r#"{"id":"a"} {}"#, "id", None),
            (r#"{"id":"a"}x"#, "id", None),
            (r#"{"id":"a","#, "id", None),
            (r#"{"id":"a",}"#, "id", None),
            (r#"{'id':'a'}"#, "id", None),
            (r#"[{"id":"a"}]"#, "id", None),
            (r#""id""#, "id", None),
            ("\u{feff}{\"id\":\"a\"}", "id", None),
            ("", "id", None),
        ];
        for (body, wanted, expected) in rows {
            assert_eq!(look(body, wanted).as_deref(), expected, "{wanted} in {body}");
        }
        assert_eq!(look(b"{\"id\":\"\xff\"}", "id"), None);
    }

    #[test]
    fn depth_ends_the_search_and_not_the_program() {
        // A body of brackets would overflow the stack.
        let deep = |levels: usize| format!("{{\"x\":{}{},\"id\":\"a\"}}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(look(deep(50), "id").as_deref(), Some("a"));
        look(deep(500_000), "id");
        look("[".repeat(500_000), "id");
        look("{\"id\":".repeat(500_000), "id.id.id.id.id.id.id.id");
    }

    #[test]
    fn several_members_are_found_in_one_pass() {
        // A type that goes missing when an id is asked for as well.
        let paths = ["a.x", "a.y", "b", "c"].map(path);
        let [x, y, b, c] = &paths;
        let wanted = [x, y, b, c].map(|path| Some(Wanted { path, bytes_max: 16 }));
        let found = find(br#"{"b":"2","a":{"y":"1","x":"0"}}"#, wanted);
        assert_eq!(found.map(Option::unwrap_or_default), ["0", "1", "2", ""]);
        let twice = [x, x].map(|path| Some(Wanted { path, bytes_max: 16 }));
        assert_eq!(
            find(br#"{"a":{"x":"0"}}"#, twice).map(Option::unwrap_or_default),
            ["0", "0"]
        );
    }

    #[test]
    fn nothing_is_read_when_nothing_is_wanted() {
        // Providers that keep everything in headers would pay for a scan of every body.
        assert_eq!(find(b"not json", [None, None]), [None, None]);
    }

    #[test]
    fn paths_are_names_with_full_stops() {
        // A mistyped path that never matches anything switches the replay guard's key off.
        for bad in ["", ".", "a.", ".a", "a..b", "a.b.c.d.e.f.g.h.i"] {
            assert_eq!(JsonPath::parse("id.json", bad).unwrap_err().key, "id.json", "{bad:?}");
        }
        assert_eq!(path("a.b.c.d.e.f.g.h").to_string(), "a.b.c.d.e.f.g.h");
    }
}
