//! Treezor: the body carries an HMAC-SHA-256 of one of its members, written as PHP writes JSON.
//!
//! Source: docs.treezor.com/guide/webhooks/integrity-checks.html. `object_payload_signature` is over `object_payload`
//! without white space, with slashes as `\/` and everything that is not ASCII as `\uXXXX`, whatever spelling arrives.
//! Here only strings and white space are written anew; names, order and numbers stay as they came.
//!
//! The name of the event, its id and the kind of object stand beside the signed member and are not covered: this proves
//! the origin and the object. Two events may carry the same object, so that a repeat is recognised by the whole body.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use super::judge::{Claim, Verdict, one_tag, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::members::Members;
use super::{ActiveKey, Found, Message};
use crate::signature::encoding::Encoding;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::MacKind;
use crate::signature::proof::{Failure, Strength};

const OBJECT: &str = "object_payload";
const SIGNATURE: &str = "object_payload_signature";

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Authenticated,
    tolerance: None,
    uses_public_url: false,
    settings: &[],
    headers: Vec::new,
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let claim = Members::read(message.body).and_then(|members| read(&members));
    let verdict = Verdict::of(MacKind::HmacSha256, keys, claim, message.body)?;
    let verdict = verdict.remembered_by(Sha256::digest(message.body).into());
    Ok(verdict.found(Strength::Authenticated, None))
}

fn read(members: &Members<'_>) -> Result<Claim<'static>, Failure> {
    let signature = members.text(SIGNATURE)?;
    let object = members.raw(OBJECT)?;
    let tags = one_tag(signature.as_bytes(), Encoding::Base64, MacKind::HmacSha256)?;
    let written = rewritten(object).ok_or(Failure::Malformed)?;
    let readings = vec![vec![Cow::Owned(written.into_bytes())]];
    Ok(Claim { tags, readings })
}

/// `json`, which is valid JSON, as PHP's `json_encode` spells it. `None` for strings that PHP cannot have written.
fn rewritten(json: &str) -> Option<String> {
    let mut written = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('"') {
        let (before, from_quote) = rest.split_at_checked(at)?;
        written.extend(before.chars().filter(|c| !c.is_ascii_whitespace()));
        let (string, behind) = from_quote.split_at_checked(string_bytes(from_quote)?)?;
        let text: String = serde_json::from_str(string).ok()?;
        write_string(&text, &mut written);
        rest = behind;
    }
    written.extend(rest.chars().filter(|c| !c.is_ascii_whitespace()));
    Some(written)
}

/// The length of the string at the start of `json`, quotes included.
fn string_bytes(json: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at.checked_add(1),
            _ => {}
        }
    }
    None
}

fn write_string(text: &str, written: &mut String) {
    written.push('"');
    for c in text.chars() {
        match c {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '/' => written.push_str("\\/"),
            '\u{8}' => written.push_str("\\b"),
            '\u{c}' => written.push_str("\\f"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            ' '..='\u{7f}' => written.push(c),
            _ => write_escapes(c, written),
        }
    }
    written.push('"');
}

/// One escape, or two for what lies beyond 16 bits.
fn write_escapes(c: char, written: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        written.push_str(&format!("\\u{unit:04x}"));
    }
}

/// Signs a body that has the object; a signature that is already there is replaced.
pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    const WHY: KeyError = KeyError::Unsignable("the body has no object_payload");
    let members = Members::read(request.body).map_err(|_| WHY)?;
    let written = members.raw(OBJECT).ok().and_then(rewritten).ok_or(WHY)?;
    let signature = write_mac(MacKind::HmacSha256, key, &[written.as_bytes()], Encoding::Base64);
    let body = members.with(SIGNATURE, &format!("\"{signature}\""));
    Ok(Signed {
        body: Some(body.into_bytes()),
        ..Signed::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, digests, judged};
    use super::*;
    use crate::clock::UnixMillis;

    const KEY: &str = "treezor_webhook_secret";
    const URL: &str = "https://hooks.example.com/in/1";
    /// Computed apart from this code, by the Python sample of Treezor's documentation.
    const OF_USERS: &str = "57T8wfJX4fV1i4xnNU87afT/qZmBOD7GqVHySgEgpZk=";

    /// One object in three spellings.
    fn spellings() -> [String; 3] {
        [
            "{\"users\":[{\"userId\":\"1\",\"url\":\"https:\\/\\/a\\/b\",\"name\":\"Zo\\u00e9 \\ud83d\\ude00\",\
             \"note\":\"q\\\"\\\\\\n\\t\\u0001\",\"amount\":1.5,\"n\":10}]}"
                .to_owned(),
            "{\"users\":[{\"userId\":\"1\",\"url\":\"https://a/b\",\"name\":\"Zo\u{e9} \u{1f600}\",\
             \"note\":\"q\\\"\\\\\\n\\t\\u0001\",\"amount\":1.5,\"n\":10}]}"
                .to_owned(),
            "{ \"users\" : [\n { \"userId\": \"\\u0031\", \"url\": \"https:\\u002f\\/a/b\", \"name\": \"Zo\\u00E9 \\uD83D\\uDE00\",\
             \"note\":\"q\\u0022\\u005c\\u000a\\u0009\\u0001\", \"amount\": 1.5, \"n\": 10 } ]\t}"
                .to_owned(),
        ]
    }

    fn body(object: &str, signature: &str) -> Request {
        let rest = format!("\"object_payload_signature\":\"{signature}\",\"webhook\":\"user.create\"");
        Request::post(
            URL,
            format!("{{\"webhook_id\":\"w1\",\"object_payload\":{object},{rest}}}"),
        )
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::Treezor, request, KEY)
    }

    #[test]
    fn every_spelling_of_one_object_is_accepted() {
        // A customer's name with an accent in it would make the event a forgery.
        for object in spellings() {
            assert_eq!(judge(&body(&object, OF_USERS)), Ok(Strength::Authenticated), "{object}");
        }
    }

    #[test]
    fn another_object_is_refused() {
        // A transfer could be raised by whoever captured its event.
        let [object, ..] = spellings();
        let rows = [
            (body(&object.replace("1.5", "1.50"), OF_USERS), Failure::Mismatch),
            (
                body(&object.replace("\"n\":10", "\"n\":11"), OF_USERS),
                Failure::Mismatch,
            ),
            (body(&object.replace("\\ude00", ""), OF_USERS), Failure::Malformed),
            (body(&object, &OF_USERS.replace('=', "")), Failure::Malformed),
            (body(&object, "x\",\"object_payload\":\"y"), Failure::Malformed),
            (Request::post(URL, "{}"), Failure::Missing),
            (
                Request::post(URL, format!("{{\"object_payload_signature\":\"{OF_USERS}\"}}")),
                Failure::Missing,
            ),
            (
                Request::post(URL, format!("{{\"object_payload\":{object}}}")),
                Failure::Missing,
            ),
            (Request::post(URL, ""), Failure::Malformed),
        ];
        for (request, failure) in rows {
            assert_eq!(
                judge(&request),
                Err(failure),
                "{:?}",
                String::from_utf8_lossy(&request.body)
            );
        }
    }

    #[test]
    fn two_events_of_one_object_are_two() {
        // The review of a user would be dropped as a repeat of the user's update.
        let [object, ..] = spellings();
        let update = body(&object, OF_USERS);
        let text = String::from_utf8(update.body.clone()).unwrap();
        let review = update.clone().body(text.replace("user.create", "user.kycreview"));
        assert_ne!(
            digests(Native::Treezor, &update, KEY),
            digests(Native::Treezor, &review, KEY)
        );
    }

    #[test]
    fn what_is_signed_here_is_signed_as_treezor_does() {
        // A test request that no real one is like proves nothing.
        let [_, object, _] = spellings();
        let key = SigningKey::Shared(KEY.as_bytes());
        let signed = body(&object, "").signed(Native::Treezor, key, UnixMillis(0));
        assert!(String::from_utf8(signed.body.clone()).unwrap().contains(OF_USERS));
        assert_eq!(judge(&signed), Ok(Strength::Authenticated));
    }
}
