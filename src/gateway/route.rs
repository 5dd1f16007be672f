//! Which route a request is for.
//!
//! A route's path is matched byte for byte. Anything that *some* server would take for a protected path although it
//! is spelt otherwise (`/webhooks//stripe`, `/Webhooks/stripe/`, `%2e`, `;x`, a backslash) is refused: with a
//! pass-through behind it, such a spelling would reach the application's handler without verification. What is
//! matched is what is forwarded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::Method;

use super::refusal::Reason;
use super::{Route, Rules};
use crate::upstream::Upstream;

/// Where a request goes.
pub(crate) enum Found<'a> {
    /// A webhook route: the corridor goes on.
    Webhook(&'a Arc<Route>),
    /// No webhook; the configuration passes such requests through.
    Passthrough(&'a Arc<Upstream>),
}

impl Rules {
    /// Whether a request is for the path of a webhook route, or spelt so that it might be taken for one; under
    /// whatever host name, since whoever serves it next may not look at that.
    pub fn concerns(&self, target: &str) -> bool {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        self.table.exact.contains_key(path) || self.table.protected.contains(&loosest(path))
    }

    /// Whether the guard answers such a request itself, be it with a refusal; false: it is to be passed through.
    pub(crate) fn handles(&self, host: Option<&[u8]>, target: &str) -> bool {
        !matches!(self.find(host, target), Ok(Found::Passthrough(_)))
    }

    /// Finds the route for a request.
    ///
    /// # Errors
    /// [`Reason::NoRoute`] or [`Reason::AmbiguousPath`].
    pub(crate) fn find(&self, host: Option<&[u8]>, target: &str) -> Result<Found<'_>, Reason> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if let Some(routes) = self.table.exact.get(path) {
            // A protected path under a foreign host name must not fall through to the application.
            let route = routes.iter().find(|route| route.serves(host)).ok_or(Reason::NoRoute)?;
            return Ok(Found::Webhook(route));
        }
        if self.table.protected.contains(&loosest(path)) {
            return Err(Reason::AmbiguousPath);
        }
        self.passthrough.as_ref().map(Found::Passthrough).ok_or(Reason::NoRoute)
    }
}

impl Route {
    /// Judges the method.
    ///
    /// # Errors
    /// [`Reason::Method`].
    pub(crate) fn takes(&self, method: &Method) -> Result<(), Reason> {
        match self.methods.contains(method) {
            true => Ok(()),
            false => Err(Reason::Method),
        }
    }

    fn serves(&self, host: Option<&[u8]>) -> bool {
        let Some(own) = &self.host else { return true };
        let Some(asked) = host else { return false };
        // The port is no part of the name; an IPv6 literal keeps its brackets.
        let name = match asked.iter().rposition(|b| *b == b':') {
            Some(colon) if !asked.ends_with(b"]") => asked.get(..colon).unwrap_or(asked),
            _ => asked,
        };
        name.eq_ignore_ascii_case(own.as_bytes())
    }
}

/// Routes by path.
#[derive(Default)]
pub(crate) struct Table {
    exact: HashMap<String, Vec<Arc<Route>>>,
    /// Every path in its loosest reading.
    protected: HashSet<String>,
}

impl Table {
    pub(crate) fn new(routes: impl IntoIterator<Item = Arc<Route>>) -> Self {
        let mut table = Table::default();
        for route in routes {
            table.protected.insert(loosest(&route.path));
            table.exact.entry(route.path.to_string()).or_default().push(route);
        }
        // Routes bound to a host come before the one for any host.
        for routes in table.exact.values_mut() {
            routes.sort_by_key(|route| route.host.is_none());
        }
        table
    }
}

/// Percent-decoding more often than this is not assumed of any server.
const DECODINGS_MAX: usize = 4;

/// The reading of a path in which the most spellings coincide: decoded until nothing changes, backslashes turned,
/// parameters and empty or dotted segments removed, case, trailing dots and spaces dropped. Two paths that any
/// server could take for the same have the same loosest reading.
pub(crate) fn loosest(path: &str) -> String {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODINGS_MAX {
        let decoded = percent_decoded(&bytes);
        if decoded == bytes {
            break;
        }
        bytes = decoded;
    }
    let mut segments: Vec<String> = Vec::new();
    for segment in bytes.split(|b| matches!(b, b'/' | b'\\')) {
        // What follows a NUL or `;` is cut off by some; a query or fragment may have been encoded.
        let cut = segment.iter().position(|b| matches!(b, 0 | b';' | b'?' | b'#'));
        let segment = segment.get(..cut.unwrap_or(segment.len())).unwrap_or_default();
        let text = String::from_utf8_lossy(segment).to_lowercase();
        match text.trim_matches(|c: char| c.is_whitespace() || c.is_control()) {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            kept => segments.push(kept.trim_end_matches(['.', ' ']).to_owned()),
        }
    }
    segments.join("/")
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<2>().filter(|_| *first == b'%');
        match digits.and_then(|[high, low]| Some((hex_digit(*high)? << 4) | hex_digit(*low)?)) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn hex_digit(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_path_coincide() {
        // Each of these reaches some backend's /webhooks/stripe handler when passed through.
        let spellings = [
            "/webhooks/stripe",
            "/webhooks//stripe",
            "//webhooks/stripe",
            "/webhooks/stripe/",
            "/webhooks/./stripe",
            "/webhooks/x/../stripe",
            "/a/../webhooks/stripe",
            "/../webhooks/stripe",
            "/Webhooks/STRIPE",
            "/webhooks%2fstripe",
            "/webhooks%2Fstripe",
            "/%77ebhooks/stripe",
            "/webhooks/%2e/stripe",
            "/webhooks/%252e/stripe",
            "/webhooks/x/%2e%2e/stripe",
            "/webhooks\\stripe",
            "/webhooks%5cstripe",
            "/webhooks/stripe;x=1",
            "/webhooks;v=1/stripe",
            "/webhooks/stripe%00",
            "/webhooks/stripe%00.png",
            "/webhooks/stripe%20",
            "/webhooks/stripe.",
            "/webhooks/stripe%3fx",
            "/webhooks/stripe%23x",
            "/webhooks/stripe%09",
        ];
        for spelling in spellings {
            assert_eq!(loosest(spelling), "webhooks/stripe", "{spelling}");
        }
    }

    #[test]
    fn other_paths_stay_other_paths() {
        // Refusing the application's own paths would break the pass-through.
        for other in [
            "/",
            "/webhooks",
            "/webhooks/stripe2",
            "/webhooks/stripe/x",
            "/stripe",
            "/webhooksstripe",
            "/webhooks/%",
        ] {
            assert_ne!(loosest(other), "webhooks/stripe", "{other}");
        }
    }
}
