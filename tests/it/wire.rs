//! Smuggling: raw requests that some proxy or server reads in another way than some other, against the gateway, in front
//! of an upstream that records and of real servers that judge.
//!
//! The oracle is always the same: whatever the upstream understood is a request that was meant to reach it, once, and
//! every answer is the answer to its own request, on connections that are kept and shared with somebody honest.

mod cases;
mod dice;
mod hidden;
mod judges;
mod play;
mod random;
mod readers;

use std::collections::BTreeMap;
use std::sync::Arc;

use cases::{Case, Expect, Kind};
use play::{Account, gateway};

use crate::harness::{Recorded, Upstream, until};

/// Cases of each class at least; what is one here has at least a handful of variants behind it.
const CLASSES: &[(&str, usize)] = &[
    ("0.CL", 50),
    ("CL bytes", 900),
    ("CL name", 800),
    ("CL value", 100),
    ("CL.0", 38),
    ("CL.CL", 120),
    ("CL.TE", 140),
    ("Connection", 140),
    ("HTTP/0.9", 20),
    ("HTTP/1.0", 10),
    ("HTTP/1.0 and TE", 40),
    ("Host", 75),
    ("TE.0", 20),
    ("TE.CL", 190),
    ("TE.TE", 3000),
    ("Upgrade", 15),
    ("absolute form", 95),
    ("chunk line", 450),
    ("chunk size", 1000),
    ("control", 500),
    ("cut", 45),
    ("early answer", 50),
    ("folding", 30),
    ("header name", 550),
    ("legal", 550),
    ("line end", 145),
    ("look-alike", 26),
    ("method", 110),
    ("request line", 2000),
    ("target", 300),
    ("trailer", 150),
];

/// The marker in a target.
fn marked(target: &str) -> Option<&str> {
    Some(target.split_once("?m=")?.1.split_once('.')?.0)
}

/// Answers with the target.
fn echo(_: usize, seen: &Recorded) -> Vec<u8> {
    let target = seen.head.split(' ').nth(1).unwrap_or_default();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()).into_bytes()
}

/// The upstream's side of the story: every request is one that was to come, with its body, once.
fn reconcile(seen: &[Recorded], cases: &[Case], account: &Account) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for request in seen {
        let mut line = request.head.lines().next().unwrap_or_default().split(' ');
        let target = line.nth(1).unwrap_or_default();
        let Some(id) = marked(target) else {
            wrong.push(format!("unknown: {}", request.head.escape_debug()));
            continue;
        };
        *times.entry(id).or_default() += 1;
        if let Ok(number) = id.parse::<usize>()
            && cases[number].body != request.body
        {
            wrong.push(format!("another body: {id} {}", request.body.escape_ascii()));
        }
        if target.starts_with("/webhooks/") {
            let framed = (request.count("content-length"), request.count("transfer-encoding"));
            if request.header("x-hookward-verified") != Some("verified") || framed != (1, 0) {
                wrong.push(format!("unverified: {}", request.head.escape_debug()));
            }
        }
    }
    for (id, times) in times {
        if times > 1 || !account.expects(id) {
            wrong.push(format!("{id} came {times} times"));
        }
    }
    let came = |id: &String| seen.iter().any(|request| marked(&request.head) == Some(id));
    wrong.extend(
        account
            .must
            .iter()
            .filter(|id| !came(id))
            .map(|id| format!("{id} never came")),
    );
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_as_many_cases_as_are_claimed() {
    // A table that lost its rows would still be green.
    let cases = cases::all();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        *count.entry(&case.class).or_default() += 1;
    }
    println!("{} cases: {count:?}", cases.len());
    let accepted = cases.iter().filter(|case| case.expect == Expect::Accepted).count();
    assert!(
        cases.len() >= 12_000 && accepted >= 2_000,
        "{} of {}",
        accepted,
        cases.len()
    );
    for (class, least) in CLASSES {
        assert!(count.get(class) >= Some(least), "{class}: {:?}", count.get(class));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_smuggled_past_the_gateway() {
    // One request that two readers read in two ways is one that nobody has verified, or an answer for somebody else.
    let upstream = Upstream::answering(echo).await;
    let gateway = gateway(upstream.address).await;
    let cases = Arc::new(cases::all());
    let account = play::all(gateway.address, &cases).await;
    let mut wrong = account.wrong.clone();
    wrong.extend(reconcile(&upstream.seen(), &cases, &account));
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
    // The gateway's own story: as many events and pages as the upstream saw.
    let (events, pages): (Vec<_>, Vec<_>) = upstream
        .seen()
        .into_iter()
        .partition(|seen| seen.head.contains(" /webhooks/"));
    let told = |outcome: &str| {
        gateway
            .logged()
            .iter()
            .filter(|line| line["outcome"] == outcome)
            .count()
    };
    until("the log to be whole", || {
        told("forwarded") >= events.len() && told("passed") >= pages.len()
    })
    .await;
    assert_eq!(told("forwarded"), events.len());
    // Connections were kept: smuggling shows on those alone.
    assert!(
        upstream.connections() * 10 < upstream.count(),
        "{} connections",
        upstream.connections()
    );
    let of_kind = |kind| cases.iter().filter(|case| case.kind == kind).count();
    println!(
        "{} cases ({} webhook, {} page), {} requests upstream over {} connections, {} honest ones beside them",
        cases.len(),
        of_kind(Kind::Webhook),
        of_kind(Kind::Page),
        upstream.count(),
        upstream.connections(),
        account.honest
    );
}
