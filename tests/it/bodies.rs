//! Bodies: whole, byte for byte, within their bounds, however they are framed.

mod bounds;
mod chunks;
mod expect;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{Client, Gateway, Upstream, Wire, request, route_yaml, sign_github};

/// Around the sizes at which buffers end.
pub const LENGTHS: [usize; 7] = [0, 1, 65_535, 65_536, 65_537, 1 << 20, 10 << 20];

/// Bytes without a pattern, different at every call: line ends, zeros and chunk sizes are among them.
pub fn noise(length: usize) -> Vec<u8> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let mut state = SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next)
        .take(length.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}

/// The head of an event with `body`, signed, up to the framing headers that the caller adds.
fn head(version: &str, body: &[u8], framing: &str) -> Vec<u8> {
    let signature = sign_github(body);
    format!(
        "POST /webhooks/github HTTP/{version}\r\nHost: gateway.test\r\nX-GitHub-Event: push\r\n\
         X-Hub-Signature-256: {signature}\r\n{framing}\r\n\r\n"
    )
    .into_bytes()
}

fn fixed(body: &[u8]) -> Vec<u8> {
    let framing = format!("Content-Length: {}", body.len());
    [&head("1.1", body, &framing)[..], body].concat()
}

/// `body` in chunks of `size`.
fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    [head("1.1", body, "Transfer-Encoding: chunked"), chunks(body, size)].concat()
}

/// A gateway that takes bodies of at most `body`, with more of the client's bounds and of the process's limits.
async fn gateway(upstream: &Upstream, body: &str, client: &str, limits: &str) -> Gateway {
    // Without the guard, or the empty body could be sent once.
    let route = format!("replay: off\nlimits: {{ rate: 100000/s, burst: 100000, body: {body} }}");
    let route = route_yaml(upstream.address, &route);
    let route = route.split_once('\n').unwrap().1;
    let yaml =
        format!("client: {{ {client} }}\nlimits: {{ client_rate: 100000/s, client_burst: 100000, {limits} }}\n{route}");
    Gateway::start(&yaml).await
}

/// What the upstream got last: exactly `body`, framed by one length and nothing else.
pub fn assert_arrived(upstream: &Upstream, body: &[u8], what: &str) {
    let seen = upstream.seen().pop().unwrap();
    assert!(seen.body == body, "{what}: another body of {} bytes", seen.body.len());
    assert_eq!(seen.count("content-length"), 1, "{what}");
    assert_eq!(seen.header("content-length"), Some(&*body.len().to_string()), "{what}");
    for name in ["transfer-encoding", "trailer", "expect", "te", "connection", "upgrade"] {
        assert_eq!(seen.count(name), 0, "{what}: {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_length_and_framing_arrive_byte_for_byte() {
    // A backend that gets one byte more or less processes another event than the one that was signed.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "10MiB", "", "").await;
    let mut count = 0;
    for length in LENGTHS {
        let (mut cases, mut bodies) = (Vec::new(), Vec::new());
        let mut case = |what: String, build: &dyn Fn(&[u8]) -> Vec<u8>| {
            let body = noise(length);
            cases.push((what, build(&body)));
            bodies.push(body);
        };
        case(format!("{length} fixed 1.1"), &fixed);
        case(format!("{length} fixed 1.0"), &|body| {
            let framing = format!("Content-Length: {}", body.len());
            [&head("1.0", body, &framing)[..], body].concat()
        });
        // A chunk for each byte of ten megabytes would take the test a minute.
        let smallest = if length > 1 << 17 { 1000 } else { 1 };
        for size in [smallest, 4093, 65_536, length.max(1)] {
            case(format!("{length} in chunks of {size}"), &|body| chunked(body, size));
        }
        for ((what, bytes), body) in cases.iter().zip(&bodies) {
            let answer = request(gateway.address, bytes).await;
            assert_eq!((answer.status, answer.text()), (200, "ok"), "{what}");
            assert_arrived(&upstream, body, what);
            count += 1;
        }
    }
    assert_eq!((count, upstream.seen().len()), (LENGTHS.len() * 6, count));
    let lines = gateway.lines(count).await;
    let received: u64 = lines.iter().map(|line| line["bytes_in"].as_u64().unwrap()).sum();
    assert_eq!(received, LENGTHS.iter().sum::<usize>() as u64 * 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_cut_into_packets_anywhere() {
    // The end of a packet is no end of anything; neither is the end of a chunk.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    for size in [0, 1, 5] {
        let body = noise(40);
        let bytes = if size == 0 { fixed(&body) } else { chunked(&body, size) };
        let start = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let mut client = Client::connect(gateway.address).await;
        client.send(&bytes[..start]).await;
        for byte in &bytes[start..] {
            client.send(&[*byte]).await;
        }
        assert_eq!(client.answer().await.status, 200, "{size}");
        assert_arrived(&upstream, &body, &format!("byte by byte, {size}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encoded_bodies_are_refused() {
    // What was signed is what was sent; a backend that unpacks it processes what nobody signed, or a bomb.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let encodings = [
        "gzip",
        "GZIP",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "identity, gzip",
        "gzip, identity",
        "a",
        "",
    ];
    for encoding in encodings {
        let body = noise(10);
        let framing = format!("Content-Length: 10\r\nContent-Encoding: {encoding}");
        let answer = request(gateway.address, &[head("1.1", &body, &framing), body].concat()).await;
        assert_eq!((answer.status, answer.text()), (415, "encoded\n"), "{encoding}");
    }
    let body = noise(10);
    let twice = "Content-Length: 10\r\nContent-Encoding: identity\r\nContent-Encoding: gzip";
    assert_eq!(
        request(gateway.address, &[head("1.1", &body, twice), body].concat())
            .await
            .status,
        415
    );
    assert_eq!(upstream.seen().len(), 0);
    for encoding in ["identity", "Identity"] {
        let body = noise(10);
        let framing = format!("Content-Length: 10\r\nContent-Encoding: {encoding}");
        assert_eq!(
            request(gateway.address, &[head("1.1", &body, &framing), body].concat())
                .await
                .status,
            200
        );
    }
    let lines = gateway.lines(encodings.len() + 3).await;
    assert_eq!(
        lines.iter().filter(|line| line["reason"] == "encoded").count(),
        encodings.len() + 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests() {
    // Providers keep connections open: what one request leaves behind must not touch the next.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let mut client = Client::connect(gateway.address).await;
    let mut sent = Vec::new();
    for n in 0..40 {
        let body = noise(n * n * 50);
        let bytes = match n % 4 {
            0 => fixed(&body),
            1 => chunked(&body, 1 + n * 31),
            2 => head(
                "1.1",
                &body,
                &format!("Content-Length: {}\r\nConnection: keep-alive", body.len()),
            ),
            _ => fixed(&body),
        };
        client.send(&bytes).await;
        if n % 4 == 2 {
            client.send(&body).await;
        }
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("keep-alive")),
            "{n}"
        );
        sent.push(body);
        // Refused, with everything read: no reason to end the connection.
        let mut forged = fixed(&noise(n + 1));
        *forged.last_mut().unwrap() ^= 1;
        client.send(&forged).await;
        assert_eq!(client.answer().await.status, 401, "{n}");
    }
    let got: Vec<_> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert!(got == sent, "other bodies, or in another order");
    client
        .send(&head("1.1", b"", "Content-Length: 0\r\nConnection: close"))
        .await;
    assert_eq!(client.answer().await.header("connection"), Some("close"));
    assert!(client.ends_in_order().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_may_keep_its_connection() {
    // HTTP/1.0 ends a connection with its first answer, unless the client asks for more.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let mut client = Client::connect(gateway.address).await;
    for (asked, told) in [
        ("keep-alive", "keep-alive"),
        ("Keep-Alive", "keep-alive"),
        ("x", "close"),
    ] {
        let body = noise(100);
        let framing = format!("Content-Length: 100\r\nConnection: {asked}");
        client.send(&[head("1.0", &body, &framing), body].concat()).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some(told)),
            "{asked}"
        );
    }
    assert!(client.ends_in_order().await);
}

/// Reads a chunked request and sends its body back.
async fn echo(mut wire: Wire) {
    while wire.head().await.is_some() {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(wire.bytes(1).await.unwrap());
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            body.extend(wire.bytes(size).await.unwrap());
            assert_eq!(wire.bytes(2).await.unwrap(), b"\r\n");
            if size == 0 {
                break;
            }
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        wire.send(&[head.as_bytes(), &body].concat()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_in_chunks_pass_through_to_the_application() {
    // The application behind the gateway has uploads of its own, which are none of the gateway's business but for
    // their framing.
    let upstream = Upstream::playing(echo).await;
    let yaml = format!("{}passthrough: app\n", route_yaml(upstream.address, ""));
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    for (length, size) in [(0, 1), (1000, 7), (65_536, 65_536), (1 << 20, 10_000)] {
        let body = noise(length);
        client
            .send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.send(&chunks(&body, size)).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{length}");
        assert!(answer.body == body, "{length}: another body");
    }
    let mut client = Client::connect(gateway.address).await;
    client
        .send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.send(b"5\r\nhello\r\n").await;
    client.send(b"5;\n\r\nhello\r\n0\r\n\r\n").await;
    assert!(
        client.whole_answer().await.is_none_or(|answer| answer.status != 200),
        "badly framed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_ahead_are_never_mixed_up() {
    // The second of two pipelined requests may go unanswered, but never as part of the first, and never twice.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    for size in [0, 7] {
        let (first, second) = (noise(100), noise(100));
        let framed = |body: &[u8]| if size == 0 { fixed(body) } else { chunked(body, size) };
        let before = upstream.seen().len();
        let mut client = Client::connect(gateway.address).await;
        client.send(&[framed(&first), framed(&second)].concat()).await;
        client.finish_sending().await;
        let rest = client.rest().await;
        let answers = String::from_utf8(rest).unwrap().matches("HTTP/1.1 200 ").count();
        let seen: Vec<_> = upstream.seen().drain(before..).map(|seen| seen.body).collect();
        assert_eq!(seen, [first, second][..answers], "{size}");
        assert!(answers >= 1);
    }
}
