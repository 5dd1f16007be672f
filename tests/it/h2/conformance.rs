//! Conformance with HTTP/2 as h2spec asks for it, its cases written anew: what a server must answer with an error of the
//! connection, with one of the stream, and what it must put up with. The list only grows.

use super::frames::{
    BODY, CONTINUATION, DATA, END_HEADERS, END_STREAM, End, GOAWAY, HEADERS, PADDED, RST_STREAM, SETTINGS, adding,
    block, exchange, frame, genuine, pair, request, with,
};
use crate::harness::{Gateway, Upstream, route_yaml};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;

/// What has to become of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Must {
    /// The request behind it is answered with 200.
    Go,
    /// The connection ends.
    EndConnection,
    /// The stream ends, or the connection with it; or the request is refused.
    EndStream,
}

use Must::{EndConnection, EndStream, Go};

/// Section of RFC 9113 or 7541, what it is about, the frames, what must become of them.
type Case = (&'static str, &'static str, Vec<u8>, Must);

fn all_of(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn setting_of(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn framing() -> Vec<Case> {
    let head = block(&genuine());
    let (start, rest) = head.split_at(40);
    let ok = request(&genuine());
    let whole = frame(HEADERS, END_HEADERS, 1, &head);
    let data = frame(DATA, END_STREAM, 1, BODY);
    let half = frame(HEADERS, 0, 1, start);
    let mut reserved = ok.clone();
    reserved[5] |= 0x80;
    vec![
        (
            "4.1",
            "a frame of a type nobody knows",
            all_of(&[&frame(0xff, 0xff, 0, b"x"), &ok]),
            Go,
        ),
        (
            "4.1",
            "flags nobody knows",
            all_of(&[&frame(PING, 0xfe, 0, &[0; 8]), &ok]),
            Go,
        ),
        ("4.1", "the reserved bit", reserved, Go),
        (
            "4.2",
            "a frame larger than allowed",
            all_of(&[&whole, &frame(DATA, END_STREAM, 1, &vec![0; 16_385])]),
            EndConnection,
        ),
        (
            "4.2",
            "a head larger than a frame may be",
            frame(HEADERS, END_HEADERS, 1, &vec![0; 16_385]),
            EndConnection,
        ),
        (
            "4.3",
            "a block that cannot be decoded",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 8]),
            EndConnection,
        ),
        (
            "4.3",
            "PRIORITY inside a block",
            all_of(&[
                &half,
                &frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
                &frame(CONTINUATION, END_HEADERS, 1, rest),
            ]),
            EndConnection,
        ),
        (
            "4.3",
            "the head of another stream inside a block",
            all_of(&[&half, &frame(HEADERS, END_HEADERS, 3, &head)]),
            EndConnection,
        ),
        ("5.1", "DATA on an idle stream", data.clone(), EndConnection),
        (
            "5.1",
            "RST_STREAM on an idle stream",
            frame(RST_STREAM, 0, 1, &[0; 4]),
            EndConnection,
        ),
        (
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            EndConnection,
        ),
        (
            "5.1",
            "CONTINUATION on an idle stream",
            frame(CONTINUATION, END_HEADERS, 1, &head),
            EndConnection,
        ),
        (
            "5.1.1",
            "an even stream",
            frame(HEADERS, END_HEADERS | END_STREAM, 2, &head),
            EndConnection,
        ),
        (
            "5.1.1",
            "a stream below the last one",
            all_of(&[
                &frame(HEADERS, END_HEADERS, 5, &head),
                &frame(HEADERS, END_HEADERS, 3, &head),
            ]),
            EndConnection,
        ),
        (
            "5.3.1",
            "a stream that depends on itself",
            frame(HEADERS, END_HEADERS | 0x20, 1, &[&[0, 0, 0, 1, 0][..], &head].concat()),
            EndStream,
        ),
        (
            "5.5",
            "an unknown frame inside a block",
            all_of(&[
                &half,
                &frame(0xf0, 0, 0, b"x"),
                &frame(CONTINUATION, END_HEADERS, 1, rest),
            ]),
            EndConnection,
        ),
        (
            "6.1",
            "DATA on no stream",
            all_of(&[&whole, &frame(DATA, END_STREAM, 0, BODY)]),
            EndConnection,
        ),
        (
            "6.1",
            "padding longer than DATA",
            all_of(&[&whole, &frame(DATA, END_STREAM | PADDED, 1, &[200, 1, 2])]),
            EndConnection,
        ),
        (
            "6.1",
            "padded DATA",
            all_of(&[
                &whole,
                &frame(DATA, END_STREAM | PADDED, 1, &[&[3][..], BODY, &[0; 3]].concat()),
            ]),
            Go,
        ),
        (
            "6.2",
            "a head that is followed by DATA instead of its rest",
            all_of(&[&half, &data]),
            EndConnection,
        ),
        (
            "6.2",
            "a head on no stream",
            frame(HEADERS, END_HEADERS, 0, &head),
            EndConnection,
        ),
        (
            "6.2",
            "padding longer than the head",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[255, 0, 0]),
            EndConnection,
        ),
        (
            "6.2",
            "a padded head",
            all_of(&[
                &frame(HEADERS, END_HEADERS | PADDED, 1, &[&[2][..], &head, &[0; 2]].concat()),
                &data,
            ]),
            Go,
        ),
        (
            "6.2",
            "a head with a priority",
            all_of(&[
                &frame(HEADERS, END_HEADERS | 0x20, 1, &[&[0, 0, 0, 0, 9][..], &head].concat()),
                &data,
            ]),
            Go,
        ),
        (
            "6.3",
            "PRIORITY on no stream",
            all_of(&[&frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), &ok]),
            EndConnection,
        ),
        (
            "6.3",
            "PRIORITY of four bytes",
            all_of(&[&frame(PRIORITY, 0, 1, &[0; 4]), &ok]),
            EndStream,
        ),
        (
            "6.3",
            "PRIORITY before its stream",
            all_of(&[&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), &ok]),
            Go,
        ),
        (
            "6.4",
            "RST_STREAM on no stream",
            all_of(&[&whole, &frame(RST_STREAM, 0, 0, &[0; 4])]),
            EndConnection,
        ),
        (
            "6.4",
            "RST_STREAM of three bytes",
            all_of(&[&whole, &frame(RST_STREAM, 0, 1, &[0; 3])]),
            EndConnection,
        ),
        (
            "6.5",
            "an acknowledgement with something in it",
            all_of(&[&frame(SETTINGS, ACK, 0, &[0; 6]), &ok]),
            EndConnection,
        ),
        (
            "6.5",
            "SETTINGS of a stream",
            all_of(&[&frame(SETTINGS, 0, 1, &[]), &ok]),
            EndConnection,
        ),
        (
            "6.5",
            "SETTINGS of five bytes",
            all_of(&[&frame(SETTINGS, 0, 0, &[0; 5]), &ok]),
            EndConnection,
        ),
        (
            "6.5.2",
            "ENABLE_PUSH of 2",
            all_of(&[&setting_of(2, 2), &ok]),
            EndConnection,
        ),
        (
            "6.5.2",
            "a window larger than windows are",
            all_of(&[&setting_of(4, 0x8000_0000), &ok]),
            EndConnection,
        ),
        (
            "6.5.2",
            "frames smaller than the smallest",
            all_of(&[&setting_of(5, 16_383), &ok]),
            EndConnection,
        ),
        (
            "6.5.2",
            "frames larger than the largest",
            all_of(&[&setting_of(5, 16_777_216), &ok]),
            EndConnection,
        ),
        (
            "6.5.2",
            "a setting nobody knows",
            all_of(&[&setting_of(0xff, 1), &ok]),
            Go,
        ),
        (
            "6.5.3",
            "the same setting twice",
            all_of(&[&setting_of(4, 100), &setting_of(4, 70_000), &ok]),
            Go,
        ),
        (
            "6.6",
            "PUSH_PROMISE from a client",
            all_of(&[
                &whole,
                &frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &head].concat()),
            ]),
            EndConnection,
        ),
        ("6.7", "PING", all_of(&[&frame(PING, 0, 0, &[1; 8]), &ok]), Go),
        (
            "6.7",
            "PING nobody asked for",
            all_of(&[&frame(PING, ACK, 0, &[1; 8]), &ok]),
            Go,
        ),
        (
            "6.7",
            "PING of a stream",
            all_of(&[&frame(PING, 0, 1, &[1; 8]), &ok]),
            EndConnection,
        ),
        (
            "6.7",
            "PING of six bytes",
            all_of(&[&frame(PING, 0, 0, &[1; 6]), &ok]),
            EndConnection,
        ),
        (
            "6.8",
            "GOAWAY of a stream",
            all_of(&[&frame(GOAWAY, 0, 1, &[0; 8]), &ok]),
            EndConnection,
        ),
        (
            "6.9",
            "a window that grows by nothing",
            all_of(&[&frame(WINDOW_UPDATE, 0, 0, &[0; 4]), &ok]),
            EndConnection,
        ),
        (
            "6.9",
            "a stream's window that grows by nothing",
            all_of(&[&whole, &frame(WINDOW_UPDATE, 0, 1, &[0; 4]), &data]),
            EndStream,
        ),
        (
            "6.9",
            "WINDOW_UPDATE of three bytes",
            all_of(&[&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), &ok]),
            EndConnection,
        ),
        (
            "6.9",
            "a window",
            all_of(&[&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9]), &ok]),
            Go,
        ),
        (
            "6.9.1",
            "a window beyond the largest",
            all_of(&[&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), &ok]),
            EndConnection,
        ),
        (
            "6.9.1",
            "a stream's window beyond the largest",
            all_of(&[&whole, &frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]), &data]),
            EndStream,
        ),
        (
            "6.10",
            "a block in three pieces",
            all_of(&[
                &frame(HEADERS, 0, 1, &start[..20]),
                &frame(CONTINUATION, 0, 1, &start[20..]),
                &frame(CONTINUATION, END_HEADERS, 1, rest),
                &data,
            ]),
            Go,
        ),
        (
            "6.10",
            "DATA inside a block",
            all_of(&[&half, &frame(DATA, 0, 1, b"x")]),
            EndConnection,
        ),
        (
            "6.10",
            "CONTINUATION on no stream",
            all_of(&[&half, &frame(CONTINUATION, END_HEADERS, 0, rest)]),
            EndConnection,
        ),
        (
            "6.10",
            "CONTINUATION after the end of a block",
            all_of(&[&whole, &frame(CONTINUATION, END_HEADERS, 1, rest)]),
            EndConnection,
        ),
        (
            "6.10",
            "CONTINUATION after DATA",
            all_of(&[
                &whole,
                &frame(DATA, 0, 1, BODY),
                &frame(CONTINUATION, END_HEADERS, 1, rest),
            ]),
            EndConnection,
        ),
    ]
}

fn messages() -> Vec<Case> {
    let head = block(&genuine());
    let begun = [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, 0, 1, BODY)].concat();
    let data = frame(DATA, END_STREAM, 1, BODY);
    let trailers = |name: &str, flags| frame(HEADERS, END_HEADERS | flags, 1, &block(&[pair(name, "1")]));
    let packed = |bytes: &[u8]| all_of(&[&frame(HEADERS, END_HEADERS, 1, &[bytes, &head].concat()), &data]);
    let tail = |bytes: &[u8]| all_of(&[&frame(HEADERS, END_HEADERS, 1, &[&head, bytes].concat()), &data]);
    vec![
        (
            "8.1",
            "a second head that does not end the stream",
            all_of(&[&begun, &trailers("x-a", 0)]),
            EndStream,
        ),
        ("8.1", "trailers", all_of(&[&begun, &trailers("x-a", END_STREAM)]), Go),
        // Not refused by h2 0.4; nothing behind a body is ever used.
        (
            "8.1",
            "a pseudo-header in trailers",
            all_of(&[&begun, &trailers(":path", END_STREAM)]),
            Go,
        ),
        ("8.2.1", "a name in capitals", adding("X-A", "1"), EndStream),
        ("8.2.2", "Connection", adding("connection", "keep-alive"), EndStream),
        (
            "8.2.2",
            "Transfer-Encoding",
            adding("transfer-encoding", "chunked"),
            EndStream,
        ),
        ("8.2.2", "Upgrade", adding("upgrade", "h2c"), EndStream),
        ("8.2.2", "TE that is not trailers", adding("te", "gzip"), EndStream),
        ("8.2.2", "TE", adding("te", "trailers"), Go),
        (
            "8.3",
            "an unknown pseudo-header",
            with(|fields| fields.insert(0, pair(":x", "1"))),
            EndStream,
        ),
        (
            "8.3",
            "a pseudo-header of answers",
            with(|fields| fields.insert(0, pair(":status", "200"))),
            EndStream,
        ),
        (
            "8.3",
            "a pseudo-header behind the others",
            with(|fields| {
                let late = fields.remove(0);
                fields.push(late);
            }),
            EndStream,
        ),
        ("8.3.1", "an empty path", with(|fields| fields[3].1.clear()), EndStream),
        ("8.3.1", "no method", with(|fields| drop(fields.remove(0))), EndStream),
        ("8.3.1", "no scheme", with(|fields| drop(fields.remove(1))), EndStream),
        ("8.3.1", "no path", with(|fields| drop(fields.remove(3))), EndStream),
        (
            "8.3.1",
            "two methods",
            with(|fields| fields.insert(0, pair(":method", "POST"))),
            EndStream,
        ),
        (
            "8.3.1",
            "two schemes",
            with(|fields| fields.insert(0, pair(":scheme", "http"))),
            EndStream,
        ),
        (
            "8.3.1",
            "two paths",
            with(|fields| fields.insert(0, pair(":path", "/"))),
            EndStream,
        ),
        (
            "8.1.1",
            "a length that is not that of the body",
            with(|fields| fields[6].1 = b"8".to_vec()),
            EndStream,
        ),
        (
            "8.1.1",
            "a length that is not that of the bodies",
            all_of(&[&begun, &frame(DATA, END_STREAM, 1, b"x")]),
            EndStream,
        ),
        // RFC 7541.
        (
            "H 2.3.3",
            "an index beyond the tables",
            packed(&[0xff, 0x80, 0x01]),
            EndConnection,
        ),
        ("H 6.1", "index zero", packed(&[0x80]), EndConnection),
        (
            "H 4.2",
            "a change of the table at the end of a block",
            tail(&[0x20]),
            EndConnection,
        ),
        ("H 4.2", "a change of the table", packed(&[0x20]), Go),
        (
            "H 6.3",
            "a table larger than allowed",
            packed(&[0x3f, 0xe1, 0xff, 0x03]),
            EndConnection,
        ),
        // Not counted by h2 0.4: what ends the stream is that the field stands before the pseudo-headers.
        (
            "H 5.2",
            "Huffman padding longer than seven bits",
            packed(&[0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x01, b'1']),
            EndStream,
        ),
        (
            "H 5.2",
            "Huffman padding of zeros",
            packed(&[0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0x00, 0x01, b'1']),
            EndConnection,
        ),
        (
            "H 5.2",
            "the end of string in a string",
            packed(&[0x00, 0x88, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'1']),
            EndConnection,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_is_kept() {
    // A peer that is let do what the protocol forbids finds the state nobody thought of.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "replay: off")).await;
    let cases: Vec<_> = framing().into_iter().chain(messages()).collect();
    assert!(cases.len() >= 80, "{}", cases.len());
    let mut wrong = Vec::new();
    for (section, about, frames, must) in &cases {
        let end = exchange(gateway.address, frames).await;
        let kept = match (must, &end) {
            (Go, End::Status(status)) => status == "200",
            (EndConnection, End::GoneAway(_) | End::Closed) => true,
            (EndStream, End::GoneAway(_) | End::Closed | End::Reset) => true,
            (EndStream, End::Status(status)) => status != "200",
            _ => false,
        };
        if !kept {
            wrong.push(format!("{section}, {about}: {end:?} instead of {must:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let goes = cases.iter().filter(|(.., must)| *must == Go).count();
    assert_eq!(upstream.count(), goes);
}
