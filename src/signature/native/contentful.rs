//! Contentful: HMAC-SHA-256 over method, path, the headers that the request lists as signed, and body, one per line.
//!
//! Source: contentful.com/developers/docs/webhooks/request-verification and Contentful's `node-apps-toolkit`. The list of
//! signed headers comes from the request, so that two of them are demanded: the list itself, or a header could be moved
//! in or out of it; and the time, or a captured request would stay fresh for ever.
//!
//! No line can hold a line end, so that the body begins behind the third. Within the line of headers, values may have
//! semicolons, which also separate them: the list and the time must therefore stand there exactly once. A query is
//! signed as it was configured or escaped once more, as Contentful's own library does; both come from the public URL.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::form::escape;
use super::judge::{Claim, Verdict, one_tag, text_header, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, PublicUrl};
use crate::clock::UnixMillis;
use crate::signature::encoding::Encoding;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::MacKind;
use crate::signature::proof::{Failure, Strength};
use crate::signature::timestamp::Unit;

const SIGNATURE: HeaderName = HeaderName::from_static("x-contentful-signature");
const LIST: HeaderName = HeaderName::from_static("x-contentful-signed-headers");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-contentful-timestamp");

/// Most headers that a request may list as signed.
const HEADERS_MAX: usize = 64;

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Verified,
    // The default of Contentful's own library.
    tolerance: Some(Duration::from_secs(30)),
    uses_public_url: true,
    settings: &[],
    headers: || vec![SIGNATURE, LIST, TIMESTAMP],
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let read = read(message);
    let timestamp = read.as_ref().ok().map(|(_, timestamp)| *timestamp);
    let claim = read.map(|(claim, _)| claim);
    let verdict = Verdict::of(MacKind::HmacSha256, keys, claim, message.body)?;
    Ok(verdict.found(Strength::Verified, timestamp))
}

fn read<'a>(message: &Message<'a>) -> Result<(Claim<'a>, UnixMillis), Failure> {
    let signature = text_header(message.headers, &SIGNATURE)?;
    let digits = text_header(message.headers, &TIMESTAMP)?;
    let line = signed_line(message.headers)?;
    let tags = one_tag(signature.as_bytes(), Encoding::Hex, MacKind::HmacSha256)?;
    let timestamp = Unit::Millis.parse(digits.as_bytes()).ok_or(Failure::Malformed)?;
    let url = message.public_url.ok_or(Failure::Mismatch)?;
    if url.query() != message.query() {
        return Err(Failure::Mismatch);
    }
    let reading = |path: String| {
        let head = format!("{}\n{path}\n{line}\n", message.method);
        vec![Cow::Owned(head.into_bytes()), Cow::Borrowed(message.body)]
    };
    let readings = paths(url).into_iter().map(reading).collect();
    Ok((Claim { tags, readings }, timestamp))
}

/// The signed headers as one line: `name:value;name:value`, sorted by name.
fn signed_line(headers: &HeaderMap) -> Result<String, Failure> {
    let mut names: Vec<HeaderName> = Vec::new();
    for name in text_header(headers, &LIST)?.split(',') {
        let name: HeaderName = name.trim().parse().map_err(|_| Failure::Malformed)?;
        if names.len() == HEADERS_MAX || names.contains(&name) {
            return Err(Failure::Malformed);
        }
        names.push(name);
    }
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    let mut entries = Vec::with_capacity(names.len());
    for name in &names {
        entries.push(format!("{name}:{}", text_header(headers, name)?));
    }
    let line = entries.join(";");
    let once = |name: &HeaderName| {
        let named = |entry: &&str| {
            entry
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with(':'))
        };
        line.split(';').filter(named).count() == 1
    };
    match once(&LIST) && once(&TIMESTAMP) {
        true => Ok(line),
        false => Err(Failure::Malformed),
    }
}

/// Path and query as configured, and as Contentful's library writes them.
fn paths(url: &PublicUrl) -> Vec<String> {
    let as_is = url.target();
    let written = match as_is.split_once('?') {
        Some((path, query)) => format!("{}?{}", encoded(path), encoded(&escape(query.as_bytes()))),
        None => encoded(&as_is),
    };
    match written == as_is {
        true => vec![as_is],
        false => vec![as_is, written],
    }
}

/// What ECMAScript's `encodeURI` makes of visible ASCII.
fn encoded(text: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || "-_.!~*'();/?:@&=+$,#".contains(c);
    let one = |c: char| {
        if kept(c) {
            c.to_string()
        } else {
            escape(c.to_string().as_bytes())
        }
    };
    text.chars().map(one).collect()
}

pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    const LISTED: &str = "x-contentful-signed-headers,x-contentful-timestamp";
    let url = request.public_url()?;
    let path = paths(url).into_iter().next().unwrap_or_default();
    let digits = Unit::Millis.write(request.now);
    let head = format!("POST\n{path}\n{LIST}:{LISTED};{TIMESTAMP}:{digits}\n");
    let signature = write_mac(
        MacKind::HmacSha256,
        key,
        &[head.as_bytes(), request.body],
        Encoding::Hex,
    );
    let mut signed = Signed::default();
    signed.headers.push((LIST, LISTED.to_owned()));
    signed.headers.push((TIMESTAMP, digits));
    signed.headers.push((SIGNATURE, signature));
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, found, judged};
    use super::*;

    const KEY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const BOTH: &str = "x-contentful-signed-headers,x-contentful-timestamp";
    const NOW: &str = "1700000000000";

    /// Signatures computed apart from this code, by the algorithm of contentful/node-apps-toolkit.
    fn valid() -> Request {
        let body = "{\"event\":\"test\",\"id\":\"evt_1\",\"n\":1.50,\"u\":\"caf\u{e9} \u{2603}\"}";
        Request::post("https://hooks.example.com/api/v1/resources/1", body)
            .header("x-contentful-topic", "ContentManagement.Entry.publish")
            .header("x-contentful-timestamp", NOW)
            .header("x-contentful-signed-headers", &format!("{BOTH},x-contentful-topic"))
            .header(
                "x-contentful-signature",
                "9d36ae41dd6d2d43bd9a2431a0de58ab85e3554fee1878960caf6caee9a1fdbe",
            )
    }

    fn short(url: &str, list: &str, signature: &str) -> Request {
        Request::post(url, "{\"a\":1}")
            .header("x-contentful-timestamp", NOW)
            .header("x-contentful-signed-headers", list)
            .header("x-contentful-signature", signature)
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::Contentful, request, KEY)
    }

    #[test]
    fn a_canonical_request_is_accepted() {
        // Published entries would not reach the site.
        assert_eq!(judge(&valid()), Ok(Strength::Verified));
        assert_eq!(
            found(Native::Contentful, &valid(), KEY).unwrap().timestamp,
            Some(UnixMillis(1_700_000_000_000))
        );
        let reordered = "x-contentful-topic, X-Contentful-Timestamp,x-contentful-signed-headers";
        // Another order is another list, and the list is signed.
        assert_eq!(
            judge(&valid().replaced("x-contentful-signed-headers", reordered)),
            Err(Failure::Mismatch)
        );
        let url = "https://hooks.example.com/in/1?q=1&w=2";
        for signature in [
            "f17b83edae12127e0b036eed6a6266622e717f6e07bc7de17bbb0625f5fecad6",
            "d4442159fad02b3560553259f57bbae4235ef341fe36d52f09048c53cf212d37",
        ] {
            assert_eq!(
                judge(&short(url, BOTH, signature)),
                Ok(Strength::Verified),
                "{signature}"
            );
        }
    }

    #[test]
    fn the_list_and_the_time_must_be_signed() {
        // The request chooses what is signed: a right signature that leaves the time out is fresh for ever.
        let url = "https://hooks.example.com/in/1";
        let rows = [
            (
                "x-contentful-signed-headers",
                "99231f869700872779da438716b91b51de4ceccc5db7b008583563129d2b37e0",
            ),
            (
                "x-contentful-timestamp",
                "0447ee4e22e2da83ce0f3d3faab142372c1bd8947d8f4e535c2eb32abea9aa85",
            ),
            ("", "0447ee4e22e2da83ce0f3d3faab142372c1bd8947d8f4e535c2eb32abea9aa85"),
        ];
        for (list, signature) in rows {
            assert_eq!(judge(&short(url, list, signature)), Err(Failure::Malformed), "{list}");
        }
    }

    #[test]
    fn a_header_cannot_hold_another_one() {
        // `topic: a;x-contentful-timestamp:1` signs like a topic and a second time.
        let list = format!("{BOTH},x-contentful-topic");
        let signature = "8bce71173762407d02158743957eb37d8b595968b8f00315e401df4a3994764e";
        let request = short("https://hooks.example.com/in/1", BOTH, signature)
            .replaced("x-contentful-signed-headers", &list)
            .header("x-contentful-topic", "a;x-contentful-timestamp:1");
        assert_eq!(judge(&request), Err(Failure::Malformed));
    }

    #[test]
    fn what_is_missing_or_changed_is_refused() {
        // A captured event would reach another path, or arrive with other content.
        let many: Vec<String> = (0..65).map(|at| format!("x{at}")).collect();
        let rows = [
            (valid().without("x-contentful-signature"), Failure::Missing),
            (valid().without("x-contentful-timestamp"), Failure::Missing),
            (valid().without("x-contentful-signed-headers"), Failure::Missing),
            (valid().without("x-contentful-topic"), Failure::Missing),
            (valid().header("x-contentful-topic", "other"), Failure::Malformed),
            (valid().replaced("x-contentful-topic", "other"), Failure::Mismatch),
            (
                valid().replaced("x-contentful-timestamp", "1700000000001"),
                Failure::Mismatch,
            ),
            (valid().replaced("x-contentful-timestamp", "now"), Failure::Malformed),
            (valid().replaced("x-contentful-signature", "9d36"), Failure::Malformed),
            (
                valid().replaced("x-contentful-signed-headers", &many.join(",")),
                Failure::Malformed,
            ),
            (
                valid().replaced("x-contentful-signed-headers", &format!("{BOTH},{BOTH}")),
                Failure::Malformed,
            ),
            (valid().target("/api/v1/resources/1?a"), Failure::Mismatch),
            (valid().body("{}"), Failure::Mismatch),
            (
                Request {
                    method: "PUT",
                    ..valid()
                },
                Failure::Mismatch,
            ),
        ];
        for (request, failure) in rows {
            assert_eq!(
                judge(&request),
                Err(failure),
                "{} {:?}",
                request.target,
                request.headers
            );
        }
    }

    #[test]
    fn what_is_signed_here_is_signed_as_contentful_does() {
        // A test request that no real one is like proves nothing.
        let url = "https://hooks.example.com/in/1?q=1&w=2";
        let key = SigningKey::Shared(KEY.as_bytes());
        let signed = Request::post(url, "{\"a\":1}").signed(Native::Contentful, key, UnixMillis(1_700_000_000_000));
        let signature = "f17b83edae12127e0b036eed6a6266622e717f6e07bc7de17bbb0625f5fecad6";
        assert_eq!(signed.headers, short(url, BOTH, signature).headers);
    }
}
