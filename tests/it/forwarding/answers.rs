//! The backend's answer on its way back: whole, unchanged, and as soon as there is some of it.

use tokio::sync::mpsc;

use super::{config, event, request_with, servers};
use crate::harness::{Client, Gateway, Recorded, Upstream, Wire, header, request, sign_github};

/// An upstream that answers the n-th request with the n-th of these.
async fn in_turn(answers: Vec<Vec<u8>>) -> Upstream {
    Upstream::answering(move |n, _: &Recorded| answers[n].clone()).await
}

/// An answer as the backend writes it, what the sender gets of it, and whether the connection is good for another.
struct Shape {
    wire: &'static [u8],
    status: u16,
    body: &'static [u8],
    framing: (Option<&'static str>, Option<&'static str>),
    reused: bool,
}

const CHUNKED: (Option<&str>, Option<&str>) = (None, Some("chunked"));

const SHAPES: [Shape; 21] = [
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        status: 200,
        body: b"ok",
        framing: (Some("2"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        status: 200,
        body: b"",
        framing: (Some("0"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 201 A Reason Of Its Own\r\nContent-Length: 4\r\n\r\n\x00\r\n\xff",
        status: 201,
        body: b"\x00\r\n\xff",
        framing: (Some("4"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0003;x=y\r\ndef\r\n0\r\n\r\n",
        status: 200,
        body: b"abcdef",
        framing: CHUNKED,
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        status: 200,
        body: b"",
        framing: CHUNKED,
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
        status: 200,
        body: b"ok",
        framing: CHUNKED,
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        status: 200,
        body: b"ok",
        framing: (Some("2"), None),
        reused: true,
    },
    // Both at once: the chunks count, and the length goes no further.
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        status: 200,
        body: b"ok",
        framing: CHUNKED,
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        status: 200,
        body: b"ok",
        framing: (Some("2"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nX-Until: the end\r\n\r\nto the very end",
        status: 200,
        body: b"to the very end",
        framing: CHUNKED,
        reused: false,
    },
    Shape {
        wire: b"HTTP/1.0 200 OK\r\n\r\nold",
        status: 200,
        body: b"old",
        framing: CHUNKED,
        reused: false,
    },
    Shape {
        wire: b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold",
        status: 200,
        body: b"old",
        framing: (Some("3"), None),
        reused: false,
    },
    Shape {
        wire: b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nold",
        status: 200,
        body: b"old",
        framing: (Some("3"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        status: 200,
        body: b"ok",
        framing: (Some("2"), None),
        reused: false,
    },
    Shape {
        wire: b"HTTP/1.1 204 No Content\r\n\r\n",
        status: 204,
        body: b"",
        framing: (None, None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        status: 204,
        body: b"",
        framing: (None, None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: \"x\"\r\n\r\n",
        status: 304,
        body: b"",
        framing: (Some("10"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        status: 302,
        body: b"",
        framing: (Some("0"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope",
        status: 404,
        body: b"nope",
        framing: (Some("4"), None),
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n",
        status: 503,
        body: b"busy",
        framing: CHUNKED,
        reused: true,
    },
    Shape {
        wire: b"HTTP/1.1 599 Whatever\r\nContent-Length: 0\r\n\r\n",
        status: 599,
        body: b"",
        framing: (Some("0"), None),
        reused: true,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_of_an_answer_arrives_whole() {
    // A provider that gets a mangled answer retries what was done, or gives up what was not.
    let upstream = in_turn(SHAPES.iter().map(|shape| shape.wire.to_vec()).collect()).await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    for (n, shape) in SHAPES.iter().enumerate() {
        client.send(&event("")).await;
        let answer = client.answer().await;
        let framing = (answer.header("content-length"), answer.header("transfer-encoding"));
        assert_eq!((answer.status, framing), (shape.status, shape.framing), "{n}");
        assert_eq!(answer.body, shape.body, "{n}");
        let line = &gateway.lines(n + 1).await[n];
        assert_eq!(
            (&line["outcome"], &line["status"]),
            (&"forwarded".into(), &shape.status.into())
        );
        assert_eq!(line["bytes_out"], shape.body.len(), "{n}");
        assert_eq!(line["server"], upstream.address.to_string());
        assert_eq!(line["attempts"], 1);
    }
    let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
    let kept = connections.windows(2).map(|pair| pair[0] == pair[1]);
    let wrong: Vec<_> = SHAPES
        .iter()
        .zip(kept)
        .filter(|(shape, kept)| shape.reused != *kept)
        .collect();
    assert!(
        wrong.iter().all(|(shape, _)| shape.reused),
        "a spoilt connection was used again: {connections:?}"
    );
    // The pool may miss one that is just being put back.
    assert!(wrong.len() < 5, "{connections:?}");
    let ok = r#"hookward_upstream_attempts_total{result="ok",upstream="app"}"#;
    assert_eq!(gateway.metric(ok), SHAPES.len() as f64);
    for (class, count) in [("2xx", 16.0), ("3xx", 2.0), ("4xx", 1.0), ("5xx", 2.0)] {
        let series = format!(r#"hookward_upstream_answers_total{{class="{class}",upstream="app"}}"#);
        assert_eq!(gateway.metric(&series), count, "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_answer_come_back_less_those_for_one_hop() {
    // A cookie that is lost logs somebody out; a hop-by-hop header that travels confuses the sender's connection.
    let wire = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2; Path=/\r\nX-Folded: one\r\n  two\r\n\
                 Content-Type: text/plain\r\nX-Empty:\r\nETag: \"1\"\r\nServer: backend\r\n\
                 Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=60\r\nUpgrade: h2c\r\n\
                 Proxy-Authenticate: Basic\r\nTrailer: x\r\nContent-Length: 2\r\n\r\nok";
    let upstream = in_turn(vec![wire.to_vec()]).await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let answer = request(gateway.address, &event("")).await;
    assert_eq!(answer.headers("set-cookie"), ["a=1", "b=2; Path=/"]);
    assert_eq!(answer.headers("x-folded"), ["one two"]);
    for (name, value) in [
        ("content-type", "text/plain"),
        ("x-empty", ""),
        ("etag", "\"1\""),
        ("server", "backend"),
    ] {
        assert_eq!(answer.headers(name), [value], "{name}");
    }
    for name in ["x-hop", "keep-alive", "upgrade", "proxy-authenticate", "trailer"] {
        assert_eq!(answer.headers(name), [""; 0], "{name}");
    }
    assert_eq!(answer.headers("connection"), ["keep-alive"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_head_has_no_body_whatever_it_says() {
    // A sender that waits for the ten bytes, or takes the next answer for them, is out of step for ever.
    let ten = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = in_turn(vec![ten.to_vec(), chunked.to_vec(), ok.to_vec()]).await;
    let yaml =
        config(&servers(&[upstream.address])).replace("upstream: app", "upstream: app\n    methods: [HEAD, POST]");
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    let head = request_with("HEAD /webhooks/github HTTP/1.1\r\nHost: gateway.test", "", b"");
    client.send(&head).await;
    let answer = client.bodiless_answer().await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("10")));
    client.send(&head).await;
    assert_eq!(client.bodiless_answer().await.status, 200);
    client.send(&event("")).await;
    assert_eq!(client.answer().await.text(), "ok");
    let methods: Vec<_> = upstream.seen().iter().map(|seen| seen.head[..4].to_owned()).collect();
    assert_eq!(methods, ["HEAD", "HEAD", "POST"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn informational_answers_are_not_taken_for_the_final_one() {
    // Taken for the answer, an early hint would end the exchange before the backend has decided.
    let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                 HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let wire = format!("{hints}{hints}HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok");
    let upstream = in_turn(vec![wire.clone().into_bytes(), wire.into_bytes()]).await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..2 {
        client.send(&event("")).await;
        let answer = client.any_answer().await;
        assert_eq!((answer.status, answer.text(), answer.header("link")), (202, "ok", None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_large_answer_arrives_unchanged() {
    // Ten megabytes must neither be cut nor shuffled, and must not be held in memory as a whole.
    let body: Vec<u8> = (0..10 * 1024 * 1024_u32).map(|n| (n / 251) as u8).collect();
    let fixed = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        &body,
    ]
    .concat();
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(100_003) {
        chunked.extend(format!("{:X}\r\n", piece.len()).bytes());
        chunked.extend([piece, b"\r\n"].concat());
    }
    chunked.extend(b"0\r\n\r\n");
    let until_end = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &body].concat();
    let upstream = in_turn(vec![fixed, chunked, until_end]).await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    for n in 0..3 {
        client.send(&event("")).await;
        assert!(client.answer().await.body == body, "{n}");
        assert_eq!(gateway.lines(n + 1).await[n]["bytes_out"], body.len());
    }
    assert_eq!(gateway.metric("hookward_buffered_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_arrives_as_it_is_written() {
    // A backend that streams progress is useless behind a gateway that waits for the end.
    let (say, said) = mpsc::unbounded_channel::<&'static [u8]>();
    let said = std::sync::Arc::new(tokio::sync::Mutex::new(said));
    let upstream = Upstream::playing(move |mut wire: Wire| {
        let said = std::sync::Arc::clone(&said);
        async move {
            wire.request().await.unwrap();
            while let Some(bytes) = said.lock().await.recv().await {
                wire.send(bytes).await;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(&event("")).await;
    // Nothing is said before the last thing said has arrived.
    say.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    assert_eq!(header(&client.head().await, "content-type"), Some("text/event-stream"));
    for _ in 0..5 {
        say.send(b"9\r\ndata: 1\n\n\r\n").unwrap();
        assert_eq!(client.chunk().await, b"data: 1\n\n");
    }
    say.send(b"0\r\n\r\n").unwrap();
    assert_eq!(client.chunk().await, b"");
    assert_eq!(gateway.lines(1).await[0]["bytes_out"], 45);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_gets_an_answer_it_can_read() {
    // HTTP/1.0 knows no chunks: it would take the sizes for the body.
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let fixed = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef";
    let upstream = Upstream::answering(move |n, _| if n % 2 == 0 { chunked.to_vec() } else { fixed.to_vec() }).await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let start = "POST /webhooks/github HTTP/1.0";
    for (more, length) in [("", None), ("", Some("6")), ("Connection: keep-alive\r\n", None)] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&request_with(start, more, b"{}")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "abcdef"));
        assert_eq!(
            (answer.header("content-length"), answer.header("transfer-encoding")),
            (length, None)
        );
        assert!(client.closes().await);
    }
    assert_eq!(gateway.lines(3).await[0]["http"], "1.0");
    assert_eq!(upstream.seen()[0].header("host"), Some("127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_leaves_in_the_middle_is_the_senders_affair() {
    // It must not be counted as forwarded, hold the request open, or spoil a connection for the next event.
    let body = vec![b'x'; 8 * 1024 * 1024];
    let large = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        &body,
    ]
    .concat();
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let upstream = in_turn(vec![large, ok]).await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(&event("")).await;
    client.head().await;
    drop(client);
    let line = &gateway.lines(1).await[0];
    assert_eq!((&line["outcome"], &line["status"]), (&"failed".into(), &200.into()));
    assert_eq!(request(gateway.address, &event("")).await.text(), "ok");
    assert_eq!(upstream.seen()[1].connection, 1, "half an answer was left on the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_leaves_before_the_last_piece_is_written_got_no_answer() {
    // Logged as forwarded, an answer that nobody got hides why the provider sends the event again.
    let (say, said) = tokio::sync::oneshot::channel::<()>();
    let said = std::sync::Mutex::new(Some(said));
    let upstream = Upstream::playing(move |mut wire: Wire| {
        let said = said.lock().unwrap().take().unwrap();
        async move {
            wire.request().await.unwrap();
            // Larger than what is gathered before it is written.
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n").await;
            wire.send(&[b'x'; 2000]).await;
            said.await.unwrap();
            wire.send(&[b'x'; 2000]).await;
        }
    })
    .await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(&event("")).await;
    client.head().await;
    client.bytes(2000).await;
    client.reset();
    say.send(()).unwrap();
    let line = &gateway.lines(1).await[0];
    assert_eq!((&line["outcome"], &line["bytes_out"]), (&"failed".into(), &4000.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_may_refuse_a_body_before_it_has_read_it() {
    // Many do so with 413 or 401 and close; a 502 in its place makes the provider retry for days.
    let upstream = Upstream::playing(|mut wire: Wire| async move {
        wire.head().await.unwrap();
        wire.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .await;
    })
    .await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    let body = vec![b' '; 8 * 1024 * 1024];
    let start = "POST /webhooks/github HTTP/1.1\r\nHost: gateway.test";
    let answer = request(gateway.address, &request_with(start, "", &body)).await;
    assert_eq!((answer.status, answer.text()), (413, "big"));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_does_not_tell_what_was_answered() {
    // Answers may hold what a backend tells its provider alone.
    let wire = b"HTTP/1.1 200 OK\r\nX-Canary: canary-1\r\nContent-Length: 8\r\n\r\ncanary-2";
    let upstream = in_turn(vec![wire.to_vec()]).await;
    let gateway = Gateway::start(&config(&servers(&[upstream.address]))).await;
    request(gateway.address, &event("X-Secret: canary-3\r\n")).await;
    let line = gateway.lines(1).await[0].to_string();
    assert!(
        !line.contains("canary") && !line.contains(&sign_github(b"{}")),
        "{line}"
    );
}
