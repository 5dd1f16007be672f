//! Heads with more than one meaning. Behind each of them waits a genuine, signed request: a gateway that thinks that
//! the bad head ends anywhere but at the end of the connection would execute it.

use crate::harness::{Client, Gateway, Upstream, github, request, route_yaml};

/// The series that counts them.
const COUNTED: &str = r#"hookward_requests_total{outcome="refused",provider="-",reason="head/bad_framing",route="-"}"#;

/// Lines of a head, each by itself in an otherwise flawless `POST`. `{n}` is the length of what follows.
const BAD_LINES: &[&[u8]] = &[
    // Where a line ends.
    b"X-A: 1\nX-B: 2",
    b"X-A: 1\rX-B: 2",
    b"X-A: 1\r\rX-B: 2",
    b"X-A: 1\n\rX-B: 2",
    b"X-A: 1\r",
    b"X-A: 1\n",
    b"\nX-A: 1",
    b"\rX-A: 1",
    b"X-A: 1\r\n\n",
    b"X-A: 1\n\nGET / HTTP/1.1",
    // Bytes that have no place in a value.
    b"X-A: a\0b",
    b"X-A: \0",
    b"X-A: a\x01b",
    b"X-A: a\x08b",
    b"X-A: a\x0bb",
    b"X-A: a\x0cb",
    b"X-A: a\x1fb",
    b"X-A: a\x7fb",
    // Folding.
    b"X-A: 1\r\n X-B: 2",
    b"X-A: 1\r\n\tX-B: 2",
    b" X-A: 1",
    b"\tX-A: 1",
    b"Content-Length:\r\n 5",
    b"Transfer-Encoding:\r\n chunked",
    // Names.
    b"X-A : 1",
    b"X-A\t: 1",
    b"X A: 1",
    b": 1",
    b":",
    b"X-A",
    b"X-A\x0b: 1",
    b"X-A\0: 1",
    b"X-\xc3\xa4: 1",
    b"X-\xa0: 1",
    b"X(A): 1",
    b"X,A: 1",
    b"X/A: 1",
    b"X;A: 1",
    b"X=A: 1",
    b"X@A: 1",
    b"X[A]: 1",
    b"X\"A\": 1",
    b"X{A}: 1",
    b"X\\A: 1",
    // Lengths.
    b"Content-Length: 0\r\nContent-Length: 0",
    b"Content-Length: 5\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\nX-A: 1\r\ncontent-length: 5",
    b"Content-Length: 5, 5",
    b"Content-Length: 5,",
    b"Content-Length: ,5",
    b"Content-Length: 5 5",
    b"Content-Length: +5",
    b"Content-Length: -5",
    b"Content-Length: -0",
    b"Content-Length: 5.0",
    b"Content-Length: 5e0",
    b"Content-Length: 0x5",
    b"Content-Length: 5a",
    b"Content-Length: a",
    b"Content-Length: 5;",
    b"Content-Length: 5_0",
    b"Content-Length: \"5\"",
    b"Content-Length: \xd9\xa5",
    b"Content-Length: \xef\xbc\x95",
    b"Content-Length:",
    b"Content-Length: ",
    b"Content-Length: 1000000000000000000",
    b"Content-Length: 9223372036854775808",
    b"Content-Length: 18446744073709551616",
    b"Content-Length: 18446744073709551621",
    b"Content-Length: 99999999999999999999999999999999999999",
    // Lengths and chunks together.
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Content-Length: 0\r\nTransfer-Encoding: chunked",
    b"Content-Length: 5\r\nTransfer-Encoding: identity",
    b"Content-Length: 5\r\nTransfer-Encoding:",
    // Encodings that are not exactly chunked.
    b"Transfer-Encoding:",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: chunk",
    b"Transfer-Encoding: chun ked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: \x0cchunked",
    b"Transfer-Encoding: \x85chunked",
    b"Transfer-Encoding: \xa0chunked",
    b"Transfer-Encoding: chunked\xa0",
    b"Transfer-Encoding: \xc2\xa0chunked",
    b"Transfer-Encoding: \xef\xbd\x83hunked",
    b"Transfer-Encoding: chunked\0",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding\x0b: chunked",
    b" Transfer-Encoding: chunked",
    b"X-A: 1\nTransfer-Encoding: chunked",
    b"X-A: 1\rTransfer-Encoding: chunked",
    // What careless parsers take for the framing headers.
    b"Content_Length: 5",
    b"content_length: 5",
    b"Transfer_Encoding: chunked",
    b"TRANSFER_ENCODING: chunked",
    b"Content.Length: 5",
    b"Content~Length: 5",
    b"Transfer.Encoding: chunked",
    b"Transfer+Encoding: chunked",
    // Whom it is for.
    b"Host: gateway.test",
    b"host: other.test",
    b"HOST:",
];

/// Hosts of one request that name nobody.
const BAD_HOSTS: &[&[u8]] = &[
    b"",
    b" ",
    b":80",
    b"a b",
    b"a\tb",
    b"a,b",
    b"a/b",
    b"a\\b",
    b"a?b",
    b"a#b",
    b"user@gateway.test",
    b"gateway.test@other.test",
    b"http://gateway.test",
    b"\"gateway.test\"",
    b"<gateway.test>",
    b"gateway.test:80:80",
    b"gateway.test:x",
    b"gateway.test:123456",
    b"[::1",
    b"::1",
    b"\xc3\xa4.test",
];

/// Request lines, each with an otherwise flawless head.
const BAD_REQUEST_LINES: &[&[u8]] = &[
    // Versions.
    b"POST /webhooks/github",
    b"POST /webhooks/github ",
    b"GET /",
    b"POST /webhooks/github HTTP/0.9",
    b"POST /webhooks/github HTTP/1.2",
    b"POST /webhooks/github HTTP/2.0",
    b"POST /webhooks/github HTTP/3",
    b"POST /webhooks/github HTTP/1",
    b"POST /webhooks/github HTTP/1.10",
    b"POST /webhooks/github HTTP/01.1",
    b"POST /webhooks/github HTTP/1.1x",
    b"POST /webhooks/github http/1.1",
    b"POST /webhooks/github HTTPS/1.1",
    b"POST /webhooks/github XTTP/1.1",
    b"POST /webhooks/github HTTP /1.1",
    b"PRI * HTTP/2.0",
    // Spaces.
    b"POST  /webhooks/github HTTP/1.1",
    b"POST /webhooks/github  HTTP/1.1",
    b"POST /webhooks/github HTTP/1.1 ",
    b" POST /webhooks/github HTTP/1.1",
    b"POST\t/webhooks/github HTTP/1.1",
    b"POST /webhooks/github\tHTTP/1.1",
    b"POST /webhooks/github x HTTP/1.1",
    b"POST /web hooks/github HTTP/1.1",
    b"POST\x0b/webhooks/github HTTP/1.1",
    // Methods.
    b"CONNECT gateway.test:443 HTTP/1.1",
    b"CONNECT /webhooks/github HTTP/1.1",
    b"connect /webhooks/github HTTP/1.1",
    b"TRACE /webhooks/github HTTP/1.1",
    b"Trace /webhooks/github HTTP/1.1",
    b"/webhooks/github HTTP/1.1",
    b" /webhooks/github HTTP/1.1",
    b"PO\0ST /webhooks/github HTTP/1.1",
    b"POST: /webhooks/github HTTP/1.1",
    b"P\xc3\x96ST /webhooks/github HTTP/1.1",
    b"(POST) /webhooks/github HTTP/1.1",
    // Targets.
    b"POST http://gateway.test/webhooks/github HTTP/1.1",
    b"POST https://gateway.test/webhooks/github HTTP/1.1",
    b"POST HTTP://other.test/webhooks/github HTTP/1.1",
    b"POST gateway.test:80 HTTP/1.1",
    b"POST webhooks/github HTTP/1.1",
    b"POST \\webhooks\\github HTTP/1.1",
    b"POST ?x HTTP/1.1",
    b"POST * HTTP/1.1",
    b"GET * HTTP/1.1",
    b"OPTIONS ** HTTP/1.1",
    b"POST /webhooks/github# HTTP/1.1",
    b"POST /webhooks/github#x HTTP/1.1",
    b"POST /#/webhooks/github HTTP/1.1",
    b"POST /webhooks/github?x#y HTTP/1.1",
    b"POST /webhooks/github\0 HTTP/1.1",
    b"POST /webhooks/github\x7f HTTP/1.1",
    b"POST /webhooks/github\x01 HTTP/1.1",
    b"POST /webhooks/\xc3\xa4 HTTP/1.1",
    b"POST /webhooks/github?\xc3\xa4 HTTP/1.1",
    b"POST /webhooks/\xff HTTP/1.1",
    b"POST /webhooks/<github> HTTP/1.1",
    b"POST /webhooks/\"github\" HTTP/1.1",
    b"POST /webhooks/`github` HTTP/1.1",
    b"POST /webhooks/github?<x> HTTP/1.1",
    b"POST /webhooks/github?\"x\" HTTP/1.1",
    // Ends of line.
    b"POST /webhooks/github HTTP/1.1\nX-A: 1",
    b"POST /webhooks/github HTTP/1.1\rX-A: 1",
    b"POST /webhooks/github HTTP/1.1\r",
    b"POST /webhooks/github\rHTTP/1.1",
    b"POST /webhooks/github\nHTTP/1.1",
];

/// Heads that are wrong as a whole.
fn bad_heads() -> Vec<Vec<u8>> {
    let many = "X-A: 1\r\n".repeat(100);
    let texts = [
        "\r\nPOST /webhooks/github HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\r\n\r\nPOST /webhooks/github HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\nPOST /webhooks/github HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.1\nHost: a\n\n".to_owned(),
        "POST /webhooks/github HTTP/1.1\nHost: a\r\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.1\r\nHost: a\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.1\r\nHost: a\r\n\n".to_owned(),
        "POST /webhooks/github HTTP/1.1\rHost: a\r\r".to_owned(),
        // No host, or no version that could do without.
        "POST /webhooks/github HTTP/1.1\r\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.1\r\nX-Host: a\r\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        // Chunks came with 1.1.
        "POST /webhooks/github HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n".to_owned(),
        "POST /webhooks/github HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: identity\r\n\r\n".to_owned(),
        // 101 lines.
        format!("POST /webhooks/github HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        // Something else altogether.
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n".to_owned(),
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    texts.map(String::into_bytes).into()
}

/// Every bad head, complete.
fn table() -> Vec<Vec<u8>> {
    let with_line = BAD_LINES.iter().map(|line| {
        let head: [&[u8]; 3] = [
            b"POST /webhooks/github HTTP/1.1\r\nHost: gateway.test\r\n",
            line,
            b"\r\n\r\n",
        ];
        head.concat()
    });
    let with_host = BAD_HOSTS.iter().map(|host| {
        let head: [&[u8]; 3] = [b"POST /webhooks/github HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"];
        head.concat()
    });
    let with_request_line = BAD_REQUEST_LINES
        .iter()
        .map(|line| [line, &b"\r\nHost: gateway.test\r\n\r\n"[..]].concat());
    with_line
        .chain(with_host)
        .chain(with_request_line)
        .chain(bad_heads())
        .collect()
}

/// Everything is passed through, so that any mistake reaches the upstream.
async fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!("{}passthrough: app\n", route_yaml(upstream.address, ""))).await
}

/// Whether the head was refused and the connection ended behind the refusal.
async fn is_refused(client: &mut Client) -> bool {
    let answer = client.answer().await;
    (answer.status, answer.text()) == (400, "bad_framing\n")
        && answer.header("connection") == Some("close")
        && client.ends_in_order().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_a_single_meaning_ends_the_connection() {
    // Each of these is read one way by some proxy and another way by some backend: the request hidden behind it would
    // be executed by one of them as somebody else's.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream).await;
    let table = table();
    assert!(table.len() >= 200, "{} cases", table.len());
    let mut executed = Vec::new();
    for head in &table {
        let mut client = Client::connect(gateway.address).await;
        client.send(&[head, &github(b"{\"hidden\":1}")[..]].concat()).await;
        if !is_refused(&mut client).await {
            executed.push(head.escape_ascii().to_string());
        }
    }
    assert_eq!(executed, Vec::<String>::new());
    let lines = gateway.lines(table.len()).await;
    assert_eq!(lines.len(), table.len());
    for line in lines {
        assert_eq!(
            (&line["stage"], &line["reason"]),
            (&"head".into(), &"bad_framing".into()),
            "{line}"
        );
        assert_eq!(
            (&line["status"], &line["client"]),
            (&400.into(), &"127.0.0.1".into()),
            "{line}"
        );
    }
    assert_eq!(gateway.metric(COUNTED), table.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_head_is_refused_behind_good_requests_too() {
    // A connection that has been good so far must not be read more leniently.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let heads = [
        &b"POST /webhooks/github HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
        b"\r\nPOST /webhooks/github HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /webhooks/github HTTP/1.1\nHost: a\n\n",
        // HTTP/2 begins with a connection or not at all.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for (n, head) in heads.into_iter().enumerate() {
        let mut client = Client::connect(gateway.address).await;
        client.send(&github(format!("{{\"good\":{n}}}").as_bytes())).await;
        assert_eq!(client.answer().await.status, 200);
        client.send(&[head, &github(b"{\"hidden\":1}")].concat()).await;
        assert!(is_refused(&mut client).await, "{}", head.escape_ascii());
    }
    assert_eq!(upstream.seen().len(), heads.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_heads_with_one_meaning_are_understood() {
    // Strictness that refuses what the grammar allows loses a provider's events.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "replay: off")).await;
    let genuine = String::from_utf8(github(b"{}")).unwrap();
    let line = |line: &str| genuine.replacen("Content-Type", &format!("{line}\r\nContent-Type"), 1);
    let heads = [
        genuine.replace("Content-Length: ", "Content-Length:"),
        genuine.replace("Content-Length: 2", "Content-Length: \t 2 \t"),
        genuine.replace("Content-Length: 2", "CONTENT-LENGTH: 0002"),
        genuine.replace("gateway.test", "gateway.test:8443"),
        genuine.replace("gateway.test", "[2001:db8::1]:8443"),
        genuine.replace("gateway.test", "192.0.2.1"),
        genuine.replace("gateway.test", "a_b-c.x--y.test."),
        genuine.replace("HTTP/1.1\r\nHost: gateway.test\r\n", "HTTP/1.0\r\n"),
        genuine.replace("HTTP/1.1", "HTTP/1.0"),
        genuine.replace("/github HTTP", "/github?a=1&b[]=%20{x}|y`z^\\ HTTP"),
        line("X-Empty:"),
        line("X-Tab: a\tb"),
        line("X-Latin: \u{e4}"),
        line("!#$%&'*+-.^_`|~9: token"),
        line(&["X-Many: 1"; 95].join("\r\n")),
        line(&format!("X-Long: {}", "x".repeat(20_000))),
    ];
    for head in &heads {
        assert_eq!(request(gateway.address, head.as_bytes()).await.status, 200, "{head}");
    }
    assert_eq!(upstream.seen().len(), heads.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_arrive_byte_by_byte() {
    // Packets are cut anywhere; a provider on a bad line must not be refused for it.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let mut client = Client::connect(gateway.address).await;
    for byte in github(b"{\"slow\":1}") {
        client.send(&[byte]).await;
    }
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(upstream.seen()[0].body, b"{\"slow\":1}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_leaves_in_the_middle_of_a_head_leaves_nothing() {
    // A port scanner must not fill the log, nor a half head become a request.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream).await;
    let genuine = github(b"{}");
    let end = genuine.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    for cut in (0..end).step_by(7) {
        let mut client = Client::connect(gateway.address).await;
        client.send(&genuine[..cut]).await;
        client.finish_sending().await;
        assert!(client.ends_in_order().await, "{cut}");
    }
    assert_eq!(gateway.lines(0).await, Vec::<serde_json::Value>::new());
}
