//! PayPal: a signature over the transmission's id and time, the webhook's id and a checksum of the body.
//!
//! The checksum is CRC-32, which protects against noise and not against people: whoever has seen one genuine message can
//! write another body with the same checksum in a moment, under the same signature. So this scheme proves that PayPal
//! sent *a* message for this webhook, never that it sent this body. Backends ask PayPal's API before they act.
//!
//! The certificate's address is in a header that a forger writes, too; it is taken only from PayPal's two API hosts and
//! from the folder of certificates. The webhook's id is in no header and comes from the route's setting `webhook_id`;
//! without it, messages for other merchants' webhooks would be as good as ours.
//!
//! <https://developer.paypal.com/api/rest/webhooks/rest/#link-verifysignature>

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::super::encoding::key_from_base64;
use super::super::pinned::Pin;
use super::super::proof::{Failure, Strength};
use super::super::pubkey::SignatureAlgorithm;
use super::super::wanted::{KeySource, Wanted, rfc3339};
use super::kind::{Facts, NativeKey};
use super::{Message, Settings};

/// Transmissions are repeated for three days. PayPal documents the time as that of the transmission; should repeats keep
/// the first one's, half a day of them gets through, and the body of an old one cannot be swapped for ever.
pub(in super::super) const TOLERANCE: Duration = Duration::from_secs(12 * 60 * 60);

/// What is known of it before any request.
pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Published,
    strength_min: Strength::Authenticated,
    tolerance: Some(TOLERANCE),
    uses_public_url: false,
    settings: &[WEBHOOK_ID],
    headers: || HEADERS.map(HeaderName::from_static).to_vec(),
};

/// The setting with the id that PayPal gave the webhook.
pub(in super::super) const WEBHOOK_ID: &str = "webhook_id";

/// The only algorithm that is known to be used.
const ALGORITHM: &str = "SHA256withRSA";

/// Where PayPal's certificates are.
const CERTIFICATES: Pin<'static> = Pin {
    hosts: &["api.paypal.com", "api.sandbox.paypal.com"],
    before: "/v1/notifications/certs/",
    after: "",
};

/// The headers it reads; each must be there once.
pub(in super::super) const HEADERS: [&str; 5] = [
    "paypal-transmission-sig",
    "paypal-transmission-id",
    "paypal-transmission-time",
    "paypal-cert-url",
    "paypal-auth-algo",
];

/// Checks the setting `webhook_id` once, where a route is built.
///
/// # Errors
/// What is wrong with it.
pub(in super::super) fn check(settings: &Settings) -> Result<(), &'static str> {
    match settings.find(WEBHOOK_ID).is_some_and(is_plain) {
        true => Ok(()),
        false => Err("is no webhook id: letters and digits, as PayPal's dashboard shows it"),
    }
}

/// Everything but the signature itself.
///
/// # Errors
/// [`Failure::Missing`] without one of the headers, [`Failure::Malformed`] when one cannot be read, [`Failure::UnknownKey`]
/// for certificates from elsewhere.
pub(in super::super) fn read(message: &Message<'_>) -> Result<Wanted, Failure> {
    let [signature, id, time, certificate, algorithm] = HEADERS;
    let signature = single(message.headers, signature)?;
    let id = single(message.headers, id)?;
    let time = single(message.headers, time)?;
    let certificate = single(message.headers, certificate)?;
    if single(message.headers, algorithm)? != ALGORITHM || !is_plain(id) {
        return Err(Failure::Malformed);
    }
    let signature = key_from_base64(signature.as_bytes()).ok_or(Failure::Malformed)?;
    let timestamp = rfc3339(time).ok_or(Failure::Malformed)?;
    let source = CERTIFICATES.admit(certificate).ok_or(Failure::UnknownKey)?;
    let webhook_id = message.settings.find(WEBHOOK_ID).ok_or(Failure::UnknownKey)?;
    let checksum = crc32fast::hash(message.body);
    Ok(Wanted {
        source: KeySource::certificate(source),
        algorithm: SignatureAlgorithm::RsaSha256,
        signed: format!("{id}|{time}|{webhook_id}|{checksum}").into_bytes(),
        signature: signature.to_vec(),
        signed_id: Some(id.to_owned()),
        timestamp: Some(timestamp),
        strength: Strength::Authenticated,
        confirmation: None,
    })
}

/// Letters, digits and hyphens: nothing that could move the bars between the signed values.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Failure> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Failure::Missing)?;
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(text),
        _ => Err(Failure::Malformed),
    }
}

#[cfg(test)]
mod tests;
