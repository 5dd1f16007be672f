//! For whom a trusted proxy speaks, by `X-Forwarded-For` or by `Forwarded` (RFC 7239).
//!
//! Every proxy adds to the right end of the list whom it got the request from; what is further left came from there, and
//! in the end from whoever likes to invent something. So a list is read from the right, over the proxies that are ours,
//! to the first address that is not: the client. A list that cannot be read to that point names nobody, and nothing
//! left of it is believed. Which of the two headers the proxies write is configured: a proxy that knows one of them
//! passes the other on as it came, from a stranger.

use std::net::IpAddr;

use http::HeaderMap;

/// The header in which trusted proxies say for whom they speak; the other one is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
}

/// Whom a trusted proxy speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// For a client, which spoke TLS or not if that was said.
    For(IpAddr, Option<bool>),
    /// For itself, or another proxy of ours.
    Itself,
    /// For somebody it does not name.
    Nobody,
}

/// What reads one line.
type Read = fn(&[u8]) -> Vec<Node>;

/// Reads the header. `trusted` tells which addresses are proxies of ours.
pub(super) fn behind(headers: &HeaderMap, header: ProxyHeader, trusted: impl Fn(IpAddr) -> bool) -> Spoken {
    let (name, read): (_, Read) = match header {
        ProxyHeader::XForwardedFor => ("x-forwarded-for", addresses),
        ProxyHeader::Forwarded => ("forwarded", elements),
    };
    // Several lines are one list.
    let lines = headers.get_all(name).into_iter().rev();
    for node in lines.flat_map(|line| read(line.as_bytes()).into_iter().rev()) {
        match node.address {
            None => return Spoken::Nobody,
            Some(address) if !trusted(address) => return Spoken::For(address, node.tls),
            Some(_) => {}
        }
    }
    Spoken::Itself
}

/// One entry of a list.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// `None`: it names no address, or cannot be read.
    address: Option<IpAddr>,
    /// Whether it came over TLS, if that is said.
    tls: Option<bool>,
}

/// `X-Forwarded-For`: addresses between commas.
fn addresses(line: &[u8]) -> Vec<Node> {
    let address = |entry: &[u8]| {
        let entry = std::str::from_utf8(entry).ok()?.trim();
        entry.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    };
    let node = |entry| Node {
        address: address(entry),
        tls: None,
    };
    line.split(|b| *b == b',').map(node).collect()
}

/// `Forwarded`: elements between commas, each of pairs between semicolons.
///
/// A line is read from its beginning, because only from there it is known what is inside of quotes. Quotes that somebody
/// left open swallow what a proxy added behind them, or break it; either way the line cannot be read.
fn elements(line: &[u8]) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut rest = line;
    loop {
        let Some((node, after)) = element(rest) else {
            return vec![Node::default()];
        };
        nodes.push(node);
        match after.split_first() {
            None => return nodes,
            Some((_, after)) => rest = after,
        }
    }
}

/// Reads one element: whom it is for, and what follows, beginning with a comma or empty. `None` when it is none.
fn element(bytes: &[u8]) -> Option<(Node, &[u8])> {
    let mut node = None;
    let mut proto = None;
    let mut rest = bytes;
    loop {
        rest = rest.trim_ascii_start();
        // Pairs may be left out.
        if !rest.is_empty() && !rest.starts_with(b";") && !rest.starts_with(b",") {
            let (name, value, after) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for") {
                node = once(node, address(&value))?;
            } else if name.eq_ignore_ascii_case(b"proto") {
                proto = once(proto, value.eq_ignore_ascii_case(b"https"))?;
            }
            rest = after.trim_ascii_start();
        }
        match rest.split_first() {
            Some((b';', after)) => rest = after,
            None | Some((b',', _)) => {
                let (address, tls) = (node.flatten(), proto);
                return Some((Node { address, tls }, rest));
            }
            Some(_) => return None,
        }
    }
}

/// `value`, unless there is one already: one of the two is somebody else's.
fn once<T>(known: Option<T>, value: T) -> Option<Option<T>> {
    known.is_none().then_some(Some(value))
}

/// Reads `name=value`, the value a token or in quotes.
fn pair(bytes: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, rest) = token(bytes)?;
    let rest = rest.strip_prefix(b"=")?;
    match rest.strip_prefix(b"\"") {
        Some(rest) => {
            let (value, rest) = quoted(rest)?;
            Some((name, value, rest))
        }
        None => {
            let (value, rest) = token(rest)?;
            Some((name, value.to_vec(), rest))
        }
    }
}

/// At least one character of a token, and what follows.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes
        .iter()
        .position(|b| !crate::http1::is_token(*b))
        .unwrap_or(bytes.len());
    bytes.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

/// The rest of a quoted text, unescaped, and what follows its end.
fn quoted(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut rest = bytes;
    loop {
        let (first, after) = rest.split_first()?;
        rest = after;
        match first {
            b'"' => return Some((text, rest)),
            b'\\' => {
                let (escaped, after) = rest.split_first()?;
                text.push(*escaped);
                rest = after;
            }
            plain => text.push(*plain),
        }
    }
}

/// An address, IPv6 in brackets, and perhaps a port; `None` for `unknown`, for names that hide somebody (`_x`), and for
/// everything else.
fn address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let (address, port): (IpAddr, _) = match node.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), port)
        }
        None => {
            let at = node.find(':').unwrap_or(node.len());
            let (address, port) = node.split_at_checked(at)?;
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    is_port(port).then(|| address.to_canonical())
}

/// Nothing, or a colon and a number, or a colon and a name that hides it.
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else {
        return text.is_empty();
    };
    match port.strip_prefix('_') {
        Some(hidden) => {
            !hidden.is_empty()
                && hidden
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        }
        None => (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT: &str = "192.0.2.1";

    fn spoken(lines: &[String]) -> Spoken {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("forwarded", line.parse().unwrap());
        }
        behind(&headers, ProxyHeader::Forwarded, |address| {
            address.to_string().starts_with("10.")
        })
    }

    proptest! {
        #[test]
        fn nothing_before_a_proxy_s_word_makes_another_client(
            before in "[ -~]{0,40}",
            joined in any::<bool>(),
            form in 0_usize..4,
        ) {
            // Whoever can choose his own address is let in where somebody else is, and limited nowhere.
            let word = [
                format!("for={CLIENT}"),
                format!("for=\"{CLIENT}:4711\";proto=https;by=\"[2001:db8::9]\""),
                format!("proto=https;by=\"_secret\";for={CLIENT}"),
                format!("for={CLIENT}, for=10.1.2.3"),
            ];
            let lines = match joined {
                true => vec![format!("{before}, {}", word[form])],
                false => vec![before, word[form].clone()],
            };
            let spoken = spoken(&lines);
            let is_client = matches!(spoken, Spoken::For(address, _) if address.to_string() == CLIENT);
            // In a line of its own nothing can touch it; behind other text it is read rightly, or the line is not.
            prop_assert!(is_client || (joined && spoken == Spoken::Nobody), "{:?}: {:?}", lines, spoken);
        }

        #[test]
        fn no_line_is_too_strange_to_be_read(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = elements(&line);
            let _ = addresses(&line);
        }
    }
}
