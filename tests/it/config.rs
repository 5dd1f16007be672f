//! Golden cases of the configuration: `tests/config/*.yaml` holds an input, a line `=== problems`, and what the
//! user is told. A case whose problems are empty is a good file. `UPDATE=1 cargo test` writes the outcomes anew; read
//! the difference before keeping it.

use std::path::PathBuf;

const SEPARATOR: &str = "=== problems\n";

/// What a user is told about a file.
fn render(text: &str) -> String {
    let (_, problems) = hookward::config::parse("conf.yaml", text);
    problems.to_string()
}

fn cases() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    cases
}

#[test]
fn every_case_tells_what_its_golden_says() {
    // Whoever mends a file at night would look for a mistake in the wrong line, or would not be told of it at all.
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let cases = cases();
    assert!(cases.len() >= 40, "only {} cases found", cases.len());
    let mut differing = Vec::new();
    for path in &cases {
        let golden = std::fs::read_to_string(path).unwrap();
        let (input, expected) = golden.split_once(SEPARATOR).unwrap_or((&golden, ""));
        let told = render(input);
        if update {
            std::fs::write(path, format!("{input}{SEPARATOR}{told}")).unwrap();
        } else if told != expected {
            differing.push(format!("{}\n--- expected\n{expected}--- told\n{told}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn no_case_tells_a_secret() {
    // Reports are pasted into tickets. Every case that holds a secret spells it with this word.
    for path in cases() {
        let golden = std::fs::read_to_string(&path).unwrap();
        let input = golden.split(SEPARATOR).next().unwrap_or_default();
        let told = render(input).to_lowercase();
        assert!(!told.contains("hunter2"), "{}", path.display());
    }
}

#[test]
fn what_is_shipped_has_no_problem() {
    // The first file a newcomer runs must run.
    let conf = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    for name in ["quickstart.yaml", "reference.yaml"] {
        let (file, problems) = hookward::config::load(&conf.join(name));
        assert_eq!(problems.to_string(), "", "{name}");
        assert!(file.is_some(), "{name}");
    }
}
