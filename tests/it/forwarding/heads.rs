//! The request head as the backend sees it, header by header.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{config, event, request_with, servers};
use crate::harness::{Client, Gateway, H2, Recorded, Upstream, header, request, sign_github};

/// What the gateway itself puts into the head of every event of these tests.
const OURS: [(&str, &str); 9] = [
    ("content-length", "2"),
    ("host", "gateway.test"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-host", "gateway.test"),
    ("x-forwarded-proto", "http"),
    ("x-hookward-attempt", "1"),
    ("x-hookward-event-type", "push"),
    ("x-hookward-provider", "github"),
    ("x-hookward-route", "github"),
];

/// The head in alphabetical order, without what every event of these tests has.
fn beyond_ours(seen: &Recorded) -> Vec<(String, String)> {
    let mut fields: Vec<_> = seen.headers();
    fields.sort();
    for ours in OURS.into_iter().chain([("x-hookward-verified", "verified")]) {
        let at = fields.iter().position(|field| *field == ours);
        fields.remove(at.unwrap_or_else(|| panic!("{ours:?} is missing in {}", seen.head)));
    }
    fields.retain(|(name, _)| !matches!(*name, "x-github-event" | "x-hub-signature-256"));
    let owned = fields.into_iter();
    owned.map(|(name, value)| (name.into(), value.into())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_sees_what_was_sent_and_what_was_found_out() {
    // A backend that misses a header it relies on, or gets one twice, breaks on the day the gateway is put in front.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let sent = "User-Agent: GitHub-Hookshot/1\r\nAccept: */*\r\nX-GitHub-Delivery: d-1\r\nCookie: a=1\r\n\
                Cookie: b=2\r\nContent-Type: application/json\r\nX-Empty:\r\n";
    request(gateway.address, &event(sent)).await;
    let seen = &upstream.seen()[0];
    assert!(
        seen.head
            .starts_with("POST /webhooks/github HTTP/1.1\r\nhost: gateway.test\r\n")
    );
    let expected = [
        ("accept", "*/*"),
        ("content-type", "application/json"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("user-agent", "GitHub-Hookshot/1"),
        ("x-empty", ""),
        ("x-github-delivery", "d-1"),
    ];
    assert_eq!(beyond_ours(seen), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(seen.header("x-hub-signature-256"), Some(&*sign_github(b"{}")));
    assert_eq!(seen.body, b"{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_one_hop_ends_here() {
    // A hop-by-hop header that travels on lets a client speak to the backend about a connection that is not its own.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let lines = [
        "Connection: keep-alive\r\n",
        "Connection: close\r\n",
        "Connection: x-one, X-Two ,,x-three\r\nX-One: 1\r\nx-two: 2\r\nX-THREE: 3\r\n",
        "Connection: x-one\r\nConnection: x-two\r\nX-One: 1\r\nX-Two: 2\r\nX-One: again\r\n",
        "Connection: cookie, user-agent\r\nCookie: a=1\r\nUser-Agent: x\r\n",
        "Connection: content-length, host, x-hookward-route, x-forwarded-for\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Proxy-Authorization: Basic eDp5\r\n",
        "Proxy-Authenticate: Basic\r\n",
        "TE: trailers\r\n",
        "Trailer: X-Checksum\r\n",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Expect: 100-continue\r\n",
        "Expect: something-else\r\n",
    ];
    for line in lines {
        let answer = request(gateway.address, &event(line)).await;
        assert_eq!(answer.status, 200, "{line}");
        assert_eq!(beyond_ours(upstream.seen().last().unwrap()), [], "{line}");
    }
    assert_eq!(upstream.seen().len(), lines.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_no_host_is_forwarded_with_one() {
    // HTTP/1.0 knows no `Host`, and nginx, Apache and lighttpd refuse an empty one: such a sender's events were lost.
    let upstream = Upstream::ok().await;
    let port = upstream.address.port();
    for (server, host) in [
        (format!("127.0.0.1:{port}"), "127.0.0.1"),
        (format!("localhost:{port}"), "localhost"),
    ] {
        let yaml = format!("{}passthrough: app\n", config(&format!("servers: [\"{server}\"]")));
        let gateway = Gateway::start(&yaml).await;
        for bytes in [event(""), b"GET /page HTTP/1.1\r\nHost: gateway.test\r\n\r\n".to_vec()] {
            let old = String::from_utf8(bytes)
                .unwrap()
                .replace("HTTP/1.1\r\nHost: gateway.test\r\n", "HTTP/1.0\r\n");
            assert_eq!(request(gateway.address, old.as_bytes()).await.status, 200, "{old}");
            let seen = upstream.seen().pop().unwrap();
            assert_eq!((seen.header("host"), seen.count("host")), (Some(host), 1), "{old}");
        }
    }
}

/// Every way to write `name` that some backend takes for it.
pub fn spellings(name: &str) -> BTreeSet<String> {
    let first_dash_only = name.replacen('-', "_", 1);
    let last_dash_only = match name.rsplit_once('-') {
        Some((start, end)) => format!("{start}_{end}"),
        None => name.to_owned(),
    };
    let title: Vec<_> = name
        .split('-')
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect();
    let mixed = name.chars().enumerate().map(|(at, c)| match at % 2 {
        0 => c.to_ascii_uppercase(),
        _ => c,
    });
    BTreeSet::from([
        name.to_owned(),
        name.to_uppercase(),
        title.join("-"),
        title.join("_"),
        mixed.collect(),
        name.replace('-', "_"),
        name.replace('-', "_").to_uppercase(),
        first_dash_only,
        last_dash_only,
        // CGI of some servers: whatever is neither letter nor digit becomes an underscore.
        name.replace('-', "."),
        name.replace('-', "~"),
        name.replace('-', "+"),
    ])
}

const FORGED: &str = "198.51.100.66";

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_the_gateway_cannot_be_said_by_others() {
    // Whoever can write `x-hookward-verified` or `x-forwarded-for` past the gateway is whom it says, for the backend.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let names = [
        "x-hookward-route",
        "x-hookward-provider",
        "x-hookward-verified",
        "x-hookward-event-id",
        "x-hookward-event-type",
        "x-hookward-attempt",
        "x-hookward-not-thought-of-yet",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-ssl",
        "x-forwarded-scheme",
        "x-forwarded-prefix",
        "forwarded",
    ];
    let mut client = Client::connect(gateway.address).await;
    let mut variants = 0;
    for spelling in names.into_iter().flat_map(spellings) {
        let once = format!("{spelling}: {FORGED}\r\n");
        let lines = [
            once.clone(),
            format!("{once}{once}"),
            format!("Connection: keep-alive, {spelling}\r\n{once}"),
            format!("{once}{}:  \t{FORGED}\r\n", spelling.to_uppercase()),
        ];
        for lines in lines {
            client.send(&event(&lines)).await;
            assert_eq!(client.answer().await.status, 200, "{lines}");
            let seen = upstream.seen();
            assert_eq!(beyond_ours(seen.last().unwrap()), [], "{lines}");
            variants += 1;
        }
    }
    assert!(variants > 400, "{variants}");
    assert_eq!(upstream.seen().len(), variants);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_the_gateway_cannot_be_said_over_http2_either() {
    // HTTP/2 has another parser in front of the same backend.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let names = [
        "x-hookward-route",
        "x-hookward-provider",
        "x-hookward-verified",
        "x-hookward-event-id",
        "x-hookward-event-type",
        "x-hookward-attempt",
        "x-hookward-not-thought-of-yet",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
    ];
    let lower: BTreeSet<_> = names
        .into_iter()
        .flat_map(spellings)
        .map(|name| name.to_lowercase())
        .collect();
    let mut client = H2::connect(gateway.address).await;
    let mut variants = 0;
    for spelling in &lower {
        for times in [1, 2] {
            let mut event = http::Request::post("http://gateway.test/webhooks/github")
                .header("x-github-event", "push")
                .header("x-hub-signature-256", sign_github(b"{}"));
            for _ in 0..times {
                event = event.header(spelling, FORGED);
            }
            let answer = client
                .ask(event.body(Bytes::from_static(b"{}")).unwrap())
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{spelling}");
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(beyond_ours(&seen), [], "{spelling}");
            variants += 1;
        }
    }
    assert!(variants >= 120, "{variants}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_the_gateways_own_cannot_be_forged() {
    // A backend that checks one scheme for all providers believes whatever comes under these names.
    let upstream = Upstream::ok().await;
    let resign = "resign: { secrets: [{ value: \"whsec_cmVzaWduLXNlY3JldC1mb3ItdGVzdHMtb25seSE=\" }] }";
    let yaml =
        config(&servers(&[upstream.address])).replace("    replay: off\n", &format!("    replay: off\n    {resign}\n"));
    let gateway = Gateway::start(&yaml).await;
    let secret = hookward::secret::Secret::new("whsec_cmVzaWduLXNlY3JldC1mb3ItdGVzdHMtb25seSE=").unwrap();
    let scheme = &hookward::providers::builtin().find("standard-webhooks").unwrap().scheme;
    let mut variants = 0;
    for spelling in ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .into_iter()
        .flat_map(spellings)
    {
        let once = format!("{spelling}: {FORGED}\r\n");
        for lines in [
            once.clone(),
            format!("{once}{once}"),
            format!("Connection: {spelling}\r\n{once}"),
        ] {
            assert_eq!(request(gateway.address, &event(&lines)).await.status, 200, "{lines}");
            let seen = upstream.seen().pop().unwrap();
            assert!(!seen.head.contains(FORGED), "{lines}");
            let said = |name| (seen.header(name).unwrap_or_default().to_owned(), seen.count(name));
            let (id, signature) = (said("webhook-id"), said("webhook-signature"));
            let now = said("webhook-timestamp");
            assert_eq!((id.1, signature.1, now.1), (1, 1, 1), "{lines}");
            let at = hookward::clock::UnixMillis(now.0.parse::<u64>().unwrap() * 1000);
            let signed = hookward::signature::sign(scheme, &secret, &id.0, at, &seen.body).unwrap();
            assert!(
                signed
                    .iter()
                    .any(|(name, value)| name.as_str() == "webhook-signature" && *value == signature.0),
                "{lines}"
            );
            variants += 1;
        }
    }
    assert!(variants >= 60, "{variants}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_our_words_travels() {
    // Removing a sender's own headers would break the application behind.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let names = [
        "x-hookward",
        "x-hookwardx",
        "hookward-route",
        "xx-hookward-route",
        "x-forwarded",
        "forwarded-for",
    ];
    for name in names {
        request(gateway.address, &event(&format!("{name}: 1\r\n"))).await;
        assert_eq!(upstream.seen().last().unwrap().header(name), Some("1"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed_and_its_chain_extended() {
    // Behind a load balancer every event would seem to come from the load balancer.
    let upstream = Upstream::ok().await;
    let yaml = format!(
        "client: {{ trusted_proxies: [127.0.0.0/8, 10.0.0.0/8] }}\n{}",
        config(&servers(&[upstream.address]))
    );
    let gateway = Gateway::start(&yaml).await;
    // Lines sent; then x-forwarded-for, -proto, -host as the backend sees them, and the client in the log.
    let cases = [
        ("", "127.0.0.1", "http", "gateway.test", "127.0.0.1"),
        (
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: hooks.example\r\n",
            "192.0.2.7, 127.0.0.1",
            "https",
            "hooks.example",
            "192.0.2.7",
        ),
        (
            "X-Forwarded-For: 192.0.2.7, 10.1.2.3\r\n",
            "192.0.2.7, 10.1.2.3, 127.0.0.1",
            "http",
            "gateway.test",
            "192.0.2.7",
        ),
        (
            "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 192.0.2.7\r\n",
            "203.0.113.9, 192.0.2.7, 127.0.0.1",
            "http",
            "gateway.test",
            "192.0.2.7",
        ),
        (
            "X-Forwarded-For: 2001:db8::1\r\n",
            "2001:db8::1, 127.0.0.1",
            "http",
            "gateway.test",
            "2001:db8::1",
        ),
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
            "127.0.0.1",
            "https",
            "gateway.test",
            "127.0.0.1",
        ),
        // Whoever is behind the proxy wrote the look-alikes.
        (
            "X_Forwarded_For: 198.51.100.66\r\nX_FORWARDED-PROTO: ftp\r\nForwarded: for=198.51.100.66\r\n",
            "127.0.0.1",
            "http",
            "gateway.test",
            "127.0.0.1",
        ),
        // A chain that nobody can read names nobody.
        (
            "X-Forwarded-For: unknown\r\n",
            "unknown, 127.0.0.1",
            "http",
            "gateway.test",
            "127.0.0.1",
        ),
    ];
    for (n, (lines, chain, proto, host, client)) in cases.into_iter().enumerate() {
        request(gateway.address, &event(lines)).await;
        let seen = &upstream.seen()[n];
        for (name, value) in [
            ("x-forwarded-for", chain),
            ("x-forwarded-proto", proto),
            ("x-forwarded-host", host),
        ] {
            assert_eq!((seen.header(name), seen.count(name)), (Some(value), 1), "{lines}");
        }
        let foreign = seen
            .headers()
            .into_iter()
            .filter(|(_, value)| value.contains("198.51.100.66"));
        assert_eq!(foreign.count(), 0, "{lines}");
        assert_eq!(gateway.lines(n + 1).await[n]["client"], client, "{lines}");
    }
    request(
        gateway.address,
        &event("X-Forwarded-Port: 443\r\nX_Forwarded_Port: 81\r\n"),
    )
    .await;
    let seen = upstream.seen();
    let port = |(name, value): &(&str, &str)| name.contains("port").then(|| value.to_string());
    assert_eq!(
        seen.last()
            .unwrap()
            .headers()
            .iter()
            .filter_map(port)
            .collect::<Vec<_>>(),
        ["443"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_the_one_asked_for_or_the_configured_one() {
    // Virtual hosts and links in answers hang on it; the original must not be lost either way.
    let upstream = Upstream::ok().await;
    let servers = servers(&[upstream.address]);
    for (more, line, host, original) in [
        ("", "Host: gateway.test\r\n", "gateway.test", "gateway.test"),
        (
            "",
            "Host: gateway.test:8080\r\n",
            "gateway.test:8080",
            "gateway.test:8080",
        ),
        (
            ", host: backend.internal",
            "Host: gateway.test\r\n",
            "backend.internal",
            "gateway.test",
        ),
        (
            ", host: \"backend.internal:81\"",
            "Host: gateway.test\r\n",
            "backend.internal:81",
            "gateway.test",
        ),
    ] {
        let gateway = Gateway::start(&config(&format!("{servers}{more}"))).await;
        let event = request_with("POST /webhooks/github HTTP/1.1", line, b"{}");
        assert_eq!(request(gateway.address, &event).await.status, 200);
        let seen = upstream.seen();
        let seen = seen.last().unwrap();
        assert_eq!((seen.header("host"), seen.count("host")), (Some(host), 1), "{more}");
        assert_eq!(seen.header("x-forwarded-host"), Some(original), "{more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_is_the_one_matched_or_the_configured_one_and_the_query_stays() {
    // A backend whose handler lives elsewhere must be reachable, and a query may carry what it needs.
    let upstream = Upstream::ok().await;
    let plain = config(&servers(&[upstream.address]));
    let moved = format!("{plain}    forward_path: /internal/hooks\n");
    for (yaml, asked, forwarded) in [
        (&plain, "/webhooks/github", "/webhooks/github"),
        (&plain, "/webhooks/github?a=1&b=%2F?c", "/webhooks/github?a=1&b=%2F?c"),
        (&plain, "/webhooks/github?", "/webhooks/github?"),
        (&moved, "/webhooks/github", "/internal/hooks"),
        (&moved, "/webhooks/github?a=1&b=%2F?c", "/internal/hooks?a=1&b=%2F?c"),
    ] {
        let gateway = Gateway::start(yaml).await;
        let start = format!("POST {asked} HTTP/1.1\r\nHost: gateway.test");
        assert_eq!(
            request(gateway.address, &request_with(&start, "", b"{}")).await.status,
            200,
            "{asked}"
        );
        let seen = upstream.seen();
        let line = seen.last().unwrap().head.lines().next().unwrap().to_owned();
        assert_eq!(line, format!("POST {forwarded} HTTP/1.1"));
        // The log names what was asked for, without the query: tokens live there.
        let path = asked.split('?').next().unwrap();
        assert_eq!(gateway.lines(1).await[0]["path"], path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_exactly_one_length_however_the_body_came() {
    // Two parsers that disagree about the end of a request are how one is smuggled past the verification.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let start = "POST /webhooks/github HTTP/1.1\r\nHost: gateway.test\r\nX-GitHub-Event: push";
    let mut client = Client::connect(gateway.address).await;
    for (n, body) in [&b""[..], b"a", b"{\"zen\":1}", &[0, 13, 10, 255], &[b'x'; 70_000]]
        .into_iter()
        .enumerate()
    {
        let signature = format!("X-Hub-Signature-256: {}", sign_github(body));
        let fixed = format!("{start}\r\n{signature}\r\ncontent-LENGTH: {:05}\r\n\r\n", body.len());
        let fixed = [fixed.as_bytes(), body].concat();
        let mut chunked = format!("{start}\r\n{signature}\r\nTransfer-Encoding: Chunked\r\n\r\n").into_bytes();
        for piece in body.chunks(33_333) {
            chunked.extend(format!("{:x};ext=1\r\n", piece.len()).bytes());
            chunked.extend([piece, b"\r\n"].concat());
        }
        chunked.extend(b"0\r\nX-Trailer: 1\r\n\r\n");
        for sent in [fixed, chunked] {
            client.send(&sent).await;
            assert_eq!(client.answer().await.status, 200, "{n}");
            let seen = upstream.seen();
            let seen = seen.last().unwrap();
            assert_eq!(seen.header("content-length"), Some(&*body.len().to_string()));
            let framing = ["content-length", "transfer-encoding", "trailer", "x-trailer"].map(|name| seen.count(name));
            assert_eq!((framing, seen.body == body), ([1, 0, 0, 0], true), "{n}");
        }
    }
    // A request that ended elsewhere than the upstream thought would have cost its connection.
    assert!(upstream.connections() < 5, "{}", upstream.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_id_is_told_only_when_it_was_signed() {
    // A backend deduplicates by it; an id that anybody can write would let forgers suppress real events.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let head = "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\n";
    request(gateway.address, &event(head)).await;
    let seen = upstream.seen();
    assert_eq!(header(&seen[0].head, "x-hookward-event-id"), None);
    let line = &gateway.lines(1).await[0];
    assert_eq!(line["delivery_id"], "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(line["event_id"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_the_backend_sees_the_same() {
    // A header that is only removed from HTTP/1 requests can be forged by whoever speaks HTTP/2.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let forged = [
        "x-hookward-verified",
        "x_hookward_verified",
        "x-forwarded-for",
        "x-forwarded-port",
        "forwarded",
    ];
    let mut event = http::Request::post("http://gateway.test/webhooks/github?q=1");
    for name in forged {
        event = event.header(name, FORGED);
    }
    let event = event
        .header("x-github-event", "push")
        .header("x-hub-signature-256", sign_github(b"{}"))
        .header("te", "trailers")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Bytes::from_static(b"{}"))
        .unwrap();
    let answer = H2::connect(gateway.address).await.ask(event).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"ok"[..]));
    let seen = &upstream.seen()[0];
    assert!(seen.head.starts_with("POST /webhooks/github?q=1 HTTP/1.1\r\n"));
    let cookies = beyond_ours(seen);
    let values: Vec<_> = cookies.iter().map(|(_, value)| value.as_str()).collect();
    assert!(cookies.iter().all(|(name, _)| name == "cookie"), "{cookies:?}");
    assert_eq!(values.join("; "), "a=1; b=2");
    assert_eq!(gateway.lines(1).await[0]["http"], "2");
}
