//! Backends behind TLS: spoken to only when certificate and name are right.
//!
//! The system's trust store is read when a process makes its connector, so these tests run the program itself, with
//! a trust store of their own.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::harness::process::{Running, TestFile};
use crate::harness::{Client, SECRET, Upstream, request, sign_github};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server with a certificate for `name`, good until the year `until`, by `authority`.
async fn server(authority: &Authority, name: &str, until: i32) -> Upstream {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, authority).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
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

/// A program that trusts `trusted` alone, with a route to each of `upstreams` that is called like it.
async fn program(trusted: &str, upstreams: &[(&str, String)]) -> Running {
    let mut yaml = "upstreams:\n".to_owned();
    for (name, server) in upstreams {
        yaml.push_str(&format!("  {name}: {{ servers: [\"{server}\"] }}\n"));
    }
    yaml.push_str("routes:\n");
    for (name, _) in upstreams {
        let secrets = format!("secrets: [{{ value: {SECRET} }}]");
        yaml.push_str(&format!(
            "  - {{ name: {name}, path: /{name}, provider: github, {secrets}, upstream: {name} }}\n"
        ));
    }
    yaml.push_str(&format!("passthrough: {}\n", upstreams[0].0));
    let trusted = TestFile::new("trusted.pem", trusted);
    Running::start_with(&yaml, &[], &[("SSL_CERT_FILE", trusted.name())]).await
}

/// The status of a genuine event for the route of this name.
async fn send(program: &Running, route: &str) -> u16 {
    let body = format!("{{\"for\":\"{route}\"}}");
    let signature = sign_github(body.as_bytes());
    let event = format!(
        "POST /{route} HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: {signature}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    request(program.address, event.as_bytes()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_spoken_to_only_when_it_proves_who_it_is() {
    // Events hold customers' data: whoever can bend the way to the backend must not get a byte of them.
    let (ours, foreign) = (authority(), authority());
    let right = server(&ours, "localhost", 2999).await;
    let right_address = server(&ours, "127.0.0.1", 2999).await;
    let wrong_name = server(&ours, "elsewhere.test", 2999).await;
    let untrusted = server(&foreign, "localhost", 2999).await;
    let expired = server(&ours, "localhost", 2001).await;
    let plain = Upstream::ok().await;
    let at = |host: &str, upstream: &Upstream| format!("https://{host}:{}", upstream.address.port());
    let program = program(
        &ours.pem(),
        &[
            ("right", at("localhost", &right)),
            ("right-address", at("127.0.0.1", &right_address)),
            ("wrong-name", at("localhost", &wrong_name)),
            ("untrusted", at("localhost", &untrusted)),
            ("expired", at("localhost", &expired)),
            ("plain", at("localhost", &plain)),
        ],
    )
    .await;
    for (route, status) in [
        ("right", 200),
        ("right-address", 200),
        ("wrong-name", 502),
        ("untrusted", 502),
        ("expired", 502),
        ("plain", 502),
    ] {
        assert_eq!(send(&program, route).await, status, "{route}");
    }
    for silent in [&wrong_name, &untrusted, &expired, &plain] {
        assert_eq!(silent.seen().len(), 0);
    }
    assert_eq!(right.seen()[0].header("host"), Some("a"));
    let failed = r#"hookward_upstream_attempts_total{result="connect_failed",upstream="wrong-name"}"#;
    // One for each address of localhost.
    assert!(program.metric(failed).await >= 1.0);
    // What is passed through goes the same way, under the same conditions.
    let passed = request(program.address, b"GET /app HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((passed.status, right.seen().len()), (200, 2));
}

const HANDSHAKE: &[u8] = b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_through_tls_under_the_same_conditions() {
    // Its connections are made in another way than all others: verified or not, nobody would see the difference.
    let (ours, foreign) = (authority(), authority());
    let right = server(&ours, "localhost", 2999).await;
    let untrusted = server(&foreign, "localhost", 2999).await;
    let url = |upstream: &Upstream| format!("https://localhost:{}", upstream.address.port());
    let trusting = program(&ours.pem(), &[("app", url(&right))]).await;
    for _ in 0..10 {
        let mut client = Client::connect(trusting.address).await;
        client.send(HANDSHAKE).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        for _ in 0..3 {
            client.send(b"hello").await;
            assert_eq!(client.bytes(5).await, b"HELLO");
        }
    }
    let wary = program(&ours.pem(), &[("app", url(&untrusted))]).await;
    assert_eq!(request(wary.address, HANDSHAKE).await.status, 502);
    assert_eq!(untrusted.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_trust_store_nobody_is_trusted() {
    // A minimal container has none: that must be a 502 that says so, neither a crash nor a blind eye.
    let right = server(&authority(), "localhost", 2999).await;
    let url = format!("https://localhost:{}", right.address.port());
    let program = program("", &[("right", url)]).await;
    assert_eq!(send(&program, "right").await, 502);
    let passed = request(program.address, b"GET /app HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((passed.status, right.seen().len()), (502, 0));
}
