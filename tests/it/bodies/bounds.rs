//! Bounds on bodies: in bytes, in time, together in memory; and that a part is never taken for the whole.

use std::time::Duration;

use super::{chunked, fixed, gateway, head, noise};
use crate::harness::{Client, Upstream, request, until};

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
    // A byte now and then keeps every timeout of a single read from firing, and so do bytes that are always there: the
    // whole body has one deadline.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "1MiB", "body_timeout: 30s", "").await;
    let body = noise(1000);
    let (whole, in_chunks) = (fixed(&body), chunked(&body, 100));
    for (start, rest) in [
        // All but the last byte, before and after the deadline.
        (&whole[..whole.len() - 2], &whole[whole.len() - 2..whole.len() - 1]),
        // Half of it, and then everything at once.
        (&in_chunks[..in_chunks.len() - 500], &in_chunks[in_chunks.len() - 500..]),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(start).await;
        until("most of it to arrive", || {
            gateway.metric("hookward_buffered_bytes") > 400.0
        })
        .await;
        gateway.clock.advance(Duration::from_secs(31));
        client.send(rest).await;
        assert_eq!(client.answer().await.status, 408);
        until("it to be given back", || {
            gateway.metric("hookward_buffered_bytes") == 0.0
        })
        .await;
    }
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
    let lines = gateway.lines(4).await;
    let refused: Vec<_> = lines.iter().filter(|line| line["outcome"] == "refused").collect();
    assert_eq!(
        (&refused[0]["stage"], &refused[0]["reason"]),
        (&"admit".into(), &"memory".into())
    );
    assert_eq!(refused.len(), 1);
    assert_eq!(
        gateway.metric("hookward_limit_hits_total{limit=\"memory\",route=\"github\"}"),
        1.0
    );
}
