//! A second opinion: Python's `hmac` and `hashlib` judge what this program judged.
//!
//! `tests/oracle/judge.py` reads the same files and shares no line with this program. It has to accept every vector that is
//! accepted here, and every changed request that still is; so an error in how a message is put together would have to be
//! made twice.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::mutated::{Case, Dice};
use super::{End, Provider, Vector, all, builtin};

const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/judge.py");

/// Changed requests that are judged twice.
const CHANGES: usize = 20_000;

/// A request as the judge reads it, with our own verdict.
struct Judged {
    label: String,
    accepted: bool,
    line: Value,
}

impl Judged {
    fn new(provider: &Provider, vector: &Vector, accepted: bool) -> Judged {
        let file: Value = serde_yaml::from_str(builtin().text(&provider.id).unwrap()).unwrap();
        let url: http::Uri = vector.url.parse().unwrap();
        Judged {
            label: format!("{}: {}", provider.id, vector.case),
            accepted,
            line: json!({
                "scheme": file["scheme"],
                "secrets": vector.secrets,
                "settings": vector.settings,
                "url": vector.public_url.as_ref().unwrap_or(&vector.url),
                "target": url.path_and_query().map_or("/", |target| target.as_str()),
                "method": vector.method,
                "headers": vector.headers,
                "body": STANDARD.encode(vector.body()),
                "now": vector.now().0,
            }),
        }
    }
}

/// What the judge says of each.
fn opinions(requests: &[Judged]) -> Vec<String> {
    let mut python = Command::new("python3")
        .arg(JUDGE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let lines: String = requests.iter().map(|request| format!("{}\n", request.line)).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    let said: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(said.len(), requests.len(), "the judge gave up");
    said
}

/// How many were judged by both, how many accepted by both, and what is accepted here alone. What is refused here for its
/// spelling may well be read by the judge.
fn compare(requests: &[Judged]) -> (usize, usize, Vec<String>) {
    let opinions = opinions(requests);
    let pairs = requests.iter().zip(&opinions);
    let known: Vec<_> = pairs.filter(|(_, opinion)| *opinion != "unknown").collect();
    let ours = known.iter().filter(|(request, _)| request.accepted);
    let (both, alone): (Vec<_>, Vec<_>) = ours.partition(|(_, opinion)| *opinion == "yes");
    let labels = alone.iter().map(|(request, _)| request.label.clone());
    (known.len(), both.len(), labels.collect())
}

#[test]
fn another_implementation_accepts_the_same_vectors() {
    // A message that is put together wrongly on both sides of our own tests would pass them all.
    let mut requests = Vec::new();
    for (provider, vectors) in all() {
        for vector in vectors.iter().filter(|vector| vector.answer.is_none()) {
            let accepted = matches!(vector.end(provider), End::Proven);
            requests.push(Judged::new(provider, vector, accepted));
        }
    }
    let (known, both, alone) = compare(&requests);
    assert!(alone.is_empty(), "{alone:#?}");
    assert!(known >= 900 && both >= 350, "{known} judged by both, {both} accepted");
}

#[test]
fn another_implementation_accepts_no_change_less() {
    // A forged event would be let in by a rule that only this program has.
    let cases: Vec<_> = super::spoilt::accepted()
        .filter_map(|(provider, vector)| Case::of(provider, vector))
        .collect();
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut requests = Vec::new();
    for turn in 0..CHANGES {
        let case = &cases[turn % cases.len()];
        let Some((vector, accepted)) = case.changed(&mut dice) else {
            continue;
        };
        requests.push(Judged::new(case.provider, &vector, accepted));
    }
    let (known, both, alone) = compare(&requests);
    assert!(alone.is_empty(), "{alone:#?}");
    assert!(
        known >= 15_000 && both >= 100,
        "{known} judged by both, {both} accepted"
    );
}
