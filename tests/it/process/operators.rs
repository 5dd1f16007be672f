//! The operators' side: metrics, health, readiness.

use super::{genuine, get, github};
use crate::harness::process::{Running, run};
use crate::harness::{Client, SECRET, Upstream, request, route_yaml};

#[tokio::test(flavor = "multi_thread")]
async fn operators_have_a_side_of_their_own() {
    // Metrics on the public listener tell an attacker which forgeries come closest.
    let upstream = Upstream::unreachable().await;
    let gateway = Running::start(&route_yaml(upstream.address, "")).await;
    for (path, status, body) in [
        ("/healthz", 200, "ok\n"),
        ("/readyz", 200, "ready\n"),
        ("/", 404, "/metrics /healthz /readyz /api/\n"),
    ] {
        let answer = get(gateway.admin, path).await;
        assert_eq!((answer.status, answer.text()), (status, body), "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        let answer = get(gateway.address, path).await;
        assert_eq!((answer.status, answer.text()), (404, "no_route\n"), "{path}");
    }
    let webhook = String::from_utf8(github(b"{}")).unwrap();
    assert_eq!(request(gateway.admin, webhook.as_bytes()).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    // A dashboard is built on names and types; renaming them later breaks every alert.
    let upstream = Upstream::ok().await;
    let gateway = Running::start(&route_yaml(upstream.address, "")).await;
    assert_eq!(request(gateway.address, &github(b"{\"n\":1}")).await.status, 200);
    assert_eq!(request(gateway.address, &github(b"{\"n\":1}")).await.status, 200);
    assert_eq!(get(gateway.address, "/elsewhere").await.status, 404);
    let metrics = get(gateway.admin, "/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(metrics.text().contains("# TYPE hookward_requests_total counter\n"));
    let found = run("sh", &["-c", "command -v promtool"], b"").await;
    assert_eq!(
        found.code,
        Some(0),
        "promtool is missing: `make test` installs it (Debian package prometheus)"
    );
    let ended = run("promtool", &["check", "metrics"], &metrics.body).await;
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
        (Some(0), "", "")
    );
}

/// The series in a page of metrics: names and labels without values.
fn series(metrics: &str) -> Vec<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_add_no_series() {
    // A label that a stranger can choose fills the memory of the gateway and of everything that scrapes it.
    let upstream = Upstream::ok().await;
    let yaml = route_yaml(upstream.address, "limits: { rate: 100000/s, burst: 100000 }\n");
    let gateway = Running::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    let mut before = Vec::new();
    for n in 0_u64..2000 {
        if n == 8 {
            // By then there was one of each kind.
            before = series(get(gateway.admin, "/metrics").await.text());
        }
        let x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let labels = format!(
            "X-GitHub-Event: type-{x}\r\nX-GitHub-Delivery: id-{x}\r\nX-Hookward-Route: r{x}\r\nUser-Agent: {x}\r\n"
        );
        let (bytes, status) = match n % 8 {
            0..4 => (
                format!("M{x} /{x}/webhooks HTTP/1.1\r\nHost: {x}.test\r\n{labels}Content-Length: 0\r\n\r\n")
                    .into_bytes(),
                404,
            ),
            4 => (
                format!("M{x} /webhooks/github HTTP/1.1\r\nHost: {x}.test\r\n\r\n").into_bytes(),
                405,
            ),
            5 => {
                let mut forged = genuine(
                    "github",
                    SECRET,
                    "/webhooks/github",
                    &labels,
                    format!("{{\"id\":\"{x}\"}}").as_bytes(),
                );
                *forged.last_mut().unwrap() = b']';
                (forged, 401)
            }
            _ => (
                genuine(
                    "github",
                    SECRET,
                    &format!("/webhooks/github?{x}"),
                    &labels,
                    format!("{{\"id\":\"{x}\"}}").as_bytes(),
                ),
                200,
            ),
        };
        client.send(&bytes).await;
        assert_eq!(
            client.answer().await.status,
            status,
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    let after = series(get(gateway.admin, "/metrics").await.text());
    assert!(before.len() > 50, "{before:?}");
    assert_eq!(after, before);
}
