//! Host names of servers, looked up in the background.
//!
//! A name is looked up before its configuration serves and again every `resolve`, never while a request waits. A
//! lookup that fails keeps the addresses there are: name servers fail more often than backends move.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ServerSettings, Upstream};

const LOOKUP_TIME_MAX: Duration = Duration::from_secs(5);

/// More addresses than this of one name are not used.
const ADDRESSES_MAX: usize = 16;

/// Looks up every host name of `upstream` and takes the addresses over.
pub(crate) async fn resolve(upstream: &Upstream) {
    let settings = &upstream.settings;
    if settings.servers.iter().all(|server| literal(server).is_some()) {
        return;
    }
    let mut addresses = Vec::new();
    for server in &settings.servers {
        let found = lookup(server).await.unwrap_or_else(|| {
            log::warn!(
                "upstream {}: {} does not resolve; its addresses stay",
                upstream.name(),
                server.host
            );
            upstream.servers.addresses_of(server)
        });
        addresses.extend(found.into_iter().map(|address| (server, address)));
    }
    upstream.servers.replace(addresses);
}

fn literal(server: &ServerSettings) -> Option<SocketAddr> {
    let ip = server.host.parse().ok()?;
    Some(SocketAddr::new(ip, server.port))
}

async fn lookup(server: &ServerSettings) -> Option<Vec<SocketAddr>> {
    if let Some(address) = literal(server) {
        return Some(vec![address]);
    }
    let asked = tokio::net::lookup_host((server.host.as_str(), server.port));
    let mut found: Vec<_> = pingora_timeout::timeout(LOOKUP_TIME_MAX, asked)
        .await
        .ok()?
        .ok()?
        .collect();
    // Resolvers shuffle; a stable order keeps round robin fair and pooled connections in use.
    found.sort();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    (!found.is_empty()).then_some(found)
}
