//! What a reload replaces: the routes, their verifiers, limits and upstreams, built once and read by every request.
//!
//! Everything that can fail has failed before: [`GatewaySettings`] come from a configuration without problems, so
//! building rules from them cannot fail half way and leave a gateway with half its routes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;

use super::admit::{Allow, Budget, ClientLimit, Places, Rate};
use super::body::Bounds;
use super::head::ProxyHeader;
use super::register::{RegisterSettings, Registration};
use super::replay::ReplayPolicy;
use super::route::Table;
use super::shared::Shared;
use crate::clock::Clock;
use crate::fetch::Allowance;
use crate::observe::metrics::{HandshakeMetrics, KeyMetrics, RouteMetrics};
use crate::providers::{JsonPath, Provider};
use crate::queue::{Destination, Lane, Line, LineSettings, RetryPolicy, TypeFilter};
use crate::signature::{KeyedSecret, Verifier};
use crate::upstream::{self, Resign, Upstream, UpstreamSettings};

/// Everything the corridor needs to know; made from a configuration without problems.
#[derive(Clone)]
pub struct GatewaySettings {
    /// The side of the internet.
    pub client: ClientSettings,
    /// Webhooks at the same time, over all routes.
    pub in_flight_max: usize,
    /// Bytes of bodies held in memory, over all routes.
    pub memory_bytes_max: usize,
    /// Where events go.
    pub upstreams: Vec<UpstreamSettings>,
    /// How queued events reach each upstream, by its name.
    pub lines: BTreeMap<String, LineSettings>,
    /// What callers of the operators' API prove themselves with; none: there is no API.
    pub operators: Vec<KeyedSecret>,
    /// What is verified, and how.
    pub routes: Vec<RouteSettings>,
    /// The upstream of everything that is no route; `None`: 404.
    pub passthrough: Option<String>,
}

/// Bounds on what comes from outside, before a route is known.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Requests of one client address.
    pub rate: Rate,
    /// Webhooks of one client address at the same time that have proven nothing yet.
    pub in_flight_max: u32,
    /// Longest time for a whole body.
    pub body_timeout: Duration,
    /// Bytes a second below which a body is too slow.
    pub body_rate: u64,
    /// Proxies that are believed when they say for whom they speak.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they say it.
    pub proxy_header: ProxyHeader,
}

/// One route.
#[derive(Clone)]
pub struct RouteSettings {
    /// Unique name.
    pub name: Arc<str>,
    /// The only host it answers to.
    pub host: Option<String>,
    /// The exact path.
    pub path: String,
    /// The methods it takes.
    pub methods: Vec<Method>,
    /// Whom it hears at all.
    pub allow: Allow,
    /// Who sends.
    pub provider: Arc<Provider>,
    /// The provider's scheme with the route's secrets.
    pub verifier: Arc<Verifier>,
    /// The secret that it waits for.
    pub register: Option<RegisterSettings>,
    /// Where events go.
    pub deliver: Deliver,
    /// Signs what goes upstream.
    pub resign: Option<Resign>,
    /// Verified events.
    pub rate: Rate,
    /// Largest body in bytes.
    pub body_bytes_max: usize,
    /// Proven events at the same time.
    pub in_flight_max: usize,
    /// How repeats are met.
    pub replay: ReplayPolicy,
    /// Whether subscriptions that the provider asks about are confirmed here.
    pub confirm: bool,
    /// Whether an offer of another protocol is ignored instead of refused.
    pub ignore_upgrade: bool,
}

/// Where the events of a route go.
#[derive(Clone)]
pub enum Deliver {
    /// To one upstream while the provider waits.
    Forward {
        /// The name of one of the upstreams.
        upstream: String,
        /// The path the upstream sees.
        forward_path: Option<String>,
    },
    /// Into the queue, and from there to each destination that wants them.
    Queue {
        /// The destinations, by different names.
        destinations: Vec<DestinationSettings>,
        /// How each is tried again.
        retry: RetryPolicy,
        /// Events in which this member is the same are delivered one after another.
        order_by: Option<JsonPath>,
    },
}

/// One destination of a route.
#[derive(Clone, Debug)]
pub struct DestinationSettings {
    /// Unique within the route.
    pub name: Arc<str>,
    /// The name of one of the upstreams.
    pub upstream: String,
    /// The events it wants.
    pub types: TypeFilter,
    /// The path the upstream sees.
    pub forward_path: Option<String>,
}

/// The corridor's configuration, ready to use.
pub struct Rules {
    pub(super) table: Table,
    pub(super) passthrough: Option<Arc<Upstream>>,
    pub(super) client_limit: ClientLimit,
    pub(super) in_flight_max: usize,
    pub(super) memory_bytes_max: usize,
    client: ClientSettings,
    upstreams: Vec<Arc<Upstream>>,
    lines: BTreeMap<String, Arc<Line>>,
    operators: Vec<KeyedSecret>,
    destinations: Vec<Arc<Destination>>,
}

/// A route, ready to use.
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) provider_id: Arc<str>,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) methods: Vec<Method>,
    pub(crate) allow: Allow,
    pub(crate) provider: Arc<Provider>,
    /// With the secrets of the configuration; [`verifier`](Route::verifier) is what verifies.
    pub(super) own_verifier: Arc<Verifier>,
    pub(super) registration: Option<Arc<Registration>>,
    pub(crate) way: Way,
    pub(crate) resign: Option<Resign>,
    pub(crate) in_flight_max: usize,
    pub(crate) replay: ReplayPolicy,
    /// How long a claim lives without word from its holder: longer than a dispatch can take.
    pub(crate) lease: Duration,
    pub(crate) rate: Rate,
    pub(crate) budget: Budget,
    pub(crate) places: Places,
    /// How many keys may be fetched for it.
    pub(crate) fetches: Allowance,
    pub(crate) confirm: bool,
    pub(crate) ignore_upgrade: bool,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) keys: HashMap<Arc<str>, KeyMetrics>,
    pub(crate) handshakes: HashMap<Arc<str>, HandshakeMetrics>,
    body_bytes_max: usize,
}

/// Where a route's events go.
pub(crate) enum Way {
    Forward(Forward),
    Queue(Queued),
}

/// To one upstream, at once.
pub(crate) struct Forward {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) path: Option<String>,
}

/// Into the queue.
pub(crate) struct Queued {
    pub(crate) destinations: Vec<(Arc<str>, TypeFilter)>,
    pub(crate) order_by: Option<JsonPath>,
}

/// What the provider of a queued event is told, and of its repeats. Not 202: every provider takes 200 for success, while
/// some know no other.
pub(crate) const QUEUED_STATUS: u16 = 200;

/// Longest time until an event is in the queue, for the lease of its claim.
const QUEUE_TIME: Duration = Duration::from_secs(30);

/// Added to an upstream's timeout for the lease of a claim.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

impl Rules {
    /// Builds the rules. Upstreams that did not change are taken over from `previous`, health and addresses and all;
    /// the host names of new ones are known after [`look_up`](Rules::look_up).
    pub fn build(settings: GatewaySettings, shared: &Shared, previous: Option<&Rules>) -> Self {
        let upstreams = settings.upstreams.into_iter();
        let upstreams: Vec<_> = upstreams.map(|wanted| upstream(wanted, shared, previous)).collect();
        let named = |name: &str| upstreams.iter().find(|upstream| upstream.name() == name).cloned();
        // A configuration without problems names only upstreams that it has.
        let lines = lines(&settings.lines, &shared.clock, previous);
        let mut destinations = Vec::new();
        let routes: Vec<_> = settings
            .routes
            .into_iter()
            .filter_map(|route| {
                destinations.extend(self::destinations(&route, &named, &lines, shared));
                Some(Arc::new(Route::new(route, &named, shared)?))
            })
            .collect();
        Rules {
            table: Table::new(routes),
            passthrough: settings.passthrough.as_deref().and_then(named),
            client_limit: ClientLimit::new(settings.client.rate, &shared.clients, &shared.clock),
            in_flight_max: settings.in_flight_max,
            memory_bytes_max: settings.memory_bytes_max,
            client: settings.client,
            upstreams,
            lines,
            operators: settings.operators,
            destinations,
        }
    }

    /// Looks the host names of all upstreams up, so that the first request does not find them unknown.
    pub async fn look_up(&self) {
        for upstream in &self.upstreams {
            upstream::resolve(upstream).await;
        }
    }

    /// Whether `address` is a proxy whose word about its clients counts.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.client
            .trusted_proxies
            .iter()
            .any(|network| network.contains(&address))
    }

    /// The upstreams, for the background to look their names up again.
    pub(crate) fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// What the queue's worker delivers to.
    pub(crate) fn destinations(&self) -> &[Arc<Destination>] {
        &self.destinations
    }

    /// What callers of the operators' API prove themselves with.
    pub(crate) fn operators(&self) -> &[KeyedSecret] {
        &self.operators
    }

    /// Where trusted proxies say for whom they speak.
    pub(super) fn proxy_header(&self) -> ProxyHeader {
        self.client.proxy_header
    }

    /// Webhooks of one client that may be on their way without proof.
    pub(super) fn client_in_flight_max(&self) -> u32 {
        self.client.in_flight_max
    }

    /// The budget of clients, as the `RateLimit-Policy` of a 429 tells it.
    pub(super) fn client_rate(&self) -> Rate {
        self.client.rate
    }
}

fn upstream(wanted: UpstreamSettings, shared: &Shared, previous: Option<&Rules>) -> Arc<Upstream> {
    let same = |known: &&Arc<Upstream>| *known.settings() == wanted;
    if let Some(known) = previous.and_then(|rules| rules.upstreams.iter().find(same)) {
        return Arc::clone(known);
    }
    let metrics = shared.metrics.upstream(&wanted.name);
    Arc::new(Upstream::new(wanted, &shared.connector, metrics, &shared.clock))
}

/// The ways to the upstreams. One whose settings did not change is kept, with what is known about its upstream.
fn lines(
    wanted: &BTreeMap<String, LineSettings>,
    clock: &Clock,
    previous: Option<&Rules>,
) -> BTreeMap<String, Arc<Line>> {
    let line = |(name, settings): (&String, &LineSettings)| {
        let known = previous.and_then(|rules| rules.lines.get(name));
        let kept = known.filter(|line| line.settings() == settings).cloned();
        (name.clone(), kept.unwrap_or_else(|| Line::new(*settings, clock)))
    };
    wanted.iter().map(line).collect()
}

/// What the worker needs to know of a route's destinations.
fn destinations(
    route: &RouteSettings,
    named: &dyn Fn(&str) -> Option<Arc<Upstream>>,
    lines: &BTreeMap<String, Arc<Line>>,
    shared: &Shared,
) -> Vec<Arc<Destination>> {
    let Deliver::Queue {
        destinations, retry, ..
    } = &route.deliver
    else {
        return Vec::new();
    };
    let built = destinations.iter().filter_map(|wanted| {
        Some(Arc::new(Destination {
            lane: Lane {
                route: Arc::clone(&route.name),
                destination: Arc::clone(&wanted.name),
            },
            upstream: named(&wanted.upstream)?,
            line: Arc::clone(lines.get(&wanted.upstream)?),
            forward_path: wanted.forward_path.clone(),
            retry: retry.clone(),
            resign: route.resign.clone(),
            metrics: shared.metrics.deliveries(&route.name, &wanted.name),
        }))
    });
    built.collect()
}

impl Way {
    /// `None` when it leads nowhere, which a configuration without problems never does.
    fn new(deliver: Deliver, named: &dyn Fn(&str) -> Option<Arc<Upstream>>) -> Option<Self> {
        Some(match deliver {
            Deliver::Forward { upstream, forward_path } => Way::Forward(Forward {
                upstream: named(&upstream)?,
                path: forward_path,
            }),
            Deliver::Queue {
                destinations, order_by, ..
            } => Way::Queue(Queued {
                destinations: destinations
                    .into_iter()
                    .map(|wanted| (wanted.name, wanted.types))
                    .collect(),
                order_by,
            }),
        })
    }

    /// Longest time of a dispatch.
    fn time_max(&self) -> Duration {
        match self {
            Way::Forward(forward) => forward.upstream.settings().timeout,
            Way::Queue(_) => QUEUE_TIME,
        }
    }
}

impl Route {
    fn new(settings: RouteSettings, named: &dyn Fn(&str) -> Option<Arc<Upstream>>, shared: &Shared) -> Option<Self> {
        let way = Way::new(settings.deliver, named)?;
        let metrics = shared.metrics.route(&settings.name, &settings.provider.id);
        let awaited = settings.register.as_ref().map(|register| &register.key_id);
        let ids = settings.verifier.key_ids().chain(awaited);
        let keys = ids.map(|id| (Arc::clone(id), metrics.key(id))).collect();
        let labels = settings.provider.handshakes.iter().map(|handshake| &handshake.label);
        let handshakes = labels
            .map(|label| (Arc::clone(label), metrics.handshake(label)))
            .collect();
        let state = shared.route(&settings.name);
        Some(Route {
            provider_id: settings.provider.id.as_str().into(),
            lease: way.time_max().saturating_add(LEASE_MARGIN),
            budget: Budget::new(settings.rate, &state.bucket, &shared.clock),
            places: state.places,
            fetches: state.fetches,
            confirm: settings.confirm,
            ignore_upgrade: settings.ignore_upgrade,
            name: settings.name,
            host: settings.host,
            path: settings.path,
            methods: settings.methods,
            allow: settings.allow,
            provider: settings.provider,
            own_verifier: settings.verifier,
            registration: settings
                .register
                .map(|register| Arc::new(Registration::new(register, state.brought))),
            way,
            resign: settings.resign,
            in_flight_max: settings.in_flight_max,
            replay: settings.replay,
            rate: settings.rate,
            metrics,
            keys,
            handshakes,
            body_bytes_max: settings.body_bytes_max,
        })
    }

    /// Whether repeats are recognised.
    pub(crate) fn is_guarded(&self) -> bool {
        self.replay != ReplayPolicy::Off
    }

    /// The bounds of a body on this route.
    pub(super) fn body_bounds(&self, rules: &Rules) -> Bounds {
        Bounds {
            bytes_max: self.body_bytes_max,
            timeout: rules.client.body_timeout,
            rate: rules.client.body_rate,
        }
    }
}
