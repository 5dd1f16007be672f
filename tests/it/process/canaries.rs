//! A whole life of a gateway at the most talkative level, with a canary in every place that something secret can be:
//! every stage and nearly every refusal, both ways to answer, deliveries that fail, reloads that are refused, and each
//! command an operator has. Then every output is searched.

use std::net::SocketAddr;

use hookward::clock::{Clock, UnixMillis};
use hookward::secret::Secret;
use hookward::signature;
use http::Request;

use super::secrecy::absent;
use super::{genuine, get};
use crate::harness::process::{HOOKWARD, Running, TestFile, hookward, run};
use crate::harness::{Act, Client, Folder, H2, Upstream, request};

const GITHUB: &str = "canary-secret-of-github-and-its-like";
const TOKEN: &str = "canary-secret-that-is-sent-each-time";
const VERIFY: &str = "canary-word-for-a-handshake";
const API: &str = "canary-secret-of-the-operators";
const FOREIGN: &str = "canary-secret-of-another-place";
/// 24 bytes and more in base64: a secret of Standard Webhooks, and one to sign anew with.
const WHSEC: &str = "whsec_Y2FuYXJ5IG9mIHN0YW5kYXJkIHdlYmhvb2tz";
const RESIGN: &str = "whsec_Y2FuYXJ5IG9mIHdoYXQgaXMgc2lnbmVkIGFuZXc=";

const BODY: &str = "canary-of-a-body";
const HEADER: &str = "canary-of-some-header";
const QUERY: &str = "canary-of-some-query";
const ANSWER: &str = "canary-of-an-answer";
const MISPLACED: &str = "canary-that-was-put-into-a-wrong-place";

/// The bytes behind a secret of Standard Webhooks.
fn whsec_key(text: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(&text[6..]).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn yaml(upstream: SocketAddr, folder: &Folder) -> String {
    let route =
        |name: &str, more: &str| format!("  - {{ name: {name}, path: /webhooks/{name}, upstream: app, {more} }}\n");
    let github = format!("provider: github, secrets: [{{ value: {GITHUB} }}]");
    let routes = [
        route("github", &format!("{github}, limits: {{ body: 16KiB }}")),
        route("rare", &format!("{github}, limits: {{ rate: 1/h, burst: 1 }}")),
        route(
            "expired",
            &format!(
                "provider: github, secrets: [{{ value: {GITHUB}, until: 2020-01-01T00:00:00Z }}, {{ value: {TOKEN} }}]"
            ),
        ),
        route(
            "stripe",
            &format!(
                "provider: stripe, secrets: [{{ value: {GITHUB} }}], resign: {{ secrets: [{{ value: \"{RESIGN}\" }}] }}"
            ),
        ),
        route(
            "standard",
            &format!("provider: standard-webhooks, secrets: [{{ value: \"{WHSEC}\" }}]"),
        ),
        route("gitlab", &format!("provider: gitlab, secrets: [{{ value: {TOKEN} }}]")),
        route(
            "meta",
            &format!("provider: meta, secrets: [{{ value: {GITHUB} }}], settings: {{ verify_token: \"{VERIFY}\" }}"),
        ),
        route("slack", &format!("provider: slack, secrets: [{{ value: {GITHUB} }}]")),
        route(
            "queued",
            &format!("{github}, deliver: queue, retry: {{ schedule: [10ms] }}"),
        ),
        route(
            "queued-token",
            &format!(
                "provider: gitlab, secrets: [{{ value: {TOKEN} }}], deliver: queue, retry: {{ schedule: [10ms] }}"
            ),
        ),
    ];
    format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
         client: {{ head_bytes: 4KiB, head_timeout: 400ms, body_timeout: 400ms }}\n\
         drain: 300ms\nlog: {{ level: trace, format: json }}\napi: {{ secrets: [{{ value: {API} }}] }}\n\
         data: {{ dir: \"{}\" }}\nupstreams:\n  app: {{ servers: [\"{upstream}\"], timeout: 400ms }}\n\
         routes:\n{}passthrough: app\n",
        folder.path().display(),
        routes.concat()
    )
}

/// Signs as `genuine`, and keeps the signature to be looked for.
struct Sent {
    requests: Vec<(&'static str, Vec<u8>, u16)>,
    signatures: Vec<String>,
}

impl Sent {
    fn add(&mut self, what: &'static str, bytes: Vec<u8>, status: u16) {
        let text = String::from_utf8_lossy(&bytes);
        for mark in ["sha256=", "v1=", "v1,", "v0="] {
            let found = text.split(mark).skip(1).filter_map(|rest| rest.get(..40));
            let found = found.filter(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)));
            self.signatures.extend(found.map(str::to_owned));
        }
        self.requests.push((what, bytes, status));
    }
}

/// One request for nearly every end there is.
fn requests() -> Sent {
    let mut sent = Sent {
        requests: Vec::new(),
        signatures: Vec::new(),
    };
    let more = format!("Authorization: Bearer {HEADER}\r\nCookie: {HEADER}\r\nX-Api-Key: {HEADER}\r\n");
    let body = |n: u32| format!("{{\"n\":{n},\"text\":\"{BODY}\"}}").into_bytes();
    let at = |path: &str| format!("{path}?token={QUERY}");
    let of = |provider: &str, secret: &str, route: &str, n: u32, more: &str| {
        genuine(provider, secret, &at(&format!("/webhooks/{route}")), more, &body(n))
    };
    let acting = |act: &str| format!("{more}X-Act: {act}\r\n");
    let changed =
        |bytes: Vec<u8>, from: &str, to: &str| String::from_utf8(bytes).unwrap().replacen(from, to, 1).into_bytes();
    let good = |n: u32| of("github", GITHUB, "github", n, &more);

    sent.add("forwarded", good(1), 200);
    sent.add("a repeat", good(1), 200);
    sent.add("stripe, signed anew", of("stripe", GITHUB, "stripe", 2, &more), 200);
    sent.add("standard", of("standard-webhooks", WHSEC, "standard", 3, &more), 200);
    sent.add("a token", of("gitlab", TOKEN, "gitlab", 4, &more), 200);
    sent.add("a wrong token", of("gitlab", FOREIGN, "gitlab", 5, &more), 401);
    sent.add("queued", of("github", GITHUB, "queued", 6, &acting("fail")), 200);
    sent.add(
        "queued, with a token",
        of("gitlab", TOKEN, "queued-token", 7, &acting("reset")),
        200,
    );
    sent.add(
        "upstream_down",
        of("github", GITHUB, "github", 8, &acting("reset")),
        502,
    );
    sent.add(
        "no HTTP for an answer",
        of("github", GITHUB, "github", 9, &acting("babble")),
        502,
    );
    sent.add(
        "upstream_timeout",
        of("github", GITHUB, "github", 10, &acting("sleep")),
        504,
    );
    sent.add(
        "an upstream's own refusal",
        of("github", GITHUB, "github", 11, &acting("fail")),
        500,
    );
    sent.add("mismatch", of("github", FOREIGN, "github", 12, &more), 401);
    sent.add("an expired secret", of("github", GITHUB, "expired", 13, &more), 401);
    sent.add("malformed", changed(good(14), "sha256=", "sha1="), 401);
    sent.add("missing", changed(good(15), "sha256=", "sha256:"), 401);
    sent.add(
        "no signature at all",
        changed(good(16), "x-hub-signature-256", "x-hub"),
        401,
    );
    sent.add("route_rate, the first", of("github", GITHUB, "rare", 17, &more), 200);
    sent.add("route_rate", of("github", GITHUB, "rare", 18, &more), 429);
    sent.add(
        "ambiguous_header",
        of(
            "github",
            GITHUB,
            "github",
            19,
            &format!("{more}X-Hub-Signature-256: {HEADER}\r\n"),
        ),
        400,
    );
    sent.add(
        "bad_framing",
        of(
            "github",
            GITHUB,
            "github",
            20,
            &format!("{more}Transfer-Encoding: {HEADER}\r\n"),
        ),
        400,
    );
    sent.add(
        "a bad name",
        of("github", GITHUB, "github", 21, &format!("{more}{HEADER} : 1\r\n")),
        400,
    );
    sent.add(
        "a bare line feed",
        of("github", GITHUB, "github", 22, &format!("{more}X: {HEADER}\n")),
        400,
    );
    sent.add(
        "head too_large",
        of(
            "github",
            GITHUB,
            "github",
            23,
            &format!("{more}X: {}\r\n", HEADER.repeat(300)),
        ),
        431,
    );
    sent.add(
        "encoded",
        of(
            "github",
            GITHUB,
            "github",
            24,
            &format!("{more}Content-Encoding: gzip\r\n"),
        ),
        415,
    );
    sent.add(
        "body too_large",
        genuine(
            "github",
            GITHUB,
            &at("/webhooks/github"),
            &more,
            BODY.repeat(2000).as_bytes(),
        ),
        413,
    );
    sent.add("method", changed(good(25), "POST", "PUT"), 405);
    sent.add(
        "ambiguous_path",
        changed(good(26), "/webhooks/github", "/webhooks//github"),
        400,
    );
    sent.add(
        "a bad target",
        changed(good(27), "/webhooks/github", "/webhooks/<github>"),
        400,
    );
    sent.add("passed through", changed(good(28), "/webhooks/github", "/app"), 200);
    sent.add(
        "passed through to nobody",
        changed(
            of("github", GITHUB, "github", 29, &acting("babble")),
            "/webhooks/github",
            "/app",
        ),
        502,
    );
    sent.add("stale", stale(), 401);
    sent.add("a handshake", handshake(VERIFY), 200);
    sent.add("a handshake of a stranger", handshake(FOREIGN), 401);
    let challenge = format!("{{\"type\":\"url_verification\",\"challenge\":\"{BODY}\"}}");
    sent.add(
        "a signed handshake",
        genuine("slack", GITHUB, "/webhooks/slack", &more, challenge.as_bytes()),
        200,
    );
    sent.add("chunks that are none", chunks("zz"), 400);
    sent
}

fn stale() -> Vec<u8> {
    let scheme = hookward::providers::builtin().find("stripe").unwrap().scheme.clone();
    let body = format!("{{\"text\":\"{BODY}\"}}");
    let signed = signature::sign(
        &scheme,
        &Secret::new(GITHUB).unwrap(),
        "",
        UnixMillis(1_700_000_000_000),
        body.as_bytes(),
    );
    let (name, value) = &signed.unwrap()[0];
    let length = body.len();
    format!("POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn handshake(word: &str) -> Vec<u8> {
    let query = format!("hub.mode=subscribe&hub.challenge=12345&hub.verify_token={word}");
    format!("GET /webhooks/meta?{query} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn chunks(size: &str) -> Vec<u8> {
    format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n{BODY}\r\n0\r\n\r\n"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_tells_nothing() {
    // Logs, metrics and what operators paste into tickets are read by more people than may forge events.
    let folder = Folder::new();
    let upstream = Upstream::acting(|_, seen| {
        let answer = |status: u16| {
            let length = ANSWER.len();
            format!("HTTP/1.1 {status} X\r\nX-Token: {ANSWER}\r\nSet-Cookie: {ANSWER}\r\nContent-Length: {length}\r\n\r\n{ANSWER}").into_bytes()
        };
        match seen.header("x-act") {
            Some("reset") => Act::Reset,
            Some("sleep") => Act::Silence,
            Some("babble") => Act::Answer(format!("no HTTP but {ANSWER}\r\n\r\n").into_bytes()),
            Some("fail") => Act::Answer(answer(500)),
            _ => Act::Answer(answer(200)),
        }
    })
    .await;
    let text = yaml(upstream.address, &folder);
    let mut gateway = Running::start(&text).await;
    let sent = requests();
    for (what, bytes, status) in &sent.requests {
        let answer = request(gateway.address, bytes).await;
        assert_eq!(answer.status, *status, "{what}\n{}", gateway.process.said());
    }
    half_requests(gateway.address).await;
    over_http_2(gateway.address).await;
    strangers_at_the_desk(gateway.admin).await;
    // Both queued events are given up after their second attempt.
    let config = TestFile::new(
        "running.yaml",
        format!("listen: [127.0.0.1:0]\nadmin: {}\n{text}", gateway.admin),
    );
    let shown = events(config.name(), 2).await;
    let mistakes = [
        text.replacen(GITHUB, &format!("[{MISPLACED}]"), 1),
        text.replacen("value: ", &format!("{MISPLACED}: "), 1),
        text.replacen("secrets: [", &format!("secrets: {MISPLACED} ["), 1),
        text.replacen(&format!("value: {TOKEN}"), &format!("vaule: {TOKEN}"), 1),
        text.replacen(WHSEC, &format!("whsec_{MISPLACED}"), 1),
        text.replacen(VERIFY, "\"\"", 1),
    ];
    let mut commands = String::new();
    for mistake in mistakes {
        gateway.rewrite(&mistake);
        gateway.process.signal("HUP").await;
        gateway
            .process
            .stderr
            .until("another refusal", |told| told.ends_with("stays\n"))
            .await;
        let ended = hookward(&["check", gateway.file.name()]).await;
        assert_ne!(ended.code, Some(0), "{mistake}");
        commands += &(ended.stdout + &ended.stderr);
    }
    gateway.rewrite(&text);
    let metrics = get(gateway.admin, "/metrics").await.text().to_owned();
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await, Some(0));
    commands += &told_by_commands(&gateway.file, &sent).await;
    let said = gateway.process.said();
    for line in said.lines() {
        assert!(
            !line.chars().any(char::is_control),
            "a terminal would obey: {}",
            line.escape_debug()
        );
    }
    assert!(said.contains("\"reason\":\"mismatch\"") && said.contains("dead") && metrics.contains("hookward_"));

    let secrets = [
        GITHUB,
        TOKEN,
        VERIFY,
        API,
        FOREIGN,
        MISPLACED,
        &WHSEC[6..],
        &RESIGN[6..],
    ]
    .map(str::to_owned);
    let keys = [whsec_key(WHSEC), whsec_key(RESIGN)];
    for secret in secrets.iter().chain(&keys) {
        for (what, told) in [
            ("the logs", &said),
            ("metrics", &metrics),
            ("commands", &commands),
            ("events", &shown),
        ] {
            absent(secret, told, what);
        }
    }
    let texts = [BODY, HEADER, QUERY, ANSWER]
        .into_iter()
        .chain(sent.signatures.iter().map(String::as_str));
    for text in texts {
        absent(text, &said, "the logs");
        absent(text, &metrics, "metrics");
    }
}

/// Requests that end in the middle.
async fn half_requests(address: SocketAddr) {
    let whole = genuine(
        "github",
        GITHUB,
        "/webhooks/github",
        &format!("Cookie: {HEADER}\r\n"),
        BODY.as_bytes(),
    );
    for (cut, ends) in [
        (60, true),
        (60, false),
        (whole.len() - 5, true),
        (whole.len() - 5, false),
    ] {
        let mut client = Client::connect(address).await;
        client.send(&whole[..cut]).await;
        if ends {
            client.finish_sending().await;
        }
        client.rest().await;
    }
    let mut client = Client::connect(address).await;
    client.send(&whole[..whole.len() - 5]).await;
    client.reset();
}

/// The same over HTTP/2: an event, a forgery, and what cannot be translated.
async fn over_http_2(address: SocketAddr) {
    let scheme = hookward::providers::builtin().find("github").unwrap().scheme.clone();
    let mut client = H2::connect(address).await;
    for (secret, path, status) in [(GITHUB, "", 200), (FOREIGN, "", 401), (GITHUB, "/%00", 400)] {
        let body = format!("{{\"h2\":\"{BODY}\"}}");
        let signed = signature::sign(
            &scheme,
            &Secret::new(secret).unwrap(),
            "",
            Clock::system().wall(),
            body.as_bytes(),
        );
        let mut request = Request::post(format!("http://gateway.test/webhooks/github{path}?token={QUERY}"));
        for (name, value) in signed.unwrap() {
            request = request.header(name, value);
        }
        let request = request.header("authorization", HEADER).body(body.into()).unwrap();
        let answer = client.ask(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
}

/// Whoever tries words at the operators' side.
async fn strangers_at_the_desk(admin: SocketAddr) {
    for value in [
        format!("Bearer {FOREIGN}"),
        format!("Basic {HEADER}"),
        format!("Bearer {API}x"),
        String::new(),
    ] {
        let bytes = format!("GET /api/events?type={QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: {value}\r\n\r\n");
        assert_eq!(request(admin, bytes.as_bytes()).await.status, 401);
    }
    let bytes =
        format!("GET /api/{QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {API}\r\nCookie: {HEADER}\r\n\r\n");
    assert!(request(admin, bytes.as_bytes()).await.status >= 400);
}

/// What `hookward events` shows, once `dead` events are.
async fn events(config: &str, dead: usize) -> String {
    for _ in 0..500 {
        let listed = hookward(&["events", "--config", config, "list", "--dead", "--json"]).await;
        let events: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
        let ids: Vec<String> = events
            .as_array()
            .into_iter()
            .flatten()
            .map(|event| event["id"].to_string())
            .collect();
        if ids.len() == dead {
            let mut shown = listed.stdout + &listed.stderr;
            for id in &ids {
                for more in [&[][..], &["--json"]] {
                    let ended = hookward(&[&["events", "--config", config, "show", id], more].concat()).await;
                    shown += &(ended.stdout + &ended.stderr);
                }
            }
            let export = hookward(&["events", "--config", config, "export", "--route", "queued-token"]).await;
            return shown + &export.stdout + &export.stderr;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no {dead} dead letters");
}

/// What the commands say that are given secrets, or find them in files.
async fn told_by_commands(file: &TestFile, sent: &Sent) -> String {
    let mut told = String::new();
    let check = hookward(&["check", file.name()]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    told += &(check.stdout + &check.stderr);
    for (what, bytes, _) in sent.requests.iter().filter(|(_, bytes, _)| !bytes.contains(&b'\0')) {
        let captured = TestFile::new("captured.http", bytes);
        let ended = hookward(&["explain", captured.name(), "--config", file.name()]).await;
        assert!(ended.code.is_some(), "{what}");
        // The word of a handshake stands in the query, which is shown as it is; and so is what the sender sent.
        if !what.contains("handshake") && !what.contains("token") {
            told += &(ended.stdout + &ended.stderr);
        }
    }
    let body = TestFile::new("body.json", BODY);
    for more in [&[][..], &["--forge"]] {
        let send = [
            "send",
            "github",
            "--url",
            "http://127.0.0.1:1/webhooks/github",
            "--secret",
            GITHUB,
        ];
        let ended = hookward(&[&send[..], more].concat()).await;
        told += &(ended.stdout + &ended.stderr);
    }
    let secret = TestFile::new("secret", WHSEC);
    for args in [
        &["sign", "github", "--secret", GITHUB, "--body", body.name()][..],
        &["sign", "github", "--secret", GITHUB, "--body", body.name(), "--curl"],
        &[
            "sign",
            "standard-webhooks",
            "--secret-file",
            secret.name(),
            "--body",
            body.name(),
        ],
    ] {
        let ended = run(HOOKWARD, args, b"").await;
        told += &(ended.stdout + &ended.stderr);
    }
    told
}
