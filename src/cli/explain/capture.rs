//! A captured request, from whatever is at hand: a raw HTTP file, an entry of a HAR, or the pieces on a command line.
//!
//! Reading is lenient where the capture may have been spoilt on its way here (line ends of the head, header names that
//! are none) and exact where it matters: the body is taken byte for byte.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Deserialize;

/// Where the request comes from.
#[derive(Args)]
pub(super) struct CaptureArgs {
    /// A raw HTTP request (request line, headers, empty line, body), or a HAR; `-` for standard input
    #[arg(value_name = "FILE", conflicts_with_all = ["url", "header", "body"])]
    capture: Option<PathBuf>,
    /// Which request of a HAR, counted from 1
    #[arg(long, default_value_t = 1, value_name = "N")]
    entry: usize,
    /// Without a file: where the request was sent, or its path
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Without a file: its method
    #[arg(long, short = 'X', default_value = "POST", value_name = "METHOD")]
    method: Method,
    /// Without a file: a header, as curl takes them; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Without a file: the body, byte for byte; `-` for standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

/// A request as somebody kept it.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl CaptureArgs {
    pub(super) fn read(&self) -> anyhow::Result<Capture> {
        let Some(path) = &self.capture else {
            return self.of_pieces();
        };
        let bytes = super::super::sign::read(path)?;
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => from_har(&bytes, self.entry),
            _ => from_raw(&bytes),
        }
        .with_context(|| format!("cannot read a request from {}", path.display()))
    }

    fn of_pieces(&self) -> anyhow::Result<Capture> {
        if self.header.is_empty() && self.body.is_none() && self.url.is_none() {
            bail!("needs a captured request: a FILE, or --header and --body");
        }
        let body = self.body.as_deref().map_or(Ok(Vec::new()), super::super::sign::read)?;
        let mut headers = HeaderMap::new();
        for line in &self.header {
            let (name, value) = line.split_once(':').with_context(|| format!("{line:?} is no header"))?;
            keep(&mut headers, name, value.as_bytes());
        }
        let target = target_of(self.url.as_deref().unwrap_or("/"), &mut headers)?;
        Ok(Capture {
            method: self.method.clone(),
            target,
            headers,
            body,
        })
    }
}

/// A request line, headers, an empty line, and all of the rest as the body.
fn from_raw(bytes: &[u8]) -> anyhow::Result<Capture> {
    let (head, body) = split_head(bytes).context("there is no empty line behind a head")?;
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok())
        .unwrap_or_default();
    let mut words = first.split_ascii_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        bail!("it does not begin with a request line such as POST /webhooks/github HTTP/1.1");
    };
    if !version.starts_with("HTTP/") {
        bail!("it does not begin with a request line such as POST /webhooks/github HTTP/1.1");
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        if let (Some(name), Some(value)) = (halves.next(), halves.next()) {
            keep(&mut headers, &String::from_utf8_lossy(name), value);
        }
    }
    let target = target_of(target, &mut headers)?;
    let chunked = headers.get(http::header::TRANSFER_ENCODING).is_some();
    Ok(Capture {
        method: method.parse().context("the method")?,
        target,
        body: chunked.then(|| joined(body)).flatten().unwrap_or_else(|| body.to_vec()),
        headers,
    })
}

fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = |pattern: &[u8]| memchr::memmem::find(bytes, pattern).map(|at| (at, at.saturating_add(pattern.len())));
    let (end, body) = match (at(b"\r\n\r\n"), at(b"\n\n")) {
        (Some(crlf), Some(lf)) => crlf.min(lf),
        (one, other) => one.or(other)?,
    };
    Some((bytes.get(..end)?, bytes.get(body..)?))
}

/// The body that chunks carry; `None` when these are not chunks, because the tool that captured them joined them.
fn joined(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = rest.get(end.checked_add(2)?..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[derive(Deserialize)]
struct Har {
    log: HarLog,
}

#[derive(Deserialize)]
struct HarLog {
    entries: Vec<HarEntry>,
}

#[derive(Deserialize)]
struct HarEntry {
    request: HarRequest,
}

/// The parts of a HAR's request that matter (<http://www.softwareishard.com/blog/har-12-spec/>).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<HarHeader>,
    post_data: Option<HarBody>,
}

#[derive(Deserialize)]
struct HarHeader {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct HarBody {
    #[serde(default)]
    text: String,
    /// Not in the specification, but written by tools that met bytes which are no text.
    encoding: Option<String>,
}

fn from_har(bytes: &[u8], entry: usize) -> anyhow::Result<Capture> {
    let har: Har = serde_json::from_slice(bytes)
        .context("it is JSON and no HAR; if it is the body alone, give it with --body, and the headers with -H")?;
    let count = har.log.entries.len();
    let found = har.log.entries.into_iter().nth(entry.saturating_sub(1));
    let HarRequest {
        method,
        url,
        headers: listed,
        post_data,
    } = found
        .with_context(|| format!("it has {count} requests, no number {entry}"))?
        .request;
    let mut headers = HeaderMap::new();
    for header in &listed {
        keep(&mut headers, &header.name, header.value.as_bytes());
    }
    let body = match post_data {
        None => Vec::new(),
        Some(body) if body.encoding.as_deref() == Some("base64") => {
            STANDARD.decode(body.text).context("the body's base64")?
        }
        Some(body) => body.text.into_bytes(),
    };
    Ok(Capture {
        method: method.parse().context("the method")?,
        target: target_of(&url, &mut headers)?,
        headers,
        body,
    })
}

/// Keeps a header; pseudo-headers of HTTP/2 and names that are none are left out.
fn keep(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    let name = HeaderName::try_from(name.trim());
    let value = HeaderValue::from_bytes(value.trim_ascii());
    if let (Ok(name), Ok(value)) = (name, value) {
        headers.append(name, value);
    }
}

/// Path and query of an address; its host stands in for a Host header that is not there.
fn target_of(url: &str, headers: &mut HeaderMap) -> anyhow::Result<String> {
    let uri: Uri = url.parse().map_err(|_| anyhow!("{url:?} is no address"))?;
    if let Some(host) = uri
        .authority()
        .and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        headers.entry(http::header::HOST).or_insert(host);
    }
    Ok(uri.path_and_query().map_or("/", |target| target.as_str()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_request_keeps_its_body_byte_for_byte() {
        // A line end that the reader adds or eats would be reported as the mistake that it made itself.
        let rows: [(&[u8], &[u8]); 7] = [
            (b"POST /a HTTP/1.1\r\nA: 1\r\n\r\n{}\n", b"{}\n"),
            (b"POST /a HTTP/1.1\nA: 1\n\n{}\r\n", b"{}\r\n"),
            (b"POST /a HTTP/1.1\r\nA: 1\r\n\r\n", b""),
            (b"POST /a HTTP/1.1\r\nA: 1\r\n\r\na\n\nb", b"a\n\nb"),
            (b"POST /a HTTP/2\nA: 1\n\n\xff\0", b"\xff\0"),
            (
                b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n2\r\n{}\r\n1;x\r\n\n\r\n0\r\n\r\n",
                b"{}\n",
            ),
            (
                b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n{}",
                b"{}",
            ),
        ];
        for (raw, body) in rows {
            let capture = from_raw(raw).unwrap();
            assert_eq!((capture.target.as_str(), &*capture.body), ("/a", body), "{raw:?}");
            assert_eq!(capture.headers["a"], "1");
        }
        for bad in [
            &b""[..],
            b"POST /a HTTP/1.1\r\n",
            b"hello\n\n",
            b"POST /a b\n\n",
            b"PO(ST /a HTTP/1.1\n\n",
        ] {
            assert!(from_raw(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_har_gives_the_request_that_was_asked_for() {
        // The explanation would be of another request.
        let har = br#"{"log":{"entries":[{"request":{"method":"GET","url":"https://h.example/x"}},
            {"request":{"method":"POST","url":"https://h.example/a?b=c","headers":[{"name":":path","value":"/a"},
            {"name":"X-Sig","value":"s"}],"postData":{"text":"e30=","encoding":"base64"}}}]}}"#;
        let capture = from_har(har, 2).unwrap();
        assert_eq!(capture.target, "/a?b=c");
        assert_eq!(
            (capture.headers["host"].as_bytes(), capture.headers["x-sig"].as_bytes()),
            (&b"h.example"[..], &b"s"[..])
        );
        assert_eq!((capture.headers.len(), &*capture.body), (2, &b"{}"[..]));
        assert!(from_har(har, 3).is_err() && from_har(b"{}", 1).is_err());
        assert_eq!(from_har(har, 0).unwrap().method, Method::GET);
    }
}
