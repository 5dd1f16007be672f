//! A request to one's own gateway, for `hookward send` and `events`: one connection, one exchange, everything shown.
//!
//! Plain HTTP only: it is for trying a gateway out from the machine it runs on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use http::{HeaderMap, Method, Uri};

const PATIENCE: Duration = Duration::from_secs(30);

/// More of an answer than this is not read: far more than the largest body in base64.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// An answer, as far as it is shown.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// Posts `body` to `url`.
pub(super) fn post(url: &str, headers: &HeaderMap, body: &[u8]) -> anyhow::Result<Answer> {
    exchange(&Method::POST, url, headers, body)
}

/// Sends one request to `url`.
pub(super) fn exchange(method: &Method, url: &str, headers: &HeaderMap, body: &[u8]) -> anyhow::Result<Answer> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no address"))?;
    if uri.scheme_str() != Some("http") {
        bail!("{url:?} must begin with http://");
    }
    let authority = uri.authority().context("the address has no host")?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((host, port)).with_context(|| format!("cannot connect to {authority}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!(
            "{name}: {}\r\n",
            value.to_str().context("a header is no text")?
        ));
    }
    head.push_str("connection: close\r\n\r\n");
    // A gateway may refuse before it has read everything; what it says is in its answer.
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let received = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    if answer.len() as u64 == ANSWER_BYTES_MAX {
        bail!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
    }
    if answer.is_empty() {
        sent.and(received.map(drop)).context("the exchange broke off")?;
    }
    parse(&answer).context("the answer is no HTTP")
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end)?).into_owned();
    let body = answer.get(end.checked_add(4)?..)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body)? } else { body.to_vec() };
    Some(Answer { status, head, body })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let start = end.checked_add(2)?;
        let stop = start.checked_add(size)?;
        body.extend_from_slice(rest.get(start..stop)?);
        if size == 0 {
            return Some(body);
        }
        rest = rest.get(stop.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end() {
        // A dead letter with a large body is left out of every export.
        let body = vec![b'x'; 5 << 20];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = [b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 16]).unwrap();
            stream.write_all(&answer).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // What the client sent is read, or closing cuts off what it has not read.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let answer = exchange(&Method::GET, &url, &HeaderMap::new(), b"").unwrap();
        server.join().unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    }
}
