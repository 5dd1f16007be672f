//! From bytes to a [`File`], with every problem on the way.
//!
//! serde stops at the first thing that does not fit. Whoever mends a file wants to see all of them, so what did not
//! fit is recorded, taken out of the tree, and the rest is read again. A key that is missing is recorded and stood in
//! for, and its surroundings are left out at the end. What is left after that is a [`File`] in which everything is
//! well formed; it lets later checks report in the same run and must not be run while there are errors.
//!
//! serde's own messages quote the value they did not expect. That value may be a secret in the wrong place, so those
//! messages are taken apart and only the expectation is kept.

use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use serde_path_to_error::Segment as Step;

use super::document::{Document, Kind};
use super::file::File;
use super::path::{KeyPath, Segment};
use super::problem::{PROBLEMS_MAX, Problems};
use super::value::quoted;
use super::yaml;
use crate::nearest::nearest;

/// A larger file is not a configuration.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Each problem takes one pass, a missing key a few more.
const PASSES_MAX: usize = PROBLEMS_MAX * 8;

/// Every key but those of schemes, as examples of what to write where.
static REFERENCE: LazyLock<Document> = LazyLock::new(|| {
    let (mut reference, _) = yaml::read(include_str!("../../conf/reference.yaml"));
    reference.drop_node(&KeyPath::root().key("schemes"));
    reference
});

/// Reads a file from disk. See [`parse`].
pub fn load(path: &Path) -> (Option<File>, Problems) {
    let name = path.display().to_string();
    let most = (FILE_BYTES_MAX as u64).saturating_add(1);
    let mut bytes = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)) {
        Ok(_) => parse_bytes(&name, &bytes),
        Err(error) => refused(
            &name,
            &format!("cannot be read: {error}"),
            "check the path and who may read it",
        ),
    }
}

/// Reads a configuration. `name` is what problems call it.
///
/// The file is there when its top level could be read; what did not fit is left out of it and listed in the
/// problems. Run it only when [`Problems::has_errors`] says no.
pub fn parse(name: &str, text: &str) -> (Option<File>, Problems) {
    if text.len() > FILE_BYTES_MAX {
        return too_large(name);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (document, findings) = yaml::read(text);
    let mut problems = Problems::of_document(name, document, findings);
    let file = read(&mut problems);
    if file.is_none() && !problems.has_errors() {
        problems
            .error(&KeyPath::root(), "cannot be read")
            .suggest("begin with conf/quickstart.yaml");
    }
    (file, problems)
}

fn parse_bytes(name: &str, bytes: &[u8]) -> (Option<File>, Problems) {
    if bytes.len() > FILE_BYTES_MAX {
        return too_large(name);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(name, text),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|b| **b == b'\n').count().saturating_add(1);
            refused(name, &format!("line {line} is not UTF-8"), "save the file as UTF-8")
        }
    }
}

fn too_large(name: &str) -> (Option<File>, Problems) {
    refused(
        name,
        "is larger than 1 MiB",
        "a configuration is a few kilobytes; is this the right file?",
    )
}

fn refused(name: &str, message: &str, suggestion: &str) -> (Option<File>, Problems) {
    let mut problems = Problems::of(name);
    problems.error(&KeyPath::root(), message).suggest(suggestion);
    (None, problems)
}

/// Reads the tree again and again, each time without what did not fit the time before.
fn read(problems: &mut Problems) -> Option<File> {
    for _ in 0..PASSES_MAX {
        if problems.is_full() {
            return None;
        }
        let value = problems.document().value()?;
        match serde_path_to_error::deserialize(value).map_err(|error| Fault::of(&error)) {
            Ok(file) => {
                if !problems.document_mut().drop_incomplete() {
                    return Some(file);
                }
            }
            Err(fault) => fault.settle(problems),
        }
    }
    None
}

/// What serde did not like, and where in the tree.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) path: KeyPath,
    pub(super) cause: Cause,
}

#[derive(Debug)]
pub(super) enum Cause {
    Missing { key: String },
    UnknownKey { known: Vec<String> },
    UnknownWord { known: Vec<String> },
    WrongKind { expected: String },
    Other { message: String },
}

impl Fault {
    pub(super) fn of(error: &serde_path_to_error::Error<serde_yaml::Error>) -> Self {
        let mut path = KeyPath::root();
        for step in error.path() {
            match step {
                Step::Seq { index } => path = path.index(*index),
                Step::Map { key } => path = path.key(key),
                Step::Enum { .. } | Step::Unknown => break,
            }
        }
        let cause = Cause::of(&error.inner().to_string());
        Fault { path, cause }
    }

    /// Records the fault and changes the tree so that the next pass gets past it.
    fn settle(self, problems: &mut Problems) {
        if problems.document().is_stand_in(&self.path) {
            return self.stand_in_again(problems);
        }
        match &self.cause {
            Cause::Missing { key } => return self.stand_in(key, problems),
            Cause::UnknownKey { known } => unknown_key(&self.path, known, problems),
            Cause::UnknownWord { known } => unknown_word(&self.path, known, problems),
            Cause::WrongKind { expected } => wrong_kind(&self.path, expected, problems),
            Cause::Other { message } => {
                problems.error(&self.path, message.as_str());
            }
        }
        problems.document_mut().drop_node(&self.path);
    }

    fn stand_in(&self, key: &str, problems: &mut Problems) {
        let path = self.path.key(key);
        // What was there and did not fit has been reported already.
        if !problems.left_out(&path) {
            let problem = problems.error(&self.path, format!("the key {key} is missing"));
            match example(&path) {
                Some(example) => problem.suggest(format!("add one such as {key}: {example}")),
                None => problem.suggest("conf/reference.yaml shows how"),
            };
        }
        if !problems.document_mut().stand_in(&path) {
            problems.document_mut().drop_node(&self.path);
        }
    }

    fn stand_in_again(&self, problems: &mut Problems) {
        if problems.document_mut().stand_in(&self.path) {
            return;
        }
        let group = self.path.parent().unwrap_or_default();
        problems.document_mut().drop_node(&group);
    }
}

impl Cause {
    /// Takes one of serde's messages apart. Their shapes are those of `serde::de::Error`; anything else comes from
    /// the types in `value` and is a message for users.
    fn of(message: &str) -> Self {
        let expected = message.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
        let begins = |prefix: &str| message.starts_with(prefix);
        if let Some(key) = message.strip_prefix("missing field ") {
            let key = key.trim_matches('`').to_owned();
            return Cause::Missing { key };
        }
        if begins("unknown field ") {
            let known = names(expected);
            return Cause::UnknownKey { known };
        }
        if begins("unknown variant ") {
            let known = names(expected);
            return Cause::UnknownWord { known };
        }
        if begins("invalid type: ") || begins("invalid value: ") || begins("invalid length ") {
            let expected = plain_words(expected).to_owned();
            return Cause::WrongKind { expected };
        }
        let message = message.to_owned();
        Cause::Other { message }
    }
}

fn unknown_key(path: &KeyPath, known: &[String], problems: &mut Problems) {
    let Some(Segment::Key(typed)) = path.segments().last() else {
        problems.error(path, "unknown key");
        return;
    };
    let in_scheme = path.segments().first() == Some(&Segment::Key("schemes".to_owned()));
    let elsewhere = if in_scheme { None } else { place_of(typed, path) };
    let suggestion = match (nearest(typed, known.iter().map(String::as_str)), elsewhere) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, Some(place)) => format!("its place is {place}"),
        (None, None) => format!("known here: {}", known.join(", ")),
    };
    problems.error(path, "unknown key").suggest(suggestion);
}

fn unknown_word(path: &KeyPath, known: &[String], problems: &mut Problems) {
    let Some(Kind::Text(typed)) = problems.document().node(path).map(|node| &node.kind) else {
        wrong_kind(path, &format!("one of {}", known.join(", ")), problems);
        return;
    };
    let message = format!("{} is not known here", quoted(typed));
    let suggestion = format!("write {}", known.join(" or "));
    problems.error(path, message).suggest(suggestion);
}

fn wrong_kind(path: &KeyPath, expected: &str, problems: &mut Problems) {
    let found = problems.document().node(path).map(|node| &node.kind);
    let last = path.segments().iter().rev().find_map(|segment| match segment {
        Segment::Key(key) => Some(key.as_str()),
        Segment::Index(_) => None,
    });
    let suggestion = match (found, expected) {
        (_, GROUP) if last == Some("secrets") => Some("write { env: NAME } or { file: PATH }"),
        (Some(Kind::Number(_) | Kind::Bool(_)), TEXT | "text in quotes" | "a path") => Some("put quotes around it"),
        (Some(Kind::Text(_) | Kind::Number(_) | Kind::Map(_)), LIST) => Some("put it into [ ] or behind a dash"),
        (Some(Kind::Text(_)), SWITCH) => Some("write it without quotes"),
        (Some(Kind::List(_)), _) => Some("remove the [ ] or the dash"),
        _ => None,
    };
    let message = match found {
        Some(kind) => format!("needs {expected}, not {}", kind_name(kind)),
        None => format!("needs {expected}"),
    };
    let problem = problems.error(path, message);
    if let Some(suggestion) = suggestion {
        problem.suggest(suggestion);
    }
}

const GROUP: &str = "a group of keys";
const LIST: &str = "a list";
const TEXT: &str = "text";
const SWITCH: &str = "true or false";

/// What serde calls an expected type, in the words of this file's users.
fn plain_words(expected: &str) -> &str {
    match expected {
        "a string" | "string" | "str" | "a borrowed string" => TEXT,
        "path string" => "a path",
        "a boolean" => SWITCH,
        "a sequence" => LIST,
        "a map" => GROUP,
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that fits here",
        expected if expected.starts_with("struct ") && expected.ends_with(", or the word off") => {
            "a group of keys, or the word off"
        }
        expected if expected.starts_with("struct ") => GROUP,
        expected => expected,
    }
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool(true) => "true",
        Kind::Bool(false) => "false",
        Kind::Number(_) => "a number",
        Kind::Text(_) => "text",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a group of keys",
    }
}

/// The names that serde lists between backticks.
fn names(expected: &str) -> Vec<String> {
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What the reference has at a place, on one line.
fn example(path: &KeyPath) -> Option<String> {
    let first = path
        .segments()
        .iter()
        .fold(KeyPath::root(), |place, segment| match segment {
            Segment::Index(_) => place.index(0),
            Segment::Key(key) => place.key(key),
        });
    match &REFERENCE.node(&first)?.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::List(items) => match items.first().map(|(_, node)| &node.kind) {
            Some(Kind::Text(text)) => Some(format!("[{text}]")),
            _ => None,
        },
        _ => None,
    }
}

/// Where in the reference a key is known, for one that was written at the wrong place.
fn place_of(key: &str, typed_at: &KeyPath) -> Option<String> {
    let place = REFERENCE.find(key, typed_at.segments().first())?;
    Some(place.to_string().replace("[0]", "[]"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::problem::Severity;
    use super::*;

    const GOOD: &str = "
listen: [127.0.0.1:8080]
upstreams: { app: { sample: true } }
routes:
  - { name: a, path: /a, provider: github, secrets: [{ value: hunter2hunter2hunter2 }], upstream: app }
";

    fn lines(problems: &Problems) -> Vec<(Option<usize>, String)> {
        problems
            .iter()
            .map(|problem| (problem.line(), problem.path().to_string()))
            .collect()
    }

    #[test]
    fn what_is_typed_is_what_is_read() {
        // A limit read as another number protects nobody.
        let more = "client: { head_timeout: 250ms, head_bytes: 1KiB }\nlimits: { client_rate: 600/m }\nadmin: off\n";
        let (file, problems) = parse("conf.yaml", &format!("{GOOD}{more}"));
        assert!(problems.is_empty(), "{problems}");
        let file = file.unwrap();
        assert_eq!(file.client.head_timeout.0.as_millis(), 250);
        assert_eq!(file.client.head_bytes.0, 1024);
        assert_eq!(file.client.idle_timeout.0.as_secs(), 60);
        assert_eq!(file.limits.client_rate.count.get(), 600);
        assert_eq!(file.limits.client_rate.per.as_secs(), 60);
        assert_eq!(file.admin, super::super::value::Switch::Off);
        assert_eq!(file.routes[0].name.as_str(), "a");
        assert!(file.upstreams["app"].sample);
        let secret = file.routes[0].secrets[0].value.as_ref().unwrap();
        assert_eq!(secret.0.expose(), b"hunter2hunter2hunter2");
    }

    #[test]
    fn a_file_in_debug_output_shows_no_secret() {
        // Debug output ends in logs.
        let (file, problems) = parse("conf.yaml", GOOD);
        assert!(!format!("{:?}", file.unwrap()).contains("hunter2"));
        assert!(!format!("{problems:?}").contains("hunter2"));
        assert!(problems.is_empty());
    }

    #[test]
    fn later_problems_point_at_the_file_also_when_items_were_left_out() {
        // The second route would be blamed for the third.
        let text = "listen: [127.0.0.1:8080]
upstreams: { app: { sample: true }, other: nonsense }
routes:
  - nonsense
  - { name: a }
  - { name: c, path: /c, upstream: app }
";
        let (file, mut problems) = parse("conf.yaml", text);
        let file = file.unwrap();
        assert_eq!(file.routes.len(), 1);
        let route = KeyPath::root().key("routes").index(0);
        problems
            .error(&route.key("secrets").index(0).key("env"), "is not set")
            .suggest("set it");
        problems.warning(&route.key("name"), "is short");
        let found = lines(&problems);
        assert_eq!(
            found[found.len() - 2..],
            [
                (Some(6), "routes[2].secrets[0].env".to_owned()),
                (Some(6), "routes[2].name".to_owned())
            ]
        );
        assert_eq!(problems.iter().last().unwrap().severity(), Severity::Warning);
        let upstreams = KeyPath::root().key("upstreams");
        assert!(problems.left_out(&upstreams.key("other")));
        assert!(!problems.left_out(&upstreams.key("app")));
        assert!(!problems.left_out(&upstreams.key("never-there")));
    }

    #[test]
    fn warnings_alone_do_not_stop_the_start() {
        // A demo secret would keep the quickstart from running.
        let (_, mut problems) = parse("conf.yaml", GOOD);
        problems.warning(&KeyPath::root().key("routes").index(0), "has a secret in the file");
        assert!(!problems.has_errors());
        assert!(!problems.is_empty());
        let shown = problems.to_string();
        assert_eq!(
            shown,
            "conf.yaml:5: warning: routes[0]: has a secret in the file\n1 warning\n"
        );
    }

    #[test]
    fn files_that_are_no_configuration_are_refused_whole() {
        // A gigabyte of log, named by mistake, would be read into memory; half a file would be half the protection.
        let folder = std::env::temp_dir().join(format!("hookward-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let largest = format!("{GOOD}#{}", " ".repeat(FILE_BYTES_MAX - GOOD.len() - 1));
        let table: [(&str, Vec<u8>, Option<&str>); 4] = [
            ("largest", largest.clone().into_bytes(), None),
            (
                "larger",
                format!("{largest} ").into_bytes(),
                Some("is larger than 1 MiB"),
            ),
            (
                "latin-1",
                b"listen: []\n# caf\xe9\n".to_vec(),
                Some("line 2 is not UTF-8"),
            ),
            ("utf-16", b"\xff\xfel\0i\0".to_vec(), Some("line 1 is not UTF-8")),
        ];
        for (name, bytes, message) in table {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            let (file, problems) = load(&path);
            assert_eq!(file.is_some(), message.is_none(), "{name}");
            assert_eq!(
                problems.iter().next().map(|problem| problem.message()),
                message,
                "{name}"
            );
        }
        let (file, problems) = load(&folder.join("absent"));
        assert!(file.is_none() && problems.has_errors());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_message_of_serde_is_understood() {
        // A message that is passed on as it is quotes the value, which may be a secret.
        let kind = |message: &str| match Cause::of(message) {
            Cause::Missing { key } => format!("missing {key}"),
            Cause::UnknownKey { known } => format!("key {}", known.join(" ")),
            Cause::UnknownWord { known } => format!("word {}", known.join(" ")),
            Cause::WrongKind { expected } => format!("kind {expected}"),
            Cause::Other { message } => message,
        };
        let table = [
            ("missing field `path`", "missing path"),
            ("unknown field `x`, expected `a`", "key a"),
            ("unknown field `x`, expected `a` or `b`", "key a b"),
            (
                "unknown field `, expected `z`, expected one of `a`, `b`, `c`",
                "key a b c",
            ),
            ("unknown field `x`, there are no fields", "key "),
            ("unknown variant `x`, expected `a` or `b`", "word a b"),
            (
                "invalid type: string \"hunter2, expected x\", expected a map",
                "kind a group of keys",
            ),
            (
                "invalid type: unit value, expected struct RouteFile",
                "kind a group of keys",
            ),
            (
                "invalid value: integer `70000`, expected u16",
                "kind a whole number that fits here",
            ),
            ("invalid length 3, expected a tuple of size 2", "kind a tuple of size 2"),
            ("\"50\" has no unit", "\"50\" has no unit"),
        ];
        for (message, understood) in table {
            assert_eq!(kind(message), understood, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_check(text in "[ \\-a-z0-9:\\[\\]{},#&*!|>'\"%@`\n\t?~]{0,300}") {
            // A check that panics tells nothing, and a reload that panics takes the gateway down.
            let (file, problems) = parse("conf.yaml", &text);
            prop_assert!(file.is_some() || problems.has_errors());
            prop_assert_eq!(problems.to_string().lines().count(), match problems.iter().count() { 0 => 0, n => n + 1 });
        }

        #[test]
        fn no_change_to_a_secret_shows_it(at in 0_usize..8, sign in "[ :&*!@\\[{\\]},#|>'\"%`\n?~-]{0,3}", after in ".{0,3}") {
            // Whatever somebody breaks around a secret, the report goes into a ticket.
            let place = ["secrets", "[{", "value", ": hunter", "hunter2hunter2 ", "}]", "upstream", "{ value"];
            let text = GOOD.replacen(place[at], &format!("{sign}{}{after}", place[at]), 1);
            let (_, problems) = parse("conf.yaml", &text);
            prop_assert!(!problems.to_string().contains("hunter2"), "{}", problems);
        }
    }
}
