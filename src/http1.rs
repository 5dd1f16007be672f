//! HTTP/1 by its bytes: the parts of the grammar that the gateway reads itself, on either side.
//!
//! Pure and without any connection. What it lets pass has one meaning for every parser that keeps to RFC 9112.

mod answer;
mod chunks;
mod head;
mod read;
mod write;

pub use answer::{AnswerHead, BadAnswer, Framing, HEAD_BYTES_MAX};
pub use chunks::{Broken, Chunks};
pub use head::{
    Framed, HEADERS_MAX, is_authority, is_framing_look_alike, is_look_alike, is_name, is_odd, is_request, is_token,
    judge,
};
pub use read::{READ_BYTES, poll_read_some, read_some};
pub use write::poll_write_parts;
