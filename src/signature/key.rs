//! From a secret as the operator gave it to the key that the MAC takes.
//!
//! Called at start and on reload, never by a request. An empty, short or undecodable key stops the start here: the
//! worst webhook holes were keys that came out empty (`whsec_` and nothing behind it decodes to zero bytes, with
//! which anybody can sign). Errors name the key's id and lengths, never content.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::encoding::{key_from_base64, key_from_hex};
use super::file::KeyForm;
use super::pubkey::PublicKeyError;
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
            let bare = text.strip_prefix(b"v1,").unwrap_or(text);
            let bare = bare.strip_prefix(b"whsec_").unwrap_or(bare);
            (key_from_base64(bare), "padded base64 after an optional whsec_")
        }
        KeyForm::Base64url | KeyForm::Pem | KeyForm::Jwk => (None, "a shared secret, as public keys are none"),
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
    /// The text is no public key, or one that proves nothing.
    #[error("key {id:?} {why}")]
    Public {
        /// The key's id.
        id: String,
        /// What is wrong with it.
        why: PublicKeyError,
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
    /// The scheme's keys are fetched, so that a secret would verify nothing.
    #[error("has no meaning: the keys of this scheme are published by the provider")]
    NoneNeeded,
    /// The secret of HTTP Basic has no colon.
    #[error("secret {id:?} is not user:password")]
    NotBasic {
        /// The key's id.
        id: String,
    },
    /// The scheme signs the URL, and the route does not say it.
    #[error("the scheme signs the URL under which the provider reaches this route; say it as `public_url`")]
    PublicUrl,
    /// The scheme needs a setting that is not there, or cannot use the one that is.
    #[error("setting {name:?} {why}")]
    Setting {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The id or time cannot be signed under the scheme's rules.
    #[error("{0}")]
    Unsignable(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes; the error without its fields.
    fn decoded(form: KeyForm, text: &str) -> Result<Vec<u8>, &'static str> {
        let secret = Secret::new(text).map_err(|_| "blank")?;
        match decode(form, "a", &secret) {
            Ok(key) => Ok(key.to_vec()),
            Err(KeyError::Empty { .. }) => Err("empty"),
            Err(KeyError::Undecodable { .. }) => Err("undecodable"),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn keys_are_decoded_as_the_scheme_says() {
        // A key decoded in another way makes every event a forgery, or every forgery an event.
        use KeyForm::{Base64, Hex, Utf8, Whsec};
        let rows: &[(_, _, Result<&[u8], _>)] = &[
            (Utf8, "whsec_abc", Ok(b"whsec_abc")),
            (Utf8, " a ", Ok(b" a ")),
            (Utf8, "a\n", Ok(b"a\n")),
            (Utf8, "caf\u{e9}", Ok(b"caf\xc3\xa9")),
            (Utf8, "", Err("blank")),
            (Utf8, " ", Err("blank")),
            (Utf8, "\r\n", Err("blank")),
            (Hex, "00ff", Ok(b"\x00\xff")),
            (Hex, "00FF", Ok(b"\x00\xff")),
            (Hex, "0", Err("undecodable")),
            (Hex, "0x00ff", Err("undecodable")),
            (Hex, "00 ff", Err("undecodable")),
            (Hex, "00ff\n", Err("undecodable")),
            (Hex, "zz", Err("undecodable")),
            (Base64, "YWJj", Ok(b"abc")),
            (Base64, "YWI=", Ok(b"ab")),
            (Base64, "YWI", Err("undecodable")),
            (Base64, "YWJ=", Err("undecodable")),
            (Base64, "YWI==", Err("undecodable")),
            (Base64, "YW I=", Err("undecodable")),
            (Base64, "YWJj\n", Err("undecodable")),
            (Base64, "-_-_", Err("undecodable")),
            (Base64, "+/+/", Ok(b"\xfb\xff\xbf")),
            (Base64, "=", Err("undecodable")),
            (Base64, "whsec_YWJj", Err("undecodable")),
            (Whsec, "whsec_YWJj", Ok(b"abc")),
            (Whsec, "YWJj", Ok(b"abc")),
            (Whsec, "whsec_", Err("empty")),
            (Whsec, "whsec_ ", Err("undecodable")),
            (Whsec, "WHSEC_YWJj", Err("undecodable")),
            (Whsec, "whsec_whsec_YWJj", Err("undecodable")),
            (Whsec, "whpk_YWJj", Err("undecodable")),
            (Whsec, "whsk_YWJj", Err("undecodable")),
            (Whsec, "v1,whsec_YWJj", Ok(b"abc")),
            (Whsec, "v1,YWJj", Ok(b"abc")),
            (Whsec, "whsec_v1,YWJj", Err("undecodable")),
            (Whsec, "whsec_\u{e9}", Err("undecodable")),
        ];
        for (form, text, expected) in rows {
            assert_eq!(
                decoded(*form, text).as_deref().map_err(|e| *e),
                *expected,
                "{form:?} {text:?}"
            );
        }
    }

    #[test]
    fn length_is_counted_after_decoding() {
        // Sixteen characters of base64 are only twelve bytes of key.
        assert_eq!(check_length("a", &[1; 16]), Ok(()));
        let short = KeyError::Short {
            id: "a".into(),
            bytes: 15,
        };
        assert_eq!(check_length("a", &[1; 15]), Err(short));
    }

    #[test]
    fn errors_show_no_byte_of_a_secret() {
        // The log of a failed start is read by many.
        let secret = Secret::new("not-base64-topsecret").unwrap();
        let error = decode(KeyForm::Base64, "old", &secret).unwrap_err();
        assert_eq!(error.to_string(), "secret \"old\" is not padded base64");
        assert!(!format!("{error:?}").contains("topsecret"));
    }
}
