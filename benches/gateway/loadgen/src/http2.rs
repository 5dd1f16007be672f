//! Just enough HTTP/2 to send what HTTP/1.1 would, and to know its answer.
//!
//! No table is used for headers, so every answer says its status in full; windows are not counted: two dozen requests of a
//! kilobyte at a time never fill them.

use crate::answer::Seen;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEAD_BYTES: usize = 9;

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// A literal that is not indexed.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        match text.len() {
            short @ 0..127 => out.push(short as u8),
            long => out.extend([127, (long - 127) as u8 | if long >= 255 { 128 } else { 0 }]),
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// What goes in front of a body of `body_bytes`: the frames that the head `text` of HTTP/1.1 says, and the head of the
/// body's frame. The first request of a connection brings its beginning.
pub(crate) fn framed(text: &[u8], stream: u32, body_bytes: usize) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("/");
    let fields: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let authority = fields
        .iter()
        .find(|(name, _)| name == "host")
        .map_or("", |(_, value)| value);
    let mut block = Vec::with_capacity(1024);
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
    ] {
        field(&mut block, name, value);
    }
    for (name, value) in fields.iter().filter(|(name, _)| name != "host") {
        field(&mut block, name, value);
    }
    let mut out = Vec::with_capacity(block.len() + 64);
    if stream == 1 {
        out.extend_from_slice(PREFACE);
        // No table for headers.
        frame(&mut out, SETTINGS, 0, 0, 6);
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
    }
    frame(&mut out, HEADERS, END_HEADERS, stream, block.len());
    out.extend_from_slice(&block);
    frame(&mut out, DATA, END_STREAM, stream, body_bytes);
    out
}

/// Takes whole frames off `bytes` until one of them ends an answer, or says that the connection ends. `begun` are the
/// streams whose answers have begun, with their status.
pub(crate) fn read(bytes: &mut Vec<u8>, begun: &mut Vec<(u32, u16)>) -> Option<Seen> {
    let (mut at, mut seen) = (0, None);
    while let (None, Some([a, b, c, kind, flags, id @ ..])) = (seen, bytes.get(at..at + FRAME_HEAD_BYTES)) {
        let end = at + FRAME_HEAD_BYTES + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(content) = bytes.get(at + FRAME_HEAD_BYTES..end) else {
            break;
        };
        at = end;
        let stream = id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        if *kind == HEADERS {
            begun.push((stream, status_of(content)));
        }
        let ends = *kind == RST_STREAM || matches!(*kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if *kind == GOAWAY {
            seen = Some(Seen::Leave);
        } else if ends {
            let answer = begun
                .iter()
                .position(|(of, _)| *of == stream)
                .map(|n| begun.swap_remove(n));
            seen = Some(Seen::Answer {
                stream: Some(stream),
                status: answer.filter(|_| *kind != RST_STREAM).map_or(0, |(_, status)| status),
                close: false,
            });
        }
    }
    bytes.drain(..at);
    seen
}

/// The status at the beginning of a block; 0 when there is none to be read.
fn status_of(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let block = match block {
        // The size of the table.
        [0x20, rest @ ..] => rest,
        block => block,
    };
    match block {
        [indexed @ 0x88..=0x8e, ..] => INDEXED[usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, length, rest @ ..] if length & 0x80 != 0 => digits(rest),
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |sum, d| sum * 10 + u16::from(*d - b'0')),
        _ => 0,
    }
}

/// Three digits in HPACK's Huffman code: five bits for 0 to 2, six for the others.
fn digits(bytes: &[u8]) -> u16 {
    let bits = bytes
        .iter()
        .take(3)
        .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = bits << (32 - 8 * bytes.len().min(3));
    let mut sum = 0;
    for _ in 0..3 {
        let (digit, width) = match left >> 27 {
            short @ 0..=2 => (short, 5),
            _ => ((left >> 26).wrapping_sub(0b01_1001) + 3, 6),
        };
        sum = sum * 10 + digit as u16;
        left <<= width;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_however_it_is_written() {
        // If this fails, refusals count as lost connections, or as events.
        assert_eq!(status_of(&[0x88, 1, 2]), 200);
        assert_eq!(status_of(&[0x20, 0x8d]), 404);
        assert_eq!(status_of(b"\x48\x03429"), 429);
        // 503 and 401: 011011 00000 011001, 011010 00000 00001.
        assert_eq!(status_of(&[0x08, 0x83, 0b0110_1100, 0b0000_1100, 0b1111_1111]), 503);
        assert_eq!(status_of(&[0x08, 0x82, 0b0110_1000, 0b0000_0001]), 401);
    }

    #[test]
    fn an_answer_ends_with_its_stream_and_what_follows_is_kept() {
        // If this fails, connections hang, or answers are counted that were not given.
        let mut wire = Vec::new();
        frame(&mut wire, SETTINGS, 0, 0, 0);
        frame(&mut wire, HEADERS, END_HEADERS, 3, 1);
        wire.push(0x88);
        frame(&mut wire, DATA, END_STREAM, 3, 2);
        wire.extend_from_slice(b"ok\0\0");
        let (mut bytes, mut begun) = (Vec::new(), Vec::new());
        let ends: Vec<_> = (0..wire.len())
            .filter(|at| {
                bytes.push(wire[*at]);
                read(&mut bytes, &mut begun) == answer(3, 200)
            })
            .collect();
        assert_eq!((ends, bytes.len(), begun), (vec![wire.len() - 3], 2, vec![]));
    }

    fn answer(stream: u32, status: u16) -> Option<Seen> {
        Some(Seen::Answer {
            stream: Some(stream),
            status,
            close: false,
        })
    }

    #[test]
    fn answers_that_come_together_are_told_apart() {
        // If this fails, an answer is counted for another's request, or one that was never given is.
        let mut wire = Vec::new();
        for stream in [5, 1, 3] {
            frame(&mut wire, HEADERS, END_HEADERS, stream, 1);
            wire.push(if stream == 5 { 0x8d } else { 0x88 });
        }
        frame(&mut wire, DATA, END_STREAM, 1, 0);
        frame(&mut wire, RST_STREAM, 0, 3, 4);
        wire.extend_from_slice(&[0; 4]);
        frame(&mut wire, GOAWAY, 0, 0, 8);
        wire.extend_from_slice(&[0; 8]);
        frame(&mut wire, DATA, END_STREAM, 5, 0);
        let mut begun = Vec::new();
        for expected in [answer(1, 200), answer(3, 0), Some(Seen::Leave), answer(5, 404), None] {
            assert_eq!(read(&mut wire, &mut begun), expected);
        }
    }
}
