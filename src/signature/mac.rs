//! Hashes, keyed and plain, and their results.
//!
//! A key is hashed into its MAC once, at start; a request clones the keyed state. Which algorithm runs is fixed by the
//! scheme: no byte of a request chooses it. Results are [`Tag`]s, compared in constant time over their whole
//! length and never printed, because a MAC over a message that has not arrived is as good as a signature.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};

/// The longest result, HMAC-SHA-512's.
pub(crate) const TAG_BYTES_MAX: usize = 64;

/// The algorithms of RFC 2104 that providers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MacKind {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// The plain hashes that some providers put a secret into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashKind {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl HashKind {
    /// Length of the result in bytes.
    pub(crate) fn tag_bytes(self) -> usize {
        match self {
            HashKind::Md5 => 16,
            HashKind::Sha1 => 20,
            HashKind::Sha256 => 32,
            HashKind::Sha384 => 48,
            HashKind::Sha512 => 64,
        }
    }

    /// Whether whoever knows the hash of a message knows the hash of a longer one, too. SHA-384 keeps a part of its
    /// state to itself.
    pub(crate) fn can_be_extended(self) -> bool {
        self != HashKind::Sha384
    }

    /// The hash of a whole message.
    pub(crate) fn of(self, message: &[u8]) -> Tag {
        match self {
            HashKind::Md5 => Tag::from_array(Md5::digest(message).into()),
            HashKind::Sha1 => Tag::from_array(Sha1::digest(message).into()),
            HashKind::Sha256 => Tag::from_array(Sha256::digest(message).into()),
            HashKind::Sha384 => Tag::from_array(Sha384::digest(message).into()),
            HashKind::Sha512 => Tag::from_array(Sha512::digest(message).into()),
        }
    }
}

impl MacKind {
    /// Length of the result in bytes.
    pub(crate) fn tag_bytes(self) -> usize {
        match self {
            MacKind::HmacSha1 => 20,
            MacKind::HmacSha256 => 32,
            MacKind::HmacSha384 => 48,
            MacKind::HmacSha512 => 64,
        }
    }
}

/// A MAC with its key in it, ready for the first byte of a message.
///
/// The sizes differ by the size of a hash state; one indirection per clone would cost more than the room.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Mac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Mac {
    /// Keys a MAC. Any length of key is accepted; the caller refuses empty and short ones.
    pub(crate) fn keyed(kind: MacKind, key: &[u8]) -> Mac {
        const ANY_LENGTH: &str = "HMAC takes keys of every length";
        match kind {
            MacKind::HmacSha1 => Mac::Sha1(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            MacKind::HmacSha256 => Mac::Sha256(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            MacKind::HmacSha384 => Mac::Sha384(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            MacKind::HmacSha512 => Mac::Sha512(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Mac::Sha1(mac) => mac.update(bytes),
            Mac::Sha256(mac) => mac.update(bytes),
            Mac::Sha384(mac) => mac.update(bytes),
            Mac::Sha512(mac) => mac.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Tag {
        match self {
            Mac::Sha1(mac) => Tag::from_array(mac.finalize().into_bytes().into()),
            Mac::Sha256(mac) => Tag::from_array(mac.finalize().into_bytes().into()),
            Mac::Sha384(mac) => Tag::from_array(mac.finalize().into_bytes().into()),
            Mac::Sha512(mac) => Tag::from_array(mac.finalize().into_bytes().into()),
        }
    }
}

/// A computed or presented MAC or hash: up to [`TAG_BYTES_MAX`] bytes, the rest zero.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    bytes: [u8; TAG_BYTES_MAX],
    len: usize,
}

impl Tag {
    /// `None` when `bytes` are more than any MAC has.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Tag> {
        let mut tag = Tag {
            bytes: [0; TAG_BYTES_MAX],
            len: bytes.len(),
        };
        tag.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(tag)
    }

    #[allow(clippy::indexing_slicing, reason = "checked when it is compiled")]
    fn from_array<const N: usize>(bytes: [u8; N]) -> Tag {
        const { assert!(N <= TAG_BYTES_MAX) };
        let mut tag = Tag {
            bytes: [0; TAG_BYTES_MAX],
            len: N,
        };
        tag.bytes[..N].copy_from_slice(&bytes);
        tag
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// 32 bytes that stand for this MAC: padded with zeros when shorter, hashed when longer.
    pub(crate) fn digest(&self) -> [u8; 32] {
        match self.bytes.first_chunk() {
            Some(padded) if self.len <= 32 => *padded,
            _ => Sha256::digest(self.as_bytes()).into(),
        }
    }
}

impl ConstantTimeEq for Tag {
    /// Compares all of the room, so that the time tells neither content nor position of a difference.
    fn ct_eq(&self, other: &Tag) -> Choice {
        self.bytes.ct_eq(&other.bytes) & (self.len as u64).ct_eq(&(other.len as u64))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({} bytes)", self.len)
    }
}
