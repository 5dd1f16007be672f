//! Messages of SNS, under a certificate of our own.

use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::clock::UnixMillis;
use crate::secret::Secret;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const MESSAGES: &str = include_str!("../../../../tests/published/sns.json");
const CERTIFICATE: &[u8] = include_bytes!("../../../../tests/published/signer.crt.pem");
const EXPIRED: &[u8] = include_bytes!("../../../../tests/published/expired.crt.pem");
const URLS: &str = include_str!("../../../../tests/published/urls.txt");
const TOPIC: &str = "arn:aws:sns:us-west-2:123456789012:MyTopic";

fn messages() -> Vec<Value> {
    serde_json::from_str(MESSAGES).unwrap()
}

fn settings(topics: &str) -> Settings {
    let mut settings = Settings::default();
    settings.insert(TOPICS, Secret::new(topics).unwrap()).unwrap();
    settings
}

fn read_body(body: &[u8], topics: &str) -> Result<Wanted, Failure> {
    read(&Message {
        method: "POST",
        target: "/",
        headers: &HeaderMap::new(),
        body,
        public_url: None,
        settings: &settings(topics),
    })
}

fn read_value(message: &Value) -> Result<Wanted, Failure> {
    read_body(message.to_string().as_bytes(), TOPIC)
}

fn verdict(message: &Value) -> Result<Option<usize>, Failure> {
    let wanted = read_value(message)?;
    let fetched = wanted.source.read(CERTIFICATE).unwrap();
    wanted.judge(&fetched, NOW).map(|found| found.matched)
}

/// `message` with one member replaced; `None` takes it away.
fn with(message: &Value, name: &str, value: Option<&str>) -> Value {
    let mut changed = message.clone();
    match value {
        Some(value) => drop(changed.as_object_mut().unwrap().insert(name.to_owned(), json!(value))),
        None => drop(changed.as_object_mut().unwrap().remove(name)),
    }
    changed
}

#[test]
fn every_type_of_message_is_taken_in_both_versions() {
    // A type that is left out is a subscription that cannot be made, or events that are lost.
    let messages = messages();
    assert_eq!(messages.len(), 8);
    for message in &messages {
        assert_eq!(verdict(message), Ok(Some(0)), "{message}");
        let wanted = read_value(message).unwrap();
        assert_eq!(
            wanted.source.url().to_string(),
            message["SigningCertURL"].as_str().unwrap()
        );
        assert_eq!(wanted.signed_id.as_deref(), message["MessageId"].as_str());
        assert_eq!(wanted.timestamp, Some(NOW));
        assert_eq!(wanted.strength, Strength::Authenticated);
    }
}

#[test]
fn whatever_is_signed_is_checked() {
    // A member that can be changed is one that a forger chooses.
    for message in messages() {
        let signed: &[&str] = match message["Type"].as_str().unwrap() {
            "Notification" => &["Message", "MessageId", "Timestamp", "Type"],
            _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "Type"],
        };
        for name in signed {
            let value = message[name].as_str().unwrap();
            for at in 0..value.len() {
                let mut bytes = value.as_bytes().to_vec();
                bytes[at] ^= 1;
                let Ok(changed) = String::from_utf8(bytes) else {
                    continue;
                };
                let failure = verdict(&with(&message, name, Some(&changed))).unwrap_err();
                let known = [Failure::Mismatch, Failure::Malformed, Failure::UnknownKey];
                assert!(known.contains(&failure), "{name} {changed:?}: {failure:?}");
            }
            assert!(verdict(&with(&message, name, None)).is_err(), "no {name}");
        }
        let subject = with(&message, "Subject", Some("Another"));
        let expected = match message["Type"] == "Notification" {
            true => Err(Failure::Mismatch),
            // Confirmations have no subject: it is not signed, and nobody reads it.
            false => Ok(Some(0)),
        };
        assert_eq!(verdict(&subject), expected);
    }
}

#[test]
fn one_signature_has_one_message() {
    // A message whose text looks like the members after it could be read with other members than were signed.
    let message = &messages()[0];
    let text = message["Message"].as_str().unwrap();
    let id = message["MessageId"].as_str().unwrap();
    let longer = format!("{text}\nMessageId\n{id}");
    let moved = with(message, "Message", Some(&longer));
    assert_eq!(verdict(&moved), Err(Failure::Mismatch));
    for (name, value) in [
        ("MessageId", "a\nb"),
        ("Subject", "a\nTimestamp\n2023-11-14T22:13:20.000Z"),
        ("Subject", "a\rb"),
        ("Timestamp", "2023-11-14T22:13:20.000Z\n"),
        ("MessageId", ""),
        ("MessageId", "\u{e4}"),
    ] {
        assert_eq!(
            verdict(&with(message, name, Some(value))),
            Err(Failure::Malformed),
            "{name}"
        );
    }
}

#[test]
fn a_message_that_two_readers_read_differently_is_malformed() {
    // The verifier reads the first `Message`, the backend the last.
    let body = messages()[0].to_string();
    let twice = body.replacen('{', "{\"Message\":\"evil\",", 1);
    assert_eq!(read_body(twice.as_bytes(), TOPIC).err(), Some(Failure::Malformed));
    let unknown = body.replacen('{', "{\"UnsubscribeURL\":\"https://evil.example\",", 1);
    assert!(read_body(unknown.as_bytes(), TOPIC).is_ok());
    for body in ["", "[]", "null", "{}", "{\"Type\":\"Notification\"}", "\u{feff}{}"] {
        assert_eq!(
            read_body(body.as_bytes(), TOPIC).err(),
            Some(Failure::Malformed),
            "{body}"
        );
    }
}

#[test]
fn versions_are_those_that_are_documented() {
    // A version that is guessed is an algorithm that the sender chooses.
    let message = &messages()[0];
    for version in ["0", "3", "", "01", "2.0", "sha1"] {
        let changed = with(message, "SignatureVersion", Some(version));
        assert_eq!(verdict(&changed), Err(Failure::Malformed), "{version}");
    }
    assert_eq!(
        verdict(&with(message, "SignatureVersion", Some("2"))),
        Err(Failure::Mismatch)
    );
    assert_eq!(verdict(&with(message, "Signature", None)), Err(Failure::Missing));
    for signature in ["?", "AAA", " AAAA", "AAAA\n"] {
        let changed = with(message, "Signature", Some(signature));
        assert_eq!(verdict(&changed), Err(Failure::Malformed), "{signature:?}");
    }
}

#[test]
fn certificates_come_from_the_topics_own_region_alone() {
    // A certificate from anywhere else is the forger's, as it was of every verifier that looked at the host's name.
    let urls: Vec<String> = URLS
        .lines()
        .filter(|line| line.starts_with('"'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(urls.len() >= 300, "{}", urls.len());
    for message in messages() {
        for url in &urls {
            let changed = with(&message, "SigningCertURL", Some(url));
            assert_eq!(read_value(&changed).err(), Some(Failure::UnknownKey), "{url:?}");
        }
    }
}

#[test]
fn topics_are_pinned() {
    // Anybody may publish to a topic of their own, signed by the same certificate.
    let body = messages()[0].to_string();
    let other = "arn:aws:sns:us-west-2:123456789012:MyTopic2";
    let rows = [
        (TOPIC.to_owned(), true),
        (format!("{other},{TOPIC}"), true),
        (format!("{other} , {TOPIC}"), true),
        (other.to_owned(), false),
        ("arn:aws:sns:us-west-2:123456789012:mytopic".to_owned(), false),
        ("arn:aws:sns:us-west-2:123456789013:MyTopic".to_owned(), false),
        ("arn:aws:sns:us-east-1:123456789012:MyTopic".to_owned(), false),
    ];
    for (topics, taken) in rows {
        let failure = read_body(body.as_bytes(), &topics).err();
        assert_eq!(failure, (!taken).then_some(Failure::UnknownKey), "{topics}");
        assert_eq!(check(&settings(&topics)), Ok(()), "{topics}");
    }
    for wrong in [
        "arn:aws:sns:us-west-2:123456789012:*",
        "arn:aws:sns:*:123456789012:MyTopic",
        "arn:aws:sqs:us-west-2:123456789012:MyTopic",
        "arn:aws:sns:us-west-2:123456789012:MyTopic:6b0e71bd-7e97-4d97-80ce-4a0994e55286",
        "arn:evil:sns:us-west-2:123456789012:MyTopic",
        "arn:aws:sns:evil.example/:123456789012:MyTopic",
        "arn:aws:sns:us-west-2:1234:MyTopic",
        "MyTopic",
        "arn:aws:sns:us-west-2:123456789012:MyTopic,",
    ] {
        assert!(check(&settings(wrong)).is_err(), "{wrong}");
    }
    assert!(check(&Settings::default()).is_err());
}

#[test]
fn each_partition_has_its_own_domain() {
    // China's certificates are not under amazonaws.com, and nobody else's are under amazonaws.com.cn.
    let rows = [
        ("arn:aws:sns:eu-west-1:123456789012:t", "sns.eu-west-1.amazonaws.com"),
        (
            "arn:aws-us-gov:sns:us-gov-west-1:123456789012:t",
            "sns.us-gov-west-1.amazonaws.com",
        ),
        (
            "arn:aws-cn:sns:cn-north-1:123456789012:t.fifo",
            "sns.cn-north-1.amazonaws.com.cn",
        ),
    ];
    for (arn, host) in rows {
        let topic = Topic::read(arn).unwrap();
        assert_eq!(topic.host, host);
        let url = format!("https://{host}/SimpleNotificationService-abc.pem");
        assert_eq!(topic.certificate(&url).unwrap().host(), host);
    }
}

#[test]
fn a_certificate_has_its_time() {
    // A key that was given up years ago may be anybody's by now.
    let message = &messages()[0];
    let wanted = read_value(message).unwrap();
    let fetched = wanted.source.read(EXPIRED).unwrap();
    assert_eq!(wanted.judge(&fetched, NOW).err(), Some(Failure::UnknownKey));
    let wanted = read_value(message).unwrap();
    for text in [b"".as_slice(), b"not a certificate", &CERTIFICATE[..500]] {
        assert!(wanted.source.read(text).is_err());
    }
}

#[test]
fn only_subscriptions_are_confirmed_and_only_by_their_token() {
    // Following a URL from a message calls whatever its writer wants called; following the one in an
    // UnsubscribeConfirmation subscribes again.
    for message in messages() {
        let confirmation = read_value(&message).unwrap().confirmation;
        let expected = "/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:123456789012:MyTopic&\
                        Token=2336412f37fb687f5d51e6e241d7700a";
        match message["Type"] == "SubscriptionConfirmation" {
            true => {
                let url = confirmation.unwrap();
                assert_eq!((url.host(), url.target()), ("sns.us-west-2.amazonaws.com", expected));
            }
            false => assert_eq!(confirmation, None),
        }
        for token in ["a&Action=Publish", "a#", "a b", "%41", "\u{e4}", "", "a/../b"] {
            let changed = with(&message, "Token", Some(token));
            assert_eq!(read_value(&changed).unwrap().confirmation, None, "{token}");
        }
    }
}
