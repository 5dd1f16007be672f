//! Braintree: a form with an encoded notification in `bt_payload` and `publicKey|signature` pairs in `bt_signature`.
//!
//! Source: developer.paypal.com/braintree/docs/guides/webhooks/parse and the gateways of Braintree's own libraries. The
//! HMAC-SHA-1 is keyed with the raw SHA-1 of the private key, over the base64 text with its line ends. Only pairs
//! under the public key of the route's settings count.
//!
//! The text's last line end may have got lost on the way, so that it counts with and without; what a repeat is
//! recognised by has it always, or dropping it would make a captured notification look new. Characters outside
//! base64 are refused before anything is hashed. The whole message is bound when the form has nothing but those two
//! fields; a form with more is only known to come from Braintree.

use std::borrow::Cow;

use sha1::{Digest as _, Sha1};

use super::form::{self, Pair};
use super::judge::{Claim, SIGNATURES_MAX, Verdict, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message, Settings};
use crate::signature::encoding::Encoding;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::{MacKind, Tag};
use crate::signature::proof::{Failure, Strength};

/// The setting with the public key that belongs to the private key.
const PUBLIC_KEY: &str = "public_key";

const FIELD_SIGNATURE: &str = "bt_signature";
const FIELD_TEXT: &str = "bt_payload";

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Authenticated,
    tolerance: None,
    uses_public_url: false,
    settings: &[PUBLIC_KEY],
    headers: Vec::new,
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let pairs = form::of_body(message);
    let strength = match &pairs {
        Ok(pairs) if pairs.len() == 2 => Strength::Verified,
        _ => Strength::Authenticated,
    };
    let claim = pairs.and_then(|pairs| read(&pairs, message.settings));
    let hashed: Vec<[u8; 20]> = keys.iter().map(|key| Sha1::digest(key.secret()).into()).collect();
    let keys: Vec<ActiveKey<'_>> = hashed.iter().map(|key| ActiveKey::new(key)).collect();
    let verdict = Verdict::of(MacKind::HmacSha1, &keys, claim, message.body)?;
    Ok(verdict.found(strength, None))
}

fn read(pairs: &[Pair], settings: &Settings) -> Result<Claim<'static>, Failure> {
    let tags = tags(form::only(pairs, FIELD_SIGNATURE)?, settings)?;
    let text = form::only(pairs, FIELD_TEXT)?;
    if text.is_empty() || !text.iter().all(is_base64) || is_challenge(text.trim_ascii_end()) {
        return Err(Failure::Malformed);
    }
    let mut bare = text;
    while let Some(shorter) = bare.strip_suffix(b"\n") {
        bare = shorter;
    }
    let readings = [[bare, b"\n"], [text, b""], [text, b"\n"]];
    let owned = |parts: [&[u8]; 2]| vec![Cow::Owned(parts.concat())];
    let readings = readings.into_iter().map(owned).collect();
    Ok(Claim { tags, readings })
}

/// The signatures under our public key; several only when Braintree sends several.
fn tags(text: &[u8], settings: &Settings) -> Result<Vec<Tag>, Failure> {
    let ours = settings.find(PUBLIC_KEY).unwrap_or_default().as_bytes();
    let mut tags = Vec::new();
    for (at, pair) in text.split(|byte| *byte == b'&').enumerate() {
        if at == SIGNATURES_MAX {
            return Err(Failure::Malformed);
        }
        let mut halves = pair.splitn(2, |byte| *byte == b'|');
        let (Some(name), Some(signature)) = (halves.next(), halves.next()) else {
            continue;
        };
        if name == ours {
            tags.extend(Encoding::Hex.decode(signature, MacKind::HmacSha1.tag_bytes()));
        }
    }
    match tags.is_empty() {
        true => Err(Failure::Malformed),
        false => Ok(tags),
    }
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=\n".contains(byte)
}

/// The answer to Braintree's question whether we know the private key: `GET ?bt_challenge=...`, unsigned.
///
/// `None` unless it is a challenge. Whoever asks gets a signature under our key, so that nothing else is ever signed
/// for a stranger, and what looks like a challenge is no notification.
pub(super) fn answer(settings: &Settings, private_key: &[u8], challenge: &str) -> Option<String> {
    let public_key = settings.find(PUBLIC_KEY)?;
    if !is_challenge(challenge.as_bytes()) {
        return None;
    }
    let key = Sha1::digest(private_key);
    let signature = write_mac(MacKind::HmacSha1, &key, &[challenge.as_bytes()], Encoding::Hex);
    Some(format!("{public_key}|{signature}"))
}

/// 20 to 32 lower-case hex digits.
fn is_challenge(text: &[u8]) -> bool {
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    (20..=32).contains(&text.len()) && text.iter().all(is_hex)
}

/// Signs a form that has a notification in it, or a notification in XML as it is before it is encoded.
pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    let public_key = request.setting(PUBLIC_KEY)?;
    let mut pairs = form::pairs(request.body).unwrap_or_default();
    pairs.retain(|(name, _)| name != FIELD_SIGNATURE.as_bytes());
    if form::only(&pairs, FIELD_TEXT).is_err() {
        let text = Encoding::Base64.encode(request.body) + "\n";
        pairs = vec![(FIELD_TEXT.into(), text.into_bytes())];
    }
    let text = form::only(&pairs, FIELD_TEXT).unwrap_or_default();
    let signature = write_mac(MacKind::HmacSha1, &Sha1::digest(key), &[text], Encoding::Hex);
    let mut body = format!(
        "{FIELD_SIGNATURE}={}",
        form::escape(format!("{public_key}|{signature}").as_bytes())
    );
    for (name, value) in &pairs {
        body.push_str(&format!("&{}={}", form::escape(name), form::escape(value)));
    }
    let mut signed = Signed::default();
    signed.content_type("application/x-www-form-urlencoded");
    signed.body = Some(body.into_bytes());
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, digests, judged};
    use super::*;
    use crate::clock::UnixMillis;

    const KEY: &str = "integration_private_key";
    const URL: &str = "https://hooks.example.com/in/1";
    /// braintree_python tests/unit/test_webhooks.py, with a notification of its own.
    const VALID: &str = "bt_signature=integration_public_key%7Cb78e63ad160348006292b7682114fbcdb4e9f61d&bt_payload=\
        PG5vdGlmaWNhdGlvbj48a2luZD5jaGVjazwva2luZD48dGltZXN0YW1wPjIwMjMtMTEtMTRUMjI6%0A\
        MTM6MjBaPC90aW1lc3RhbXA%2BPC9ub3RpZmljYXRpb24%2B%0A";
    const TEXT: &str = "PG5vdGlmaWNhdGlvbj48a2luZD5jaGVjazwva2luZD48L25vdGlmaWNhdGlvbj4%3D";
    /// Of TEXT without and with a line end behind it.
    const BARE: &str = "3a4834a92266328250db82a209a87bd6ba818115";
    const ENDED: &str = "d53eaf7e941a322fd63f23a4c014828169ba83f4";

    fn request(body: &str) -> Request {
        Request::form(URL, body).setting(PUBLIC_KEY, "integration_public_key")
    }

    fn pair(signature: &str, text: &str) -> Request {
        request(&format!(
            "bt_signature=integration_public_key%7C{signature}&bt_payload={text}"
        ))
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::Braintree, request, KEY)
    }

    #[test]
    fn a_notification_counts_with_and_without_its_last_line_end() {
        // Frameworks trim form fields: subscriptions would end without the shop knowing.
        assert_eq!(judge(&request(VALID)), Ok(Strength::Verified));
        assert_eq!(
            judge(&request(VALID.strip_suffix("%0A").unwrap())),
            Ok(Strength::Verified)
        );
        let ended = format!("{TEXT}%0A");
        for (signature, text) in [(BARE, TEXT), (ENDED, TEXT), (ENDED, &ended)] {
            assert_eq!(
                judge(&pair(signature, text)),
                Ok(Strength::Verified),
                "{signature} {text}"
            );
        }
        assert_eq!(judge(&pair(BARE, &ended)), Err(Failure::Mismatch));
    }

    #[test]
    fn line_ends_make_nothing_new() {
        // A captured cancellation could be delivered twice, with the line end and without it.
        let whole = digests(Native::Braintree, &request(VALID), KEY);
        let trimmed = digests(Native::Braintree, &request(VALID.strip_suffix("%0A").unwrap()), KEY);
        assert_eq!(whole, trimmed);
        let ended = format!("{TEXT}%0A");
        assert_eq!(
            digests(Native::Braintree, &pair(BARE, TEXT), KEY),
            digests(Native::Braintree, &pair(ENDED, &ended), KEY)
        );
    }

    #[test]
    fn nothing_but_the_two_fields_is_bound() {
        // Another field beside the signed one would reach the backend as verified.
        let more = request(&format!("{VALID}&also=this"));
        assert_eq!(judge(&more), Ok(Strength::Authenticated));
        let of = |signature: &str| format!("bt_signature={signature}&bt_payload={TEXT}");
        let rows = [
            ("bt_signature=integration_public_key%7Cb78e63ad160348006292b7682114fbcdb4e9f61d&bt_payload=~%2A+invalid%21+%2A~".to_owned(), Failure::Malformed),
            (format!("{VALID}&bt_payload={TEXT}"), Failure::Malformed),
            (format!("{VALID}&bt_signature=x"), Failure::Malformed),
            (VALID.replace("bt_payload", "other"), Failure::Missing),
            (VALID.replace("bt_signature", "other"), Failure::Missing),
            (of(&format!("other_public_key%7C{BARE}")), Failure::Malformed),
            (of(BARE), Failure::Malformed),
            (of("integration_public_key%7C"), Failure::Malformed),
            (of(&format!("integration_public_key%7C{}", "0".repeat(40))), Failure::Mismatch),
            (of(&format!("{}integration_public_key%7C{BARE}", "x%26".repeat(16))), Failure::Malformed),
            (format!("bt_signature=integration_public_key%7C{BARE}&bt_payload="), Failure::Malformed),
            (String::new(), Failure::Missing),
        ];
        for (body, failure) in rows {
            assert_eq!(judge(&request(&body)), Err(failure), "{body}");
        }
        let several = of(&format!(
            "other_public_key%7C{}%26integration_public_key%7C{BARE}",
            "0".repeat(40)
        ));
        assert_eq!(judge(&request(&several)), Ok(Strength::Verified));
        assert_eq!(
            judge(&request(VALID).replaced("content-type", "text/plain")),
            Err(Failure::Malformed)
        );
    }

    #[test]
    fn a_challenge_is_answered_and_nothing_else_is_signed() {
        // braintree_python tests/unit/test_webhooks.py. An answer to anything would be a signature for anything.
        let settings = request("").settings;
        let answer = |text: &str| Native::Braintree.answer(&settings, KEY.as_bytes(), text);
        let expected = "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4";
        assert_eq!(answer("20f9f8ed05f77439fe955c977e4c8a53").as_deref(), Some(expected));
        for text in [
            "",
            "20f9f8ed05f77439fe9",
            &"a".repeat(33),
            "20F9f8ed05f77439fe955c977e4c8a53",
            "20f9f8ed05f77439fe955c977e4c8a5\n",
        ] {
            assert_eq!(answer(text), None, "{text:?}");
        }
        let text = "20f9f8ed05f77439fe955c977e4c8a53";
        let signature = "d9b899556c966b3f06945ec21311865d35df3ce4";
        assert_eq!(judge(&pair(signature, text)), Err(Failure::Malformed));
        assert_eq!(Native::Twilio.answer(&settings, KEY.as_bytes(), text), None);
    }

    #[test]
    fn what_is_signed_here_is_accepted() {
        // A test request that no real one is like proves nothing.
        let plain = Request::post(URL, "<notification/>").setting(PUBLIC_KEY, "integration_public_key");
        let signed = plain.signed(Native::Braintree, SigningKey::Shared(KEY.as_bytes()), UnixMillis(0));
        assert_eq!(judge(&signed), Ok(Strength::Verified));
        let again = request(VALID).signed(Native::Braintree, SigningKey::Shared(KEY.as_bytes()), UnixMillis(0));
        assert_eq!(again.body, VALID.as_bytes());
        let form = request(&format!("bt_payload={TEXT}&sample=1"));
        let signed = form.signed(Native::Braintree, SigningKey::Shared(KEY.as_bytes()), UnixMillis(0));
        assert_eq!(judge(&signed), Ok(Strength::Authenticated));
    }
}
