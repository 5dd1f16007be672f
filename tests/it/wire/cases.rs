//! Wire cases as data: `tests/wire/*.yaml`, whose language `tests/wire/README.md` describes, written out as bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::harness::sign_github;

/// A file's cases, before they are written out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    /// The class of attack, or `legal`.
    class: String,
    /// The bytes, with words in braces.
    wire: String,
    /// What the words stand for, each value in turn.
    #[serde(default)]
    with: BTreeMap<String, Values>,
    /// The body of the request, if it is not the usual one.
    body: Option<String>,
    expect: Expected,
    /// Some of the judges refuse it, each in its way.
    #[serde(default)]
    odd: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Listed(Vec<String>),
    Bytes { bytes: String },
}

/// The same for both kinds of target, or for each; a kind that is not there is not sent.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Both(Expect),
    Each {
        webhook: Option<Expect>,
        page: Option<Expect>,
    },
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// 400, and the end of the connection; nothing upstream.
    Refused,
    /// One request upstream; the next one on the connection is another, and is answered as such.
    Accepted,
    /// One request upstream, and the end of the connection.
    Last,
    /// The body is no body: to a webhook 400 and the end. A page may have been answered before, and its upstream
    /// has seen no more than the beginning of that one request.
    Broken,
    /// It never becomes whole: no answer but a refusal, nothing upstream but, of a page, a beginning.
    Cut,
    /// An answer of this status and nothing upstream, whatever becomes of the connection.
    #[serde(rename = "401")]
    Unauthorized,
    /// 400 as well, but the path alone is wrong.
    Path,
    #[serde(rename = "405")]
    Method,
    #[serde(rename = "415")]
    Encoded,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Webhook,
    Page,
}

/// One raw request.
pub struct Case {
    /// Its number, which is in its target: `?m=<number>.`.
    pub number: usize,
    pub class: String,
    pub kind: Kind,
    pub expect: Expect,
    pub odd: bool,
    /// The request; behind it others that must not be executed, where the connection is to end with this one.
    pub wire: Vec<u8>,
    /// What the upstream is to understand as its body.
    pub body: Vec<u8>,
}

/// The marker of a request in its target, which the upstream repeats.
pub fn marker(id: impl std::fmt::Display) -> String {
    format!("m={id}.")
}

/// A genuine event of its own, marked.
pub fn genuine(id: &str) -> Vec<u8> {
    let body = format!("{{\"id\":\"{id}\"}}").into_bytes();
    let head = format!(
        "POST /webhooks/github?{} HTTP/1.1\r\nHost: gateway.test\r\nX-GitHub-Event: push\r\n\
         X-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        marker(id),
        sign_github(&body),
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// A request of the application's, marked.
pub fn page(id: &str) -> Vec<u8> {
    format!("GET /page?{} HTTP/1.1\r\nHost: gateway.test\r\n\r\n", marker(id)).into_bytes()
}

/// What is hidden in and behind requests: unsigned to the protected path, to the application, and genuine.
fn hidden(number: usize) -> Vec<u8> {
    let forged = format!(
        "POST /webhooks/github?{} HTTP/1.1\r\nHost: gateway.test\r\nX-GitHub-Event: push\r\nContent-Length: 2\r\n\r\n{{}}",
        marker(format!("f{number}"))
    );
    let [open, proven] = [page(&format!("p{number}")), genuine(&format!("g{number}"))];
    [forged.into_bytes(), open, proven].concat()
}

/// The folder of the cases.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

/// Every case of every file.
pub fn all() -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let templates: Vec<Template> =
            serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for template in &templates {
            template.write_out(&mut cases);
        }
    }
    cases
}

impl Template {
    fn write_out(&self, cases: &mut Vec<Case>) {
        let kinds = match self.expect {
            Expected::Both(expect) => [(Kind::Webhook, Some(expect)), (Kind::Page, Some(expect))],
            Expected::Each { webhook, page } => [(Kind::Webhook, webhook), (Kind::Page, page)],
        };
        for values in combinations(&self.with) {
            for (kind, expect) in kinds {
                let Some(expect) = expect else { continue };
                cases.push(self.case(cases.len(), kind, expect, &values));
            }
        }
    }

    fn case(&self, number: usize, kind: Kind, expect: Expect, values: &BTreeMap<&str, Vec<u8>>) -> Case {
        let mut words = values.clone();
        let hidden = hidden(number);
        words.insert("hidden", hidden.clone());
        let body = match &self.body {
            Some(body) => filled(&bytes(body), &words),
            None => format!("{{\"n\":{number:>10}}}").into_bytes(),
        };
        let path = match kind {
            Kind::Webhook => "/webhooks/github",
            Kind::Page => "/page",
        };
        let target = format!("{path}?{}", marker(number));
        let (first, rest) = body.split_at(body.len() / 2);
        for (word, value) in [
            ("target", target.clone()),
            ("query", marker(number)),
            ("start", "{line}{host}{signed}".into()),
            (
                "forged",
                "{line}{host}X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={zeros}\r\n".into(),
            ),
            ("line", "POST {target} HTTP/1.1\r\n".into()),
            ("host", "Host: gateway.test\r\n".into()),
            (
                "signed",
                "X-GitHub-Event: push\r\nX-Hub-Signature-256: {signature}\r\n".into(),
            ),
            ("signature", sign_github(&body)),
            ("zeros", "0".repeat(64)),
            ("length", body.len().to_string()),
            ("size", format!("{:x}", body.len())),
            ("chunk", "{size}\r\n{body}\r\n".into()),
            ("end", "0\r\n\r\n".into()),
            ("first_size", format!("{:x}", first.len())),
            ("rest_size", format!("{:x}", rest.len())),
            ("hidden_length", hidden.len().to_string()),
            ("hidden_size", format!("{:x}", hidden.len())),
            ("x256", "x".repeat(256)),
            ("x257", "x".repeat(257)),
        ] {
            words.insert(word, value.into_bytes());
        }
        words.insert("first", first.to_vec());
        words.insert("rest", rest.to_vec());
        words.insert("body", body.clone());
        let mut wire = filled(&bytes(&self.wire), &words);
        match expect {
            Expect::Accepted | Expect::Cut => {}
            _ => wire.extend(hidden),
        }
        Case {
            number,
            class: self.class.clone(),
            kind,
            expect,
            odd: self.odd,
            wire,
            body,
        }
    }
}

/// One value for each word, in every combination.
fn combinations(with: &BTreeMap<String, Values>) -> Vec<BTreeMap<&str, Vec<u8>>> {
    let mut combinations = vec![BTreeMap::new()];
    for (word, values) in with {
        let values = values.written_out();
        let more = combinations.iter().flat_map(|combination| {
            values.iter().map(move |value| {
                let mut combination = combination.clone();
                combination.insert(word.as_str(), value.clone());
                combination
            })
        });
        combinations = more.collect();
    }
    combinations
}

impl Values {
    fn written_out(&self) -> Vec<Vec<u8>> {
        match self {
            Values::Listed(values) => values.iter().map(|value| bytes(value)).collect(),
            Values::Bytes { bytes } => ranges(bytes).into_iter().map(|byte| vec![byte]).collect(),
        }
    }
}

/// The bytes of `00-08 0a 7f-ff`.
fn ranges(text: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text}"));
    let ranges = text.split_whitespace().flat_map(|range| match range.split_once('-') {
        Some((from, to)) => byte(from)..=byte(to),
        None => byte(range)..=byte(range),
    });
    ranges.collect()
}

/// A character of the file is a byte.
fn bytes(text: &str) -> Vec<u8> {
    let byte = |c: char| u8::try_from(u32::from(c)).unwrap_or_else(|_| panic!("{c:?} is no byte: {text}"));
    text.chars().map(byte).collect()
}

/// Puts values in the place of words, which may have words in them.
fn filled(text: &[u8], words: &BTreeMap<&str, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.iter().position(|b| *b == b'{') {
        out.extend_from_slice(&rest[..open]);
        rest = &rest[open..];
        let close = rest.iter().position(|b| *b == b'}').unwrap_or(0);
        let word = std::str::from_utf8(rest.get(1..close).unwrap_or_default()).unwrap_or_default();
        match words.get(word) {
            // What is sent as it is may have braces of its own.
            Some(value) if matches!(word, "body" | "first" | "rest" | "hidden") => out.extend_from_slice(value),
            Some(value) => out.extend(filled(value, words)),
            None => {
                out.push(b'{');
                rest = &rest[1..];
                continue;
            }
        }
        rest = &rest[close + 1..];
    }
    out.extend_from_slice(rest);
    out
}
