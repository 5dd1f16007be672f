//! Senders that wait for `100 Continue`.

use super::{assert_arrived, chunks, gateway, head, noise};
use crate::harness::{Client, Upstream};

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
