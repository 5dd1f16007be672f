//! Which route a request is for.
//!
//! A route's path is matched byte for byte. Anything that *some* server would take for a protected path although it
//! is spelt otherwise (`/webhooks//stripe`, `/Webhooks/stripe/`, `%2e`, `;x`, a backslash, `/webhooks/stripe.json`,
//! `/index.php/webhooks/stripe`, `//host/webhooks/stripe`) is refused: with a pass-through behind it, such a spelling
//! would reach the application's handler without verification. What is matched is what is forwarded.

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
        self.table.exact.contains_key(path) || self.table.resembles(path)
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
        if self.table.resembles(path) {
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
    /// Bytes of the longest of them.
    protected_bytes_max: usize,
}

impl Table {
    pub(crate) fn new(routes: impl IntoIterator<Item = Arc<Route>>) -> Self {
        let mut table = Table::default();
        for route in routes {
            let protected = loosest(&route.path);
            table.protected_bytes_max = table.protected_bytes_max.max(protected.len());
            table.protected.insert(protected);
            table.exact.entry(route.path.to_string()).or_default().push(route);
        }
        // Routes bound to a host come before the one for any host.
        for routes in table.exact.values_mut() {
            routes.sort_by_key(|route| route.host.is_none());
        }
        table
    }
}

impl Table {
    /// Whether some server could take `path` for a protected one.
    fn resembles(&self, path: &str) -> bool {
        let path = decoded(path);
        let parts: Vec<String> = parts(&path).collect();
        if parts.iter().any(|part| part == "..") && self.protects_some_of(&parts) {
            return true;
        }
        // Some servers end the whole path where others end a segment; at a `;`, old Jetty.
        let end = path.iter().position(|b| ends_segment(*b));
        let cut = end.and_then(|end| path.get(..end));
        let readings = [Some(&*path), cut].into_iter().flatten();
        let mut readings = readings.flat_map(|path| [Some(path), below_authority(path)]).flatten();
        readings.any(|path| {
            let segments = segments(path);
            self.protects(&segments) || below_scheme(&segments).any(|segments| self.protects(segments))
        })
    }

    /// Whether a protected path is left over when some of the segments are taken away. That is all that `..` can do,
    /// but which ones it takes is another matter to each reader: some know an empty segment, some one with a parameter,
    /// some resolve before they decode (`/webhooks/a//../../stripe`, `/webhooks/a%2fb/../stripe`).
    fn protects_some_of(&self, parts: &[String]) -> bool {
        let is_one = |part: &str, segment: &str| {
            let rest = part.strip_prefix(segment);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let left_over = |path: &String| {
            let mut parts = parts.iter();
            let mut segments = path.split('/').filter(|segment| !segment.is_empty());
            segments.all(|segment| parts.any(|part| is_one(part, segment)))
        };
        parts.len() > CLIMBING_SEGMENTS_MAX || self.protected.iter().any(left_over)
    }

    /// Whether a protected path is what is left of a path when what stands before it is taken for a script
    /// (`/index.php/webhooks/stripe`), or what follows it for the argument of one (`/stripe.php/x`) or for a format
    /// (`/webhooks/stripe.json`). Compares at most the longest protected path, so a long path costs no more than its
    /// length.
    fn protects(&self, segments: &[String]) -> bool {
        let mut rest = segments;
        loop {
            if self.begins_with_protected(rest) {
                return true;
            }
            let Some(script) = rest.iter().position(|segment| is_script(segment)) else {
                return false;
            };
            rest = rest.get(script.saturating_add(1)..).unwrap_or_default();
        }
    }

    fn begins_with_protected(&self, segments: &[String]) -> bool {
        let mut read = String::new();
        for (index, segment) in segments.iter().enumerate() {
            let is_last = index.saturating_add(1) == segments.len();
            if index > 0 {
                read.push('/');
            }
            for (dots, part) in segment.split('.').enumerate() {
                if dots > 0 {
                    // The rest may be a format.
                    if is_last && self.protected.contains(&read) {
                        return true;
                    }
                    read.push('.');
                }
                read.push_str(part);
                if read.len() > self.protected_bytes_max {
                    return false;
                }
            }
            if (is_last || is_script(segment)) && self.protected.contains(&read) {
                return true;
            }
        }
        // Of an empty path, which has no segment.
        segments.is_empty() && self.protected.contains("")
    }
}

/// What the extension of a script can be that gets the rest of the path as its argument. Of PHP, CGI, and IIS.
const SCRIPTS: [&str; 18] = [
    "ashx", "asmx", "asp", "aspx", "axd", "cgi", "dll", "exe", "fcgi", "lua", "phar", "php", "php5", "phtml", "pl",
    "py", "rb", "sh",
];

fn is_script(segment: &str) -> bool {
    segment
        .rsplit_once('.')
        .is_some_and(|(_, extension)| SCRIPTS.contains(&extension))
}

/// A path with `..` that has more segments than this is refused.
const CLIMBING_SEGMENTS_MAX: usize = 64;

/// Decoding more often than this is not assumed of any server.
const DECODINGS_MAX: usize = 4;

/// The reading of a path in which the most spellings coincide: decoded until nothing changes, backslashes turned,
/// parameters and empty or dotted segments removed, case, trailing dots and spaces dropped. Two paths that any
/// server could take for the same have the same loosest reading, but for what [`Table::resembles`] adds.
pub(crate) fn loosest(path: &str) -> String {
    segments(&decoded(path)).join("/")
}

fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODINGS_MAX {
        if !bytes.contains(&b'%') {
            break;
        }
        bytes = shortened(&percent_decoded(&bytes));
    }
    bytes
}

fn segments(path: &[u8]) -> Vec<String> {
    let mut segments: Vec<String> = Vec::new();
    for part in parts(path) {
        match &*part {
            ".." => drop(segments.pop()),
            _ => segments.push(part),
        }
    }
    segments
}

/// What is between slashes, `..` included, without what is empty.
fn parts(path: &[u8]) -> impl Iterator<Item = String> {
    path.split(|b| matches!(b, b'/' | b'\\')).filter_map(|segment| {
        let cut = segment.iter().position(|b| ends_segment(*b));
        let segment = segment.get(..cut.unwrap_or(segment.len())).unwrap_or_default();
        let text = String::from_utf8_lossy(segment).to_lowercase();
        // A plus is a space to whoever decodes paths like forms.
        match text.trim_matches(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            ".." => Some("..".to_owned()),
            text => Some(text.trim_end_matches(['.', ' ']).to_owned()).filter(|kept| !kept.is_empty()),
        }
    })
}

/// What `new URL(path, base)` of JavaScript, `parse_url` of PHP and `urlsplit` of Python take for the path of one that
/// begins with two slashes: before it they read the name of a host.
fn below_authority(path: &[u8]) -> Option<&[u8]> {
    let is_slash = |b: &u8| matches!(b, b'/' | b'\\');
    let start = path.iter().position(|b| !is_slash(b)).filter(|slashes| *slashes >= 2)?;
    let host = path.get(start..)?;
    host.get(host.iter().position(is_slash)?..)
}

/// What is left of a path behind the scheme, and behind scheme and host, of a whole URL in it: `/http://x/webhooks/stripe`
/// is one to whoever takes the slash in front of it away and joins the rest to a base.
fn below_scheme(segments: &[String]) -> impl Iterator<Item = &[String]> {
    let is_url = segments.first().is_some_and(|first| first.ends_with(':'));
    (1..=2).filter_map(move |above| segments.get(above..).filter(|_| is_url))
}

/// What follows a NUL or `;` is cut off by some; a query or fragment may have been encoded.
fn ends_segment(b: u8) -> bool {
    matches!(b, 0 | b';' | b'?' | b'#')
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
        } else if let Some((byte, after)) = hex(tail, 2) {
            out.extend(u8::try_from(byte));
            rest = after;
        } else if let [b'u' | b'U', digits @ ..] = tail
            && let Some((code, after)) = hex(digits, 4)
        {
            // IIS takes this besides.
            let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        } else {
            out.push(b'%');
        }
    }
    out
}

/// The number that the first `count` bytes spell, and what follows them.
fn hex(bytes: &[u8], count: usize) -> Option<(u32, &[u8])> {
    let (digits, after) = bytes.split_at_checked(count)?;
    let digit = |number: u32, b: &u8| Some((number << 4) | char::from(*b).to_digit(16)?);
    Some((digits.iter().try_fold(0, digit)?, after))
}

/// ASCII that is spelt longer than UTF-8 allows, as lenient decoders read it.
fn shortened(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, after) = match rest {
            [0xc0..=0xc1, low @ 0x80..=0xbf, after @ ..] => (((first & 1) << 6) | (low & 0x3f), after),
            [0xe0, high @ 0x80..=0x81, low @ 0x80..=0xbf, after @ ..] => (((high & 1) << 6) | (low & 0x3f), after),
            [0xf0, 0x80, high @ 0x80..=0x81, low @ 0x80..=0xbf, after @ ..] => {
                (((high & 1) << 6) | (low & 0x3f), after)
            }
            _ => (*first, tail),
        };
        out.push(byte);
        rest = after;
    }
    out
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
            "/webhooks/.../stripe",
            "/webhooks/stripe+",
            "/webhooks%u002fstripe",
            "/webhooks/%u0073tripe",
            "/webhooks%c0%afstripe",
            "/webhooks%e0%80%afstripe",
            "/webhooks%f0%80%80%afstripe",
            "/webhooks/%c1%b3tripe",
            "/webhooks/x/%c0%ae%c0%ae/stripe",
        ];
        for spelling in spellings {
            assert_eq!(loosest(spelling), "webhooks/stripe", "{spelling}");
        }
    }

    fn table(paths: &[&str]) -> Table {
        let mut table = Table::default();
        for path in paths {
            let protected = loosest(path);
            table.protected_bytes_max = table.protected_bytes_max.max(protected.len());
            table.protected.insert(protected);
        }
        table
    }

    #[test]
    fn scripts_and_formats_around_a_path_change_nothing() {
        // Frameworks find the handler of a protected path behind their front controller, with a format, or cut off.
        let table = table(&["/webhooks/stripe", "/hooks/pay.php", "/"]);
        for spelling in [
            "",
            "//",
            "/.",
            "/webhooks/stripe",
            "/webhooks/stripe.json",
            "/webhooks/stripe.x.json",
            "/index.php/webhooks/stripe",
            "/a.b/index.php/webhooks/stripe.json",
            "/index.php",
            "/index.php/app.cgi/webhooks/stripe/",
            "/webhooks/stripe%00/x",
            "/webhooks/stripe%3f/../../x",
            "//example.com/webhooks/stripe",
            "//user@example.com:80/webhooks/./stripe/",
            "///x/webhooks/stripe",
            "/\\x\\webhooks/stripe.json",
            "/%2fx/index.php/webhooks/stripe",
            "//webhooks/webhooks/stripe",
            "//x/",
            "/http://x/webhooks/stripe",
            "/http:/webhooks/stripe",
            "/webhooks/a//../../stripe",
            "/webhooks/stripe//..",
            "/webhooks/a%2fb/../stripe",
            "/webhooks/a%5cb/../stripe",
            "/webhooks/;/../stripe",
            "/webhooks/..;/../stripe",
            "/webhooks/%20/../stripe",
            "/a/b%2f..%2f../webhooks/stripe.json",
            "/x/../stripe.php/../hooks/pay.php/y",
            "/hooks/pay.php/x",
            "/hooks/pay.php.json",
            "/index.php/hooks/pay.php/x/y",
        ] {
            assert!(table.resembles(spelling), "{spelling}");
        }
        for other in [
            "/webhooks",
            "/webhooks.json",
            "/webhooks/stripe.json/x",
            "/webhooks/stripe/x.json",
            "/v1.2/webhooks/stripe",
            "/example.com/webhooks/stripe",
            "/index.php/x",
            "/index.php/webhooks/stripe/x",
            "/x/webhooks/stripe",
            "//x/y/webhooks/stripe",
            "//example.com/webhooks",
            "/http://x/y/webhooks/stripe",
            "//x",
            "/x//webhooks/stripe",
            "/hooks/pay",
            "/hooks/pay.phpx/y",
            "/hooks/x.php/pay",
        ] {
            assert!(!table.resembles(other), "{other}");
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
