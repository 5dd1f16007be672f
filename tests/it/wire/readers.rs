//! Paths as others read them. What is passed through must not be the path of a route to anybody who may be behind: the
//! readers are the URL parsers of Node and Python themselves (`tests/wire/readers.*`).

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::cases::folder;
use super::dice::{Dice, amount};
use crate::harness::process::run;
use crate::harness::{Client, Gateway, Upstream};
use crate::sdk::installed;

/// Paths of the routes.
const ROUTES: [&str; 5] = [
    "/webhooks/github",
    "/hooks/pay.php",
    "/stripe",
    "/a/b-c/d_e/",
    "/Case/Kept",
];

/// Routes at these paths, of the same provider.
fn yaml(upstream: &Upstream, passthrough: bool) -> String {
    let routes: String = ROUTES
        .iter()
        .enumerate()
        .map(|(n, path)| {
            format!("  - {{ name: r{n}, path: {path}, provider: github, upstream: app, secrets: [{{ value: a-secret-for-tests-only }}] }}\n")
        })
        .collect();
    let passthrough = if passthrough { "passthrough: app\n" } else { "" };
    format!(
        "limits: {{ client_rate: 1000000/s, client_burst: 1000000 }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n{routes}{passthrough}",
        upstream.address
    )
}

/// One of the ways to write a character.
fn letter(dice: &mut Dice, c: char) -> String {
    match dice.below(12) {
        0 => format!("%{:02x}", c as u32),
        1 => format!("%{:02X}", c as u32),
        2 => format!("%25{:02x}", c as u32),
        3 => c.to_ascii_uppercase().to_string(),
        4 => format!("%u{:04x}", c as u32),
        _ => c.to_string(),
    }
}

/// A path made of a route's, with whatever may stand before, between and behind its segments.
fn spelling(dice: &mut Dice, route: &str) -> String {
    let between = [
        "/",
        "/",
        "/",
        "/",
        "//",
        "/./",
        "/x/../",
        "%2f",
        "\\",
        "%5c",
        "/;a/",
        "/%2e/",
        "/%20/",
        "%252f",
        "%c0%af",
        "/.;/",
        "/x/..;/",
        "///",
        "/%00/",
        "/a/b/../../",
        "/.%2e/",
        "/x//../../",
        "/x%2fy/../",
        "/;/../",
        "/..;/../",
        "/x%5cy/../",
        "/%20/../",
        "//../",
    ];
    let before = [
        "",
        "",
        "",
        "/",
        "/x/..",
        "//x",
        "//user@x:80",
        "///x",
        "/\\x",
        "/index.php",
        "/.",
        "/%2f",
        "/%2e%2e",
        "/..",
        "/a/b/../..",
        "/http:/",
        "/http://x",
        "/~x",
        "/app.cgi",
        "//[::1]",
    ];
    let behind = [
        "", "", "", "/", "/.", "//", ";a=1", "?", "?a=1", "%00", "%20", ".json", ".", "/..", "/x/..", "%3f", "%23",
        "\\", "%0a", "+", "%09x", "/;", "..", "%2f", "?/../x", "/x",
    ];
    let mut path = dice.of(&before).to_owned();
    for segment in route.split('/').filter(|segment| !segment.is_empty()) {
        path.push_str(dice.of(&between));
        let plain = !dice.once_in(3);
        for c in segment.chars() {
            match plain {
                true => path.push(c),
                false => path.push_str(&letter(dice, c)),
            }
        }
    }
    if route.ends_with('/') && dice.once_in(2) {
        path.push('/');
    }
    path.push_str(dice.of(&behind));
    match path.starts_with('/') {
        true => path,
        false => format!("/{path}"),
    }
}

/// Different spellings, as many as asked for.
fn spellings(count: usize) -> Vec<String> {
    let mut dice = Dice::new(4711);
    let mut all = BTreeSet::new();
    while all.len() < count {
        let route = dice.of(&ROUTES).to_owned();
        all.insert(spelling(&mut dice, &route));
    }
    all.into_iter().collect()
}

/// Sends an unsigned request to each; the statuses.
async fn ask(gateway: &Gateway, targets: &[String]) -> Vec<(String, u16)> {
    let mut clients = JoinSet::new();
    for share in targets.chunks(targets.len().div_ceil(6)) {
        let (share, address) = (share.to_vec(), gateway.address);
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut told = Vec::new();
            for target in share {
                client
                    .send(
                        format!("POST {target} HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2\r\n\r\n{{}}")
                            .as_bytes(),
                    )
                    .await;
                let answer = client.answer().await;
                told.push((target, answer.status));
                if answer.header("connection") == Some("close") {
                    client = Client::connect(address).await;
                }
            }
            told
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// Whether a server might take `path`, as somebody read it, for the path of a route: names of files have no case on some
/// disks, and a slash at the end is nothing to most.
fn names_a_route(path: &str) -> bool {
    let alike = |path: &str| path.to_lowercase().trim_matches('/').to_owned();
    ROUTES.iter().any(|route| alike(route) == alike(path))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_behind_reads_the_path_of_a_route_where_the_gateway_reads_none() {
    // The gateway passes a path through, a framework's URL parser makes another one of it, and an unverified event is
    // handled.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&yaml(&upstream, true)).await;
    let spellings = spellings(amount(4000));
    let told = ask(&gateway, &spellings).await;
    assert_eq!(told.len(), spellings.len());
    // Of the exact paths, the proof is asked for; of all others, they pass or are refused.
    let mut passed = Vec::new();
    for (target, status) in &told {
        let path = target.split('?').next().unwrap();
        match (ROUTES.contains(&path), status) {
            (true, 401) | (false, 400) => {}
            (false, 200) => passed.push(target.as_str()),
            other => panic!("{other:?} {target}"),
        }
    }
    // What was passed through arrived as it was sent, and nothing else did.
    let mut seen: Vec<_> = upstream
        .seen()
        .into_iter()
        .map(|seen| seen.head.split(' ').nth(1).unwrap().to_owned())
        .collect();
    seen.sort();
    passed.sort();
    assert_eq!(seen, passed);
    assert!(passed.len() >= spellings.len() / 50, "{} pass", passed.len());
    let input = passed.join("\n") + "\n";
    let mut readings = 0;
    let mut taken = Vec::new();
    let readers = folder();
    for (program, script) in [
        ("node".into(), "readers.mjs"),
        (installed("python/bin/python"), "readers.py"),
    ] {
        let ended = run(&program, &[readers.join(script)], input.as_bytes()).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let lines: Vec<_> = ended.stdout.lines().collect();
        assert_eq!(lines.len(), passed.len(), "{script}");
        for (line, target) in lines.into_iter().zip(&passed) {
            for reading in serde_json::Deserializer::from_str(line).into_iter::<String>() {
                let reading = reading.unwrap();
                readings += 1;
                if names_a_route(&reading) {
                    taken.push(format!("{script}: {target} is {reading}"));
                }
            }
        }
    }
    taken.dedup();
    assert!(
        taken.is_empty(),
        "{} taken:\n{}",
        taken.len(),
        taken[..taken.len().min(30)].join("\n")
    );
    println!(
        "{} spellings of {} routes: {} passed through, {readings} readings of them, none of a route",
        spellings.len(),
        ROUTES.len(),
        passed.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pass_through_no_spelling_leads_anywhere() {
    // The same paths where nothing is to be passed through: a 404 or a 400, and for the exact path the question for proof.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&yaml(&upstream, false)).await;
    for (target, status) in ask(&gateway, &spellings(amount(4000))).await {
        let exact = ROUTES.contains(&target.split('?').next().unwrap());
        assert!(
            if exact {
                status == 401
            } else {
                matches!(status, 400 | 404)
            },
            "{status} {target}"
        );
    }
}
