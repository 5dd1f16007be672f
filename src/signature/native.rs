//! Verifiers that see a whole request, and what they share.
//!
//! Most schemes are a template whose MAC is computed while the body arrives. What no template can say (a sorted form,
//! signed items in an array, a token with a digest of the body in it) is a pure function over a [`Message`] and the
//! keys that are active; it answers with what it [`Found`]. Called by [`Check::finish`](super::Check::finish) alone.
//!
//! A verifier promises to try every key with every presented signature, without early exit and in constant time, and
//! to report strength by what really is bound in this request. It does not judge age: the caller does, after a match,
//! so that a stale forgery is a forgery.

mod adyen;
mod alipay;
mod apple_app_store;
mod atlassian_connect;
pub(super) mod aws_sns;
mod braintree;
mod bridge;
mod contentful;
mod dropbox_sign;
mod ebay;
mod exact_online;
mod hubspot;
mod judge;
mod keygen;
mod kind;
mod members;
mod multipart;
mod neon_auth;
pub(super) mod paypal;
mod plivo;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
mod treezor;
mod twilio;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

use super::form;
use super::proof::Strength;
use super::pubkey::PublicKey;
use crate::clock::UnixMillis;
use crate::secret::Secret;

pub use kind::Native;
pub(crate) use kind::NativeKey;
pub(super) use kind::{Signed, SigningKey, Unsigned};

/// Longest value of a setting, in bytes.
const SETTING_BYTES_MAX: usize = 4096;

/// Longest public URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// A request that has arrived completely.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    /// The method as received.
    pub(super) method: &'a str,
    /// Path and query as received, nothing decoded.
    pub(super) target: &'a str,
    /// The headers as received.
    pub(super) headers: &'a HeaderMap,
    /// The body as received.
    pub(super) body: &'a [u8],
    /// The URL that the provider was given; there whenever the scheme uses it.
    pub(super) public_url: Option<&'a PublicUrl>,
    /// The route's settings; every name that the scheme uses is in it.
    pub(super) settings: &'a Settings,
}

impl<'a> Message<'a> {
    /// The query of the request without its `?`; empty when there is none.
    pub(super) fn query(&self) -> &'a str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}

/// A key to verify with. Its position in the list is what [`Found::matched`] counts.
#[derive(Clone, Copy)]
pub(super) struct ActiveKey<'a> {
    secret: &'a [u8],
    public: Option<&'a PublicKey>,
}

impl<'a> ActiveKey<'a> {
    /// A shared secret, decoded as the scheme says.
    pub(super) fn new(secret: &'a [u8]) -> Self {
        ActiveKey { secret, public: None }
    }

    /// A public key.
    pub(super) fn public(key: &'a PublicKey) -> Self {
        ActiveKey {
            secret: &[],
            public: Some(key),
        }
    }

    /// The bytes of a shared secret; none of a public key.
    pub(super) fn secret(&self) -> &'a [u8] {
        self.secret
    }

    /// The public key, if it is one.
    pub(super) fn public_key(&self) -> Option<&'a PublicKey> {
        self.public
    }
}

/// What a whole-message verifier has seen. Age is judged by the caller.
pub(super) struct Found {
    /// The first key, by position, under which a signature is right.
    pub(super) matched: Option<usize>,
    /// What a repeat is recognised by: with shared secrets the MAC under each active key, cut or padded to 32 bytes;
    /// with public keys the SHA-256 of the signed bytes; with tokens the SHA-256 of the body.
    pub(super) digests: Vec<[u8; 32]>,
    /// The signed event id, if there is one.
    pub(super) signed_id: Option<String>,
    /// The signed time, if there is one.
    pub(super) timestamp: Option<UnixMillis>,
    /// What this very request proves.
    pub(super) strength: Strength,
}

/// The URL under which a provider reaches a route, as the operator registered it there.
///
/// Schemes that sign the URL sign this text to the last byte; what proxies made of it on its way does not count.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: Box<str>,
    path_at: usize,
    query_at: usize,
}

impl PublicUrl {
    /// Reads an absolute URL: `https://hooks.example.com/webhooks/square?tenant=1`.
    ///
    /// # Errors
    /// Why it is none that a provider could call: another protocol, no host, a user, a fragment, white space, anything
    /// but visible ASCII, more than 2048 bytes.
    pub fn parse(text: &str) -> Result<PublicUrl, &'static str> {
        if text.len() > URL_BYTES_MAX {
            return Err("is longer than 2048 bytes");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has white space or a character that is not ASCII");
        }
        let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
            return Err("does not begin with https://");
        };
        if rest.contains('#') {
            return Err("has a fragment, which is never sent");
        }
        let host_at = text.len().saturating_sub(rest.len());
        let host_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let host = rest.get(..host_end).unwrap_or_default();
        if host.is_empty() || host.starts_with(':') || host.contains(['@', '\\']) {
            return Err("has no host, or more than a host");
        }
        let path_at = host_at.saturating_add(host_end);
        let path = text.get(path_at..).unwrap_or_default();
        let query_at = path.find('?').map_or(text.len(), |at| path_at.saturating_add(at));
        Ok(PublicUrl {
            text: text.into(),
            path_at,
            query_at,
        })
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Everything before the query.
    pub fn base(&self) -> &str {
        self.text.get(..self.query_at).unwrap_or_default()
    }

    /// Path and query as a request to this URL has them.
    pub(super) fn target(&self) -> String {
        match self.path_and_query() {
            target if target.starts_with('/') => target.to_owned(),
            query => format!("/{query}"),
        }
    }

    /// The host without a port.
    pub(super) fn host(&self) -> &str {
        let authority = self.text.get(..self.path_at).unwrap_or_default();
        let host = authority.rsplit_once("//").map_or(authority, |(_, host)| host);
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        }
    }

    /// Path and query; empty when the URL ends with its host.
    pub fn path_and_query(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }

    /// The query without its `?`; empty when there is none.
    pub fn query(&self) -> &str {
        let query = self.text.get(self.query_at..).unwrap_or_default();
        query.strip_prefix('?').unwrap_or(query)
    }
}

impl fmt::Debug for PublicUrl {
    /// Without the query, in which some operators keep a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicUrl({})", self.base())
    }
}

/// What a route tells its scheme by name: an app key, a webhook id, a verify token.
///
/// Some of the values are secrets, so none is ever printed.
#[derive(Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, Arc<Secret>>,
}

impl Settings {
    /// Nothing.
    pub const NONE: &'static Settings = &Settings {
        values: BTreeMap::new(),
    };

    /// Adds a value.
    ///
    /// # Errors
    /// Why the value cannot be used: it is no text, has control characters or is longer than 4096 bytes.
    pub fn insert(&mut self, name: &str, value: Secret) -> Result<(), &'static str> {
        match std::str::from_utf8(value.expose()) {
            _ if value.len() > SETTING_BYTES_MAX => Err("is longer than 4096 bytes"),
            Ok(text) if !text.chars().any(char::is_control) => {
                self.values.insert(name.to_owned(), Arc::new(value));
                Ok(())
            }
            Ok(_) => Err("has a control character"),
            Err(_) => Err("is not UTF-8"),
        }
    }

    /// The value of this name.
    pub fn find(&self, name: &str) -> Option<&str> {
        let value = self.values.get(name)?;
        std::str::from_utf8(value.expose()).ok()
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

impl fmt::Debug for Settings {
    /// The names alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_what_a_provider_could_call() {
        // A URL that is cut in another place than the provider's makes every event a forgery.
        let rows = [
            (
                "https://h.example/a/b?c=d",
                Some(("https://h.example/a/b", "/a/b?c=d", "c=d")),
            ),
            ("https://h.example:8443/a", Some(("https://h.example:8443/a", "/a", ""))),
            ("http://h", Some(("http://h", "", ""))),
            ("https://h?x", Some(("https://h", "?x", "x"))),
            ("https://h/?", Some(("https://h/", "/?", ""))),
            ("https://h/a?b?c", Some(("https://h/a", "/a?b?c", "b?c"))),
            ("https://h/a?b=@", Some(("https://h/a", "/a?b=@", "b=@"))),
            ("HTTPS://h/", None),
            ("ftp://h/", None),
            ("h/", None),
            ("", None),
            ("https://", None),
            ("https:///a", None),
            ("https://:80/a", None),
            ("https://u@h/a", None),
            ("https://h/a#b", None),
            ("https://h/a b", None),
            ("https://h/\u{e9}", None),
        ];
        for (text, expected) in rows {
            let url = PublicUrl::parse(text).ok();
            let parts = url.as_ref().map(|url| (url.base(), url.path_and_query(), url.query()));
            assert_eq!(parts, expected, "{text:?}");
        }
        let url = |text| PublicUrl::parse(text).unwrap();
        let targets = ["https://h", "https://h/", "https://h:1?a=b", "http://h:/a"].map(|text| url(text).target());
        assert_eq!(targets, ["/", "/", "/?a=b", "/a"]);
        let hosts = ["https://h", "https://h:8443/", "https://[::1]/", "https://[::1]:1/"].map(url);
        assert_eq!(hosts.each_ref().map(PublicUrl::host), ["h", "h", "[::1]", "[::1]"]);
        let long = |bytes: usize| PublicUrl::parse(&format!("https://h/{}", "a".repeat(bytes - 10)));
        assert!(long(2048).is_ok() && long(2049).is_err());
    }

    #[test]
    fn settings_print_their_names_alone() {
        // A verify token in a log opens the route to whoever reads the log.
        let mut settings = Settings::default();
        settings
            .insert("verify_token", Secret::new("hunter2").unwrap())
            .unwrap();
        assert_eq!(settings.find("verify_token"), Some("hunter2"));
        assert_eq!(settings.find("other"), None);
        assert_eq!(format!("{settings:?}"), "{\"verify_token\"}");
        for bad in [b"a\nb".to_vec(), vec![0xff], vec![b'x'; 4097]] {
            assert!(settings.insert("x", Secret::new(bad).unwrap()).is_err());
        }
    }
}
