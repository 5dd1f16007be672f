//! Atlassian Connect (Jira, Confluence): a token that carries a digest of method, path and query.
//!
//! The token is made with the secret that the app got when it was installed, and names the installation (`iss`). Its
//! claim `qsh` is the SHA-256 of the request in canonical form: method, path below the app's base URL, sorted query.
//! The body is in none of it, so that a captured token fits any body for the minutes that it lives: such a request is
//! `authenticated`, and is remembered by its body.
//!
//! The path is the one of the route's public URL, the query the request's own, since Atlassian adds who caused the event.
//! Of time, `iat` counts, within the tolerance; `exp` lies three minutes after it.
//!
//! <https://developer.atlassian.com/cloud/jira/platform/understanding-jwt-for-connect-apps/>

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::extract::field_value;
use super::super::jwt::{Claims, Token};
use super::super::mac::{Mac, MacKind};
use super::super::proof::{Failure, Strength};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, form};
use crate::clock::UnixMillis;
use crate::signature::encoding::to_jose;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;

/// How far `iat` may be from ours: the three minutes that tokens live, and clocks that differ.
pub(in super::super) const TOLERANCE: Duration = Duration::from_secs(300);

/// How long Atlassian's tokens live.
const LIFE: Duration = Duration::from_secs(180);

/// What is known of it before any request.
pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Authenticated,
    tolerance: Some(TOLERANCE),
    uses_public_url: true,
    settings: &[BASE_URL, CLIENT_KEY],
    headers: || vec![HEADER],
};

/// The setting with the app's base URL, as its descriptor says it: `https://app.example.com/jira`.
pub(in super::super) const BASE_URL: &str = "base_url";

/// The setting with the client key of the installation.
pub(in super::super) const CLIENT_KEY: &str = "client_key";

/// The header it reads.
pub(in super::super) const HEADER: HeaderName = AUTHORIZATION;

pub(in super::super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let text = field_value(message.headers, &AUTHORIZATION)?;
    let text = text.strip_prefix(b"JWT ").ok_or(Failure::Malformed)?;
    let token = Token::parse(Cow::Borrowed(text), false)?;
    if token.alg() != "HS256" {
        return Err(Failure::Malformed);
    }
    let signed = token.signed_bytes(b"");
    let mut matched = None;
    for (at, key) in keys.iter().enumerate() {
        let mac = Mac::keyed(MacKind::HmacSha256, key.secret());
        if token.is_maced(&mac, &signed, &mut Vec::new()) && matched.is_none() {
            matched = Some(at);
        }
    }
    let timestamp = match matched {
        Some(_) => Some(judge(message, &token)?),
        None => None,
    };
    Ok(Found {
        matched,
        digests: vec![Sha256::digest(message.body).into()],
        signed_id: None,
        timestamp,
        strength: Strength::Authenticated,
    })
}

/// The time of a token that was made for this installation and this request.
fn judge(message: &Message<'_>, token: &Token<'_>) -> Result<UnixMillis, Failure> {
    let claims = Claims::parse(token.content().unwrap_or_default())?;
    let digest = hex::encode(Sha256::digest(canonical(message)?));
    let ours = message.settings.find(CLIENT_KEY);
    if !ours.is_some_and(|ours| claims.says("iss", ours)) || !claims.says("qsh", &digest) {
        return Err(Failure::Mismatch);
    }
    claims.time("iat")?.ok_or(Failure::Malformed)
}

/// The token of an installation for a POST to the public URL.
///
/// # Errors
/// A setting or the URL is missing, or the URL is not below the base URL.
pub(in super::super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    let target = request.public_url()?.target();
    request.setting(BASE_URL)?;
    let message = Message {
        method: "POST",
        target: &target,
        headers: &HeaderMap::new(),
        body: request.body,
        public_url: request.public_url,
        settings: request.settings,
    };
    let apart = |_| KeyError::Unsignable("the public URL is not below the setting base_url, the app's own URL");
    let canonical = canonical(&message).map_err(apart)?;
    let now = request.now.0 / 1000;
    let claims = json!({
        "iss": request.setting(CLIENT_KEY)?,
        "iat": now,
        "exp": now.saturating_add(LIFE.as_secs()),
        "qsh": hex::encode(Sha256::digest(canonical)),
    });
    let header = to_jose(br#"{"typ":"JWT","alg":"HS256"}"#);
    let signed = format!("{header}.{}", to_jose(claims.to_string().as_bytes()));
    let mut mac = Mac::keyed(MacKind::HmacSha256, key);
    mac.update(signed.as_bytes());
    let token = format!("JWT {signed}.{}", to_jose(mac.finish().as_bytes()));
    Ok(Signed {
        headers: vec![(HEADER, token)],
        ..Signed::default()
    })
}

/// `METHOD&path&query`.
fn canonical(message: &Message<'_>) -> Result<String, Failure> {
    let base = message.settings.find(BASE_URL).ok_or(Failure::Mismatch)?;
    let url = message.public_url.ok_or(Failure::Mismatch)?;
    let path = url.base().strip_prefix(base.trim_end_matches('/'));
    let path = path.filter(|path| path.is_empty() || path.starts_with('/'));
    let path = path.ok_or(Failure::Mismatch)?.trim_end_matches('/').replace('&', "%26");
    let path = if path.is_empty() { "/" } else { &path };
    Ok(format!(
        "{}&{path}&{}",
        message.method,
        canonical_query(message.query())?
    ))
}

/// Names and values encoded by RFC 3986, sorted; the values of one name joined by commas. The token itself may be in the
/// query of other requests, and is never part of it.
fn canonical_query(query: &str) -> Result<String, Failure> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form::pairs(query.as_bytes())? {
        if name != b"jwt" {
            fields.entry(encoded(&name)).or_default().push(encoded(&value));
        }
    }
    let joined = fields.into_iter().map(|(name, mut values)| {
        values.sort_unstable();
        format!("{name}={}", values.join(","))
    });
    Ok(joined.collect::<Vec<_>>().join("&"))
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(*byte)),
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::signature::native::{PublicUrl, Settings};

    const KEY: &[u8] = b"shared-secret-of-the-installation";

    #[test]
    fn queries_have_one_canonical_form() {
        // A query that is put together in another way makes every event a forgery.
        let rows = [
            ("", Some("")),
            ("b=2&a=1", Some("a=1&b=2")),
            ("a=y&a=x", Some("a=x,y")),
            ("a=x%2Cy&a=z", Some("a=x%2Cy,z")),
            ("user_id=admin&user_key=5f%3A1", Some("user_id=admin&user_key=5f%3A1")),
            (
                "a=some+spaces+in+this&b=%7e%21",
                Some("a=some%20spaces%20in%20this&b=~%21"),
            ),
            ("jwt=abc.def&a", Some("a=")),
            ("%C3%A4=%e2%98%83", Some("%C3%A4=%E2%98%83")),
            ("a=%zz", None),
        ];
        for (query, expected) in rows {
            assert_eq!(canonical_query(query).ok().as_deref(), expected, "{query}");
        }
    }

    /// Judges a token for `signed` when the request is for `asked`.
    fn judged(claims: &str, key: &[u8], target: &str) -> Result<Option<usize>, Failure> {
        let mut settings = Settings::default();
        settings
            .insert(BASE_URL, Secret::new("https://a.example/app/").unwrap())
            .unwrap();
        settings
            .insert(CLIENT_KEY, Secret::new("unique-client-key").unwrap())
            .unwrap();
        let signed = format!("{}.{}", to_jose(br#"{"alg":"HS256"}"#), to_jose(claims.as_bytes()));
        let mut mac = Mac::keyed(MacKind::HmacSha256, key);
        mac.update(signed.as_bytes());
        let token = format!("JWT {signed}.{}", to_jose(mac.finish().as_bytes()));
        let headers: HeaderMap = [(AUTHORIZATION, token.parse().unwrap())].into_iter().collect();
        let found = verify(
            &Message {
                method: "POST",
                target,
                headers: &headers,
                body: b"{}",
                public_url: Some(&PublicUrl::parse("https://a.example/app/issue-created").unwrap()),
                settings: &settings,
            },
            &[ActiveKey::new(b"another-secret"), ActiveKey::new(KEY)],
        )?;
        assert_eq!(found.timestamp.is_some(), found.matched.is_some());
        Ok(found.matched)
    }

    #[test]
    fn a_token_fits_its_installation_path_and_query() {
        // A token for one address must not open another.
        // printf 'POST&/issue-created&user_id=admin' | sha256sum
        let qsh = "0a5b2601831f0576a9d57329e9440ee60818707e64c2bdb5e7d5bb61ba2bb044";
        let claims =
            |iss: &str, qsh: &str| format!(r#"{{"iss":"{iss}","iat":1700000000,"exp":1700000180,"qsh":"{qsh}"}}"#);
        let right = claims("unique-client-key", qsh);
        let target = "/app/issue-created?user_id=admin";
        assert_eq!(judged(&right, KEY, target), Ok(Some(1)));
        assert_eq!(judged(&right, b"a-stranger", target), Ok(None));
        assert_eq!(
            judged(&right, KEY, "/app/issue-created?user_id=Admin"),
            Err(Failure::Mismatch)
        );
        assert_eq!(judged(&right, KEY, "/app/issue-created"), Err(Failure::Mismatch));
        assert_eq!(judged(&claims("other", qsh), KEY, target), Err(Failure::Mismatch));
        assert_eq!(
            judged(&claims("unique-client-key", "context-qsh"), KEY, target),
            Err(Failure::Mismatch)
        );
        assert_eq!(
            judged(r#"{"iss":"unique-client-key"}"#, KEY, target),
            Err(Failure::Mismatch)
        );
    }
}
