//! Whose request it is, behind proxies that may speak for others and strangers that may not.

use std::net::SocketAddr;

use crate::harness::{Client, Gateway, Upstream, github, request, route_yaml};

/// Networks that the gateways here trust, besides the test's own address.
const TRUSTED: &str = "[127.0.0.1, 10.0.0.0/8, \"2001:db8:a::/48\"]";

/// `X-Forwarded-For` lines, and the client they name.
const CHAINS: &[(&[&str], &str)] = &[
    (&[], "127.0.0.1"),
    (&["192.0.2.1"], "192.0.2.1"),
    (&["2001:db8::1"], "2001:db8::1"),
    // The left part is the client's own invention.
    (&["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
    (&["127.0.0.1, 192.0.2.1"], "192.0.2.1"),
    (&["10.1.2.3, 192.0.2.1"], "192.0.2.1"),
    (&["x, y, z, 192.0.2.1"], "192.0.2.1"),
    (&["'; drop table, 192.0.2.1"], "192.0.2.1"),
    // Trusted proxies are taken off from the right.
    (&["192.0.2.1, 10.1.2.3"], "192.0.2.1"),
    (&["198.51.100.9, 192.0.2.1, 10.1.2.3, 10.4.5.6"], "192.0.2.1"),
    (&["192.0.2.1, 2001:db8:a::7"], "192.0.2.1"),
    (&["192.0.2.1, 127.0.0.1"], "192.0.2.1"),
    (&["192.0.2.1, 2001:db8:b::7"], "2001:db8:b::7"),
    // Several lines are one list.
    (&["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
    (&["192.0.2.1", "10.1.2.3"], "192.0.2.1"),
    (&["198.51.100.9, 192.0.2.1", "10.1.2.3, 10.4.5.6"], "192.0.2.1"),
    // White space.
    (&["  198.51.100.9 ,\t192.0.2.1  "], "192.0.2.1"),
    (&["198.51.100.9,192.0.2.1"], "192.0.2.1"),
    // An IPv4 address is one however it is written.
    (&["::ffff:192.0.2.1"], "192.0.2.1"),
    (&["192.0.2.1, ::ffff:10.1.2.3"], "192.0.2.1"),
    (&["2001:DB8:0:0::1"], "2001:db8::1"),
    // Nobody but ourselves: the peer.
    (&["10.1.2.3"], "127.0.0.1"),
    (&["10.1.2.3, 127.0.0.1"], "127.0.0.1"),
    // What cannot be read names nobody, and nothing left of it is believed.
    (&["192.0.2.1, x"], "127.0.0.1"),
    (&["192.0.2.1, "], "127.0.0.1"),
    (&["192.0.2.1,,10.1.2.3"], "127.0.0.1"),
    (&[""], "127.0.0.1"),
    (&["unknown"], "127.0.0.1"),
    (&["192.0.2.1, _hidden"], "127.0.0.1"),
    (&["192.0.2.1, 10.1.2.3:4711"], "127.0.0.1"),
    (&["192.0.2.256"], "127.0.0.1"),
    (&["192.0.2"], "127.0.0.1"),
    (&["192.0.2.01"], "127.0.0.1"),
    (&["3221225985"], "127.0.0.1"),
    (&["0xc0000201"], "127.0.0.1"),
    (&["192.0.2.1/32"], "127.0.0.1"),
    (&["[2001:db8::1]"], "127.0.0.1"),
    (&["fe80::1%eth0"], "127.0.0.1"),
    (&["192.0.2.1 10.1.2.3"], "127.0.0.1"),
    (&["192.0.2.1; 10.1.2.3"], "127.0.0.1"),
    (&["\u{661}92.0.2.1"], "127.0.0.1"),
];

/// `Forwarded` lines, and the client they name.
const ELEMENTS: &[(&[&str], &str)] = &[
    (&["for=192.0.2.1"], "192.0.2.1"),
    (&["For=192.0.2.1"], "192.0.2.1"),
    (&["for=\"192.0.2.1\""], "192.0.2.1"),
    (&["for=\"192.0.2.1:4711\""], "192.0.2.1"),
    (&["for=\"192.0.2.1:_hidden\""], "192.0.2.1"),
    (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
    (&["for=\"[2001:DB8:0::1]:4711\""], "2001:db8::1"),
    (&["for=\"[::ffff:192.0.2.1]\""], "192.0.2.1"),
    (&["for=\"19\\2.0.2.1\""], "192.0.2.1"),
    (&["for=192.0.2.1;proto=https;by=203.0.113.43"], "192.0.2.1"),
    (&["by=203.0.113.43;host=\"a:80\";for=192.0.2.1"], "192.0.2.1"),
    (&["by=203.0.113.43; host=\"a, b; c\" ;for=192.0.2.1"], "192.0.2.1"),
    (&["for=192.0.2.1;"], "192.0.2.1"),
    (&[";for=192.0.2.1;;proto=https"], "192.0.2.1"),
    // The left part is the client's own invention.
    (&["for=198.51.100.9, for=192.0.2.1"], "192.0.2.1"),
    (&[", for=192.0.2.1"], "192.0.2.1"),
    (&["for=127.0.0.1,for=192.0.2.1"], "192.0.2.1"),
    (&["for=unknown, for=192.0.2.1"], "192.0.2.1"),
    (&["x=\"for=198.51.100.9\", for=192.0.2.1"], "192.0.2.1"),
    (&["nonsense", "for=192.0.2.1"], "192.0.2.1"),
    (&["for=198.51.100.9;x=\"", "for=192.0.2.1"], "192.0.2.1"),
    // Trusted proxies are taken off from the right, over several lines as over one.
    (&["for=192.0.2.1, for=10.1.2.3"], "192.0.2.1"),
    (
        &["for=198.51.100.9, for=192.0.2.1", "for=10.1.2.3, for=\"10.4.5.6:443\""],
        "192.0.2.1",
    ),
    (&["for=192.0.2.1, for=\"[2001:db8:a::7]\""], "192.0.2.1"),
    // Nobody but ourselves: the peer.
    (&["for=10.1.2.3"], "127.0.0.1"),
    (&["for=10.1.2.3, for=127.0.0.1"], "127.0.0.1"),
    // Nobody is named, and nothing left of that is believed.
    (&["for=192.0.2.1, for=unknown"], "127.0.0.1"),
    (&["for=192.0.2.1, for=_hidden"], "127.0.0.1"),
    (&["for=192.0.2.1, for=\"_hidden:4711\""], "127.0.0.1"),
    (&["for=192.0.2.1, proto=https"], "127.0.0.1"),
    (&["for=192.0.2.1, "], "127.0.0.1"),
    (&[""], "127.0.0.1"),
    (&["for=192.0.2.1", ""], "127.0.0.1"),
    // What cannot be read names nobody.
    (&["for"], "127.0.0.1"),
    (&["for="], "127.0.0.1"),
    (&["for=\"\""], "127.0.0.1"),
    (&["for = 192.0.2.1"], "127.0.0.1"),
    (&["for=192.0.2.1:4711"], "127.0.0.1"),
    (&["for=[2001:db8::1]"], "127.0.0.1"),
    (&["for=\"2001:db8::1\""], "127.0.0.1"),
    (&["for=\"[192.0.2.1]\""], "127.0.0.1"),
    (&["for=\"192.0.2.1:\""], "127.0.0.1"),
    (&["for=\"192.0.2.1:471100\""], "127.0.0.1"),
    (&["for=\"192.0.2.1:+80\""], "127.0.0.1"),
    (&["for=\"[2001:db8::1]4711\""], "127.0.0.1"),
    (&["for=\"[2001:db8::1\""], "127.0.0.1"),
    (&["for=\"192.0.2.1"], "127.0.0.1"),
    (&["for=\"192.0.2.1\"x"], "127.0.0.1"),
    (&["for=\"192.0.2.1\\"], "127.0.0.1"),
    (&["for=192.0.2.1;for=192.0.2.2"], "127.0.0.1"),
    (&["for=192.0.2.1;For=192.0.2.1"], "127.0.0.1"),
    (&["for=192.0.2.01"], "127.0.0.1"),
    (&["192.0.2.1"], "127.0.0.1"),
    (&["for=192.0.2.1 for=192.0.2.2"], "127.0.0.1"),
    (&["for=192.0.2.1;proto=https for=192.0.2.2"], "127.0.0.1"),
    (&["for=192.0.2.1; =x"], "127.0.0.1"),
    // Quotes that a client leaves open swallow the proxy's word, or break it; they never become the client.
    (&["for=198.51.100.9;x=\", for=192.0.2.1"], "127.0.0.1"),
    (&["for=198.51.100.9;x=\", for=\"[2001:db8::1]\""], "127.0.0.1"),
    (
        &["for=198.51.100.9;x=\"\\, for=\"[2001:db8::1]\";by=\"[2001:db8:a::7]\""],
        "127.0.0.1",
    ),
];

async fn gateway(upstream: SocketAddr, client: &str, limits: &str) -> Gateway {
    let yaml = route_yaml(upstream, "replay: off");
    let yaml = match limits {
        "" => yaml,
        _ => format!("limits: {{ {limits} }}\n{}", yaml.split_once('\n').unwrap().1),
    };
    Gateway::start(&format!("client: {{ {client} }}\n{yaml}passthrough: app\n")).await
}

/// A genuine event with header lines of its own.
fn event(lines: &[String]) -> Vec<u8> {
    let genuine = String::from_utf8(github(b"{}")).unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    genuine
        .replacen("Content-Type", &format!("{lines}Content-Type"), 1)
        .into_bytes()
}

fn chain(entries: &[&str]) -> Vec<String> {
    entries
        .iter()
        .map(|entries| format!("X-Forwarded-For: {entries}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_names_the_client_and_nobody_else_does() {
    // Whoever can choose his own address has a rate limit of his own for each request, and somebody else in the log.
    let upstream = Upstream::ok().await;
    let trusting = gateway(upstream.address, &format!("trusted_proxies: {TRUSTED}"), "").await;
    let plain = gateway(upstream.address, "trusted_proxies: [10.0.0.0/8]", "").await;
    for (n, (entries, client)) in CHAINS.iter().enumerate() {
        assert_eq!(request(trusting.address, &event(&chain(entries))).await.status, 200);
        assert_eq!(trusting.lines(n + 1).await[n]["client"], *client, "{entries:?}");
        assert_eq!(request(plain.address, &event(&chain(entries))).await.status, 200);
        assert_eq!(plain.lines(n + 1).await[n]["client"], "127.0.0.1", "{entries:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_header_names_the_client_where_proxies_write_it() {
    // Whoever is behind proxies that write one of the two headers can write the other one, and would be whom he likes.
    let upstream = Upstream::ok().await;
    let newer = format!("trusted_proxies: {TRUSTED}, proxy_header: forwarded");
    let newer = gateway(upstream.address, &newer, "").await;
    let older = gateway(upstream.address, &format!("trusted_proxies: {TRUSTED}"), "").await;
    let plain = gateway(
        upstream.address,
        "trusted_proxies: [10.0.0.0/8], proxy_header: forwarded",
        "",
    )
    .await;
    for (n, (elements, client)) in ELEMENTS.iter().enumerate() {
        let mut lines = vec!["X-Forwarded-For: 203.0.113.1".to_owned()];
        lines.extend(elements.iter().map(|elements| format!("Forwarded: {elements}")));
        for (gateway, client) in [(&newer, *client), (&older, "203.0.113.1"), (&plain, "127.0.0.1")] {
            assert_eq!(request(gateway.address, &event(&lines)).await.status, 200);
            assert_eq!(gateway.lines(n + 1).await[n]["client"], client, "{lines:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_hears_of_the_client_that_the_newer_header_names() {
    // What it hears in x-forwarded-for it believes, so nothing of that may be left from behind the proxies.
    let upstream = Upstream::ok().await;
    let conf = format!("trusted_proxies: {TRUSTED}, proxy_header: forwarded");
    let gateway = gateway(upstream.address, &conf, "").await;
    for (element, client, proto) in [
        ("for=192.0.2.1;proto=HTTPS", "192.0.2.1", "https"),
        ("for=192.0.2.1;proto=http", "192.0.2.1", "http"),
        ("for=\"[2001:db8::1]\"", "2001:db8::1", "http"),
        ("for=198.51.100.66;proto=https, for=192.0.2.1", "192.0.2.1", "http"),
        ("for=198.51.100.66;proto=https;proto=http", "127.0.0.1", "http"),
        ("for=_hidden;proto=https", "127.0.0.1", "http"),
    ] {
        let lines = [
            &format!("Forwarded: {element}"),
            "X-Forwarded-For: 198.51.100.66",
            "X-Forwarded-Proto: ftp",
            "X-Forwarded-Host: evil.test",
            "X-Forwarded-Port: 66",
        ];
        let event = event(&lines.map(str::to_owned));
        let app = String::from_utf8(event.clone()).unwrap();
        let app = app.replacen("/webhooks/github", "/app", 1);
        for bytes in [&event[..], app.as_bytes()] {
            assert_eq!(request(gateway.address, bytes).await.status, 200);
            let seen = upstream.seen().pop().unwrap();
            let told = |name: &str| (seen.count(name) == 1).then(|| seen.header(name)).flatten();
            assert_eq!(told("x-forwarded-for"), Some(client), "{element}");
            assert_eq!(told("x-forwarded-proto"), Some(proto), "{element}");
            assert_eq!(told("x-forwarded-host"), Some("gateway.test"), "{element}");
            assert_eq!(
                (seen.count("forwarded"), seen.count("x-forwarded-port")),
                (0, 0),
                "{element}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_hears_of_the_client_from_us_alone() {
    // A backend that believes x-forwarded-for believes the gateway, and that must not be an echo of a stranger.
    let upstream = Upstream::ok().await;
    let trusting = gateway(upstream.address, &format!("trusted_proxies: {TRUSTED}"), "").await;
    let plain = gateway(upstream.address, "trusted_proxies: []", "").await;
    let lines = [
        "X-Forwarded-For: 192.0.2.1",
        "x-forwarded-for: 10.1.2.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: hooks.test",
        "X_Forwarded_For: 192.0.2.66",
        "Forwarded: for=192.0.2.66",
    ];
    let event = event(&lines.map(str::to_owned));
    let app = String::from_utf8(event.clone())
        .unwrap()
        .replacen("/webhooks/github", "/app", 1);
    for (bytes, what) in [(&event[..], "webhook"), (app.as_bytes(), "pass-through")] {
        for (gateway, expected) in [
            (&trusting, ["192.0.2.1, 10.1.2.3, 127.0.0.1", "https", "hooks.test"]),
            (&plain, ["127.0.0.1", "http", "gateway.test"]),
        ] {
            assert_eq!(request(gateway.address, bytes).await.status, 200, "{what}");
            let seen = upstream.seen().pop().unwrap();
            for (name, expected) in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
                .iter()
                .zip(expected)
            {
                assert_eq!(
                    (seen.header(name), seen.count(name)),
                    (Some(expected), 1),
                    "{what}: {name}"
                );
            }
            assert_eq!(
                (seen.count("x_forwarded_for"), seen.count("forwarded")),
                (0, 0),
                "{what}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_behind_a_proxy_has_a_rate_of_its_own() {
    // Counted by connection, one noisy sender behind a load balancer would shut out every other.
    let upstream = Upstream::ok().await;
    let limits = "client_rate: 1/h, client_burst: 2";
    let gateway = gateway(upstream.address, &format!("trusted_proxies: {TRUSTED}"), limits).await;
    let mut client = Client::connect(gateway.address).await;
    let mut statuses = Vec::new();
    // The right-most address counts, whatever is invented to the left of it; an IPv6 subscriber is one client.
    for from in [
        "192.0.2.1",
        "1.1.1.1, 192.0.2.1",
        "2.2.2.2, 192.0.2.1, 10.1.2.3",
        "192.0.2.2",
    ] {
        client.send(&event(&chain(&[from]))).await;
        statuses.push(client.answer().await.status);
    }
    for from in ["2001:db8::1", "2001:db8::2", "2001:db8::3:4:5:6", "2001:db8:0:1::1"] {
        client.send(&event(&chain(&[from]))).await;
        statuses.push(client.answer().await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200, 200, 429, 200]);
    client.send(&event(&chain(&["192.0.2.1"]))).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (429, "client_rate\n"));
    assert_eq!(answer.header("retry-after"), Some("3600"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"client_rate\";q=1;w=3600"));
    assert_eq!(answer.header("ratelimit"), Some("\"client_rate\";r=0;t=3600"));
    gateway.clock.advance(std::time::Duration::from_secs(3600));
    client.send(&event(&chain(&["192.0.2.1"]))).await;
    assert_eq!(client.answer().await.status, 200, "an hour later");
}
