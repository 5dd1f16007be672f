//! Addresses that a key may be fetched from, and nothing else.
//!
//! Some providers name the place of their key in the request itself (`SigningCertURL`, `PAYPAL-CERT-URL`), which a forger
//! writes, too. Verifiers that parsed that text as a URL and looked at its host were bypassed over and over: by users
//! before an `@`, by ports, by backslashes, by hosts that only end or begin right, by buckets on the provider's own
//! storage service. So nothing is parsed here: a [`Pin`] knows the whole address but for one run of letters and
//! digits, and a text is that address or it is refused.
//!
//! Whoever holds a [`PinnedUrl`] holds an address that a scheme or the configuration has chosen. What the name
//! resolves to is judged by the fetcher.

use std::fmt;

/// Longest host name, in bytes (RFC 1035, 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Longest path and query, in bytes.
const TARGET_BYTES_MAX: usize = 2048;

/// Longest part that the sender chooses, in bytes.
const FREE_BYTES_MAX: usize = 128;

/// An https address on port 443 that the sender of a request has not chosen, but for a name within one folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PinnedUrl {
    host: String,
    target: String,
}

impl PinnedUrl {
    /// Reads an address that the configuration or a preset says: `https://www.googleapis.com/oauth2/v3/certs`.
    ///
    /// # Errors
    /// Why nothing is fetched from there: not https, an address instead of a name, a port, a user, a fragment, a host in
    /// capitals, a path with dot segments, anything but visible ASCII, too long.
    pub fn fixed(text: &str) -> Result<PinnedUrl, &'static str> {
        let rest = text.strip_prefix("https://").ok_or("does not begin with https://")?;
        let (host, target) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        PinnedUrl::of(host, if target.is_empty() { "/" } else { target })
    }

    /// An address from its parts.
    ///
    /// # Errors
    /// As for [`PinnedUrl::fixed`].
    pub(super) fn of(host: &str, target: &str) -> Result<PinnedUrl, &'static str> {
        if !is_host(host) {
            return Err("has a host that is no plain name in small letters, or a user or port beside it");
        }
        if !is_target(target) {
            return Err("has a path that is not written plainly, or a fragment");
        }
        Ok(PinnedUrl {
            host: host.to_owned(),
            target: target.to_owned(),
        })
    }

    /// The host name: labels of small letters, digits and hyphens; never an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path and query, as they are asked for.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Display for PinnedUrl {
    /// Without the query, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "https://{}{path}", self.host)
    }
}

/// An address with one gap: `https://` HOST BEFORE gap AFTER.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin<'a> {
    /// The hosts it may be on.
    pub(super) hosts: &'a [&'a str],
    /// The path up to the gap.
    pub(super) before: &'a str,
    /// What follows the gap, to the end.
    pub(super) after: &'a str,
}

impl Pin<'_> {
    /// Takes `text` if it is this address with 1 to 128 letters, digits and hyphens in the gap.
    pub(super) fn admit(&self, text: &str) -> Option<PinnedUrl> {
        let rest = text.strip_prefix("https://")?;
        self.hosts
            .iter()
            .find_map(|host| self.admit_on(host, rest.strip_prefix(host)?))
    }

    fn admit_on(&self, host: &str, target: &str) -> Option<PinnedUrl> {
        let gap = target.strip_prefix(self.before)?.strip_suffix(self.after)?;
        let plain = gap.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let fits = (1..=FREE_BYTES_MAX).contains(&gap.len());
        (plain && fits).then(|| PinnedUrl::of(host, target).ok()).flatten()
    }
}

/// At least two labels of letters, digits and hyphens, the last one no number: so it cannot be read as an address.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    let top = host.rsplit('.').next().unwrap_or_default();
    host.len() <= HOST_BYTES_MAX
        && host.contains('.')
        && host.split('.').all(label)
        && top.starts_with(|first: char| first.is_ascii_lowercase())
}

/// A path that every server reads alike, with a query or without.
fn is_target(target: &str) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let query_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%=&+:".contains(&byte);
    let steps = path.strip_prefix('/').map(|path| path.split('/').collect::<Vec<_>>());
    let straight = |steps: Vec<&str>| {
        let empty = steps.iter().rev().skip(1).any(|step| step.is_empty());
        !empty && !steps.iter().any(|step| *step == "." || *step == "..")
    };
    target.len() <= TARGET_BYTES_MAX
        && path.bytes().all(plain)
        && query.bytes().all(query_plain)
        && steps.is_some_and(straight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIN: Pin<'static> = Pin {
        hosts: &["sns.eu-west-1.amazonaws.com"],
        before: "/SimpleNotificationService-",
        after: ".pem",
    };

    #[test]
    fn the_address_with_a_name_in_its_gap_is_taken() {
        // A certificate that is not found makes every event a forgery.
        let text = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem";
        let url = PIN.admit(text).unwrap();
        assert_eq!(url.host(), "sns.eu-west-1.amazonaws.com");
        assert_eq!(
            url.target(),
            "/SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem"
        );
        assert_eq!(url.to_string(), text);
        let of = |bytes: usize| {
            let gap = "a".repeat(bytes);
            PIN.admit(&format!(
                "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{gap}.pem"
            ))
        };
        assert!(of(0).is_none() && of(1).is_some() && of(128).is_some() && of(129).is_none());
    }

    #[test]
    fn a_configured_address_has_one_reading() {
        // A key set from a place that two libraries read differently comes from whoever owns the other place.
        let rows = [
            ("https://www.googleapis.com/oauth2/v3/certs", true),
            ("https://login.example.com/keys?tenant=a%20b", true),
            ("https://a.example/", true),
            ("https://a.example", true),
            ("https://a.example/keys/", true),
            ("http://a.example/keys", false),
            ("HTTPS://a.example/keys", false),
            ("https://A.example/keys", false),
            ("https://a.example:443/keys", false),
            ("https://user@a.example/keys", false),
            ("https://a.example\\@b.example/keys", false),
            ("https://a.example/keys#x", false),
            ("https://a.example/../keys", false),
            ("https://a.example//keys", false),
            ("https://a.example/%6beys", false),
            ("https://a.example./keys", false),
            ("https://localhost/keys", false),
            ("https://127.0.0.1/keys", false),
            ("https://a.127/keys", false),
            ("https://a.0x7f/keys", false),
            ("https://[::1]/keys", false),
            ("https://-a.example/keys", false),
            ("https://a..example/keys", false),
            ("https://?a.example/keys", false),
            ("https://a.example/k ys", false),
            ("https://\u{e4}.example/keys", false),
            ("https://", false),
            ("", false),
        ];
        for (text, taken) in rows {
            assert_eq!(PinnedUrl::fixed(text).is_ok(), taken, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_was_written(host in "[a-z.@:0-9-]{1,20}", target in "[/a-z.?#%@\\\\-]{0,20}", gap in ".{0,20}") {
            // A reader that mends what it reads asks another host than the one that was pinned.
            let text = format!("https://{host}{target}");
            if let Ok(url) = PinnedUrl::fixed(&text) {
                let read = format!("https://{}{}", url.host(), url.target());
                prop_assert_eq!(read.strip_suffix('/').unwrap_or(&read), text.strip_suffix('/').unwrap_or(&text));
            }
            let text = format!("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{gap}.pem");
            let plain = !gap.is_empty() && gap.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            prop_assert_eq!(PIN.admit(&text).is_some(), plain);
            for other in [format!("{gap}{text}"), format!("{text}{gap}"), text.replacen("sns", &gap, 1)] {
                prop_assert!(PIN.admit(&other).is_none() || other.starts_with("https://sns.eu-west-1.amazonaws.com/S"));
            }
        }
    }

    #[test]
    fn a_query_is_not_told() {
        // The token of a confirmation in the log subscribes whoever reads the log.
        let url = PinnedUrl::of("a.example", "/?Token=abc").unwrap();
        assert_eq!(url.to_string(), "https://a.example/");
    }
}
