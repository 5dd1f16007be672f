//! From a secret as the operator gave it to the key that the MAC takes.
//!
//! Called at start and on reload, never by a request. An empty, short or undecodable key stops the start here: the
//! worst webhook holes were keys that came out empty (`whsec_` and nothing behind it decodes to zero bytes, with
//! which anybody can sign). Errors name the key's id and lengths, never content.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::encoding::{key_from_base64, key_from_hex};
use super::file::KeyForm;
use crate::clock::UnixMillis;
use crate::secret::{SECRET_BYTES_MIN, Secret};

/// One of a route's secrets.
#[derive(Clone, Debug)]
pub struct KeyedSecret {
    /// Its name, for logs and metrics.
    pub id: Arc<str>,
    /// The secret as the provider shows it.
    pub secret: Secret,
    /// From this instant on the secret matches nothing.
    pub until: Option<UnixMillis>,
}

/// Decodes a secret's text; never empty.
pub(super) fn decode(form: KeyForm, id: &str, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = secret.expose();
    let (key, what) = match form {
        KeyForm::Utf8 => (Some(Zeroizing::new(text.to_vec())), "text"),
        KeyForm::Hex => (key_from_hex(text), "hexadecimal"),
        KeyForm::Base64 => (key_from_base64(text), "padded base64"),
        KeyForm::Whsec => {
            let bare = text.strip_prefix(b"whsec_").unwrap_or(text);
            (key_from_base64(bare), "padded base64 after an optional whsec_")
        }
    };
    match key {
        None => Err(KeyError::Undecodable { id: id.into(), what }),
        Some(key) if key.is_empty() => Err(KeyError::Empty { id: id.into() }),
        Some(key) => Ok(key),
    }
}

/// Refuses a decoded key that can be guessed.
pub(super) fn check_length(id: &str, key: &[u8]) -> Result<(), KeyError> {
    if key.len() < SECRET_BYTES_MIN {
        return Err(KeyError::Short {
            id: id.into(),
            bytes: key.len(),
        });
    }
    Ok(())
}

/// Why secrets and scheme make no verifier, or no signature. No variant carries a byte of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The list is empty.
    #[error("there is no secret")]
    NoSecret,
    /// The key has no bytes once it is decoded.
    #[error("secret {id:?} is empty once it is decoded")]
    Empty {
        /// The key's id.
        id: String,
    },
    /// The key has fewer bytes than [`SECRET_BYTES_MIN`], and nobody said that this is all right.
    #[error("secret {id:?} has {bytes} bytes, fewer than {SECRET_BYTES_MIN}; `short_secrets: true` allows it")]
    Short {
        /// The key's id.
        id: String,
        /// Its length once decoded.
        bytes: usize,
    },
    /// The text is not what the scheme says keys are.
    #[error("secret {id:?} is not {what}")]
    Undecodable {
        /// The key's id.
        id: String,
        /// What it should be.
        what: &'static str,
    },
    /// Two secrets have one id.
    #[error("two secrets have the id {id:?}")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// Two ids have one key, so that the cut-off of one would not end it.
    #[error("secrets {first:?} and {second:?} are the same key")]
    SameKey {
        /// The earlier one's id.
        first: String,
        /// The later one's id.
        second: String,
    },
    /// The tolerance does not fit the scheme.
    #[error("tolerance {0}")]
    Tolerance(&'static str),
    /// The id or time cannot be signed under the scheme's rules.
    #[error("{0}")]
    Unsignable(&'static str),
}
