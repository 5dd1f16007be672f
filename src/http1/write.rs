//! Writing several buffers in one system call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Sends `parts`, one alone in the way that costs the system less.
pub fn poll_write_parts(
    stream: &mut TcpStream,
    context: &mut Context<'_>,
    parts: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut full = parts.iter().filter(|part| !part.is_empty());
    match (full.next(), full.next()) {
        (Some(only), None) => Pin::new(stream).poll_write(context, only),
        _ => Pin::new(stream).poll_write_vectored(context, parts),
    }
}
