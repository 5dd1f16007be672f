//! The rules of this repository about itself, as tests: who may know whom, where time and randomness of the world come
//! in, what code may not contain, and what must lie beside what.
//!
//! The rules are tables at the top of their tests. Exceptions are rows with a reason; an exception that nobody needs any
//! more fails too, so that the tables only shrink by themselves.

mod source;
mod supply;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hookward::gateway::{Connection, Reason};
use hookward::providers::builtin;

use source::Source;

/// The rooms from the street to the cellar. A room may know those in later rows, and of its own row those behind it.
const HOUSE: [&[&str]; 12] = [
    &["main"],
    &["lib"],
    &["cli"],
    &["config"],
    &["server"],
    &["gateway"],
    &["queue"],
    &["fetch", "upstream", "store"],
    &["database"],
    &["event", "providers"],
    &["signature"],
    &["observe", "secret", "clock", "units", "nearest", "http1"],
];

/// Neighbours in a row that may know each other all the same, from left to right.
const NEIGHBOURS: [(&str, &str); 3] = [
    ("event", "providers"),
    // One connector, with one store of trusted authorities, for the whole process.
    ("fetch", "upstream"),
    ("observe", "clock"),
];

/// Lines of a file without its tests.
const LINES_MAX: usize = 450;

#[test]
fn rooms_know_only_those_below_them() {
    // A gateway that knows its configuration file cannot be used without one; a verifier that knows the gateway cannot
    // be tested or reused without it.
    let mut wrong = Vec::new();
    for file in sources() {
        let room = file.room();
        for known in file.rooms_named() {
            if known != room && !may_know(&room, &known) {
                wrong.push(format!("{} names {known}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn may_know(room: &str, known: &str) -> bool {
    let row = |room: &str| HOUSE.iter().position(|row| row.contains(&room));
    let (room_row, known_row) = (
        row(room).unwrap_or_else(|| unknown(room)),
        row(known).unwrap_or_else(|| unknown(known)),
    );
    room_row < known_row || (room_row == known_row && NEIGHBOURS.contains(&(room, known)))
}

fn unknown(room: &str) -> usize {
    panic!("{room} is in no row of HOUSE")
}

#[test]
fn every_room_has_its_place() {
    // A room that the table does not know may know everybody.
    let built: BTreeSet<String> = sources().iter().map(Source::room).collect();
    let known: BTreeSet<String> = HOUSE.concat().iter().map(|room| (*room).to_owned()).collect();
    assert_eq!(built, known);
    assert_eq!(HOUSE.concat().len(), known.len(), "a room stands in two places");
}

/// What a step may know of other steps, besides refusals and the trail that it leaves its notes in.
const STEPS_KNOWN: [(&str, &str, &str); 17] = [
    ("body", "admit", "bodies are held in the memory that admission gave"),
    ("body", "exchange", "what a body is read from"),
    ("body", "head", "the length and the expectation of the head"),
    (
        "dispatch",
        "replay",
        "the outcome of a dispatch ends the hold on its event",
    ),
    (
        "respond",
        "admit",
        "a place is free when the upstream has said its last",
    ),
    ("respond", "exchange", "what an answer is written to"),
    ("respond", "head", "what kind of answer the request can take"),
    ("rules", "admit", "rules are where the steps' settings come together"),
    ("rules", "body", "rules are where the steps' settings come together"),
    ("rules", "head", "rules are where the steps' settings come together"),
    ("rules", "register", "rules are where the steps' settings come together"),
    ("rules", "replay", "rules are where the steps' settings come together"),
    ("rules", "route", "rules are where the steps' settings come together"),
    (
        "shared",
        "admit",
        "what outlives a reload is admission's for the most part",
    ),
    ("shared", "register", "a secret that was brought outlives a reload"),
    ("trail", "admit", "a place is held until the trail ends"),
    ("trail", "head", "the line names the method and the path"),
];

#[test]
fn steps_of_the_corridor_do_not_lean_on_each_other() {
    // A step that calls another one can be reached past the proofs between the two.
    let steps: BTreeSet<String> = sources().iter().filter_map(Source::step).collect();
    assert!(steps.len() > 10, "{steps:?}");
    let mut found = BTreeSet::new();
    for file in sources() {
        let Some(step) = file.step() else { continue };
        let named = file.siblings_named();
        found.extend(steps.intersection(&named).map(|other| (step.clone(), other.clone())));
    }
    let common = |other: &str| matches!(other, "refusal" | "trail" | "rules" | "shared");
    found.retain(|(_, other)| !common(other));
    let allowed = STEPS_KNOWN.map(|(step, other, _)| (step.to_owned(), other.to_owned()));
    assert_eq!(found, BTreeSet::from(allowed));
}

/// Who may name Pingora: what takes connections in, what sends requests on, and the steps that hold a session.
const ON_PINGORA: [&str; 8] = [
    "src/server",
    "src/upstream",
    "src/fetch.rs",
    "src/fetch/exchange.rs",
    "src/gateway.rs",
    "src/gateway/exchange.rs",
    // Its timers.
    "src/clock.rs",
    "src/gateway/respond.rs",
];

#[test]
fn the_ground_shows_only_where_it_must() {
    // Each release of Pingora breaks what names it; and what names it cannot be used without it.
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for file in sources() {
        let Some(word) = file.words().find(|word| word.starts_with("pingora_")) else {
            continue;
        };
        match ON_PINGORA.iter().find(|allowed| file.path.starts_with(**allowed)) {
            Some(allowed) => drop(used.insert(*allowed)),
            None => wrong.push(format!("{} names {word}", file.path)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(used, BTreeSet::from(ON_PINGORA));
}

/// Crates that talk to a foreign system, and where alone they may be named.
const FOREIGN: [(&str, &[&str]); 1] = [("rusqlite", &["src/database", "src/store/sqlite.rs", "src/queue/sqlite"])];

#[test]
fn foreign_systems_stay_behind_their_engines() {
    // A second engine is a rewrite when the first one's types are everywhere.
    let mut wrong = Vec::new();
    for file in sources() {
        for (name, places) in FOREIGN {
            let inside = places.iter().any(|place| file.path.starts_with(place));
            if !inside && file.words().any(|word| word == name) {
                wrong.push(format!("{} names {name}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Words, where alone they may stand, and why.
const PLACES: [(&str, &[&str], &str); 6] = [
    ("SystemTime", &["src/clock.rs"], "tests move the clock"),
    // governor calls its type of moments so.
    (
        "Instant",
        &["src/clock.rs", "src/gateway/admit.rs"],
        "tests move the clock",
    ),
    ("::now(", &["src/clock.rs"], "tests move the clock"),
    (
        "std::env",
        &["src/secret.rs", "src/cli/run.rs"],
        "what decides must be seen in a file",
    ),
    (
        "getrandom",
        &["src/cli/sign.rs"],
        "nothing that is decided may depend on chance",
    ),
    (
        "std::fs",
        &[
            "src/cli/send.rs",
            "src/cli/sign.rs",
            "src/config/clients.rs",
            "src/config/load.rs",
            "src/config/watch.rs",
            "src/database/file.rs",
            "src/observe/metrics/process.rs",
            "src/secret.rs",
        ],
        "a request must not touch the disk",
    ),
];

#[test]
fn the_world_comes_in_through_known_doors() {
    // A clock, a variable or a file that is read somewhere else is one that no test moves and no reader expects.
    let mut wrong = Vec::new();
    for (word, places, why) in PLACES {
        let sources = sources();
        let naming = sources.iter().filter(|file| file.count(word) > 0);
        let naming: BTreeSet<&str> = naming.map(|file| file.path.as_str()).collect();
        if naming != places.iter().copied().collect() {
            wrong.push(format!("{word} belongs into {places:?}, not into {naming:?}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What ends the process or writes past the logs.
const NEVER: [&str; 14] = [
    ".unwrap()",
    ".expect(",
    "panic!",
    "todo!",
    "unimplemented!",
    "unreachable!",
    "assert!",
    "assert_eq!",
    "unwrap_unchecked",
    "process::abort",
    "dbg!",
    "print!",
    "println!",
    "eprintln!",
];

/// Where it is right all the same, how often, and why.
const ALL_THE_SAME: [(&str, &str, usize, &str); 3] = [
    (
        "src/observe/metrics/families.rs",
        ".expect(",
        2,
        "names are constants: any test run meets a bad one",
    ),
    ("src/signature/mac.rs", ".expect(", 4, "a MAC takes a key of any length"),
    (
        "src/providers/catalogue.rs",
        "panic!",
        2,
        "the presets are a part of the program: any test run meets a bad one",
    ),
];

#[test]
fn nothing_a_stranger_sends_can_stop_the_process() {
    // A panic that a request can cause is an outage that anybody can order.
    let mut found = BTreeSet::new();
    for file in sources() {
        for what in NEVER {
            let count = file.count(what);
            if count > 0 {
                found.insert((file.path.clone(), what, count));
            }
        }
    }
    let allowed = ALL_THE_SAME.map(|(path, what, count, _)| (path.to_owned(), what, count));
    assert_eq!(found, BTreeSet::from(allowed));
}

/// Words that have a better one in this house, or that say nothing.
const BANNED: [&str; 18] = [
    "payload",
    "credential",
    "credentials",
    "strategy",
    "nonce",
    "dedupe",
    "nack",
    "rejection",
    "throttle",
    "skew",
    "vendor",
    "endpoint",
    "util",
    "utils",
    "helper",
    "helpers",
    "manager",
    "common",
];

/// Names that others gave, and who.
const NAMED_ELSEWHERE: [(&str, &str, &str); 2] = [
    ("src/fetch/exchange.rs", "utils", "Pingora's module"),
    ("src/upstream/tls.rs", "utils", "Pingora's module"),
];

#[test]
fn one_word_has_one_meaning() {
    // Two words for one thing make readers look for the difference; empty ones tell nothing.
    let mut wrong = BTreeSet::new();
    for file in sources() {
        let banned = |name: &&str| {
            let parts = source::parts(name);
            name.ends_with("Impl") || parts.iter().any(|part| BANNED.contains(&part.as_str()))
        };
        let empty = |name: &&str| ["get_", "do_", "handle_"].iter().any(|start| name.starts_with(start));
        let names = file.words().filter(banned).chain(file.functions().filter(empty));
        wrong.extend(names.map(|name| (file.path.clone(), name.to_owned())));
    }
    let allowed = NAMED_ELSEWHERE.map(|(path, name, _)| (path.to_owned(), name.to_owned()));
    assert_eq!(wrong, BTreeSet::from(allowed));
}

#[test]
fn files_introduce_themselves_and_end_in_time() {
    // A file that nobody can hold in their head is a file in which nobody sees the mistake.
    let mut wrong = Vec::new();
    for file in sources() {
        let head = file.text.lines().take_while(|line| line.starts_with("//!")).count();
        if head == 0 {
            wrong.push(format!("{} does not say what it is", file.path));
        }
        if file.lines > LINES_MAX {
            wrong.push(format!("{} has {} lines without its tests", file.path, file.lines));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_provider_is_one_file_and_one_file_of_vectors() {
    // A provider without vectors is a guess about somebody else's signatures.
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| name(entry.unwrap().path())).collect()
    };
    let expected: BTreeSet<String> = builtin().ids().map(|id| format!("{id}.yaml")).collect();
    assert_eq!(names("conf/providers"), expected);
    assert_eq!(names("tests/vectors"), expected);
}

#[test]
fn the_readme_lists_the_refusals_as_they_are() {
    // Operators write alerts and providers' support reads statuses from this table.
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let section = readme
        .split("\n## ")
        .find_map(|section| section.strip_prefix("Refusals\n"))
        .expect("no ## Refusals");
    let mut told = section.lines().filter(|line| line.starts_with('|'));
    assert_eq!(told.next(), Some("| stage | reason | status | connection |"));
    assert_eq!(told.next(), Some("|---|---|---|---|"));
    let row = |reason: &Reason| {
        let row = reason.row();
        let connection = match row.connection {
            Connection::Keep => "keep",
            Connection::Close => "close",
        };
        format!(
            "| {} | {} | {} | {connection} |",
            reason.stage(),
            reason.word(),
            row.status
        )
    };
    let rows: Vec<String> = Reason::ALL.iter().map(row).collect();
    assert_eq!(
        told.collect::<Vec<_>>(),
        rows,
        "the table of the README should be\n{}",
        rows.join("\n")
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src/` that is no test, without its tests, comments and texts.
fn sources() -> Vec<Source> {
    let mut sources = source::read_all(root());
    assert!(sources.len() > 60, "only {} files found", sources.len());
    sources.retain(|file| !file.is_test);
    sources
}
