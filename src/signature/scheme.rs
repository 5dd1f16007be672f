//! A signature scheme as it runs: checked once, immutable, shared by every request.
//!
//! [`Scheme::build`] is where a typed scheme becomes a promise. It refuses what would be read in two ways, what would
//! check less than it seems to (a timestamp that nothing signs, a tolerance of a year) and what can never match, each
//! with the key that is wrong and what to write instead. A scheme that was built needs no further checks when a
//! request arrives.

use std::fmt;
use std::time::Duration;

use http::HeaderName;

use super::encoding::Encoding;
use super::file::{Format, KeyForm, SchemeFile, SignatureFile, TimestampFile};
use super::mac::MacKind;
use super::template::{Template, TimestampRule};
use super::timestamp::Unit;

/// Shortest and longest tolerance. A shorter one refuses honest clocks; a longer one is no check of freshness, and
/// replays have to be remembered for twice as long.
const TOLERANCE_MIN: Duration = Duration::from_secs(1);
const TOLERANCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Most names of a `kv` signature.
const FIELDS_MAX: usize = 8;

/// How a provider signs, ready to verify and to sign. Share it in an `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    name: String,
    pub(super) mac: MacKind,
    pub(super) key: KeyForm,
    pub(super) template: Template,
    pub(super) signature: Place,
    pub(super) timestamp: Option<Stamp>,
    pub(super) id: Option<HeaderName>,
    security_headers: Vec<HeaderName>,
}

/// Where the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) header: HeaderName,
    pub(super) spelling: Spelling,
    pub(super) encoding: Encoding,
}

/// How the signature header is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Plain {
        prefix: String,
    },
    Kv {
        separator: u8,
        assign: u8,
        fields: Vec<String>,
    },
    List {
        separator: u8,
    },
}

/// Where the signed time is and how old it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) place: StampPlace,
    pub(super) unit: Unit,
    pub(super) tolerance: Duration,
    pub(super) rule: TimestampRule,
}

/// Where the signed time is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StampPlace {
    Header(HeaderName),
    Field(String),
}

impl Scheme {
    /// Builds the scheme that `file` describes. `name` is for messages and listings.
    ///
    /// # Errors
    /// The first key that cannot be, with what is wrong and what to write instead.
    pub fn build(name: &str, file: &SchemeFile) -> Result<Scheme, SchemeError> {
        let template =
            Template::parse(&file.message).map_err(|e| SchemeError::new("message", e.problem).suggest(e.suggestion))?;
        let signature = build_place(&file.signature)?;
        let timestamp = build_stamp(file.timestamp.as_ref(), &template, &signature)?;
        let id = build_id(file, &template)?;
        let mut scheme = Scheme {
            name: name.to_owned(),
            mac: file.mac,
            key: file.key,
            template,
            signature,
            timestamp,
            id,
            security_headers: Vec::new(),
        };
        scheme.security_headers = scheme.list_security_headers()?;
        Ok(scheme)
    }

    /// The name it was built with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The headers that a verdict depends on: signature, timestamp and id.
    ///
    /// The caller refuses requests in which one of these is repeated or has a look-alike (`X_Hub_Signature`), because
    /// the backend may read the other one. A verifier by itself refuses only repetitions that contradict each other.
    pub fn security_headers(&self) -> &[HeaderName] {
        &self.security_headers
    }

    /// How far a signed time may be from ours; `None` when the scheme has no signed time, so that only a replay guard
    /// stands between a captured request and its repetition.
    pub fn tolerance(&self) -> Option<Duration> {
        self.timestamp.as_ref().map(|stamp| stamp.tolerance)
    }

    /// Whether the body is a part of what is signed.
    pub fn signs_body(&self) -> bool {
        self.template.has_body()
    }

    /// The header of the signed event id, if the scheme signs one.
    pub fn id_header(&self) -> Option<&HeaderName> {
        self.id.as_ref()
    }

    /// Each header has one role: one that is two things at once would let one value stand for both.
    fn list_security_headers(&self) -> Result<Vec<HeaderName>, SchemeError> {
        let mut headers = vec![self.signature.header.clone()];
        if let Some(Stamp {
            place: StampPlace::Header(header),
            ..
        }) = &self.timestamp
        {
            if headers.contains(header) {
                return Err(SchemeError::new("timestamp.header", "is the signature's header")
                    .suggest("use `field` for a time inside of it"));
            }
            headers.push(header.clone());
        }
        if let Some(header) = &self.id {
            if headers.contains(header) {
                return Err(SchemeError::new("id.header", "is used for something else already"));
            }
            headers.push(header.clone());
        }
        Ok(headers)
    }
}

/// Checks that a tolerance is one.
pub(super) fn check_tolerance(tolerance: Duration) -> Result<Duration, &'static str> {
    if (TOLERANCE_MIN..=TOLERANCE_MAX).contains(&tolerance) {
        Ok(tolerance)
    } else {
        Err("must be between 1s and 1d")
    }
}

fn build_place(file: &SignatureFile) -> Result<Place, SchemeError> {
    let header = header_name("signature.header", &file.header)?;
    let spelling = match file.format {
        Format::Plain => {
            refuse_key(file.separator.is_some(), "signature.separator", "format: kv or list")?;
            refuse_key(file.assign.is_some(), "signature.assign", "format: kv")?;
            refuse_key(!file.fields.is_empty(), "signature.fields", "format: kv")?;
            let prefix = file.prefix.clone().unwrap_or_default();
            if !prefix.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') || prefix.starts_with(' ') {
                let error = SchemeError::new("signature.prefix", "cannot occur in a header");
                return Err(error.suggest("write visible ASCII such as sha256="));
            }
            Spelling::Plain { prefix }
        }
        Format::List => {
            refuse_key(file.prefix.is_some(), "signature.prefix", "format: plain")?;
            refuse_key(file.assign.is_some(), "signature.assign", "format: kv")?;
            refuse_key(!file.fields.is_empty(), "signature.fields", "format: kv")?;
            let separator = separator(file)?;
            Spelling::List { separator }
        }
        Format::Kv => {
            refuse_key(file.prefix.is_some(), "signature.prefix", "format: plain")?;
            let separator = separator(file)?;
            let assign = one_byte("signature.assign", file.assign.as_deref().unwrap_or("="))?;
            if assign == separator || assign == b' ' {
                return Err(SchemeError::new(
                    "signature.assign",
                    "cannot be told from the separator",
                ));
            }
            let fields = signature_fields(file, separator, assign)?;
            Spelling::Kv {
                separator,
                assign,
                fields,
            }
        }
    };
    Ok(Place {
        header,
        spelling,
        encoding: file.encoding,
    })
}

fn build_stamp(
    file: Option<&TimestampFile>,
    template: &Template,
    signature: &Place,
) -> Result<Option<Stamp>, SchemeError> {
    let (file, rule) = match (file, template.timestamp()) {
        (None, None) => return Ok(None),
        (Some(file), Some(rule)) => (file, rule),
        (Some(_), None) => {
            let error = SchemeError::new("timestamp", "is not signed, so anybody can change it");
            return Err(error.suggest("put {timestamp} into the message or remove this key"));
        }
        (None, Some(_)) => {
            let error = SchemeError::new("timestamp", "is missing, but the message has {timestamp}");
            return Err(error.suggest("say where it is: { header: ..., unit: s, tolerance: 5m }"));
        }
    };
    let place = match (&file.header, &file.field) {
        (Some(header), None) => StampPlace::Header(header_name("timestamp.header", header)?),
        (None, Some(field)) => StampPlace::Field(stamp_field(field, signature)?),
        _ => {
            let error = SchemeError::new("timestamp", "needs either `header` or `field`");
            return Err(error.suggest("a header of its own, or a field of a kv signature header"));
        }
    };
    let tolerance = check_tolerance(file.tolerance)
        .map_err(|why| SchemeError::new("timestamp.tolerance", why).suggest("most providers say 5m"))?;
    Ok(Some(Stamp {
        place,
        unit: file.unit,
        tolerance,
        rule,
    }))
}

fn build_id(file: &SchemeFile, template: &Template) -> Result<Option<HeaderName>, SchemeError> {
    match (&file.id, template.id()) {
        (None, None) => Ok(None),
        (Some(id), Some(_)) => header_name("id.header", &id.header).map(Some),
        (Some(_), None) => Err(SchemeError::new("id", "is not signed, so anybody can change it")
            .suggest("put {id} into the message or remove this key")),
        (None, Some(_)) => {
            Err(SchemeError::new("id", "is missing, but the message has {id}")
                .suggest("say where it is: { header: ... }"))
        }
    }
}

fn signature_fields(file: &SignatureFile, separator: u8, assign: u8) -> Result<Vec<String>, SchemeError> {
    const KEY: &str = "signature.fields";
    if file.fields.is_empty() || file.fields.len() > FIELDS_MAX {
        let error = SchemeError::new(KEY, format!("needs 1 to {FIELDS_MAX} names"));
        return Err(error.suggest("name the fields that carry signatures: [v1]"));
    }
    for (at, field) in file.fields.iter().enumerate() {
        check_field(KEY, field, separator, assign)?;
        if file.fields.iter().take(at).any(|earlier| earlier == field) {
            return Err(SchemeError::new(KEY, format!("{field:?} occurs twice")));
        }
    }
    Ok(file.fields.clone())
}

fn stamp_field(field: &str, signature: &Place) -> Result<String, SchemeError> {
    const KEY: &str = "timestamp.field";
    let Spelling::Kv {
        separator,
        assign,
        fields,
    } = &signature.spelling
    else {
        let error = SchemeError::new(KEY, "needs a signature with format: kv");
        return Err(error.suggest("use `header` for a time in a header of its own"));
    };
    check_field(KEY, field, *separator, *assign)?;
    if fields.iter().any(|other| other == field) {
        return Err(SchemeError::new(KEY, format!("{field:?} is a signature already")));
    }
    Ok(field.to_owned())
}

fn check_field(key: &str, field: &str, separator: u8, assign: u8) -> Result<(), SchemeError> {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != separator && byte != assign;
    if field.is_empty() || !field.bytes().all(fits) {
        return Err(SchemeError::new(key, format!("{field:?} cannot be a name here"))
            .suggest("a name has visible ASCII and neither the separator nor the assign character"));
    }
    Ok(())
}

fn separator(file: &SignatureFile) -> Result<u8, SchemeError> {
    const KEY: &str = "signature.separator";
    let Some(text) = &file.separator else {
        return Err(SchemeError::new(KEY, "is missing").suggest("name the character between entries, such as \",\""));
    };
    let byte = one_byte(KEY, text)?;
    if file.encoding.may_contain(byte) {
        return Err(SchemeError::new(KEY, format!("{text:?} may be a part of a signature")));
    }
    Ok(byte)
}

fn one_byte(key: &str, text: &str) -> Result<u8, SchemeError> {
    match text.as_bytes() {
        [byte] if (byte.is_ascii_graphic() && !byte.is_ascii_alphanumeric()) || *byte == b' ' => Ok(*byte),
        _ => Err(SchemeError::new(
            key,
            format!("{text:?} is not one punctuation character or space"),
        )),
    }
}

fn header_name(key: &str, text: &str) -> Result<HeaderName, SchemeError> {
    HeaderName::try_from(text).map_err(|_| SchemeError::new(key, format!("{text:?} is not a header name")))
}

fn refuse_key(is_there: bool, key: &str, belongs_to: &str) -> Result<(), SchemeError> {
    if is_there {
        return Err(SchemeError::new(key, format!("belongs to {belongs_to}")));
    }
    Ok(())
}

/// What is wrong with a scheme or a provider as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeError {
    /// The key that is wrong, from the root of the file or item: `signature.separator`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead, where that can be said.
    pub suggestion: Option<String>,
}

impl SchemeError {
    pub(crate) fn new(key: &str, problem: impl Into<String>) -> SchemeError {
        SchemeError {
            key: key.to_owned(),
            problem: problem.into(),
            suggestion: None,
        }
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> SchemeError {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same error seen from one level further out.
    pub(crate) fn under(mut self, parent: &str) -> SchemeError {
        self.key = format!("{parent}.{}", self.key);
        self
    }
}

impl fmt::Display for SchemeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SchemeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::testing::{GITHUB, STANDARD_WEBHOOKS, STRIPE, scheme};

    /// The key that a typed scheme is refused for; `None` when it is built.
    fn refused(yaml: &str) -> Option<String> {
        let file: SchemeFile = serde_yaml::from_str(yaml).unwrap();
        Scheme::build("test", &file).err().map(|e| e.key)
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        // A scheme that checks less than its file says is worse than none.
        let kv = "format: kv, separator: \",\", fields: [v1]";
        let rows = [
            (GITHUB, "{body}", "constant", "message"),
            (GITHUB, "{body}", "{timestamp}.{body}", "timestamp"),
            (GITHUB, "{body}", "{id}.{body}", "id"),
            (GITHUB, "{body}", "{what}", "message"),
            (GITHUB, "X-Hub-Signature-256", "X Hub", "signature.header"),
            (GITHUB, "X-Hub-Signature-256", "\"\"", "signature.header"),
            (GITHUB, "sha256=", "caf\u{e9}", "signature.prefix"),
            (GITHUB, "sha256=", " sha256", "signature.prefix"),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, separator: \",\"",
                "signature.separator",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, assign: \":\"",
                "signature.assign",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, fields: [v1]",
                "signature.fields",
            ),
            (GITHUB, "prefix: \"sha256=\"", "format: list", "signature.separator"),
            (
                GITHUB,
                "prefix: \"sha256=\"",
                "format: list, separator: a",
                "signature.separator",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, format: list, separator: \",\"",
                "signature.prefix",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, format: kv, separator: \",\", fields: [a]",
                "signature.prefix",
            ),
            (STRIPE, kv, "format: kv, fields: [v1]", "signature.separator"),
            (
                STRIPE,
                kv,
                "format: kv, separator: \", \", fields: [v1]",
                "signature.separator",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \"\", fields: [v1]",
                "signature.separator",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \"=\", fields: [v1]",
                "signature.assign",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \";\", assign: \" \", fields: [v1]",
                "signature.assign",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \";\", assign: ab, fields: [v1]",
                "signature.assign",
            ),
            (STRIPE, kv, "format: kv, separator: \",\"", "signature.fields"),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: []",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [v1, v1]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [\"\"]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [\"v1=\"]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [a,b,c,d,e,f,g,h,i]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [t]",
                "timestamp.field",
            ),
            (STRIPE, "separator: \",\"", "separator: \"/\"", ""),
            (
                STANDARD_WEBHOOKS,
                "separator: \" \"",
                "separator: \"/\"",
                "signature.separator",
            ),
            (STRIPE, kv, "format: list, separator: \",\"", "timestamp.field"),
            (STRIPE, "field: t,", "field: \"t=\",", "timestamp.field"),
            (STRIPE, "field: t,", "field: t, header: T,", "timestamp"),
            (STRIPE, "field: t,", "", "timestamp"),
            (STRIPE, "field: t,", "header: \"T:\",", "timestamp.header"),
            (STRIPE, "field: t,", "header: stripe-signature,", "timestamp.header"),
            (STRIPE, "{timestamp}.{body}", "{body}", "timestamp"),
            (STRIPE, "tolerance: 5m", "tolerance: 0s", "timestamp.tolerance"),
            (STRIPE, "tolerance: 5m", "tolerance: 999ms", "timestamp.tolerance"),
            (STRIPE, "tolerance: 5m", "tolerance: 1s", ""),
            (STRIPE, "tolerance: 5m", "tolerance: 1d", ""),
            (STRIPE, "tolerance: 5m", "tolerance: 86401s", "timestamp.tolerance"),
            (STANDARD_WEBHOOKS, "{id}.", "", "id"),
            (STANDARD_WEBHOOKS, "webhook-id", "webhook-timestamp", "id.header"),
            (STANDARD_WEBHOOKS, "webhook-id", "Webhook-Signature", "id.header"),
            (STANDARD_WEBHOOKS, "{id}.{timestamp}", "{id}{timestamp}", "message"),
        ];
        for (yaml, from, to, key) in rows {
            assert!(yaml.contains(from), "{from:?}");
            let expected = Some(key.to_owned()).filter(|key| !key.is_empty());
            assert_eq!(refused(&yaml.replace(from, to)), expected, "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn what_is_typed_wrong_is_not_guessed() {
        // A misspelt tolerance would switch the age check off, a default algorithm would choose for the user.
        let rows = [
            (STRIPE, "tolerance: 5m", "tolerance: 300"),
            (STRIPE, "tolerance: 5m", "tolerance: five"),
            (STRIPE, "tolerance: 5m", "tolerence: 5m"),
            (STRIPE, ", tolerance: 5m", ""),
            (STRIPE, "unit: s,", ""),
            (STRIPE, "unit: s", "unit: us"),
            (STRIPE, "mac: hmac-sha256", "mac: sha256"),
            (STRIPE, "mac: hmac-sha256", "mac: hmac-md5"),
            (STRIPE, "mac: hmac-sha256", "mac: none"),
            (STRIPE, "mac: hmac-sha256", ""),
            (STRIPE, "key: utf8", ""),
            (STRIPE, "key: utf8", "key: base64url"),
            (STRIPE, ", encoding: hex", ""),
            (STRIPE, "encoding: hex", "encoding: HEX"),
            (STRIPE, "format: kv", "format: jwt"),
            (STRIPE, "header: Stripe-Signature, ", ""),
        ];
        for (yaml, from, to) in rows {
            assert!(yaml.contains(from), "{from:?}");
            assert!(
                serde_yaml::from_str::<SchemeFile>(&yaml.replace(from, to)).is_err(),
                "{from:?} -> {to:?}"
            );
        }
    }

    #[test]
    fn every_header_that_decides_is_listed() {
        // A header that is missing here can be sent twice: one value for us and one for the backend.
        let listed = |yaml| {
            scheme(yaml)
                .security_headers()
                .iter()
                .map(|h| h.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(GITHUB), ["x-hub-signature-256"]);
        assert_eq!(listed(STRIPE), ["stripe-signature"]);
        assert_eq!(
            listed(STANDARD_WEBHOOKS),
            ["webhook-signature", "webhook-timestamp", "webhook-id"]
        );
    }

    #[test]
    fn an_error_names_key_problem_and_way_out() {
        // Somebody writing a scheme would have to guess.
        let file = serde_yaml::from_str(&STRIPE.replace("{timestamp}.", "")).unwrap();
        let error = Scheme::build("mine", &file).unwrap_err().under("scheme");
        let expected = "scheme.timestamp: is not signed, so anybody can change it; \
                        put {timestamp} into the message or remove this key";
        assert_eq!(error.to_string(), expected);
    }
}
