//! A few members of a JSON body, found in one pass and without building a tree.
//!
//! Called for schemes that sign or present members of the body, and once for each proven request whose provider keeps its
//! event's names there. Whatever is not asked for is skipped, so that the cost is a scan. A member that occurs twice is
//! not used: two parsers would read two different values, and the one that matters is the backend's. A body that is not
//! exactly one JSON document has no members.
//!
//! Depth is bounded by the paths (8 names) and by the parser's own limit; values by what the caller asks for.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::scheme::SchemeError;

/// Most names in a path.
const NAMES_MAX: usize = 8;

/// Most members that are looked for in one pass.
pub(crate) const WANTED_MAX: usize = 64;

/// Most items of an array that are looked into.
const ITEMS_MAX: usize = 1000;

/// The way to a member of nested objects: `event.type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    names: Vec<String>,
}

impl JsonPath {
    /// Reads a path; `key` is where it was typed.
    pub(crate) fn parse(key: &str, text: &str) -> Result<JsonPath, SchemeError> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.len() > NAMES_MAX || names.iter().any(|name| name.is_empty() || name.contains(['[', ']'])) {
            let error = SchemeError::new(key, format!("{text:?} is not a path"));
            return Err(error.suggest(format!(
                "write 1 to {NAMES_MAX} names with full stops between: event.type"
            )));
        }
        Ok(JsonPath { names })
    }

    /// Reads a path.
    ///
    /// # Errors
    /// A sentence for the person who typed it.
    pub fn read(text: &str) -> Result<JsonPath, String> {
        JsonPath::parse("", text).map_err(|error| error.problem)
    }

    /// The text of the member in `body`: a string's content or an integer's digits, of at most `bytes_max` bytes.
    /// `None` when it is absent, repeated, of another type or too long, and when the body is not one JSON document.
    pub fn text_in(&self, body: &[u8], bytes_max: usize) -> Option<String> {
        let [text] = find(body, [Some(Wanted { path: self, bytes_max })]);
        text
    }

    /// The names, from the outside in.
    pub(super) fn names(&self) -> &[String] {
        &self.names
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
    const { assert!(N <= WANTED_MAX) };
    if wanted.iter().all(Option::is_none) {
        return [const { None }; N];
    }
    let paths = wanted.map(|wanted| wanted.map(|wanted| wanted.path));
    let mut found = scan(body, &paths).unwrap_or_default().into_iter();
    std::array::from_fn(|at| match found.next() {
        Some(Found::Value(raw)) => {
            let bytes_max = wanted.get(at).copied().flatten()?.bytes_max;
            name(raw).filter(|text| text.len() <= bytes_max)
        }
        _ => None,
    })
}

/// What a body says at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member<'b> {
    /// The member is absent.
    Absent,
    /// A string's content, a number as it is written, `true` or `false`; `null` is the empty text.
    Text(Cow<'b, str>),
    /// The member occurs twice, or is an object or an array.
    Unusable,
}

/// What the body says at each of at most [`WANTED_MAX`] paths; `None` when it is not one JSON document.
pub(super) fn members<'b>(body: &'b [u8], paths: &[&JsonPath]) -> Option<Vec<Member<'b>>> {
    let paths: Vec<_> = paths.iter().map(|path| Some(*path)).collect();
    let found = scan(body, &paths)?;
    Some(found.into_iter().map(Member::from).collect())
}

/// The texts of a member of every item: `steps` are the paths between arrays, the last one leads to the member. `None`
/// when one item lacks it, when something is not as the paths say, or when there are more than 1000 items.
pub(super) fn each<'b>(body: &'b [u8], steps: &[JsonPath]) -> Option<Vec<Cow<'b, str>>> {
    let (first, rest) = steps.split_first()?;
    let Some(Found::Value(raw)) = scan(body, &[Some(first)])?.pop() else {
        return None;
    };
    if rest.is_empty() {
        return text(raw).map(|text| vec![text]);
    }
    let mut all = Vec::new();
    let items: Items<'b> = serde_json::from_str(raw).ok()?;
    for item in items.0 {
        all.extend(each(item.get().as_bytes(), rest)?);
        if all.len() > ITEMS_MAX {
            return None;
        }
    }
    Some(all)
}

/// The items of an array, at most [`ITEMS_MAX`].
struct Items<'b>(Vec<&'b RawValue>);

impl<'b> Deserialize<'b> for Items<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'b> Visitor<'b> for Array {
            type Value = Items<'b>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'b>>(self, mut array: A) -> Result<Items<'b>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = array.next_element()? {
                    if items.len() == ITEMS_MAX {
                        return Err(de::Error::custom("too many items"));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

/// The text that a member's JSON stands for; `None` for objects and arrays.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first()? {
        b'"' => match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
            _ => serde_json::from_str(raw).ok().map(Cow::Owned),
        },
        b'{' | b'[' => None,
        b'n' => Some(Cow::Borrowed("")),
        _ => Some(Cow::Borrowed(raw)),
    }
}

/// A string, or an integer that has one spelling. A fraction or an exponent has many and names nothing.
fn name(raw: &str) -> Option<String> {
    let integer = || raw.parse::<u64>().is_ok_and(|number| number.to_string() == raw);
    let negative = || raw.parse::<i64>().is_ok_and(|number| number.to_string() == raw);
    match raw.starts_with('"') || integer() || negative() {
        true => text(raw).map(Cow::into_owned),
        false => None,
    }
}

#[derive(Clone, Copy)]
enum Found<'b> {
    Nothing,
    Value(&'b str),
    /// Seen twice.
    Ambiguous,
}

impl<'b> From<Found<'b>> for Member<'b> {
    fn from(found: Found<'b>) -> Self {
        match found {
            Found::Nothing => Member::Absent,
            Found::Value(raw) => text(raw).map_or(Member::Unusable, Member::Text),
            Found::Ambiguous => Member::Unusable,
        }
    }
}

/// One pass over the body; `None` when it is not one JSON document.
fn scan<'b>(body: &'b [u8], paths: &[Option<&JsonPath>]) -> Option<Vec<Found<'b>>> {
    let mut found = vec![Found::Nothing; paths.len()];
    let mut search = Search {
        paths,
        found: &mut found,
    };
    let all = search.each(u64::MAX, |_| true);
    let mut json = serde_json::Deserializer::from_slice(body);
    let walk = Walk {
        search: &mut search,
        paths: all,
        depth: 0,
    };
    walk.deserialize(&mut json).and_then(|()| json.end()).ok()?;
    Some(found)
}

/// What is looked for and what was found, by position.
struct Search<'s, 'p, 'b> {
    paths: &'s [Option<&'p JsonPath>],
    found: &'s mut [Found<'b>],
}

impl<'b> Search<'_, '_, 'b> {
    /// The paths among `paths` whose name at `depth` is `name`, one bit each.
    fn matching(&self, paths: u64, depth: usize, name: &str) -> u64 {
        self.each(paths, |path| path.names.get(depth).is_some_and(|wanted| wanted == name))
    }

    /// Those of `paths` that end at `depth`.
    fn ending(&self, paths: u64, depth: usize) -> u64 {
        self.each(paths, |path| path.names.len() == depth)
    }

    fn set(&mut self, paths: u64, found: Found<'b>) {
        for (at, slot) in self.found.iter_mut().enumerate().take(WANTED_MAX) {
            if paths & 1 << at != 0 {
                *slot = found;
            }
        }
    }

    fn each(&self, paths: u64, holds: impl Fn(&JsonPath) -> bool) -> u64 {
        let wanted = self.paths.iter().enumerate().take(WANTED_MAX);
        wanted
            .filter(|(at, path)| paths & 1 << at != 0 && path.is_some_and(&holds))
            .fold(0, |mask, (at, _)| mask | 1 << at)
    }
}

/// A value inside of which some paths go on.
struct Walk<'w, 's, 'p, 'b> {
    search: &'w mut Search<'s, 'p, 'b>,
    paths: u64,
    depth: usize,
}

impl<'b> DeserializeSeed<'b> for Walk<'_, '_, '_, 'b> {
    type Value = ();

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'b> Visitor<'b> for Walk<'_, '_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: u64 = 0;
        let depth = self.depth.saturating_add(1);
        loop {
            let name = Name {
                search: self.search,
                paths: self.paths,
                depth: self.depth,
            };
            let Some(paths) = map.next_key_seed(name)? else {
                return Ok(());
            };
            let ending = self.search.ending(paths, depth);
            if paths == 0 {
                map.next_value::<IgnoredAny>()?;
            } else if seen & paths != 0 {
                self.search.set(paths, Found::Ambiguous);
                map.next_value::<IgnoredAny>()?;
            } else if ending == paths {
                let raw: &'b RawValue = map.next_value()?;
                self.search.set(ending, Found::Value(raw.get()));
            } else if ending == 0 {
                map.next_value_seed(Walk {
                    search: self.search,
                    paths,
                    depth,
                })?;
            } else {
                // One path is the beginning of another, so one of them finds an object or both find nothing.
                self.search.set(paths, Found::Ambiguous);
                map.next_value::<IgnoredAny>()?;
            }
            seen |= paths;
        }
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

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
struct Name<'w, 's, 'p, 'b> {
    search: &'w Search<'s, 'p, 'b>,
    paths: u64,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_, '_, '_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_, '_, '_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<u64, E> {
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
    fn texts_are_as_they_are_written() {
        // A number that is written anew is not the number that was signed.
        let rows = [
            ("12.50", Some("12.50")),
            ("1e3", Some("1e3")),
            ("-0", Some("-0")),
            ("true", Some("true")),
            ("false", Some("false")),
            ("null", Some("")),
            (r#""a\/b""#, Some("a/b")),
            (r#""\u00e9""#, Some("\u{e9}")),
            (r#""\ud800""#, None),
            ("{}", None),
            ("[1]", None),
        ];
        for (raw, expected) in rows {
            let body = format!("{{\"a\":{{\"b\":{raw}}},\"c\":1}}");
            let (b, c, d) = (path("a.b"), path("c"), path("d"));
            let found = members(body.as_bytes(), &[&b, &c, &d]).unwrap();
            let text = expected.map_or(Member::Unusable, |text| Member::Text(text.into()));
            assert_eq!(found, [text, Member::Text("1".into()), Member::Absent], "{raw}");
        }
        let (a, b) = (path("a"), path("a.b"));
        assert_eq!(members(b"{\"a\":1,\"a\":2}", &[&a]).unwrap(), [Member::Unusable]);
        assert_eq!(
            members(b"{\"a\":1}", &[&a, &b]).unwrap(),
            [Member::Unusable, Member::Unusable]
        );
        assert_eq!(members(b"{\"a\":1", &[&a]), None);
    }

    #[test]
    fn nothing_is_read_when_nothing_is_wanted() {
        // Providers that keep everything in headers would pay for a scan of every body.
        assert_eq!(find(b"not json", [None, None]), [None, None]);
    }

    #[test]
    fn paths_are_names_with_full_stops() {
        // A mistyped path that never matches anything switches the replay guard's key off.
        for bad in ["", ".", "a.", ".a", "a..b", "a.b.c.d.e.f.g.h.i", "a[].b"] {
            assert_eq!(JsonPath::parse("id.json", bad).unwrap_err().key, "id.json", "{bad:?}");
        }
        assert_eq!(path("a.b.c.d.e.f.g.h").to_string(), "a.b.c.d.e.f.g.h");
    }
}
