//! Exact Online: the body carries an HMAC-SHA-256 of the text of one of its own members.
//!
//! Source: Exact Online's developer documentation on webhooks (support.exactonline.com). `{"Content":{...},"HashCode":"..."}`:
//! the code, in upper-case hex, is over the bytes of `Content` as they stand in the body. A verifier that parses and
//! writes them again refuses genuine messages and may accept others.
//!
//! With those two members alone the whole message is bound; more members would not be, so that such a body is only
//! known to come from Exact Online.

use std::borrow::Cow;

use super::judge::{Claim, Verdict, one_tag, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::members::Members;
use super::{ActiveKey, Found, Message};
use crate::signature::encoding::Encoding;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::MacKind;
use crate::signature::proof::{Failure, Strength};

const CONTENT: &str = "Content";
const CODE: &str = "HashCode";

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Utf8),
    strength_min: Strength::Authenticated,
    tolerance: None,
    uses_public_url: false,
    settings: &[],
    headers: Vec::new,
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let members = Members::read(message.body);
    let strength = match &members {
        Ok(members) if members.len() == 2 => Strength::Verified,
        _ => Strength::Authenticated,
    };
    let claim = members.and_then(|members| read(&members));
    let verdict = Verdict::of(MacKind::HmacSha256, keys, claim, message.body)?;
    Ok(verdict.found(strength, None))
}

fn read<'a>(members: &Members<'a>) -> Result<Claim<'a>, Failure> {
    let code = members.text(CODE)?;
    let content = members.raw(CONTENT)?;
    let tags = one_tag(code.as_bytes(), Encoding::Hex, MacKind::HmacSha256)?;
    let readings = vec![vec![Cow::Borrowed(content.as_bytes())]];
    Ok(Claim { tags, readings })
}

/// Signs a body that has a content; a code that is already there is replaced.
pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    const WHY: KeyError = KeyError::Unsignable("the body has no Content");
    let members = Members::read(request.body).map_err(|_| WHY)?;
    let content = members.raw(CONTENT).map_err(|_| WHY)?;
    let code = write_mac(MacKind::HmacSha256, key, &[content.as_bytes()], Encoding::Hex).to_ascii_uppercase();
    let body = members.with(CODE, &format!("\"{code}\""));
    Ok(Signed::json_body(body.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, judged};
    use super::*;
    use crate::clock::UnixMillis;

    const KEY: &str = "1BcVfXK1NK05exact";
    const URL: &str = "https://hooks.example.com/in/1";
    /// The code is computed apart from this code, over exactly these bytes.
    const EVENT: &str = r#"{"Topic":"Accounts","ClientId":"2781096d-a179-445f-bbf3-7b7e8bf244ae","Division":3114772,"Action":"Update","Key":"a79d86b2-69c6-4ca7-a537-d9d27afcdaf5","Rate":1.50,"Name":"caf\u00e9 é"}"#;
    const HASH: &str = "D0543A00814355838507AD5859C3F5584A5ABA800F7B15FFBDB6D951FD0F29FC";

    fn judge(body: &str) -> Result<Strength, Failure> {
        judged(Native::ExactOnline, &Request::post(URL, body), KEY)
    }

    #[test]
    fn the_bytes_of_the_content_are_signed() {
        // A number that is parsed and written again (1.50) has another code, and a genuine event would be refused.
        let rows = [
            format!(r#"{{"Content":{EVENT},"HashCode":"{HASH}"}}"#),
            format!(r#" {{ "HashCode" : "{HASH}" , "Content" : {EVENT} }} "#),
            format!(r#"{{"Content":{EVENT},"HashCode":"{}"}}"#, HASH.to_ascii_lowercase()),
        ];
        for body in rows {
            assert_eq!(judge(&body), Ok(Strength::Verified), "{body}");
        }
        let more = format!(r#"{{"Content":{EVENT},"HashCode":"{HASH}","Also":1}}"#);
        assert_eq!(judge(&more), Ok(Strength::Authenticated));
    }

    #[test]
    fn another_content_is_refused() {
        // Invoices would be read from a division that nobody asked about.
        let body = format!(r#"{{"Content":{EVENT},"HashCode":"{HASH}"}}"#);
        let rows = [
            (body.replace("1.50", "1.5"), Failure::Mismatch),
            (body.replace("3114772", "3114773"), Failure::Mismatch),
            (body.replace(":", ": "), Failure::Mismatch),
            (body.replace("D0", "D1"), Failure::Mismatch),
            (body.replace("\"Content\"", "\"content\""), Failure::Missing),
            (body.replace("\"HashCode\"", "\"Hash\""), Failure::Missing),
            (body.replace(HASH, "D0"), Failure::Malformed),
            (body.replace(&format!("\"{HASH}\""), "1"), Failure::Malformed),
            (format!(r#"{{"Content":1,{}"#, &body[1..]), Failure::Malformed),
            (String::new(), Failure::Malformed),
        ];
        for (body, failure) in rows {
            assert_eq!(judge(&body), Err(failure), "{body}");
        }
    }

    #[test]
    fn what_is_signed_here_is_signed_as_exact_online_does() {
        // A test request that no real one is like proves nothing.
        let key = SigningKey::Shared(KEY.as_bytes());
        let plain = Request::post(URL, format!(r#"{{"Content":{EVENT}}}"#));
        let signed = plain.signed(Native::ExactOnline, key, UnixMillis(0));
        assert_eq!(
            signed.body,
            format!(r#"{{"Content":{EVENT},"HashCode":"{HASH}"}}"#).into_bytes()
        );
    }
}
