//! The texts of a handshake: an answer, a header of it, or what is computed over.
//!
//! Literal text with placeholders, `{{` and `}}` for braces. Nothing of a request gets into a text but the values named
//! here, each printable and bounded; a text that lacks one of its values is no text, and its handshake does not happen.

use super::place::{Place, Reading, VALUE_BYTES_MAX, is_printable};
use crate::signature::{PublicUrl, SchemeError, Settings};

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Value(Place),
    /// A setting of the route.
    Setting(String),
    /// The route's public URL.
    Url,
    /// The result of `compute`.
    Computed,
}

/// What texts are made of besides the request.
#[derive(Clone, Copy)]
pub(super) struct Ingredients<'a> {
    pub(super) settings: &'a Settings,
    pub(super) public_url: Option<&'a PublicUrl>,
    pub(super) computed: Option<&'a str>,
}

impl Text {
    /// Parses a text; `key` is where it was typed.
    pub(super) fn parse(key: &str, text: &str) -> Result<Text, SchemeError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, found) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = found.strip_prefix("{{").or_else(|| found.strip_prefix("}}")) {
                literal.push_str(found.get(..1).unwrap_or_default());
                rest = after;
                continue;
            }
            let inside = found.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            let Some((inside, after)) = inside else {
                return Err(
                    SchemeError::new(key, "has a brace that stands alone").suggest("write {{ or }} for a brace")
                );
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::parse(key, inside)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Text { parts })
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The places whose values it needs.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value(place) => Some(place),
            _ => None,
        })
    }

    /// The text with its values, each of which `fits`; `None` when one is missing or does not, or when the whole is
    /// longer than [`VALUE_BYTES_MAX`] bytes.
    pub(super) fn fill(
        &self,
        reading: &Reading<'_>,
        with: Ingredients<'_>,
        fits: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Value(place) => {
                    let value = reading.value(place)?;
                    if !is_printable(&value) || !fits(&value) {
                        return None;
                    }
                    text.push_str(&value);
                }
                Part::Setting(name) => text.push_str(with.settings.find(name)?),
                Part::Url => text.push_str(with.public_url?.as_str()),
                Part::Computed => text.push_str(with.computed?),
            }
        }
        (text.len() <= VALUE_BYTES_MAX).then_some(text)
    }
}

impl Part {
    fn parse(key: &str, inside: &str) -> Result<Part, SchemeError> {
        match inside.split_once(':') {
            None if inside == "url" => Ok(Part::Url),
            None if inside == "computed" => Ok(Part::Computed),
            Some(("setting", name)) if !name.is_empty() => Ok(Part::Setting(name.to_owned())),
            Some((kind, name)) => Place::parse(key, kind, name).map(Part::Value),
            None => Err(
                SchemeError::new(key, format!("{{{inside}}} is no value of a handshake"))
                    .suggest("write {query:x}, {header:x}, {form:x}, {json:x}, {setting:x}, {url} or {computed}"),
            ),
        }
    }
}
