//! Reading what a connection has, without a buffer of its own while it has nothing.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

/// What one read takes at most.
pub const READ_BYTES: usize = 16 * 1024;

/// Reads what is there, at most `most` and [`READ_BYTES`], through one buffer for all connections of a thread; zero at
/// the end of the stream.
pub async fn read_some(stream: &mut (impl AsyncRead + Unpin), into: &mut BytesMut, most: usize) -> io::Result<usize> {
    poll_fn(|context| poll_read_some(stream, context, into, most)).await
}

/// The same, for whoever polls.
pub fn poll_read_some(
    stream: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    into: &mut BytesMut,
    most: usize,
) -> Poll<io::Result<usize>> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        let most = most.min(buffer.len());
        let mut read = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
        match Pin::new(stream).poll_read(context, &mut read) {
            Poll::Ready(Ok(())) => {
                into.extend_from_slice(read.filled());
                Poll::Ready(Ok(read.filled().len()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    })
}
