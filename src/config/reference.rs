//! Holds `conf/reference.yaml` equal to the types: every key is there, nothing else is, and each default is the one in
//! the code.
//!
//! No list of keys is kept for this. The types are asked: a group with a key nobody knows makes serde name the keys
//! it does know, and a file without a key has to read the same as one with the documented default.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_yaml::Value;

use super::document::Kind;
use super::file::File;
use super::load::{Cause, Fault};
use super::path::{KeyPath, Segment};
use super::yaml;

const TEXT: &str = include_str!("../../conf/reference.yaml");

/// How a line of the reference marks its key.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    Required,
    Example,
    Default,
}

/// A key of the reference, and the keys its group may have.
struct Key {
    path: KeyPath,
    known: Vec<String>,
}

#[test]
fn every_key_of_the_types_is_in_the_reference() {
    // A key that nobody can find is a feature that nobody has.
    let mut documented: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    for key in keys() {
        documented
            .entry(key.known)
            .or_default()
            .insert(name(&key.path).to_owned());
    }
    assert_eq!(documented.len(), 46, "a group of keys has no example in the reference");
    for (known, found) in documented {
        let known: BTreeSet<String> = known.into_iter().collect();
        assert_eq!(found, known);
    }
}

#[test]
fn every_documented_default_is_the_one_in_the_code() {
    // An operator who relies on the documented limit would run with another one.
    let whole = format!("{:?}", read(reference()).unwrap());
    let mut seen = HashSet::new();
    for key in keys() {
        // What is said once about a key holds for later examples of it.
        if !seen.insert((key.known, name(&key.path).to_owned())) {
            continue;
        }
        let without = read(without(&key.path));
        let mark = mark(&key.path);
        match (&mark, without) {
            (Mark::Required, Err(fault)) => {
                assert!(matches!(fault.cause, Cause::Missing { .. }), "{}: {fault:?}", key.path);
            }
            (Mark::Example, Ok(file)) => assert_ne!(format!("{file:?}"), whole, "{} is a default", key.path),
            (Mark::Default, Ok(file)) => assert_eq!(format!("{file:?}"), whole, "{}", key.path),
            (mark, without) => panic!("{} is marked {mark:?}, but without it: {without:?}", key.path),
        }
    }
}

#[test]
fn every_key_is_explained() {
    // A key without a word of explanation is set by guessing.
    let document = yaml::read(TEXT).0;
    let mut seen = HashSet::new();
    for key in keys() {
        if !seen.insert((key.known, name(&key.path).to_owned())) {
            continue;
        }
        let line = document.locate(&key.path).1.unwrap();
        let own = TEXT.lines().nth(line - 1).unwrap();
        let before = TEXT.lines().nth(line - 2).unwrap();
        assert!(
            own.contains(" # ") || before.trim_start().starts_with("# "),
            "{}",
            key.path
        );
    }
}

/// Every key whose group has a fixed set of keys.
fn keys() -> Vec<Key> {
    let document = yaml::read(TEXT).0;
    let mut keys = Vec::new();
    let mut groups = vec![KeyPath::root()];
    while let Some(group) = groups.pop() {
        match &document.node(&group).unwrap().kind {
            Kind::Map(entries) => {
                let known = known(&group);
                let paths = entries.iter().map(|(key, _)| group.key(key));
                let path_keys = paths.clone().filter(|_| !known.is_empty());
                keys.extend(path_keys.map(|path| Key {
                    path,
                    known: known.clone(),
                }));
                groups.extend(paths);
            }
            Kind::List(items) => groups.extend((0..items.len()).map(|index| group.index(index))),
            _ => {}
        }
    }
    // In the order of the file, so that the first example of a key is the one that is checked.
    keys.sort_by_key(|key| document.locate(&key.path).1);
    keys
}

/// The keys a group may have; none when it takes any.
fn known(group: &KeyPath) -> Vec<String> {
    let mut value = reference();
    let probe = Value::String("no-such-key-anywhere".to_owned());
    let map = at(&mut value, group).as_mapping_mut().unwrap();
    map.insert(probe, Value::Bool(true));
    match read(value) {
        Err(Fault {
            cause: Cause::UnknownKey { known },
            ..
        }) => known,
        _ => Vec::new(),
    }
}

fn without(path: &KeyPath) -> Value {
    let mut value = reference();
    let map = at(&mut value, &path.parent().unwrap()).as_mapping_mut().unwrap();
    map.remove(name(path)).unwrap();
    value
}

fn mark(path: &KeyPath) -> Mark {
    let line = yaml::read(TEXT).0.locate(path).1.unwrap();
    let text = TEXT.lines().nth(line - 1).unwrap();
    match (text.contains("# (required)"), text.contains("# (example)")) {
        (true, _) => Mark::Required,
        (_, true) => Mark::Example,
        _ => Mark::Default,
    }
}

fn reference() -> Value {
    yaml::read(TEXT).0.value().unwrap()
}

fn read(value: Value) -> Result<File, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| Fault::of(&error))
}

fn at<'v>(value: &'v mut Value, path: &KeyPath) -> &'v mut Value {
    path.segments().iter().fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key.as_str()).unwrap(),
        Segment::Index(index) => value.get_mut(index).unwrap(),
    })
}

fn name(path: &KeyPath) -> &str {
    match path.segments().last() {
        Some(Segment::Key(key)) => key,
        _ => panic!("{path} does not end with a key"),
    }
}
