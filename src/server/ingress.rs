//! Connections from outside: the head of each request is read here, under one deadline, and judged before anything
//! else parses it.
//!
//! Pingora bounds every read but not the head as a whole, so a client that sends a byte a minute holds a connection
//! for ever; and it answers broken heads before any hook runs, unseen by logs and metrics. So the bytes of a head are
//! collected here and handed on whole, as bytes already read. While a connection is idle it owns no read buffer: all
//! connections of a thread read through one.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::connection::Connection;
use super::proxy::Gateway;
use super::session::{Body, Session};
use super::turnstile::Turnstile;
use crate::clock::{Alarm, Moment, within};
use crate::gateway::{Active, Guard, Reason, Request, Rules, Trail, frame, refuse_raw};
use crate::http1::{Broken, Chunks, READ_BYTES, poll_read_some, read_some};

/// How HTTP/2 begins, with and without TLS (RFC 9113 section 3.4). Its first part looks like a head.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bounds on connections from outside.
#[derive(Clone, Copy, Debug)]
pub struct IngressSettings {
    /// From the first byte of a head to its last; a new connection has as long again for its first byte.
    pub head_timeout: Duration,
    /// Bytes of a head.
    pub head_bytes_max: usize,
    /// How long a connection may lie idle between requests.
    pub idle_timeout: Duration,
    /// Requests of one connection; the answer to the last one says that it closes, over HTTP/2 a GOAWAY.
    pub requests_max: u32,
}

/// What is behind every listener.
pub(crate) struct Ingress {
    pub(crate) settings: IngressSettings,
    pub(super) turnstile: Arc<Turnstile>,
    pub(crate) guard: Arc<Guard>,
    /// How HTTP/2 is spoken.
    pub(super) http2: H2Options,
    pub(crate) proxy: Arc<HttpProxy<Gateway>>,
}

impl Ingress {
    /// Serves a connection to its end.
    pub(super) async fn serve(&self, mut connection: Box<Connection>, mut stopping: ShutdownWatch) {
        let mut left = self.settings.requests_max;
        let mut alarm = Alarm::default();
        while let Some((head, active)) = self.read_head(&mut connection, left, &mut alarm, &mut stopping).await {
            let Some(next) = self.serve_one(connection, head, active, left, &stopping).await else {
                return;
            };
            connection = next;
            left = left.saturating_sub(1);
            if let Some(until) = connection.patience.pause()
                && !self.guard.rules().trusts(connection.client().ip().to_canonical())
            {
                self.wait(&mut connection, until, &mut stopping).await;
            }
        }
        connection.farewell().await;
    }

    /// Leaves unread what a client sends earlier than it was told to.
    async fn wait(&self, connection: &mut Connection, until: Moment, stopping: &mut ShutdownWatch) {
        tokio::select! {
            biased;
            () = self.guard.shared().clock().sleep_until(until) => {}
            // The end of the service concerns idle connections first of all.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        let was_early = connection.has_something().await;
        connection.patience.over(was_early);
    }

    /// Serves one request; returns the connection if it lives on. The request is `active` from its first byte to the
    /// end of its answer, without a gap for a drain to slip through; over HTTP/2 each is for itself.
    async fn serve_one(
        &self,
        mut connection: Box<Connection>,
        head: Head,
        active: Active,
        left: u32,
        stopping: &ShutdownWatch,
    ) -> Option<Box<Connection>> {
        match head {
            Head::Webhook(webhook) => {
                // Boxed: an idle connection has no room for a request in it.
                let keeps = Box::pin(self.serve_webhook(&mut connection, webhook, left)).await;
                drop(active);
                if !keeps {
                    connection.farewell().await;
                }
                keeps.then_some(connection)
            }
            Head::Other { bytes, chunks } => {
                connection.judge(chunks);
                let passed = Box::pin(self.pass(connection, bytes, left, stopping)).await;
                drop(active);
                passed
            }
            Head::Http2(preface) => {
                drop(active);
                connection.unread(&preface);
                Box::pin(self.serve_http2(connection, stopping.clone())).await;
                None
            }
        }
    }

    /// Lets the guard handle a webhook; tells whether the connection lives on.
    async fn serve_webhook(&self, connection: &mut Connection, webhook: Box<Webhook>, left: u32) -> bool {
        let shared = self.guard.shared();
        let Webhook {
            request,
            body,
            unread,
            rules,
            started,
        } = *webhook;
        let mut trail = Trail::since(started);
        let mut session = Session::new(connection, shared.clock(), &request, body, unread, left <= 1);
        self.guard.handle(&rules, &request, &mut session, &mut trail).await;
        trail.close(shared, Some(&request));
        session.finish().await
    }

    /// Lets Pingora's proxy handle a request that is no webhook; returns the connection if it lives on.
    async fn pass(
        &self,
        connection: Box<Connection>,
        bytes: BytesMut,
        left: u32,
        stopping: &ShutdownWatch,
    ) -> Option<Box<Connection>> {
        let mut session = ServerSession::new_http1(connection);
        session.set_pipelined_prefix(bytes);
        if left <= 1 {
            // Reading the request sets what else there is about keeping the connection anew.
            session.set_keepalive_reuses_remaining(Some(0));
        }
        let stream = self.proxy.process_new_http(session, stopping).await?.consume().0;
        let mut connection = stream.into_any().downcast::<Connection>().ok()?;
        connection.judge(None);
        Some(connection)
    }
}

/// A head, and whatever came with it.
enum Head {
    /// For the guard.
    Webhook(Box<Webhook>),
    /// For Pingora's proxy.
    Other {
        bytes: BytesMut,
        /// How far the body was judged, if it comes in chunks.
        chunks: Option<Chunks>,
    },
    Http2(BytesMut),
}

/// A request that the rules take for a webhook.
struct Webhook {
    request: Request,
    body: Body,
    /// What was read behind the head.
    unread: Bytes,
    rules: Arc<Rules>,
    /// When its first byte arrived.
    started: Moment,
}

impl Ingress {
    /// Reads a whole head; `None` when the connection has come to its end, refused or not. `left` requests may still
    /// come; only the first one of a connection can be the beginning of HTTP/2.
    async fn read_head(
        &self,
        stream: &mut Connection,
        left: u32,
        alarm: &mut Alarm,
        stopping: &mut ShutdownWatch,
    ) -> Option<(Head, Active)> {
        let first = left == self.settings.requests_max;
        // Over TLS it has to be agreed on: Pingora takes the preface for HTTP/1 then, and nobody would judge its heads.
        let preface = first && stream.may_begin_http2();
        let mut bytes = BytesMut::new();
        let patience = match first {
            true => self.settings.head_timeout,
            false => self.settings.idle_timeout,
        };
        let mut active = None;
        let arrived = tokio::select! {
            biased;
            arrived = alarm.within(patience, self.begin(stream, &mut bytes, &mut active, true)) => arrived.ok(),
            _ = stopping.wait_for(|stopping| *stopping) => None,
        };
        let arrived = match arrived {
            Some(arrived) => arrived,
            // Whoever is in line came before his time was over, or the end of the service; and so did he of whom a thread that
            // is behind has not heard yet, which the system tells when it is asked once more.
            None => {
                tokio::task::yield_now().await;
                let begun = self.begin(stream, &mut bytes, &mut active, false);
                within(self.settings.head_timeout, begun).await.ok()?
            }
        };
        // Silence, a farewell or a broken connection: there is no request to answer.
        if !matches!(arrived, Ok(read) if read > 0) {
            return None;
        }
        let started = self.guard.shared().clock().moment();
        let active = active.unwrap_or_else(|| self.guard.shared().enter());
        let whole = self.read_rest(stream, &mut bytes, preface);
        let reason = match within(self.settings.head_timeout, whole).await {
            Ok(Ok(_)) if preface && bytes.starts_with(H2_PREFACE) => return Some((Head::Http2(bytes), active)),
            Ok(Ok(end)) => match self.judge(bytes, end, started) {
                Ok(head) => return Some((head, active)),
                Err(reason) => reason,
            },
            Ok(Err(NoHead::Refused(reason))) => reason,
            Ok(Err(NoHead::Gone)) => return None,
            Err(_) => Reason::HeadTooSlow,
        };
        let peer = stream.client().ip().to_canonical();
        // Boxed: it is rare, and holds a buffer.
        Box::pin(refuse_raw(
            stream,
            peer,
            reason,
            Trail::since(started),
            self.guard.shared(),
        ))
        .await;
        None
    }

    /// Reads what a request begins with, when its turn has come. From when it lines up it is `active`, so that a drain
    /// waits for it. Unless it `waits`, it is the end when nothing is there.
    async fn begin(
        &self,
        stream: &mut Connection,
        bytes: &mut BytesMut,
        active: &mut Option<Active>,
        waits: bool,
    ) -> io::Result<usize> {
        let mut is_let_in = false;
        poll_fn(|context| {
            if !is_let_in {
                is_let_in = stream.poll_turn(context).is_ready();
                if stream.is_in_line() {
                    active.get_or_insert_with(|| self.guard.shared().enter());
                    return Poll::Pending;
                }
            }
            if is_let_in {
                let read = poll_read_some(stream, context, bytes, READ_BYTES);
                if read.is_ready() {
                    return read;
                }
            }
            // There is nothing. Whatever comes has to line up, if others have to by then.
            (is_let_in, *active) = (false, None);
            match waits {
                true => Poll::Pending,
                false => Poll::Ready(Ok(0)),
            }
        })
        .await
    }

    /// Judges what arrived, a head up to `end` and perhaps the beginning of a body, and finds who is to handle it.
    fn judge(&self, bytes: BytesMut, end: usize, started: Moment) -> Result<Head, Reason> {
        let mut unread = bytes.freeze();
        let raw = unread.split_to(end.min(unread.len()));
        let framed = frame(&raw)?;
        let mut chunks = framed.chunked.then(Chunks::new);
        if let Some(chunks) = &mut chunks {
            chunks.read(&unread).map_err(|Broken| Reason::BadFraming)?;
        }
        let rules = self.guard.rules();
        if rules.handles(framed.host, framed.target) {
            return Ok(Head::Webhook(Box::new(Webhook {
                request: Request::of_http1(&raw, &framed)?,
                body: Body::of(&framed),
                unread,
                rules,
                started,
            })));
        }
        Ok(Head::Other {
            bytes: BytesMut::from_iter(raw.iter().chain(&unread)),
            chunks,
        })
    }

    /// Reads until the empty line, or to the end of the preface of HTTP/2 where that may be; returns where the head
    /// ends.
    async fn read_rest(&self, stream: &mut Connection, bytes: &mut BytesMut, preface: bool) -> Result<usize, NoHead> {
        let mut seen = 0;
        loop {
            // Handed on before it is whole, a preface would be waited for without a deadline.
            let begun = preface && bytes.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(bytes);
            if !begun && let Some(end) = head_end(bytes, &mut seen)? {
                return match end <= self.settings.head_bytes_max {
                    true => Ok(end),
                    false => Err(NoHead::Refused(Reason::HeadTooLarge)),
                };
            }
            if bytes.len() > self.settings.head_bytes_max {
                return Err(NoHead::Refused(Reason::HeadTooLarge));
            }
            match read_some(stream, bytes, READ_BYTES).await {
                Ok(read) if read > 0 => {}
                _ => return Err(NoHead::Gone),
            }
        }
    }
}

/// Why there is no head.
enum NoHead {
    /// The client went away in the middle.
    Gone,
    Refused(Reason),
}

/// Looks for the empty line in what arrived since the last call; `seen` remembers how far it looked. Every line end
/// must be CRLF: a head of bare LFs is refused at once rather than waited for to the deadline.
fn head_end(bytes: &[u8], seen: &mut usize) -> Result<Option<usize>, NoHead> {
    static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
    // What stands before the empty line is judged with the head; so one search is enough for a head that came at once.
    if *seen == 0
        && let Some(end) = EMPTY_LINE.find(bytes)
        && !bytes.starts_with(b"\r\n")
    {
        *seen = end.saturating_add(4);
        return Ok(Some(*seen));
    }
    while let Some(offset) = memchr::memchr(b'\n', bytes.get(*seen..).unwrap_or_default()) {
        let end = seen.saturating_add(offset);
        let before = bytes.get(..end).unwrap_or_default();
        if !before.ends_with(b"\r") {
            return Err(NoHead::Refused(Reason::BadFraming));
        }
        *seen = end.saturating_add(1);
        if before == b"\r" || before.ends_with(b"\r\n\r") {
            return Ok(Some(*seen));
        }
    }
    *seen = bytes.len();
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: &[u8], cuts: &[usize]) -> Result<Option<usize>, ()> {
        let mut seen = 0;
        for cut in cuts {
            if let Some(end) = head_end(&bytes[..*cut], &mut seen).map_err(|_| ())? {
                return Ok(Some(end));
            }
        }
        head_end(bytes, &mut seen).map_err(|_| ())
    }

    #[test]
    fn the_end_is_found_however_the_head_is_cut() {
        // A head that arrives byte by byte must end where it ends when it arrives at once.
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n";
        for cut in 0..request.len() {
            assert_eq!(find(request, &[cut]), Ok(Some(27)), "{cut}");
        }
        let all: Vec<_> = (0..request.len()).collect();
        assert_eq!(find(request, &all), Ok(Some(27)));
        assert_eq!(find(b"\r\nGET /", &[]), Ok(Some(2)));
        assert_eq!(find(b"GET / HTTP/1.1\r\nHost: a\r\n", &[]), Ok(None));
    }

    #[test]
    fn a_bare_line_feed_is_refused_at_once() {
        // Some parsers end a head there and some do not: that is where requests are smuggled.
        assert_eq!(find(b"GET / HTTP/1.1\nHost: a\n\n", &[]), Err(()));
        assert_eq!(find(b"GET / HTTP/1.1\r\nHost: a\n", &[]), Err(()));
        assert_eq!(find(b"GET / HTTP/1.1\r\nHost: a\r\n\n", &[]), Err(()));
    }
}
