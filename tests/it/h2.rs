//! HTTP/2 without TLS: the same events, bounds and refusals as over HTTP/1, and no way to smuggle through the
//! translation.

mod conformance;
mod crumbs;
mod ends;
mod floods;
mod frames;
mod strain;

use bytes::Bytes;
use http::{Request, Response};

use crate::bodies::{LENGTHS, assert_arrived, noise};
use crate::harness::{Client, Gateway, H2, Upstream, route_yaml, sign_github, until};

/// The largest frame there may be unless more was agreed on.
const FRAME: usize = 16_384;

async fn gateway(upstream: &Upstream, client: &str, route: &str) -> Gateway {
    let route = route_yaml(upstream.address, route);
    Gateway::start(&format!("client: {{ {client} }}\n{route}")).await
}

/// An event with `body`, signed, with headers of its own.
fn event(body: &[u8], headers: &[(&str, &str)]) -> Request<Bytes> {
    let mut request = Request::post("http://gateway.test/webhooks/github")
        .header("x-github-event", "push")
        .header("x-hub-signature-256", sign_github(body));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Bytes::copy_from_slice(body)).unwrap()
}

/// What an answer says.
fn told(answer: &Response<Vec<u8>>) -> (u16, &str) {
    (answer.status().as_u16(), std::str::from_utf8(answer.body()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_length_arrive_byte_for_byte() {
    // A backend that gets one byte more or less processes another event than the one that was signed.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", "replay: off\nlimits: { body: 10MiB }").await;
    let mut client = H2::connect(gateway.address).await;
    for length in LENGTHS {
        // A hundred thousand small frames would take the test a minute.
        let smallest = if length > 1 << 17 { 8000 } else { 100 };
        for frame in [FRAME, 4093, smallest] {
            for declared in [true, false] {
                let body = noise(length);
                let text = length.to_string();
                let headers = [("content-length", text.as_str())];
                let event = event(&body, if declared { &headers } else { &[] });
                let what = format!("{length} in frames of {frame}, declared: {declared}");
                let answer = client.ask_in_frames(event, frame).await.expect(&what);
                assert_eq!(told(&answer), (200, "ok"), "{what}");
                assert_arrived(&upstream, &body, &what);
            }
        }
    }
    let lines = gateway.lines(LENGTHS.len() * 6).await;
    assert!(
        lines
            .iter()
            .all(|line| line["http"] == "2" && line["outcome"] == "forwarded")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_at_once_are_not_mixed_up() {
    // One connection carries the events of many customers.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", "limits: { rate: 1000/s, burst: 1000 }").await;
    let mut client = H2::connect(gateway.address).await;
    let bodies: Vec<Vec<u8>> = (0..64).map(|n| noise(n * 1000 + 1)).collect();
    let is_forged = |n: usize| n % 4 == 3;
    let mut streams = Vec::new();
    for (n, body) in bodies.iter().enumerate() {
        let signed = if is_forged(n) { &b"else"[..] } else { body };
        streams.push(client.open(event(signed, &[]).map(drop), false).await.unwrap());
    }
    // All of them at once, a piece of each in turn.
    for start in (0..64_000).step_by(8000) {
        for (stream, body) in streams.iter_mut().zip(&bodies).filter(|(_, body)| start < body.len()) {
            let end = body.len().min(start + 8000);
            let piece = Bytes::copy_from_slice(&body[start..end]);
            stream.send(piece, FRAME, end == body.len()).await;
        }
    }
    for (n, stream) in streams.into_iter().enumerate() {
        let status = if is_forged(n) { 401 } else { 200 };
        assert_eq!(stream.answer().await.unwrap().status(), status, "{n}");
    }
    let mut seen: Vec<_> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    let genuine = bodies.into_iter().enumerate().filter(|(n, _)| !is_forged(*n));
    let mut genuine: Vec<_> = genuine.map(|(_, body)| body).collect();
    seen.sort();
    genuine.sort();
    assert!(seen == genuine, "other bodies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_ends_alone() {
    // A forger on a shared connection must not end the others' streams, and gets the answers of HTTP/1.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", "limits: { body: 1KiB }").await;
    let mut client = H2::connect(gateway.address).await;
    let (body, large, huge) = (noise(100), noise(2000), noise(3 << 20));
    let to = |method: &str, path: &str, body: &[u8]| {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://gateway.test{path}"));
        request.body(Bytes::copy_from_slice(body)).unwrap()
    };
    let mut forged = event(b"else", &[]);
    *forged.body_mut() = Bytes::copy_from_slice(&body);
    let mut many = event(&body, &[]);
    for _ in 0..110 {
        many.headers_mut().append("x-many", "1".parse().unwrap());
    }
    let signature = sign_github(&body);
    let cases = [
        (to("GET", "/nowhere", b""), 404, "no_route\n"),
        (to("POST", "/nowhere", &body), 404, "no_route\n"),
        (to("POST", "/nowhere", &huge), 404, "no_route\n"),
        (to("GET", "/webhooks/github", b""), 405, "method\n"),
        (to("POST", "/webhooks//github", &body), 400, "ambiguous_path\n"),
        (to("POST", "/webhooks/github", &body), 401, "unauthorized\n"),
        (forged, 401, "unauthorized\n"),
        (
            event(&body, &[("x-hub-signature-256", &signature)]),
            400,
            "ambiguous_header\n",
        ),
        (event(&body, &[("x_hub_signature_256", "x")]), 400, "ambiguous_header\n"),
        (event(&body, &[("content-encoding", "gzip")]), 415, "encoded\n"),
        (event(&large, &[("content-length", "2000")]), 413, "too_large\n"),
        (event(&large, &[]), 413, "too_large\n"),
        (event(&huge, &[]), 413, "too_large\n"),
        // What over HTTP/1 is refused as a head without a single meaning.
        (event(&body, &[("content_length", "5")]), 400, "bad_framing\n"),
        (event(&body, &[("transfer_encoding", "chunked")]), 400, "bad_framing\n"),
        (to("TRACE", "/webhooks/github", b""), 400, "bad_framing\n"),
        (to("POST", "/webhooks/github?caf\u{e9}", &body), 400, "bad_framing\n"),
        (many, 400, "bad_framing\n"),
    ];
    let count = cases.len();
    for (n, (request, status, text)) in cases.into_iter().enumerate() {
        let what = format!("{} {} {status}", request.method(), request.uri());
        let answer = client.ask_in_frames(request, FRAME).await.expect(&what);
        assert_eq!(told(&answer), (status, text), "{what}");
        let allow = answer.headers().get("allow").map(|value| value.as_bytes());
        assert_eq!(allow, (status == 405).then_some(&b"POST"[..]), "{what}");
        let answer = client.ask(event(&noise(10 + n), &[])).await.unwrap();
        assert_eq!(answer.status(), 200, "after {what}");
    }
    assert_eq!(upstream.seen().len(), count);
    let lines = gateway.lines(count * 2).await;
    let refused = |reason: &str| lines.iter().filter(|line| line["reason"] == reason).count();
    assert_eq!(
        (lines.len(), refused("no_route"), refused("bad_framing")),
        (count * 2, 3, 5)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_is_translated_into_one_of_http_1() {
    // The backend speaks HTTP/1: what it sees must be one request, with the host that was asked for.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", "replay: off").await;
    let mut client = H2::connect(gateway.address).await;
    let spoofed = [
        ("x-hookward-verified", "verified"),
        ("x-hookward-route", "other"),
        ("x_hookward_route", "other"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "evil.test"),
        ("forwarded", "for=192.0.2.1"),
        ("expect", "100-continue"),
        ("te", "trailers"),
        ("trailer", "x-checksum"),
        ("proxy-authorization", "x"),
        ("x-kept", "1"),
        ("x-kept", "2"),
    ];
    let mut request = event(b"{\"host\":1}", &spoofed);
    *request.uri_mut() = "http://gateway.test:8080/webhooks/github?a=1&b=%20".parse().unwrap();
    assert_eq!(client.ask(request).await.unwrap().status(), 200);
    let seen = upstream.seen().pop().unwrap();
    let request_line = seen.head.lines().next().unwrap();
    assert_eq!(request_line, "POST /webhooks/github?a=1&b=%20 HTTP/1.1");
    for (name, value) in [
        ("host", "gateway.test:8080"),
        ("x-forwarded-host", "gateway.test:8080"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-hookward-route", "github"),
        ("x-hookward-verified", "verified"),
        ("x-github-event", "push"),
        ("content-length", "10"),
    ] {
        assert_eq!((seen.header(name), seen.count(name)), (Some(value), 1), "{name}");
    }
    for name in [
        "x_hookward_route",
        "forwarded",
        "expect",
        "te",
        "trailer",
        "proxy-authorization",
    ] {
        assert_eq!(seen.count(name), 0, "{name}");
    }
    assert_eq!(seen.count("x-kept"), 2);
    assert!(!seen.head.contains("\r\n:"), "{}", seen.head);
    // A host beside the authority is one host.
    let answer = client.ask(event(b"{}", &[("host", "gateway.test")])).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(upstream.seen().pop().unwrap().count("host"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_a_host_is_found_by_authority() {
    // Over HTTP/2 the host is no header; a route that is bound to one must neither be missed nor be open to all.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", "host: gateway.test\nreplay: off").await;
    let mut client = H2::connect(gateway.address).await;
    for (authority, status) in [
        ("gateway.test", 200),
        ("GATEWAY.test:443", 200),
        ("evil.test", 404),
        ("[::1]", 404),
    ] {
        let mut request = event(b"{}", &[]);
        *request.uri_mut() = format!("http://{authority}/webhooks/github").parse().unwrap();
        assert_eq!(client.ask(request).await.unwrap().status(), status, "{authority}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_never_forwarded() {
    // A reset is no end of a body, whatever has been signed so far.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "", "").await;
    let in_flight = async |count: f64| {
        until(&format!("{count} in flight"), || {
            gateway.metric("hookward_in_flight{route=\"github\"}") == count
        })
        .await;
    };
    let mut client = H2::connect(gateway.address).await;
    for (length, declared) in [(100, false), (100, true), (50, false), (50, true)] {
        let body = noise(100);
        let headers = [("content-length", "100")];
        let event = event(&body, if declared { &headers } else { &[] });
        let mut stream = client.open(event.map(drop), false).await.unwrap();
        stream.send(body[..length].to_vec(), FRAME, false).await;
        in_flight(1.0).await;
        stream.body.send_reset(h2::Reason::CANCEL);
        in_flight(0.0).await;
    }
    // The whole connection.
    let mut stream = client.open(event(b"{}", &[]).map(drop), false).await.unwrap();
    stream.send(&b"{}"[..], FRAME, false).await;
    in_flight(1.0).await;
    drop(client);
    let lines = gateway.lines(5).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "body" && line["reason"] == "truncated"),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_left_behind() {
    // A signature or a length that comes after everything was judged must mean nothing.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", "").await;
    let mut client = H2::connect(gateway.address).await;
    let body = noise(100);
    let mut stream = client.open(event(&body, &[]).map(drop), false).await.unwrap();
    stream.send(body.clone(), FRAME, false).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-hub-signature-256", "x".parse().unwrap());
    trailers.insert("x-hookward-route", "x".parse().unwrap());
    stream.body.send_trailers(trailers).unwrap();
    assert_eq!(stream.answer().await.unwrap().status(), 200);
    assert_arrived(&upstream, &body, "trailers");
    assert_eq!(upstream.seen()[0].header("x-hookward-route"), Some("github"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_refused_in_time() {
    // A hundred streams on each of a thousand connections cost a sender nothing.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "body_timeout: 200ms", "").await;
    let mut client = H2::connect(gateway.address).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = client.open(event(b"{}", &[]).map(drop), false).await.unwrap();
        stream.send(&b"{"[..], FRAME, false).await;
        streams.push(stream);
    }
    for stream in streams {
        assert_eq!(told(&stream.answer().await.unwrap()), (408, "too_slow\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_requests_is_ended() {
    // Idle connections of HTTP/2 cost more than those of HTTP/1, and a stranger opens as many as he likes.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "idle_timeout: 200ms", "").await;
    let never_used = H2::connect(gateway.address).await;
    let mut used = H2::connect(gateway.address).await;
    assert_eq!(used.ask(event(b"{}", &[])).await.unwrap().status(), 200);
    never_used.ended().await;
    used.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_so_many_requests_and_ends() {
    // A connection that lives for ever is one that no deployment, and no change of certificates, ever reaches.
    let upstream = Upstream::holding(|_| 200).await;
    let gateway = gateway(&upstream, "requests_each: 3", "").await;
    for round in 0..2 {
        let mut client = H2::connect(gateway.address).await;
        let mut streams = Vec::new();
        for n in 0..3 {
            let body = format!("{{\"n\":{}}}", round * 3 + n);
            let request = event(body.as_bytes(), &[]).map(drop);
            let mut stream = client.open(request, false).await.unwrap();
            stream.send(body.into_bytes(), FRAME, true).await;
            upstream.reached(round * 3 + n + 1).await;
            streams.push(stream);
        }
        // What is under way is finished after the farewell; nothing new begins.
        upstream.release(3);
        for stream in streams {
            assert_eq!(stream.answer().await.unwrap().status(), 200);
        }
        client.ended().await;
    }
    assert_eq!(upstream.count(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_at_a_time_and_windows_are_announced() {
    // A client that is told of no bound opens a thousand streams, and each of them may hold a body.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "head_bytes: 20KiB", "").await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let head = client.bytes(9).await;
    assert_eq!(head[3], 4, "SETTINGS");
    let settings = client.bytes(usize::from(head[2])).await;
    let announced: Vec<_> = settings
        .chunks(6)
        .map(|s| (s[1], u32::from_be_bytes([s[2], s[3], s[4], s[5]])))
        .collect();
    // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE.
    for setting in [(3, 100), (4, 64 * 1024), (6, 20 * 1024)] {
        assert!(announced.contains(&setting), "{announced:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    // The bound on heads must not end where HTTP/2 begins.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "head_bytes: 2KiB", "").await;
    let mut client = H2::connect(gateway.address).await;
    let padding = "x".repeat(2048);
    // Refused by the protocol, before there is a request: by an answer or a reset.
    match client.ask(event(b"{\"large\":1}", &[("x-padding", &padding)])).await {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(reset) => assert!(reset.is_reset(), "{reset}"),
    }
    let answer = client.ask(event(b"{}", &[("x-padding", &padding[..1000])])).await;
    assert_eq!(answer.unwrap().status(), 200, "on the same connection");
    assert_eq!(upstream.seen().len(), 1);
}
