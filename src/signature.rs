//! Signature schemes: what a provider signs, and whether a request carries that signature.
//!
//! Pure and synchronous: headers, body bytes, secrets and the time go in; a [`Proof`] or a [`Failure`] comes out.
//! Nothing here knows a provider's name, a socket or a clock. A [`Scheme`] is built once from the [`SchemeFile`]
//! that presets and users write alike; a [`Verifier`] joins it with the secrets of one route; every request gets a
//! [`Check`] that computes the MAC while the body arrives.
//!
//! What holds for every scheme, because each line was somebody's hole:
//! the algorithm comes from the configuration and never from the request; the signed bytes are the received bytes;
//! a value has one spelling or is refused; every active secret is compared with every presented signature in
//! constant time and without early exit; age is judged after the signature; two different triples of id, timestamp
//! and body never give the same signed bytes; an empty key cannot be configured.
//!
//! Not judged here: replays (see [`Proof::digests`] for the key to judge them by), and repeated or look-alike
//! headers beyond what one scheme reads (see [`Scheme::security_headers`]).

mod encoding;
mod extract;
mod file;
mod key;
mod mac;
mod proof;
#[cfg(test)]
mod properties;
mod scheme;
mod sign;
mod template;
#[cfg(test)]
mod testing;
mod timestamp;
mod verify;

pub use encoding::Encoding;
pub use file::{Format, IdFile, KeyForm, SchemeFile, SignatureFile, TimestampFile};
pub use key::{KeyError, KeyedSecret};
pub use mac::MacKind;
pub use proof::{Failure, Proof, Strength};
pub use scheme::{Scheme, SchemeError};
pub use sign::sign;
pub use timestamp::Unit;
pub use verify::{Check, Verifier, VerifierOptions};
