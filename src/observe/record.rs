//! One access-log line: what it may hold, and how it reads as text and as JSON.
//!
//! The gateway fills a [`Record`] when a request has ended; [`super::AccessLog`] renders it into its buffer. The type
//! has no place for a secret, a body, a signature or a query string, and the path is cut at its `?` again here:
//! some providers put tokens into the query. Every field is bounded, so a line is at most [`LINE_BYTES_MAX`] long.
//!
//! Text is for the person at 3 a.m.: words separated by single spaces, first when, what and why, then `name=value` for
//! the rest. JSON has the same fields, one object a line, with stable names. What is unknown is left out in both.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::decimal;
use super::escape::{Within, escaped};
use super::rfc3339;
use crate::clock::UnixMillis;

/// Bytes of a path that are kept.
pub const PATH_BYTES_MAX: usize = 256;

/// Bytes of any other field that are kept.
pub const FIELD_BYTES_MAX: usize = 128;

/// No line is longer, whatever its fields hold.
pub const LINE_BYTES_MAX: usize = 10 * 1024;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Words for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is said about one request. Byte fields come from outside and are escaped; `str` fields are labels and names
/// from the configuration and are escaped too.
///
/// No `Debug`: it would show what is cut and escaped here.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// When the answer ended.
    pub time: UnixMillis,
    /// The answered status; `None` when no answer was given.
    pub status: Option<u16>,
    /// How it ended: the label of an outcome.
    pub outcome: &'a str,
    /// The stage that refused.
    pub stage: Option<&'a str>,
    /// Why it refused.
    pub reason: Option<&'a str>,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The route's provider.
    pub provider: Option<&'a str>,
    /// The sender's address, trusted proxies taken off.
    pub client: Option<IpAddr>,
    /// The request's method.
    pub method: &'a [u8],
    /// The request's path; anything from a `?` or `#` on is not logged.
    pub path: &'a [u8],
    /// The version of HTTP spoken by the sender: `1.0`, `1.1`, `2`.
    pub http: Option<&'a str>,
    /// How strong the proof was: `verified`, `authenticated`, `waived`.
    pub strength: Option<&'a str>,
    /// The id of the secret that proved the request.
    pub key_id: Option<&'a str>,
    /// The provider's id of the event.
    pub event_id: Option<&'a [u8]>,
    /// The provider's type of the event.
    pub event_type: Option<&'a [u8]>,
    /// The provider's id of its attempt.
    pub delivery_id: Option<&'a [u8]>,
    /// The handshake that was answered: what it was recognised by.
    pub handshake: Option<&'a str>,
    /// Whether the event had been seen before.
    pub duplicate: bool,
    /// Bytes of body received.
    pub bytes_in: u64,
    /// Bytes of body answered.
    pub bytes_out: u64,
    /// Time from the head to the end of the answer.
    pub total: Duration,
    /// Time spent on proving.
    pub verify: Option<Duration>,
    /// Time spent on the upstream.
    pub upstream: Option<Duration>,
    /// The server that answered, or that was tried last.
    pub server: Option<SocketAddr>,
    /// Servers tried.
    pub attempts: u32,
}

impl<'a> Record<'a> {
    /// A record in which everything optional is unknown, to be filled with `..`.
    pub fn new(time: UnixMillis, outcome: &'a str, method: &'a [u8], path: &'a [u8]) -> Self {
        Record {
            time,
            status: None,
            outcome,
            stage: None,
            reason: None,
            route: None,
            provider: None,
            client: None,
            method,
            path,
            http: None,
            strength: None,
            key_id: None,
            event_id: None,
            event_type: None,
            delivery_id: None,
            handshake: None,
            duplicate: false,
            bytes_in: 0,
            bytes_out: 0,
            total: Duration::ZERO,
            verify: None,
            upstream: None,
            server: None,
            attempts: 0,
        }
    }

    /// Appends the line, its end included.
    pub(super) fn render(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Text => self.text(out),
            Format::Json => self.json(out),
        }
        out.push(b'\n');
    }
}

impl Record<'_> {
    fn text(&self, out: &mut Vec<u8>) {
        rfc3339::push(out, self.time);
        out.push(b' ');
        match self.status {
            Some(status) => decimal::number(out, u64::from(status)),
            None => out.push(b'-'),
        }
        word(out, self.outcome.as_bytes(), FIELD_BYTES_MAX);
        self.text_why(out);
        word(out, self.method, FIELD_BYTES_MAX);
        word(out, self.logged_path(), PATH_BYTES_MAX);
        Words(out).fields(self);
    }

    /// `verify/mismatch`, as the table of refusals names it; `-` when there is nothing to explain.
    fn text_why(&self, out: &mut Vec<u8>) {
        word(out, self.stage.unwrap_or_default().as_bytes(), FIELD_BYTES_MAX);
        if let Some(reason) = self.reason {
            out.push(b'/');
            escaped(out, reason.as_bytes(), Within::Word, FIELD_BYTES_MAX);
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"time":""#);
        rfc3339::push(out, self.time);
        out.push(b'"');
        let mut object = Object(out);
        if let Some(status) = self.status {
            object.number("status", u64::from(status));
        }
        object.string("outcome", Some(self.outcome.as_bytes()));
        object.string("stage", self.stage.map(str::as_bytes));
        object.string("reason", self.reason.map(str::as_bytes));
        object.bounded("method", self.method, FIELD_BYTES_MAX);
        object.bounded("path", self.logged_path(), PATH_BYTES_MAX);
        object.fields(self);
        out.push(b'}');
    }

    /// The path up to its query: tokens live there.
    fn logged_path(&self) -> &[u8] {
        self.path
            .split(|byte| matches!(byte, b'?' | b'#'))
            .next()
            .unwrap_or_default()
    }
}

/// The two ways of writing a named field; `fields` keeps them to the same fields in the same order.
trait Fields {
    fn bounded(&mut self, name: &str, value: &[u8], bytes_max: usize);
    fn number(&mut self, name: &str, value: u64);
    fn ip(&mut self, name: &str, value: IpAddr);
    fn socket(&mut self, name: &str, value: SocketAddr);
    fn time(&mut self, name: &str, value: Duration);
    fn mark(&mut self, name: &str);

    fn string(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.bounded(name, value, FIELD_BYTES_MAX);
        }
    }

    fn fields(&mut self, record: &Record<'_>) {
        self.string("route", record.route.map(str::as_bytes));
        self.string("provider", record.provider.map(str::as_bytes));
        if let Some(client) = record.client {
            self.ip("client", client);
        }
        self.string("http", record.http.map(str::as_bytes));
        self.string("strength", record.strength.map(str::as_bytes));
        self.string("key_id", record.key_id.map(str::as_bytes));
        self.string("event_id", record.event_id);
        self.string("event_type", record.event_type);
        self.string("delivery_id", record.delivery_id);
        self.string("handshake", record.handshake.map(str::as_bytes));
        if record.duplicate {
            self.mark("duplicate");
        }
        self.number("bytes_in", record.bytes_in);
        self.number("bytes_out", record.bytes_out);
        self.time("total", record.total);
        for (name, time) in [("verify", record.verify), ("upstream", record.upstream)] {
            if let Some(time) = time {
                self.time(name, time);
            }
        }
        if let Some(server) = record.server {
            self.socket("server", server);
        }
        if record.attempts > 0 {
            self.number("attempts", u64::from(record.attempts));
        }
    }
}

/// ` name=value`; times in milliseconds with three decimals.
struct Words<'a>(&'a mut Vec<u8>);

impl Words<'_> {
    fn name(&mut self, name: &str) {
        self.0.push(b' ');
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
    }
}

impl Fields for Words<'_> {
    fn bounded(&mut self, name: &str, value: &[u8], bytes_max: usize) {
        self.name(name);
        escaped(self.0, value, Within::Value, bytes_max);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        decimal::number(self.0, value);
    }

    fn ip(&mut self, name: &str, value: IpAddr) {
        self.name(name);
        decimal::ip(self.0, value);
    }

    fn socket(&mut self, name: &str, value: SocketAddr) {
        self.name(name);
        decimal::socket(self.0, value);
    }

    fn time(&mut self, name: &str, value: Duration) {
        let us = micros(value);
        self.number(name, us / 1000);
        #[allow(clippy::arithmetic_side_effects, reason = "single digits")]
        let thousandths = [us / 100 % 10, us / 10 % 10, us % 10].map(|digit| b'0' + digit as u8);
        self.0.push(b'.');
        self.0.extend_from_slice(&thousandths);
        self.0.extend_from_slice(b"ms");
    }

    fn mark(&mut self, name: &str) {
        self.name(name);
        self.0.extend_from_slice(b"true");
    }
}

/// `,"name":value`; times as whole microseconds under a name that ends in `_us`.
struct Object<'a>(&'a mut Vec<u8>);

impl Object<'_> {
    fn name(&mut self, name: &str, unit: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(unit.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

impl Fields for Object<'_> {
    fn bounded(&mut self, name: &str, value: &[u8], bytes_max: usize) {
        self.name(name, "");
        self.0.push(b'"');
        escaped(self.0, value, Within::Json, bytes_max);
        self.0.push(b'"');
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name, "");
        decimal::number(self.0, value);
    }

    fn ip(&mut self, name: &str, value: IpAddr) {
        self.name(name, "");
        self.0.push(b'"');
        decimal::ip(self.0, value);
        self.0.push(b'"');
    }

    fn socket(&mut self, name: &str, value: SocketAddr) {
        self.name(name, "");
        self.0.push(b'"');
        decimal::socket(self.0, value);
        self.0.push(b'"');
    }

    fn time(&mut self, name: &str, value: Duration) {
        self.name(name, "_us");
        decimal::number(self.0, micros(value));
    }

    fn mark(&mut self, name: &str) {
        self.name(name, "");
        self.0.extend_from_slice(b"true");
    }
}

/// A word without a name; an empty one is `-`, so that those behind it keep their places.
fn word(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    out.push(b' ');
    let shown = if bytes.is_empty() { b"-" } else { bytes };
    escaped(out, shown, Within::Word, bytes_max);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const TIME: UnixMillis = UnixMillis(1_795_442_531_123);

    fn full() -> Record<'static> {
        Record {
            status: Some(200),
            stage: Some("dispatch"),
            reason: Some("none"),
            route: Some("github"),
            provider: Some("github"),
            client: Some("192.0.2.7".parse().unwrap()),
            http: Some("1.1"),
            strength: Some("verified"),
            key_id: Some("new"),
            event_id: Some(b"evt_1"),
            event_type: Some(b"push"),
            delivery_id: Some(b"72d3162e"),
            handshake: Some("hub.mode"),
            duplicate: true,
            bytes_in: 1024,
            bytes_out: 19,
            total: Duration::from_nanos(12_345_678),
            verify: Some(Duration::from_micros(7)),
            upstream: Some(Duration::from_millis(12)),
            server: Some("[2001:db8::1]:3000".parse().unwrap()),
            attempts: 2,
            ..Record::new(TIME, "duplicate", b"POST", b"/webhooks/github")
        }
    }

    fn line(record: &Record<'_>, format: Format) -> String {
        let mut out = Vec::new();
        record.render(format, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn parsed(record: &Record<'_>) -> Value {
        serde_json::from_str(&line(record, Format::Json)).unwrap()
    }

    #[test]
    fn a_full_record_reads_as_it_is_documented() {
        // People's searches and dashboards are written against these words.
        assert_eq!(
            line(&full(), Format::Text),
            "2026-11-23T14:02:11.123Z 200 duplicate dispatch/none POST /webhooks/github route=github provider=github \
             client=192.0.2.7 http=1.1 strength=verified key_id=new event_id=evt_1 event_type=push \
             delivery_id=72d3162e handshake=hub.mode duplicate=true bytes_in=1024 bytes_out=19 total=12.345ms verify=0.007ms \
             upstream=12.000ms server=[2001:db8::1]:3000 attempts=2\n"
        );
        let expected = json!({
            "time": "2026-11-23T14:02:11.123Z", "status": 200, "outcome": "duplicate", "stage": "dispatch",
            "reason": "none", "method": "POST", "path": "/webhooks/github", "route": "github", "provider": "github",
            "client": "192.0.2.7", "http": "1.1", "strength": "verified", "key_id": "new", "event_id": "evt_1",
            "event_type": "push", "delivery_id": "72d3162e", "handshake": "hub.mode", "duplicate": true,
            "bytes_in": 1024, "bytes_out": 19, "total_us": 12_345, "verify_us": 7, "upstream_us": 12_000, "server": "[2001:db8::1]:3000", "attempts": 2,
        });
        assert_eq!(parsed(&full()), expected);
    }

    #[test]
    fn what_is_unknown_is_left_out_and_moves_no_word() {
        // A refusal before the route would shift the words an operator's script counts.
        let record = Record::new(TIME, "failed", b"", b"");
        assert_eq!(
            line(&record, Format::Text),
            "2026-11-23T14:02:11.123Z - failed - - - bytes_in=0 bytes_out=0 total=0.000ms\n"
        );
        let expected = json!({
            "time": "2026-11-23T14:02:11.123Z", "outcome": "failed", "method": "", "path": "", "bytes_in": 0,
            "bytes_out": 0, "total_us": 0,
        });
        assert_eq!(parsed(&record), expected);
    }

    #[test]
    fn no_query_is_written() {
        // Tokens in query strings would be in every log archive.
        for path in [&b"/hook?token=s3cret"[..], b"/hook#s3cret", b"/hook?#s3cret?s3cret"] {
            let record = Record::new(TIME, "refused", b"POST", path);
            assert_eq!(parsed(&record)["path"], "/hook");
            assert!(!line(&record, Format::Text).contains("s3cret"));
        }
    }

    #[test]
    fn the_longest_line_is_within_its_bound() {
        // The bound of the queue is a promise about memory only if lines have one.
        let (bytes, text) = ([b'\n'; 2000], "\n".repeat(2000));
        let record = Record {
            status: Some(u16::MAX),
            outcome: &text,
            stage: Some(&text),
            reason: Some(&text),
            route: Some(&text),
            provider: Some(&text),
            client: Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()),
            method: &bytes,
            path: &bytes,
            http: Some(&text),
            strength: Some(&text),
            key_id: Some(&text),
            event_id: Some(&bytes),
            event_type: Some(&bytes),
            delivery_id: Some(&bytes),
            handshake: Some(&text),
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
            total: Duration::MAX,
            verify: Some(Duration::MAX),
            upstream: Some(Duration::MAX),
            server: Some(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535"
                    .parse()
                    .unwrap(),
            ),
            attempts: u32::MAX,
            ..full()
        };
        for format in [Format::Text, Format::Json] {
            let length = line(&record, format).len();
            assert!(length <= LINE_BYTES_MAX, "{length}");
        }
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            prop::sample::select(vec![
                b"\r\nstatus=200".to_vec(),
                b"\",\"status\":200,\"x\":\"".to_vec(),
                b"x route=other".to_vec(),
                b"\\".to_vec(),
                b"\\\"\\u0000".to_vec(),
                "\u{2028}\u{202e}\u{9b}2J".as_bytes().to_vec(),
            ]),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_field_make_one_line_with_the_same_fields(
            outside in prop::collection::vec(bytes(), 5),
            names in prop::collection::vec(any::<String>(), 4),
        ) {
            // A sender could write lines into the log, or fields into a line, that never happened.
            let record = Record {
                method: &outside[0],
                path: &outside[1],
                event_id: Some(&outside[2]),
                event_type: Some(&outside[3]),
                delivery_id: Some(&outside[4]),
                route: Some(&names[0]),
                provider: Some(&names[1]),
                key_id: Some(&names[2]),
                reason: Some(&names[3]),
                ..full()
            };
            let json = line(&record, Format::Json);
            prop_assert!(json.strip_suffix('\n').unwrap().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let object: Value = serde_json::from_str(&json).unwrap();
            let known = parsed(&full());
            let known: BTreeSet<&String> = known.as_object().unwrap().keys().collect();
            prop_assert!(object.as_object().unwrap().keys().all(|name| known.contains(name)));
            prop_assert_eq!(&object["status"], &json!(200));

            let text = line(&record, Format::Text);
            let text = text.strip_suffix('\n').unwrap();
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let words: Vec<&str> = text.split(' ').collect();
            prop_assert_eq!(words[1], "200");
            prop_assert!(words[..6].iter().all(|word| !word.is_empty() && !word.contains('=')));
            let names: Vec<&str> = words[6..].iter().map(|word| word.split_once('=').unwrap().0).collect();
            let distinct: BTreeSet<&str> = names.iter().copied().collect();
            prop_assert_eq!(distinct.len(), names.len());
        }
    }
}
