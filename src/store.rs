//! The replay store: which events were seen, which are on their way, and how they ended.
//!
//! The corridor calls [`ReplayStore::claim`] after verification and before dispatch. The answer is one of three:
//! the event is new and the caller holds a [`Claim`] on it, somebody else holds one (wait for their outcome), or
//! it is done (answer with the first success's status). A claim is *settled* when the backend or the queue took
//! the event, and *released* when it did not, so that a provider's retry after a failure is never mistaken for a
//! replay. A claim whose holder vanished ends with its lease.
//!
//! Two attacks shaped this room. Stores keyed by an unsigned delivery id are defeated by changing the id, so a
//! [`ReplayKey`] is made of authenticated bytes and the route, nothing else. Stores that record before they verify
//! are poisoned by forgeries, so nothing here is read or written on behalf of a request without proof: that is
//! the caller's duty, as is the choice of windows (`keep` no shorter than twice the signature tolerance).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

pub use memory::MemoryReplay;
pub use sqlite::SqliteReplay;
pub(crate) use sqlite::{REPLAY_TABLES, ReplayExpiry, Restored, Settlement};

mod memory;
mod sqlite;
#[cfg(test)]
mod suite;

/// The most keys one event is claimed under: one per active secret of its route.
pub const REPLAY_KEYS_MAX: usize = 8;

/// Remembers events by their replay keys. One store serves all routes of a process, or of several.
///
/// An engine promises that `claim` is atomic over all keys: of any number of racing claims that share a key, one
/// is [`Claimed::New`]. It does not promise to outlive the process unless [`survives_restart`] says so.
///
/// Only [`claim`] is for the gateway. `settle` and `release` are what a [`Claim`] calls at its end; they take the
/// token that the engine handed out, and act only on what that token still holds.
///
/// [`claim`]: ReplayStore::claim
/// [`survives_restart`]: ReplayStore::survives_restart
#[async_trait]
pub trait ReplayStore: Send + Sync + 'static {
    /// Takes all of `keys` for `lease`, or says why not.
    ///
    /// A key that is done decides before one that is in flight. A lease that passed counts as free. `lease` should
    /// exceed the longest time that dispatch may take: a holder that outlives its lease may be overtaken.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was claimed then. Known keys are answered even when the store is full.
    async fn claim(self: Arc<Self>, keys: &ReplayKeys, lease: Duration) -> Result<Claimed, StoreError>;

    /// Marks every key as done with `status` for `keep`, unless another claim has got hold of one of them since.
    ///
    /// A lease that passed without a successor can still be settled: the event did arrive.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the lease passed, its place was given away, and no other is left;
    /// [`StoreError::Down`] when the outcome may or may not be recorded.
    async fn settle(&self, keys: &ReplayKeys, token: Token, status: u16, keep: Duration)
    -> Result<Settled, StoreError>;

    /// Frees every key that `token` still holds and tells the waiters `outcome`.
    ///
    /// Runs inside `drop`, so it must neither block nor fail: an engine behind a network does the work elsewhere
    /// and leaves what it cannot do to the lease.
    fn release(&self, keys: &ReplayKeys, token: Token, outcome: Option<u16>);

    /// Keys held at this moment, for the gauge. May count some whose time has passed.
    fn entries(&self) -> u64;

    /// The most keys held at once; beyond it new events are refused with [`StoreError::Full`].
    fn capacity(&self) -> u64;

    /// Whether done events are still known after a restart. The gateway warns at start when they are not.
    fn survives_restart(&self) -> bool;
}

/// One event under one secret, as 32 bytes that nobody without the secret, or the provider's word, can choose.
///
/// The SHA-256 of a domain label, the kind of key, the route's name and the authenticated bytes, each with its
/// length in front: no two different pairs of route and id are written the same way. The derivation is part of
/// the format of durable stores and does not change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayKey([u8; 32]);

impl ReplayKey {
    /// The key of an event with an id that the provider *signed*. An unsigned delivery id is not one.
    pub fn of_event(route: &str, event_id: &str) -> Self {
        ReplayKey::derive(b"event", route, event_id.as_bytes())
    }

    /// The key of an event without a signed id: `digest` is the MAC or hash of the signed bytes.
    pub fn of_digest(route: &str, digest: &[u8; 32]) -> Self {
        ReplayKey::derive(b"digest", route, digest)
    }

    /// The key's bytes, for engines; uniformly distributed, no secret.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(kind: &[u8], route: &str, authenticated: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"hookward replay key 1\n");
        for part in [kind, route.as_bytes(), authenticated] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        ReplayKey(hash.finalize().into())
    }
}

impl fmt::Debug for ReplayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "ReplayKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// The keys of one event: 1 to [`REPLAY_KEYS_MAX`], sorted, no two the same. Cheap to clone.
///
/// An event with a signed id has one. An event without is claimed under one digest per active secret, all or
/// nothing, and is a duplicate when *any* of them is known: while secrets rotate, a captured request must not
/// look new because another of its signatures was left in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayKeys(Arc<[ReplayKey]>);

impl ReplayKeys {
    /// Sorts and deduplicates.
    ///
    /// # Errors
    /// [`KeysError`] when none or more than [`REPLAY_KEYS_MAX`] different ones are left.
    pub fn new(keys: impl IntoIterator<Item = ReplayKey>) -> Result<Self, KeysError> {
        // One more than allowed is enough to know, however long the input is.
        let mut sorted: Vec<ReplayKey> = Vec::with_capacity(REPLAY_KEYS_MAX);
        for key in keys {
            if let Err(place) = sorted.binary_search(&key) {
                if sorted.len() == REPLAY_KEYS_MAX {
                    return Err(KeysError::TooMany);
                }
                sorted.insert(place, key);
            }
        }
        if sorted.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(ReplayKeys(sorted.into()))
    }

    /// The keys in ascending order; never empty.
    pub fn as_slice(&self) -> &[ReplayKey] {
        &self.0
    }
}

impl From<ReplayKey> for ReplayKeys {
    fn from(key: ReplayKey) -> Self {
        ReplayKeys(Arc::new([key]))
    }
}

/// Why a set of keys is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// An event needs a key.
    #[error("an event needs a replay key")]
    Empty,
    /// More than [`REPLAY_KEYS_MAX`].
    #[error("an event has more than {REPLAY_KEYS_MAX} replay keys")]
    TooMany,
}

/// What a claim found.
#[derive(Debug)]
#[must_use]
pub enum Claimed {
    /// Nobody has this event: it is the caller's, until the claim ends.
    New(Claim),
    /// Somebody is dispatching it at this moment.
    InFlight(Waiter),
    /// It was taken before, with this status.
    Done {
        /// What the backend or the queue answered the first time.
        status: u16,
    },
}

/// Tells one claim from every other that the same store ever granted, so that a holder that comes back after its
/// lease cannot undo its successor's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// For engines, which never hand out the same number twice.
    pub fn new(number: u64) -> Self {
        Token(number)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The hold on an event. Ends in [`settle`](Claim::settle), in [`release`](Claim::release), or, when dropped without either
/// (the task was cancelled, the client went away), as released with nobody answered.
#[must_use = "a dropped claim is released"]
pub struct Claim {
    store: Arc<dyn ReplayStore>,
    keys: ReplayKeys,
    token: Token,
    open: bool,
}

impl Claim {
    /// For engines: the guard of what `token` took in `store`.
    pub fn new(store: Arc<dyn ReplayStore>, keys: ReplayKeys, token: Token) -> Self {
        Claim {
            store,
            keys,
            token,
            open: true,
        }
    }

    /// The event was taken with `status`: repeats within `keep` are answered with it and not forwarded.
    ///
    /// Call it for 2xx answers and queue receipts only. Once called, the claim is not released any more, even if the
    /// returned future is dropped early or fails: the event did arrive, and a repeat should rather wait out the
    /// lease than be forwarded at once.
    ///
    /// # Errors
    /// [`StoreError`]: the outcome is not known to be recorded. The event was delivered all the same; a repeat may
    /// be delivered again.
    pub fn settle(mut self, status: u16, keep: Duration) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        self.open = false;
        async move { self.store.settle(&self.keys, self.token, status, keep).await }
    }

    /// Hands the duty to end this claim over to `store`, with what identifies it there; gives the claim back when it
    /// is another store's.
    pub(crate) fn hand_over(mut self, store: &Arc<impl ReplayStore>) -> Result<(ReplayKeys, Token), Claim> {
        if !std::ptr::addr_eq(Arc::as_ptr(&self.store), Arc::as_ptr(store)) {
            return Err(self);
        }
        self.open = false;
        Ok((self.keys.clone(), self.token))
    }

    /// The event was not taken; its next copy is new. `outcome` is the status that waiting copies share, `None` when
    /// there is no answer to share.
    pub fn release(mut self, outcome: Option<u16>) {
        self.open = false;
        self.store.release(&self.keys, self.token, outcome);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.open {
            self.store.release(&self.keys, self.token, None);
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("keys", &self.keys)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Whether a settled claim still was the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The outcome is on record; repeats will be absorbed.
    Recorded,
    /// The lease passed and another claim took over, which owns the record. This event was dispatched twice: the
    /// lease is too short for the backend.
    Overtaken,
}

/// Waits for the claim that a duplicate ran into. Dropping it is free and leaves nothing behind.
#[must_use = "a waiter does nothing until its outcome is awaited"]
pub struct Waiter(Pin<Box<dyn Future<Output = Outcome> + Send>>);

impl Waiter {
    /// For engines: `outcome` resolves when the claim in flight ends. It must be safe to drop at any time.
    pub fn new(outcome: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Waiter(Box::pin(outcome))
    }

    /// Resolves when the claim in flight is settled, released or found dead.
    ///
    /// Always put a timeout around it: a holder that died without releasing (another process) is noticed only when
    /// somebody next touches the key, which may be never.
    pub async fn outcome(self) -> Outcome {
        self.0.await
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter(..)")
    }
}

/// How the claim that a duplicate waited for ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The event was taken with this status.
    Settled(u16),
    /// It was not. With a status, that is the answer to share; without, nobody answered and the waiter may claim.
    Released(Option<u16>),
}

/// Why the store has no answer. Either way the request is refused (503) and the provider comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Every place is taken by an entry whose time has not passed. More capacity or a shorter window helps; time
    /// does, too.
    #[error("the replay store is full")]
    Full,
    /// The engine cannot be reached or does not work.
    #[error("the replay store does not answer")]
    Down,
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn no_two_events_share_a_key() {
        // An event of one route would block another route's, or an id that is cut differently another event.
        let digest = [b'7'; 32];
        let all = [
            ReplayKey::of_event("a", "bc"),
            ReplayKey::of_event("ab", "c"),
            ReplayKey::of_event("abc", ""),
            ReplayKey::of_event("", "abc"),
            ReplayKey::of_event("b", "bc"),
            ReplayKey::of_event("a", "bc\0"),
            ReplayKey::of_event("a", "77777777777777777777777777777777"),
            ReplayKey::of_digest("a", &digest),
            ReplayKey::of_digest("b", &digest),
            ReplayKey::of_digest("a", &[0; 32]),
        ];
        for (at, key) in all.iter().enumerate() {
            assert!(!all[..at].contains(key), "{at}");
        }
    }

    #[test]
    fn the_derivation_is_a_format() {
        // A durable store would know none of its events after an upgrade, and every captured one could be replayed.
        assert_eq!(
            hex::encode(ReplayKey::of_event("billing", "evt_1").as_bytes()),
            "e7a2c888072c047f60dbcd9d71775067f8b13eef66cf9d726c2addf4b55b56f7"
        );
        assert_eq!(
            hex::encode(ReplayKey::of_digest("github", &[1; 32]).as_bytes()),
            "02e54d4afb82bbea4811bb3561050205d430d2d52ff23c348a40c9226d3f919b"
        );
    }

    #[test]
    fn keys_are_sorted_different_and_few() {
        // Keys out of order lock crosswise; a key twice would be a duplicate of itself.
        let key = |number: u8| ReplayKey::of_digest("route", &[number; 32]);
        let keys = ReplayKeys::new([3, 1, 2, 3, 1].map(key)).unwrap();
        assert_eq!(keys.as_slice().len(), 3);
        assert!(keys.as_slice().is_sorted());
        assert_eq!(keys, ReplayKeys::new([2, 3, 1].map(key)).unwrap());
        assert_eq!(ReplayKeys::new([key(1), key(1)]).unwrap(), key(1).into());
        assert_eq!(ReplayKeys::new([]), Err(KeysError::Empty));
        assert_eq!(
            ReplayKeys::new((0..8).chain(0..8).map(key)).unwrap().as_slice().len(),
            REPLAY_KEYS_MAX
        );
        assert_eq!(ReplayKeys::new((0..9).map(key)), Err(KeysError::TooMany));
    }

    /// An engine that is out of order, and writes down what its claims ask of it.
    #[derive(Default)]
    struct Broken(Mutex<Vec<Asked>>);

    #[derive(Debug, PartialEq)]
    enum Asked {
        Settle(u64, u16),
        Release(u64, Option<u16>),
    }

    #[async_trait]
    impl ReplayStore for Broken {
        async fn claim(self: Arc<Self>, _: &ReplayKeys, _: Duration) -> Result<Claimed, StoreError> {
            Err(StoreError::Down)
        }

        async fn settle(&self, _: &ReplayKeys, token: Token, status: u16, _: Duration) -> Result<Settled, StoreError> {
            self.0.lock().push(Asked::Settle(token.number(), status));
            Err(StoreError::Down)
        }

        fn release(&self, _: &ReplayKeys, token: Token, outcome: Option<u16>) {
            self.0.lock().push(Asked::Release(token.number(), outcome));
        }

        fn entries(&self) -> u64 {
            0
        }

        fn capacity(&self) -> u64 {
            0
        }

        fn survives_restart(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn a_claim_ends_once() {
        // An event that arrived is freed because recording it failed, and its copy is delivered at once.
        let store = Arc::new(Broken::default());
        let claim = |number| {
            let keys = ReplayKey::of_event("route", "evt_1").into();
            Claim::new(store.clone(), keys, Token::new(number))
        };
        assert_eq!(
            claim(1).settle(200, Duration::from_secs(1)).await,
            Err(StoreError::Down)
        );
        drop(claim(2).settle(200, Duration::from_secs(1)));
        claim(3).release(Some(502));
        drop(claim(4));
        let asked = [
            Asked::Settle(1, 200),
            Asked::Release(3, Some(502)),
            Asked::Release(4, None),
        ];
        assert_eq!(*store.0.lock(), asked);
    }
}
