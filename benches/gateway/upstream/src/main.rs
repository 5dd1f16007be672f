//! The backend behind every proxy: one thread, one epoll, reads a whole request and answers a fixed 200.
//!
//! `upstream PORT` on 127.0.0.1. It is as cheap as a backend can be, since it shares its core with the load generator. It takes
//! bodies by `Content-Length` only: a proxy that sends anything else is answered 411, which the load counts as unexpected.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::Context;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
const LENGTH_REQUIRED: &[u8] = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n";
const BACKLOG: i32 = 4096;
const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 1024;
/// A proxy whose head is longer than this is cut off.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One connection of a proxy's pool.
struct Connection {
    socket: TcpStream,
    /// The bytes of a head that has not ended yet.
    head: Vec<u8>,
    body_left_bytes: usize,
}

impl Connection {
    /// Reads once and answers each request that became complete; `false` when the connection is over.
    fn serve(&mut self, buffer: &mut [u8]) -> bool {
        match self.socket.read(buffer) {
            Ok(0) => false,
            Ok(bytes) => self.take(&buffer[..bytes]),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.body_left_bytes == 0 {
                let known_bytes = self.head.len();
                self.head.extend_from_slice(bytes);
                let Some(head_bytes) = end_of_head(&self.head) else {
                    return self.head.len() <= HEAD_BYTES_MAX;
                };
                bytes = &bytes[head_bytes - known_bytes..];
                let length = content_length(&self.head[..head_bytes]);
                self.head.clear();
                match length {
                    None => return self.socket.write_all(LENGTH_REQUIRED).is_ok(),
                    Some(0) if self.socket.write_all(OK).is_err() => return false,
                    Some(length) => self.body_left_bytes = length,
                }
                continue;
            }
            let part_bytes = self.body_left_bytes.min(bytes.len());
            self.body_left_bytes -= part_bytes;
            bytes = &bytes[part_bytes..];
            if self.body_left_bytes == 0 && self.socket.write_all(OK).is_err() {
                return false;
            }
        }
        true
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|start| start + 4)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let mut lines = str::from_utf8(head).ok()?.split("\r\n").skip(1);
    lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })
}

fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .context("usage: upstream PORT")?;
    let listener = TcpListener::bind(("127.0.0.1", port)).context("bind")?;
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;

    let mut connections = HashMap::new();
    let (mut events, mut buffer) = (Vec::with_capacity(EVENTS_MAX), vec![0; 256 * 1024]);
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    socket.set_nonblocking(true)?;
                    let id = socket.as_raw_fd() as u64;
                    epoll::add(&poll, &socket, EventData::new_u64(id), EventFlags::IN)?;
                    connections.insert(
                        id,
                        Connection {
                            socket,
                            head: Vec::new(),
                            body_left_bytes: 0,
                        },
                    );
                }
                continue;
            }
            // Dropping the connection closes its socket, which takes it off the epoll.
            if connections
                .get_mut(&id)
                .is_some_and(|connection| !connection.serve(&mut buffer))
            {
                connections.remove(&id);
            }
        }
    }
}
