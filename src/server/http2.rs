//! Connections that speak HTTP/2, and the requests on them.
//!
//! The h2 crate takes the frames apart, and Pingora makes a session of each request and refuses what has no meaning. Who
//! serves it is decided here, as it is for HTTP/1: the guard, on a task no larger than a webhook needs, or Pingora's proxy.
//! Pingora's own loop knows no bound on requests, hides what it refuses, leaves without a word, and puts the whole proxy
//! around each request, a fifth of what that takes in user space.

use std::future::{Future, pending, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, GetSocketDigest, Ssl, Stream};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Semaphore;

use super::connection::Connection;
use super::frames::{Frames, Reading};
use super::ingress::{Ingress, IngressSettings};
use super::tally::Tally;
use super::turnstile::Turn;
use crate::clock::{Alarm, Moment, within};
use crate::gateway::{Active, Guard, Request, Rules, Trail, host, is_flood, refused_below, target};
use crate::observe::metrics::Turned;

/// What pieces of bodies that arrive faster than they are read may cost one connection beyond their bytes. The default
/// ends the connection of a sender that fills the window of 64 KiB in pieces of 100 bytes.
const PIECES_COST_MAX: usize = 256 * 1024;

/// Requests of one connection at a time. Each may hold a body of the route's size, within the memory of all.
const STREAMS_MAX: u32 = 100;

/// Body that one connection may send ahead of what was read, over all of its requests.
const WINDOW_BYTES: u32 = 64 * 1024;

/// Answer that waits for a client that reads slowly, for each request. The default of 400 KiB would make 40 MiB of a
/// connection that opens its windows and reads nothing.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// Requests that a client may cancel before they are looked at; then the connection ends (CVE-2023-44487).
const CANCELLED_MAX: usize = 20;

/// Requests that a client may make the gateway reset by breaking rules; then the connection ends (CVE-2025-8671).
const BROKEN_MAX: usize = 100;

/// Requests without a meaning of which one connection gets to hear; then it ends, unless it is a proxy's, which carries
/// what many send.
const MEANINGLESS_MAX: u32 = 32;

/// How long requests that were under way may take once the connection was told to end.
const LAST_REQUESTS: Duration = Duration::from_secs(120);

/// Longest wait for a client to take the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The bounds of HTTP/2, and for heads that of HTTP/1.
pub(super) fn options(ingress: IngressSettings) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(ingress.head_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buffer_size(UNSENT_BYTES_MAX)
        .max_pending_accept_reset_streams(CANCELLED_MAX)
        .max_local_error_reset_streams(Some(BROKEN_MAX))
        .data_frame_budget(PIECES_COST_MAX);
    options
}

impl Ingress {
    /// Serves a connection that speaks HTTP/2 to its end.
    pub(super) async fn serve_http2(&self, mut connection: Box<Connection>, mut stopping: ShutdownWatch) {
        let client = connection.client().ip().to_canonical();
        let reading = Arc::default();
        let is_proxy = self.guard.rules().trusts(client);
        connection.count(Frames::new(self.guard.shared().clock(), &reading, is_proxy));
        let digest = Digest {
            ssl_digest: connection.get_ssl_digest(),
            socket_digest: connection.get_socket_digest(),
            ..Digest::default()
        };
        let shaken = within(
            self.settings.head_timeout,
            handshake(connection, Some(self.http2.clone())),
        );
        let Ok(Ok(h2)) = shaken.await else { return };
        let mut streams = Streams {
            ingress: self,
            h2,
            digest: Arc::new(digest),
            client,
            is_proxy,
            reading,
            turns: u32::MAX,
            line: Arc::new(Semaphore::new(1)),
            in_line: None,
            left: self.settings.requests_max,
            meaningless: 0,
            under_way: Arc::default(),
            alarm: Alarm::default(),
            stopping: stopping.clone(),
        };
        let IngressSettings {
            head_timeout,
            idle_timeout,
            ..
        } = self.settings;
        let stop = pin!(async move { drop(stopping.wait_for(|stopping| *stopping).await) });
        let end = match streams.serve(stop, idle_timeout).await {
            end @ (End::Closed | End::Flood) => end,
            // What is under way is finished, and so is what the client sent before it heard of the end.
            end => {
                streams.left = 0;
                streams.h2.graceful_shutdown();
                let finished = async { streams.serve(pin!(pending()), head_timeout).await };
                match end {
                    // The end of the process has a deadline of its own.
                    End::Stop => finished.await,
                    // Not every client heeds a farewell.
                    _ => {
                        let finished = pingora_timeout::timeout(LAST_REQUESTS, finished).await;
                        finished.unwrap_or(End::Last)
                    }
                }
            }
        };
        streams.leave(end).await;
    }
}

/// Why no more requests are taken from a connection.
enum End {
    /// It is over already.
    Closed,
    /// The process ends.
    Stop,
    /// It has carried its last request.
    Last,
    /// It carried none for too long.
    Idle,
    /// It costs more than it carries.
    Flood,
}

/// A connection of HTTP/2.
struct Streams<'a> {
    ingress: &'a Ingress,
    h2: h2::server::Connection<Stream, Bytes>,
    /// What Pingora's sessions know of the connection.
    digest: Arc<Digest>,
    client: IpAddr,
    is_proxy: bool,
    reading: Arc<Reading>,
    /// The turns of reading that there had been when the last request came.
    turns: u32,
    /// Whoever of its requests waits for a turn has this.
    line: Arc<Semaphore>,
    /// While something waits for its turn to be read: it may be a request, for which a drain has to wait.
    in_line: Option<Active>,
    /// Requests that may still come.
    left: u32,
    /// Those that came without a meaning.
    meaningless: u32,
    under_way: Arc<Tally>,
    alarm: Alarm,
    stopping: ShutdownWatch,
}

impl Streams<'_> {
    /// Begins whatever requests come, until that is over, `stop` resolves, or there is none for as long as `patience`.
    async fn serve(&mut self, mut stop: Pin<&mut (impl Future<Output = ()> + Send)>, patience: Duration) -> End {
        loop {
            let idle = async {
                poll_fn(|context| self.under_way.poll_none(context)).await;
                drop(self.alarm.within(patience, pending::<()>()).await);
            };
            // Drives the whole connection.
            let accept = async {
                let mut accept = pin!(HttpSession::from_h2_conn(&mut self.h2, Arc::clone(&self.digest)));
                poll_fn(|context| {
                    let accepted = accept.as_mut().poll(context);
                    // Requests that came with a flood are not begun: they would cost more than the frames.
                    if self.reading.is_flood() {
                        return Poll::Ready(None);
                    }
                    if !self.reading.is_in_line() {
                        self.in_line = None;
                    } else if self.in_line.is_none() {
                        self.in_line = Some(self.ingress.guard.shared().enter());
                    }
                    accepted.map(Some)
                })
                .await
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return End::Stop,
                accepted = accept => accepted,
                () = idle => {
                    // Who is in line has sent something.
                    match self.reading.is_in_line() {
                        true => continue,
                        false => return End::Idle,
                    }
                }
            };
            let Some(accepted) = accepted else { return End::Flood };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    self.begin(session);
                    // A few more may come before the client has heard of the end.
                    let left = self.left.saturating_sub(1);
                    if std::mem::replace(&mut self.left, left) == 1 {
                        return End::Last;
                    }
                }
                Ok(Some(H2Accept::Rejected)) => {
                    self.meaningless = self.meaningless.saturating_add(1);
                    refused_below(self.client, self.ingress.guard.shared());
                    if self.meaningless >= MEANINGLESS_MAX && !self.is_proxy {
                        return End::Flood;
                    }
                }
                Ok(None) => return End::Closed,
                Err(problem) => {
                    log::debug!("{}: a connection of HTTP/2 broke: {problem}", self.client);
                    if is_flood(&problem) {
                        self.count_flood();
                    }
                    return End::Closed;
                }
            }
        }
    }

    /// Has a request served, beside the others of the connection. It is active from here to the end of its answer.
    fn begin(&mut self, session: HttpSession) {
        let ingress = self.ingress;
        // A turn is for one request: under strain those that came with it wait for their own, one after the other, so that
        // nobody has more turns for having more requests.
        let turns = self.reading.turns();
        let is_first = std::mem::replace(&mut self.turns, turns) != turns;
        let turn = (!is_first)
            .then(|| Turn::new(&ingress.turnstile))
            .filter(Turn::is_needed)
            .map(|turn| (turn, self.reading.waits()));
        let (guard, proxy) = (Arc::clone(&ingress.guard), Arc::clone(&ingress.proxy));
        let holds = (guard.shared().enter(), self.under_way.enter());
        let started = guard.shared().clock().moment();
        let (line, stopping) = (Arc::clone(&self.line), self.stopping.clone());
        tokio::spawn(async move {
            if let Some((mut turn, waits)) = turn {
                let _first = line.acquire().await;
                poll_fn(|context| turn.poll(context)).await;
                drop(waits);
            }
            let rules = guard.rules();
            let head = session.req_header();
            // Pingora would refuse CONNECT, in silence.
            if head.method == Method::CONNECT || rules.handles(host(head), target(head)) {
                serve_webhook(guard, rules, session, started).await;
            } else {
                proxy
                    .process_new_http(ServerSession::new_http2(session), &stopping)
                    .await;
            }
            drop(holds);
        });
    }

    fn count_flood(&self) {
        let metrics = self.ingress.guard.shared().metrics();
        metrics.connection_turned_away(Turned::Flood);
    }

    /// Tells the client why the connection ends.
    async fn leave(mut self, end: End) {
        let reason = match end {
            End::Closed => return,
            End::Stop | End::Last | End::Idle => h2::Reason::NO_ERROR,
            End::Flood => {
                self.count_flood();
                h2::Reason::ENHANCE_YOUR_CALM
            }
        };
        self.h2.abrupt_shutdown(reason);
        // Who is gone already, or reads nothing, misses nothing.
        let told = poll_fn(|context| self.h2.poll_closed(context));
        drop(within(FAREWELL, told).await);
    }
}

/// Lets the guard handle a webhook.
async fn serve_webhook(guard: Arc<Guard>, rules: Arc<Rules>, session: HttpSession, started: Moment) {
    let mut trail = Trail::since(started);
    let request = Request::of_parts(session.req_header());
    let mut session = ServerSession::new_http2(session);
    guard.handle(&rules, &request, &mut session, &mut trail).await;
    trail.close(guard.shared(), Some(&request));
    // Who is gone already misses nothing.
    drop(session.finish().await);
}
