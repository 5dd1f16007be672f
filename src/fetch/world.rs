//! What is outside, as far as the fetcher sees it: names, addresses, authorities.
//!
//! In a running gateway this is the internet: the system's resolver, port 443, public addresses, the system's
//! certificate authorities. Tests put a world of their own in its place, with a provider that listens on loopback; no
//! configuration can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::address;

/// Longest time for one fetch: looking the name up, connecting, TLS, the whole answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The port of every address.
const PORT: u16 = 443;

/// Looks names up.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, to be connected to as they are.
    ///
    /// # Errors
    /// Whatever the resolver says.
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<SocketAddr>>;
}

/// The outside of a fetcher.
#[derive(Clone)]
pub struct World {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) admits: fn(SocketAddr) -> bool,
    pub(super) authorities: Option<Vec<Vec<u8>>>,
    pub(super) patience: Duration,
}

impl World {
    /// The internet.
    pub fn internet() -> World {
        World {
            resolver: Arc::new(System),
            admits: is_public_https,
            authorities: None,
            patience: PATIENCE,
        }
    }

    /// A world for tests: who resolves, which addresses may be connected to, and the certificates (DER) of the
    /// authorities that are trusted instead of the system's.
    pub fn of(resolver: Arc<dyn Resolve>, admits: fn(SocketAddr) -> bool, authorities: Vec<Vec<u8>>) -> World {
        World {
            resolver,
            admits,
            authorities: Some(authorities),
            patience: PATIENCE,
        }
    }

    /// This world, but no fetch takes longer than `patience`.
    pub fn within(self, patience: Duration) -> World {
        World { patience, ..self }
    }

    /// The internet with another resolver: its answers are judged like the system's.
    pub fn resolved_by(resolver: Arc<dyn Resolve>) -> World {
        World {
            resolver,
            ..World::internet()
        }
    }
}

/// Whether the fetcher may connect to `address`: port 443 of a public address.
fn is_public_https(address: SocketAddr) -> bool {
    address.port() == PORT && address::is_public(address.ip())
}

struct System;

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, PORT)).await?.collect())
    }
}
