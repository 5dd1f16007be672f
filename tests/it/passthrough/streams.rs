//! What does not end soon: WebSockets, events from the server, uploads and downloads too large to hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, mpsc};

use super::{PASSED, to};
use crate::harness::process::Running;
use crate::harness::{Client, Gateway, Upstream, Wire, header, until};

const HANDSHAKE: &[u8] = b"GET /socket HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: chat\r\nOrigin: http://app.test\r\n\r\n";

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// An application that takes WebSockets and answers every eight bytes with the same bytes in upper case; `bye!bye!`
/// makes it leave.
async fn shouting() -> Upstream {
    Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        wire.send(SWITCHED).await;
        while let Some(message) = wire.bytes(8).await {
            if message == b"bye!bye!" {
                return;
            }
            wire.send(&message.to_ascii_uppercase()).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_works_through_the_gateway() {
    // Half the applications there are have one, and it fails in ways that only its users see.
    let app = shouting().await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for (name, value) in [
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "chat"),
        ("upgrade", "websocket"),
    ] {
        assert_eq!(header(&head, name), Some(value));
    }
    let seen = &app.seen()[0];
    for (name, value) in [
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("origin", "http://app.test"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(seen.header(name), Some(value));
    }
    assert!(seen.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    for n in 0..20 {
        client.send(format!("message{}", n % 10).as_bytes()).await;
        assert_eq!(client.bytes(8).await, format!("MESSAGE{}", n % 10).into_bytes());
    }
    // Many at once, and one in pieces.
    client.send(&b"abcdefgh".repeat(10_000)).await;
    assert!(client.bytes(80_000).await == b"ABCDEFGH".repeat(10_000));
    client.send(b"abc").await;
    client.send(b"defgh").await;
    assert_eq!(client.bytes(8).await, b"ABCDEFGH");
    assert!(gateway.active() > 0, "a drain waits for it");

    client.send(b"bye!bye!").await;
    assert!(client.closes().await);
    let line = &gateway.lines(1).await[0];
    assert_eq!((&line["outcome"], &line["status"]), (&"passed".into(), &101.into()));
    assert_eq!(line["path"], "/socket");
    until("nothing is on its way", || gateway.active() == 0).await;
    assert_eq!(gateway.metric(PASSED), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_ends_when_its_client_leaves() {
    // A connection that the application keeps for nobody is one more until it runs out of them.
    let app = shouting().await;
    let gateway = Gateway::start(&to(&app)).await;
    for polite in [true, false] {
        let mut client = Client::connect(gateway.address).await;
        client.send(HANDSHAKE).await;
        client.head().await;
        client.send(b"abcdefgh").await;
        client.bytes(8).await;
        match polite {
            true => drop(client),
            false => client.reset(),
        }
        app.quiet().await;
        until("nothing is on its way", || gateway.active() == 0).await;
    }
    assert_eq!(gateway.lines(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_declined_is_an_ordinary_answer() {
    // The application asks for a login first; the connection must be good for it.
    let app = Upstream::status(|n| if n == 0 { 401 } else { 200 }).await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.answer().await.status, 401);
    assert_eq!(gateway.lines(1).await[0]["status"], 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_slips_through_behind_a_handshake_that_was_declined() {
    // A gateway that believes in a tunnel where the application does not lets the next request pass unseen.
    let app = Upstream::playing(|mut wire: Wire| async move {
        while wire.request().await.is_some() {
            wire.send(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let forged = b"POST /webhooks/github HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    for together in [true, false] {
        let mut client = Client::connect(gateway.address).await;
        let first = if together {
            [HANDSHAKE, forged].concat()
        } else {
            HANDSHAKE.to_vec()
        };
        client.send(&first).await;
        assert_eq!(client.answer().await.status, 426);
        if !together {
            client.send(forged).await;
        }
        if let Some(answer) = client.whole_answer().await {
            assert_eq!(answer.status, 401);
        }
    }
    let paths: Vec<_> = app
        .seen()
        .iter()
        .map(|seen| seen.head.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(paths, ["/socket", "/socket"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_switches_protocols_unasked() {
    // After a 101 bytes pass unread: an application must not be able to open such a tunnel by itself.
    let app = Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        wire.send(&[SWITCHED, b"GET /webhooks/github HTTP/1.1\r\n\r\n"].concat())
            .await;
        wire.ends().await;
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.any_answer().await;
    assert_eq!((answer.status, answer.text()), (502, "upstream_down\n"));
}

/// An application that says what it is told, piece by piece, to the first request.
async fn prompted() -> (Upstream, mpsc::UnboundedSender<Vec<u8>>) {
    let (say, said) = mpsc::unbounded_channel::<Vec<u8>>();
    let said = Arc::new(Mutex::new(said));
    let app = Upstream::playing(move |mut wire: Wire| {
        let said = Arc::clone(&said);
        async move {
            wire.request().await;
            let mut said = said.lock().await;
            while let Some(bytes) = said.recv().await {
                if !wire.send(&bytes).await {
                    return;
                }
            }
        }
    })
    .await;
    (app, say)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_from_the_server_arrive_one_by_one() {
    // Gathered until the end, a stream that never ends shows its reader nothing at all.
    let (app, say) = prompted().await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        .await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    say.send(head.into()).unwrap();
    // Nothing is said before the last thing said has arrived.
    assert_eq!(header(&client.head().await, "content-type"), Some("text/event-stream"));
    for n in 0..10 {
        let event = format!("data: {n}\n\n");
        say.send(format!("{:x}\r\n{event}\r\n", event.len()).into()).unwrap();
        assert_eq!(client.chunk().await, event.as_bytes());
    }
    assert!(gateway.active() > 0);
    // The reader closes the page: the application must notice when it speaks next.
    drop(client);
    until("the stream to end", || {
        let _ = say.send(b"2\r\n:\n\r\n".to_vec());
        gateway.active() == 0
    })
    .await;
    assert_eq!(gateway.lines(1).await[0]["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_with_its_connection_arrives_as_it_comes() {
    // Old applications stream like this, and so do those that were written in a hurry.
    let (app, say) = prompted().await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    say.send(b"HTTP/1.0 200 OK\r\n\r\n".to_vec()).unwrap();
    assert_eq!(header(&client.head().await, "transfer-encoding"), Some("chunked"));
    for piece in ["one", "two", "three"] {
        say.send(piece.into()).unwrap();
        assert_eq!(client.chunk().await, piece.as_bytes());
    }
    drop(say);
    assert_eq!(client.chunk().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_reaches_the_application_while_it_is_sent() {
    // Waiting for the end makes an upload take twice as long, and a progress bar lie.
    let arrived = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&arrived);
    let app = Upstream::playing(move |mut wire: Wire| {
        let counted = Arc::clone(&counted);
        async move {
            let head = wire.head().await.unwrap();
            assert_eq!(header(&head, "content-length"), Some("1000000"));
            for _ in 0..10 {
                wire.bytes(100_000).await.unwrap();
                counted.fetch_add(100_000, Ordering::SeqCst);
            }
            wire.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(b"PUT /file HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    for sent in 1..=10 {
        client.send(&[b'x'; 100_000]).await;
        until("the piece to arrive", || {
            arrived.load(Ordering::SeqCst) == sent * 100_000
        })
        .await;
    }
    assert_eq!(client.answer().await.status, 201);
    assert_eq!(gateway.lines(1).await[0]["bytes_in"], 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_wait_for_its_invitation() {
    // Large uploads ask first; without the answer some clients wait for ever.
    let app = Upstream::playing(|mut wire: Wire| async move {
        let head = wire.head().await.unwrap();
        assert_eq!(header(&head, "expect"), Some("100-continue"));
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = wire.bytes(3).await.unwrap();
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &body[..]].concat();
        wire.send(&answer).await;
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(b"PUT /file HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await;
    assert_eq!(client.any_answer().await.status, 100);
    client.send(b"abc").await;
    assert_eq!(client.answer().await.text(), "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_makes_progress_is_given_its_time() {
    // The application says nothing while it is being told: that is no silence of its own.
    let arrived = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&arrived);
    let app = Upstream::playing(move |mut wire: Wire| {
        let counted = Arc::clone(&counted);
        async move {
            wire.head().await;
            // Sizes and line ends are in between.
            loop {
                match &wire.bytes(1).await.unwrap()[..] {
                    b"x" => counted.fetch_add(1, Ordering::SeqCst),
                    b"!" => break,
                    _ => continue,
                };
            }
            wire.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = Gateway::start(&to(&app).replace(" } }\npassthrough", ", timeout: 2s } }\npassthrough")).await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(b"PUT /film HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let (started, mut sent) = (std::time::Instant::now(), 0);
    while started.elapsed() < std::time::Duration::from_secs(3) {
        client.send(b"1\r\nx\r\n").await;
        sent += 1;
        until("the byte to arrive", || arrived.load(Ordering::SeqCst) == sent).await;
    }
    client.send(b"1\r\n!\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 201);
}

const LARGE: usize = 64 * 1024 * 1024;

/// More memory than this for one request and one answer of [`LARGE`] means that they were held.
const GROWTH_MAX: usize = 24 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn large_uploads_and_downloads_are_not_held_in_memory() {
    // Ten people who upload a film would otherwise be the end of the webhooks.
    let app = Upstream::playing(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let (mut left, piece) = (LARGE, vec![b'y'; 256 * 1024]);
            if head.starts_with("PUT") {
                while left > 0 {
                    left -= wire.bytes(piece.len()).await.unwrap().len();
                }
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                continue;
            }
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())
                .await;
            while left > 0 {
                wire.send(&piece).await;
                left -= piece.len();
            }
        }
    })
    .await;
    let program = Running::start(&to(&app)).await;
    let mut client = Client::connect(program.address).await;
    client.send(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    let before = program.process.memory_peak_bytes();
    // A slow reader: the program must not read ahead of it.
    for _ in 0..LARGE / (256 * 1024) {
        client.bytes(256 * 1024).await;
    }
    client
        .send(format!("PUT /film HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())
        .await;
    let piece = vec![b'x'; 256 * 1024];
    for _ in 0..LARGE / piece.len() {
        client.send(&piece).await;
    }
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(program.metric("hookward_buffered_bytes").await, 0.0);
    let out = r#"hookward_body_bytes_total{direction="out",route="-"}"#;
    assert_eq!(program.metric(out).await, LARGE as f64);
    if let (Some(before), Some(after)) = (before, program.process.memory_peak_bytes()) {
        assert!(after.saturating_sub(before) < GROWTH_MAX, "{before} -> {after}");
    }
}
