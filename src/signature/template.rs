//! What a provider signs, as a template: `v0:{timestamp}:{body}`.
//!
//! Parsed once at start, written into the MACs of every request. Here are the syntax and the writing; which templates
//! have more than one reading, and what values must obey so that theirs has one, is decided in `rules`.
//!
//! Values that the route's configuration gives (its URL, its settings) become literal text when a scheme and a route
//! come together, so that a request pays for none of them.

mod rules;

use std::fmt;

use super::json;
use super::native::{PublicUrl, Settings};
use super::scheme::SchemeError;
use super::source::Source;

pub(super) use rules::{Given, Rule};

/// Longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 2048;

/// What is known about a message before its body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values<'h> {
    /// The timestamp's own text.
    pub(super) timestamp: &'h [u8],
    /// The id's own text.
    pub(super) id: &'h [u8],
}

/// A parsed template: what stands before the body, whether there is one, what stands behind it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Template {
    head: Vec<Piece>,
    has_body: bool,
    tail: Vec<Piece>,
}

/// A part and what its value must obey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) part: Part,
    pub(super) rule: Rule,
    /// That no other cut of the signed bytes gives it another value.
    pub(super) is_certain: bool,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Vec<u8>),
    Timestamp,
    Id,
    Body,
    BodySha256,
    SortedForm,
    Method,
    Secret,
    Config(Config),
    Value(Source),
    /// Text around a value, both left out when there is no value.
    Optional {
        before: Vec<u8>,
        value: Source,
        after: Vec<u8>,
    },
}

/// A value that the route's configuration gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Config {
    Url,
    UrlBase,
    Path,
    Setting(String),
}

impl fmt::Display for Part {
    /// As a template names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Literal(_) => f.write_str("text"),
            Part::Timestamp => f.write_str("{timestamp}"),
            Part::Id => f.write_str("{id}"),
            Part::Body => f.write_str("{body}"),
            Part::BodySha256 => f.write_str("{body_sha256}"),
            Part::SortedForm => f.write_str("{sorted_form}"),
            Part::Method => f.write_str("{method}"),
            Part::Secret => f.write_str("{secret}"),
            Part::Config(Config::Url) => f.write_str("{url}"),
            Part::Config(Config::UrlBase) => f.write_str("{url_base}"),
            Part::Config(Config::Path) => f.write_str("{path}"),
            Part::Config(Config::Setting(name)) => write!(f, "{{setting:{name}}}"),
            Part::Value(source) => write!(f, "{{{source}}}"),
            Part::Optional { value, .. } => write!(f, "[{{{value}}}]"),
        }
    }
}

impl Template {
    /// Reads a template; `given` is what the scheme says about its values.
    pub(super) fn parse(text: &str, given: Given) -> Result<Template, SchemeError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            let problem = format!("longer than {TEMPLATE_BYTES_MAX} bytes");
            return Err(refuse(problem, "shorten the literal text"));
        }
        let parts = split(text)?;
        check_counts(&parts)?;
        rules::judge(parts, given)
    }

    fn of(head: Vec<Piece>, has_body: bool, tail: Vec<Piece>) -> Template {
        Template { head, has_body, tail }
    }

    /// The pieces in order, the body left out.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> + Clone {
        self.head.iter().chain(&self.tail)
    }

    /// The pieces before the body.
    pub(super) fn head(&self) -> &[Piece] {
        &self.head
    }

    /// The pieces behind the body.
    pub(super) fn tail(&self) -> &[Piece] {
        &self.tail
    }

    /// Whether the body itself is a part.
    pub(super) fn has_body(&self) -> bool {
        self.has_body
    }

    /// Whether every byte of the body changes what is signed.
    pub(super) fn binds_body(&self) -> bool {
        self.has_body || self.has(&Part::BodySha256)
    }

    /// Whether this part occurs.
    pub(super) fn has(&self, part: &Part) -> bool {
        self.pieces().any(|piece| piece.part == *part)
    }

    /// The rule for the timestamp, if there is one in the message.
    pub(super) fn timestamp(&self) -> Option<Rule> {
        self.rule(&Part::Timestamp)
    }

    /// The rule for the id, if there is one in the message.
    pub(super) fn id(&self) -> Option<Rule> {
        self.rule(&Part::Id)
    }

    fn rule(&self, part: &Part) -> Option<Rule> {
        self.pieces().find(|piece| piece.part == *part).map(|piece| piece.rule)
    }

    /// Whether the value from `source` is signed and cannot be another one.
    pub(super) fn is_certain(&self, source: &Source) -> bool {
        let is_it = |piece: &Piece| piece.is_certain && matches!(&piece.part, Part::Value(other) if other == source);
        self.pieces().any(is_it)
    }

    /// Where values come from, those of optional parts included.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> + Clone {
        self.pieces().filter_map(|piece| match &piece.part {
            Part::Value(source) | Part::Optional { value: source, .. } => Some(source),
            _ => None,
        })
    }

    /// What is asked of the route's configuration.
    pub(super) fn config(&self) -> impl Iterator<Item = &Config> {
        self.pieces().filter_map(|piece| match &piece.part {
            Part::Config(config) => Some(config),
            _ => None,
        })
    }

    /// The same template with the route's own values as literal text; `Err` with the first one that is not there.
    pub(super) fn fixed(&self, url: Option<&PublicUrl>, settings: &Settings) -> Result<Template, Config> {
        let fix = |piece: &Piece| -> Result<Piece, Config> {
            let Part::Config(config) = &piece.part else {
                return Ok(piece.clone());
            };
            let text = match config {
                Config::Url => url.map(PublicUrl::as_str),
                Config::UrlBase => url.map(PublicUrl::base),
                Config::Path => url.map(PublicUrl::path_and_query),
                Config::Setting(name) => settings.find(name),
            };
            let text = text.ok_or_else(|| config.clone())?;
            Ok(Piece {
                part: Part::Literal(text.as_bytes().to_vec()),
                ..piece.clone()
            })
        };
        Ok(Template {
            head: self.head.iter().map(fix).collect::<Result<_, _>>()?,
            has_body: self.has_body,
            tail: self.tail.iter().map(fix).collect::<Result<_, _>>()?,
        })
    }

    /// Whether nothing but headers has to be known before the body, and nothing of the body but the body.
    pub(super) fn can_stream(&self) -> bool {
        self.pieces()
            .all(|piece| matches!(piece.part, Part::Literal(_) | Part::Timestamp | Part::Id))
    }

    /// Hands everything before the body to `sink`, in order. For templates that [`can_stream`](Self::can_stream).
    pub(super) fn write_head(&self, values: Values<'_>, sink: impl FnMut(&[u8])) {
        write(&self.head, values, sink);
    }

    /// Hands everything behind the body to `sink`, in order. For templates that [`can_stream`](Self::can_stream).
    pub(super) fn write_tail(&self, values: Values<'_>, sink: impl FnMut(&[u8])) {
        write(&self.tail, values, sink);
    }
}

impl fmt::Debug for Template {
    /// Without literal text, which may be a setting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.has_body.then_some("{body}".to_owned());
        let text = |piece: &Piece| piece.part.to_string();
        let parts = self.head.iter().map(text).chain(body).chain(self.tail.iter().map(text));
        f.debug_list().entries(parts).finish()
    }
}

fn write(pieces: &[Piece], values: Values<'_>, mut sink: impl FnMut(&[u8])) {
    for piece in pieces {
        match &piece.part {
            Part::Literal(text) => sink(text),
            Part::Timestamp => sink(values.timestamp),
            Part::Id => sink(values.id),
            // Templates with other parts are not streamed.
            _ => {}
        }
    }
}

fn check_counts(parts: &[Part]) -> Result<(), SchemeError> {
    let repeatable = |part: &Part| matches!(part, Part::Literal(_) | Part::Config(Config::Setting(_)));
    for (at, part) in parts.iter().enumerate() {
        if !repeatable(part) && parts.iter().take(at).any(|earlier| earlier == part) {
            return Err(refuse(format!("{part} occurs twice"), "use each placeholder once"));
        }
    }
    if parts.contains(&Part::Body) && parts.contains(&Part::BodySha256) {
        return Err(refuse("{body} and {body_sha256} are the same twice", "use one of them"));
    }
    let constant = |part: &Part| matches!(part, Part::Literal(_) | Part::Config(_) | Part::Secret | Part::Method);
    if parts.iter().all(constant) {
        let problem = "nothing of the request is signed";
        return Err(refuse(problem, "a message usually ends with {body}"));
    }
    if parts.len() > json::WANTED_MAX {
        return Err(refuse("has too many parts", "64 are possible"));
    }
    Ok(())
}

/// Cuts a template's text into literals, placeholders and optional parts; neighbouring literals become one.
fn split(text: &str) -> Result<Vec<Part>, SchemeError> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '[', ']']) {
        let (before, from) = rest.split_at(at);
        literal.extend_from_slice(before.as_bytes());
        let doubled = ["{{", "}}", "[[", "]]"].into_iter().find(|pair| from.starts_with(pair));
        if let Some((pair, after)) = doubled.and_then(|pair| Some((pair, from.strip_prefix(pair)?))) {
            literal.extend(pair.bytes().take(1));
            rest = after;
            continue;
        }
        let (part, after) = match from.starts_with('[') {
            true => optional(from)?,
            false => placeholder(from)?,
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(part);
        rest = after;
    }
    literal.extend_from_slice(rest.as_bytes());
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Reads `[id:{query:data.id};]`.
fn optional(from: &str) -> Result<(Part, &str), SchemeError> {
    const SHAPE: &str = "write text, one value and text: [id:{query:id};]";
    let inside = from.strip_prefix('[').and_then(|text| text.split_once(']'));
    let Some((inside, after)) = inside else {
        return Err(refuse("a bracket stands alone", "write [[ or ]] for a literal bracket"));
    };
    match <[Part; 3]>::try_from(split(inside)?) {
        Ok([Part::Literal(before), Part::Value(value), Part::Literal(behind)]) => {
            let part = Part::Optional {
                before,
                value,
                after: behind,
            };
            Ok((part, after))
        }
        _ => Err(refuse(format!("[{inside}] cannot be left out as a whole"), SHAPE)),
    }
}

fn placeholder(from: &str) -> Result<(Part, &str), SchemeError> {
    let inside = from.strip_prefix('{').and_then(|text| text.split_once('}'));
    let Some((name, after)) = inside else {
        return Err(refuse(
            "a brace or bracket stands alone",
            "write {{, }}, [[ or ]] for a literal one",
        ));
    };
    let part = match name {
        "timestamp" => Part::Timestamp,
        "id" => Part::Id,
        "body" => Part::Body,
        "body_sha256" => Part::BodySha256,
        "sorted_form" => Part::SortedForm,
        "method" => Part::Method,
        "secret" => Part::Secret,
        "url" => Part::Config(Config::Url),
        "url_base" => Part::Config(Config::UrlBase),
        "path" => Part::Config(Config::Path),
        _ => named(name)?,
    };
    Ok((part, after))
}

/// A placeholder with a name of its own behind a colon.
fn named(text: &str) -> Result<Part, SchemeError> {
    const KNOWN: &str = "the placeholders are {body}, {body_sha256}, {timestamp}, {id}, {url}, {url_base}, {path}, \
                         {method}, {sorted_form}, {secret}, {header:X}, {json:a.b}, {form:x}, {query:x}, \
                         {query_lower:x}, {field:x} and {setting:x}";
    let unknown = || refuse(format!("there is no placeholder {{{text}}}"), KNOWN);
    let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
    if name.is_empty() {
        return Err(unknown());
    }
    Ok(match kind {
        "header" => Part::Value(Source::Header(name.parse().map_err(|_| unknown())?)),
        "json" => Part::Value(Source::Json(json::JsonPath::parse("message", name)?)),
        "form" => Part::Value(Source::Form(name.to_owned())),
        "query" => Part::Value(Source::Query(name.to_owned())),
        "query_lower" => Part::Value(Source::QueryLower(name.to_owned())),
        "field" => Part::Value(Source::Field(name.to_owned())),
        "setting" => Part::Config(Config::Setting(name.to_owned())),
        _ => return Err(unknown()),
    })
}

fn refuse(problem: impl Into<String>, suggestion: &str) -> SchemeError {
    SchemeError::new("message", problem).suggest(suggestion)
}

#[cfg(test)]
mod tests;
