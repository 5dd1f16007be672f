//! What a secret may have been meant to be.
//!
//! A provider's page shows a text; how it becomes a key is a part of the scheme, and the place where most first
//! attempts fail: decoded or not, with or without its prefix, with the newline of the file it came from. Nothing here
//! is ever printed; findings name the secret's id.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::secret::Secret;
use crate::signature::{KeyForm, KeyedSecret};

/// A secret as it may have been meant.
pub(super) struct Meant {
    /// What is wrong with the one that is configured, as the end of "secret "1" ...".
    pub(super) what: &'static str,
    /// What to do about it.
    pub(super) fix: &'static str,
    pub(super) secret: KeyedSecret,
}

const TAKE_TEXT: &str =
    "the provider's key is another form of this text: check the scheme's `key`, or that this is the provider's secret";

/// Secrets that may have been meant instead of `given`, which becomes a key by `form`, as far as that is known.
pub(super) fn meant(given: &KeyedSecret, form: Option<KeyForm>) -> Vec<Meant> {
    let text = given.secret.expose();
    let mut meant = Vec::new();
    let mut add = |what, fix, key: Option<Vec<u8>>| {
        let secret = key.filter(|key| key != text).and_then(|key| Secret::new(key).ok());
        meant.extend(secret.map(|secret| Meant {
            what,
            fix,
            secret: KeyedSecret {
                id: given.id.clone(),
                secret,
                until: None,
            },
        }));
    };
    let trimmed = text.trim_ascii();
    let unquoted = stripped(trimmed, b"\"").or_else(|| stripped(trimmed, b"'"));
    add(
        "has white space around it",
        "take the white space away",
        Some(trimmed.to_vec()),
    );
    add("is in quotes", "take the quotes away", unquoted.map(<[u8]>::to_vec));
    add(
        "lost the newline at its end",
        "the provider has the newline too: set the secret anew there",
        Some([text, b"\n"].concat()),
    );
    for (what, key) in other_keys(trimmed) {
        add(what, TAKE_TEXT, key.and_then(|key| spelled(form?, &key)));
    }
    meant
}

/// The keys that a text can stand for.
fn other_keys(text: &[u8]) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let bare = text.strip_prefix(b"whsec_");
    vec![
        (
            "is used decoded, but the provider uses its text as it stands",
            Some(text.to_vec()),
        ),
        (
            "is used with its whsec_ prefix, which the provider leaves out",
            bare.map(<[u8]>::to_vec),
        ),
        (
            "is not decoded, but the provider decodes its base64",
            STANDARD.decode(bare.unwrap_or(text)).ok(),
        ),
        (
            "is not decoded, but the provider decodes its base64url",
            URL_SAFE_NO_PAD.decode(text).ok(),
        ),
        (
            "is not decoded, but the provider decodes its hexadecimal",
            hex::decode(text).ok(),
        ),
        (
            "lacks the prefix whsec_ that the provider includes",
            Some([b"whsec_", text].concat()),
        ),
    ]
}

/// The text that `form` turns into `key`; `None` for keys that no shared secret is.
fn spelled(form: KeyForm, key: &[u8]) -> Option<Vec<u8>> {
    match form {
        KeyForm::Utf8 => Some(key.to_vec()),
        KeyForm::Hex => Some(hex::encode(key).into_bytes()),
        KeyForm::Base64 | KeyForm::Whsec => Some(STANDARD.encode(key).into_bytes()),
        KeyForm::Base64url | KeyForm::Pem | KeyForm::Jwk => None,
    }
}

fn stripped<'t>(text: &'t [u8], quote: &[u8]) -> Option<&'t [u8]> {
    text.strip_prefix(quote)?.strip_suffix(quote)
}
