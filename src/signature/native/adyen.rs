//! Adyen's standard notifications: every item of the body carries its own HMAC-SHA-256 over eight of its fields.
//!
//! Source: docs.adyen.com/development-resources/webhooks/verify-hmac-signatures and the validators of Adyen's own
//! libraries. The fields are joined by colons without escaping; an absent one is empty. Every item must hold: a reader
//! that checks the first alone lets anybody append items to a captured message.
//!
//! Only the merchant's reference may contain a colon: were there two such fields, one signed text would have several
//! readings. The rest of the item (reason, date, payment method, the live flag) is not covered, so that this proves
//! the origin and those eight fields. Whether the answer says `[accepted]` is the backend's business.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::judge::{Claim, SIGNATURES_MAX, Verdict, one_tag, write_mac};
use super::kind::{Facts, NativeKey, Signed, Unsigned};
use super::{ActiveKey, Found, Message};
use crate::signature::encoding::Encoding;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::mac::MacKind;
use crate::signature::proof::{Failure, Strength};

/// Colons between the eight fields.
const COLONS: usize = 7;

pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Shared(KeyForm::Hex),
    strength_min: Strength::Authenticated,
    tolerance: None,
    uses_public_url: false,
    settings: &[],
    headers: Vec::new,
};

pub(super) fn verify(message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
    let claims = match read(message.body) {
        Ok(items) => items.iter().map(Item::claim).collect(),
        Err(failure) => vec![Err(failure)],
    };
    let mut verdicts = claims
        .into_iter()
        .map(|claim| Verdict::of(MacKind::HmacSha256, keys, claim, message.body));
    let first = verdicts.next().ok_or(Failure::Malformed)??;
    let verdict = verdicts.try_fold(first, |whole, verdict| Ok(whole.and(verdict?)))?;
    Ok(verdict.found(Strength::Authenticated, None))
}

fn read(body: &[u8]) -> Result<Vec<Item>, Failure> {
    let notification: Notification = serde_json::from_slice(body).map_err(|_| Failure::Malformed)?;
    let items: Vec<Item> = notification.items.into_iter().map(|entry| entry.item).collect();
    match items.len() {
        1..=SIGNATURES_MAX => Ok(items),
        _ => Err(Failure::Malformed),
    }
}

#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "notificationItems")]
    items: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "NotificationRequestItem")]
    item: Item,
}

/// What is signed of an item, and its signature. A member that is there twice makes the body unreadable.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Item {
    psp_reference: Text,
    original_reference: Text,
    merchant_account_code: Text,
    merchant_reference: Text,
    amount: Amount,
    event_code: Text,
    success: Text,
    additional_data: Option<AdditionalData>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Amount {
    value: Text,
    currency: Text,
}

#[derive(Deserialize)]
struct AdditionalData {
    #[serde(rename = "hmacSignature")]
    signature: Option<String>,
}

impl Item {
    fn claim(&self) -> Result<Claim<'static>, Failure> {
        let data = self.additional_data.as_ref();
        let text = data.and_then(|data| data.signature.as_ref()).ok_or(Failure::Missing)?;
        let tags = one_tag(text.as_bytes(), Encoding::Base64, MacKind::HmacSha256)?;
        let joined = self.joined();
        let colons = |text: &str| text.matches(':').count();
        if colons(&joined) > colons(&self.merchant_reference.0).saturating_add(COLONS) {
            return Err(Failure::Malformed);
        }
        let readings = vec![vec![joined.into_bytes().into()]];
        Ok(Claim { tags, readings })
    }

    fn joined(&self) -> String {
        let fields = [
            &self.psp_reference,
            &self.original_reference,
            &self.merchant_account_code,
            &self.merchant_reference,
            &self.amount.value,
            &self.amount.currency,
            &self.event_code,
            &self.success,
        ];
        fields.map(|field| field.0.as_str()).join(":")
    }
}

/// A string's content, an integer's digits, a boolean's name; nothing for `null`.
#[derive(Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an integer or a boolean")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }
}

/// Signs every item of a notification, whatever signatures are in it.
pub(super) fn sign(request: &Unsigned<'_>, key: &[u8]) -> Result<Signed, KeyError> {
    const WHY: KeyError =
        KeyError::Unsignable("the body is no notification: notificationItems[].NotificationRequestItem");
    let items = read(request.body).map_err(|_| WHY)?;
    let mut body: serde_json::Value = serde_json::from_slice(request.body).map_err(|_| WHY)?;
    for (at, item) in items.iter().enumerate() {
        let entry = body.pointer_mut(&format!("/notificationItems/{at}/NotificationRequestItem"));
        let signature = write_mac(MacKind::HmacSha256, key, &[item.joined().as_bytes()], Encoding::Base64);
        let entry = entry.ok_or(WHY)?;
        if let Some(data) = entry
            .get_mut("additionalData")
            .and_then(serde_json::Value::as_object_mut)
        {
            data.insert("hmacSignature".to_owned(), signature.into());
        } else {
            let item = entry.as_object_mut().ok_or(WHY)?;
            item.insert(
                "additionalData".to_owned(),
                serde_json::json!({ "hmacSignature": signature }),
            );
        }
    }
    Ok(Signed::json_body(body.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::Native;
    use super::super::kind::SigningKey;
    use super::super::testing::{Request, digests, found, judged};
    use super::*;
    use crate::clock::UnixMillis;

    const KEY: &str = "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00";
    const URL: &str = "https://hooks.example.com/in/1";

    /// An item with `fields` instead of, or beside, those of Adyen's own tests.
    fn item(signature: &str, event: &str, reference: &str) -> String {
        format!(
            r#"{{"NotificationRequestItem":{{"pspReference":"pspReference","originalReference":"originalReference",
            "merchantAccountCode":"merchantAccount","merchantReference":{reference:?},
            "amount":{{"currency":"EUR","value":1000}},"eventCode":{event:?},"reason":"reason","success":"true",
            "additionalData":{{"hmacSignature":{signature:?}}}}}}}"#
        )
    }

    fn request(items: &[&str]) -> Request {
        Request::post(
            URL,
            format!(r#"{{"live":"false","notificationItems":[{}]}}"#, items.join(",")),
        )
    }

    fn judge(request: &Request) -> Result<Strength, Failure> {
        judged(Native::Adyen, request, KEY)
    }

    #[test]
    fn published_signatures_are_accepted() {
        // Adyen/adyen-node-api-library src/__tests__/hmacValidator.spec.ts. Payments would stay unknown to the shop.
        let report = item(
            "ZNBPtI+oDyyRrLyD1XirkKnQgIAlFc07Vj27TeHsDRE=",
            "REPORT_AVAILABLE",
            "reference",
        );
        let event = item("ipnxGCaUZ4l8TUW75a71/ghd2Fe5ffvX0pV4TLTntIc=", "EVENT", "reference");
        for items in [&[report.as_str()][..], &[&event], &[&report, &event]] {
            assert_eq!(judge(&request(items)), Ok(Strength::Authenticated), "{items:?}");
        }
        let key = "74F490DD33F7327BAECC88B2947C011FC02D014A473AAA33A8EC93E4DC069174";
        let rows = [
            (
                "nIgT81gaB5oJpn2jPXupDq68iRo2wUlBsuYjtYfwKqo=",
                "T7FD4VM4D3RZNN82",
                r"\\slashes are fun",
            ),
            (
                "CZErGCNQaSsxbaQfZaJlakqo7KPP+mIa8a+wx3yNs9A=",
                "ZVWN7D3WSMK2WN82",
                r"\:/\/slashes are fun",
            ),
        ];
        for (signature, psp, reference) in rows {
            let item = format!(
                r#"{{"NotificationRequestItem":{{"additionalData":{{"avsResultRaw":"5","hmacSignature":{signature:?}}},
                "amount":{{"currency":"EUR","value":1000}},"eventCode":"AUTHORISATION","merchantAccountCode":
                "AntoniStroinski","merchantReference":{reference:?},"pspReference":{psp:?},"success":"true"}}}}"#
            );
            assert_eq!(
                judged(Native::Adyen, &request(&[&item]), key),
                Ok(Strength::Authenticated),
                "{reference}"
            );
        }
    }

    #[test]
    fn one_bad_item_spoils_the_whole_message() {
        // Items appended to a captured message would be booked as paid.
        let good = item(
            "ZNBPtI+oDyyRrLyD1XirkKnQgIAlFc07Vj27TeHsDRE=",
            "REPORT_AVAILABLE",
            "reference",
        );
        let forged = good.replace("reference\"", "forged\"");
        let zeros = good.replace("ZNBPtI+oDyyRrLyD1XirkKnQgIAlFc07Vj27TeHsDRE=", &"A".repeat(44));
        let unsigned = good.replace("\"hmacSignature\":", "\"other\":");
        let bare = good.replace("additionalData", "other");
        let twice = good.replace("\"success\":\"true\"", "\"success\":\"true\",\"success\":\"true\"");
        let fraction = good.replace("1000", "1000.0");
        let rows: [(&[&str], Failure); 10] = [
            (&[&good, &forged], Failure::Mismatch),
            (&[&forged, &good], Failure::Mismatch),
            (&[&zeros], Failure::Malformed),
            (&[&good, &zeros], Failure::Malformed),
            (&[&unsigned], Failure::Missing),
            (&[&good, &bare], Failure::Missing),
            (&[&twice], Failure::Malformed),
            (&[&fraction], Failure::Malformed),
            (&[], Failure::Malformed),
            (&[good.as_str(); 17], Failure::Malformed),
        ];
        for (items, failure) in rows {
            assert_eq!(judge(&request(items)), Err(failure), "{items:?}");
        }
        for body in [
            "",
            "[]",
            "{}",
            r#"{"notificationItems":[{}]}"#,
            r#"{"notificationItems":[],"notificationItems":[]}"#,
        ] {
            assert_eq!(judge(&Request::post(URL, body)), Err(Failure::Malformed), "{body}");
        }
    }

    #[test]
    fn colons_stand_in_the_merchants_reference_alone() {
        // `p:1` + `` and `p` + `1:` are one signed text: fields of one payment would pass for those of another.
        let item = |psp: &str, reference: &str, value: i64, signature: &str, success: bool| {
            format!(
                r#"{{"NotificationRequestItem":{{"pspReference":{psp:?},"merchantAccountCode":"m","merchantReference":
                {reference:?},"amount":{{"value":{value},"currency":"EUR"}},"eventCode":"E","success":{success},
                "additionalData":{{"hmacSignature":{signature:?}}}}}}}"#
            )
        };
        let rows = [
            (
                item(
                    "p1",
                    "r:1:2",
                    1000,
                    "QQHs2B1FTRBq/GqlyuqXkiPGMSiEPQri/WoKhSmgNyk=",
                    true,
                ),
                Ok(Strength::Authenticated),
            ),
            (
                item("p2", "", -5, "4qbEnVe+3iFcMY6opzhXOqQs7xBOLHiEGfTxulKDxmw=", false),
                Ok(Strength::Authenticated),
            ),
            (
                item("p:3", "", 1, "fPeqYF+ekZ2Scg0FAWKsBIik8sODJ1QZPGIwR0tZeJQ=", true),
                Err(Failure::Malformed),
            ),
        ];
        for (item, expected) in rows {
            assert_eq!(judge(&request(&[&item])), expected, "{item}");
        }
    }

    #[test]
    fn an_item_is_recognised_in_any_company() {
        // Captured items could be delivered again in every combination.
        let report = item(
            "ZNBPtI+oDyyRrLyD1XirkKnQgIAlFc07Vj27TeHsDRE=",
            "REPORT_AVAILABLE",
            "reference",
        );
        let event = item("ipnxGCaUZ4l8TUW75a71/ghd2Fe5ffvX0pV4TLTntIc=", "EVENT", "reference");
        let alone = digests(Native::Adyen, &request(&[&report]), KEY);
        let both = digests(Native::Adyen, &request(&[&event, &report]), KEY);
        assert!(alone.iter().all(|digest| both.contains(digest)));
        assert_eq!((alone.len(), both.len()), (1, 2));
        assert_eq!(digests(Native::Adyen, &request(&[&report, &report]), KEY), alone);
    }

    #[test]
    fn every_item_is_signed() {
        // A test request of several items would be refused.
        let body = request(&[
            &item("x", "EVENT", "a"),
            &item("x", "EVENT", "b").replace("additionalData", "other"),
        ]);
        let key = hex::decode(KEY).unwrap();
        let signed = body.signed(Native::Adyen, SigningKey::Shared(&key), UnixMillis(0));
        assert_eq!(judge(&signed), Ok(Strength::Authenticated));
        assert!(found(Native::Adyen, &signed, KEY).unwrap().signed_id.is_none());
    }
}
