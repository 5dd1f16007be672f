//! The happy way, stage by stage.

use crate::harness::{Gateway, Upstream, github, request, route_yaml};

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_event_arrives_and_its_answer_comes_back() {
    // If this fails nothing else matters.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let answer = request(gateway.address, &github(b"{\"zen\":1}")).await;
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, b"{\"zen\":1}");
    assert_eq!(seen[0].header("x-hookward-route"), Some("github"));
    assert_eq!(seen[0].header("x-hookward-verified"), Some("verified"));
    let lines = gateway.lines(1).await;
    assert_eq!(lines[0]["outcome"], "forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_event_stays_outside() {
    // The one thing the gateway is for.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let mut forged = github(b"{\"zen\":1}");
    *forged.last_mut().unwrap() = b']';
    let answer = request(gateway.address, &forged).await;
    assert_eq!((answer.status, answer.text()), (401, "unauthorized\n"));
    assert_eq!(gateway.lines(1).await[0]["reason"], "mismatch");
}
