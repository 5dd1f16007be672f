//! What headers may have been before a proxy, a framework or a person changed them.
//!
//! Names get lost or are rewritten (CGI's `HTTP_X_SIGNATURE`, API gateways' `x-amzn-remapped-`), values get quotes, lose
//! their prefix, are percent-encoded, joined with a comma, or written in another encoding.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What proxies put before the names of headers that they took over.
const PREFIXES: [&str; 5] = ["http-", "x-amzn-remapped-", "x-original-", "x-forwarded-", "x-"];

/// Headers as they may have been sent.
pub(super) struct Original {
    /// What happened to them.
    pub(super) what: String,
    pub(super) fix: &'static str,
    pub(super) headers: HeaderMap,
}

/// Those of `needed` that are not there.
pub(super) fn missing<'n>(headers: &HeaderMap, needed: &'n [HeaderName]) -> Vec<&'n HeaderName> {
    needed.iter().filter(|name| !headers.contains_key(*name)).collect()
}

/// The headers with each missing one found under a name that was made of its own; `None` when one is not found.
pub(super) fn renamed(headers: &HeaderMap, needed: &[HeaderName]) -> Option<Original> {
    let mut restored = headers.clone();
    let mut what = Vec::new();
    for name in missing(headers, needed) {
        let (other, value) = headers.iter().find(|(other, _)| same(name.as_str(), other.as_str()))?;
        restored.insert(name, value.clone());
        what.push(format!("{name} arrived as {other}"));
    }
    (!what.is_empty()).then(|| Original {
        what: what.join(", "),
        fix: "let the proxy in front pass the provider's headers on as they are",
        headers: restored,
    })
}

fn same(name: &str, other: &str) -> bool {
    let other = other.replace('_', "-");
    let bare = |text: &str| text.trim_start_matches("x-").to_owned();
    let unprefixed = PREFIXES.iter().filter_map(|prefix| other.strip_prefix(prefix));
    std::iter::once(other.as_str())
        .chain(unprefixed)
        .any(|other| other == name || bare(other) == bare(name))
}

/// Headers in which the value of one of `names` is what it may have been.
pub(super) fn originals(headers: &HeaderMap, names: &[HeaderName]) -> Vec<Original> {
    const AS_SENT: &str =
        "pass the header on as the provider sent it, and compare it in the form the provider documents";
    let mut originals = Vec::new();
    for name in names {
        let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else {
            continue;
        };
        for (what, text) in values(value) {
            let Ok(text) = HeaderValue::from_str(&text) else {
                continue;
            };
            let mut changed = headers.clone();
            changed.insert(name, text);
            originals.push(Original {
                what: format!("{name} {what}"),
                fix: AS_SENT,
                headers: changed,
            });
        }
    }
    originals
}

fn values(value: &str) -> Vec<(&'static str, String)> {
    let mut values = vec![
        ("is in quotes", value.trim_matches(['"', '\'']).to_owned()),
        ("is percent-encoded", percent_decoded(value)),
        ("lost a prefix", format!("sha256={value}")),
        ("lost a prefix", format!("sha1={value}")),
        ("lost a prefix", format!("v0={value}")),
        ("lost its padding", format!("{value}=")),
        ("lost its padding", format!("{value}==")),
    ];
    if let Some((_, bare)) = value.split_once('=').filter(|(_, bare)| !bare.is_empty()) {
        values.push(("got a prefix", bare.to_owned()));
    }
    if let Some((first, _)) = value.split_once(',') {
        values.push(("was joined with another one by a comma", first.trim().to_owned()));
    }
    let bytes = hex::decode(value).ok().or_else(|| STANDARD.decode(value).ok());
    if let Some(bytes) = bytes.or_else(|| URL_SAFE_NO_PAD.decode(value).ok()) {
        values.push(("is not hexadecimal, as it is documented", hex::encode(&bytes)));
        values.push(("is not base64, as it is documented", STANDARD.encode(&bytes)));
        values.push(("is not base64url, as it is documented", URL_SAFE_NO_PAD.encode(&bytes)));
    }
    values.retain(|(_, text)| text != value);
    values
}

fn percent_decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = after.split_at_checked(2).filter(|_| *byte == b'%');
        let decoded = escape.and_then(|(digits, rest)| Some((*hex::decode(digits).ok()?.first()?, rest)));
        let (byte, after) = decoded.unwrap_or((*byte, after));
        out.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&out).into_owned()
}
