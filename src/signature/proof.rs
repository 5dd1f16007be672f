//! The two ends of a verification: a proof, or the reason why there is none.
//!
//! A [`Proof`] has private fields and one constructor that only this module's parent can reach; whoever holds one
//! holds something that a provider's secret was used for. It is what the gateway's `Permit` is made from.

use std::fmt;
use std::sync::Arc;

use super::pinned::PinnedUrl;
use crate::clock::UnixMillis;

/// How much a verified request proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strength {
    /// The body is bound: these bytes came from the holder of the secret.
    Verified,
    /// The origin is proven, the body is not: the scheme leaves it out.
    Authenticated,
    /// Nothing is proven; the configuration says so. Never the strength of a [`Proof`].
    Waived,
}

impl Strength {
    /// The label for headers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Strength::Verified => "verified",
            Strength::Authenticated => "authenticated",
            Strength::Waived => "waived",
        }
    }
}

/// That a request carried a signature under one of the route's secrets, in time.
///
/// Made by [`Check::finish`](super::Check::finish) alone. It says nothing about repetition: a captured request is
/// just as well signed the second time; [`Proof::digests`] is what to remember it by.
pub struct Proof {
    strength: Strength,
    key_id: Arc<str>,
    signed_id: Option<String>,
    digests: Vec<[u8; 32]>,
    timestamp: Option<UnixMillis>,
    confirmation: Option<PinnedUrl>,
}

impl Proof {
    pub(super) fn new(
        strength: Strength,
        key_id: Arc<str>,
        signed_id: Option<String>,
        digests: Vec<[u8; 32]>,
        timestamp: Option<UnixMillis>,
    ) -> Proof {
        Proof {
            strength,
            key_id,
            signed_id,
            digests,
            timestamp,
            confirmation: None,
        }
    }

    /// This proof, of a message that asks for a sign of consent.
    pub(super) fn asking(self, confirmation: Option<PinnedUrl>) -> Proof {
        Proof { confirmation, ..self }
    }

    /// Whether the body is bound.
    pub fn strength(&self) -> Strength {
        self.strength
    }

    /// The id of the secret that matched; the first one in configured order if several did. Safe to log.
    pub fn key_id(&self) -> &Arc<str> {
        &self.key_id
    }

    /// The provider's event id where the scheme signs one (`{id}`): 1 to 512 visible ASCII characters.
    pub fn signed_id(&self) -> Option<&str> {
        self.signed_id.as_deref()
    }

    /// What stands for the signed bytes, for a replay key: one digest for each secret that was active, sorted.
    ///
    /// Each is the MAC of the signed bytes under that secret (padded or hashed to 32 bytes), whichever of the presented
    /// signatures matched. So two requests with the same signed bytes share a digest for every secret that was active
    /// both times: dropping, adding or re-spelling signatures, or changing the order of secrets, makes nothing
    /// look new; and the body is not hashed a second time. A repeat may come under a changed list of secrets, so
    /// remember all of them and look for any of them.
    ///
    /// A digest may be a valid signature of its message: keep it out of logs and answers.
    pub fn digests(&self) -> &[[u8; 32]] {
        &self.digests
    }

    /// The signed time, if the scheme has one.
    pub fn timestamp(&self) -> Option<UnixMillis> {
        self.timestamp
    }

    /// What to visit if the route consents to what this message asks: a subscription that waits for its confirmation.
    /// The address was made by the scheme; nothing of the message but a token is in it.
    pub fn confirmation(&self) -> Option<&PinnedUrl> {
        self.confirmation.as_ref()
    }
}

impl fmt::Debug for Proof {
    /// Without the digests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("strength", &self.strength)
            .field("key_id", &self.key_id)
            .field("signed_id", &self.signed_id)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// Why there is no proof. For the log and the metrics; the sender must not be told which one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// A header that the scheme needs is absent.
    Missing,
    /// A header is there and cannot be read: no usable signature, a bad timestamp or id, contradicting repetitions.
    Malformed,
    /// The signature is right and its time is outside the tolerance.
    Stale,
    /// No presented signature is right under any active secret.
    Mismatch,
    /// There is no secret to judge by: all of the route's secrets are past their cut-off.
    UnknownKey,
}

impl Failure {
    /// Every reason, in the order of the checks.
    pub const ALL: [Failure; 5] = [
        Failure::Missing,
        Failure::Malformed,
        Failure::UnknownKey,
        Failure::Mismatch,
        Failure::Stale,
    ];

    /// The label for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Missing => "missing",
            Failure::Malformed => "malformed",
            Failure::Stale => "stale",
            Failure::Mismatch => "mismatch",
            Failure::UnknownKey => "unknown_key",
        }
    }
}
