//! The guard inside somebody else's Pingora proxy: `examples/guarded_proxy.rs`, as a process.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hookward::clock::Clock;
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature;

use crate::harness::process::{Process, TestFile};
use crate::harness::{Client, SECRET, Upstream, request, route_yaml};

/// The proxy at work, with an application of its own and an upstream for the events.
struct Proxy {
    address: SocketAddr,
    application: Upstream,
    events: Upstream,
    _process: Process,
    _file: TestFile,
}

impl Proxy {
    /// `more` is more keys of the guarded route.
    async fn start(more: &str) -> Proxy {
        let application =
            Upstream::answering(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npages".to_vec()).await;
        let events = Upstream::ok().await;
        // By name, as in most configurations.
        let yaml = route_yaml(events.address, more).replace("127.0.0.1", "localhost");
        let file = TestFile::new("webhooks.yaml", format!("listen: [127.0.0.1:0]\n{yaml}"));
        let address = free_address();
        let arguments = [
            address.to_string(),
            application.address.to_string(),
            file.name().to_owned(),
        ];
        let process = Process::start(program(), &arguments, &[]);
        let listening = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let listens = tokio::time::timeout(Duration::from_secs(30), listening).await;
        listens.unwrap_or_else(|_| panic!("it does not listen\n{}", process.said()));
        Proxy {
            address,
            application,
            events,
            _process: process,
            _file: file,
        }
    }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/guarded_proxy");
    assert!(
        program.exists(),
        "{} is missing: `cargo build --examples` builds it, and so does `make test`",
        program.display()
    );
    program
}

/// An address for a program that does not tell which port it got: outside of the ports that systems give to those who
/// ask for any, so that no other test gets it in between.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 8_000) as u16;
    let candidates = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    let mut addresses = candidates
        .take(1000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    addresses
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("no port is free")
}

/// A genuine event of this moment, sent to `target` on `host`.
fn event(host: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let scheme = &builtin().find("github").unwrap().scheme;
    let secret = Secret::new(SECRET).unwrap();
    let signed = signature::sign(scheme, &secret, "", Clock::system().wall(), body).unwrap();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\n{}: {}\r\nContent-Length: {}\r\n\r\n",
        signed[0].0,
        signed[0].1,
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_through_the_guard_and_everything_else_its_own_way() {
    // The proxy that somebody has had for years must stay what it was, and its one path must be safe.
    let proxy = Proxy::start("").await;
    let mut client = Client::connect(proxy.address).await;
    let genuine = event("a", "/webhooks/github", b"{\"n\":1}");
    let mut forged = event("a", "/webhooks/github", b"{\"n\":2}");
    *forged.last_mut().unwrap() = b']';
    let large = event("a", "/webhooks/github?x=1", &[b' '; 300_000]);
    let table: [(&[u8], u16, &str); 6] = [
        (&genuine, 200, "ok"),
        (b"GET /a/page HTTP/1.1\r\nHost: a\r\n\r\n", 200, "pages"),
        (&forged, 401, "unauthorized\n"),
        // A repeat is answered for the upstream.
        (&genuine, 200, ""),
        (&large, 200, "ok"),
        (
            b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b",
            200,
            "pages",
        ),
    ];
    for (bytes, status, text) in table {
        client.send(bytes).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text()),
            (status, text),
            "{}",
            String::from_utf8_lossy(&bytes[..30])
        );
    }
    let events = proxy.events.seen();
    let lengths: Vec<_> = events.iter().map(|event| event.body.len()).collect();
    assert_eq!(lengths, [7, 300_000]);
    assert_eq!(events[0].header("x-hookward-verified"), Some("verified"));
    let pages = proxy.application.seen();
    let heads: Vec<_> = pages.iter().map(|page| page.head.lines().next().unwrap()).collect();
    assert_eq!(heads, ["GET /a/page HTTP/1.1", "POST /form HTTP/1.1"]);
    assert_eq!(pages[1].body, b"a=b");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_guarded_path_reaches_the_application() {
    // The application serves the path too, for it did before the guard came: whatever slips past is acted on unproven.
    let proxy = Proxy::start("").await;
    for target in [
        "/webhooks//github",
        "/webhooks/github/",
        "/Webhooks/GitHub",
        "/webhooks/%67ithub",
        "/webhooks/x/../github",
        "/webhooks/./github?x",
        "/webhooks;a=b/github",
        "/webhooks%2fgithub",
        "//webhooks/github",
    ] {
        let answer = request(proxy.address, &event("a", target, b"{}")).await;
        assert_eq!((answer.status, answer.text()), (400, "ambiguous_path\n"), "{target}");
    }
    for target in ["http://a/webhooks/github", "http://a/webhooks//github"] {
        let answer = request(proxy.address, &event("a", target, b"{}")).await;
        assert_eq!((answer.status, answer.text()), (400, "bad_framing\n"), "{target}");
    }
    let get = b"GET /webhooks/github HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(proxy.address, get).await.status, 405);
    assert_eq!(proxy.application.seen().len() + proxy.events.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_path_is_guarded_under_every_host_name() {
    // An application that ignores host names would take a forged event for the price of another Host header.
    let proxy = Proxy::start("host: hooks.example.com\n").await;
    let own = request(proxy.address, &event("hooks.example.com", "/webhooks/github", b"{}")).await;
    assert_eq!((own.status, own.text()), (200, "ok"));
    for host in ["a", "example.com", "hooks.example.com.evil.test", "127.0.0.1"] {
        let answer = request(proxy.address, &event(host, "/webhooks/github", b"{}")).await;
        assert_eq!((answer.status, answer.text()), (404, "no_route\n"), "{host}");
    }
    assert_eq!(proxy.application.seen().len(), 0);
}

#[test]
fn a_file_that_does_not_fit_is_no_guard() {
    // A guard that answers 502 to every event is noticed by the provider's emails, days later.
    let good = route_yaml(([127, 0, 0, 1], 9).into(), "");
    let table = [
        (
            good.replace("servers: [\"127.0.0.1:9\"]", "sample: true"),
            "upstreams.app: is the sample backend",
        ),
        (good.replace("upstream: app", "upstream: apq"), "upstream"),
    ];
    for (yaml, told) in table {
        let file = TestFile::new("webhooks.yaml", format!("listen: [127.0.0.1:0]\n{yaml}"));
        let Err(problems) = hookward::open(file.path()) else {
            panic!("{yaml}")
        };
        assert!(problems.to_string().contains(told), "{problems}");
    }
}
