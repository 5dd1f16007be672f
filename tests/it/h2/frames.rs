//! Requests that no HTTP/2 library sends, as bytes of their own making. Each would be an event, or two, if it were
//! written out for HTTP/1 as it came.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Gateway, Upstream, route_yaml, sign_github};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

pub(super) const BODY: &[u8] = b"{\"a\":1}";

pub(super) type Field = (Vec<u8>, Vec<u8>);

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HPACK: a literal that is not indexed, without Huffman coding.
pub(super) fn field((name, value): &Field) -> Vec<u8> {
    let text = |bytes: &[u8]| {
        let length = match bytes.len() {
            short @ 0..127 => vec![short as u8],
            long => vec![127, ((long - 127) % 128) as u8 | 128, ((long - 127) / 128) as u8],
        };
        [&length[..], bytes].concat()
    };
    [&[0][..], &text(name), &text(value)].concat()
}

pub(super) fn block(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(field).collect()
}

pub(super) fn pair(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Field {
    (name.as_ref().to_vec(), value.as_ref().to_vec())
}

/// The head of a genuine event.
pub(super) fn genuine() -> Vec<Field> {
    vec![
        pair(":method", "POST"),
        pair(":scheme", "http"),
        pair(":authority", "gateway.test"),
        pair(":path", "/webhooks/github"),
        pair("x-github-event", "push"),
        pair("x-hub-signature-256", sign_github(BODY)),
        pair("content-length", BODY.len().to_string()),
    ]
}

/// A request: its head, then its body.
pub(super) fn request(fields: &[Field]) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, 1, &block(fields)),
        frame(DATA, END_STREAM, 1, BODY),
    ]
    .concat()
}

/// What became of stream 1.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    Status(String),
    Reset,
    /// With a reason.
    GoneAway(u32),
    Closed,
}

/// Sends frames on a connection of their own.
pub(super) async fn exchange(address: SocketAddr, frames: &[u8]) -> End {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, b""), frames].concat();
    let _ = stream.write_all(&bytes).await;
    let end = tokio::time::timeout(Duration::from_secs(20), end(&mut stream)).await;
    end.unwrap_or_else(|_| panic!("no end in time of {}", frames.escape_ascii()))
}

async fn end(stream: &mut TcpStream) -> End {
    loop {
        match next(stream).await {
            None => return End::Closed,
            Some((HEADERS, 1, payload)) => return End::Status(status(&payload)),
            Some((RST_STREAM, 1, _)) => return End::Reset,
            Some((GOAWAY, _, payload)) => return End::GoneAway(reason(&payload)),
            Some(_) => {}
        }
    }
}

/// The next frame: its kind, its stream and what is in it.
pub(super) async fn next(stream: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, _, on @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, u32::from_be_bytes(on), payload))
}

/// Why a connection is left, by its GOAWAY.
pub(super) fn reason(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[4..8].try_into().unwrap())
}

/// Sends frames on a connection of their own; the reason of its GOAWAY, if that comes before its end.
pub(super) async fn farewell(address: SocketAddr, frames: &[u8]) -> Option<u32> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, b""), frames].concat();
    stream.write_all(&bytes).await.unwrap();
    let told = async {
        loop {
            if let (GOAWAY, _, payload) = next(&mut stream).await? {
                return Some(reason(&payload));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .expect("no end in time")
}

/// The status at the beginning of a block, which is in the static table or written out with a name from it.
pub(super) fn status(block: &[u8]) -> String {
    match block {
        [0x88, ..] => "200".into(),
        [0x8c, ..] => "400".into(),
        [0x8d, ..] => "404".into(),
        // A literal with the name of entry 8, perhaps in Huffman code: the status is not 200, which has an entry.
        _ => "other".into(),
    }
}

pub(super) fn with(change: impl FnOnce(&mut Vec<Field>)) -> Vec<u8> {
    let mut fields = genuine();
    change(&mut fields);
    request(&fields)
}

fn setting(index: usize, value: impl AsRef<[u8]>) -> Vec<u8> {
    with(|fields| fields[index].1 = value.as_ref().to_vec())
}

pub(super) fn adding(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    with(|fields| fields.push(pair(name, value)))
}

/// Heads that mean something else, or something more, when they are written out.
fn bad_heads() -> Vec<Vec<u8>> {
    let mut heads = Vec::new();
    // Ends of lines and other controls, in every value.
    for control in [
        "\r\nx-evil: 1",
        "\n",
        "\r",
        "\0",
        "\x01",
        "\x7f",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        for index in 0..7 {
            let mut value = genuine()[index].1.clone();
            value.extend_from_slice(control.as_bytes());
            heads.push(setting(index, value));
            let value = [control.as_bytes(), &genuine()[index].1].concat();
            heads.push(setting(index, value));
        }
        heads.push(adding("x-a", control));
        heads.push(adding(format!("x-a{control}"), "1"));
    }
    for name in [
        "", " ", "X-A", "x a", "x-a ", " x-a", "x:a", "x-a:", "x\u{e4}", "x(a)", "x,a", "x\"a\"",
    ] {
        heads.push(adding(name, "1"));
    }
    // Every byte that has no place in a name or in a value.
    for byte in 0..=255_u8 {
        let of_name = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !of_name {
            heads.push(adding([b"x-".as_slice(), &[byte], b"a"].concat(), "1"));
        }
        if (byte < b' ' && byte != b'\t') || byte == 0x7f {
            heads.push(adding("x-a", [b"1", [byte].as_slice(), b"2"].concat()));
        }
    }
    // Pseudo-headers: missing, repeated, late, unknown.
    for index in [0, 1, 3] {
        heads.push(with(|fields| drop(fields.remove(index))));
    }
    for index in 0..4 {
        heads.push(with(|fields| fields.insert(0, fields[index].clone())));
        heads.push(with(|fields| fields.push(fields[index].clone())));
        heads.push(with(|fields| {
            let late = fields.remove(index);
            fields.push(late);
        }));
    }
    for name in [":status", ":evil", ":", ":host", ":Path", ":protocol"] {
        heads.push(with(|fields| fields.insert(0, pair(name, "200"))));
    }
    // Methods, paths and authorities that are more than that.
    for method in [
        "",
        " ",
        "POST ",
        "POST / HTTP/1.1",
        "P\u{d6}ST",
        "CONNECT",
        "TRACE",
        "(POST)",
    ] {
        heads.push(setting(0, method));
    }
    for path in [
        "",
        " ",
        "webhooks/github",
        "/webhooks/github HTTP/1.1",
        "/webhooks/github x",
        "/webhooks/\u{e4}",
        "/webhooks/github?\u{e4}",
        "/webhooks/github?a b",
        "http://gateway.test/webhooks/github",
        "*",
        "/webhooks/<github>",
        "/webhooks//github",
        "?",
        "/webhooks/github?\"",
    ] {
        heads.push(setting(3, path));
    }
    for authority in [
        " ",
        "a b",
        "user@gateway.test",
        "gateway.test@evil.test",
        "gateway.test/x",
        "gateway.test?x",
        "a,b",
        "a:b:c",
        "gateway.test:x",
        "[::1",
        "\u{e4}.test",
        "\"a\"",
        "<a>",
    ] {
        heads.push(setting(2, authority));
    }
    heads.push(adding("host", "evil.test"));
    heads.push(adding("host", ""));
    heads.push(with(|fields| {
        fields.extend([pair("host", "gateway.test"), pair("host", "gateway.test")])
    }));
    heads.push(with(|fields| drop(fields.remove(2))));
    heads.push(with(|fields| {
        fields.remove(2);
        fields.push(pair("host", "user@gateway.test"));
    }));
    // What belongs to a connection, and what says where a body ends.
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-hub-signature-256"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("upgrade", "websocket"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("content_length", "5"),
        ("transfer_encoding", "chunked"),
        ("content-length", "5"),
        ("content-length", "8"),
    ] {
        heads.push(adding(name, value));
    }
    for length in [
        "",
        "0",
        "6",
        "8",
        "+7",
        "-7",
        "7.0",
        "0x7",
        "7 7",
        "7,8",
        "a",
        "99999999999999999999",
        "\u{661}",
    ] {
        heads.push(setting(6, length));
    }
    heads
}

/// Frames in an order, or of a shape, that the protocol does not know.
fn bad_frames() -> Vec<Vec<u8>> {
    let head = block(&genuine());
    let (start, rest) = head.split_at(40);
    let data = frame(DATA, END_STREAM, 1, BODY);
    let whole = frame(HEADERS, END_HEADERS, 1, &head);
    let trailers = |fields: &[Field], flags| frame(HEADERS, END_HEADERS | flags, 1, &block(fields));
    let begun = [whole.clone(), frame(DATA, 0, 1, BODY)].concat();
    vec![
        // Head without body, body without head, bodies twice.
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &head),
        data.clone(),
        [data.clone(), whole.clone()].concat(),
        frame(HEADERS, END_HEADERS, 0, &head),
        frame(HEADERS, END_HEADERS, 2, &head),
        frame(DATA, END_STREAM, 0, BODY),
        [whole.clone(), frame(DATA, END_STREAM, 1, b"{\"a\":1}x")].concat(),
        [whole.clone(), frame(DATA, END_STREAM, 1, b"{\"a\":1")].concat(),
        [whole.clone(), frame(DATA, END_STREAM, 1, b"")].concat(),
        // Trailers.
        [&begun[..], &trailers(&[pair("x-a", "1\r\n")], END_STREAM)].concat(),
        [&begun[..], &trailers(&[pair("X-A", "1")], END_STREAM)].concat(),
        [&begun[..], &trailers(&[pair("x-a", "1")], 0)].concat(),
        [
            &begun[..],
            &trailers(&[pair("transfer-encoding", "chunked")], END_STREAM),
        ]
        .concat(),
        // Continuations.
        frame(CONTINUATION, END_HEADERS, 1, &head),
        [frame(HEADERS, 0, 1, start), data.clone()].concat(),
        [frame(HEADERS, 0, 1, start), frame(CONTINUATION, END_HEADERS, 3, rest)].concat(),
        [frame(HEADERS, 0, 1, start), frame(SETTINGS, 0, 0, b"")].concat(),
        [frame(HEADERS, 0, 1, start), whole.clone()].concat(),
        // Padding longer than the frame, a stream that depends on itself, fields that are cut off.
        frame(HEADERS, END_HEADERS | PADDED, 1, &[255, 0, 0]),
        [&whole[..], &frame(DATA, END_STREAM | PADDED, 1, &[200, 1, 2])].concat(),
        frame(HEADERS, END_HEADERS | 0x20, 1, &[&[0, 0, 0, 1, 0][..], &head].concat()),
        frame(HEADERS, END_HEADERS, 1, &head[..head.len() - 1]),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 8]),
        frame(HEADERS, END_HEADERS, 1, &[0xbf, 0xc0]),
        // Settings and frames that are not allowed.
        frame(SETTINGS, 0, 1, b""),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(DATA, 0, 1, &vec![0; 16_385]),
        frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &head].concat()),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_of_http_2_becomes_none_of_http_1() {
    // HTTP/2 carries bytes that HTTP/1 takes for ends of lines: written out unjudged, one stream becomes two requests.
    let upstream = Upstream::unreachable().await;
    let yaml = format!("{}passthrough: app\n", route_yaml(upstream.address, ""));
    let gateway = Gateway::start(&yaml).await;
    let cases: Vec<_> = bad_heads().into_iter().chain(bad_frames()).collect();
    assert!(cases.len() >= 400, "{} cases", cases.len());
    let mut accepted = Vec::new();
    for frames in &cases {
        if exchange(gateway.address, frames).await == End::Status("200".into()) {
            accepted.push(frames.escape_ascii().to_string());
        }
    }
    assert_eq!(accepted, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_frames_unspoilt_are_an_event() {
    // If these failed, the refusals above would prove nothing.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "replay: off")).await;
    let head = block(&genuine());
    let (start, rest) = head.split_at(40);
    let data = frame(DATA, END_STREAM, 1, BODY);
    let cases = [
        request(&genuine()),
        adding("host", "gateway.test"),
        adding("te", "trailers"),
        with(|fields| {
            fields.remove(2);
            fields.push(pair("host", "gateway.test"));
        }),
        with(|fields| drop(fields.remove(6))),
        [
            frame(HEADERS, 0, 1, start),
            frame(CONTINUATION, END_HEADERS, 1, rest),
            data.clone(),
        ]
        .concat(),
        [
            frame(HEADERS, END_HEADERS, 1, &head),
            frame(DATA, PADDED, 1, &[&[3][..], BODY, &[0; 3]].concat()),
            frame(DATA, END_STREAM, 1, b""),
        ]
        .concat(),
    ];
    for frames in &cases {
        let end = exchange(gateway.address, frames).await;
        assert_eq!(end, End::Status("200".into()), "{}", frames.escape_ascii());
    }
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.body == BODY && seen.header("host") == Some("gateway.test"))
    );
    assert_eq!(upstream.seen().len(), cases.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_may_arrive_byte_by_byte() {
    // It begins like a head of HTTP/1 and must not be taken for one, wherever a packet ends.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in [PREFACE, &frame(SETTINGS, 0, 0, b""), &request(&genuine())].concat() {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(end(&mut stream).await, End::Status("200".into()));
}
