//! What is known about a request while it is on its way, and the one line and the few counters it leaves behind.
//!
//! Steps note facts as they learn them; when the request has ended, [`Trail::close`] writes the access log and the
//! metrics. Nothing else does, so every request leaves exactly one line and is counted once. Facts about a message
//! are noted after proof only: before it they are whatever a stranger wrote.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;

use super::admit::Place;
use super::head::Request;
use super::refusal::Reason;
use super::{Route, Shared};
use crate::clock::{Clock, Moment};
use crate::event::Permit;
use crate::observe::Record;
use crate::observe::metrics::{InFlight, Limit, Outcome, RouteMetrics};
use crate::providers::Facts;
use crate::upstream::Tries;

/// The notes on one request.
pub struct Trail {
    started: Moment,
    outcome: Outcome,
    refused: Option<Reason>,
    status: Option<u16>,
    client: Option<IpAddr>,
    route: Option<Arc<Route>>,
    proven: Option<Proven>,
    /// The handshake that it turned out to be.
    handshake: Option<Arc<str>>,
    bytes_in: u64,
    bytes_out: u64,
    verify: Option<Duration>,
    upstream: Option<Duration>,
    tries: Tries,
    /// Held until the request has ended.
    holds: Option<(Place, InFlight)>,
    /// The place among the events of the route, from proof on.
    place: Option<Place>,
}

/// How writing a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    /// The whole response went out.
    pub(crate) complete: bool,
}

impl Written {
    /// Not a byte went out.
    pub(super) fn nothing() -> Self {
        Written {
            bytes: 0,
            complete: false,
        }
    }
}

/// What proof brought to light.
struct Proven {
    strength: &'static str,
    key_id: Arc<str>,
    facts: Facts,
}

impl Trail {
    /// A request begins.
    pub(crate) fn new(clock: &Clock) -> Self {
        Trail::since(clock.moment())
    }

    /// A request began at `started`.
    pub(crate) fn since(started: Moment) -> Self {
        Trail {
            started,
            outcome: Outcome::Failed,
            refused: None,
            status: None,
            client: None,
            route: None,
            proven: None,
            handshake: None,
            bytes_in: 0,
            bytes_out: 0,
            verify: None,
            upstream: None,
            tries: Tries::default(),
            holds: None,
            place: None,
        }
    }

    pub(super) fn client(&mut self, client: IpAddr) {
        self.client = Some(client);
    }

    pub(super) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    pub(super) fn admitted(&mut self, place: Place, in_flight: InFlight) {
        self.holds = Some((place, in_flight));
    }

    pub(super) fn placed(&mut self, place: Place) {
        self.place = Some(place);
    }

    pub(super) fn received(&mut self, bytes: usize) {
        self.bytes_in = bytes as u64;
    }

    pub(super) fn verify_took(&mut self, time: Duration) {
        self.verify = Some(time);
    }

    pub(super) fn proven(&mut self, permit: &Permit, facts: &Facts) {
        self.proven = Some(Proven {
            strength: permit.strength().as_str(),
            key_id: Arc::clone(permit.proof().key_id()),
            facts: facts.clone(),
        });
    }

    pub(super) fn met(&mut self, handshake: &Arc<str>) {
        self.handshake = Some(Arc::clone(handshake));
    }

    pub(super) fn upstream_took(&mut self, time: Duration) {
        self.upstream = Some(time);
    }

    pub(crate) fn tried(&mut self, tries: Tries) {
        self.tries = tries;
    }

    /// The place among the proven events of its route, for whoever knows better when that is free.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// The route, once it was found.
    pub(super) fn route(&self) -> Option<&Route> {
        self.route.as_deref()
    }

    /// A response went out, or part of it.
    pub(super) fn wrote(&mut self, outcome: Outcome, status: u16, written: Written) {
        self.status = Some(status);
        self.bytes_out = written.bytes;
        self.outcome = match written.complete {
            true => outcome,
            false => Outcome::Failed,
        };
    }

    /// The request was refused. The reason stands even when the sender did not wait to hear it.
    pub(super) fn refused(&mut self, reason: Reason, written: Written) {
        self.refused = Some(reason);
        self.status = Some(reason.row().status);
        self.bytes_out = written.bytes;
        self.outcome = Outcome::Refused(reason as usize);
    }

    /// Pingora's proxy passed the request through to the application. `whole` is false when its answer broke off.
    pub(crate) fn passed(&mut self, status: Option<u16>, whole: bool, bytes_in: u64, bytes_out: u64) {
        self.status = status;
        self.bytes_in = bytes_in;
        self.bytes_out = bytes_out;
        self.outcome = match whole && status.is_some() {
            true => Outcome::Passed,
            false => Outcome::Failed,
        };
    }

    /// Whether the request was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// The request has ended: counts it and writes its line. `request` is absent when no head could be read.
    pub(crate) fn close(mut self, shared: &Shared, request: Option<&Request>) {
        (self.holds, self.place) = (None, None);
        let total = shared.clock.moment().since(self.started);
        let metrics: &RouteMetrics = self.route.as_ref().map_or(&shared.unrouted, |route| &route.metrics);
        metrics.finished(self.outcome, total, self.bytes_in, self.bytes_out);
        if let Some(time) = self.verify {
            metrics.verify_took(time);
        }
        if let Some(limit) = self.refused.and_then(limit) {
            metrics.limit_hit(limit);
        }
        if let (Some(route), Some(proven)) = (&self.route, &self.proven)
            && let Some(key) = route.keys.get(&proven.key_id)
        {
            key.verified();
        }
        if let (Some(route), Some(label)) = (&self.route, &self.handshake)
            && let Some(handshake) = route.handshakes.get(label)
        {
            handshake.answered();
        }
        shared.access.write(&self.record(shared, request, total));
    }

    fn record<'a>(&'a self, shared: &Shared, request: Option<&'a Request>, total: Duration) -> Record<'a> {
        let proven = self.proven.as_ref();
        let fact = |pick: fn(&Facts) -> &Option<String>| pick(&proven?.facts).as_deref().map(str::as_bytes);
        let method = request.map_or("-", |request| request.method.as_str());
        let path = request.map_or("-", |request| &*request.target);
        let wall = shared.clock.wall();
        Record {
            status: self.status,
            stage: self.refused.map(Reason::stage),
            reason: self.refused.map(Reason::word),
            route: self.route.as_ref().map(|route| &*route.name),
            provider: self.route.as_ref().map(|route| &*route.provider_id),
            client: self.client,
            http: request.and_then(|request| version(request.version)),
            strength: proven.map(|proven| proven.strength),
            key_id: proven.map(|proven| &*proven.key_id),
            event_id: fact(|facts| &facts.event_id),
            event_type: fact(|facts| &facts.event_type),
            delivery_id: fact(|facts| &facts.delivery_id),
            handshake: self.handshake.as_deref(),
            duplicate: self.outcome == Outcome::Duplicate,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            total,
            verify: self.verify,
            upstream: self.upstream,
            server: self.tries.last,
            attempts: self.tries.count,
            ..Record::new(wall, self.outcome.label(), method.as_bytes(), path.as_bytes())
        }
    }
}

fn limit(reason: Reason) -> Option<Limit> {
    match reason {
        Reason::ClientRate => Some(Limit::ClientRate),
        Reason::ClientBusy => Some(Limit::ClientInFlight),
        Reason::Overload => Some(Limit::Overload),
        Reason::Busy => Some(Limit::InFlight),
        Reason::Memory => Some(Limit::Memory),
        Reason::RouteRate => Some(Limit::RouteRate),
        _ => None,
    }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
