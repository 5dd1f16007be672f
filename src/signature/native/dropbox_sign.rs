//! Dropbox Sign: an HMAC-SHA-256, inside the event, over the event's time and type and nothing else.
//!
//! Source: developers.hellosign.com/docs/events/walkthrough and Dropbox Sign's own libraries. The event is JSON in the
//! field `json` of a form in parts; read from the body itself when the body says that it is JSON.
//!
//! This proves that Dropbox Sign once sent an event of this type in this second, no more: which request it is about and
//! who signed it can be changed by whoever has one captured event. Two events of one second and type have one
//! signature, so that a repeat is recognised by the whole event instead.

use std::borrow::Cow;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::judge::{Claim, Verdict, one_tag, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, form, multipart};
use crate::clock::UnixMillis;
use crate::signature::encoding::Encoding;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::MacKind;
use crate::signature::proof::{Failure, Strength};
use crate::signature::timestamp::Unit;

const FIELD: &str = "json";

/// Longest type of an event, in bytes.
const TYPE_BYTES_MAX: usize = 128;

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Authenticated,
    // Retries keep the time of the event.
    tolerance: None,
    uses_public_url: false,
    settings: &[],
    headers: Vec::new,
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let json = json(message);
    let digest = Sha256::digest(json.unwrap_or(message.body));
    let read = json.and_then(read);
    let timestamp = read.as_ref().ok().map(|(_, timestamp)| *timestamp);
    let claim = read.map(|(claim, _)| claim);
    let verdict = Verdict::of(MacKind::HmacSha256, keys, claim, message.body)?;
    let verdict = verdict.remembered_by(digest.into());
    Ok(verdict.found(Strength::Authenticated, timestamp))
}

fn json<'a>(message: &Message<'a>) -> Result<&'a [u8], Failure> {
    match form::content_type(message).as_deref() {
        None | Some("application/json") => Ok(message.body),
        Some(_) => {
            let boundary = multipart::boundary(message.headers).ok_or(Failure::Malformed)?;
            multipart::field(message.body, boundary, FIELD)
        }
    }
}

#[derive(Deserialize)]
struct Body {
    event: Event,
}

/// Time and type are strings: a reader that takes numbers as well would have to write them again.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "event_time")]
    time: String,
    #[serde(rename = "event_type")]
    kind: String,
    #[serde(rename = "event_hash")]
    signature: Option<String>,
}

impl Event {
    fn read(json: &[u8]) -> Result<Event, Failure> {
        let body: Body = serde_json::from_slice(json).map_err(|_| Failure::Malformed)?;
        Ok(body.event)
    }

    /// The time, if time and type can be told apart where they meet: digits, then a letter.
    fn timestamp(&self) -> Option<UnixMillis> {
        let begins = self.kind.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        let fits = begins && self.kind.len() <= TYPE_BYTES_MAX;
        Unit::Seconds.parse(self.time.as_bytes()).filter(|_| fits)
    }
}

fn read(json: &[u8]) -> Result<(Claim<'static>, UnixMillis), Failure> {
    let event = Event::read(json)?;
    let signature = event.signature.as_ref().ok_or(Failure::Missing)?;
    let tags = one_tag(signature.as_bytes(), Encoding::Hex, MacKind::HmacSha256)?;
    let timestamp = event.timestamp().ok_or(Failure::Malformed)?;
    let readings = vec![vec![Cow::Owned(format!("{}{}", event.time, event.kind).into_bytes())]];
    Ok((Claim { tags, readings }, timestamp))
}

/// Signs an event, with the time that is in it, and puts it into a form.
pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    const BOUNDARY: &str = "hookward-8c6f0d52a1e94b37";
    const WHY: KeyError = KeyError::Unsignable("the body has no event with event_time and event_type");
    let event = Event::read(request.body).map_err(|_| WHY)?;
    event.timestamp().ok_or(WHY)?;
    let parts = [event.time.as_bytes(), event.kind.as_bytes()];
    let signature = write_mac(MacKind::HmacSha256, key, &parts, Encoding::Hex);
    let mut json: serde_json::Value = serde_json::from_slice(request.body).map_err(|_| WHY)?;
    let members = json.get_mut("event").and_then(serde_json::Value::as_object_mut);
    members.ok_or(WHY)?.insert("event_hash".to_owned(), signature.into());
    let disposition = format!("Content-Disposition: form-data; name=\"{FIELD}\"");
    let body = format!("--{BOUNDARY}\r\n{disposition}\r\n\r\n{json}\r\n--{BOUNDARY}--\r\n");
    let mut signed = Signed::default();
    signed.content_type(&format!("multipart/form-data; boundary={BOUNDARY}"));
    signed.body = Some(body.into_bytes());
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, digests, found, judged};
    use super::*;

    const KEY: &str = "324e3b0840f065eb51f3fd63231d0d33daa35d4ed10d27718839e81737065782";
    const URL: &str = "https://hooks.example.com/in/1";
    /// hellosign/dropbox-sign-python examples/EventCallbackExample.py
    const EVENT: &str = r#"{"event":{"event_type":"account_confirmed","event_time":"1669926463","event_hash":"ff8b03439122f9160500c3fb855bdee5a9ccba5fff27d3b258745d8f3074832f","event_metadata":{"reported_for_account_id":"a"}}}"#;

    fn parts(json: &str) -> Request {
        let body = format!("--x\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{json}\r\n--x--\r\n");
        Request::post(URL, body).header("content-type", "multipart/form-data; boundary=x")
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::DropboxSign, request, KEY)
    }

    #[test]
    fn a_published_hash_is_accepted() {
        // Signed contracts would stay unknown to whoever waits for them.
        for request in [
            parts(EVENT),
            Request::post(URL, EVENT),
            Request::post(URL, EVENT).header("content-type", "application/json"),
        ] {
            assert_eq!(judge(&request), Ok(Strength::Authenticated));
        }
        assert_eq!(
            found(Native::DropboxSign, &parts(EVENT), KEY).unwrap().timestamp,
            Some(UnixMillis(1_669_926_463_000))
        );
    }

    #[test]
    fn another_time_or_type_is_refused() {
        // A declined contract would be filed as signed.
        let rows = [
            (EVENT.replace("1669926463", "1669926464"), Failure::Mismatch),
            (EVENT.replace("account_confirmed", "account_deleted"), Failure::Mismatch),
            // One text, two readings.
            (
                EVENT.replace("1669926463", "166992646").replace("account", "3account"),
                Failure::Malformed,
            ),
            (
                EVENT.replace("1669926463", "").replace("account", "1669926463account"),
                Failure::Malformed,
            ),
            (EVENT.replace("\"1669926463\"", "1669926463"), Failure::Malformed),
            (EVENT.replace("event_hash", "hash"), Failure::Missing),
            (EVENT.replace("ff8b", "f8b"), Failure::Malformed),
            (EVENT.replace("event_metadata", "event_time"), Failure::Malformed),
            ("{}".to_owned(), Failure::Malformed),
        ];
        for (json, failure) in rows {
            assert_eq!(judge(&parts(&json)), Err(failure), "{json}");
        }
        let form = parts(EVENT).replaced("content-type", "application/x-www-form-urlencoded");
        assert_eq!(judge(&form), Err(Failure::Malformed));
        assert_eq!(
            judge(&Request {
                body: parts("").body,
                ..parts(EVENT)
            }),
            Err(Failure::Malformed)
        );
    }

    #[test]
    fn two_events_of_one_second_are_two() {
        // Two contracts signed in one second have one hash: the second would be dropped as a repeat.
        let other = EVENT.replace("\"a\"", "\"b\"");
        assert_eq!(judge(&parts(&other)), Ok(Strength::Authenticated));
        assert_ne!(
            digests(Native::DropboxSign, &parts(EVENT), KEY),
            digests(Native::DropboxSign, &parts(&other), KEY)
        );
        // A retry has another boundary.
        assert_eq!(
            digests(Native::DropboxSign, &parts(EVENT), KEY),
            digests(Native::DropboxSign, &Request::post(URL, EVENT), KEY)
        );
    }

    #[test]
    fn what_is_signed_here_is_accepted() {
        // A test request that no real one is like proves nothing.
        let plain = Request::post(URL, EVENT.replace("ff8b", "0000"));
        let signed = plain.signed(Native::DropboxSign, SigningKey::Shared(KEY.as_bytes()), UnixMillis(0));
        assert_eq!(judge(&signed), Ok(Strength::Authenticated));
    }
}
