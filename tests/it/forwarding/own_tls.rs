//! Backends with an authority of their own, and backends that ask for a certificate of ours: forwarded to, delivered to
//! from the queue, and passed through to, under the same conditions.

use std::sync::Arc;

use hookward::config::plan_text;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::harness::process::{Running, TestFile};
use crate::harness::{Authority, Client, Conf, Event, Folder, Gateway, Identity, NOW, Upstream, request, until};

/// A backend that shows `identity`, and lets in only whom `clients` has signed for, if it is given.
async fn backend(identity: &Identity, clients: Option<&Authority>, version: u8) -> Upstream {
    let versions = match version {
        2 => [&TLS12],
        _ => [&TLS13],
    };
    let builder = ServerConfig::builder_with_protocol_versions(&versions);
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let config = builder.with_single_cert(vec![identity.der()], key).unwrap();
    Upstream::over_tls(TlsAcceptor::from(Arc::new(config)), |mut wire| async move {
        while let Some((_, seen)) = wire.request().await {
            if seen.header("upgrade").is_none() {
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                continue;
            }
            wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
            while let Some(message) = wire.bytes(5).await {
                wire.send(&message.to_ascii_uppercase()).await;
            }
        }
    })
    .await
}

/// Files of certificates.
struct Files(TestFile);

impl Files {
    fn new() -> Files {
        Files(TestFile::new("unused", ""))
    }

    fn ca(&self, name: &str, authority: &Authority) -> String {
        let path = self.0.beside(name);
        std::fs::write(&path, authority.pem()).unwrap();
        format!("ca: {path:?}")
    }

    fn own(&self, name: &str, identity: &Identity) -> String {
        let [certificate, key] = ["pem", "key"].map(|extension| self.0.beside(&format!("{name}.{extension}")));
        identity.write(&certificate, &key);
        format!("certificate: {certificate:?}, key: {key:?}")
    }
}

/// A gateway in front of `backend` at this host, spoken to as `tls` says, in every way there is.
fn conf(backend: &Upstream, host: &str, tls: &str, folder: &Folder) -> String {
    let server = format!(
        "servers: [\"https://{host}:{}\"], tls: {{ {tls} }}",
        backend.address.port()
    );
    let queued = "deliver: queue, retry: { schedule: [1h] }";
    Conf::to_app(&server)
        .top(&format!("data: {{ dir: {:?} }}", folder.path()))
        .top("passthrough: app")
        .route("github", "replay: off")
        .route("shopify", queued)
        .yaml()
}

const PAGE: &[u8] = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
const HANDSHAKE: &[u8] = b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Goes every way to `backend`, whose word it is that all of them are open, or none.
async fn every_way(gateway: &Gateway, backend: &Upstream, open: bool, what: &str) {
    let before = backend.seen().len();
    let status = if open { 200 } else { 502 };
    let forwarded = request(gateway.address, &Event::of("github", what).bytes()).await;
    assert_eq!(forwarded.status, status, "forwarded: {what}");
    assert_eq!(
        request(gateway.address, PAGE).await.status,
        status,
        "passed through: {what}"
    );
    let mut socket = Client::connect(gateway.address).await;
    socket.send(HANDSHAKE).await;
    let answer = socket.head().await;
    let expected = if open { "HTTP/1.1 101 " } else { "HTTP/1.1 502 " };
    assert!(answer.starts_with(expected), "a WebSocket: {what}: {answer}");
    if open {
        socket.send(b"hello").await;
        assert_eq!(socket.bytes(5).await, b"HELLO", "{what}");
    }
    let attempts = |outcome: &str| {
        let labels = format!("destination=\"app\",outcome=\"{outcome}\",route=\"shopify\"");
        gateway.metric(&format!("hookward_delivery_attempts_total{{{labels}}}"))
    };
    let outcome = if open { "delivered" } else { "retried" };
    let so_far = attempts(outcome);
    let queued = request(gateway.address, &Event::of("shopify", what).bytes()).await;
    assert_eq!(queued.status, 200, "queued: {what}");
    until(&format!("an attempt that is {outcome}: {what}"), || {
        attempts(outcome) > so_far
    })
    .await;
    assert_eq!(backend.seen().len() - before, if open { 4 } else { 0 }, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_its_own_authority_is_spoken_to_and_no_other() {
    // Inside of a company nearly every backend has a certificate that no public authority signed; whoever switches the
    // check off for that sends events to whoever answers.
    let (ours, foreign, files) = (Authority::new(), Authority::new(), Files::new());
    let (right_ca, wrong_ca) = (files.ca("right.pem", &ours), files.ca("wrong.pem", &foreign));
    for version in [2, 3] {
        let named = backend(&ours.issue("backend.internal"), None, version).await;
        let local = backend(&ours.issue("localhost"), None, version).await;
        for (what, backend, host, tls, open) in [
            ("its host", &local, "localhost", right_ca.clone(), true),
            (
                "a name",
                &named,
                "127.0.0.1",
                format!("{right_ca}, name: backend.internal"),
                true,
            ),
            ("no such name", &named, "127.0.0.1", right_ca.clone(), false),
            (
                "another name",
                &local,
                "localhost",
                format!("{right_ca}, name: backend.internal"),
                false,
            ),
            ("another authority", &local, "localhost", wrong_ca.clone(), false),
            (
                "the system's authorities",
                &local,
                "localhost",
                "name: localhost".to_owned(),
                false,
            ),
        ] {
            let folder = Folder::new();
            let gateway = Gateway::start(&conf(backend, host, &tls, &folder)).await;
            every_way(&gateway, backend, open, &format!("{what}, 1.{version}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_asks_for_a_certificate_is_shown_ours() {
    // A backend that takes events from nobody but the gateway is protected from everybody else in its network.
    let (ours, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let ca = files.ca("ca.pem", &ours);
    let own = files.own("own", &clients.issue("gateway.internal"));
    let foreign = files.own("foreign", &Authority::new().issue("gateway.internal"));
    for version in [2, 3] {
        let backend = backend(&ours.issue("localhost"), Some(&clients), version).await;
        for (what, tls, open) in [
            ("ours", format!("{ca}, {own}"), true),
            ("none", ca.clone(), false),
            ("a foreign one", format!("{ca}, {foreign}"), false),
        ] {
            let folder = Folder::new();
            let gateway = Gateway::start(&conf(&backend, "localhost", &tls, &folder)).await;
            every_way(&gateway, &backend, open, &format!("{what}, 1.{version}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_terms_and_no_connection_of_the_old_ones_is_used() {
    // An authority that was withdrawn would live on in every connection that is kept; an upstream that did not change
    // would lose its connections with every reload of something else.
    let (ours, foreign, files) = (Authority::new(), Authority::new(), Files::new());
    let backend = backend(&ours.issue("localhost"), None, 3).await;
    let folder = Folder::new();
    let ca = files.ca("ca.pem", &ours);
    let yaml = conf(&backend, "127.0.0.1", &format!("{ca}, name: localhost"), &folder);
    let gateway = Gateway::start(&yaml).await;
    every_way(&gateway, &backend, true, "at first").await;
    let connections = backend.connections();
    gateway.reload(&yaml);
    assert_eq!(request(gateway.address, PAGE).await.status, 200);
    assert_eq!(
        request(gateway.address, &Event::of("github", "kept").bytes())
            .await
            .status,
        200
    );
    assert_eq!(backend.connections(), connections, "nothing has changed");
    files.ca("ca.pem", &foreign);
    gateway.reload(&yaml);
    every_way(&gateway, &backend, false, "another authority").await;
    files.ca("ca.pem", &ours);
    gateway.reload(&yaml);
    every_way(&gateway, &backend, true, "the first one again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_files_are_found_and_broken_ones_change_nothing() {
    // Certificates of the inside are renewed every few days; nobody restarts a gateway for that.
    let (ours, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let ca = files.ca("ca.pem", &ours);
    let own = files.own("own", &Authority::new().issue("gateway.internal"));
    let backend = backend(&ours.issue("localhost"), Some(&clients), 3).await;
    let server = format!(
        "watch: 20ms\nupstreams: {{ app: {{ servers: [\"https://localhost:{}\"], tls: {{ {ca}, {own} }} }} }}\n\
         routes: []\npassthrough: app\n",
        backend.address.port()
    );
    let program = Running::start(&server).await;
    assert_eq!(request(program.address, PAGE).await.status, 502);
    // Half of a renewal.
    let renewed = clients.issue("gateway.internal");
    let unused = files.0.beside("unused.key");
    renewed.write(&files.0.beside("own.pem"), &unused);
    let log = program.process.stderr.has("not reloaded").await;
    assert!(log.contains("upstreams.app.tls.key"), "{log}");
    assert_eq!(request(program.address, PAGE).await.status, 502);
    files.own("own", &renewed);
    program.process.stderr.has("hookward.yaml: reloaded").await;
    assert_eq!(request(program.address, PAGE).await.status, 200);
}

#[test]
fn terms_that_cannot_be_kept_stop_the_start() {
    // Each of these would be a backend that is down, or one that is spoken to without what the operator asked for.
    let (ours, files) = (Authority::new(), Files::new());
    let (ca, own) = (files.ca("ca.pem", &ours), files.own("own", &ours.issue("a")));
    let other = files.own("other", &ours.issue("a"));
    let key_of = |own: &str| own.split_once(", ").unwrap().1.to_owned();
    let certificate = own.split_once(", ").unwrap().0;
    let empty = TestFile::new("empty.pem", "");
    let broken = TestFile::new("broken.pem", ours.pem().replace('A', "B"));
    for (server, tls, place, told) in [
        ("http://a:1", ca.clone(), "tls", "has no effect"),
        (
            "https://a",
            format!("ca: {:?}", empty.name()),
            "tls.ca",
            "has no certificate",
        ),
        ("https://a", format!("ca: {:?}", broken.name()), "tls.ca", "broken.pem"),
        (
            "https://a",
            "ca: /nowhere/ca.pem".to_owned(),
            "tls.ca",
            "/nowhere/ca.pem",
        ),
        ("https://a", certificate.to_owned(), "tls", "no `key`"),
        ("https://a", key_of(&own), "tls", "no `certificate`"),
        (
            "https://a",
            format!("{certificate}, {}", key_of(&other)),
            "tls.key",
            "is not the key of",
        ),
        (
            "https://a",
            format!("certificate: {:?}, {}", empty.name(), key_of(&own)),
            "tls.certificate",
            "has no certificate",
        ),
        (
            "https://a",
            format!("{certificate}, key: {:?}", empty.name()),
            "tls.key",
            "empty.pem",
        ),
        ("https://a", "name: \"\"".to_owned(), "tls.name", "is no name"),
        ("https://a", "name: \"a b\"".to_owned(), "tls.name", "is no name"),
    ] {
        let conf = Conf::to_app(&format!("servers: [\"{server}\"], tls: {{ {tls} }}")).route("github", "");
        let yaml = format!("listen: [127.0.0.1:0]\n{}", conf.yaml());
        let (plan, problems) = plan_text("test.yaml", &yaml, NOW);
        let problems = problems.to_string();
        assert!(plan.is_none(), "{tls}");
        let line = problems.lines().find(|line| line.contains(told));
        let place = format!("upstreams.app.{place}: ");
        assert!(line.is_some_and(|line| line.contains(&place)), "{tls}: {problems}");
    }
}
