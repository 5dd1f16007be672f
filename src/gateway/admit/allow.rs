//! Whom a route hears at all: the addresses it is open to, and the certificates it asks for.
//!
//! Neither proves an event; both keep strangers from trying. They are looked at before a byte of the body is read, and
//! for handshakes that come unsigned by design as well. A client whose address is not known, because a trusted proxy
//! speaks for it and does not say whom it speaks for, is on no list.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::super::refusal::Reason;

/// Who may speak on a route; the default is everybody.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    networks: Option<Arc<Networks>>,
    names: Option<Arc<[ClientName]>>,
}

impl Allow {
    /// Clients with an address in one of `networks`, and with a certificate for one of `names`; `None`: any client.
    pub fn only(networks: Option<Networks>, names: Option<Vec<ClientName>>) -> Self {
        Allow {
            networks: networks.map(Arc::new),
            names: names.map(Arc::from),
        }
    }

    /// Judges the address of a client, if it is known.
    ///
    /// # Errors
    /// [`Reason::Address`].
    pub(crate) fn address(&self, client: Option<IpAddr>) -> Result<(), Reason> {
        let Some(networks) = &self.networks else { return Ok(()) };
        match client.is_some_and(|client| networks.contains(client)) {
            true => Ok(()),
            false => Err(Reason::Address),
        }
    }

    /// Judges the verified certificate of a client by the names in it, each as [`ClientName`] prints it.
    ///
    /// # Errors
    /// [`Reason::Certificate`].
    pub(crate) fn certificate<'a>(&self, mut shown: impl Iterator<Item = &'a str>) -> Result<(), Reason> {
        let Some(names) = &self.names else { return Ok(()) };
        match shown.any(|shown| names.iter().any(|name| name.is(shown))) {
            true => Ok(()),
            false => Err(Reason::Certificate),
        }
    }
}

/// A name that the certificate of a client has to have among its subject's alternative names.
///
/// The common name of the subject is not looked at (RFC 9525 section 2). Names are compared whole: a certificate for
/// `*.example.com` has that name and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientName {
    /// A DNS name, whatever its case.
    Dns(String),
    /// A URI such as `spiffe://example.com/stripe`, byte for byte.
    Uri(String),
}

const DNS: &str = "dns:";
const URI: &str = "uri:";

impl ClientName {
    /// A URI that reads like a DNS name is none: who may have the one signed need not own the other.
    fn is(&self, shown: &str) -> bool {
        match self {
            ClientName::Dns(name) => shown
                .strip_prefix(DNS)
                .is_some_and(|dns| name.eq_ignore_ascii_case(dns)),
            ClientName::Uri(name) => shown.strip_prefix(URI).is_some_and(|uri| name == uri),
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientName::Dns(name) => write!(f, "{DNS}{name}"),
            ClientName::Uri(uri) => write!(f, "{URI}{uri}"),
        }
    }
}

/// A set of addresses: sorted ranges without overlaps, so that looking one up among thousands costs a few comparisons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

impl FromIterator<IpNet> for Networks {
    /// IPv6 networks that stand for IPv4 (`::ffff:192.0.2.0/120`) are taken for what they stand for.
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut set = Networks::default();
        for network in networks {
            let (first, last) = (network.network(), network.broadcast());
            match network {
                IpNet::V4(network) => set.v4.push((network.network(), network.broadcast())),
                IpNet::V6(network) => match (first.to_canonical(), last.to_canonical()) {
                    (IpAddr::V4(first), IpAddr::V4(last)) => set.v4.push((first, last)),
                    _ => set.v6.push((network.network(), network.broadcast())),
                },
            }
        }
        merge(&mut set.v4);
        merge(&mut set.v6);
        set
    }
}

impl Networks {
    /// Whether `address` is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address),
            IpAddr::V6(address) => holds(&self.v6, address),
        }
    }

    /// Whether nobody is in them.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Sorts ranges and joins those that overlap.
fn merge<A: Copy + Ord>(ranges: &mut Vec<(A, A)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, known)| {
        let joins = *first <= *known;
        if joins {
            *known = (*known).max(*last);
        }
        joins
    });
}

fn holds<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    let range = behind.checked_sub(1).and_then(|at| ranges.get(at));
    range.is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|network| network.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn whoever_is_listed_is_let_in_and_nobody_else() {
        // One address too many is a stranger on a route that was meant for one sender; one too few is a lost event.
        let list = networks(&[
            "192.0.2.0/25",
            "192.0.2.64/26",
            "198.51.100.7/32",
            "::ffff:203.0.113.0/120",
            "2001:db8::/32",
            "2001:db9::1/128",
        ]);
        for inside in [
            "192.0.2.0",
            "192.0.2.127",
            "198.51.100.7",
            "203.0.113.255",
            "::ffff:192.0.2.1",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::1",
        ] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "192.0.1.255",
            "192.0.2.128",
            "198.51.100.6",
            "198.51.100.8",
            "203.0.114.0",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "2001:db9::2",
            "::192.0.2.1",
        ] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
        let six = networks(&["::/0"]);
        assert!(six.contains("::1".parse().unwrap()) && !six.contains("192.0.2.1".parse().unwrap()));
        assert!(networks(&["0.0.0.0/0"]).contains("255.255.255.255".parse().unwrap()));
        assert!(networks(&[]).is_empty() && !networks(&[]).contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn names_are_compared_whole() {
        // A certificate for another host of the same domain is somebody else's.
        let allow = Allow::only(
            None,
            Some(vec![
                ClientName::Dns("hooks.example.com".into()),
                ClientName::Uri("spiffe://example.com/a".into()),
            ]),
        );
        let judged = |shown: &[&str]| allow.certificate(shown.iter().copied());
        for good in [
            &["dns:hooks.example.com"][..],
            &["dns:HOOKS.example.COM"],
            &["x", "dns:hooks.example.com"],
            &["uri:spiffe://example.com/a"],
        ] {
            assert_eq!(judged(good), Ok(()), "{good:?}");
        }
        for wrong in [
            &[][..],
            &[""],
            &["dns:"],
            &["hooks.example.com"],
            &["uri:hooks.example.com"],
            &["dns:spiffe://example.com/a"],
            &["dns:*.example.com"],
            &["dns:a.hooks.example.com"],
            &["dns:hooks.example.com."],
            &["uri:spiffe://example.com/A"],
        ] {
            assert_eq!(judged(wrong), Err(Reason::Certificate), "{wrong:?}");
        }
        assert_eq!(Allow::default().certificate(std::iter::empty()), Ok(()));
        assert_eq!(Allow::default().address(None), Ok(()));
        assert_eq!(
            Allow::only(Some(networks(&["::/0", "0.0.0.0/0"])), None).address(None),
            Err(Reason::Address),
            "who is not known is not listed"
        );
    }

    proptest! {
        #[test]
        fn ranges_answer_like_the_networks_they_are_made_of(
            list in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..12),
            address in any::<u32>(),
            near in any::<prop::sample::Index>(),
        ) {
            // Joining ranges wrongly opens a gap, or a door.
            let list: Vec<IpNet> = list
                .into_iter()
                .map(|(address, length)| IpNet::new(Ipv4Addr::from(address).into(), length).unwrap().trunc())
                .collect();
            let set: Networks = list.iter().copied().collect();
            let mut asked = vec![IpAddr::from(Ipv4Addr::from(address))];
            if !list.is_empty() {
                let network = list[near.index(list.len())];
                asked.extend([network.network(), network.broadcast()]);
            }
            for address in asked {
                prop_assert_eq!(set.contains(address), list.iter().any(|network| network.contains(&address)));
            }
        }
    }
}
