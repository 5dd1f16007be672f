//! Whom a route hears at all: addresses, inline and from files that others keep, and names in certificates.
//!
//! A list that lets nobody in, or that cannot be read to its end, is an error: at a start it is a problem with a line, in
//! a reload it leaves the lists in force that were read before. A file of addresses has one network or address in a
//! line; `#` and what follows it is a comment, and empty lines count for nothing.

use std::fs::File as Disk;
use std::io::Read;
use std::path::Path;

use ipnet::IpNet;

use super::file::{self, AllowFile, File, RouteFile};
use super::path::KeyPath;
use super::problem::Problems;
use super::value::{Network, quoted};
use crate::gateway::{Allow, ClientName, ProxyHeader};

/// The largest file of addresses: some hundred thousand of them.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Most lines of one file that are reported; nobody mends more at a time.
const LINES_REPORTED: usize = 5;

/// Where trusted proxies say for whom they speak.
pub(super) fn proxy_header(file: &File) -> ProxyHeader {
    match file.client.proxy_header {
        file::ProxyHeader::XForwardedFor => ProxyHeader::XForwardedFor,
        file::ProxyHeader::Forwarded => ProxyHeader::Forwarded,
    }
}

/// Whom `route` hears; `None` when something about it is wrong.
pub(super) fn allow(file: &File, route: &RouteFile, path: &KeyPath, problems: &mut Problems) -> Option<Allow> {
    let networks = match &route.allow {
        None => Some(None),
        Some(allow) => networks(allow, &path.key("allow"), problems).map(Some),
    };
    let names = match &route.client_certificate {
        None => Some(None),
        Some(certificate) => {
            let path = path.key("client_certificate");
            asked_for(file, &path, problems);
            names(&certificate.names, &path.key("names"), problems).map(Some)
        }
    };
    // Both are looked at before either is missed.
    let networks = networks?.map(|list| list.into_iter().collect());
    Some(Allow::only(networks, names?))
}

fn networks(allow: &AllowFile, path: &KeyPath, problems: &mut Problems) -> Option<Vec<IpNet>> {
    let mut list: Vec<IpNet> = allow.networks.iter().map(|network| network.0).collect();
    let mut whole = true;
    for (index, file) in allow.files.iter().enumerate() {
        match read(file) {
            Ok(read) => list.extend(read),
            Err(wrong) => {
                whole = false;
                let path = path.key("files").index(index);
                for message in wrong {
                    problems.error(&path, format!("{}: {message}", file.display()));
                }
            }
        }
    }
    if allow.networks.is_empty() && allow.files.is_empty() {
        problems
            .error(path, "lists nobody, so every request would be refused")
            .suggest("networks: [192.0.2.0/24]");
        return None;
    }
    whole.then_some(list)
}

/// Reads a file of addresses.
///
/// # Errors
/// Messages for the user: it cannot be read, has lines that are no networks, or no network at all.
fn read(path: &Path) -> Result<Vec<IpNet>, Vec<String>> {
    let text = text(path).map_err(|problem| vec![problem])?;
    let mut networks = Vec::new();
    let mut wrong = Vec::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        match Network::new(line) {
            _ if line.is_empty() => {}
            Ok(network) => networks.push(network.0),
            Err(message) => wrong.push(format!("line {number}: {message}")),
        }
    }
    if wrong.len() > LINES_REPORTED {
        let more = wrong.len().saturating_sub(LINES_REPORTED);
        wrong.truncate(LINES_REPORTED);
        wrong.push(format!("{more} more lines are no networks"));
    }
    match wrong.is_empty() {
        false => Err(wrong),
        true if networks.is_empty() => Err(vec!["lists nobody".to_owned()]),
        true => Ok(networks),
    }
}

fn text(path: &Path) -> Result<String, String> {
    let unreadable = |problem: std::io::Error| format!("cannot be read: {problem}");
    let mut bytes = Vec::new();
    let file = Disk::open(path).map_err(unreadable)?;
    let mut file = file.take(LIST_BYTES_MAX.saturating_add(1));
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LIST_BYTES_MAX {
        return Err("is larger than 4 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// Reports a route that waits for certificates which no listener asks for.
fn asked_for(file: &File, path: &KeyPath, problems: &mut Problems) {
    let mut tls = file.listen.iter().filter_map(|listen| listen.0.tls.as_ref());
    if !tls.any(|tls| tls.client_ca.is_some()) {
        let message = "no listener asks clients for certificates, so every request would be refused";
        problems
            .error(path, message)
            .suggest("tls: { client_ca: /etc/hookward/clients.pem } of a listener");
    }
}

fn names(typed: &[String], path: &KeyPath, problems: &mut Problems) -> Option<Vec<ClientName>> {
    if typed.is_empty() {
        problems
            .error(path, "lists nobody, so every request would be refused")
            .suggest("[hooks.example.com]");
        return None;
    }
    let mut names = Vec::new();
    for (index, text) in typed.iter().enumerate() {
        match name(text) {
            Some(name) => names.push(name),
            None => {
                let message = format!("{} is neither a DNS name nor a URI", quoted(text));
                problems
                    .error(&path.index(index), message)
                    .suggest("hooks.example.com, or spiffe://example.com/hooks");
            }
        }
    }
    (names.len() == typed.len()).then_some(names)
}

/// A name as it stands in certificates: no white space, nothing outside of ASCII.
fn name(text: &str) -> Option<ClientName> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let dns = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*');
    match text.split_once(':') {
        Some((scheme, rest)) => {
            let scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
            (plain && scheme && !rest.is_empty()).then(|| ClientName::Uri(text.to_owned()))
        }
        None => (plain && text.bytes().all(dns)).then(|| ClientName::Dns(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_addresses_is_read_whole_or_not_at_all() {
        // Half a list shuts the provider out; a list with a mistake in it may let everybody in.
        let path = std::env::temp_dir().join(format!("hookward-allow-{}", std::process::id()));
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path)
        };
        let good = b"# stripe\r\n192.0.2.0/24\r\n\r\n  2001:db8::1   # one\n198.51.100.7";
        let networks = read(good).unwrap();
        let networks: Vec<_> = networks.iter().map(IpNet::to_string).collect();
        assert_eq!(networks, ["192.0.2.0/24", "2001:db8::1/128", "198.51.100.7/32"]);
        for (bytes, told) in [
            (&b""[..], "lists nobody"),
            (b"# nobody\n\n", "lists nobody"),
            (b"192.0.2.1/24\n", "line 1: 192.0.2.1/24 points inside a network"),
            (b"192.0.2.0/24\nstripe.com\n", "line 2: \"stripe.com\" is not a network"),
            (b"192.0.2.0/24, 198.51.100.0/24\n", "line 1: "),
            (b"192.0.2.0/24\n\xff\n", "is not UTF-8"),
            (&vec![b'\n'; 4 * 1024 * 1024 + 1], "is larger than 4 MiB"),
        ] {
            let wrong = read(bytes).unwrap_err();
            assert!(wrong[0].starts_with(told), "{wrong:?}");
        }
        assert_eq!(read(&b"x\n".repeat(20)).unwrap_err().len(), LINES_REPORTED + 1);
        std::fs::remove_file(&path).unwrap();
        assert!(super::read(&path).unwrap_err()[0].starts_with("cannot be read: "));
    }

    #[test]
    fn names_are_dns_names_or_uris() {
        // A name that no certificate can have shuts the sender out without a word at the start.
        for (text, kind) in [
            ("hooks.example.com", Some(true)),
            ("*.example.com", Some(true)),
            ("spiffe://example.com/stripe", Some(false)),
            ("urn:uuid:1", Some(false)),
            ("", None),
            ("CN=hooks", None),
            ("hooks example", None),
            ("h\u{f6}oks.example.com", None),
            (":x", None),
            ("https:", None),
        ] {
            let found = name(text).map(|name| matches!(name, ClientName::Dns(_)));
            assert_eq!(found, kind, "{text}");
        }
    }
}
