//! Secrets that are presented as they are: tokens and HTTP Basic.
//!
//! Such a request proves who speaks and nothing of what is said: whoever has seen one can send anything. So the most it
//! proves is `authenticated`, its event ids are labels, and a repeat is recognised by its body.
//!
//! Presented and known values are hashed before they are compared, so that the time tells neither content nor length.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;

use super::extract::field_value;
use super::file::{Format, SignatureFile};
use super::json::{self, JsonPath};
use super::mac::{HashKind, Tag};
use super::native::Message;
use super::place::{header_name, prefix, refuse_key, source};
use super::proof::Failure;
use super::scheme::SchemeError;
use super::source::{Reader, Source};

/// Where the secret is presented.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bearer {
    /// One value, after a prefix.
    Token { source: Source, prefix: String },
    /// A member of every item of nested arrays in the JSON body.
    Items(Vec<JsonPath>),
    /// HTTP Basic (RFC 7617).
    Basic,
}

impl Bearer {
    pub(super) fn build(file: Option<&SignatureFile>, is_basic: bool) -> Result<Bearer, SchemeError> {
        const KEY: &str = "signature";
        let file = match (file, is_basic) {
            (None, true) => return Ok(Bearer::Basic),
            (Some(file), false) => file,
            (Some(_), true) => {
                return Err(SchemeError::new(KEY, "is implied: HTTP Basic is in Authorization").suggest("leave it out"));
            }
            (None, false) => {
                return Err(SchemeError::new(KEY, "is missing").suggest("{ header: X-Token }"));
            }
        };
        let belongs = "algorithms that sign";
        refuse_key(file.encoding.is_some(), "signature.encoding", belongs)?;
        refuse_key(file.ecdsa.is_some(), "signature.ecdsa", belongs)?;
        refuse_key(file.format != Format::Plain, "signature.format", belongs)?;
        refuse_key(!file.headers.is_empty(), "signature.headers", belongs)?;
        let only_plain = file.separator.is_some() || file.assign.is_some() || file.group.is_some();
        refuse_key(only_plain || !file.fields.is_empty(), "signature.separator", belongs)?;
        let prefix = prefix(file)?;
        let source = match (&file.header, &file.json, &file.form, &file.query) {
            (Some(name), None, None, None) => Source::Header(header_name("signature.header", name)?),
            (None, Some(path), None, None) if path.contains("[]") => {
                refuse_key(!prefix.is_empty(), "signature.prefix", "a single token")?;
                return items(path).map(Bearer::Items);
            }
            (None, Some(text), None, None) => source(KEY, "json", text)?,
            (None, None, Some(text), None) => source(KEY, "form", text)?,
            (None, None, None, Some(text)) => source(KEY, "query", text)?,
            _ => {
                return Err(SchemeError::new(
                    KEY,
                    "needs one of `header`, `json`, `form` and `query`",
                ));
            }
        };
        Ok(Bearer::Token { source, prefix })
    }

    /// The header that carries it, if it is one.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match self {
            Bearer::Token {
                source: Source::Header(name),
                ..
            } => Some(name),
            Bearer::Basic => Some(&http::header::AUTHORIZATION),
            Bearer::Token { .. } | Bearer::Items(_) => None,
        }
    }

    /// What a request presents, hashed; at least one. Every one of them has to be right.
    pub(super) fn present(&self, message: Message<'_>) -> Result<Vec<Tag>, Failure> {
        match self {
            Bearer::Token { source, prefix } => {
                let reader = Reader::new(message, std::iter::once(source));
                let value = reader.demand(source)?;
                let token = value.strip_prefix(prefix.as_bytes()).ok_or(Failure::Malformed)?;
                match token.is_empty() {
                    true => Err(Failure::Malformed),
                    false => Ok(vec![hashed(token)]),
                }
            }
            Bearer::Items(path) => {
                let values = json::each(message.body, path).ok_or(Failure::Malformed)?;
                match values.is_empty() {
                    true => Err(Failure::Missing),
                    false => Ok(values.iter().map(|value| hashed(value.as_bytes())).collect()),
                }
            }
            Bearer::Basic => {
                let value = field_value(message.headers, &http::header::AUTHORIZATION)?;
                let (kind, rest) = value.split_at_checked(6).ok_or(Failure::Malformed)?;
                let decoded = STANDARD.decode(rest).map_err(|_| Failure::Malformed)?;
                match kind.eq_ignore_ascii_case(b"basic ") {
                    true => Ok(vec![hashed(&decoded)]),
                    false => Err(Failure::Malformed),
                }
            }
        }
    }

    /// The value of the header that presents `secret`, prefix included.
    pub(super) fn written(&self, secret: &str) -> String {
        match self {
            Bearer::Token { prefix, .. } => format!("{prefix}{secret}"),
            Bearer::Items(_) => secret.to_owned(),
            Bearer::Basic => format!("Basic {}", STANDARD.encode(secret)),
        }
    }
}

/// What stands for a token, known or presented.
pub(super) fn hashed(token: &[u8]) -> Tag {
    HashKind::Sha256.of(token)
}

/// The paths between the arrays of `value[].clientState`.
fn items(text: &str) -> Result<Vec<JsonPath>, SchemeError> {
    const KEY: &str = "signature.json";
    let steps: Vec<&str> = text.split("[].").collect();
    if steps.len() > 3 {
        return Err(SchemeError::new(KEY, "goes through more than two arrays"));
    }
    steps.into_iter().map(|step| JsonPath::parse(KEY, step)).collect()
}
