//! Just enough HTTP/1.1 to know when an answer is complete, what its status is, and whether the connection lives on.
//!
//! One request of HTTP/1.1 is in flight per connection, so nothing follows an answer. The systems under test are trusted to speak HTTP;
//! what cannot be read counts as an unexpected answer, never as a fast one.

use crate::http2;

/// The bytes of one answer as they arrive. Reused from answer to answer.
#[derive(Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    http2: bool,
    /// Of HTTP/2: the streams whose answers have begun, with their status.
    begun: Vec<(u32, u16)>,
}

/// What became whole of what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Answer {
        /// Of HTTP/2.
        stream: Option<u32>,
        /// 0 when there was none to be read.
        status: u16,
        close: bool,
    },
    /// No more requests are to be sent here.
    Leave,
}

impl Answer {
    /// Expects another one, of HTTP/2 or not.
    pub(crate) fn expect(&mut self, http2: bool) {
        self.http2 = http2;
        // Over HTTP/2 other frames come between answers.
        if !http2 {
            self.bytes.clear();
        }
    }

    /// Whether something may come between answers.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2
    }

    /// Takes what arrived; `Some` once there is something to be told. Of HTTP/2 there may be more, without another byte.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<Seen> {
        self.bytes.extend_from_slice(bytes);
        if self.http2 {
            return http2::read(&mut self.bytes, &mut self.begun);
        }
        let head_bytes = find(&self.bytes, b"\r\n\r\n")? + 4;
        let (head, body) = self.bytes.split_at(head_bytes);
        let complete = match field(head, "transfer-encoding") {
            // The answers of this benchmark are a few bytes long: the last chunk ends them.
            Some(_) => body.ends_with(b"0\r\n\r\n"),
            None => {
                body.len()
                    >= field(head, "content-length")
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(0)
            }
        };
        complete.then(|| Seen::Answer {
            stream: None,
            status: head
                .get(9..12)
                .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok())
                .unwrap_or(0),
            close: field(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        })
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = str::from_utf8(head).ok()?.split("\r\n").skip(1);
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_not_before() {
        // If this fails, latencies end too early or connections hang.
        let cases: [(&[u8], u16, bool); 4] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, false),
            (
                b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nConnection: close\r\n\r\n",
                401,
                true,
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                200,
                false,
            ),
            (b"what is this\r\n\r\n", 0, false),
        ];
        for (wire, status, close) in cases {
            let mut answer = Answer::default();
            let (last, before) = wire.split_last().unwrap();
            assert!(before.iter().all(|byte| answer.push(&[*byte]).is_none()));
            let stream = None;
            assert_eq!(answer.push(&[*last]), Some(Seen::Answer { stream, status, close }));
        }
    }
}
