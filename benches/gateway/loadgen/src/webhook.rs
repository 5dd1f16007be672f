//! Signed webhooks in the shape GitHub sends, each with a body of its own, made as they are sent.
//!
//! The bytes that differ stand at the *end* of the body. So the MAC over everything before them is computed once and cloned,
//! and signing costs the load generator a few compressions whatever the length, while the proxy still has to hash every byte.
//! Making bodies ahead of time instead would need hundreds of megabytes and would run out in the middle of a window.

use std::io::{self, IoSlice, Write};

use anyhow::ensure;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::http2;

const OPENING: &[u8] = br#"{"ref":"refs/heads/main","repositories":["#;
const REPOSITORY: &[u8] = br#"{"id":1296269,"node_id":"MDEwOlJlcG9zaXRvcnkxMjk2MjY5","name":"Hello-World","full_name":"octocat/Hello-World","private":false,"html_url":"https://github.com/octocat/Hello-World","description":"This your first repo!","fork":false,"size":108}"#;
const PADDING: &[u8] = br#"],"padding":""#;
const ID: &[u8] = br#"","id":""#;
/// Seed and count in hexadecimal, then the end of the JSON object.
const TAIL_BYTES: usize = 32 + 2;
const BODY_BYTES_MIN: usize = OPENING.len() + PADDING.len() + ID.len() + TAIL_BYTES;

/// What all webhooks of a run have in common, and the count that tells them apart.
pub(crate) struct Webhooks {
    head: Vec<u8>,
    filler: Vec<u8>,
    /// Has seen the filler; a clone sees the tail.
    mac: Hmac<Sha256>,
    seed: u64,
    count: u64,
    spoofs: bool,
    http2: bool,
}

/// One webhook on its way out of one connection. Reused, so that sending allocates nothing.
#[derive(Default)]
pub(crate) struct Request {
    head: Vec<u8>,
    tail: Vec<u8>,
    sent_bytes: usize,
    /// Of HTTP/2.
    stream: Option<u32>,
}

impl Request {
    /// The stream of HTTP/2 that it goes on.
    pub(crate) fn stream(&self) -> Option<u32> {
        self.stream
    }
}

impl Webhooks {
    /// # Errors
    /// When a body of this length has no room for what makes it unique.
    pub(crate) fn new(port: u16, path: &str, body_bytes: usize, seed: u64, key: &[u8]) -> anyhow::Result<Self> {
        ensure!(
            body_bytes >= BODY_BYTES_MIN,
            "a body has at least {BODY_BYTES_MIN} bytes"
        );
        let filler = filler(body_bytes - TAIL_BYTES);
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key)?.chain_update(&filler);
        let head = format!(
            "POST {path} HTTP/1.1\r\n\
             Host: 127.0.0.1:{port}\r\n\
             User-Agent: GitHub-Hookshot/044aadd\r\n\
             Content-Length: {body_bytes}\r\n\
             Accept: */*\r\n\
             Content-Type: application/json\r\n\
             X-GitHub-Event: push\r\n\
             X-GitHub-Hook-ID: 292430182\r\n\
             X-GitHub-Hook-Installation-Target-ID: 79929171\r\n\
             X-GitHub-Hook-Installation-Target-Type: repository\r\n"
        )
        .into_bytes();
        Ok(Self {
            head,
            filler,
            mac,
            seed,
            count: 0,
            spoofs: false,
            http2: false,
        })
    }

    /// Whether each webhook claims to be of another client.
    pub(crate) fn spoof(&mut self, spoofs: bool) {
        self.spoofs = spoofs;
    }

    /// Whether they are sent over HTTP/2.
    pub(crate) fn http2(&mut self, http2: bool) {
        self.http2 = http2;
    }

    /// Makes `request` the next webhook, unsent.
    pub(crate) fn write_next(&mut self, request: &mut Request) -> io::Result<()> {
        let (seed, count) = (self.seed, self.count);
        self.count += 1;
        request.sent_bytes = 0;
        request.tail.clear();
        write!(request.tail, "{seed:016x}{count:016x}\"}}")?;
        let signature = self.mac.clone().chain_update(&request.tail).finalize().into_bytes();

        request.head.clear();
        request.head.extend_from_slice(&self.head);
        write!(
            request.head,
            "X-GitHub-Delivery: {:08x}-0000-4000-8000-{:012x}\r\n",
            seed >> 32,
            count
        )?;
        if self.spoofs {
            let [a, b, c, d] = (count as u32).to_be_bytes();
            let client = format!("{}.{b}.{c}.{d}", a | 1);
            write!(
                request.head,
                "X-Forwarded-For: {client}\r\nForwarded: for={client}\r\nX-Real-IP: {client}\r\n\
                 True-Client-IP: {client}\r\nCF-Connecting-IP: {client}\r\nX-Client-IP: {client}\r\n"
            )?;
        }
        request.head.extend_from_slice(b"X-Hub-Signature-256: sha256=");
        for byte in signature {
            request
                .head
                .extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
        }
        request.head.extend_from_slice(b"\r\n\r\n");
        if self.http2 {
            let stream = request.stream.map_or(1, |last| last + 2);
            request.stream = Some(stream);
            request.head = http2::framed(&request.head, stream, self.filler.len() + request.tail.len());
        }
        Ok(())
    }

    /// Sends what the socket takes; `true` when the whole request has gone out.
    ///
    /// # Errors
    /// Those of the socket, except that one which is full is no error.
    pub(crate) fn send(&self, request: &mut Request, socket: &mut impl Write) -> io::Result<bool> {
        let whole_bytes = request.head.len() + self.filler.len() + request.tail.len();
        while request.sent_bytes < whole_bytes {
            let mut parts = [
                IoSlice::new(&request.head),
                IoSlice::new(&self.filler),
                IoSlice::new(&request.tail),
            ];
            let mut left = parts.as_mut_slice();
            IoSlice::advance_slices(&mut left, request.sent_bytes);
            match socket.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => request.sent_bytes += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// The body up to its tail: whole repositories as far as they fit, the rest padding, so that it stays JSON at any length.
fn filler(bytes: usize) -> Vec<u8> {
    let closing_bytes = PADDING.len() + ID.len();
    let mut filler = Vec::with_capacity(bytes);
    filler.extend_from_slice(OPENING);
    let mut separator: &[u8] = b"";
    while filler.len() + separator.len() + REPOSITORY.len() + closing_bytes <= bytes {
        filler.extend_from_slice(separator);
        filler.extend_from_slice(REPOSITORY);
        separator = b",";
    }
    filler.extend_from_slice(PADDING);
    filler.resize(bytes - ID.len(), b'x');
    filler.extend_from_slice(ID);
    filler
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(webhooks: &mut Webhooks) -> (String, Vec<u8>) {
        let (mut request, mut wire) = (Request::default(), Vec::new());
        webhooks.write_next(&mut request).unwrap();
        assert!(webhooks.send(&mut request, &mut wire).unwrap());
        let end = wire.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let body = wire.split_off(end);
        (String::from_utf8(wire).unwrap(), body)
    }

    #[test]
    fn every_webhook_is_genuine_and_whole() {
        // If this fails, the proxies are measured while they refuse what they should forward.
        for body_bytes in [BODY_BYTES_MIN, 400, 1024, 10_240, 102_400] {
            let mut webhooks = Webhooks::new(9110, "/hooks/gh", body_bytes, 7, b"key").unwrap();
            let (head, body) = sent(&mut webhooks);
            assert_eq!(body.len(), body_bytes);
            assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
            let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(b"key")
                .unwrap()
                .chain_update(&body);
            let expected: String = mac
                .finalize()
                .into_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert!(head.contains(&format!("X-Hub-Signature-256: sha256={expected}\r\n")));
            assert!(head.contains(&format!("Content-Length: {body_bytes}\r\n")));
        }
    }

    #[test]
    fn no_two_bodies_are_alike() {
        // If this fails, a replay guard answers repeats by itself and looks faster than it is.
        let mut seen = std::collections::HashSet::new();
        for seed in [1, 2] {
            let mut webhooks = Webhooks::new(9110, "/", 1024, seed, b"key").unwrap();
            assert!((0..1000).all(|_| seen.insert(sent(&mut webhooks).1)));
        }
    }

    #[test]
    fn a_body_without_room_for_its_id_is_refused() {
        // If this fails, short bodies repeat or underflow.
        assert!(Webhooks::new(9110, "/", BODY_BYTES_MIN - 1, 1, b"key").is_err());
    }

    #[test]
    fn a_socket_that_takes_a_few_bytes_at_a_time_gets_every_byte_once() {
        // If this fails, large bodies arrive damaged whenever a socket buffer is full.
        struct Narrow(Vec<u8>, bool);
        impl Write for Narrow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let taken = &bytes[..bytes.len().min(7)];
                self.0.extend_from_slice(taken);
                Ok(taken.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut webhooks = Webhooks::new(9110, "/", 1024, 1, b"key").unwrap();
        let (mut request, mut narrow, mut wide) = (Request::default(), Narrow(Vec::new(), false), Vec::new());
        webhooks.write_next(&mut request).unwrap();
        while !webhooks.send(&mut request, &mut narrow).unwrap() {}
        request.sent_bytes = 0;
        assert!(webhooks.send(&mut request, &mut wide).unwrap());
        assert_eq!(narrow.0, wide);
    }
}
