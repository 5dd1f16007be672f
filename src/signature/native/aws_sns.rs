//! Amazon SNS: a JSON message that names its certificate, signed over some of its members.
//!
//! Signed are the lines `Name\nvalue\n` of fixed members in a fixed order; `SignatureVersion` says whether with SHA-1 or
//! SHA-256. Not signed, and so not to be trusted: `UnsubscribeURL`, `MessageAttributes`, every header, and every other
//! member somebody may add. That is why this scheme never proves more than the origin.
//!
//! Anybody may have SNS sign messages of a topic of their own, under the same certificates. So the topics a route takes
//! are pinned by its setting `topic_arn`, and so is the region: the certificate comes from the SNS host of the topic's
//! own region or from nowhere. Values but the message itself must not have line breaks, or a message could be signed
//! as one thing and read as another.
//!
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>

use std::time::Duration;

use serde::Deserialize;

use super::super::encoding::key_from_base64;
use super::super::pinned::{Pin, PinnedUrl};
use super::super::proof::{Failure, Strength};
use super::super::pubkey::SignatureAlgorithm;
use super::super::wanted::{KeySource, Wanted, rfc3339};
use super::kind::{Facts, NativeKey};
use super::{Message, Settings};

/// Messages are sent again for an hour, and carry the time of the first attempt.
pub(in super::super) const TOLERANCE: Duration = Duration::from_secs(2 * 60 * 60);

/// What is known of it before any request.
pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Published,
    strength_min: Strength::Authenticated,
    tolerance: Some(TOLERANCE),
    uses_public_url: false,
    settings: &[TOPICS],
    headers: Vec::new,
};

/// The setting that names the topic by its ARN; several are separated by commas.
pub(in super::super) const TOPICS: &str = "topic_arn";

/// Longest value of a member but the message, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// What is read of a message. A member said twice is refused, because what is behind us may read the other one.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Notice {
    r#type: String,
    message: String,
    message_id: String,
    subject: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    timestamp: String,
    token: Option<String>,
    topic_arn: String,
    signature_version: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
    signature: Option<String>,
}

/// Checks the setting `topic_arn` once, where a route is built.
///
/// # Errors
/// What is wrong with it.
pub(in super::super) fn check(settings: &Settings) -> Result<(), &'static str> {
    let topics = settings.find(TOPICS).unwrap_or_default();
    match topics.split(',').all(|arn| Topic::read(arn.trim()).is_some()) {
        true => Ok(()),
        false => Err("is no list of topic ARNs: arn:aws:sns:eu-west-1:123456789012:name"),
    }
}

/// Everything but the signature itself.
///
/// # Errors
/// [`Failure::Missing`] without a signature, [`Failure::Malformed`] for what is no message of SNS,
/// [`Failure::UnknownKey`] for other topics and certificates from elsewhere.
pub(in super::super) fn read(message: &Message<'_>) -> Result<Wanted, Failure> {
    let notice: Notice = serde_json::from_slice(message.body).map_err(|_| Failure::Malformed)?;
    let signature = notice.signature.as_deref().ok_or(Failure::Missing)?;
    let signature = key_from_base64(signature.as_bytes()).ok_or(Failure::Malformed)?;
    let algorithm = match notice.signature_version.as_str() {
        "1" => SignatureAlgorithm::RsaSha1,
        "2" => SignatureAlgorithm::RsaSha256,
        _ => return Err(Failure::Malformed),
    };
    let signed = notice.signed().ok_or(Failure::Malformed)?;
    let timestamp = rfc3339(&notice.timestamp).ok_or(Failure::Malformed)?;
    let topics = message.settings.find(TOPICS).unwrap_or_default();
    let pinned = topics.split(',').map(str::trim).any(|arn| arn == notice.topic_arn);
    let topic = Topic::read(&notice.topic_arn)
        .filter(|_| pinned)
        .ok_or(Failure::UnknownKey)?;
    let certificate = topic.certificate(&notice.signing_cert_url).ok_or(Failure::UnknownKey)?;
    Ok(Wanted {
        source: KeySource::certificate(certificate),
        algorithm,
        signed,
        signature: signature.to_vec(),
        signed_id: Some(notice.message_id.clone()),
        timestamp: Some(timestamp),
        strength: Strength::Authenticated,
        confirmation: topic.confirmation(&notice),
    })
}

impl Notice {
    /// The signed lines; `None` when the message is of no known type, lacks a member, or has a value that would make
    /// the lines ambiguous.
    fn signed(&self) -> Option<Vec<u8>> {
        let subject = self.subject.as_deref();
        let lines: &[(&str, Option<&str>)] = match self.r#type.as_str() {
            "Notification" => &[
                ("MessageId", Some(&self.message_id)),
                ("Subject", subject),
                ("Timestamp", Some(&self.timestamp)),
                ("TopicArn", Some(&self.topic_arn)),
                ("Type", Some(&self.r#type)),
            ],
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => &[
                ("MessageId", Some(&self.message_id)),
                ("SubscribeURL", Some(self.subscribe_url.as_deref()?)),
                ("Timestamp", Some(&self.timestamp)),
                ("Token", Some(self.token.as_deref()?)),
                ("TopicArn", Some(&self.topic_arn)),
                ("Type", Some(&self.r#type)),
            ],
            _ => return None,
        };
        let mut signed = format!("Message\n{}\n", self.message).into_bytes();
        for (name, value) in lines {
            let Some(value) = value else { continue };
            if value.len() > VALUE_BYTES_MAX || value.contains(char::is_control) {
                return None;
            }
            [name, "\n", value, "\n"]
                .iter()
                .for_each(|part| signed.extend_from_slice(part.as_bytes()));
        }
        let id = self.message_id.as_bytes();
        let id_plain = (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
        id_plain.then_some(signed)
    }
}

/// The parts of a topic's ARN that say where its keys are.
struct Topic<'a> {
    arn: &'a str,
    host: String,
}

impl<'a> Topic<'a> {
    fn read(arn: &'a str) -> Option<Topic<'a>> {
        let parts: Vec<&str> = arn.split(':').collect();
        let &["arn", partition, "sns", region, account, name] = parts.as_slice() else {
            return None;
        };
        let domain = match partition {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => return None,
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let region_plain = (3..=32).contains(&region.len()) && region.bytes().all(plain);
        let account_plain = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let name_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let name_plain = (1..=256).contains(&name.len()) && name.bytes().all(name_plain);
        (region_plain && account_plain && name_plain).then(|| Topic {
            arn,
            host: format!("sns.{region}.{domain}"),
        })
    }

    /// The address of a certificate, if it is on the SNS host of the topic's region.
    fn certificate(&self, url: &str) -> Option<PinnedUrl> {
        let pin = Pin {
            hosts: &[&self.host],
            before: "/SimpleNotificationService-",
            after: ".pem",
        };
        pin.admit(url)
    }

    /// What confirms the subscription that `notice` asks about. Made from the pinned topic and the signed token; the
    /// URL in the message is not used. An UnsubscribeConfirmation has the same members, and following it would undo
    /// what somebody has just done: it confirms nothing.
    fn confirmation(&self, notice: &Notice) -> Option<PinnedUrl> {
        let token = notice
            .token
            .as_deref()
            .filter(|_| notice.r#type == "SubscriptionConfirmation")?;
        let plain = (1..=VALUE_BYTES_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_alphanumeric());
        let target = format!("/?Action=ConfirmSubscription&TopicArn={}&Token={token}", self.arn);
        plain.then(|| PinnedUrl::of(&self.host, &target).ok()).flatten()
    }
}

#[cfg(test)]
mod tests;
