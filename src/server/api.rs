//! The door to the operators' desk over HTTP: who may ask, and the answer as a response.
//!
//! Off without configured secrets; with them, every request proves one of them as its bearer token (RFC 6750). All of
//! them are compared, as digests and in constant time, so that neither length nor place of a difference shows. Nothing
//! here is set by cookies, so a browser on an operator's machine cannot be made to ask.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::desk::Said;
use crate::clock::UnixMillis;
use crate::signature::KeyedSecret;

/// Whether the request proves one of `operators`' secrets that is valid at `now`.
pub(super) fn may_ask(headers: &HeaderMap, operators: &[KeyedSecret], now: UnixMillis) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Some(token) = bearer(value) else { return false };
    let token = Sha256::digest(token);
    let mut found = Choice::from(0);
    for operator in operators {
        let valid = operator.until.is_none_or(|until| now < until);
        found |= Sha256::digest(operator.secret.expose()).ct_eq(&token) & Choice::from(u8::from(valid));
    }
    found.into()
}

/// A desk's word as a response.
pub(super) fn respond((status, value): Said) -> Response<Vec<u8>> {
    let mut body = value.to_string().into_bytes();
    body.push(b'\n');
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let token = scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)?;
    Some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const NOW: UnixMillis = UnixMillis(1000);

    #[test]
    fn only_whoever_has_a_secret_may_ask() {
        // Whoever reaches the admin listener could read and purge every event.
        let secret = |text: &str, until| KeyedSecret {
            id: "a".into(),
            secret: Secret::new(text).unwrap(),
            until,
        };
        let operators = [
            secret("correct horse battery", None),
            secret("old one, no longer", Some(NOW)),
        ];
        let table = [
            (vec!["Bearer correct horse battery"], true),
            (vec!["bearer correct horse battery"], true),
            (vec!["Bearer old one, no longer"], false),
            (vec!["Bearer correct horse batter"], false),
            (vec!["Bearer "], false),
            (vec!["Bearer"], false),
            (vec!["Basic correct horse battery"], false),
            (vec!["correct horse battery"], false),
            (vec!["Bearer correct horse battery", "Bearer x"], false),
            (vec![], false),
        ];
        for (values, may) in table {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(may_ask(&headers, &operators, NOW), may, "{values:?}");
            assert!(!may_ask(&headers, &[], NOW));
        }
    }
}
