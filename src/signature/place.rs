//! Where a scheme's signature and time are in a request, and how they are written there.
//!
//! Built once from what was typed; [`extract`](super::extract) reads requests by it. What could be read in two ways is
//! refused here: a separator that may occur in a signature, a field that is a time and a signature at once, keys that
//! belong to another format and would be ignored.

use std::time::Duration;

use http::HeaderName;

use super::encoding::Encoding;
use super::file::{Format, SignatureFile, TimestampFile, Tolerance};
use super::json::JsonPath;
use super::pubkey::EcdsaForm;
use super::scheme::SchemeError;
use super::source::Source;
use super::template::Rule;
use super::timestamp::Unit;

/// Shortest and longest tolerance. A shorter one refuses honest clocks; a longer one is no check of freshness, and
/// replays have to be remembered for twice as long. Two days is what a provider asks for whose retries keep the first
/// time.
const TOLERANCE_MIN: Duration = Duration::from_secs(1);
const TOLERANCE_MAX: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Most names of a `kv` signature.
const FIELDS_MAX: usize = 8;

/// Most headers that may carry the signature.
const HEADERS_MAX: usize = 16;

/// Where the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) carrier: Carrier,
    pub(super) spelling: Spelling,
    pub(super) encoding: Encoding,
    pub(super) ecdsa: EcdsaForm,
}

/// What carries the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    One(Source),
    /// Any of these headers, all of the same spelling.
    Any(Vec<HeaderName>),
}

/// How the carrier's value is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Plain {
        prefix: String,
    },
    Kv {
        separator: u8,
        assign: u8,
        fields: Vec<String>,
        group: Option<u8>,
    },
    List {
        separator: u8,
    },
    /// The time, then signatures.
    Positional {
        separator: u8,
    },
}

/// Where the signed time is and how old it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) place: StampPlace,
    pub(super) unit: Unit,
    /// `None`: any age.
    pub(super) tolerance: Option<Duration>,
    pub(super) rule: Rule,
}

/// Where the signed time is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StampPlace {
    /// A place of its own, or a field of the signature.
    At(Source),
    /// The first entry of the signature.
    First,
}

impl Place {
    pub(super) fn build(file: &SignatureFile) -> Result<Place, SchemeError> {
        let carrier = carrier(file)?;
        let Some(encoding) = file.encoding else {
            return Err(SchemeError::new("signature.encoding", "is missing").suggest("hex, base64 or base64url"));
        };
        Ok(Place {
            carrier,
            spelling: spelling(file, encoding)?,
            encoding,
            ecdsa: file.ecdsa.unwrap_or_default(),
        })
    }

    /// The headers that may carry it.
    pub(super) fn headers(&self) -> &[HeaderName] {
        match &self.carrier {
            Carrier::One(Source::Header(name)) => std::slice::from_ref(name),
            Carrier::One(_) => &[],
            Carrier::Any(names) => names,
        }
    }

    /// Whether each group of entries has a time of its own.
    pub(super) fn is_grouped(&self) -> bool {
        matches!(self.spelling, Spelling::Kv { group: Some(_), .. })
    }
}

impl Stamp {
    /// `rule` is what the template demands of it.
    pub(super) fn build(file: &TimestampFile, rule: Rule, signature: &Place) -> Result<Stamp, SchemeError> {
        let tolerance = match file.tolerance {
            Tolerance::Off => None,
            Tolerance::Within(tolerance) => Some(check_tolerance(tolerance).map_err(|why| {
                SchemeError::new("timestamp.tolerance", why).suggest("most providers say 5m; `off` demands no age")
            })?),
        };
        Ok(Stamp {
            place: stamp_place(file, signature)?,
            unit: file.unit,
            tolerance,
            rule,
        })
    }

    /// The header that carries it, if it is one.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match &self.place {
            StampPlace::At(Source::Header(name)) => Some(name),
            StampPlace::At(_) | StampPlace::First => None,
        }
    }

    /// The field of the signature that it is.
    pub(super) fn field(&self) -> Option<&str> {
        match &self.place {
            StampPlace::At(Source::Field(name)) => Some(name),
            StampPlace::At(_) | StampPlace::First => None,
        }
    }
}

/// Checks that a tolerance is one.
pub(super) fn check_tolerance(tolerance: Duration) -> Result<Duration, &'static str> {
    if (TOLERANCE_MIN..=TOLERANCE_MAX).contains(&tolerance) {
        Ok(tolerance)
    } else {
        Err("must be between 1s and 2d")
    }
}

fn carrier(file: &SignatureFile) -> Result<Carrier, SchemeError> {
    let sources = sources(&file.header, &file.json, &file.form, &file.query);
    match (sources.as_slice(), file.headers.as_slice()) {
        ([("header", name)], []) if name.contains("{n}") => numbered(name),
        ([(kind, text)], []) => source("signature", kind, text).map(Carrier::One),
        ([], [_, ..]) if file.headers.len() <= HEADERS_MAX => any(&file.headers),
        _ => {
            let error = SchemeError::new(
                "signature",
                "needs one of `header`, `headers`, `json`, `form` and `query`",
            );
            Err(error.suggest("signature: { header: X-Signature, encoding: hex }"))
        }
    }
}

fn numbered(name: &str) -> Result<Carrier, SchemeError> {
    let numbers = 1..=HEADERS_MAX;
    let names: Vec<String> = numbers.map(|n| name.replace("{n}", &n.to_string())).collect();
    any(&names)
}

fn any(names: &[String]) -> Result<Carrier, SchemeError> {
    let mut headers: Vec<HeaderName> = Vec::with_capacity(names.len());
    for name in names {
        let header = header_name("signature.headers", name)?;
        if headers.contains(&header) {
            return Err(SchemeError::new("signature.headers", format!("{name} occurs twice")));
        }
        headers.push(header);
    }
    Ok(Carrier::Any(headers))
}

/// What was typed of the keys that say where something is.
fn sources<'f>(
    header: &'f Option<String>,
    json: &'f Option<String>,
    form: &'f Option<String>,
    query: &'f Option<String>,
) -> Vec<(&'static str, &'f str)> {
    let keys = [("header", header), ("json", json), ("form", form), ("query", query)];
    keys.into_iter()
        .filter_map(|(key, text)| Some((key, text.as_deref()?)))
        .collect()
}

/// A place that was typed as `kind: text`.
pub(super) fn source(under: &str, kind: &str, text: &str) -> Result<Source, SchemeError> {
    let key = format!("{under}.{kind}");
    match kind {
        "header" => header_name(&key, text).map(Source::Header),
        "json" => JsonPath::parse(&key, text).map(Source::Json),
        _ if text.is_empty() => Err(SchemeError::new(&key, "is empty")),
        "form" => Ok(Source::Form(text.to_owned())),
        _ => Ok(Source::Query(text.to_owned())),
    }
}

fn spelling(file: &SignatureFile, encoding: Encoding) -> Result<Spelling, SchemeError> {
    let is_kv = file.format == Format::Kv;
    refuse_key(
        file.prefix.is_some() && file.format != Format::Plain,
        "signature.prefix",
        "format: plain",
    )?;
    refuse_key(file.assign.is_some() && !is_kv, "signature.assign", "format: kv")?;
    refuse_key(!file.fields.is_empty() && !is_kv, "signature.fields", "format: kv")?;
    refuse_key(file.group.is_some() && !is_kv, "signature.group", "format: kv")?;
    match file.format {
        Format::Plain => {
            let key = "signature.separator";
            refuse_key(file.separator.is_some(), key, "format: kv, list or positional")?;
            let prefix = prefix(file)?;
            Ok(Spelling::Plain { prefix })
        }
        Format::List => Ok(Spelling::List {
            separator: separator(file, encoding)?,
        }),
        Format::Positional => Ok(Spelling::Positional {
            separator: separator(file, encoding)?,
        }),
        Format::Kv => {
            let separator = separator(file, encoding)?;
            let assign = one_byte("signature.assign", file.assign.as_deref().unwrap_or("="))?;
            if assign == separator || assign == b' ' {
                return Err(SchemeError::new(
                    "signature.assign",
                    "cannot be told from the separator",
                ));
            }
            let group = match &file.group {
                None => None,
                Some(text) => Some(group(text, separator, assign, encoding)?),
            };
            let fields = signature_fields(file, separator, assign)?;
            Ok(Spelling::Kv {
                separator,
                assign,
                fields,
                group,
            })
        }
    }
}

/// The text before a signature or a token.
pub(super) fn prefix(file: &SignatureFile) -> Result<String, SchemeError> {
    let prefix = file.prefix.clone().unwrap_or_default();
    if !prefix.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') || prefix.starts_with(' ') {
        let error = SchemeError::new("signature.prefix", "cannot occur in a header");
        return Err(error.suggest("write visible ASCII such as sha256="));
    }
    Ok(prefix)
}

fn group(text: &str, separator: u8, assign: u8, encoding: Encoding) -> Result<u8, SchemeError> {
    const KEY: &str = "signature.group";
    let byte = one_byte(KEY, text)?;
    if byte == separator || byte == assign || encoding.may_contain(byte) {
        return Err(SchemeError::new(
            KEY,
            format!("{text:?} separates something else already"),
        ));
    }
    Ok(byte)
}

fn stamp_place(file: &TimestampFile, signature: &Place) -> Result<StampPlace, SchemeError> {
    let sources = sources(&file.header, &file.json, &file.form, &file.query);
    match (sources.as_slice(), &file.field, file.first) {
        ([(kind, text)], None, false) => source("timestamp", kind, text).map(StampPlace::At),
        ([], Some(field), false) => stamp_field(field, signature).map(|field| StampPlace::At(Source::Field(field))),
        ([], None, true) if matches!(signature.spelling, Spelling::Positional { .. }) => Ok(StampPlace::First),
        ([], None, true) => {
            let error = SchemeError::new("timestamp.first", "needs a signature with format: positional");
            Err(error.suggest("use `field` or `header`"))
        }
        _ => {
            let error = SchemeError::new(
                "timestamp",
                "needs one of `header`, `field`, `json`, `form`, `query` and `first`",
            );
            Err(error.suggest("a header of its own, or a field of a kv signature header"))
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
    other_field("timestamp.field", field, signature)?;
    Ok(field.to_owned())
}

/// Checks a field that is read beside the signatures.
pub(super) fn other_field(key: &str, field: &str, signature: &Place) -> Result<(), SchemeError> {
    let Spelling::Kv {
        separator,
        assign,
        fields,
        ..
    } = &signature.spelling
    else {
        let error = SchemeError::new(key, "needs a signature with format: kv");
        return Err(error.suggest("use `header` for a value in a header of its own"));
    };
    check_field(key, field, *separator, *assign)?;
    if fields.iter().any(|other| other == field) {
        return Err(SchemeError::new(key, format!("{field:?} is a signature already")));
    }
    Ok(())
}

fn check_field(key: &str, field: &str, separator: u8, assign: u8) -> Result<(), SchemeError> {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != separator && byte != assign;
    if field.is_empty() || !field.bytes().all(fits) {
        return Err(SchemeError::new(key, format!("{field:?} cannot be a name here"))
            .suggest("a name has visible ASCII and neither the separator nor the assign character"));
    }
    Ok(())
}

fn separator(file: &SignatureFile, encoding: Encoding) -> Result<u8, SchemeError> {
    const KEY: &str = "signature.separator";
    let Some(text) = &file.separator else {
        return Err(SchemeError::new(KEY, "is missing").suggest("name the character between entries, such as \",\""));
    };
    let byte = one_byte(KEY, text)?;
    if encoding.may_contain(byte) {
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

pub(super) fn header_name(key: &str, text: &str) -> Result<HeaderName, SchemeError> {
    HeaderName::try_from(text).map_err(|_| SchemeError::new(key, format!("{text:?} is not a header name")))
}

/// Refuses a key that would be ignored.
pub(super) fn refuse_key(is_there: bool, key: &str, belongs_to: &str) -> Result<(), SchemeError> {
    if is_there {
        return Err(SchemeError::new(key, format!("belongs to {belongs_to}")));
    }
    Ok(())
}
