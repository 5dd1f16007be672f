//! Backends that break off, or answer what is no answer: never a part that looks whole, never the same event twice,
//! never a second exchange on a connection whose first one went wrong.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{config, event, request_with, servers};
use crate::harness::{Client, Gateway, H2, Upstream, Wire, request, sign_github, until};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How the backend leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    Closing,
    Resetting,
    /// It stays and waits for the gateway to end the connection.
    Not,
}

/// Answers the first request with `bytes`, leaves as told, and every later connection well.
async fn breaking(bytes: Vec<u8>, leaves: Leaves) -> Upstream {
    let bytes = Arc::new(bytes);
    Upstream::playing(move |mut wire: Wire| {
        let bytes = Arc::clone(&bytes);
        async move {
            while let Some((n, _)) = wire.request().await {
                if n > 0 {
                    wire.send(OK).await;
                    continue;
                }
                wire.send(&bytes).await;
                match leaves {
                    Leaves::Closing => return,
                    Leaves::Resetting => return wire.reset(),
                    Leaves::Not => assert!(wire.ends().await, "the connection was used again"),
                }
            }
        }
    })
    .await
}

fn attempts(gateway: &Gateway) -> [f64; 5] {
    ["ok", "connect_failed", "timeout", "reset", "bad_answer"].map(|result| {
        gateway.metric(&format!(
            r#"hookward_upstream_attempts_total{{result="{result}",upstream="app"}}"#
        ))
    })
}

const RESET: [f64; 5] = [0.0, 0.0, 0.0, 1.0, 0.0];
const BAD_ANSWER: [f64; 5] = [0.0, 0.0, 0.0, 0.0, 1.0];

#[tokio::test(flavor = "multi_thread")]
async fn without_the_head_of_an_answer_the_sender_gets_502() {
    // The sender must learn that the event was not taken, and nothing of what the backend said instead.
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        "X-Many: 1\r\n".repeat(300)
    );
    let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}", "x".repeat(1_200_000));
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let cases: [(&str, Leaves, [f64; 5]); 23] = [
        ("", Leaves::Closing, RESET),
        ("", Leaves::Resetting, RESET),
        ("H", Leaves::Closing, RESET),
        ("HTTP/1.1 200 OK\r\nContent-Le", Leaves::Closing, RESET),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Leaves::Closing, RESET),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Leaves::Resetting, RESET),
        ("HTTP/1.1 100 Continue\r\n\r\n", Leaves::Closing, RESET),
        ("canary and nothing that is HTTP\r\n\r\n", Leaves::Not, BAD_ANSWER),
        ("\x16\x03\x01\x02\x00canary", Leaves::Not, BAD_ANSWER),
        ("<html>canary</html>", Leaves::Not, BAD_ANSWER),
        ("HTTP/2.0 200 OK\r\n\r\n", Leaves::Not, BAD_ANSWER),
        ("HTTP/1.1 2x0 OK\r\n\r\n", Leaves::Not, BAD_ANSWER),
        ("HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", Leaves::Not, BAD_ANSWER),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
            Leaves::Not,
            BAD_ANSWER,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
            Leaves::Not,
            BAD_ANSWER,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
            Leaves::Not,
            BAD_ANSWER,
        ),
        (
            "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
            Leaves::Not,
            BAD_ANSWER,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzzz",
            Leaves::Not,
            BAD_ANSWER,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n",
            Leaves::Not,
            BAD_ANSWER,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            Leaves::Not,
            BAD_ANSWER,
        ),
        (&hints, Leaves::Not, BAD_ANSWER),
        (&many, Leaves::Not, BAD_ANSWER),
        (&large, Leaves::Not, BAD_ANSWER),
    ];
    for (bytes, leaves, counted) in cases {
        let case = &bytes[..bytes.len().min(60)];
        let upstream = breaking(bytes.as_bytes().to_vec(), leaves).await;
        let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(&event("")).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text()),
            (502, "upstream_down\n"),
            "{case} {leaves:?}"
        );
        assert_eq!(attempts(&gateway), counted, "{case} {leaves:?}");
        let line = &gateway.lines(1).await[0];
        let story = ["outcome", "stage", "reason", "server"].map(|key| line[key].as_str().unwrap().to_owned());
        let server = upstream.address.to_string();
        assert_eq!(story, ["refused", "dispatch", "upstream_down", &server], "{case}");
        assert!(!line.to_string().contains("canary"));
        // The sender's connection lives on, and the provider's retry is served on a new one.
        client.send(&event("")).await;
        assert_eq!(client.answer().await.text(), "ok", "{case}");
        let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(connections, [0, 1], "{case}");
    }
}

/// Heads of answers, what is sent of their bodies, and how it counts.
const CUT: [(&str, &str, [f64; 5]); 9] = [
    ("Content-Length: 10", "12345", RESET),
    ("Content-Length: 10", "", RESET),
    ("Transfer-Encoding: chunked", "5\r\n12345\r\n", RESET),
    ("Transfer-Encoding: chunked", "5\r\n123", RESET),
    ("Transfer-Encoding: chunked", "5\r\n12345\r\n0\r\n", RESET),
    ("Transfer-Encoding: chunked", "5\r\n12345\r\n0", RESET),
    (
        "Transfer-Encoding: chunked",
        "5\r\n12345\r\nzz\r\nabc\r\n0\r\n\r\n",
        BAD_ANSWER,
    ),
    ("Transfer-Encoding: chunked", "5\r\n12345XX0\r\n\r\n", BAD_ANSWER),
    (
        "Transfer-Encoding: chunked",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        BAD_ANSWER,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_answer_never_looks_whole() {
    // A provider that reads half a list as the whole list acts on it.
    for leaves in [Leaves::Closing, Leaves::Resetting, Leaves::Not] {
        for (head, body, counted) in CUT
            .into_iter()
            .filter(|case| leaves != Leaves::Not || case.2 == BAD_ANSWER)
        {
            let case = format!("{leaves:?} {head} {body:?}");
            let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
            let upstream = breaking(bytes.into_bytes(), leaves).await;
            let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
            let mut client = Client::connect(gateway.address).await;
            client.send(&event("")).await;
            // A reset may overtake the head.
            match client.whole_answer().await {
                None => {}
                Some(answer) => assert_eq!(answer.status, 502, "{case}"),
            }
            let line = &gateway.lines(1).await[0];
            if leaves != Leaves::Resetting {
                assert_eq!(
                    (&line["outcome"], &line["status"]),
                    (&"failed".into(), &200.into()),
                    "{case}"
                );
                assert_eq!(attempts(&gateway), counted, "{case}");
            }
            assert_eq!(request(gateway.address, &event("")).await.text(), "ok", "{case}");
            let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
            assert_eq!(connections, [0, 1], "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_says_unasked_is_not_the_answer_to_the_next_event() {
    // One answer too many, and from then on every event gets the answer to the one before it.
    for after in ["!", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "\r\n"] {
        for together in [true, false] {
            let (say, said) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
            let (wanted, done) = (Arc::clone(&say), Arc::clone(&said));
            let upstream = Upstream::playing(move |mut wire: Wire| {
                let (wanted, done) = (Arc::clone(&wanted), Arc::clone(&done));
                async move {
                    if wire.request().await.is_some_and(|(n, _)| n > 0) {
                        wire.send(OK).await;
                        return;
                    }
                    if together {
                        wire.send(&[OK, after.as_bytes()].concat()).await;
                    } else {
                        wire.send(OK).await;
                        wanted.acquire().await.unwrap().forget();
                        wire.send(after.as_bytes()).await;
                        done.add_permits(1);
                    }
                    wire.request().await;
                }
            })
            .await;
            let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
            let mut client = Client::connect(gateway.address).await;
            client.send(&event("")).await;
            assert_eq!(client.answer().await.text(), "ok");
            until("the exchange to be over", || gateway.active() == 0).await;
            if !together {
                say.add_permits(1);
                said.acquire().await.unwrap().forget();
                // Whatever is heard after it was said comes after it was noticed.
                assert_eq!(
                    request(gateway.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                        .await
                        .status,
                    404
                );
            }
            client.send(&event("")).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.text()), (200, "ok"), "{after:?} {together}");
            let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
            assert_eq!(connections, [0, 1], "{after:?} {together}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_reads_and_leaves_gets_the_event_once() {
    // A payment event delivered twice is a second payment: what may have been acted on is not sent again.
    let leaving = |leaves| async move {
        Upstream::playing(move |mut wire: Wire| async move {
            wire.request().await;
            if leaves == Leaves::Resetting {
                wire.reset();
            }
        })
        .await
    };
    for leaves in [Leaves::Closing, Leaves::Resetting] {
        let (one, other) = (leaving(leaves).await, leaving(leaves).await);
        let gateway = Gateway::start(&config(&servers(&[one.address, other.address]))).await;
        for n in 0..20 {
            let body = format!("{{\"n\":{n}}}");
            let start = "POST /webhooks/github HTTP/1.1\r\nHost: gateway.test";
            let answer = request(gateway.address, &request_with(start, "", body.as_bytes())).await;
            assert_eq!(answer.status, 502);
            let copies = [&one, &other].map(|upstream| {
                upstream
                    .seen()
                    .iter()
                    .filter(|seen| seen.body == body.as_bytes())
                    .count()
            });
            assert_eq!(copies.iter().sum::<usize>(), 1, "{leaves:?} {n}");
        }
        assert_eq!(
            attempts(&gateway),
            [0.0, 0.0, 0.0, 20.0, 0.0],
            "nobody is left out for that"
        );
        assert_eq!((one.seen().len(), other.seen().len()), (10, 10));
        assert_eq!(gateway.lines(1).await[0]["attempts"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_failure_is_an_answer() {
    // The backend said no; asking another server would hide it, and do twice what was done half.
    let failing = Upstream::status(|_| 503).await;
    let other = Upstream::unreachable().await;
    let gateway = Gateway::start(&config(&servers(&[failing.address, other.address]))).await;
    assert_eq!(request(gateway.address, &event("")).await.status, 503);
    assert_eq!(failing.seen().len(), 1);
    assert_eq!(gateway.lines(1).await[0]["outcome"], "forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_a_part_does_not_look_whole_either() {
    // HTTP/2 ends a body with a flag; set at the wrong time, it says that the half is the whole.
    for (head, body, _) in CUT {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
        let upstream = breaking(bytes.into_bytes(), Leaves::Closing).await;
        let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
        let event = || {
            http::Request::post("http://gateway.test/webhooks/github")
                .header("x-hub-signature-256", sign_github(b"{}"))
                .body(Bytes::from_static(b"{}"))
                .unwrap()
        };
        let mut client = H2::connect(gateway.address).await;
        assert!(client.ask(event()).await.is_err(), "{head} {body:?}");
        // The other streams of the connection live on.
        assert_eq!(client.ask(event()).await.unwrap().body(), b"ok");
        let lines = gateway.lines(2).await;
        assert!(lines.iter().any(|line| line["outcome"] == "failed"), "{lines:?}");
    }
}
