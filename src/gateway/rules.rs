//! What a reload replaces: the routes, their verifiers, limits and upstreams, built once and read by every request.
//!
//! Everything that can fail has failed before: [`GatewaySettings`] come from a configuration without problems, so
//! building rules from them cannot fail half way and leave a gateway with half its routes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;

use super::admit::{Budget, ClientLimit, Places, Rate};
use super::body::Bounds;
use super::register::{RegisterSettings, Registration};
use super::replay::ReplayPolicy;
use super::route::Table;
use super::shared::Shared;
use crate::fetch::Allowance;
use crate::observe::metrics::{HandshakeMetrics, KeyMetrics, RouteMetrics};
use crate::providers::Provider;
use crate::signature::Verifier;
use crate::upstream::{self, Upstream, UpstreamSettings};

/// Everything the corridor needs to know; made from a configuration without problems.
#[derive(Clone)]
pub struct GatewaySettings {
    /// The side of the internet.
    pub client: ClientSettings,
    /// Bytes of bodies held in memory, over all routes.
    pub memory_bytes_max: usize,
    /// Where events go.
    pub upstreams: Vec<UpstreamSettings>,
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
    /// Longest time for a whole body.
    pub body_timeout: Duration,
    /// Proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<IpNet>,
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
    /// Who sends.
    pub provider: Arc<Provider>,
    /// The provider's scheme with the route's secrets.
    pub verifier: Arc<Verifier>,
    /// The secret that it waits for.
    pub register: Option<RegisterSettings>,
    /// The name of one of the upstreams.
    pub upstream: String,
    /// The path the upstream sees.
    pub forward_path: Option<String>,
    /// Verified events.
    pub rate: Rate,
    /// Largest body in bytes.
    pub body_bytes_max: usize,
    /// Requests at the same time.
    pub in_flight_max: usize,
    /// How repeats are met.
    pub replay: ReplayPolicy,
    /// Whether subscriptions that the provider asks about are confirmed here.
    pub confirm: bool,
}

/// The corridor's configuration, ready to use.
pub struct Rules {
    pub(super) table: Table,
    pub(super) passthrough: Option<Arc<Upstream>>,
    pub(super) client_limit: ClientLimit,
    pub(super) memory_bytes_max: usize,
    client: ClientSettings,
    upstreams: Vec<Arc<Upstream>>,
}

/// A route, ready to use.
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) provider_id: Arc<str>,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) methods: Vec<Method>,
    pub(crate) provider: Arc<Provider>,
    /// With the secrets of the configuration; [`verifier`](Route::verifier) is what verifies.
    pub(super) own_verifier: Arc<Verifier>,
    pub(super) registration: Option<Arc<Registration>>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) forward_path: Option<String>,
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
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) keys: HashMap<Arc<str>, KeyMetrics>,
    pub(crate) handshakes: HashMap<Arc<str>, HandshakeMetrics>,
    body_bytes_max: usize,
}

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
        let routes = settings.routes.into_iter().filter_map(|route| {
            let upstream = named(&route.upstream)?;
            Some(Arc::new(Route::new(route, upstream, shared)))
        });
        Rules {
            table: Table::new(routes),
            passthrough: settings.passthrough.as_deref().and_then(named),
            client_limit: ClientLimit::new(settings.client.rate, &shared.clients, &shared.clock),
            memory_bytes_max: settings.memory_bytes_max,
            client: settings.client,
            upstreams,
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

impl Route {
    fn new(settings: RouteSettings, upstream: Arc<Upstream>, shared: &Shared) -> Self {
        let metrics = shared.metrics.route(&settings.name, &settings.provider.id);
        let awaited = settings.register.as_ref().map(|register| &register.key_id);
        let ids = settings.verifier.key_ids().chain(awaited);
        let keys = ids.map(|id| (Arc::clone(id), metrics.key(id))).collect();
        let labels = settings.provider.handshakes.iter().map(|handshake| &handshake.label);
        let handshakes = labels
            .map(|label| (Arc::clone(label), metrics.handshake(label)))
            .collect();
        let state = shared.route(&settings.name);
        Route {
            provider_id: settings.provider.id.as_str().into(),
            lease: upstream.settings().timeout.saturating_add(LEASE_MARGIN),
            budget: Budget::new(settings.rate, &state.bucket, &shared.clock),
            places: state.places,
            fetches: state.fetches,
            confirm: settings.confirm,
            name: settings.name,
            host: settings.host,
            path: settings.path,
            methods: settings.methods,
            provider: settings.provider,
            own_verifier: settings.verifier,
            registration: settings
                .register
                .map(|register| Arc::new(Registration::new(register, state.brought))),
            upstream,
            forward_path: settings.forward_path,
            in_flight_max: settings.in_flight_max,
            replay: settings.replay,
            rate: settings.rate,
            metrics,
            keys,
            handshakes,
            body_bytes_max: settings.body_bytes_max,
        }
    }

    /// The bounds of a body on this route.
    pub(super) fn body_bounds(&self, rules: &Rules) -> Bounds {
        Bounds {
            bytes_max: self.body_bytes_max,
            timeout: rules.client.body_timeout,
        }
    }
}
