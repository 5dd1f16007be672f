//! The only place that writes a response, and that decides what becomes of the connection.
//!
//! A refusal before the end of the body is the moment in which smuggling happens: what is left of the body must
//! never be read as the next request. It is either read away, when its length is known and small, or the connection
//! is closed, after reading on for a moment so that the sender sees the status and not a reset.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::admit::Place;
use super::exchange::{AnswerHead, Exchange, Gone, Length};
use super::head::Request;
use super::refusal::{Connection, Reason, Refusal};
use super::trail::{Trail, Written};
use super::{Route, Rules, Shared};
use crate::http1::Framing;
use crate::providers::HandshakeReply;
use crate::queue::Receipt;
use crate::upstream::{Answer, SendError, is_hop_by_hop};

/// A body with this much or less to come is read away and the connection kept.
const DRAIN_BYTES_MAX: u64 = 256 * 1024;

/// Before closing, this much more is read at most, for at most this long. More than the largest events there are
/// (GitHub: 25 MB): most senders read the status only when they have sent everything.
const LINGER_BYTES_MAX: usize = 32 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// A response of the gateway's own.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// "Taken", which nobody is told without the queue's word for it.
    pub(crate) fn taken(_: &Receipt) -> Self {
        Reply::bare(super::rules::QUEUED_STATUS)
    }

    /// A status and nothing else.
    pub(crate) fn bare(status: u16) -> Self {
        Reply {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }
}

impl From<HandshakeReply> for Reply {
    fn from(answer: HandshakeReply) -> Self {
        Reply {
            status: answer.status,
            content_type: answer.content_type,
            headers: answer.headers,
            body: answer.body,
        }
    }
}

/// Writes a refusal. `route` is the one that refused, if it was found already.
pub(crate) async fn refusal(
    exchange: &mut impl Exchange,
    request: &Request,
    refusal: Refusal,
    route: Option<&Route>,
    rules: &Rules,
) -> Written {
    let row = refusal.reason.row();
    let finishes = row.connection == Connection::Keep && keeps(exchange, request);
    let mut extra = Vec::new();
    if refusal.reason == Reason::Method {
        let methods = route.map_or(&[][..], |route| &route.methods);
        let methods: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
        extra.push((header::ALLOW, methods.join(", ")));
    }
    if let Some(wait) = refusal.retry_after {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
        let seconds = exchange.later(Duration::from_secs(seconds)).as_secs();
        extra.push((header::RETRY_AFTER, seconds.to_string()));
        let rate = match refusal.reason {
            Reason::ClientRate => Some(rules.client_rate()),
            Reason::RouteRate => route.map(|route| route.rate),
            _ => None,
        };
        // draft-ietf-httpapi-ratelimit-headers: the budget, and what is left of it.
        if let Some(rate) = rate {
            let name = refusal.reason.word();
            let policy = format!("\"{name}\";q={};w={}", rate.count, rate.per.as_secs().max(1));
            extra.push((HeaderName::from_static("ratelimit-policy"), policy));
            extra.push((
                HeaderName::from_static("ratelimit"),
                format!("\"{name}\";r=0;t={seconds}"),
            ));
        }
    }
    if !finishes {
        exchange.close();
    }
    let body = match refusal.reason.stage() {
        // The same bytes for every failure.
        "verify" => Bytes::from_static(b"unauthorized\n"),
        _ => Bytes::from(format!("{}\n", refusal.reason.word())),
    };
    let reply = Reply {
        status: row.status,
        content_type: "text/plain; charset=utf-8",
        headers: Vec::new(),
        body,
    };
    let written = write(exchange, request, &reply, &extra).await;
    if !finishes {
        linger(exchange).await;
    }
    written
}

/// Writes a response of our own that is no refusal.
pub(crate) async fn reply(exchange: &mut impl Exchange, request: &Request, reply: &Reply) -> Written {
    write(exchange, request, reply, &[]).await
}

/// Refuses a request whose head is not worth an HTTP session: broken, too large or too slow. Closes the connection
/// afterwards, nothing behind the head is looked at.
pub(crate) async fn refuse_raw(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    peer: IpAddr,
    reason: Reason,
    mut trail: Trail,
    shared: &Shared,
) {
    trail.client(peer);
    let status = StatusCode::from_u16(reason.row().status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = format!("{}\n", reason.word());
    let response = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    );
    let exchange = async {
        stream.write_all(response.as_bytes()).await?;
        stream.flush().await?;
        // Half-closed and read on for a moment, so that the sender gets the status and not a reset.
        AsyncWriteExt::shutdown(stream).await?;
        let mut sink = [0; 4096];
        let mut bytes = 0_usize;
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut sink).await? {
                0 => break,
                read => bytes = bytes.saturating_add(read),
            }
        }
        std::io::Result::Ok(())
    };
    let written = pingora_timeout::timeout(LINGER, exchange).await;
    let complete = !matches!(written, Ok(Err(_)));
    let bytes = if complete { body.len() as u64 } else { 0 };
    trail.refused(reason, Written { bytes, complete });
    trail.close(shared, None);
}

/// Notes a request of HTTP/2 that had no meaning, and was reset or answered where nobody sees it.
pub(crate) fn refused_below(peer: IpAddr, shared: &Shared) {
    let mut trail = Trail::new(&shared.clock);
    trail.client(peer);
    trail.refused(Reason::BadFraming, Written::nothing());
    trail.close(shared, None);
}

async fn write(
    exchange: &mut impl Exchange,
    request: &Request,
    reply: &Reply,
    extra: &[(HeaderName, String)],
) -> Written {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // RFC 9110 section 8.6: an answer that cannot have a body has no length, not even zero.
    let bodiless = status == StatusCode::NO_CONTENT;
    let length = match bodiless {
        true => Length::Unsaid,
        false => Length::Known(reply.body.len() as u64),
    };
    let mut head = AnswerHead::new(status, length);
    if !bodiless {
        head.add(b"content-type", reply.content_type.as_bytes());
    }
    head.add(b"x-content-type-options", b"nosniff");
    head.add(b"cache-control", b"no-store");
    for (name, value) in &reply.headers {
        head.add(name.as_str().as_bytes(), value.as_bytes());
    }
    for (name, value) in extra {
        head.add(name.as_str().as_bytes(), value.as_bytes());
    }
    if exchange.begin(head).await.is_err() {
        return Written::nothing();
    }
    let body = match request.is_head() {
        true => Bytes::new(),
        false => reply.body.clone(),
    };
    let bytes = body.len() as u64;
    let complete = exchange.send(body, true).await.is_ok();
    Written { bytes, complete }
}

/// Whether the rest of the body is read away so that the connection can serve the next request.
fn keeps(exchange: &mut impl Exchange, request: &Request) -> bool {
    if exchange.closes() {
        return false;
    }
    if exchange.is_body_done() {
        return true;
    }
    let small = request.declared_length().is_some_and(|bytes| bytes <= DRAIN_BYTES_MAX);
    // Who waits for an invitation will not send the body, now that there is a final answer.
    if !small || request.expects_continue() {
        return false;
    }
    exchange.drain(LINGER);
    true
}

/// Reads on for a moment after a final answer, so that closing does not destroy the answer on its way (a close
/// with unread bytes is a reset). The connection was announced as closing; our half is closed at once, so that a
/// sender with nothing left to send does not wait for the end of the moment.
async fn linger(exchange: &mut impl Exchange) {
    exchange.close();
    exchange.half_close().await;
    let read_on = async {
        let mut bytes = 0_usize;
        while let Ok(Some(piece)) = exchange.piece().await {
            bytes = bytes.saturating_add(piece.len());
            if bytes > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    let _ = pingora_timeout::timeout(LINGER, read_on).await;
}

/// Streams the upstream's answer to the sender. `place` is given back when the upstream has said its last, before the
/// sender hears it: whoever has the answer finds the place free.
///
/// # Errors
/// The upstream broke off or took too long after the head was sent on; the connection is cut so that the sender
/// cannot take the part for the whole.
pub(crate) async fn answer(
    exchange: &mut impl Exchange,
    request: &Request,
    mut answer: Answer,
    mut place: Option<Place>,
) -> (Written, Result<(), SendError>) {
    let head = answer_head(request, &answer);
    let length = head.length;
    if exchange.begin(head).await.is_err() {
        return (Written::nothing(), Ok(()));
    }
    let mut bytes = 0_u64;
    let is_last = |bytes: u64| bytes > 0 && length == Length::Known(bytes);
    let delivered = loop {
        let piece = match next(exchange, &mut answer).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => {
                place = None;
                break is_last(bytes) || exchange.send(Bytes::new(), true).await.is_ok();
            }
            // Whether it arrives is the sender's affair: no problem of the upstream's.
            Err(Gone) => break false,
            Ok(Err(problem)) => {
                exchange.close();
                exchange.cut().await;
                let complete = false;
                return (Written { bytes, complete }, Err(problem));
            }
        };
        bytes = bytes.saturating_add(piece.len() as u64);
        if answer.is_whole() {
            place = None;
        }
        // The last piece of a known length goes out with the end, in one write.
        if exchange.send(piece, is_last(bytes)).await.is_err() {
            break false;
        }
    };
    drop(place);
    answer.finish().await;
    let complete = delivered;
    (Written { bytes, complete }, Ok(()))
}

/// The next piece of the answer. What was held back to leave together with it goes out first when it has to be waited
/// for.
async fn next(exchange: &mut impl Exchange, answer: &mut Answer) -> Result<Result<Option<Bytes>, SendError>, Gone> {
    match answer.at_hand() {
        Ok(None) if !answer.is_whole() => {
            exchange.flush().await?;
            Ok(answer.chunk().await)
        }
        at_hand => Ok(at_hand),
    }
}

/// The head to send on.
fn answer_head(request: &Request, answer: &Answer) -> AnswerHead {
    let status = answer.status();
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || request.is_head();
    let mut said = None;
    let mut head = AnswerHead::new(status, Length::Unsaid);
    let nominated: Vec<&[u8]> = answer
        .head()
        .fields()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
        .flat_map(|(_, value)| value.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    for (name, value) in answer.head().fields() {
        if name.eq_ignore_ascii_case(b"content-length") {
            // Several equal ones were reconciled by the reader; one is sent on.
            said = said.or_else(|| length(value));
        } else if !is_hop_by_hop(name) && !nominated.iter().any(|listed| listed.eq_ignore_ascii_case(name)) {
            head.add(name, value);
        }
    }
    head.length = match answer.head().framing {
        // RFC 9110 section 8.6: never in a 204, whatever the upstream says.
        _ if status == StatusCode::NO_CONTENT => Length::Unsaid,
        _ if bodiless => said.map_or(Length::Unsaid, Length::Known),
        Framing::Length(length) => Length::Known(length),
        Framing::Bodiless => Length::Known(0),
        Framing::Chunked | Framing::Close => Length::Unknown,
    };
    head
}

fn length(value: &[u8]) -> Option<u64> {
    let first = value.split(|b| *b == b',').next()?.trim_ascii();
    std::str::from_utf8(first).ok()?.parse().ok()
}
