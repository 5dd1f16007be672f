//! Providers as senders: what their own published code signs is accepted, and nothing else is.
//!
//! `tests/sdk/` has the scripts and the pinned versions; `make test` installs them beside the build. Each body that
//! the code of a provider takes is signed by it, sent through a gateway, and sent once more with one bit changed.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::process::Command;

use crate::harness::process::complete;
use crate::harness::{Client, Gateway, NOW, Upstream};

/// A message as a provider's code signed it.
#[derive(Deserialize)]
struct Signed {
    headers: serde_json::Map<String, serde_json::Value>,
    /// The body, in base64, where the provider's code made it.
    body: Option<String>,
}

/// A provider's code.
struct Sender {
    provider: &'static str,
    script: Script,
    /// What signs.
    secret: &'static str,
    /// What verifies, where that is something else: a public key.
    verifies: Option<&'static str>,
    bodies: Bodies,
    /// More of the route.
    route: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Script {
    Python,
    Node,
}

/// What a provider's code can sign.
#[derive(Clone, Copy)]
enum Bodies {
    /// Any bytes.
    Bytes,
    /// Any text.
    Text,
    /// Any text but none.
    SomeText,
    /// Only what it writes itself.
    Own,
}

const TEXT: &str = "an-example-of-a-secret-of-some-length";
const WHSEC: &str = "whsec_ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u";
const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const PUBLIC_OF_HEX: &str = "207a067892821e25d770f1fba0c47c11ff4b813e54162ece9eb839e076231ab6";
/// Bodies for each provider.
const EACH: usize = 200;

const URL: &str = "https://hooks.example.com/in";
const PUBLIC_URL: &str = "public_url: \"https://hooks.example.com/in\"";

const fn sender(provider: &'static str, script: Script, secret: &'static str, bodies: Bodies) -> Sender {
    Sender {
        provider,
        script,
        secret,
        verifies: None,
        bodies,
        route: "",
    }
}

impl Sender {
    const fn on(self, route: &'static str) -> Sender {
        Sender { route, ..self }
    }

    const fn verified_by(self, key: &'static str) -> Sender {
        Sender {
            verifies: Some(key),
            ..self
        }
    }
}

const SENDERS: [Sender; 21] = [
    sender("adyen", Script::Python, HEX, Bodies::Own),
    sender("adyen-header", Script::Python, HEX, Bodies::Bytes),
    sender("braintree", Script::Python, TEXT, Bodies::Own).on("settings: { public_key: public_key_1 }"),
    sender("discord", Script::Python, HEX, Bodies::Bytes).verified_by(PUBLIC_OF_HEX),
    sender("hubspot-v2", Script::Python, TEXT, Bodies::Text).on(PUBLIC_URL),
    sender("hubspot-v3", Script::Python, TEXT, Bodies::Text).on(PUBLIC_URL),
    sender("razorpay", Script::Python, TEXT, Bodies::Text),
    sender("slack", Script::Python, TEXT, Bodies::Text),
    sender("standard-webhooks", Script::Python, WHSEC, Bodies::Text),
    sender("stripe", Script::Python, WHSEC, Bodies::Text),
    sender("svix", Script::Python, WHSEC, Bodies::Text),
    sender("twilio", Script::Python, TEXT, Bodies::Own).on(PUBLIC_URL),
    sender("contentful", Script::Node, HEX, Bodies::Text).on(PUBLIC_URL),
    sender("github", Script::Node, TEXT, Bodies::SomeText),
    sender("line", Script::Node, TEXT, Bodies::Bytes),
    sender("livekit", Script::Node, TEXT, Bodies::Bytes),
    sender("paddle", Script::Node, TEXT, Bodies::Text),
    sender("plivo-v2", Script::Node, TEXT, Bodies::Text).on(PUBLIC_URL),
    sender("sanity", Script::Node, TEXT, Bodies::SomeText),
    sender("shopify", Script::Node, TEXT, Bodies::SomeText),
    sender("workos", Script::Node, TEXT, Bodies::Own),
];

/// Schemes that do not bind the body: a changed one is accepted, as the provider's own code would.
const UNBOUND: [&str; 1] = ["plivo-v2"];

#[tokio::test(flavor = "multi_thread")]
async fn what_libraries_in_python_sign_is_accepted() {
    // A customer's payments would be refused, and the provider's documentation would be right.
    for sender in SENDERS.iter().filter(|sender| sender.script == Script::Python) {
        check(sender).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_libraries_for_node_sign_is_accepted() {
    // Deployments that start on a push would not start.
    for sender in SENDERS.iter().filter(|sender| sender.script == Script::Node) {
        check(sender).await;
    }
}

/// Sends each body as signed, and once more with one bit changed.
async fn check(sender: &Sender) {
    let Sender { provider, route, .. } = sender;
    let messages = sign(sender, &bodies(sender.bodies)).await;
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         routes:\n  - {{ name: sdk, path: /in, provider: {provider}, secrets: [{{ value: \"{}\" }}], upstream: app,\n      \
         limits: {{ body: 2MiB, rate: 100000/s, burst: 100000 }}, {route} }}\n",
        upstream.address,
        sender.verifies.unwrap_or(sender.secret),
    ))
    .await;
    let mut client = Client::connect(gateway.address).await;
    let mut sent = Vec::new();
    for (number, (headers, body)) in messages.iter().enumerate() {
        let bound = !UNBOUND.contains(provider) && !body.is_empty();
        if bound {
            let mut changed = body.clone();
            changed[body.len() / 2] ^= 1;
            client.send(&request(headers, &changed)).await;
            let refused = client.answer().await;
            assert_eq!(
                (refused.status, refused.text()),
                (401, "unauthorized\n"),
                "{provider} {number}"
            );
        }
        client.send(&request(headers, body)).await;
        let accepted = client.answer().await;
        assert_eq!((accepted.status, accepted.text()), (200, "ok"), "{provider} {number}");
        sent.push(body.clone());
    }
    let arrived: Vec<_> = upstream.seen().into_iter().map(|event| event.body).collect();
    assert!(
        arrived == sent,
        "{provider}: {} of {} arrived as signed",
        arrived.len(),
        sent.len()
    );
}

/// What is easily spoilt on its way through text and JSON, and what only bytes can be.
fn bodies(kind: Bodies) -> Vec<Vec<u8>> {
    let controls: String = (0_u8..=0x7f).map(char::from).collect();
    let pad = "x".repeat(1024 * 1024);
    let texts = [
        "x".to_owned(),
        "{ \"a\" : 1.0 ,\r\n\t\"a\":1e400 }\n".to_owned(),
        "{\"name\":\"naïve 日本語 🦀 \u{202e}\u{feff}\u{e000}\u{10ffff}\",\"e\\u0301\":\"é\"}".to_owned(),
        "\u{feff}{\"id\":\"\\ud83e\\udd80\"}".to_owned(),
        format!("{controls}\u{80}\u{fffd}\0"),
        "payload=%7B%22a%22%3A1%7D&b=+%2B&c=".to_owned(),
        format!("{{\"id\":\"large\",\"pad\":\"{pad}\"}}"),
    ];
    let mut bodies: Vec<_> = texts.map(String::into_bytes).to_vec();
    match kind {
        Bodies::SomeText | Bodies::Own => {}
        Bodies::Text => bodies.push(Vec::new()),
        Bodies::Bytes => {
            bodies.push(Vec::new());
            bodies.push((0..=255).rev().collect());
            bodies.push(b"\xff\xfe\0\xc3(\x80".to_vec());
        }
    }
    if matches!(kind, Bodies::Own) {
        bodies.truncate(3);
    }
    let mut seed = 0;
    while bodies.len() < EACH {
        seed += 1;
        bodies.push(any_body(kind, seed));
    }
    bodies
}

/// Some text, or some bytes; another for each seed.
fn any_body(kind: Bodies, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut roll = |sides: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32 % sides
    };
    let length = 1 + roll(400);
    if let Bodies::Bytes = kind {
        return (0..length).map(|_| roll(256) as u8).collect();
    }
    // The planes of Unicode in turn. Not a question mark in front: HubSpot's third version signs the body right behind the
    // URL, where nobody can tell whose it is, so that is refused.
    let mut letter = || {
        let plane = [0x80, 0x800, 0x1_0000, 0x11_0000][roll(4) as usize];
        char::from_u32(roll(plane)).unwrap_or('x')
    };
    let text: String = (0..length).map(|_| letter()).collect();
    format!("x{text}").into_bytes()
}

fn request(headers: &serde_json::Map<String, serde_json::Value>, body: &[u8]) -> Vec<u8> {
    let mut head = "POST /in HTTP/1.1\r\nHost: gateway.test\r\n".to_owned();
    for (name, value) in headers {
        head += &format!("{name}: {}\r\n", value.as_str().unwrap());
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

type Message = (serde_json::Map<String, serde_json::Value>, Vec<u8>);

/// Has a provider's code sign each body, at the time the gateways' clock shows.
async fn sign(sender: &Sender, bodies: &[Vec<u8>]) -> Vec<Message> {
    let timestamp = (NOW.0 / 1000).to_string();
    let arguments = [sender.provider, sender.secret, &timestamp, URL];
    let mut command = match sender.script {
        Script::Node => {
            let mut node = Command::new("node");
            // A module that is given as text looks for others from where it runs.
            node.current_dir(installed("node_modules").parent().unwrap());
            node.args(["--input-type=module", "-e", include_str!("../sdk/sign.mjs")]);
            node
        }
        Script::Python => {
            let mut python = Command::new(installed("python/bin/python"));
            python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/sign.py"));
            python
        }
    };
    command.args(arguments);
    let lines: String = bodies.iter().map(|body| STANDARD.encode(body) + "\n").collect();
    let ended = complete(command, lines.as_bytes()).await;
    assert_eq!(ended.code, Some(0), "{}: {}", sender.provider, ended.stderr);
    let lines = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Signed>(line).unwrap());
    let own = |signed: &Signed| signed.body.as_ref().map(|body| STANDARD.decode(body).unwrap());
    let messages: Vec<_> = lines
        .zip(bodies)
        .map(|(signed, body)| (own(&signed).unwrap_or_else(|| body.clone()), signed.headers))
        .map(|(body, headers)| (headers, body))
        .collect();
    assert_eq!(messages.len(), bodies.len(), "{}: {}", sender.provider, ended.stderr);
    messages
}

/// What `make test` installs, beside the directory that Cargo gives to tests.
pub fn installed(what: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk").join(what);
    assert!(path.exists(), "{} is missing: `make test` installs it", path.display());
    path
}
