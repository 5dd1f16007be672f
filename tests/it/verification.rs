//! Proof from end to end: what is genuine arrives, what is not looks the same to everybody who sends it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookward::clock::UnixMillis;
use hookward::providers::{Provider, ProviderFile, builtin};
use hookward::secret::Secret;
use hookward::signature;
use serde::Deserialize;

use crate::harness::{Answer, Client, Conf, Event, Gateway, NOW, PROVIDERS, SECRET, Upstream, request, secret_of};

/// No secret of anything, in a form that every provider takes.
const GUESSED: &str = "whsec_Z3Vlc3NlZC1ieS1hLXN0cmFuZ2Vy";

async fn send(gateway: &Gateway, event: &Event) -> Answer {
    request(gateway.address, &event.bytes()).await
}

fn every_provider(conf: Conf) -> Conf {
    PROVIDERS.iter().fold(conf, |conf, provider| {
        conf.route(provider, "limits: { rate: 100000/s, burst: 100000 }")
    })
}

/// The names of the headers that a provider's verdict depends on.
fn security_headers(provider: &str) -> Vec<String> {
    let headers = builtin().find(provider).unwrap().scheme.security_headers();
    headers.iter().map(|name| name.as_str().to_owned()).collect()
}

fn signature_header(provider: &str) -> String {
    security_headers(provider).remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_signed_arrives_as_it_was_signed() {
    // A provider whose body is binary, empty or in pieces would be locked out, or see its bytes changed on the way.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&every_provider(Conf::to(upstream.address)).yaml()).await;
    let lengths = [
        0, 1, 2, 55, 56, 63, 64, 65, 127, 128, 1000, 4096, 65_535, 65_536, 65_537, 200_000,
    ];
    let mut sent = Vec::new();
    for provider in PROVIDERS {
        let mut client = Client::connect(gateway.address).await;
        for length in lengths {
            let body: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8).collect();
            let event = Event {
                body,
                ..Event::of(provider, "1")
            };
            let event = event.sign(provider, &format!("{length}"), NOW, secret_of(provider));
            client.send(&event.bytes()).await;
            assert_eq!(client.answer().await.status, 200, "{provider}, {length} bytes");
            sent.push(event.body);
        }
    }
    let seen: Vec<_> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert!(seen == sent, "a body differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failed_proof_is_refused_in_the_same_words() {
    // "Stale" tells a forger that the key was right, "malformed" what to mend, "unknown key" whom to ask.
    let upstream = Upstream::unreachable().await;
    let mut conf = every_provider(Conf::to(upstream.address));
    for provider in PROVIDERS {
        let secret = format!("value: {}, until: 2023-11-14T23:00:00Z", secret_of(provider));
        let verified = format!("provider: {provider}, secrets: [{{ {secret} }}]");
        conf = conf.route_called(&format!("{provider}-expired"), &verified, "");
    }
    let gateway = Gateway::start(&conf.yaml()).await;
    gateway.clock.advance(Duration::from_secs(7200));
    let now = UnixMillis(NOW.0 + 7_200_000);
    let mut cases: Vec<(String, &str, Event)> = Vec::new();
    for provider in PROVIDERS {
        let header = signature_header(provider);
        let good = Event::signed_at(provider, "1", now);
        let mut unreadable = good.clone();
        unreadable.set(&header, "?!");
        let mut changed = good.clone();
        *changed.body.last_mut().unwrap() = b']';
        let mut add = |what: &str, reason, event: Event| cases.push((format!("{provider}, {what}"), reason, event));
        for name in security_headers(provider) {
            add(&format!("no {name}"), "missing", good.clone().without(&name));
        }
        add("an unreadable signature", "malformed", unreadable);
        add("a changed body", "mismatch", changed);
        add(
            "another secret",
            "mismatch",
            Event::signed_with(provider, "1", now, GUESSED),
        );
        add(
            "an expired secret",
            "unknown_key",
            good.to(&format!("/webhooks/{provider}-expired")),
        );
        if builtin().find(provider).unwrap().scheme.tolerance().is_some() {
            for (what, at) in [("old", now.0 - 301_000), ("ahead", now.0 + 301_000)] {
                add(what, "stale", Event::signed_at(provider, "1", UnixMillis(at)));
            }
        }
    }
    let mut seen: BTreeMap<(String, Vec<u8>), Vec<&str>> = BTreeMap::new();
    for (n, (what, reason, event)) in cases.iter().enumerate() {
        let answer = send(&gateway, event).await;
        assert_eq!(answer.status, 401, "{what}");
        let line = &gateway.lines(n + 1).await[n];
        assert_eq!(
            (&line["stage"], &line["reason"]),
            (&"verify".into(), &(*reason).into()),
            "{what}"
        );
        let head = answer
            .head
            .lines()
            .filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
        seen.entry((head.collect::<Vec<_>>().join("\r\n"), answer.body))
            .or_default()
            .push(what);
    }
    assert_eq!(cases.len(), 34);
    assert_eq!(seen.len(), 1, "told apart: {seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_ends_in_the_instant_its_until_says() {
    // A leaked secret that works a second longer than announced is a leaked secret; one that ends a second early
    // loses events.
    const OLD: &str = "the-old-secret-of-the-route";
    let upstream = Upstream::ok().await;
    let secrets = format!("[{{ value: {SECRET}, id: new }}, {{ value: {OLD}, id: old, until: 2023-11-14T22:14:20Z }}]");
    let conf = Conf::to(upstream.address)
        .route_called("github", &format!("provider: github, secrets: {secrets}"), "")
        .route_called("stripe", &format!("provider: stripe, secrets: {secrets}"), "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let series = |route: &str, key: &str| format!("hookward_verified_total{{key_id=\"{key}\",route=\"{route}\"}}");
    let mut elapsed = 0;
    let mut lines = 0;
    // From one minute before the end.
    for (at_ms, old_status) in [(0, 200), (59_999, 200), (60_000, 401), (60_001, 401), (120_000, 401)] {
        gateway.clock.advance(Duration::from_millis(at_ms - elapsed));
        elapsed = at_ms;
        let now = UnixMillis(NOW.0 + at_ms);
        for provider in ["github", "stripe"] {
            for (secret, key, status) in [(OLD, "old", old_status), (SECRET, "new", 200)] {
                let event = Event::signed_with(provider, &format!("{at_ms}-{key}"), now, secret);
                assert_eq!(
                    send(&gateway, &event).await.status,
                    status,
                    "{provider}, {key} at {at_ms} ms"
                );
                lines += 1;
                let line = &gateway.lines(lines).await[lines - 1];
                let proven = (status == 200).then_some(key);
                assert_eq!(line["key_id"].as_str(), proven, "{provider}, {key} at {at_ms} ms");
            }
        }
    }
    for route in ["github", "stripe"] {
        let count = |key| gateway.metric(&series(route, key));
        assert_eq!((count("old"), count("new")), (2.0, 5.0), "{route}");
    }
    // Signed with both, as during a roll: proven by the one that counts.
    let mut both = Event::signed_with("stripe", "both", UnixMillis(NOW.0 + elapsed), OLD);
    let new = Event::signed_at("stripe", "both", UnixMillis(NOW.0 + elapsed));
    let v1 = new.value("stripe-signature").split_once(',').unwrap().1.to_owned();
    both.set("stripe-signature", &format!("{},{v1}", both.value("stripe-signature")));
    assert_eq!(send(&gateway, &both).await.status, 200);
    assert_eq!(gateway.metric(&series("stripe", "new")), 6.0);
    assert_eq!(upstream.count(), 15);
}

/// The schemes of `conf/reference.yaml`, as a user may write them.
fn reference_schemes() -> BTreeMap<String, serde_yaml::Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf/reference.yaml");
    let file: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_yaml::from_value(file["schemes"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheme_of_ones_own_is_verified_like_a_built_in_one() {
    // Whoever signs in a way that we do not know is who needs the language; it has to say what it seems to say.
    let upstream = Upstream::ok().await;
    let schemes = reference_schemes();
    let secrets = BTreeMap::from([
        ("house", "a plain text of some length"),
        ("ledger", "000102030405060708090a0b0c0d0e0f10"),
        ("partner", "YS1zZWNyZXQtZm9yLXRlc3RzLW9ubHk="),
    ]);
    for (name, file) in &schemes {
        let file: ProviderFile = serde_yaml::from_value(file.clone()).unwrap();
        assert!(Provider::own(name, &file).is_ok(), "{name}");
    }
    let json: BTreeMap<_, serde_json::Value> = schemes
        .iter()
        .filter(|(name, _)| secrets.contains_key(name.as_str()))
        .map(|(name, file)| (name, serde_json::to_value(file).unwrap()))
        .collect();
    let mut conf = Conf::to(upstream.address).top(&format!("schemes: {}", serde_json::to_string(&json).unwrap()));
    for (name, secret) in &secrets {
        let verified = format!("scheme: {name}, secrets: [{{ value: \"{secret}\" }}]");
        let told = match *name {
            "house" => "settings: { greeting_token: a-word }",
            // Its events can be alike, it says; this route knows better.
            "partner" => "replay: { keep: 1h }",
            _ => "",
        };
        conf = conf.route_called(name, &verified, told);
    }
    let gateway = Gateway::start(&conf.yaml()).await;
    for (n, (name, secret)) in secrets.iter().enumerate() {
        let file: ProviderFile = serde_yaml::from_value(schemes[*name].clone()).unwrap();
        let scheme = Provider::own(name, &file).unwrap().scheme;
        let sign = |secret: &str, at: u64| {
            let secret = Secret::new(secret).unwrap();
            let body = br#"{"id":"1","kind":"greeting"}"#.to_vec();
            let headers = signature::sign(&scheme, &secret, "id-1", UnixMillis(at), &body).unwrap();
            Event {
                path: format!("/webhooks/{name}"),
                headers: headers
                    .into_iter()
                    .map(|(name, value)| (name.to_string(), value))
                    .collect(),
                body,
            }
        };
        let good = sign(secret, NOW.0);
        assert_eq!(send(&gateway, &good).await.status, 200, "{name}");
        assert_eq!(send(&gateway, &good).await.status, 200, "{name}, again");
        let seen = upstream.seen();
        assert_eq!(
            (seen.len(), seen[n].header("x-hookward-provider")),
            (n + 1, Some(*name))
        );
        let mut changed = good.clone();
        changed.body[7] = b'2';
        let wrong: String = secret.chars().rev().collect();
        let wrong = if *name == "partner" {
            "YW5vdGhlci1zZWNyZXQtYWx0b2dldGhlcg==".to_owned()
        } else {
            wrong
        };
        let bad = [
            changed,
            sign(&wrong, NOW.0),
            sign(secret, NOW.0 - 301_000),
            sign(secret, NOW.0 + 301_000),
        ];
        for (which, event) in bad.iter().enumerate() {
            assert_eq!(send(&gateway, event).await.status, 401, "{name}, {which}");
        }
    }
    assert_eq!(upstream.count(), secrets.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_word_about_the_signature_is_refused() {
    // The gateway would judge by one of them and the backend read the other.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&every_provider(Conf::to(upstream.address)).yaml()).await;
    let mut tried = 0;
    for provider in PROVIDERS {
        for name in security_headers(provider) {
            let good = Event::of(provider, "1");
            let value = good.value(&name).to_owned();
            let other = Event::signed_with(provider, "2", UnixMillis(NOW.0 + 1000), GUESSED);
            let other = other.value(&name).to_owned();
            let alike = name.replacen('-', "_", 1);
            let first = |event: &Event, name: &str, value: &str| {
                let mut event = event.clone();
                event.headers.insert(0, (name.to_owned(), value.to_owned()));
                event
            };
            let variants = [
                good.clone().with(&name, &value),
                good.clone().with(&name, &other),
                first(&good, &name, &other),
                good.clone().with(&name, ""),
                first(&good, &name, ""),
                good.clone().with(&name.to_uppercase(), &value),
                good.clone().with(&alike, &other),
                first(&good, &alike, &other),
                good.clone().with(&name.replace('-', "_"), &value),
                good.clone().without(&name).with(&alike, &value),
            ];
            for (which, variant) in variants.iter().enumerate() {
                let mut client = Client::connect(gateway.address).await;
                client.send(&variant.bytes()).await;
                let answer = client.answer().await;
                assert_eq!(
                    (answer.status, answer.text()),
                    (400, "ambiguous_header\n"),
                    "{name}, variant {which}"
                );
                assert!(client.closes().await, "{name}, variant {which}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 80);
}

/// Requests that differ from a genuine one in a single thing that is signed or that signs.
fn mutants(provider: &str) -> Vec<Event> {
    let good = Event::of(provider, "event-1");
    let mut mutants = Vec::new();
    let last = good.body.len() - 1;
    for at in [0, 1, last / 3, last / 2, last - 1, last] {
        let mut event = good.clone();
        event.body[at] ^= 1;
        mutants.push(event);
    }
    for body in [
        good.body[..last].to_vec(),
        good.body[1..].to_vec(),
        [&good.body[..], b"\n"].concat(),
        [b" ", &good.body[..]].concat(),
        [&good.body[..], &good.body[..]].concat(),
        Vec::new(),
    ] {
        mutants.push(Event { body, ..good.clone() });
    }
    for name in security_headers(provider) {
        let value = good.value(&name).to_owned();
        let half = value.len() / 2;
        let flipped = |at: usize| {
            let mut bytes = value.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            String::from_utf8(bytes).unwrap()
        };
        // The last character of base64 may be padding; the one before it holds bits that count.
        let unpadded = value.trim_end_matches('=').len();
        let variants = [
            flipped(half),
            flipped(unpadded - 2),
            value[..half].to_owned(),
            value[half..].to_owned(),
            format!("{value}1"),
            format!("1{value}"),
            value.chars().rev().collect(),
            String::new(),
        ];
        for variant in variants {
            let mut event = good.clone();
            event.set(&name, &variant);
            mutants.push(event);
        }
    }
    mutants.push(Event::signed_with(provider, "event-1", NOW, GUESSED));
    let of_another = Event::signed_with(provider, "event-2", NOW, secret_of(provider));
    mutants.push(Event {
        body: good.body.clone(),
        ..of_another
    });
    mutants
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mutant_of_a_genuine_request_arrives() {
    // One bit that the proof does not cover is one bit that an attacker may choose.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&every_provider(Conf::to(upstream.address)).yaml()).await;
    for provider in PROVIDERS {
        let mutants = mutants(provider);
        assert!(mutants.len() >= 20, "{provider}: {}", mutants.len());
        for (which, mutant) in mutants.iter().enumerate() {
            let status = send(&gateway, mutant).await.status;
            assert_eq!(status, 401, "{provider}, mutant {which}: {:?}", mutant.headers);
        }
    }
    assert_eq!(gateway.metric("hookward_replay_entries"), 0.0);
}

/// A request with the verdict it must get; `tests/vectors/` says where it comes from.
#[derive(Deserialize)]
struct Vector {
    case: String,
    expect: String,
    secrets: Vec<String>,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    body_base64: Option<String>,
    #[serde(default = "some_day")]
    now: u64,
    answer: Option<Reply>,
}

/// What a handshake is answered with.
#[derive(Deserialize)]
struct Reply {
    status: u16,
    text: String,
}

fn some_day() -> u64 {
    1_700_000_000
}

impl Vector {
    fn event(&self, path: &str) -> Event {
        let decoded = self.body_base64.as_ref().map(|text| STANDARD.decode(text).unwrap());
        Event {
            path: path.to_owned(),
            headers: self.headers.clone(),
            body: decoded.unwrap_or_else(|| self.body.clone().into_bytes()),
        }
    }

    fn repeats_a_header(&self) -> bool {
        let mut names: Vec<_> = self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }
}

fn vectors_of(provider: &str) -> Vec<Vector> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{provider}.yaml"));
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_vector_gets_its_verdict_over_a_socket() {
    // What the vendors' own documents and libraries say about these very bytes, with everything between in play.
    let mut tried = 0;
    for provider in PROVIDERS {
        for vector in vectors_of(provider) {
            let label = format!("{provider}: {}", vector.case);
            let upstream = Upstream::ok().await;
            let secrets: Vec<_> = vector
                .secrets
                .iter()
                .map(|secret| format!("{{ value: {secret:?} }}"))
                .collect();
            let verified = format!("provider: {provider}, secrets: [{}]", secrets.join(", "));
            let conf = Conf::to(upstream.address).route_called("vector", &verified, "short_secrets: true");
            tried += 1;
            // A secret that makes no verifier stops the start.
            let Some(gateway) = Gateway::try_start(&conf.yaml()).await else {
                assert_eq!(vector.expect, "reject", "{label}");
                continue;
            };
            gateway.clock.set_wall(UnixMillis::from_seconds(vector.now));
            let answer = send(&gateway, &vector.event("/webhooks/vector")).await;
            match (vector.expect.as_str(), &vector.answer) {
                // The verifier alone can live with one signature said twice; a gateway has a backend behind it.
                _ if vector.repeats_a_header() => assert_eq!((answer.status, upstream.count()), (400, 0), "{label}"),
                ("accept", None) => assert_eq!((answer.status, upstream.count()), (200, 1), "{label}"),
                ("accept", Some(reply)) => {
                    assert_eq!(
                        (answer.status, answer.text()),
                        (reply.status, reply.text.as_str()),
                        "{label}"
                    );
                    assert_eq!(upstream.count(), 0, "{label}");
                }
                _ => {
                    assert!((400..500).contains(&answer.status), "{label}: {}", answer.status);
                    assert_eq!(upstream.count(), 0, "{label}");
                }
            }
        }
    }
    assert!(tried >= 49, "{tried}");
}
