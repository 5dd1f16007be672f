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

mod algorithm;
mod check;
mod compose;
mod encoding;
mod extract;
mod file;
mod form;
pub(crate) mod json;
mod jwt;
mod key;
#[cfg(test)]
mod kinds;
mod mac;
mod native;
mod pinned;
mod place;
mod proof;
#[cfg(test)]
mod properties;
mod pubkey;
mod recipe;
mod scheme;
mod sign;
mod source;
mod template;
#[cfg(test)]
mod testing;
mod timestamp;
mod token;
mod verify;
mod wanted;
mod whole;
#[cfg(test)]
mod wycheproof;
mod x509;

pub use algorithm::Algorithm;
pub use check::{Check, Finished, KeyWanted};
pub use encoding::Encoding;
pub use file::{Format, IdFile, KeyForm, SchemeFile, SignatureFile, TimestampFile, Tolerance};
pub(crate) use form::form_value;
pub use json::JsonPath;
pub use jwt::{BodyClaimFile, BodyHash, ClaimFile, EmptyBody, JwtAlgorithm, JwtFile, JwtKeyForm, KeysFile, PlaceFile};
pub use key::{KeyError, KeyedSecret};
pub use native::{Native, PublicUrl, Settings};
pub use pinned::PinnedUrl;
pub use proof::{Failure, Proof, Strength};
pub use pubkey::{EcdsaForm, PrivateKey, PublicKey, PublicKeyError, PublicKeyForm, SignatureAlgorithm};
pub use scheme::{Scheme, SchemeError};
pub use sign::{Draft, Signed, fitting_id, sign, sign_request};
pub use timestamp::Unit;
pub use verify::{Head, Verifier, VerifierOptions};
pub use wanted::{FetchedKey, KeySource, Unreadable};
