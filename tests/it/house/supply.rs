//! What the program is made of, as `Cargo.lock` has it: `deny.toml` for everybody who has no cargo-deny at hand.
//!
//! Bans, floors and sources are read from `deny.toml` itself, so the two cannot drift apart. Licences and advisories need
//! more than the lock file: `cargo deny check`.

use std::collections::BTreeMap;

use super::root;

/// Name, version and source of each package.
fn packages(lock: &str) -> Vec<(String, String, Option<String>)> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        line.map(|rest| rest.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]").skip(1);
    let package = |block: &str| {
        (
            value(block, "name").unwrap(),
            value(block, "version").unwrap(),
            value(block, "source"),
        )
    };
    blocks.map(package).collect()
}

/// Crates that are banned: all of them (`None`), or below a version.
fn bans() -> BTreeMap<String, Option<String>> {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let section = text.split("\n[").find(|section| section.starts_with("bans]")).unwrap();
    let lines = section
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \""));
    let ban = |line: &str| {
        let spec = line.split('"').next().unwrap();
        match spec.split_once(":<") {
            Some((name, floor)) => (name.to_owned(), Some(floor.to_owned())),
            None => (spec.to_owned(), None),
        }
    };
    lines.map(ban).collect()
}

/// The numbers of a version.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['+', '-']).next().unwrap();
    plain.split('.').map(|number| number.parse().unwrap()).collect()
}

/// The lock files of what is built from this repository.
const LOCKS: [&str; 3] = ["Cargo.lock", "benches/gateway/Cargo.lock", "fuzz/Cargo.lock"];

#[test]
fn nothing_banned_and_nothing_old_is_in_the_program() {
    // An update that takes back the fix of a known hole is one nobody would see.
    let bans = bans();
    assert!(bans.contains_key("rsa") && bans.contains_key("sled"), "{bans:?}");
    for (name, floor) in [
        ("pingora-core", "0.9.1"),
        ("h2", "0.4.16"),
        ("rustls-webpki", "0.103.13"),
    ] {
        assert_eq!(bans.get(name), Some(&Some(floor.to_owned())));
    }
    for lock in LOCKS {
        let text = std::fs::read_to_string(root().join(lock)).unwrap();
        let packages = packages(&text);
        assert!(packages.len() > 50, "only {} packages in {lock}", packages.len());
        for (name, version, source) in packages {
            match bans.get(&name) {
                None => {}
                Some(None) => panic!("{lock}: {name} is banned"),
                Some(Some(floor)) => {
                    assert!(
                        numbers(&version) >= numbers(floor),
                        "{lock}: {name} {version} is below {floor}"
                    );
                }
            }
            // Of another source, a package is whatever somebody puts there tomorrow. Ours have none.
            let index = "registry+https://github.com/rust-lang/crates.io-index";
            assert!(
                source.as_deref().is_none_or(|source| source == index),
                "{lock}: {name} is from {source:?}"
            );
        }
    }
}

#[test]
fn versions_are_compared_as_numbers() {
    // As text, 0.4.9 would be above 0.4.16.
    assert!(numbers("0.4.9") < numbers("0.4.16") && numbers("0.103.13") >= numbers("0.103.13"));
    assert!(numbers("1.3.290+3.54.0") > numbers("1.3.29") && numbers("0.9.2") > numbers("0.9.1"));
}
