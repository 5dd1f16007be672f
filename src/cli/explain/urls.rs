//! What URL a provider may have been given, when the configured one does not fit.
//!
//! Schemes that sign the URL sign what was typed into the provider's form, to the last slash. Between that and what an
//! operator writes into the configuration lie proxies that end TLS, change ports and rewrite paths.

use http::{HeaderMap, header};

use crate::signature::PublicUrl;

/// A URL as it may have been given.
pub(super) struct Given {
    /// In what it differs from the configured one, as the end of "the provider has ...".
    pub(super) what: &'static str,
    pub(super) url: PublicUrl,
}

/// URLs that may have been signed instead of `configured`, of a request that asked for `target`.
pub(super) fn given(configured: &PublicUrl, target: &str, headers: &HeaderMap) -> Vec<Given> {
    let text = configured.as_str();
    let base = configured.base();
    let (other, rest) = match text.strip_prefix("https://") {
        Some(rest) => ("http://", rest),
        None => ("https://", text.strip_prefix("http://").unwrap_or(text)),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let with_authority = |new: &str| text.replacen(authority, new, 1);
    let query = target.split_once('?').map(|(_, query)| query);
    let mut candidates = vec![
        ("the same URL with another protocol", format!("{other}{rest}")),
        ("a slash at the end of the URL", format!("{base}/")),
        ("no slash at the end of the URL", base.trim_end_matches('/').to_owned()),
        ("the URL without its query", base.to_owned()),
        ("the port 443 in the URL", with_authority(&format!("{host}:443"))),
        ("the port 80 in the URL", with_authority(&format!("{host}:80"))),
        ("no port in the URL", with_authority(host)),
    ];
    if let Some(query) = query {
        candidates.push(("the URL with the query of the request", format!("{base}?{query}")));
    }
    for name in ["x-forwarded-host", header::HOST.as_str()] {
        let Some(named) = headers.get(name).and_then(|host| host.to_str().ok()) else {
            continue;
        };
        candidates.push(("another host: the one that the request names", with_authority(named)));
        for protocol in ["https", "http"] {
            let whole = format!("{protocol}://{named}{target}");
            candidates.push(("the URL as the request shows it", whole));
        }
    }
    let read = |(what, url): (&'static str, String)| Some((what, PublicUrl::parse(&url).ok()?));
    let read = candidates.into_iter().filter_map(read);
    read.filter(|(_, url)| url != configured)
        .map(|(what, url)| Given { what, url })
        .collect()
}
