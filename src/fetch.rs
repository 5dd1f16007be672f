//! Keys that a provider publishes instead of telling them: fetched under guard, remembered, shared.
//!
//! The gateway's verification calls [`Fetcher::fetch`] when a scheme needs a certificate or a key set that it does not
//! carry, after every check that costs nothing has passed. Where from is a [`PinnedUrl`], which the scheme made; what
//! its name resolves to is looked up once, every address is judged, and the connection goes to a judged address, so
//! that a second, other answer of a name server changes nothing. One GET over verified TLS, no redirects, bounds on
//! bytes and time.
//!
//! What a flood of forgeries can cause: one exchange for each address and lifetime, since results, bad ones too, are
//! remembered and requests that want the same key share one exchange; and for each route no more than its
//! [`Allowance`], however many addresses the forgeries name. What it cannot: push a good key out of memory, or keep one
//! from being refreshed. A key that is new, while forgeries use the allowance up, has to wait: the provider is told to
//! come back.
//!
//! Not checked here: what the key is good for. That is the verifier's part.

mod address;
mod cache;
mod exchange;
mod world;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::{Clock, Moment};
use crate::observe::metrics::{FetchMetrics, Fetched};
use crate::signature::{FetchedKey, KeySource, PinnedUrl};
use crate::upstream::Connector;
use cache::{Cache, Look};

pub use world::{Resolve, World};

/// Fetches that one route may cause in [`ALLOWANCE_TIME`].
const ALLOWANCE: u32 = 10;

/// The time in which a route's allowance counts.
const ALLOWANCE_TIME: Duration = Duration::from_secs(60);

/// Fetches keys for all routes of a process. Cheap to clone; clones share what they remember.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    world: World,
    transport: exchange::Transport,
    cache: Mutex<Cache>,
    metrics: FetchMetrics,
    clock: Clock,
}

/// What a fetch came to. Shared by everybody who waited for it.
type Outcome = Result<Arc<FetchedKey>, FetchError>;

impl Fetcher {
    /// A fetcher that remembers nothing yet. `world` is the internet, except in tests.
    pub fn new(world: World, connector: &Connector, metrics: FetchMetrics, clock: Clock) -> Fetcher {
        Fetcher(Arc::new(Inner {
            transport: exchange::Transport::new(&world, connector),
            world,
            cache: Mutex::default(),
            metrics,
            clock,
        }))
    }

    /// The key that `source` names: from memory, from an exchange that is under way, or by a new one. Those
    /// with an address that has given no key before count against `allowance`. Returns within 3 seconds of real time.
    ///
    /// Dropping the future does not stop an exchange: others may be waiting for it.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, source: &KeySource, allowance: &Allowance) -> Result<Arc<FetchedKey>, FetchError> {
        let mut landed = match self.look(source, allowance) {
            Ok(known) => return known,
            Err(landed) => landed,
        };
        let outcome = match landed.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            // The exchange was stopped with the process.
            Err(_) => None,
        };
        match outcome.unwrap_or(Err(FetchError::Unreachable)) {
            Ok(key) if key.offers(source) => Ok(key),
            Ok(_) => Err(FetchError::Absent),
            Err(FetchError::Unreachable) => self.stale(source).ok_or(FetchError::Unreachable),
            Err(error) => Err(error),
        }
    }

    fn stale(&self, source: &KeySource) -> Option<Arc<FetchedKey>> {
        self.0.cache.lock().stale(source, self.0.clock.moment())
    }

    /// What is remembered, or the exchange to wait for.
    fn look(&self, source: &KeySource, allowance: &Allowance) -> Result<Outcome, watch::Receiver<Option<Outcome>>> {
        let now = self.0.clock.moment();
        let mut cache = self.0.cache.lock();
        let proven = match cache.look(source, now) {
            Look::Known(outcome) => return Ok(outcome),
            Look::UnderWay(landed) => return Err(landed),
            Look::Unknown { proven } => proven,
        };
        let begun = match proven || allowance.take(now) {
            true => cache.start(source, now),
            false => None,
        };
        let Some((sender, landed)) = begun else {
            self.0.metrics.ended(Fetched::Limited);
            return Ok(Err(FetchError::Unreachable));
        };
        let flight = Flight {
            fetcher: self.clone(),
            source: source.clone(),
            sender,
            outcome: None,
        };
        // A runtime that is ending drops the flight at once, and that lands it.
        drop(cache);
        tokio::spawn(flight.fly());
        Err(landed)
    }

    /// Asks for an address once, for nothing but its status: how some providers want a subscription confirmed. Counts
    /// against `allowance`; nothing of it is remembered.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn visit(&self, url: &PinnedUrl, allowance: &Allowance) -> Result<(), FetchError> {
        if !allowance.take(self.0.clock.moment()) {
            self.0.metrics.ended(Fetched::Limited);
            return Err(FetchError::Unreachable);
        }
        let visited = self.0.ask(url).await.map(drop);
        self.0.metrics.ended(Fetched::from(&visited));
        visited
    }
}

impl Inner {
    /// One exchange, its time bounded, its failure told to the log.
    async fn ask(&self, url: &PinnedUrl) -> Result<Vec<u8>, FetchError> {
        let asked = self.transport.get(&self.world, url);
        let fault = match pingora_timeout::timeout(self.world.patience, asked).await {
            Ok(Ok(body)) => return Ok(body),
            Ok(Err(fault)) => fault,
            Err(_) => exchange::Fault::TooSlow,
        };
        log::warn!("{url} gives no key: {fault}");
        Err(fault.means())
    }
}

/// One exchange on its way; lands in the cache whatever becomes of it.
struct Flight {
    fetcher: Fetcher,
    source: KeySource,
    sender: watch::Sender<Option<Outcome>>,
    outcome: Option<Outcome>,
}

impl Flight {
    async fn fly(mut self) {
        let inner = &self.fetcher.0;
        let body = inner.ask(self.source.url()).await;
        self.outcome = Some(body.and_then(|body| self.read(&body)));
    }

    fn read(&self, body: &[u8]) -> Outcome {
        let key = self.source.read(body).map_err(|problem| {
            log::warn!("{} gives no key: {problem}", self.source.url());
            FetchError::Refused
        })?;
        Ok(Arc::new(key))
    }
}

impl Drop for Flight {
    /// Also when the task was cut off: otherwise everybody would wait for it for ever.
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Err(FetchError::Unreachable));
        let inner = &self.fetcher.0;
        inner.metrics.ended(Fetched::from(&outcome));
        inner
            .cache
            .lock()
            .land(&self.source, outcome.clone(), inner.clock.moment());
        self.sender.send_replace(Some(outcome));
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// What is there is no key and will be none: too long, elsewhere, unreadable. The message that names it proves
    /// nothing.
    #[error("what is published there is no key")]
    Refused,
    /// There is nothing of this name.
    #[error("no such key is published")]
    Absent,
    /// It cannot be told at present: no connection, no TLS to this host, no name, no answer in time, too many questions.
    #[error("the key cannot be reached at present")]
    Unreachable,
}

impl<T> From<&Result<T, FetchError>> for Fetched {
    fn from(outcome: &Result<T, FetchError>) -> Self {
        match outcome {
            Ok(_) => Fetched::Ok,
            Err(FetchError::Refused) => Fetched::Refused,
            Err(FetchError::Absent) => Fetched::Absent,
            Err(FetchError::Unreachable) => Fetched::Unreachable,
        }
    }
}

/// How many exchanges a route may cause: ten in a minute. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Allowance(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    since: Option<Moment>,
    count: u32,
}

impl Allowance {
    fn take(&self, now: Moment) -> bool {
        let mut taken = self.0.lock();
        if taken.since.is_none_or(|since| now.since(since) >= ALLOWANCE_TIME) {
            *taken = Taken {
                since: Some(now),
                count: 0,
            };
        }
        taken.count = taken.count.saturating_add(1);
        taken.count <= ALLOWANCE
    }
}

#[cfg(test)]
mod publisher;
#[cfg(test)]
mod tests;
