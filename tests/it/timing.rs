//! No verdict takes longer the more of a signature is right: counted in instructions, which no noise disturbs.
//!
//! This binary runs itself under valgrind, which counts what happens inside of [`measured_verdict`] and writes a file for
//! each call. Elapsed time would be of no use here: a machine that is busy hides any leak.

use std::path::Path;
use std::sync::Arc;

use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature::{Head, KeyedSecret, Verifier, VerifierOptions, sign};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::process::Command;

use crate::harness::NOW;
use crate::harness::process::{TestFile, complete};

const BODY: &[u8] = br#"{"id":"evt_1","type":"invoice.paid"}"#;

/// One for each way of comparing: hexadecimal, base64, a list of fields, a list of versions, a token, a password.
const PROVIDERS: [(&str, &str); 6] = [
    ("github", "a-secret-of-some-length"),
    ("shopify", "a-secret-of-some-length"),
    ("stripe", "a-secret-of-some-length"),
    ("standard-webhooks", "whsec_YS1zZWNyZXQtZm9yLXRlc3RzLW9ubHk="),
    ("gitlab", "a-token-that-is-0f-some-length"),
    ("postmark", "user:a-password-of-some-length"),
];

/// Rounds of the three wrong signatures, each round in another order. The first ones make tables, and do not count.
const ROUNDS: usize = 9;

/// Rounds that count.
const SETTLED: usize = 6;

#[inline(never)]
fn measured_verdict(verifier: &Verifier, headers: &HeaderMap) -> bool {
    let head = Head {
        method: &Method::POST,
        target: "/in",
        headers,
    };
    let mut check = verifier.begin(head, NOW);
    check.update(BODY);
    check.finish(BODY).is_ok()
}

/// Verifier, and the headers with a signature that is wrong in its first, a middle and its last letter.
fn case(provider: &str, secret: &str) -> (Verifier, [Vec<(HeaderName, String)>; 3]) {
    let provider = builtin().find(provider).unwrap();
    let secret = Secret::new(secret).unwrap();
    let signed = sign(&provider.scheme, &secret, "msg_1", NOW, BODY).unwrap();
    let value = &signed.last().unwrap().1;
    let digits = value.trim_end_matches('=');
    let begins = match digits.strip_prefix("Basic ") {
        Some(_) => "Basic ".len(),
        None => digits.rfind(['=', ',']).map_or(0, |at| at + 1),
    };
    // The last letter of base64 holds bits that do not count; the one before it does.
    let ends = digits.len() - 1 - usize::from(digits != value);
    let wrong_at = |at: usize| {
        let mut text = value.clone().into_bytes();
        text[at] = neighbour(text[at]);
        let mut pairs = signed.clone();
        pairs.last_mut().unwrap().1 = String::from_utf8(text).unwrap();
        pairs
    };
    let keyed = KeyedSecret {
        id: "key".into(),
        secret,
        until: None,
    };
    let verifier = Verifier::new(Arc::clone(&provider.scheme), vec![keyed], VerifierOptions::default()).unwrap();
    (verifier, [begins, (begins + ends) / 2, ends].map(wrong_at))
}

/// Another letter of the same kind: what is presented is read letter by letter, digits by other instructions than others.
fn neighbour(letter: u8) -> u8 {
    match letter {
        b'9' => b'8',
        b'f' => b'e',
        b'Z' => b'Y',
        b'z' => b'y',
        other => other + 1,
    }
}

/// Which signature a call gets: all three in each round, in turning order.
fn wrong_in(call: usize) -> usize {
    (call / 3 + call) % 3
}

/// What the other test runs under valgrind.
#[test]
#[ignore = "is run by the test below"]
fn verdicts() {
    for (provider, secret) in PROVIDERS {
        let (verifier, wrong) = case(provider, secret);
        for call in 0..ROUNDS * 3 {
            // Made anew for each call, and so at few places: a comparison that crosses a page takes another way.
            let pairs = &wrong[wrong_in(call)];
            let value = |text: &str| HeaderValue::from_str(text).unwrap();
            let headers: HeaderMap = pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect();
            assert!(!measured_verdict(&verifier, &headers), "{provider}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_takes_as_long_wherever_the_signature_is_wrong() {
    // Who can measure how far a comparison came guesses a signature letter by letter.
    let out = TestFile::new("callgrind.out", "");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--collect-atstart=no", "--combine-dumps=no"]);
    command.args([
        "--toggle-collect=it::timing::measured_verdict",
        "--dump-after=it::timing::measured_verdict",
    ]);
    command.arg(format!("--callgrind-out-file={}", out.name()));
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "timing::verdicts", "--ignored", "--test-threads=1"]);
    let ended = complete(command, b"").await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let calls = PROVIDERS.len() * ROUNDS * 3;
    let counts: Vec<u64> = (1..=calls)
        .map(|call| instructions(&out.beside(&format!("callgrind.out.{call}"))))
        .collect();
    for ((provider, _), counts) in PROVIDERS.iter().zip(counts.chunks(ROUNDS * 3)) {
        // The least of each, as it does not depend on where the allocator put things.
        let least = |which: usize| {
            let settled = (ROUNDS - SETTLED) * 3..ROUNDS * 3;
            let own = settled.filter(|call| wrong_in(*call) == which);
            own.map(|call| counts[call]).min().unwrap()
        };
        let all = [0, 1, 2].map(least);
        assert!(
            all[0] > 1_000 && all == [all[0]; 3],
            "{provider}: {all:?} of {counts:?}"
        );
    }
}

fn instructions(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let line = text.lines().find_map(|line| line.strip_prefix("summary: ")).unwrap();
    line.trim().parse().unwrap()
}
