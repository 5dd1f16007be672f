//! What is fuzzed, and what must hold of every input: not only that nothing panics, but what an independent and much
//! simpler reading of the same bytes says.
//!
//! The functions use the library's public interface alone. Two drivers call them: the binaries of this folder, which
//! libFuzzer leads by coverage, and `tests/it/fuzz.rs`, which replays the corpus and mutates it for a second in each run
//! of the tests. An input that failed once lies in `fuzz/corpus/<target>/` under a name that says what it did.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use hookward::clock::{ManualClock, UnixMillis};
use hookward::config::plan_text;
use hookward::fetch::World;
use hookward::gateway::{Guard, frame};
use hookward::observe::{AccessLog, Format};
use hookward::providers::{Asked, Means, Met, Provider, ProviderFile, builtin};
use hookward::secret::Secret;
use hookward::server::{Bound, Server};
use hookward::signature::{
    Finished, Head, KeySource, KeyedSecret, PinnedUrl, Proof, PublicKey, PublicKeyForm, PublicUrl, Settings, Strength,
    Verifier, VerifierOptions,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What the clocks show.
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
/// Thirty-two letters: a secret of any kind, and 24 bytes of base64.
const SECRET: &str = "c2VjcmV0IG9mIHRoZSBmdXp6ZXJzIQ==";
const PATH: &str = "/webhooks/github";

/// A name and what goes by it.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by the name of its corpus.
pub const TARGETS: [Target; 8] = [
    ("head", head),
    ("path", path),
    ("signature", signature),
    ("timestamp", timestamp),
    ("token", token),
    ("facts", facts),
    ("config", config),
    ("request", request),
];

/// The raw head of a request: what is accepted has one meaning, and the parser behind us takes it.
pub fn head(bytes: &[u8]) {
    let Ok(framed) = frame(bytes) else { return };
    let text = bytes.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let lines: Vec<&[u8]> = split(text, b"\r\n");
    for line in &lines {
        assert!(
            !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
            "a line within a line"
        );
        assert!(!line.is_empty() && !line[0].is_ascii_whitespace(), "a folded line");
    }
    let request: Vec<&[u8]> = lines[0].split(|byte| *byte == b' ').collect();
    assert_eq!(request.len(), 3);
    assert_eq!(request[1], framed.target.as_bytes());
    let named = |wanted: &str| {
        let plain = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase().replace('_', "-");
        let names = lines[1..]
            .iter()
            .map(|line| line.split(|byte| *byte == b':').next().unwrap());
        names.filter(|name| plain(name) == wanted).count()
    };
    assert!(
        named("content-length") + named("transfer-encoding") <= 1,
        "two ends of one body"
    );
    assert_eq!(named("transfer-encoding") == 1, framed.chunked);
    assert_eq!(named("host"), usize::from(framed.host.is_some()));
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut headers);
    let end = parsed.parse(bytes).expect("a head that the parser behind us refuses");
    assert_eq!(end, httparse::Status::Complete(bytes.len()));
    assert_eq!(parsed.headers.len(), lines.len() - 1);
    assert_eq!(parsed.path, Some(framed.target));
}

fn split<'a>(bytes: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut from) = (Vec::new(), 0);
    while let Some(at) = bytes[from..].windows(by.len()).position(|window| window == by) {
        parts.push(&bytes[from..from + at]);
        from += at + by.len();
    }
    parts.push(&bytes[from..]);
    parts
}

/// A target: what is passed through unverified is read as a protected path by nobody, however plainly they read.
pub fn path(bytes: &[u8]) {
    let Ok(target) = std::str::from_utf8(bytes) else { return };
    let line = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    if frame(line.as_bytes()).is_err() {
        return;
    }
    thread_local! {
        static GUARD: Arc<Guard> = guard(&yaml("127.0.0.1:1"), AccessLog::off()).1;
    }
    if GUARD.with(|guard| guard.rules().concerns(target)) {
        return;
    }
    let path = target.split('?').next().unwrap();
    let mut read = path.to_owned();
    for _ in 0..3 {
        for spelt in [read.clone(), read.to_lowercase(), read.replace('\\', "/")] {
            let mut kept: Vec<String> = Vec::new();
            for segment in spelt.split(';').next().unwrap().split('/') {
                match segment {
                    "" | "." => {}
                    ".." => drop(kept.pop()),
                    other => kept.push(other.trim_end_matches('.').to_lowercase()),
                }
            }
            assert_ne!(kept.join("/"), &PATH[1..], "{target} is passed through");
        }
        read = decoded(&read);
    }
}

fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match hex {
            Some(byte) if *first == b'%' && tail[..2].iter().all(u8::is_ascii_hexdigit) => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Signature headers of every built-in provider: whoever has no key proves nothing about a body.
pub fn signature(bytes: &[u8]) {
    thread_local! {
        static VERIFIERS: Vec<(Arc<Provider>, Verifier)> = verifiers();
    }
    let Some(([high, low], bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    VERIFIERS.with(|all| {
        let (provider, verifier) = &all[(usize::from(*high) << 8 | usize::from(*low)) % all.len()];
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let mut headers = HeaderMap::new();
        for name in provider.scheme.security_headers() {
            add(&mut headers, name, lines.next().unwrap_or_default());
        }
        let target = lines.next().and_then(|line| std::str::from_utf8(line).ok());
        let body: Vec<u8> = lines.collect::<Vec<_>>().join(&b'\n');
        let proof = proven(verifier, target.unwrap_or(PATH), &headers, &body);
        // A token that is compared can be guessed by whoever watches the comparison, as a fuzzer does.
        let strong = provider.scheme.strength() == Strength::Verified;
        assert!(proof.is_none() || !strong, "{} proves a forgery", provider.id);
    });
}

/// A verifier for each provider that takes the secret in some form.
fn verifiers() -> Vec<(Arc<Provider>, Verifier)> {
    let public_url = PublicUrl::parse("https://hooks.example.com/webhooks/github").unwrap();
    let forms = [
        SECRET.to_owned(),
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_owned(),
        "user:a-password-of-the-fuzzers".to_owned(),
        include_str!("../tests/keys/ed25519.pub.pem").to_owned(),
        include_str!("../tests/keys/rsa2048.pub.pem").to_owned(),
        include_str!("../tests/keys/p256.pub.pem").to_owned(),
    ];
    let mut built = Vec::new();
    for provider in builtin().iter() {
        let options = |settings| VerifierOptions {
            public_url: provider.scheme.needs_public_url().then(|| public_url.clone()),
            settings,
            ..VerifierOptions::default()
        };
        let mut settings = Settings::default();
        for name in provider.settings.keys() {
            let _ = settings.insert(name, Secret::new("arn:aws:sns:eu-west-1:123456789012:topic").unwrap());
        }
        let made = forms.iter().find_map(|secret| {
            let keys = match provider.scheme.needs_secrets() {
                true => vec![KeyedSecret {
                    id: "1".into(),
                    secret: Secret::new(secret.as_bytes()).ok()?,
                    until: None,
                }],
                false => Vec::new(),
            };
            Verifier::new(Arc::clone(&provider.scheme), keys, options(settings.clone())).ok()
        });
        built.extend(made.map(|verifier| (Arc::clone(provider), verifier)));
    }
    assert!(built.len() > 150, "only {} providers can be fuzzed", built.len());
    built
}

fn add(headers: &mut HeaderMap, name: &HeaderName, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value)
        && !value.is_empty()
    {
        headers.append(name, value);
    }
}

fn proven(verifier: &Verifier, target: &str, headers: &HeaderMap, body: &[u8]) -> Option<Proof> {
    let head = Head {
        method: &Method::POST,
        target,
        headers,
    };
    let mut check = verifier.begin(head, NOW);
    for piece in body.chunks(61) {
        check.update(piece);
    }
    match check.finish(body).ok()? {
        Finished::Proven(proof) => Some(proof),
        Finished::KeyWanted(wanted) => {
            let host = wanted.source().url().host();
            assert!(is_published_there(host), "keys would be fetched from {host}");
            None
        }
    }
}

/// The hosts of the catalogue whose keys are fetched.
fn is_published_there(host: &str) -> bool {
    let sns = host.strip_prefix("sns.").and_then(|rest| {
        let region = rest
            .strip_suffix(".amazonaws.com")
            .or(rest.strip_suffix(".amazonaws.com.cn"))?;
        Some(!region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
    });
    let known = [
        "api.paypal.com",
        "www.googleapis.com",
        "connect-install-keys.atlassian.com",
    ];
    sns == Some(true) || known.contains(&host) || host.split('.').count() >= 2 && !host.contains("amazonaws")
}

/// Signed times in every unit, each correctly signed: what is fresh is so by the most literal reading.
pub fn timestamp(bytes: &[u8]) {
    const UNITS: [&str; 6] = ["s", "ms", "us", "rfc3339", "datetime", "http-date"];
    thread_local! {
        static VERIFIERS: Vec<Verifier> = UNITS.iter().map(|unit| stamped(unit)).collect();
    }
    let Some((unit, text)) = bytes.split_first() else {
        return;
    };
    let unit = usize::from(*unit) % UNITS.len();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(text);
    mac.update(b"|{}");
    let mut headers = HeaderMap::new();
    add(&mut headers, &HeaderName::from_static("x-time"), text);
    add(
        &mut headers,
        &HeaderName::from_static("x-sig"),
        hex::encode(mac.finalize().into_bytes()).as_bytes(),
    );
    let proof = VERIFIERS.with(|all| proven(&all[unit], PATH, &headers, b"{}"));
    let Some(proof) = proof else { return };
    let text = std::str::from_utf8(text).expect("a time that is no text");
    let ms = match UNITS[unit] {
        "s" | "ms" | "us" => {
            let number: u64 = text.parse().expect("a number");
            assert_eq!(number.to_string(), text, "a second spelling of a time");
            match UNITS[unit] {
                "s" => number.checked_mul(1000).expect("a second that fits"),
                "ms" => number,
                _ => number / 1000,
            }
        }
        "rfc3339" => millis(text),
        "datetime" => millis(&format!("{text}Z")),
        _ => {
            assert!(
                text.is_ascii() && text.len() == 29 && text.ends_with(" GMT"),
                "{text:?}"
            );
            proof.timestamp().unwrap().0
        }
    };
    assert!(ms.abs_diff(NOW.0) <= 300_000, "{text:?} is not fresh");
    assert_eq!(proof.timestamp(), Some(UnixMillis(ms)));
}

fn millis(text: &str) -> u64 {
    let at: jiff::Timestamp = text.parse().expect("a date");
    u64::try_from(at.as_millisecond()).expect("a date after 1970")
}

fn stamped(unit: &str) -> Verifier {
    let text = format!(
        "scheme:\n  algorithm: hmac-sha256\n  key: utf8\n  message: \"{{timestamp}}|{{body}}\"\n  \
         signature: {{ header: x-sig, encoding: hex }}\n  timestamp: {{ header: x-time, unit: {unit}, tolerance: 5m }}\n"
    );
    let file: ProviderFile = serde_yaml::from_str(&text).unwrap();
    let provider = Provider::own("stamped", &file).unwrap();
    let secret = KeyedSecret {
        id: "1".into(),
        secret: Secret::new(SECRET).unwrap(),
        until: None,
    };
    Verifier::new(provider.scheme, vec![secret], VerifierOptions::default()).unwrap()
}

/// What is published: keys in every form, certificates, key sets.
pub fn token(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else {
        return;
    };
    let at = || PinnedUrl::fixed("https://keys.example.com/keys").unwrap();
    let forms = [
        PublicKeyForm::Hex,
        PublicKeyForm::Base64,
        PublicKeyForm::Base64url,
        PublicKeyForm::Pem,
        PublicKeyForm::Jwk,
    ];
    match usize::from(*kind) % 8 {
        form @ 0..5 => drop(PublicKey::parse(forms[form], text)),
        5 => drop(KeySource::certificate(at()).read(text)),
        6 => drop(KeySource::key_set(at(), None).read(text)),
        _ => {
            let Ok(text) = std::str::from_utf8(text) else { return };
            if let Ok(url) = PinnedUrl::fixed(text) {
                let host = url.host();
                assert!(
                    host.bytes()
                        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')),
                    "{host}"
                );
                assert!(host.parse::<std::net::IpAddr>().is_err(), "{host} is an address");
                assert!(text.starts_with(&format!("https://{host}")));
            }
            drop(PublicUrl::parse(text));
        }
    }
}

/// Bodies as they are read for handshakes and for the names of events: what becomes a header or a log line fits there.
pub fn facts(bytes: &[u8]) {
    thread_local! {
        static VERIFIERS: Vec<(Arc<Provider>, Verifier)> = verifiers();
    }
    let Some(([high, low, method], rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let (query, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let target = format!("{PATH}?{}", String::from_utf8_lossy(query));
    VERIFIERS.with(|all| {
        let (provider, verifier) = &all[(usize::from(*high) << 8 | usize::from(*low)) % all.len()];
        let method = [Method::POST, Method::GET, Method::HEAD][usize::from(*method) % 3].clone();
        let mut headers = HeaderMap::new();
        for name in provider.scheme.security_headers() {
            add(&mut headers, name, query);
        }
        let facts = provider.facts(&headers, body, None);
        assert_eq!(facts.event_id, None, "an id without proof");
        for label in [facts.event_type, facts.delivery_id].into_iter().flatten() {
            assert!(
                label.len() <= 512 && label.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{label:?}"
            );
        }
        let asked = Asked {
            method: &method,
            target: &target,
            headers: &headers,
            body,
        };
        provider.handshakes.may_begin(&asked);
        let means = Means { verifier, now: NOW };
        if let Met::Reply(reply) | Met::Brings(_, reply) = provider.handshakes.unsigned(&asked, true, &means) {
            assert!(reply.body.len() <= 64 * 1024 && !reply.content_type.contains("html"));
        }
    });
}

/// A configuration: every problem is told with a place that is there, and what is accepted can be put in force.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Files that a configuration names are read: not those that never end.
    if ["/dev", "/proc", "/sys"].iter().any(|folder| text.contains(folder)) {
        return;
    }
    let (plan, problems) = plan_text("fuzz.yaml", text, NOW);
    // YAML ends lines where others do not.
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
    assert!(
        problems
            .iter()
            .all(|problem| problem.line().is_none_or(|line| (1..=lines).contains(&line)))
    );
    let told = problems.to_string();
    assert!(!told.bytes().any(|byte| byte < b' ' && byte != b'\n'), "{told:?}");
    assert!(
        plan.is_some() || problems.has_errors(),
        "nothing to run, and nothing said"
    );
}

/// Whole connections, at a gateway with a route and a pass-through: what the upstream of the route sees is signed, what
/// the log says is printable, and every connection comes to an end.
pub fn request(bytes: &[u8]) {
    thread_local! {
        static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
    }
    STAGE.with_borrow_mut(|stage| stage.get_or_insert_with(Stage::open).play(bytes));
}

/// Heads and bodies, as they arrived upstream.
type Seen = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A gateway and its upstreams, on one thread.
struct Stage {
    runtime: Runtime,
    gateway: SocketAddr,
    guard: Arc<Guard>,
    seen: Seen,
    log: Log,
    _server: Server,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn yaml(upstream: &str) -> String {
    format!(
        "listen: [127.0.0.1:0]\nadmin: off\n\
         limits: {{ client_rate: 1000000/s, client_burst: 1000000 }}\n\
         client: {{ head_timeout: 300ms, body_timeout: 300ms, idle_timeout: 300ms, requests_each: 8 }}\n\
         upstreams: {{ app: {{ servers: [\"{upstream}\"], timeout: 1s }} }}\n\
         routes:\n  - name: github\n    path: {PATH}\n    provider: github\n    secrets: [{{ value: \"{SECRET}\" }}]\n    \
         upstream: app\n    replay: off\n    limits: {{ rate: 1000000/s, burst: 1000000, body: 64KiB }}\n\
         passthrough: app\n"
    )
}

fn guard(yaml: &str, access: AccessLog) -> (hookward::config::Plan, Arc<Guard>) {
    let (plan, problems) = plan_text("fuzz.yaml", yaml, NOW);
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    let clock = ManualClock::at(NOW);
    let guard = plan.guard_in(World::internet(), clock.clock(), access).unwrap();
    (plan, guard)
}

impl Stage {
    fn open() -> Stage {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (seen, log) = (Arc::default(), Log::default());
        let (gateway, guard, server) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let upstream = listener.local_addr().unwrap();
            tokio::spawn(record(listener, Arc::clone(&seen)));
            let access = AccessLog::to(Format::Json, log.clone()).unwrap();
            let (plan, guard) = guard(&yaml(&upstream.to_string()), access);
            let bound = Bound::new(&plan.server).unwrap();
            let gateway = bound.listen()[0];
            let server = Server::start(bound, &plan.server, &guard).unwrap();
            (gateway, guard, server)
        });
        Stage {
            runtime,
            gateway,
            guard,
            seen,
            log,
            _server: server,
        }
    }

    fn play(&mut self, bytes: &[u8]) {
        let Stage {
            runtime,
            gateway,
            guard,
            ..
        } = self;
        runtime.block_on(async {
            let ends = tokio::time::timeout(Duration::from_secs(10), converse(*gateway, bytes));
            ends.await.expect("a connection without an end");
            while guard.shared().active() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        for (head, body) in self.seen.lock().unwrap().drain(..) {
            judge(&head, &body);
        }
        let mut log = self.log.0.lock().unwrap();
        let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in log.drain(..whole).collect::<Vec<_>>().split(|byte| *byte == b'\n') {
            assert!(
                line.iter().all(|byte| (b' '..=b'~').contains(byte)),
                "{}",
                line.escape_ascii()
            );
            let json = serde_json::from_slice::<serde_json::Value>(line);
            assert!(
                line.is_empty() || json.is_ok_and(|json| json.is_object()),
                "{}",
                line.escape_ascii()
            );
        }
    }
}

/// Sends `bytes`, of which a tab in front says to send them in two pieces, and reads to the end.
async fn converse(gateway: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let (first, second) = match bytes.strip_prefix(b"\t") {
        Some(bytes) => bytes.split_at(bytes.len() / 2),
        None => (bytes, &b""[..]),
    };
    // Refused before it was read to the end, if the other side has closed.
    for piece in [first, second] {
        let _ = stream.write_all(piece).await;
        tokio::task::yield_now().await;
    }
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// What may be seen upstream: of the route's path, only what is signed under exactly the bytes that arrived.
fn judge(head: &str, body: &[u8]) {
    let mut names = BTreeSet::new();
    let mut value = |wanted: &str| {
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let values: Vec<_> = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).collect();
        assert!(
            values.len() <= 1 || !names.insert(wanted.to_owned()),
            "{wanted} twice upstream: {head}"
        );
        values.first().map(|(_, value)| value.trim().to_owned())
    };
    let target = head.split(' ').nth(1).unwrap_or_else(|| panic!("no head: {head}"));
    if value("x-hookward-route").is_none() {
        assert_ne!(target.split('?').next().unwrap(), PATH, "passed through: {head}");
        return;
    }
    assert_eq!(value("content-length"), Some(body.len().to_string()), "{head}");
    assert_eq!(value("transfer-encoding"), None, "{head}");
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    let signed = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    // Hexadecimal digits have two spellings, which prove the same.
    let sent = value("x-hub-signature-256").map(|sent| sent.to_lowercase());
    assert_eq!(sent, Some(signed), "unsigned upstream: {head}");
}

/// An upstream that keeps what it gets and answers 200.
async fn record(listener: TcpListener, seen: Seen) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut unread = Vec::new();
            loop {
                while let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&unread[..end]).into_owned();
                    let field = |wanted: &str| {
                        let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
                        lines.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.trim()))
                    };
                    let length = field("content-length").map_or(0, |length| length.parse().unwrap());
                    let chunked = field("transfer-encoding").is_some();
                    let mut body = unread.split_off(end + 4);
                    let ends = loop {
                        match if chunked { end_of_chunks(&body) } else { Some(length) } {
                            Some(end) if end <= body.len() => break end,
                            _ if stream.read_buf(&mut body).await.unwrap_or(0) == 0 => return,
                            _ => {}
                        }
                    };
                    unread = body.split_off(ends);
                    seen.lock().unwrap().push((head, body));
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await;
                }
                if stream.read_buf(&mut unread).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
    }
}

/// Where a body in chunks ends; `None` when that is still to come.
fn end_of_chunks(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = body.get(at..)?;
        let line = &line[..line.windows(2).position(|window| window == b"\r\n")?];
        let size = usize::from_str_radix(std::str::from_utf8(line).unwrap(), 16).unwrap();
        if size == 0 {
            let trailers = body[at..].windows(4).position(|window| window == b"\r\n\r\n")?;
            return Some(at + trailers + 4);
        }
        at += line.len() + 2 + size + 2;
    }
}

/// A few inputs of each kind that get far, made where they can be signed.
pub static SEEDS: LazyLock<Vec<(&'static str, Vec<u8>)>> = LazyLock::new(|| {
    let body = br#"{"action":"opened","id":"1"}"#;
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    let signature = format!(
        "X-Hub-Signature-256: sha256={}",
        hex::encode(mac.finalize().into_bytes())
    );
    let genuine = |framing: &str| {
        format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nX-GitHub-Event: push\r\n{signature}\r\n{framing}\r\n\r\n")
    };
    let length = format!("Content-Length: {}", body.len());
    let plain = [genuine(&length).as_bytes(), body].concat();
    let chunks = format!(
        "4\r\n{}\r\n18;x=y\r\n{}\r\n0\r\nX-T: 1\r\n\r\n",
        text(&body[..4]),
        text(&body[4..])
    );
    let chunked = [genuine("Transfer-Encoding: chunked").as_bytes(), chunks.as_bytes()].concat();
    vec![
        ("head", genuine(&length).into_bytes()),
        ("head", b"GET /a?b HTTP/1.0\r\n\r\n".to_vec()),
        ("request", plain.clone()),
        ("request", [b"\t", &plain[..]].concat()),
        ("request", chunked.clone()),
        ("request", [&plain[..], &chunked, &plain].concat()),
        ("request", [genuine(&format!("{length}\r\nExpect: 100-continue")).as_bytes(), body].concat()),
        ("request", [&plain[..plain.len() - 1], b"x"].concat()),
        ("request", b"GET /app?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec()),
        ("request", b"POST /app HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc".to_vec()),
        ("request", b"GET /webhooks//github HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("request", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("path", b"/webhooks/%67ithub;x".to_vec()),
        ("path", b"/x/../webhooks/./github/".to_vec()),
        ("timestamp", b"\x001700000000".to_vec()),
        ("timestamp", b"\x011700000000000".to_vec()),
        ("timestamp", b"\x021700000000000000".to_vec()),
        ("timestamp", b"\x032023-11-14T22:13:20.5+01:00".to_vec()),
        ("timestamp", b"\x042023-11-14T22:13:20".to_vec()),
        ("timestamp", b"\x05Tue, 14 Nov 2023 22:13:20 GMT".to_vec()),
        ("config", yaml("127.0.0.1:3000").into_bytes()),
        ("config", include_bytes!("../conf/quickstart.yaml").to_vec()),
        ("config", include_bytes!("../conf/reference.yaml").to_vec()),
        ("token", [b"\x03", include_bytes!("../tests/keys/rsa2048.pub.pem").as_slice()].concat()),
        ("token", [b"\x03", include_bytes!("../tests/keys/p256.crt.pem").as_slice()].concat()),
        ("token", [b"\x05", include_bytes!("../tests/published/signer.crt.pem").as_slice()].concat()),
        ("token", [b"\x06", br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.as_slice()].concat()),
        ("token", b"\x07https://sns.eu-west-1.amazonaws.com/a.pem".to_vec()),
        ("facts", b"\0\x20\0a=b&c=%20\n{\"type\":\"url_verification\",\"challenge\":\"x\",\"id\":[1,{\"a\":null}]}".to_vec()),
        ("facts", b"\0\x40\x01hub.mode=subscribe&hub.challenge=1&hub.verify_token=x\n".to_vec()),
        ("signature", b"\0\x10t=1700000000,v1=00\n/x\n{}".to_vec()),
        ("signature", b"\0\xc0sha256=0000000000000000000000000000000000000000000000000000000000000000\n\n/x?y=z\na=b&c=d".to_vec()),
        ("signature", br#" {"Type":"Notification","MessageId":"1","TopicArn":"arn:aws:sns:eu-west-1:123456789012:topic","Message":"m","Timestamp":"2023-11-14T22:13:20.000Z","SignatureVersion":"2","Signature":"AAAA","SigningCertURL":"https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}"#.to_vec()),
    ]
});

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
