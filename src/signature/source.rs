//! Places of a request from which a scheme takes a value: a header, a member of a JSON body, a field of a form, a
//! parameter of the query, a field of the signature header.
//!
//! A [`Reader`] is made for one request and looks everything up in it; JSON and forms are read once, however many of
//! their values are asked for. Reading is bounded and strict: what can be read in two ways is malformed. Everything
//! read here is still a claim.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;

use super::extract::field_value;
use super::form::{self, Pair};
use super::json::{self, JsonPath, Member};
use super::native::Message;
use super::proof::Failure;

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Header(HeaderName),
    Json(JsonPath),
    Form(String),
    Query(String),
    /// A parameter of the query in small letters, in which some providers sign what they send in capitals.
    QueryLower(String),
    /// Another field of a `kv` signature.
    Field(String),
}

impl Source {
    /// Whether it is a parameter of the query.
    pub(super) fn is_of_query(&self) -> bool {
        matches!(self, Source::Query(_) | Source::QueryLower(_))
    }
}

impl fmt::Display for Source {
    /// As a placeholder names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Header(name) => write!(f, "header:{name}"),
            Source::Json(path) => write!(f, "json:{path}"),
            Source::Form(name) => write!(f, "form:{name}"),
            Source::Query(name) => write!(f, "query:{name}"),
            Source::QueryLower(name) => write!(f, "query_lower:{name}"),
            Source::Field(name) => write!(f, "field:{name}"),
        }
    }
}

/// Looks values up in one request.
pub(super) struct Reader<'m> {
    message: Message<'m>,
    json: Vec<(&'m JsonPath, Member<'m>)>,
    form: Option<Vec<Pair>>,
    query: Option<Vec<Pair>>,
    /// JSON was asked for and the body is none, and so on.
    is_readable: bool,
}

impl<'m> Reader<'m> {
    /// Reads what `sources` need.
    pub(super) fn new(message: Message<'m>, sources: impl Iterator<Item = &'m Source> + Clone) -> Reader<'m> {
        let paths = sources.clone().filter_map(|source| match source {
            Source::Json(path) => Some(path),
            _ => None,
        });
        let paths: Vec<&JsonPath> = paths.collect();
        let mut reader = Reader {
            message,
            json: Vec::new(),
            form: None,
            query: None,
            is_readable: true,
        };
        if !paths.is_empty() {
            match json::members(message.body, &paths) {
                Some(members) => reader.json = paths.into_iter().zip(members).collect(),
                None => reader.is_readable = false,
            }
        }
        if sources.clone().any(|source| matches!(source, Source::Form(_))) {
            reader.form = of_body(&message);
            reader.is_readable &= reader.form.is_some();
        }
        if sources.clone().any(Source::is_of_query) {
            reader.query = form::pairs(message.query().as_bytes()).ok();
            reader.is_readable &= reader.query.is_some();
        }
        reader
    }

    /// A value that has to be there.
    ///
    /// # Errors
    /// `Missing` when it is absent, `Malformed` when it can be read in two ways or not at all.
    pub(super) fn demand(&self, source: &Source) -> Result<Cow<'_, [u8]>, Failure> {
        self.look_up(source)?.ok_or(Failure::Missing)
    }

    /// A value for the signed message. Absent members and fields are empty, as providers concatenate them; absent
    /// headers and parameters are missing.
    pub(super) fn part(&self, source: &Source) -> Result<Cow<'_, [u8]>, Failure> {
        match (source, self.look_up(source)?) {
            (_, Some(value)) => Ok(value),
            (Source::Json(_) | Source::Form(_), None) => Ok(Cow::Borrowed(b"")),
            (Source::Header(_) | Source::Query(_) | Source::QueryLower(_) | Source::Field(_), None) => {
                Err(Failure::Missing)
            }
        }
    }

    /// A value, if it is there.
    pub(super) fn look_up(&self, source: &Source) -> Result<Option<Cow<'_, [u8]>>, Failure> {
        if !self.is_readable {
            return Err(Failure::Malformed);
        }
        match source {
            Source::Header(name) => match field_value(self.message.headers, name) {
                Ok(value) => Ok(Some(Cow::Borrowed(value))),
                Err(Failure::Missing) => Ok(None),
                Err(failure) => Err(failure),
            },
            Source::Json(path) => match self.json.iter().find(|(other, _)| *other == path) {
                Some((_, Member::Text(text))) => Ok(Some(Cow::Borrowed(text.as_bytes()))),
                Some((_, Member::Absent)) => Ok(None),
                Some((_, Member::Unusable)) | None => Err(Failure::Malformed),
            },
            Source::Form(name) => one(self.form.as_ref(), name),
            Source::Query(name) => one(self.query.as_ref(), name),
            Source::QueryLower(name) => {
                let value = one(self.query.as_ref(), name)?;
                Ok(value.map(|value| Cow::Owned(value.to_ascii_lowercase())))
            }
            // Read with the signature's own entries.
            Source::Field(_) => Ok(None),
        }
    }

    /// The whole form, sorted.
    pub(super) fn sorted_form(&self) -> Result<Vec<u8>, Failure> {
        let mut pairs = of_body(&self.message).ok_or(Failure::Malformed)?;
        pairs.sort_unstable();
        pairs.dedup();
        Ok(form::sorted(pairs))
    }
}

/// The form that the body is, unless the content type says that it is something else: a backend that believes it would
/// read another message than the one that was signed.
fn of_body(message: &Message<'_>) -> Option<Vec<Pair>> {
    match form::content_type(message).as_deref() {
        None | Some("application/x-www-form-urlencoded") => form::pairs(message.body).ok(),
        Some(_) => None,
    }
}

fn one<'p>(pairs: Option<&'p Vec<Pair>>, name: &str) -> Result<Option<Cow<'p, [u8]>>, Failure> {
    match form::only(pairs.ok_or(Failure::Malformed)?, name) {
        Ok(value) => Ok(Some(Cow::Borrowed(value))),
        Err(Failure::Missing) => Ok(None),
        Err(failure) => Err(failure),
    }
}
