//! Where a handshake's values stand in a request, and reading them in one meaning.
//!
//! A value counts only when its name stands there exactly once: of two values one would be judged and the other one
//! sent back. Values that are sent back are printable ASCII of at most [`VALUE_BYTES_MAX`] bytes; whatever else a
//! stranger writes is not trimmed into shape but is no value at all. Names and values of queries and forms are decoded
//! as forms are (`+` is a space, `%41` is an A); a text with an escape that is none has no
//! value at all.

use std::cell::OnceCell;
use std::fmt;

use http::{HeaderMap, HeaderName, Method};

use crate::signature::json::{self, Wanted};
use crate::signature::{JsonPath, SchemeError, form_value};

/// Longest value that is read, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 4 * 1024;

/// Most different JSON members that the handshakes of one provider read.
pub(super) const JSON_PATHS_MAX: usize = 8;

/// A request that may be a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path and query as received.
    pub target: &'a str,
    /// Headers as received.
    pub headers: &'a HeaderMap,
    /// The whole body; empty as long as only the head is known.
    pub body: &'a [u8],
}

/// A place of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Header(HeaderName),
    Query(String),
    Form(String),
    Json(JsonPath),
}

impl Place {
    /// Whether the value stands in the body.
    pub(super) fn in_body(&self) -> bool {
        matches!(self, Place::Form(_) | Place::Json(_))
    }

    /// The place that was typed, if exactly one was. `key` is the group it stands in.
    pub(super) fn typed(key: &str, typed: [(&str, Option<&String>); 4]) -> Result<Place, SchemeError> {
        let mut places = typed.into_iter().filter_map(|(kind, name)| Some((kind, name?)));
        match (places.next(), places.next()) {
            (Some((kind, name)), None) => Place::parse(&format!("{key}.{kind}"), kind, name),
            _ => Err(SchemeError::new(
                key,
                "needs exactly one of `header`, `query`, `form` and `json`",
            )),
        }
    }

    /// Reads a kind and a name. `key` is where they were typed.
    pub(super) fn parse(key: &str, kind: &str, name: &str) -> Result<Place, SchemeError> {
        let named = |place: fn(String) -> Place| match name.is_empty() {
            true => Err(SchemeError::new(key, "has no name")),
            false => Ok(place(name.to_owned())),
        };
        match kind {
            "header" => HeaderName::try_from(name)
                .map(Place::Header)
                .map_err(|_| SchemeError::new(key, format!("{name:?} is not a header name"))),
            "query" => named(Place::Query),
            "form" => named(Place::Form),
            "json" => JsonPath::parse(key, name).map(Place::Json),
            _ => Err(
                SchemeError::new(key, format!("{{{kind}:{name}}} is no value of a request"))
                    .suggest("write {query:x}, {header:x}, {form:x} or {json:x}"),
            ),
        }
    }
}

impl fmt::Display for Place {
    /// The name alone: `hub.mode`, `x-hook-secret`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header(name) => f.write_str(name.as_str()),
            Place::Query(name) | Place::Form(name) => f.write_str(name),
            Place::Json(path) => path.fmt(f),
        }
    }
}

/// A request while its values are read. The body is parsed once at most, and not at all unless it is asked for.
pub(super) struct Reading<'a> {
    asked: Asked<'a>,
    paths: &'a [JsonPath],
    members: OnceCell<[Option<String>; JSON_PATHS_MAX]>,
}

impl<'a> Reading<'a> {
    /// `paths` are all JSON members that may be asked for.
    pub(super) fn new(asked: Asked<'a>, paths: &'a [JsonPath]) -> Self {
        Reading {
            asked,
            paths,
            members: OnceCell::new(),
        }
    }

    pub(super) fn asked(&self) -> &Asked<'a> {
        &self.asked
    }

    /// The one value of a place; `None` when there is none, several, or one that is no text within bounds.
    pub(super) fn value(&self, place: &Place) -> Option<String> {
        let value = match place {
            Place::Header(name) => only(self.asked.headers.get_all(name).iter())?.to_str().ok()?.to_owned(),
            Place::Query(name) => form_value(self.asked.target.split_once('?')?.1.as_bytes(), name, VALUE_BYTES_MAX)?,
            Place::Form(name) => form_value(self.asked.body, name, VALUE_BYTES_MAX)?,
            Place::Json(path) => self.member(path)?,
        };
        (value.len() <= VALUE_BYTES_MAX).then_some(value)
    }

    fn member(&self, path: &JsonPath) -> Option<String> {
        let members = self.members.get_or_init(|| {
            let mut paths = self.paths.iter();
            let wanted: [Option<Wanted<'_>>; JSON_PATHS_MAX] = std::array::from_fn(|_| {
                paths.next().map(|path| Wanted {
                    path,
                    bytes_max: VALUE_BYTES_MAX,
                })
            });
            json::find(self.asked.body, wanted)
        });
        let at = self.paths.iter().position(|known| known == path)?;
        members.get(at)?.clone()
    }
}

/// Whether a value may be sent back: printable ASCII that a header or a line of text can hold as it is.
pub(super) fn is_printable(text: &str) -> bool {
    let inside = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    inside && !text.is_empty() && !text.starts_with(' ') && !text.ends_with(' ')
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let item = items.next()?;
    items.next().is_none().then_some(item)
}
