//! The request head as the application sees it.

use bytes::Bytes;

use super::to;
use crate::forwarding::heads::spellings;
use crate::harness::{Client, Gateway, H2, Recorded, Upstream, request};

const FORGED: &str = "198.51.100.66";

fn page(lines: &str) -> Vec<u8> {
    format!("GET /page HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n").into_bytes()
}

/// The head in alphabetical order, names in lower case.
fn fields(seen: &Recorded) -> Vec<(String, String)> {
    let fields = seen.headers().into_iter();
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    fields.sort();
    fields
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

const OURS: [(&str, &str); 4] = [
    ("host", "app.test"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-host", "app.test"),
    ("x-forwarded-proto", "http"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_application_sees_what_was_sent_and_who_sent_it() {
    // An application that logs, limits or geolocates by address must not take everybody for the gateway.
    let app = Upstream::ok().await;
    let gateway = Gateway::start(&to(&app)).await;
    let lines = "Accept: */*\r\nCookie: a=1\r\nAuthorization: Bearer t\r\nX-Real-Ip: 192.0.2.1\r\n";
    request(gateway.address, &page(lines)).await;
    let mut expected = owned(&OURS);
    expected.extend(owned(&[
        ("accept", "*/*"),
        ("authorization", "Bearer t"),
        ("cookie", "a=1"),
        ("x-real-ip", "192.0.2.1"),
    ]));
    expected.sort();
    assert_eq!(fields(&app.seen()[0]), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_the_gateway_cannot_be_said_by_others_here_either() {
    // An application that believes `x-hookward-verified` on its webhook handler believes it on every path.
    let app = Upstream::ok().await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = Client::connect(gateway.address).await;
    let names = [
        "x-hookward-route",
        "x-hookward-verified",
        "x-hookward-event-id",
        "x-hookward-not-thought-of-yet",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
    ];
    let mut variants = 0;
    for spelling in names.into_iter().flat_map(spellings) {
        let once = format!("{spelling}: {FORGED}\r\n");
        let lines = [
            format!("{once}{once}"),
            format!("Connection: keep-alive, {spelling}\r\n{once}"),
            // A handshake keeps what its `Connection` names.
            format!("Connection: Upgrade, {spelling}\r\nUpgrade: websocket\r\n{once}"),
        ];
        for lines in lines {
            variants += 1;
            client.send(&page(&lines)).await;
            let answer = client.answer().await;
            if answer.status == 400 && lines.contains(&format!(", {spelling}\r\n")) {
                // Some names cannot be nominated at all.
                client = Client::connect(gateway.address).await;
                continue;
            }
            assert_eq!(answer.status, 200, "{lines}");
            let seen = app.seen();
            let mut fields = fields(seen.last().unwrap());
            fields.retain(|(name, _)| name != "connection" && name != "upgrade");
            assert_eq!(fields, owned(&OURS), "{lines}");
        }
    }
    assert!(variants > 150, "{variants}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed_here_too() {
    // Half of an application's requests with the right address and half without is worse than none.
    let app = Upstream::ok().await;
    let gateway = Gateway::start(&format!("client: {{ trusted_proxies: [127.0.0.1] }}\n{}", to(&app))).await;
    let lines = "X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n\
                 X-Forwarded-Port: 443\r\nX_Forwarded_For: 198.51.100.66\r\n";
    request(gateway.address, &page(lines)).await;
    let expected = [
        ("host", "app.test"),
        ("x-forwarded-for", "203.0.113.9, 192.0.2.7, 127.0.0.1"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
    ];
    assert_eq!(fields(&app.seen()[0]), owned(&expected));
    assert_eq!(gateway.lines(1).await[0]["client"], "192.0.2.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_host_is_what_the_application_sees() {
    // One upstream, one `host:`; an application that answers by name would answer pages with somebody else's.
    let app = Upstream::ok().await;
    let yaml = super::config(&format!("servers: [\"{}\"], host: backend.internal", app.address));
    let gateway = Gateway::start(&yaml).await;
    request(gateway.address, &page("")).await;
    let seen = &app.seen()[0];
    assert_eq!((seen.header("host"), seen.count("host")), (Some("backend.internal"), 1));
    assert_eq!(seen.header("x-forwarded-host"), Some("app.test"));
    let page = http::Request::get("http://app.test/page").body(Bytes::new()).unwrap();
    H2::connect(gateway.address).await.ask(page).await.unwrap();
    let seen = &app.seen()[1];
    assert_eq!((seen.header("host"), seen.count("host")), (Some("backend.internal"), 1));
    assert_eq!(seen.header("x-forwarded-host"), Some("app.test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_one_hop_ends_here() {
    // Framing is between two neighbours: what is said to the gateway must not be heard by the application.
    let app = Upstream::ok().await;
    let gateway = Gateway::start(&to(&app)).await;
    for lines in [
        "Connection: x-one\r\nX-One: 1\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Proxy-Authorization: Basic eDp5\r\n",
        "TE: trailers\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n",
    ] {
        assert_eq!(request(gateway.address, &page(lines)).await.status, 200, "{lines}");
        assert_eq!(fields(app.seen().last().unwrap()), owned(&OURS), "{lines}");
    }
    // What cannot be read is refused, and says so.
    let answer = request(gateway.address, &page("Connection: two words\r\n")).await;
    assert_eq!((answer.status, answer.text()), (400, "bad_framing\n"));
    assert_eq!(gateway.lines(7).await[6]["reason"], "bad_framing");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_answer_come_back_less_those_for_one_hop() {
    // A browser that is told about the application's idle time keeps the gateway's connection by it.
    let app = Upstream::answering(|_, _| {
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2; Path=/\r\nX-Folded: one\r\n  two\r\n\
          Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=60\r\nProxy-Connection: close\r\n\
          Server: app\r\nContent-Length: 2\r\n\r\nok"
            .to_vec()
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let answer = request(gateway.address, &page("")).await;
    assert_eq!(answer.headers("set-cookie"), ["a=1", "b=2; Path=/"]);
    assert_eq!(answer.headers("x-folded"), ["one two"]);
    assert_eq!(answer.headers("server"), ["app"]);
    assert_eq!(answer.headers("connection"), ["keep-alive"]);
    for name in ["x-hop", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.headers(name), [""; 0], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_the_application_sees_the_same() {
    // Browsers speak HTTP/2 to the front and the application HTTP/1 behind it: nothing may be lost in translation.
    let app = Upstream::answering(|_, seen| {
        let head = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!(
            "{head}{:x}\r\n{}\r\n0\r\n\r\n",
            seen.body.len(),
            String::from_utf8_lossy(&seen.body)
        )
        .into_bytes()
    })
    .await;
    let gateway = Gateway::start(&to(&app)).await;
    let mut client = H2::connect(gateway.address).await;
    let body = Bytes::from(vec![b'x'; 100_000]);
    for _ in 0..3 {
        let mut ask = http::Request::post("http://app.test/upload?q=1");
        for name in [
            "x-hookward-verified",
            "x_hookward_verified",
            "x-forwarded-for",
            "x-forwarded-port",
        ] {
            ask = ask.header(name, FORGED);
        }
        let answer = client.ask(ask.body(body.clone()).unwrap()).await.unwrap();
        let cookies = answer.headers().get_all("set-cookie").iter();
        let cookies: Vec<_> = cookies.map(|value| value.to_str().unwrap()).collect();
        assert_eq!((answer.status().as_u16(), cookies), (200, vec!["a=1", "b=2"]));
        assert!(answer.body() == &body);
        let seen = app.seen();
        let seen = seen.last().unwrap();
        assert!(seen.head.starts_with("POST /upload?q=1 HTTP/1.1\r\n"));
        assert!(!seen.head.contains(FORGED), "{}", seen.head);
        assert_eq!(seen.header("host"), Some("app.test"));
    }
    let line = &gateway.lines(3).await[2];
    assert_eq!((&line["http"], &line["outcome"]), (&"2".into(), &"passed".into()));
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&100_000.into(), &100_000.into())
    );
}
