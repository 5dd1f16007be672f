//! SIGHUP, SIGTERM and SIGINT.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{PATIENCE, genuine, get, github, until_answered};
use crate::harness::process::Running;
use crate::harness::{Client, SECRET, Upstream, request, route_yaml};

/// Longer than any test waits: whatever ends sooner ended because nothing was in flight.
const NEVER: &str = "drain: 10m\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_good_file_is_taken_over_on_sighup_and_a_bad_one_changes_nothing() {
    // A reload that half works is an outage, or an open door, at the time of the next deployment.
    let upstream = Upstream::ok().await;
    let yaml = route_yaml(upstream.address, "");
    let gateway = Running::start(&yaml).await;
    let (old, new) = ("/webhooks/github", "/webhooks/moved");
    let event = |path: &str, n: u32| genuine("github", SECRET, path, "", format!("{{\"n\":{n}}}").as_bytes());
    assert_eq!(request(gateway.address, &event(old, 1)).await.status, 200);

    gateway.rewrite(&yaml.replace(old, new));
    gateway.process.signal("HUP").await;
    gateway.process.stderr.has("hookward.yaml: reloaded").await;
    assert_eq!(request(gateway.address, &event(new, 2)).await.status, 200);
    assert_eq!(request(gateway.address, &event(old, 3)).await.status, 404);
    // What was seen before is known still.
    assert_eq!(request(gateway.address, &event(new, 1)).await.status, 200);
    assert_eq!(upstream.seen().len(), 2);
    let ok = "hookward_config_last_reload_successful 1\n";
    assert!(get(gateway.admin, "/metrics").await.text().contains(ok));

    gateway.rewrite(&yaml.replace("provider: github", "provider: githob"));
    gateway.process.signal("HUP").await;
    let told = gateway
        .process
        .stderr
        .has("not reloaded; the configuration in force stays")
        .await;
    assert!(told.contains("routes[0].provider"), "{told}");
    assert!(told.contains("hookward.yaml:8:"), "{told}");
    assert_eq!(request(gateway.address, &event(new, 4)).await.status, 200);
    assert!(!get(gateway.admin, "/metrics").await.text().contains(ok));

    std::fs::remove_file(gateway.file.path()).unwrap();
    gateway.process.signal("HUP").await;
    gateway.process.stderr.has("cannot be read").await;
    assert_eq!(request(gateway.address, &event(new, 5)).await.status, 200);

    let sample = yaml.replace("upstreams: { ", "upstreams: { demo: { sample: true }, ");
    gateway.rewrite(&(sample + "drain: 3s\nwatch: off\n"));
    gateway.process.signal("HUP").await;
    let waiting = "changes of upstreams.*.sample, drain, watch wait for a restart";
    gateway.process.stderr.has(waiting).await;
    assert_eq!(request(gateway.address, &event(old, 6)).await.status, 200);
    assert!(get(gateway.admin, "/metrics").await.text().contains(ok));
}

/// A gateway with a request on its way: all of it was sent but the last byte of its body.
async fn interrupted(yaml: &str) -> (Running, Client, Vec<u8>) {
    let gateway = Running::start(yaml).await;
    let mut client = Client::connect(gateway.address).await;
    let mut event = github(b"{\"slow\":true}");
    let last = event.split_off(event.len() - 1);
    client.send(&event).await;
    let in_flight = async {
        let series = "hookward_in_flight{route=\"github\"} 1\n";
        while !get(gateway.admin, "/metrics").await.text().contains(series) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let begun = tokio::time::timeout(PATIENCE, in_flight).await;
    begun.expect("the request never began");
    (gateway, client, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_finished_and_then_it_ends_at_once() {
    // An event cut off by a deployment may have been taken already: the provider's retry would double it.
    let upstream = Upstream::ok().await;
    let servers = format!("servers: [\"{}\"]", upstream.address);
    for (signal, backend) in [("TERM", servers.as_str()), ("INT", "sample: true")] {
        let yaml = route_yaml(upstream.address, "").replace(&servers, backend) + NEVER;
        let (mut gateway, mut client, last) = interrupted(&yaml).await;
        gateway.process.signal(signal).await;
        until_refused(gateway.address).await;
        // Out of the load balancer, and said so.
        until_answered(gateway.admin, "/readyz", 503).await;
        assert_eq!(get(gateway.admin, "/healthz").await.status, 200);
        client.send(&last).await;
        assert_eq!(client.answer().await.status, 200, "{signal}");
        assert_eq!(gateway.process.end().await, Some(0), "{signal}");
        let log = gateway.process.stdout.text();
        assert!(log.contains("200 forwarded"), "{}", gateway.process.said());
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    // Who asks twice does not want to wait for a sender that never finishes.
    let upstream = Upstream::unreachable().await;
    let (mut gateway, mut client, _) = interrupted(&(route_yaml(upstream.address, "") + NEVER)).await;
    gateway.process.signal("TERM").await;
    until_refused(gateway.address).await;
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await, Some(0), "{}", gateway.process.said());
    assert!(client.closes().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_gateway_ends_on_the_first_signal() {
    // Orchestrators kill after a grace period; every second of it is a slower deployment. Idle connections are no reason to wait.
    let upstream = Upstream::ok().await;
    let mut gateway = Running::start(&(route_yaml(upstream.address, "") + NEVER)).await;
    let mut idle = Client::connect(gateway.address).await;
    idle.send(&github(b"{\"n\":1}")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut silent = Client::connect(gateway.address).await;
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await, Some(0));
    assert!(idle.closes().await && silent.closes().await);
}

/// Waits until nobody listens at `address` any more.
async fn until_refused(address: SocketAddr) {
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("it listens on");
}
