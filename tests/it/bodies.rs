//! Bodies: whole, byte for byte, within their bounds, however they are framed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::{Client, Gateway, Upstream, Wire, request, route_yaml, sign_github, until};

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
async fn what_chunks_carry_besides_is_left_behind() {
    // Extensions and trailers are allowed by the grammar and used by nobody; they must not break an event.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let body = b"{\"n\":10}";
    let wires = [
        "5\r\n{\"n\":\r\n2\r\n10\r\n1\r\n}\r\n0\r\n\r\n",
        "005\r\n{\"n\":\r\n0002\r\n10\r\n01\r\n}\r\n000\r\n\r\n",
        "8;a=b;c=\"d\" ;e\r\n{\"n\":10}\r\n0;f\r\n\r\n",
        "8\r\n{\"n\":10}\r\n0\r\nX-Hookward-Route: x\r\nX-Checksum: 1\r\nX-Hub-Signature-256: x\r\n\r\n",
    ];
    for wire in wires {
        let head = head("1.1", body, "Transfer-Encoding: chunked\r\nTrailer: X-Checksum");
        assert_eq!(
            request(gateway.address, &[&head[..], wire.as_bytes()].concat())
                .await
                .status,
            200,
            "{wire}"
        );
        assert_arrived(&upstream, body, wire);
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(
            (seen.header("x-hookward-route"), seen.count("x-hookward-route")),
            (Some("github"), 1)
        );
        assert_eq!((seen.count("x-checksum"), seen.count("x-hub-signature-256")), (0, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_body_is_exact() {
    // One byte too strict loses the largest event there is, one too lax is the first of many.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "100KiB", "", "").await;
    let limit = 100 * 1024;
    for size in [1000, 65_536, limit, limit + 1] {
        for (length, status) in [(limit, 200), (limit + 1, 413), (limit + 100_000, 413)] {
            let body = noise(length);
            let answer = request(gateway.address, &chunked(&body, size)).await;
            assert_eq!(answer.status, status, "{length} in chunks of {size}");
        }
    }
    for (length, status) in [(limit, 200), (limit + 1, 413), (1 << 20, 413)] {
        assert_eq!(
            request(gateway.address, &fixed(&noise(length))).await.status,
            status,
            "{length}"
        );
    }
    assert_eq!(upstream.seen().len(), 5);
    assert!(upstream.seen().iter().all(|seen| seen.body.len() == limit));
    let refused = gateway
        .lines(15)
        .await
        .into_iter()
        .filter(|line| line["outcome"] == "refused");
    let reasons: Vec<_> = refused
        .map(|line| format!("{} {}", line["stage"], line["reason"]))
        .collect();
    assert_eq!(reasons, vec!["\"body\" \"too_large\""; 10]);
    assert_eq!(gateway.metric("hookward_buffered_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_length_is_refused_before_a_byte_of_it_is_read() {
    // Memory taken for what is only announced is memory that anybody can take.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    for length in [
        "1048577",
        "2147483648",
        "4294967296",
        "9223372036854775",
        "999999999999999999",
    ] {
        let mut client = Client::connect(gateway.address).await;
        client
            .send(&head("1.1", b"", &format!("Content-Length: {length}")))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (413, "too_large\n"), "{length}");
        client.finish_sending().await;
        assert!(client.ends_in_order().await, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_chunks_end_at_the_limit() {
    // Who never announces a length must not get more memory than who does.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "256KiB", "", "").await;
    for size in [1, 1000, 65_536] {
        let chunk = [format!("{size:x}\r\n").as_bytes(), &vec![b'x'; size], b"\r\n"].concat();
        // Many to a write, or single bytes would take a minute.
        let write = chunk.repeat(10_000_usize.div_ceil(size));
        let mut client = Client::connect(gateway.address).await;
        client.send(&head("1.1", b"", "Transfer-Encoding: chunked")).await;
        let mut held: f64 = 0.0;
        for _ in 0..(1 << 19) / (size * 10_000_usize.div_ceil(size)) + 1 {
            client.send(&write).await;
            held = held.max(gateway.metric("hookward_buffered_bytes"));
        }
        assert_eq!(client.answer().await.status, 413, "chunks of {size}");
        assert!(held <= 256.0 * 1024.0, "{held} bytes held");
    }
    assert_eq!(gateway.metric("hookward_buffered_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_never_forwarded() {
    // A prefix of an event is another event; an error or an end of the connection is never the end of a body.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let body = b"{\"truncated\":1}";
    let mut count = 0;
    for bytes in [fixed(body), chunked(body, 4), chunked(body, 100), chunked(b"", 1)] {
        let start = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        for end in start..bytes.len() {
            let mut client = Client::connect(gateway.address).await;
            client.send(&bytes[..end]).await;
            client.finish_sending().await;
            let answer = client.answer().await;
            let shown = bytes[start..end].escape_ascii();
            assert_eq!((answer.status, answer.text()), (400, "truncated\n"), "{shown}");
            assert!(client.ends_in_order().await, "{shown}");
            count += 1;
        }
    }
    // One that is signed as far as it came, and one whose sender does not wait for the answer.
    let mut client = Client::connect(gateway.address).await;
    client.send(&head("1.1", b"{}", "Content-Length: 3")).await;
    client.send(b"{}").await;
    client.finish_sending().await;
    assert_eq!(client.answer().await.status, 400);
    let mut client = Client::connect(gateway.address).await;
    client.send(&fixed(body)[..200]).await;
    drop(client);
    let lines = gateway.lines(count + 2).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "body" && line["reason"] == "truncated"),
        "{lines:?}"
    );
}

/// Chunks that some lenient reader takes for `{"a":1}`, or for nothing.
const BAD_CHUNKS: &[&[u8]] = &[
    // Sizes.
    b"\r\n{\"a\":1}\r\n0\r\n\r\n",
    b" \r\n{\"a\":1}\r\n0\r\n\r\n",
    b" 7\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7 \r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7\t\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"\t7\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"+7\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"-7\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"0x7\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7h\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"g\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7.0\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7_0\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7,7\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7 7\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"\"7\"\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7\0\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"\xef\xbc\x97\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"00000000000000007\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"10000000000000007\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"6\r\n{\"a\":1}\r\n0\r\n\r\n",
    // Ends of lines.
    b"7\n{\"a\":1}\r\n0\r\n\r\n",
    b"7\r{\"a\":1}\r\n0\r\n\r\n",
    b"7\r\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7\n\n{\"a\":1}\r\n0\r\n\r\n",
    b"7\r\n{\"a\":1}\n0\r\n\r\n",
    b"7\r\n{\"a\":1}\r0\r\n\r\n",
    b"7\r\n{\"a\":1}0\r\n\r\n",
    b"7\r\n{\"a\":1}XX0\r\n\r\n",
    b"7\r\n{\"a\":1} \r\n0\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n\r\n0\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\n\n",
    b"7\r\n{\"a\":1}\r\n0\n\n",
    b"7\r\n{\"a\":1}\r\n0\r\r\n\r\n",
    // Extensions.
    b"7;a\n{\"a\":1}\r\n0\r\n\r\n",
    b"7;a\n\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7;a\rb\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7;a\0b\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7;\xe4\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7;12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\
      12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\
      123456789012345678901234567890123456789012345678901234567890\r\n{\"a\":1}\r\n0\r\n\r\n",
    b";a\r\n{\"a\":1}\r\n0\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n;\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0;a\nb\r\n\r\n",
    // Trailers.
    b"7\r\n{\"a\":1}\r\n0\r\nContent-Length: 7\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nContent_Length: 7\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nHost: evil.test\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nTrailer: Host\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nX: 1\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nX: 1\r\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nX : 1\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nX: a\0b\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\n X: 1\r\n\r\n",
    b"7\r\n{\"a\":1}\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn chunks_without_a_single_meaning_end_the_connection() {
    // Where one reader sees the end of a body and another does not, the next request is somebody else's. Behind each of
    // these waits a genuine one.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let mut accepted = Vec::new();
    for wire in BAD_CHUNKS {
        for in_one_packet in [true, false] {
            let mut client = Client::connect(gateway.address).await;
            let head = head(
                "1.1",
                b"{\"a\":1}",
                "Expect: 100-continue\r\nTransfer-Encoding: chunked",
            );
            let body = [wire, &fixed(b"{\"hidden\":1}")[..]].concat();
            if in_one_packet {
                client.send(&[head, body].concat()).await;
            } else {
                client.send(&head).await;
                assert_eq!(client.any_answer().await.status, 100);
                client.send(&body).await;
            }
            let answer = client.answer().await;
            let refused = (answer.status, answer.text()) == (400, "bad_framing\n");
            if !refused || !client.ends_in_order().await {
                accepted.push(format!("{} {in_one_packet} {}", answer.status, wire.escape_ascii()));
            }
        }
    }
    assert_eq!(accepted, Vec::<String>::new());
    let lines = gateway.lines(BAD_CHUNKS.len() * 2).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "head" && line["reason"] == "bad_framing")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_refused_in_time() {
    // A thousand bodies that never end would hold a thousand places.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "1MiB", "body_timeout: 200ms", "").await;
    let body = noise(1000);
    for bytes in [fixed(&body), chunked(&body, 100)] {
        let start = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        for end in [start, start + 1, bytes.len() - 1] {
            let mut client = Client::connect(gateway.address).await;
            client.send(&bytes[..end]).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.text()), (408, "too_slow\n"), "{}", end - start);
            client.finish_sending().await;
            assert!(client.ends_in_order().await);
        }
    }
    let lines = gateway.lines(6).await;
    assert!(
        lines
            .iter()
            .all(|line| line["stage"] == "body" && line["reason"] == "too_slow"),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_refused_in_time() {
    // A byte now and then keeps every timeout of a single read from firing: the whole body has one deadline.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "1MiB", "body_timeout: 30s", "").await;
    let body = noise(1000);
    let bytes = fixed(&body);
    let mut client = Client::connect(gateway.address).await;
    client.send(&bytes[..bytes.len() - 2]).await;
    until("998 bytes to arrive", || {
        gateway.metric("hookward_buffered_bytes") == 998.0
    })
    .await;
    gateway.clock.advance(Duration::from_secs(31));
    client.send(&bytes[bytes.len() - 2..bytes.len() - 1]).await;
    assert_eq!(client.answer().await.status, 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_to_go_on_is_told_to_and_keeps_the_connection() {
    // Senders that wait for 100 Continue give up, or lose a second on each event.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let mut client = Client::connect(gateway.address).await;
    for length in [1, 1000, 100_000] {
        for name in ["100-continue", "100-Continue"] {
            let body = noise(length);
            let framing = format!("Expect: {name}\r\nContent-Length: {length}");
            client.send(&head("1.1", &body, &framing)).await;
            let interim = client.any_answer().await;
            assert_eq!(
                (interim.status, interim.head.lines().count()),
                (100, 2),
                "{}",
                interim.head
            );
            client.send(&body).await;
            let answer = client.any_answer().await;
            assert_eq!((answer.status, answer.header("connection")), (200, Some("keep-alive")));
            assert_arrived(&upstream, &body, "after 100");
        }
    }
    let body = noise(1000);
    client
        .send(&head(
            "1.1",
            &body,
            "Expect: 100-continue\r\nTransfer-Encoding: chunked",
        ))
        .await;
    assert_eq!(client.any_answer().await.status, 100);
    client.send(&chunks(&body, 100)).await;
    assert_eq!(client.any_answer().await.status, 200, "chunked");
    assert_arrived(&upstream, &body, "chunked after 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_invited_who_did_not_ask_or_has_nothing_to_send() {
    // An interim answer that is not expected is taken for the final one.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    let body = noise(100);
    let old = [
        &head("1.0", &body, "Expect: 100-continue\r\nContent-Length: 100")[..],
        &body,
    ]
    .concat();
    let empty = head("1.1", b"", "Expect: 100-continue\r\nContent-Length: 0");
    for bytes in [old, empty] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&bytes).await;
        assert_eq!(client.any_answer().await.status, 200);
    }
    // Who does not wait for the invitation gets the answer all the same.
    let body = noise(100_000);
    let mut client = Client::connect(gateway.address).await;
    let head = head("1.1", &body, "Expect: 100-continue\r\nContent-Length: 100000");
    client.send(&[head, body.clone()].concat()).await;
    assert_eq!(client.answer().await.status, 200);
    assert_arrived(&upstream, &body, "uninvited");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_not_invited_first() {
    // The point of asking is not to send megabytes for nothing; and a body that may or may not follow ends the
    // connection.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "1KiB", "", "").await;
    for (start, framing, status) in [
        ("POST /webhooks/github", "Content-Length: 1025", 413),
        (
            "POST /webhooks/github",
            "Content-Length: 100\r\nContent-Encoding: gzip",
            415,
        ),
        ("POST /nowhere", "Content-Length: 100", 404),
        ("PUT /webhooks/github", "Content-Length: 100", 405),
        ("POST /webhooks//github", "Transfer-Encoding: chunked", 400),
    ] {
        let mut client = Client::connect(gateway.address).await;
        let head = format!("{start} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        client.send(head.as_bytes()).await;
        let answer = client.any_answer().await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, Some("close")),
            "{start} {framing}"
        );
        client.finish_sending().await;
        assert!(client.ends_in_order().await, "{start} {framing}");
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
async fn all_bodies_together_stay_within_the_memory_of_the_process() {
    // Many senders, each within the limit of its route, could still fill the machine.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "64KiB", "", "memory: 100KiB").await;
    let held = async |bytes: f64| {
        until("bytes to be held", || {
            gateway.metric("hookward_buffered_bytes") == bytes
        })
        .await;
    };
    let body = noise(60_000);
    let bytes = fixed(&body);
    let mut first = Client::connect(gateway.address).await;
    first.send(&bytes[..bytes.len() - 1]).await;
    held(59_999.0).await;
    let mut second = Client::connect(gateway.address).await;
    second.send(&fixed(&noise(60_000))).await;
    let refused = second.answer().await;
    assert_eq!((refused.status, refused.text()), (503, "memory\n"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Its own bytes are given back, and small events still find room.
    held(59_999.0).await;
    assert_eq!(request(gateway.address, &fixed(&noise(20_000))).await.status, 200);
    first.send(&bytes[bytes.len() - 1..]).await;
    assert_eq!(first.answer().await.status, 200);
    held(0.0).await;
    second.send(&fixed(&noise(60_000))).await;
    assert_eq!(second.answer().await.status, 200, "on the connection that was refused");
    let line = &gateway.lines(1).await[0];
    assert_eq!((&line["stage"], &line["reason"]), (&"admit".into(), &"memory".into()));
    assert_eq!(
        gateway.metric("hookward_limit_hits_total{limit=\"memory\",route=\"github\"}"),
        1.0
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

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_not_entered_into() {
    // After an upgrade everything would be passed through unseen.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "1MiB", "", "").await;
    for protocol in ["websocket", "h2c", "TLS/1.0"] {
        let body = noise(100);
        let framing = format!(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
             Content-Length: 100"
        );
        let mut client = Client::connect(gateway.address).await;
        client
            .send(&[head("1.1", &body, &framing), body.clone()].concat())
            .await;
        assert_eq!(client.any_answer().await.status, 200, "{protocol}");
        assert_arrived(&upstream, &body, protocol);
        assert_eq!(upstream.seen().pop().unwrap().count("http2-settings"), 0, "{protocol}");
    }
}
