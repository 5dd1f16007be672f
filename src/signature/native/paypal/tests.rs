//! PayPal's headers, under a certificate of our own.

use http::{HeaderName, HeaderValue};

use super::*;
use crate::clock::UnixMillis;
use crate::secret::Secret;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const CERTIFICATE: &[u8] = include_bytes!("../../../../tests/published/signer.crt.pem");
const BODY: &[u8] = br#"{"id":"WH-1","event_type":"PAYMENT.SALE.COMPLETED"}"#;
const URL: &str = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77";

/// Made with Python's `cryptography` and `zlib.crc32` over the texts below.
const SIGNATURE: &str = "DbZ0IfjgXHKYZLglLLuG/nw83kOQH5YWKhdvzYF1ua3Co7ztH4Ot9mvF2wdBv4AOgET9GMxvBUZAOUEbU6zrbyx/uVfeGnPI2zvqYDmP1o2tJdD1DVosruBXntDPiV5CWnkagKZaOOKWquru6nBka0N+MQIfGtvn+CWmYbBGuEXeZ8N0zQ19mJVuzm9Znwq/xeb8xCtN6ciFXMMIqP1NPfvo2GrZGMhFqc8LRYz2VBSAynjJ6e67NeZX0O83u9EiRxU5B/tkEDMMt/FqXN8aBZQ7BxsuI14p2Rs9JxanHNowr/zV4QzQXvVs6c4pGQhG6KN4zUqms+yx8Ucd7OxpQg==";

fn headers() -> HeaderMap {
    let values = [
        SIGNATURE,
        "dfb3be50-fd74-11e4-8bf3-77339302725b",
        "2023-11-14T22:13:20Z",
        URL,
        ALGORITHM,
    ];
    let pairs = HEADERS.into_iter().zip(values);
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn settings(webhook_id: &str) -> Settings {
    let mut settings = Settings::default();
    settings.insert(WEBHOOK_ID, Secret::new(webhook_id).unwrap()).unwrap();
    settings
}

fn verdict(headers: &HeaderMap, body: &[u8], webhook_id: &str) -> Result<Option<usize>, Failure> {
    let settings = settings(webhook_id);
    let wanted = read(&Message {
        method: "POST",
        target: "/",
        headers,
        body,
        public_url: None,
        settings: &settings,
    })?;
    let fetched = wanted.source.read(CERTIFICATE).unwrap();
    wanted.judge(&fetched, NOW).map(|found| found.matched)
}

const WEBHOOK: &str = "4JH86294D6297924G";

#[test]
fn a_genuine_transmission_is_taken() {
    // Every event would be refused.
    let (headers, settings) = (headers(), settings(WEBHOOK));
    let message = Message {
        method: "POST",
        target: "/",
        headers: &headers,
        body: BODY,
        public_url: None,
        settings: &settings,
    };
    let wanted = read(&message).unwrap();
    assert_eq!(wanted.source.url().to_string(), URL);
    assert_eq!(
        wanted.signed_id.as_deref(),
        Some("dfb3be50-fd74-11e4-8bf3-77339302725b")
    );
    assert_eq!(wanted.timestamp, Some(NOW));
    assert_eq!(wanted.strength, Strength::Authenticated);
    assert_eq!(verdict(&headers, BODY, WEBHOOK), Ok(Some(0)));
}

#[test]
fn whatever_is_signed_is_checked() {
    // Another body, another time, another merchant's webhook: none of them was signed.
    let changed = |name: &'static str, value: &'static str| {
        let mut headers = headers();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    };
    let rows = [
        (
            changed(HEADERS[1], "dfb3be50-fd74-11e4-8bf3-77339302725c"),
            Failure::Mismatch,
        ),
        (changed(HEADERS[2], "2023-11-14T22:13:21Z"), Failure::Mismatch),
        (changed(HEADERS[2], "2023-11-14T22:13:20.0Z"), Failure::Mismatch),
        (changed(HEADERS[0], "AAAA"), Failure::Mismatch),
        (changed(HEADERS[0], "not base64"), Failure::Malformed),
        (changed(HEADERS[0], ""), Failure::Mismatch),
        (changed(HEADERS[1], "a|b"), Failure::Malformed),
        (changed(HEADERS[1], ""), Failure::Malformed),
        (changed(HEADERS[2], "yesterday"), Failure::Malformed),
        (changed(HEADERS[4], "SHA1withRSA"), Failure::Malformed),
        (changed(HEADERS[4], "sha256withrsa"), Failure::Malformed),
        (changed(HEADERS[4], "none"), Failure::Malformed),
    ];
    for (headers, failure) in rows {
        assert_eq!(verdict(&headers, BODY, WEBHOOK), Err(failure), "{headers:?}");
    }
    for at in 0..BODY.len() {
        let mut body = BODY.to_vec();
        body[at] ^= 1;
        assert_eq!(verdict(&headers(), &body, WEBHOOK), Err(Failure::Mismatch));
    }
    assert_eq!(verdict(&headers(), BODY, "4JH86294D6297924H"), Err(Failure::Mismatch));
    for name in HEADERS {
        let mut headers = headers();
        headers.append(name, HeaderValue::from_static("x"));
        assert_eq!(
            verdict(&headers, BODY, WEBHOOK),
            Err(Failure::Malformed),
            "{name} twice"
        );
        headers.remove(name);
        assert_eq!(verdict(&headers, BODY, WEBHOOK), Err(Failure::Missing), "no {name}");
    }
}

#[test]
fn certificates_come_from_paypal_alone() {
    // Whoever can name the certificate signs whatever he likes.
    let foreign = [
        "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/v1/notifications/certs/CERT-1",
        "https://www.paypal.com/v1/notifications/certs/CERT-1",
        "https://api-m.paypal.com/v1/notifications/certs/CERT-1",
        "https://paypal.com/v1/notifications/certs/CERT-1",
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:443/v1/notifications/certs/CERT-1",
        "https://API.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com./v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/",
        "https://api.paypal.com/v1/notifications/certs/../../x",
        "https://api.paypal.com/v1/notifications/certs/a/b",
        "https://api.paypal.com/v1/notifications/certs/a?b",
        "https://api.paypal.com/v1/notifications/certs/a#b",
        "https://api.paypal.com/v1/notifications/certs/a.b",
        "https://api.paypal.com/v1/notifications/certs/%61",
        "https://api.paypal.com/v2/notifications/certs/CERT-1",
        "https://api.paypal.com\\@evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example\\@api.paypal.com/v1/notifications/certs/CERT-1",
        "",
    ];
    for url in foreign {
        let mut headers = headers();
        headers.insert(HEADERS[3], HeaderValue::from_static(url));
        assert_eq!(verdict(&headers, BODY, WEBHOOK), Err(Failure::UnknownKey), "{url}");
    }
}

#[test]
fn another_body_of_the_same_checksum_is_taken() {
    // The scheme's own weakness, on record: the reason why it never is more than `authenticated`.
    let wanted = crc32fast::hash(BODY);
    let forged = with_checksum(br#"{"id":"WH-2","event_type":"PAYMENT.SALE.REFUNDED","x":"#, wanted);
    assert_ne!(forged, BODY);
    assert_eq!(verdict(&headers(), &forged, WEBHOOK), Ok(Some(0)));
}

/// `start` and four bytes more, so that the whole has this CRC-32: the register is run backwards over the four bytes.
fn with_checksum(start: &[u8], checksum: u32) -> Vec<u8> {
    let row = |mut entry: u32| {
        (0..8).for_each(|_| entry = (entry >> 1) ^ if entry & 1 == 1 { 0xedb8_8320 } else { 0 });
        entry
    };
    let table: Vec<u32> = (0..256).map(row).collect();
    let mut back = !checksum;
    for _ in 0..4 {
        let at = table.iter().position(|entry| entry >> 24 == back >> 24).unwrap();
        back = ((back ^ table[at]) << 8) | u32::try_from(at).unwrap();
    }
    let tail = back ^ !crc32fast::hash(start);
    [start, &tail.to_le_bytes()].concat()
}

#[test]
fn a_webhook_id_is_what_the_dashboard_shows() {
    // A wrong id refuses every event; one with a bar moves what is signed.
    assert!(check(&settings(WEBHOOK)).is_ok());
    assert!(check(&Settings::default()).is_err());
    for id in ["a|b", "a b", "https://x"] {
        assert!(check(&settings(id)).is_err(), "{id}");
    }
}
