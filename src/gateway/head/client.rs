//! For whom a trusted proxy speaks, by `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Every proxy adds to the right end of these lists whom it got the request from; what is further left came from there,
//! and in the end from whoever likes to invent something. So lists are read from the right, over the proxies that are
//! ours, to the first address that is not: the client. A list that cannot be read to that point names nobody, and
//! nothing left of it is believed. Nor does anybody count when both headers are there and name two clients: one of
//! them was written by a stranger, and nobody can say which.

use std::net::IpAddr;

use http::HeaderMap;

/// Whom a trusted proxy speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// For a client.
    For(IpAddr),
    /// For itself, or another proxy of ours.
    Itself,
    /// For somebody it does not name.
    Nobody,
}

/// Reads both headers. `trusted` tells which addresses are proxies of ours.
pub(super) fn behind(headers: &HeaderMap, trusted: &impl Fn(IpAddr) -> bool) -> Spoken {
    let older = chain(headers, "x-forwarded-for", trusted, addresses);
    let newer = chain(headers, "forwarded", trusted, elements);
    match (older, newer) {
        (None, None) => Spoken::Itself,
        (Some(spoken), None) | (None, Some(spoken)) => spoken,
        (Some(older), Some(newer)) if older == newer => older,
        (Some(_), Some(_)) => Spoken::Nobody,
    }
}

/// The nodes that one line names, from left to right; `None` for one that names no address, or for a line that
/// cannot be read.
type Nodes = Vec<Option<IpAddr>>;

/// Reads one of the headers; `None` when it is not there. Several lines are one list.
fn chain(
    headers: &HeaderMap,
    name: &str,
    trusted: &impl Fn(IpAddr) -> bool,
    read: fn(&[u8]) -> Nodes,
) -> Option<Spoken> {
    let mut lines = headers.get_all(name).into_iter().rev().peekable();
    lines.peek()?;
    for node in lines.flat_map(|line| read(line.as_bytes()).into_iter().rev()) {
        match node {
            None => return Some(Spoken::Nobody),
            Some(address) if !trusted(address) => return Some(Spoken::For(address)),
            Some(_) => {}
        }
    }
    Some(Spoken::Itself)
}

/// `X-Forwarded-For`: addresses between commas.
fn addresses(line: &[u8]) -> Nodes {
    let address = |entry: &[u8]| {
        let entry = std::str::from_utf8(entry).ok()?.trim();
        entry.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    };
    line.split(|b| *b == b',').map(address).collect()
}

/// `Forwarded`: elements between commas, each of pairs between semicolons.
///
/// A line is read from its beginning, because only from there it is known what is inside of quotes. Quotes that somebody
/// left open swallow what a proxy added behind them, or break it; either way the line cannot be read.
fn elements(line: &[u8]) -> Nodes {
    let mut nodes = Vec::new();
    let mut rest = line;
    loop {
        let Some((node, after)) = element(rest) else {
            return vec![None];
        };
        nodes.push(node);
        match after.split_first() {
            None => return nodes,
            Some((_, after)) => rest = after,
        }
    }
}

/// Reads one element: whom it is for, and what follows, beginning with a comma or empty. `None` when it is none.
fn element(bytes: &[u8]) -> Option<(Option<IpAddr>, &[u8])> {
    let mut node = None;
    let mut rest = bytes;
    loop {
        rest = rest.trim_ascii_start();
        // Pairs may be left out.
        if !rest.is_empty() && !rest.starts_with(b";") && !rest.starts_with(b",") {
            let (name, value, after) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for") {
                // Twice: one of the two is somebody else's.
                if node.is_some() {
                    return None;
                }
                node = Some(address(&value));
            }
            rest = after.trim_ascii_start();
        }
        match rest.split_first() {
            Some((b';', after)) => rest = after,
            None | Some((b',', _)) => return Some((node.flatten(), rest)),
            Some(_) => return None,
        }
    }
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
    let end = bytes.iter().position(|b| !super::is_token(*b)).unwrap_or(bytes.len());
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
        behind(&headers, &|address: IpAddr| address.to_string().starts_with("10."))
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
            let client = Spoken::For(CLIENT.parse().unwrap());
            // In a line of its own nothing can touch it; behind other text it is read rightly, or the line is not.
            prop_assert!(spoken == client || (joined && spoken == Spoken::Nobody), "{:?}: {:?}", lines, spoken);
        }

        #[test]
        fn no_line_is_too_strange_to_be_read(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = elements(&line);
            let _ = addresses(&line);
        }
    }
}
