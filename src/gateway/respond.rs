//! The only place that writes a response, and that decides what becomes of the connection.
//!
//! A refusal before the end of the body is the moment in which smuggling happens: what is left of the body must
//! never be read as the next request. It is either read away, when its length is known and small, or the connection
//! is closed, after reading on for a moment so that the sender sees the status and not a reset.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_core::protocols::IO;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_http::ResponseHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::refusal::{Connection, Reason, Refusal};
use super::trail::{Trail, Written};
use super::{Route, Rules, Shared, head};
use crate::providers::HandshakeReply;
use crate::queue::Receipt;
use crate::upstream::{Answer, Nominated, SendError, is_hop_by_hop};

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
    session: &mut ServerSession,
    refusal: Refusal,
    route: Option<&Route>,
    rules: &Rules,
) -> Written {
    let row = refusal.reason.row();
    let finishes = row.connection == Connection::Keep && keeps(session);
    let mut extra = Vec::new();
    if refusal.reason == Reason::Method {
        let methods = route.map_or(&[][..], |route| &route.methods);
        let methods: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
        extra.push((header::ALLOW, methods.join(", ")));
    }
    if let Some(wait) = refusal.retry_after {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
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
        session.set_keepalive(None);
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
    let written = write(session, &reply, &extra).await;
    if !finishes {
        linger(session).await;
    }
    written
}

/// Writes a response of our own that is no refusal.
pub(crate) async fn reply(session: &mut ServerSession, reply: &Reply) -> Written {
    write(session, reply, &[]).await
}

/// Refuses a request whose head is not worth an HTTP session: broken, too large or too slow. Closes the connection
/// afterwards, nothing behind the head is looked at.
pub(crate) async fn refuse_raw(stream: &mut impl IO, reason: Reason, mut trail: Trail, shared: &Shared) {
    trail.client(stream_peer(stream));
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

fn stream_peer(stream: &impl IO) -> IpAddr {
    let digest = stream.get_socket_digest();
    let address = digest
        .as_ref()
        .and_then(|digest| digest.peer_addr()?.as_inet().copied());
    address.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip().to_canonical())
}

async fn write(session: &mut ServerSession, reply: &Reply, extra: &[(HeaderName, String)]) -> Written {
    let head = ResponseHeader::build(reply.status, Some(8)).and_then(|mut head| {
        // RFC 9110 section 8.6: an answer that cannot have a body has no length, not even zero.
        if head.status != StatusCode::NO_CONTENT {
            head.insert_header(header::CONTENT_TYPE, reply.content_type)?;
            head.insert_header(header::CONTENT_LENGTH, reply.body.len())?;
        }
        head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        for (name, value) in &reply.headers {
            head.insert_header(name, value)?;
        }
        extra
            .iter()
            .try_for_each(|(name, value)| head.insert_header(name, value))?;
        Ok(head)
    });
    let Ok(head) = head else { return Written::nothing() };
    if session.write_response_header(Box::new(head)).await.is_err() {
        return Written::nothing();
    }
    let body = match head::is_head(session.req_header()) {
        true => Bytes::new(),
        false => reply.body.clone(),
    };
    let bytes = body.len() as u64;
    let complete = session.write_response_body(body, true).await.is_ok();
    Written { bytes, complete }
}

/// Whether the rest of the body is read away so that the connection can serve the next request.
fn keeps(session: &mut ServerSession) -> bool {
    // Nor does Pingora drain a connection that ends anyway.
    let ends = |http1: &HttpSession| !http1.will_keepalive();
    if session.as_http1().is_some_and(ends) {
        return false;
    }
    if session.is_body_done() {
        return true;
    }
    let request = session.req_header();
    let small = head::declared_length(request).is_some_and(|bytes| bytes <= DRAIN_BYTES_MAX);
    // Who waits for an invitation will not send the body, now that there is a final answer.
    if !small || head::expects_continue(request) {
        return false;
    }
    // Pingora drains before it reads the next request.
    session.set_close_on_response_before_downstream_finish(false);
    session.set_total_drain_timeout(Some(LINGER));
    true
}

/// Reads on for a moment after a final answer, so that closing does not destroy the answer on its way (a close
/// with unread bytes is a reset). The connection was announced as closing; our half is closed at once, so that a
/// sender with nothing left to send does not wait for the end of the moment.
async fn linger(session: &mut ServerSession) {
    session.set_keepalive(None);
    if session.as_http1().is_some() {
        session.shutdown().await;
    }
    let read_on = async {
        let mut bytes = 0_usize;
        while let Ok(Some(piece)) = session.read_request_body().await {
            bytes = bytes.saturating_add(piece.len());
            if bytes > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    let _ = pingora_timeout::timeout(LINGER, read_on).await;
}

/// Streams the upstream's answer to the sender.
///
/// # Errors
/// The upstream broke off or took too long after the head was sent on; the connection is cut so that the sender
/// cannot take the part for the whole.
pub(crate) async fn answer(session: &mut ServerSession, mut answer: Answer) -> (Written, Result<(), SendError>) {
    let (head, length) = match answer_head(session, &answer) {
        Ok(head) => head,
        Err(problem) => return (Written::nothing(), Err(SendError::Broken(problem.to_string()))),
    };
    if session.write_response_header(Box::new(head)).await.is_err() {
        return (Written::nothing(), Ok(()));
    }
    let (mut bytes, mut delivered) = (0_u64, true);
    while delivered {
        let piece = match answer.chunk().await {
            Ok(Some(piece)) if piece.is_empty() => continue,
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(problem) => {
                session.set_keepalive(None);
                session.shutdown().await;
                let complete = false;
                return (Written { bytes, complete }, Err(problem));
            }
        };
        bytes = bytes.saturating_add(piece.len() as u64);
        // The last piece of a known length goes out with the end, in one write.
        // Whether it arrives is the sender's affair: no problem of the upstream's.
        delivered = session.write_response_body(piece, length == Some(bytes)).await.is_ok();
    }
    let ended = length == Some(bytes) && bytes > 0;
    let complete = delivered && (ended || session.write_response_body(Bytes::new(), true).await.is_ok());
    answer.finish().await;
    (Written { bytes, complete }, Ok(()))
}

/// The head to send on, and the length of the body where it is known.
fn answer_head(session: &ServerSession, answer: &Answer) -> pingora_core::Result<(ResponseHeader, Option<u64>)> {
    let status = answer.status();
    let mut head = ResponseHeader::build(status, Some(16))?;
    let mut length = None;
    let nominated = answer.headers().map(Nominated::of);
    let for_this_hop = |name| is_hop_by_hop(name) || nominated.as_ref().is_some_and(|names| names.contains(name));
    for (name, value) in answer.headers().into_iter().flatten() {
        // RFC 9110 section 8.6: never in a 204, whatever the upstream says.
        if *name == header::CONTENT_LENGTH && status != StatusCode::NO_CONTENT {
            // Several equal ones were reconciled by the reader; one is sent on.
            length = value
                .to_str()
                .ok()
                .and_then(|text| text.split(',').next()?.trim().parse().ok());
        } else if !for_this_hop(name) {
            head.append_header(name.clone(), value.clone())?;
        }
    }
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(length) = length {
        head.insert_header(header::CONTENT_LENGTH, length)?;
    } else if session.req_header().version == Version::HTTP_11 && !bodiless && !head::is_head(session.req_header()) {
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok((head, length))
}
