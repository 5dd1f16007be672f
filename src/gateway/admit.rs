//! Cheap limits before any byte of a body: who may knock and how often, how many requests of one client and of all are
//! on their way, how many bytes of bodies the process holds.
//!
//! What is counted here is counted for everybody, forgers included, so none of it may be a provider's budget; that
//! is `spend`, after proof. Memory is fixed: clients share a table of a fixed number of buckets, so a spray of a
//! million addresses costs nothing more than one. All holds are guards that give back when dropped.
//!
//! The places of a route are for what is proven: it is looked at here whether one is left, and it is taken after proof.
//! Otherwise whoever sends bodies slowly, or forges them, would occupy a route without a secret. What has proven nothing
//! yet is bounded for each client, and with everything else in all.

mod allow;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::refusal::{Reason, Refusal};
use crate::clock::Clock;

pub use allow::{Allow, ClientName, Networks};

/// `count` requests per `per`, and `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests in one period.
    pub count: NonZeroU32,
    /// The period; never zero.
    pub per: Duration,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// One cell every `per / count`; never faster than one a nanosecond.
    fn quota(self) -> Quota {
        let interval = self.per.checked_div(self.count.get()).unwrap_or_default();
        let interval = interval.max(Duration::from_nanos(1));
        // `None` only for an interval of zero.
        Quota::with_period(interval)
            .unwrap_or(Quota::per_second(self.count))
            .allow_burst(self.burst)
    }
}

/// A bucket whose level outlives reloads: limiters made from the same bucket at different times agree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket(Arc<InMemoryState>);

impl StateStore for Bucket {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

/// Our clock in the limiter's terms: time since the clock was made.
///
/// A limiter counts from its first reading, so that is given as zero: the limiters of one bucket, made at different
/// reloads, then count from the same instant.
#[derive(Debug)]
struct Ticks {
    clock: Clock,
    read: AtomicBool,
}

impl GovernorClock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        match self.read.swap(true, Ordering::Relaxed) {
            true => Duration::from_nanos(self.clock.moment().nanos()),
            false => Duration::ZERO,
        }
    }
}

/// One budget: a rate over one bucket.
#[derive(Debug)]
pub(crate) struct Budget(RateLimiter<NotKeyed, Bucket, Ticks, NoOpMiddleware<Duration>>);

impl Budget {
    pub(crate) fn new(rate: Rate, bucket: &Bucket, clock: &Clock) -> Self {
        Budget(RateLimiter::new(rate.quota(), bucket.clone(), ticks(clock)))
    }

    /// Takes one, or tells how long to wait for it.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        self.0.check().map_err(|not| not.wait_time_from(self.0.clock().now()))
    }
}

fn ticks(clock: &Clock) -> Ticks {
    Ticks {
        clock: clock.clone(),
        read: AtomicBool::new(false),
    }
}

/// Buckets in the table of clients: 4 MiB, whatever comes.
const CLIENT_BUCKETS: usize = 1 << 19;

/// The buckets of all clients. A client's bucket is chosen by a keyed hash of its address, so nobody can aim at the
/// bucket of somebody else; two clients meet in one bucket with a chance of one in half a million.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    buckets: Arc<[InMemoryState]>,
    hasher: RandomState,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Clients {
            buckets: std::iter::repeat_with(InMemoryState::default)
                .take(CLIENT_BUCKETS)
                .collect(),
            hasher: RandomState::new(),
        }
    }
}

impl StateStore for Clients {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, client: &IpAddr, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let place = self.hasher.hash_one(client) as usize % CLIENT_BUCKETS;
        match self.buckets.get(place) {
            Some(bucket) => bucket.measure_and_replace(&NotKeyed::NonKey, f),
            None => f(None).map(|(allowed, _)| allowed),
        }
    }
}

/// The rate of each client.
pub(crate) struct ClientLimit(RateLimiter<IpAddr, Clients, Ticks, NoOpMiddleware<Duration>>);

impl ClientLimit {
    pub(crate) fn new(rate: Rate, clients: &Clients, clock: &Clock) -> Self {
        ClientLimit(RateLimiter::new(rate.quota(), clients.clone(), ticks(clock)))
    }

    /// Counts a request of `client`.
    ///
    /// # Errors
    /// [`Reason::ClientRate`] with the time after which the next one is welcome.
    pub(crate) fn check(&self, client: IpAddr) -> Result<(), Refusal> {
        let refuse = |not: governor::NotUntil<Duration>| {
            Refusal::until(Reason::ClientRate, not.wait_time_from(self.0.clock().now()))
        };
        self.0.check_key(&subscriber(client)).map_err(refuse)
    }
}

/// Counters in the table of clients at work: 256 KiB, whatever comes.
const WORK_COUNTERS: usize = 1 << 16;

/// When a client that has too much under way is welcome again, and anybody when the process has.
const LATER: Duration = Duration::from_secs(1);

/// The requests of each client that have proven nothing yet. Counters are chosen like the buckets of [`Clients`].
#[derive(Clone, Debug)]
pub(crate) struct Unproven {
    counters: Arc<[AtomicU32]>,
    hasher: RandomState,
}

impl Unproven {
    pub(crate) fn new() -> Self {
        Unproven {
            counters: std::iter::repeat_with(AtomicU32::default).take(WORK_COUNTERS).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request of `client` until the returned guard is dropped.
    ///
    /// # Errors
    /// [`Reason::ClientBusy`] when it has `max` of them already.
    pub(crate) fn enter(&self, client: IpAddr, max: u32) -> Result<Unknown, Refusal> {
        let at = self.hasher.hash_one(subscriber(client)) as usize % WORK_COUNTERS;
        let one_more = |count: u32| (count < max).then(|| count.saturating_add(1));
        let counter = self.counters.get(at);
        let entered = counter.is_some_and(|counter| {
            counter
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                .is_ok()
        });
        match entered {
            true => Ok(Unknown {
                counters: Arc::clone(&self.counters),
                at,
            }),
            false => Err(Refusal::until(Reason::ClientBusy, LATER)),
        }
    }
}

/// A request that has proven nothing yet.
#[derive(Debug)]
pub(crate) struct Unknown {
    counters: Arc<[AtomicU32]>,
    at: usize,
}

impl Drop for Unknown {
    fn drop(&mut self) {
        if let Some(counter) = self.counters.get(self.at) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What one subscriber holds: an IPv4 address, or a whole IPv6 /64.
pub(crate) fn subscriber(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// A number of places. Taking one gives a guard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<AtomicUsize>);

impl Places {
    /// Takes a place when fewer than `max` are taken.
    ///
    /// # Errors
    /// `full`.
    pub(crate) fn take(&self, max: usize, full: Reason) -> Result<Place, Refusal> {
        let one_more = |taken: usize| (taken < max).then(|| taken.saturating_add(1));
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Place(self.clone())),
            Err(_) => Err(Refusal::until(full, LATER)),
        }
    }

    /// Whether fewer than `max` are taken at present, for whom it would be in vain to go on without.
    ///
    /// # Errors
    /// `full`.
    pub(crate) fn has_room(&self, max: usize, full: Reason) -> Result<(), Refusal> {
        match self.taken() < max {
            true => Ok(()),
            false => Err(Refusal::until(full, LATER)),
        }
    }

    /// Takes a place where there is no limit, to be counted.
    pub(crate) fn enter(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }

    /// Places taken at present.
    pub(crate) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place(Places);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of bodies held in memory, over the whole process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<AtomicUsize>);

impl Memory {
    /// A hold of nothing, to grow as bytes arrive; together all holds stay within `max` bytes.
    pub(crate) fn hold(&self, max: usize) -> Hold {
        Hold {
            memory: self.clone(),
            max,
            bytes: 0,
        }
    }

    /// Bytes held at present.
    pub(crate) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes one request holds; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Hold {
    memory: Memory,
    max: usize,
    bytes: usize,
}

impl Hold {
    /// Makes it `bytes` in all; never shrinks.
    ///
    /// # Errors
    /// [`Reason::Memory`] when the process holds too much already.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let fits = |held: usize| held.checked_add(more).filter(|sum| *sum <= self.max);
        match self.memory.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.bytes = bytes;
                Ok(())
            }
            Err(_) => Err(Refusal::until(Reason::Memory, Duration::from_secs(1))),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    fn rate(count: u32, burst: u32) -> Rate {
        Rate {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_secs(1),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn a_client_gets_its_rate_and_no_more() {
        // One client must not be able to occupy the gateway.
        let manual = ManualClock::at(UnixMillis(0));
        let limit = ClientLimit::new(rate(10, 20), &Clients::new(), &manual.clock());
        let client = IpAddr::from([192, 0, 2, 1]);
        let admitted = (0..100).filter(|_| limit.check(client).is_ok()).count();
        assert_eq!(admitted, 20);
        let refusal = limit.check(client).unwrap_err();
        assert_eq!(refusal.reason, Reason::ClientRate);
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(100)));
        manual.advance(Duration::from_secs(60));
        let admitted = (0..100).filter(|_| limit.check(client).is_ok()).count();
        assert_eq!(admitted, 20, "a quiet minute earns one burst");
    }

    #[test]
    fn an_ipv6_subscriber_is_one_client() {
        // Everybody with IPv6 has 2^64 addresses to knock with.
        let limit = ClientLimit::new(rate(10, 20), &Clients::new(), &ManualClock::at(UnixMillis(0)).clock());
        let spray = (0..100u16).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 1, n, n, n, n]));
        assert_eq!(spray.filter(|address| limit.check(*address).is_ok()).count(), 20);
    }

    #[test]
    fn a_spray_of_a_million_clients_stops_nobody_else() {
        // Memory is fixed by construction; what could go wrong is that the spray fills an honest client's bucket.
        let manual = ManualClock::at(UnixMillis(0));
        let limit = ClientLimit::new(rate(100, 200), &Clients::new(), &manual.clock());
        for n in 0..1_000_000u32 {
            let [a, b, c, d] = n.to_be_bytes();
            let _ = limit.check(IpAddr::from([10, b.wrapping_add(a), c, d]));
        }
        let honest = (0..1000u32).map(|n| IpAddr::from((0xc000_0200 + n).to_be_bytes()));
        let refused = honest.filter(|client| limit.check(*client).is_err()).count();
        assert!(refused <= 1, "{refused} of 1000 honest clients refused");
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[ignore = "ten million keys: seconds, and alone in its process, since it weighs it"]
    fn a_spray_of_ten_million_clients_weighs_nothing_and_hides_nobody() {
        // An attacker with IPv6 has as many /64 as he likes: kept one by one they fill the memory, and dropped one by one
        // they let an offender start afresh.
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
            pages * 4096
        };
        let before = resident();
        let limit = ClientLimit::new(rate(100, 200), &Clients::new(), &ManualClock::at(UnixMillis(0)).clock());
        let offender = IpAddr::from([192, 0, 2, 1]);
        let heard = |limit: &ClientLimit| (0..1000).filter(|_| limit.check(offender).is_ok()).count();
        assert!(heard(&limit) <= 200);
        for n in 0..10_000_000_u32 {
            let [high, low] = [(n >> 16) as u16, n as u16];
            let _ = limit.check(IpAddr::from([0x2001, 0xdb8, high, low, 0, 0, 0, 1]));
        }
        assert_eq!(heard(&limit), 0, "the offender started afresh");
        let honest = (0..10_000_u32).map(|n| IpAddr::from((0xc633_6400 + n).to_be_bytes()));
        let refused = honest.filter(|client| limit.check(*client).is_err()).count();
        let grown = resident().saturating_sub(before);
        println!("{refused} of 10,000 honest clients refused, {grown} bytes more");
        assert!(refused <= 10, "{refused}");
        assert!(grown <= 64 << 20, "{grown}");
    }

    #[test]
    fn a_bucket_survives_a_reload() {
        // Otherwise every reload hands out a fresh burst.
        let manual = ManualClock::at(UnixMillis(0));
        let (clock, bucket) = (manual.clock(), Bucket::default());
        let before = Budget::new(rate(1, 5), &bucket, &clock);
        assert_eq!((0..9).filter(|_| before.take().is_ok()).count(), 5);
        manual.advance(Duration::from_secs(2));
        let after = Budget::new(rate(1, 5), &bucket, &clock);
        assert_eq!((0..9).filter(|_| after.take().is_ok()).count(), 2);
    }

    #[test]
    fn the_first_limiter_counts_like_the_later_ones() {
        // A limiter made late in the life of the process must not start with a debt or a fortune.
        let manual = ManualClock::at(UnixMillis(0));
        manual.advance(Duration::from_secs(3600));
        let budget = Budget::new(rate(1, 5), &Bucket::default(), &manual.clock());
        assert_eq!((0..9).filter(|_| budget.take().is_ok()).count(), 5);
        assert_eq!(budget.take(), Err(Duration::from_secs(1)));
    }

    #[test]
    fn places_and_bytes_are_given_back() {
        // A leak here closes a route for good.
        let (places, memory) = (Places::default(), Memory::default());
        {
            places.has_room(1, Reason::Busy).unwrap();
            let _one = places.take(2, Reason::Busy).unwrap();
            assert_eq!(places.has_room(1, Reason::Busy).unwrap_err().reason, Reason::Busy);
            let _two = places.take(2, Reason::Busy).unwrap();
            assert_eq!(places.take(2, Reason::Overload).unwrap_err().reason, Reason::Overload);
            let (mut a, mut b) = (memory.hold(100), memory.hold(100));
            a.grow_to(60).unwrap();
            a.grow_to(30).unwrap();
            b.grow_to(40).unwrap();
            assert_eq!(b.grow_to(41).unwrap_err().reason, Reason::Memory);
            assert_eq!((places.taken(), memory.held()), (2, 100));
        }
        assert_eq!((places.taken(), memory.held()), (0, 0));
    }

    #[test]
    fn a_client_has_so_much_under_way_and_no_more() {
        // Slow bodies from one address would keep everybody else out, or for ever those who came once.
        let unproven = Unproven::new();
        let [client, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let held: Vec<_> = (0..3).map(|_| unproven.enter(client, 3).unwrap()).collect();
        let refusal = unproven.enter(client, 3).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.retry_after),
            (Reason::ClientBusy, Some(Duration::from_secs(1)))
        );
        unproven.enter(other, 3).unwrap();
        let neighbours: Vec<_> = (0..4u16)
            .map(|n| unproven.enter(IpAddr::from([0x2001, 0xdb8, 0, 1, n, 0, 0, n]), 3))
            .collect();
        assert_eq!(
            neighbours.iter().filter(|entered| entered.is_ok()).count(),
            3,
            "one /64"
        );
        drop((held, neighbours));
        assert!(
            unproven
                .counters
                .iter()
                .all(|counter| counter.load(Ordering::Relaxed) == 0)
        );
    }
}
