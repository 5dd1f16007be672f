//! How many connections may be open: in all, and of one client.
//!
//! Every connection costs a file descriptor and some memory before it has said anything, and the limits of the corridor
//! count requests. So they are counted at the door: a client that opens thousands and says nothing fills its own share,
//! and what the process needs for itself (upstreams, logs, the operators' side) is never given away. Addresses are
//! counted as the rate limit counts them, an IPv6 /64 as one; the table holds no more than the connections do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::gateway::subscriber;

/// Bounds on open connections from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorSettings {
    /// In all.
    pub connections_max: usize,
    /// Of one client address.
    pub client_connections_max: usize,
}

/// Descriptors for everything else: files, the operators' side, listeners.
const DESCRIPTORS_RESERVED: u64 = 64;

impl DoorSettings {
    /// Lowers the number of connections to what `descriptors` have room for: each may need another one upstream. Then
    /// no client has more than half of them: a share that was sized for more room would be all there is.
    pub fn fit(&mut self, descriptors: u64) {
        let room = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_RESERVED) / 2)
            .unwrap_or(usize::MAX)
            .max(1);
        if room < self.connections_max {
            let asked = self.connections_max;
            log::warn!("{descriptors} descriptors have room for {room} connections, not for {asked}");
            self.connections_max = room;
            self.client_connections_max = self.client_connections_max.min((room / 2).max(1));
        }
    }
}

/// The doors of a process.
pub(super) struct Doors {
    settings: DoorSettings,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    clients: HashMap<IpAddr, usize>,
}

/// Why a connection is closed at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// The process has as many as it may.
    Full,
    /// The client has as many as it may.
    Client,
}

impl Doors {
    pub(super) fn new(settings: DoorSettings) -> Arc<Self> {
        Arc::new(Doors {
            settings,
            open: Mutex::default(),
        })
    }

    /// Takes a place among all connections, before it is known who connects.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Place, Shut> {
        let mut open = self.open.lock();
        if open.all >= self.settings.connections_max {
            return Err(Shut::Full);
        }
        open.all = open.all.saturating_add(1);
        Ok(Place {
            doors: Arc::clone(self),
            client: None,
        })
    }
}

/// A connection's place, given back when dropped.
pub(super) struct Place {
    doors: Arc<Doors>,
    client: Option<IpAddr>,
}

impl Place {
    /// Counts the connection as one of `client`; of proxies, which connect for many, only the sum counts.
    pub(super) fn of(&mut self, client: IpAddr) -> Result<(), Shut> {
        let settings = &self.doors.settings;
        let key = subscriber(client.to_canonical());
        let mut open = self.doors.open.lock();
        let count = open.clients.entry(key).or_default();
        if *count >= settings.client_connections_max {
            return Err(Shut::Client);
        }
        *count = count.saturating_add(1);
        self.client = Some(key);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.doors.open.lock();
        open.all = open.all.saturating_sub(1);
        let Some(client) = self.client else { return };
        if let Some(count) = open.clients.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors() -> Arc<Doors> {
        Doors::new(DoorSettings {
            connections_max: 5,
            client_connections_max: 2,
        })
    }

    fn enter(doors: &Arc<Doors>, client: &str) -> Result<Place, Shut> {
        let mut place = doors.enter()?;
        place.of(client.parse().unwrap())?;
        Ok(place)
    }

    #[test]
    fn few_descriptors_are_nobodys_alone() {
        // With 256 descriptors there is room for 96 connections, which one client's share of 1000 would fill.
        let fitted = |descriptors| {
            let mut settings = DoorSettings {
                connections_max: 8192,
                client_connections_max: 1000,
            };
            settings.fit(descriptors);
            (settings.connections_max, settings.client_connections_max)
        };
        assert_eq!(fitted(256), (96, 48));
        assert_eq!(fitted(3000), (1468, 734));
        assert_eq!(fitted(10_000), (4968, 1000));
        assert_eq!(fitted(20_000), (8192, 1000));
        assert_eq!(fitted(64), (1, 1));
    }

    #[test]
    fn each_client_has_its_share_and_all_have_the_sum() {
        // One client that opens connections without end would keep the provider out.
        let doors = doors();
        let one = (enter(&doors, "192.0.2.1").unwrap(), enter(&doors, "192.0.2.1").unwrap());
        assert_eq!(enter(&doors, "192.0.2.1").err(), Some(Shut::Client));
        assert_eq!(
            enter(&doors, "::ffff:192.0.2.1").err(),
            Some(Shut::Client),
            "the same client"
        );
        let six = (
            enter(&doors, "2001:db8::1").unwrap(),
            enter(&doors, "2001:db8::2").unwrap(),
        );
        assert_eq!(
            enter(&doors, "2001:db8::ffff:1").err(),
            Some(Shut::Client),
            "one /64 is one client"
        );
        let last = enter(&doors, "192.0.2.2").unwrap();
        assert_eq!(enter(&doors, "192.0.2.3").err(), Some(Shut::Full));
        drop((one, six, last));
        let uncounted: Vec<_> = (0..5).map(|_| doors.enter().unwrap()).collect();
        assert_eq!(doors.enter().err(), Some(Shut::Full));
        drop(uncounted);
        let open = doors.open.lock();
        assert_eq!((open.all, open.clients.len()), (0, 0), "nothing is left behind");
    }
}
