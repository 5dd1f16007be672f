//! The corridor: the way of every request, from its head to its response.
//!
//! ```text
//! head -> route -> admit -> body -> verify -> spend -> handshake -> replay -> dispatch -> respond
//! ```
//!
//! What a provider asks without a signature, by design, is answered between `body` and `verify`; what it asks with one
//! is answered at `handshake`.
//!
//! [`Guard::walk`] reads top to bottom; every step is a file in `gateway/` that takes plain values and returns the
//! value the next step demands: no [`Permit`](crate::event::Permit), no [`Event`]; no event, nothing goes upstream. Each early exit is a
//! [`Refusal`] or a reply. No step knows a provider by name. The configuration of a request is one [`Rules`], taken
//! at its start, so that a reload never shows a request two configurations.
//!
//! [`Shared`] is what outlives reloads (claims, buckets, counters, connections), [`Rules`] is what a reload replaces.

mod admit;
mod body;
mod confirm;
mod dispatch;
mod exchange;
mod handshake;
mod head;
mod refusal;
mod register;
mod replay;
mod respond;
mod route;
mod rules;
mod shared;
mod spend;
mod strain;
mod trail;
mod verify;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Version;
use pingora_core::protocols::http::ServerSession;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::clock::Moment;
use crate::event::{Event, Received, Sender};
use crate::observe::metrics::Outcome;
use crate::providers::Asked;
use crate::signature::Head;
use crate::upstream::{self, Answer, Upstream};
use replay::Verdict;
use respond::Reply;
use route::Found;

pub use admit::{Allow, ClientName, Networks, Rate};
pub use refusal::{Connection, Reason, Refusal, Row};
pub use register::RegisterSettings;
pub use replay::ReplayPolicy;
pub use rules::{ClientSettings, Deliver, DestinationSettings, GatewaySettings, RouteSettings, Rules};
pub use shared::Shared;
pub use trail::Trail;

use admit::Unknown;
pub(crate) use admit::{Place as Active, subscriber};
pub(crate) use exchange::{AnswerHead, Exchange, Gone, Length, Next, Unread, WRITE_TIMEOUT, certified, is_flood};
pub use head::{ProxyHeader, frame};
pub(crate) use head::{Request, host, target};
pub(crate) use respond::{refuse_raw, refused_below};
pub(crate) use route::loosest as loosest_path;
use rules::{Route, Way};
pub(crate) use strain::Strain;

/// Proves, limits, deduplicates and forwards webhooks: the corridor with its present rules.
///
/// One serves a whole process; it is shared behind an `Arc`. The gateway binary is one user of it, any other Pingora
/// proxy can be another: keep a `Guard` beside your own state and ask it first in your own `request_filter`.
pub struct Guard {
    shared: Arc<Shared>,
    rules: ArcSwap<Rules>,
    /// The task that keeps addresses fresh and closes idle connections.
    keeper: OnceLock<JoinHandle<()>>,
    /// Set once the host names of the first rules were looked up, for those who cannot do so before they serve.
    looked_up: OnceCell<()>,
}

/// How often upstreams are looked after.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Who goes on with a request that the guard has looked at.
pub(crate) enum Handled {
    /// Nobody: it was a webhook, or refused, and has been answered.
    Answered,
    /// The caller: it is no webhook, and the rules pass such requests through.
    Passthrough(Passage),
}

/// A request on its way through to the application.
pub(crate) struct Passage {
    /// Where it goes.
    pub(crate) upstream: Arc<Upstream>,
    /// Who sent it, for `x-forwarded-*`.
    pub(crate) sender: Sender,
    /// Over HTTP/2, where a client has any number of requests at once, its place among those that have proven nothing.
    _unproven: Option<Unknown>,
}

/// How the corridor ends when it does not refuse.
enum End {
    Answer(Answer),
    Reply(Outcome, Reply),
    Passthrough(Passage),
}

impl Guard {
    /// A guard over what outlives reloads, with its first rules.
    pub fn new(shared: Arc<Shared>, rules: Rules) -> Self {
        Guard {
            shared,
            rules: ArcSwap::from_pointee(rules),
            keeper: OnceLock::new(),
            looked_up: OnceCell::new(),
        }
    }

    /// For the `request_filter` of another Pingora proxy: true when the request was a webhook, or an attempt at one,
    /// and has been answered; return `Ok(true)` then. False leaves the request, untouched, to the proxy.
    ///
    /// Paths without a route are the proxy's own, whatever the rules say about a pass-through; a path that some
    /// server would take for a route's is refused, and so is a route's path under a host name that is not the route's.
    /// The first webhook waits until the host names of upstreams are looked up.
    pub async fn request_filter(self: &Arc<Self>, session: &mut ServerSession) -> bool {
        self.start_background();
        let rules = self.rules();
        if !rules.concerns(head::target(session.req_header())) {
            return false;
        }
        self.looked_up.get_or_init(|| rules.look_up()).await;
        let mut trail = Trail::new(&self.shared.clock);
        let request = Request::of_parts(session.req_header());
        let raw = session.as_http1().map(|http1| http1.get_headers_raw_bytes());
        match raw.as_deref().map(frame).transpose() {
            Ok(_) => drop(self.handle(&rules, &request, session, &mut trail).await),
            Err(reason) => self.refuse(&request, session, reason, &mut trail).await,
        }
        trail.close(&self.shared, Some(&request));
        true
    }

    /// Starts what goes on beside requests, once: the task that looks after upstreams, which ends with the guard, and
    /// the deliveries of queued events.
    pub(crate) fn start_background(self: &Arc<Self>) {
        self.keeper.get_or_init(|| {
            if let Some(worker) = &self.shared.worker {
                worker.serve(self.rules.load().destinations());
            }
            tokio::spawn(keep_upstreams(Arc::downgrade(self)))
        });
    }

    /// What outlives reloads.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The rules that the next request will see.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Puts new rules in force for all requests from here on; those on their way keep theirs.
    pub fn replace(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
        if let (Some(worker), Some(_)) = (&self.shared.worker, self.keeper.get()) {
            worker.serve(self.rules.load().destinations());
        }
    }

    /// Handles one request whose head has been read: answers it, or leaves it to the caller. `rules` are all the
    /// request ever sees.
    ///
    /// The raw head of an HTTP/1 request must have been judged by `frame` before.
    pub(crate) async fn handle(
        &self,
        rules: &Rules,
        request: &Request,
        exchange: &mut impl Exchange,
        trail: &mut Trail,
    ) -> Handled {
        let walked = tokio::select! {
            biased;
            walked = self.walk(rules, request, exchange, trail) => walked,
            () = self.shared.drain_over() => Err(Reason::Draining.into()),
        };
        if self.shared.is_draining() {
            exchange.close();
        }
        match walked {
            Ok(End::Passthrough(passage)) => return Handled::Passthrough(passage),
            Ok(End::Answer(answer)) => {
                let status = answer.status().as_u16();
                let (written, streamed) = respond::answer(exchange, request, answer, trail.take_place()).await;
                if let Err(problem) = streamed {
                    log::warn!("an answer broke off while it was passed on: {problem}");
                }
                trail.wrote(Outcome::Forwarded, status, written);
            }
            Ok(End::Reply(outcome, reply)) => {
                drop(trail.take_place());
                let written = respond::reply(exchange, request, &reply).await;
                trail.wrote(outcome, reply.status, written);
            }
            Err(mut refusal) => {
                if let Some(wait) = refusal.retry_after {
                    drop(trail.take_place());
                    self.in_turn(request, exchange).await;
                    refusal.retry_after = Some(self.shared.strain.later(wait));
                }
                let written = respond::refusal(exchange, request, refusal, trail.route(), rules).await;
                trail.refused(refusal.reason, written);
            }
        }
        Handled::Answered
    }

    /// Waits until it is the turn of one more refusal. A stream of HTTP/2 shares its window with others: what is on its way
    /// is read meanwhile.
    async fn in_turn(&self, request: &Request, exchange: &mut impl Exchange) {
        if self.shared.is_draining() {
            return;
        }
        let body = async {
            while request.version == Version::HTTP_2 && matches!(exchange.piece().await, Ok(Some(_))) {}
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = self.shared.strain.turn() => {}
            () = self.shared.drain_over() => {}
            () = body => {}
        }
    }

    /// Refuses a request that never walked the corridor, or left it for the pass-through and got no answer there. The
    /// connection ends with it.
    pub(crate) async fn refuse(
        &self,
        request: &Request,
        exchange: &mut impl Exchange,
        reason: Reason,
        trail: &mut Trail,
    ) {
        exchange.close();
        let written = respond::refusal(exchange, request, reason.into(), None, &self.rules.load()).await;
        trail.refused(reason, written);
    }

    /// The corridor.
    async fn walk(
        &self,
        rules: &Rules,
        request: &Request,
        exchange: &mut impl Exchange,
        trail: &mut Trail,
    ) -> Result<End, Refusal> {
        let shared = &*self.shared;

        // Head: who asks, and in one meaning.
        let (peer, tls) = (exchange.peer(), exchange.is_tls());
        let head = head::Head::of(request, peer, tls, rules.proxy_header(), |address| {
            rules.trusts(address)
        });
        trail.client(head.client);
        if request.version == Version::HTTP_2 {
            head::frame_h2(request)?;
        }

        // Route: for what.
        let route = match rules.find(request.host(), &request.target)? {
            Found::Passthrough(upstream) => {
                let (upstream, sender) = (Arc::clone(upstream), head.sender());
                // Each may hold half a megabyte of an answer that nobody reads.
                let counted = request.version == Version::HTTP_2;
                let enter = || shared.unproven.enter(head.client, rules.client_in_flight_max());
                return Ok(End::Passthrough(Passage {
                    upstream,
                    sender,
                    _unproven: counted.then(enter).transpose()?,
                }));
            }
            Found::Webhook(route) => route,
        };
        trail.routed(route);
        // Strangers learn no more than that they are strangers.
        route.allow.address(head.known_client())?;
        route.allow.certificate(exchange.certified())?;
        if !route.ignore_upgrade {
            head::stays_http(&request.headers)?;
        }
        let taken = handshake::takes(route, &asked(request, &[]))?;
        head::unambiguous(request, route.verifier().scheme().security_headers())?;

        // Admit: before any byte of the body.
        rules.client_limit.check(head.client)?;
        let unproven = shared.unproven.enter(head.client, rules.client_in_flight_max())?;
        route.places.has_room(route.in_flight_max, Reason::Busy)?;
        let place = shared.webhooks.take(rules.in_flight_max, Reason::Overload)?;
        trail.admitted(place, route.metrics.enter());
        let mut memory = shared.memory.hold(rules.memory_bytes_max);

        // Body, under the verifier's eyes.
        let proving = Head {
            method: &request.method,
            target: &request.target,
            headers: &request.headers,
        };
        // What arrived with the head is judged by the time at which the head was there.
        let now = shared.clock.wall();
        let mut verification = verify::Verification::begin(route, proving, now, &shared.clock);
        let bounds = route.body_bounds(rules);
        let body = body::read(exchange, request, bounds, &shared.clock, &mut memory, |piece| {
            verification.update(piece)
        })
        .await?;
        trail.received(body.len());

        // Handshake: an answer instead of an event, to questions that come unsigned by design.
        let reply = handshake::unsigned(route, &asked(request, &body), taken, now, &shared.clock).await?;
        if let Some(reply) = reply {
            trail.met(&reply.label);
            return Ok(End::Reply(Outcome::Replied, reply.into()));
        }

        // Verify: proof, or the same 401 for everybody.
        let permit = verification.permit(&body, &shared.fetcher, trail).await?;
        let facts = route.provider.facts(&request.headers, &body, Some(permit.proof()));
        trail.proven(&permit, &facts);
        drop(unproven);
        trail.placed(route.places.take(route.in_flight_max, Reason::Busy)?);

        // Spend: the provider's budget, which forgers cannot reach.
        route.spend()?;

        // Confirm: consent to a subscription, where the route gives it.
        if confirm::confirmed(route, &permit, &shared.fetcher).await? {
            return Ok(End::Reply(Outcome::Replied, Reply::bare(200)));
        }

        // Handshake: an answer instead of an event, to questions that are signed.
        if let Some(reply) = handshake::signed(route, &asked(request, &body), permit.proof(), now) {
            trail.met(&reply.label);
            return Ok(End::Reply(Outcome::Replied, reply.into()));
        }

        // Replay: claimed, or seen before.
        let hold = match replay::claim(&shared.store, &shared.clock, route, &permit, &facts).await? {
            Verdict::Repeat(status) => return Ok(End::Reply(Outcome::Duplicate, Reply::bare(status))),
            Verdict::Ours(hold) => hold,
        };

        // Dispatch: from here on it is an event.
        let event = Event::new(permit, facts, received(request, &head, route), body);
        match &route.way {
            Way::Forward(way) => {
                let answer = dispatch::forward(shared, route, way, event, hold, trail).await?;
                Ok(End::Answer(answer))
            }
            Way::Queue(way) => {
                let receipt = dispatch::enqueue(shared, route, way, event, hold).await?;
                Ok(End::Reply(Outcome::Queued, Reply::taken(&receipt)))
            }
        }
    }
}

/// The request, for who may answer it as a handshake.
fn asked<'a>(request: &'a Request, body: &'a [u8]) -> Asked<'a> {
    Asked {
        method: &request.method,
        target: &request.target,
        headers: &request.headers,
        body,
    }
}

/// The head of a proven request, as the upstream will see it.
fn received<'a>(request: &'a Request, head: &head::Head, route: &'a Route) -> Received<'a> {
    let target = &*request.target;
    // A queued event has as many paths as destinations.
    let path = match &route.way {
        Way::Forward(way) => way.path.as_deref(),
        Way::Queue(_) => None,
    };
    Received {
        method: &request.method,
        target: match path {
            Some(path) => target
                .split_once('?')
                .map_or(path.into(), |(_, query)| format!("{path}?{query}").into()),
            None => target.into(),
        },
        headers: &request.headers,
        host: request.host(),
        sender: head.sender(),
    }
}

/// Keeps upstreams in order: closes connections that are not needed, and looks host names up again, each as often
/// as its upstream asks for.
async fn keep_upstreams(guard: Weak<Guard>) {
    let mut due: HashMap<String, Moment> = HashMap::new();
    while let Some(guard) = guard.upgrade() {
        let rules = guard.rules();
        let now = guard.shared.clock.moment();
        due.retain(|name, _| rules.upstreams().iter().any(|upstream| upstream.name() == name));
        for upstream in rules.upstreams() {
            upstream.sweep();
            let next = now.plus(upstream.settings().resolve);
            let at = due.entry(upstream.name().to_owned()).or_insert(next);
            if *at <= now {
                *at = next;
                upstream::resolve(upstream).await;
            }
        }
        drop(guard);
        pingora_timeout::sleep(KEEP_EVERY).await;
    }
}
