//! Which server is asked next: round robin over those that took connections lately.
//!
//! Health is passive. A refused connection leaves a server out for `fail_timeout`; when all are left out all are
//! tried, because an upstream that is believed dead by mistake must not stay dead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use pingora_core::upstreams::peer::HttpPeer;

use super::idle::Idle;
use super::{ServerSettings, UpstreamSettings};
use crate::clock::Moment;

/// Addresses beyond this many, over all servers of an upstream, are not used.
const SERVERS_MAX: usize = 64;

/// The servers of one upstream as they resolve at present.
pub(crate) struct Servers {
    settings: UpstreamSettings,
    /// Addresses in configuration order; empty while no host name has resolved.
    current: ArcSwap<Vec<Candidate>>,
    next: AtomicUsize,
}

/// One address of one server.
#[derive(Clone)]
pub(crate) struct Candidate(Arc<Inner>);

struct Inner {
    server: ServerSettings,
    peer: HttpPeer,
    address: SocketAddr,
    idle: Idle,
    /// `Moment` in nanoseconds until which the server is left out; zero: it is in.
    out_until: AtomicU64,
}

impl Candidate {
    pub(crate) fn peer(&self) -> &HttpPeer {
        &self.0.peer
    }

    /// Whether TLS is spoken with it.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.0.server.tls
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn idle(&self) -> &Idle {
        &self.0.idle
    }

    pub(crate) fn leave_out(&self, until: Moment) {
        self.0.out_until.store(until.nanos(), Ordering::Relaxed);
    }

    fn is_in(&self, now: Moment) -> bool {
        self.0.out_until.load(Ordering::Relaxed) <= now.nanos()
    }
}

impl Servers {
    pub(crate) fn new(settings: &UpstreamSettings) -> Self {
        let servers = Servers {
            settings: settings.clone(),
            current: ArcSwap::default(),
            next: AtomicUsize::new(0),
        };
        let literal = settings.servers.iter().filter_map(|server| {
            let ip = server.host.parse().ok()?;
            Some((server, SocketAddr::new(ip, server.port)))
        });
        servers.replace(literal.collect());
        servers
    }

    /// Takes over the present addresses; a server that stays keeps its health.
    pub(crate) fn replace(&self, addresses: Vec<(&ServerSettings, SocketAddr)>) {
        let known = self.current.load();
        let stays = |server: &ServerSettings, address: SocketAddr| {
            let same = |c: &&Candidate| c.address() == address && c.0.server == *server;
            known.iter().find(same).cloned()
        };
        let next = addresses.into_iter().take(SERVERS_MAX);
        let next =
            next.map(|(server, address)| stays(server, address).unwrap_or_else(|| self.candidate(server, address)));
        let next = next.collect();
        self.current.store(Arc::new(next));
    }

    /// The present servers, to be tried in turn.
    pub(crate) fn turn(&self) -> Turn {
        let servers = self.current.load_full();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        Turn {
            start: turn.checked_rem(servers.len()).unwrap_or(0),
            servers,
            tried: 0,
        }
    }

    /// Closes unused connections that have lain too long.
    pub(crate) fn sweep(&self, now: Moment) {
        self.current.load().iter().for_each(|server| server.idle().sweep(now));
    }

    /// The addresses in use for one configured server.
    pub(crate) fn addresses_of(&self, server: &ServerSettings) -> Vec<SocketAddr> {
        let current = self.current.load();
        let of_server = current.iter().filter(|c| c.0.server == *server);
        of_server.map(Candidate::address).collect()
    }

    fn candidate(&self, server: &ServerSettings, address: SocketAddr) -> Candidate {
        // From an address, never from a name: Pingora's constructor resolves names by blocking and panics on failure.
        let sni = if server.tls { server.host.clone() } else { String::new() };
        let mut peer = HttpPeer::new(address, server.tls, sni);
        peer.options.connection_timeout = Some(self.settings.connect_timeout);
        peer.options.total_connection_timeout = Some(self.settings.connect_timeout);
        peer.options.idle_timeout = Some(self.settings.idle_timeout);
        if let Some(tls) = self.settings.tls.as_ref().filter(|_| server.tls) {
            tls.apply(&mut peer);
        }
        Candidate(Arc::new(Inner {
            server: server.clone(),
            peer,
            address,
            idle: Idle::default(),
            out_until: AtomicU64::new(0),
        }))
    }
}

/// Every server once: the one whose turn it is first, those left out last.
pub(crate) struct Turn {
    servers: Arc<Vec<Candidate>>,
    start: usize,
    /// One bit a server, so that a server that fails during this turn is not met twice.
    tried: u64,
}

impl Turn {
    pub(crate) fn next(&mut self, now: Moment) -> Option<Candidate> {
        let count = self.servers.len();
        let untried = || {
            let order = (0..count).filter_map(|step| self.start.wrapping_add(step).checked_rem(count));
            order.filter(|index| self.tried & (1 << index) == 0)
        };
        let healthy = untried().find(|index| self.servers.get(*index).is_some_and(|c| c.is_in(now)));
        let index = healthy.or_else(|| untried().next())?;
        self.tried |= 1 << index;
        self.servers.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use std::time::Duration;

    fn three() -> Servers {
        let server = |port| ServerSettings {
            tls: false,
            host: "127.0.0.1".into(),
            port,
        };
        Servers::new(&UpstreamSettings {
            name: "app".into(),
            sample: false,
            servers: vec![server(1), server(2), server(3)],
            tls: None,
            host: None,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            fail_timeout: Duration::from_secs(10),
            resolve: Duration::from_secs(30),
        })
    }

    fn ports(servers: &Servers, now: Moment) -> Vec<u16> {
        let mut turn = servers.turn();
        std::iter::from_fn(|| turn.next(now))
            .map(|c| c.address().port())
            .collect()
    }

    #[test]
    fn requests_go_round() {
        // Without it one server carries all the load.
        let (servers, now) = (three(), ManualClock::at(UnixMillis(0)).clock().moment());
        let order: Vec<_> = (0..3).map(|_| ports(&servers, now)).collect();
        assert_eq!(order, [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]]);
    }

    #[test]
    fn a_server_left_out_comes_last_and_returns() {
        // A dead server must cost at most one refused connection per fail_timeout, and must not be forgotten.
        let (servers, manual) = (three(), ManualClock::at(UnixMillis(0)));
        let now = manual.clock().moment();
        let mut turn = servers.turn();
        let first = turn.next(now).unwrap();
        first.leave_out(now.plus(Duration::from_secs(10)));
        let rest: Vec<_> = std::iter::from_fn(|| turn.next(now))
            .map(|c| c.address().port())
            .collect();
        assert_eq!(rest, [2, 3], "the server that failed is not met twice in one turn");
        assert_eq!(ports(&servers, now), [2, 3, 1]);
        assert_eq!(ports(&servers, now), [3, 2, 1]);
        manual.advance(Duration::from_secs(10));
        let later = manual.clock().moment();
        assert_eq!(ports(&servers, later), [1, 2, 3]);
    }

    #[test]
    fn a_server_keeps_its_health_when_addresses_are_looked_up_again() {
        // A lookup every 30 s must not send requests back to a dead server.
        let (servers, now) = (three(), ManualClock::at(UnixMillis(0)).clock().moment());
        servers
            .turn()
            .next(now)
            .unwrap()
            .leave_out(now.plus(Duration::from_secs(10)));
        let settings = servers.settings.clone();
        let again = settings
            .servers
            .iter()
            .flat_map(|s| servers.addresses_of(s).into_iter().map(move |a| (s, a)));
        servers.replace(again.collect());
        assert_eq!(ports(&servers, now).last(), Some(&1));
    }

    #[test]
    fn nothing_resolved_is_no_candidate() {
        // Must be an orderly refusal, not a division by zero.
        let (servers, now) = (three(), ManualClock::at(UnixMillis(0)).clock().moment());
        servers.replace(Vec::new());
        assert!(servers.turn().next(now).is_none());
    }
}
