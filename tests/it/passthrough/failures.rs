//! An application that is away, slow or broken, behind the pass-through.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{config, to};
use crate::harness::{Blackhole, Client, Gateway, H2, Refusing, Upstream, Wire, request};

const PAGE: &[u8] = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
const FORM: &[u8] = b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=1";

fn servers(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("servers: [{}]", addresses.join(", "))
}

fn attempts(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!(
        r#"hookward_upstream_attempts_total{{result="{result}",upstream="app"}}"#
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_passed_over() {
    // A deploy must not be seen by users, whatever they were just sending.
    let (dead, alive) = (Refusing::new(), Upstream::ok().await);
    let gateway = Gateway::start(&config(&servers(&[dead.address, alive.address]))).await;
    let mut client = Client::connect(gateway.address).await;
    for n in 0..8 {
        client.send(if n % 2 == 0 { FORM } else { PAGE }).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{n}");
    }
    let line = &gateway.lines(8).await[0];
    assert_eq!(attempts(&gateway, "connect_failed"), 1.0);
    assert_eq!(attempts(&gateway, "ok"), 8.0);
    assert_eq!(
        (&line["attempts"], &line["server"]),
        (&2.into(), &alive.address.to_string().into())
    );
    gateway.clock.advance(Duration::from_secs(10));
    for _ in 0..2 {
        request(gateway.address, PAGE).await;
    }
    assert_eq!(attempts(&gateway, "connect_failed"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_there_is_a_502() {
    // A person must learn at once that nobody is there.
    let dead = [Refusing::new(), Refusing::new()];
    let gateway = Gateway::start(&config(&servers(&[dead[0].address, dead[1].address]))).await;
    let mut client = Client::connect(gateway.address).await;
    for n in 0..3 {
        client.send(FORM).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (502, "upstream_down\n"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.closes().await);
        client = Client::connect(gateway.address).await;
        let line = &gateway.lines(n + 1).await[n];
        let story = ["outcome", "stage", "reason"].map(|key| line[key].as_str().unwrap().to_owned());
        assert_eq!(story, ["refused", "dispatch", "upstream_down"]);
        assert_eq!(line["attempts"], 2);
    }
    let refused =
        r#"hookward_requests_total{outcome="refused",provider="-",reason="dispatch/upstream_down",route="-"}"#;
    assert_eq!(
        (gateway.metric(refused), attempts(&gateway, "connect_failed")),
        (3.0, 6.0)
    );
    // Over HTTP/2 the others of the connection live on.
    let page = || http::Request::get("http://a/page").body(Bytes::new()).unwrap();
    let mut client = H2::connect(gateway.address).await;
    for _ in 0..2 {
        assert_eq!(client.ask(page()).await.unwrap().status(), 502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_take_the_connection_is_passed_over() {
    // A host that is gone refuses nothing; without a bound its share of the users waits for ever.
    let (gone, alive) = (Blackhole::new().await, Upstream::ok().await);
    let gateway = Gateway::start(&config(&format!(
        "{}, connect_timeout: 100ms",
        servers(&[gone.address, alive.address])
    )))
    .await;
    for _ in 0..3 {
        assert_eq!(request(gateway.address, FORM).await.status, 200);
    }
    assert_eq!(attempts(&gateway, "connect_failed"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_says_nothing_is_a_504() {
    // A worker that hangs must not hold a connection, and a place in the drain, for as long as a browser is open.
    let silent = Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        wire.ends().await;
    })
    .await;
    let gateway = Gateway::start(&config(&format!("{}, timeout: 200ms", servers(&[silent.address])))).await;
    for bytes in [PAGE, FORM] {
        let answer = request(gateway.address, bytes).await;
        assert_eq!((answer.status, answer.text()), (504, "upstream_timeout\n"));
    }
    assert_eq!(gateway.lines(2).await[1]["reason"], "upstream_timeout");
    assert_eq!((attempts(&gateway, "timeout"), silent.seen().len()), (2.0, 2));
    silent.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_to_be_silent_may_be() {
    // A chat in which nobody speaks, a page that waits for news: cut off every few seconds they are useless.
    let app = Upstream::playing(|mut wire: Wire| async move {
        let (_, seen) = wire.request().await.unwrap();
        match seen.header("upgrade") {
            Some(_) => {
                wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                    .await
            }
            None => {
                wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .await
            }
        };
        // Says nothing until the other exchange of this test, which starts now, has timed out.
        wire.ends().await;
    })
    .await;
    let silent = Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        wire.ends().await;
    })
    .await;
    let quiet = Gateway::start(&config(&format!("{}, timeout: 100ms", servers(&[app.address])))).await;
    let slow = Gateway::start(&config(&format!("{}, timeout: 300ms", servers(&[silent.address])))).await;
    let asks = [
        "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET /news HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n",
        "GET /news HTTP/1.1\r\nHost: a\r\nAccept: text/html, Text/Event-Stream;q=0.9\r\n\r\n",
    ];
    let mut clients = Vec::new();
    for ask in asks {
        let mut client = Client::connect(quiet.address).await;
        client.send(ask.as_bytes()).await;
        client.head().await;
        clients.push(client);
    }
    assert_eq!(request(slow.address, PAGE).await.status, 504);
    assert_eq!(app.open(), 3, "still there after three times the timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_readable_head_there_is_a_502() {
    // Neither silence nor what the application said instead.
    let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}", "x".repeat(1_200_000));
    let cases: [(&str, &str); 8] = [
        ("", "reset"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "reset"),
        ("canary and nothing that is HTTP\r\n\r\n", "bad_answer"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "bad_answer"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
            "bad_answer",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", "bad_answer"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "bad_answer"),
        (&large, "bad_answer"),
    ];
    for (bytes, counted) in cases {
        let case = &bytes[..bytes.len().min(60)];
        let bytes = bytes.as_bytes().to_vec();
        let app = Upstream::playing(move |mut wire: Wire| {
            let bytes = bytes.clone();
            async move {
                wire.request().await;
                wire.send(&bytes).await;
            }
        })
        .await;
        let gateway = Gateway::start(&to(&app)).await;
        for ask in [FORM, PAGE] {
            let answer = request(gateway.address, ask).await;
            assert_eq!((answer.status, answer.text()), (502, "upstream_down\n"), "{case}");
        }
        gateway.lines(2).await;
        let seen = app.seen();
        let forms = seen.iter().filter(|seen| seen.body == b"a=1").count();
        assert_eq!((forms, attempts(&gateway, counted)), (1, 2.0), "{case}");
    }
}

/// Heads of answers, and what is sent of their bodies.
const CUT: [(&str, &str); 7] = [
    ("Content-Length: 10", "12345"),
    ("Content-Length: 10", ""),
    ("Transfer-Encoding: chunked", "5\r\n12345\r\n"),
    ("Transfer-Encoding: chunked", "5\r\n123"),
    ("Transfer-Encoding: chunked", "5\r\n12345\r\n0\r\n"),
    ("Transfer-Encoding: chunked", "5\r\n12345\r\nzz\r\nabc\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\r\n12345XX0\r\n\r\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_answer_never_looks_whole() {
    // Half a backup that looks whole is noticed on the day it is needed; and words of the gateway's in the middle of
    // a page are worse.
    for (head, body) in CUT {
        let app = Upstream::playing(move |mut wire: Wire| async move {
            wire.request().await;
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes())
                .await;
        })
        .await;
        let gateway = Gateway::start(&to(&app)).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(PAGE).await;
        assert!(client.whole_answer().await.is_none(), "{head} {body:?}");
        assert!(
            !String::from_utf8_lossy(&client.rest().await).contains("upstream_down"),
            "{head} {body:?}"
        );
        let line = &gateway.lines(1).await[0];
        assert_eq!(
            (&line["outcome"], &line["status"]),
            (&"failed".into(), &200.into()),
            "{head} {body:?}"
        );
        let page = http::Request::get("http://a/page").body(Bytes::new()).unwrap();
        assert!(
            H2::connect(gateway.address).await.ask(page).await.is_err(),
            "{head} {body:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_is_cut() {
    // The rest of a page that never comes must not look like its end.
    let app = Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        wire.ends().await;
    })
    .await;
    let gateway = Gateway::start(&config(&format!("{}, timeout: 200ms", servers(&[app.address])))).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(PAGE).await;
    assert!(client.whole_answer().await.is_none());
    assert_eq!(gateway.lines(1).await[0]["outcome"], "failed");
    assert_eq!((attempts(&gateway, "timeout"), attempts(&gateway, "ok")), (1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_while_it_lay_idle_is_not_the_users_problem() {
    // Servers close idle connections when they like; a page can be asked for again, a form must not be sent again.
    let app = Upstream::playing(|mut wire: Wire| async move {
        wire.request().await;
        // Without a word about it.
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    let mut taken = 0;
    for n in 0..60 {
        let form = n % 2 == 0;
        client.send(if form { FORM } else { PAGE }).await;
        match client.answer().await.status {
            200 => taken += 1,
            status => {
                assert_eq!((status, form), (502, true), "{n}");
                client = Client::connect(gateway.address).await;
            }
        }
    }
    assert_eq!(app.seen().len(), taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_browser_gets_an_answer_it_can_read() {
    // HTTP/1.0 knows no chunks: it would take the sizes for the page.
    let app = Upstream::answering(|_, _| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n".to_vec()
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(b"GET /page HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.header("transfer-encoding"), answer.text()), (None, "abcdef"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_does_not_look_whole_to_the_application() {
    // Half a file stored as the whole file is a loss that nobody notices.
    for start in [
        "Content-Length: 10\r\n\r\n12345",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ] {
        let app = Upstream::playing(|mut wire: Wire| async move { while wire.request().await.is_some() {} }).await;
        let gateway = Gateway::start(&to(&app)).await;
        let mut client = Client::connect(gateway.address).await;
        client
            .send(format!("PUT /file HTTP/1.1\r\nHost: a\r\n{start}").as_bytes())
            .await;
        drop(client);
        app.quiet().await;
        let line = &gateway.lines(1).await[0];
        assert_eq!(
            (&line["outcome"], line.get("status")),
            (&"failed".into(), None),
            "{start}"
        );
    }
}
