//! The framing of chunks: what the grammar allows is read, anything else ends the connection.

use super::{assert_arrived, fixed, gateway, head};
use crate::harness::{Client, Upstream, request};

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
