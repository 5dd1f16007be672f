//! One reading only: what values must obey so that a signed text cannot be cut in two ways.
//!
//! HMAC proves a string, not its parts. If an id may contain the delimiter behind it, a captured `id.timestamp.body`
//! can be cut elsewhere, so that a part of the body passes for a fresh timestamp or for an id never seen, under the
//! provider's own signature. Standard Webhooks says the same of its full stops
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! So the parts before the body can always be told apart from the left and those behind it from the right. A value
//! must not contain the byte that ends it, or has a fixed width, or is written so that it ends itself (RFC 3339, the
//! method), or is text of the route's configuration. A template that no such rule can save is refused. A message
//! without the body proves little, so there only id, timestamp and what stands before them have to be certain.

use super::{Part, Piece, Template, refuse};
use crate::signature::scheme::SchemeError;
use crate::signature::timestamp::Unit;

/// What a value must obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::signature) enum Rule {
    /// Nothing: it ends with the message or ends itself.
    Free,
    /// It must not contain the byte that ends it.
    Without(u8),
    /// It has exactly so many bytes.
    Width(usize),
}

impl Rule {
    /// Whether a value obeys.
    pub(in crate::signature) fn admits(self, value: &[u8]) -> bool {
        match self {
            Rule::Free => true,
            Rule::Without(byte) => !value.contains(&byte),
            Rule::Width(bytes) => value.len() == bytes,
        }
    }
}

/// What a scheme says about the values of its message.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::signature) struct Given {
    /// How the timestamp is written.
    pub(in crate::signature) unit: Option<Unit>,
    /// The fixed length of the id.
    pub(in crate::signature) id_bytes: Option<usize>,
}

/// What a value meets on the side on which its end is sought.
#[derive(Clone, Copy)]
enum End {
    OfMessage,
    Byte(u8),
    Unknown,
}

/// From which side the parts are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Left,
    Right,
}

/// Finds the rule of each part, or why none can help.
pub(super) fn judge(mut parts: Vec<Part>, given: Given) -> Result<Template, SchemeError> {
    optional_parts_show(&parts)?;
    let Some(at) = parts.iter().position(|part| *part == Part::Body) else {
        let strict = parts.contains(&Part::BodySha256);
        return Ok(Template::of(without_body(parts, given, strict)?, false, Vec::new()));
    };
    let behind = parts.split_off(at).split_off(1);
    let mut end = End::Unknown;
    let mut head = Vec::with_capacity(parts.len());
    for part in parts.into_iter().rev() {
        head.push(piece(&part, end, From::Left, given)?);
        end = first(&part, given);
    }
    head.reverse();
    let mut end = End::Unknown;
    let mut tail = Vec::with_capacity(behind.len());
    for part in behind {
        if matches!(part, Part::Optional { .. }) {
            return Err(refuse(
                "an optional part stands behind the body",
                "put it before the body",
            ));
        }
        tail.push(piece(&part, end, From::Right, given)?);
        end = last(&part);
    }
    Ok(Template::of(head, true, tail))
}

/// The pieces of a message that ends where it ends. What the configuration gives at its end is known, so that the value
/// before that ends there.
fn without_body(parts: Vec<Part>, given: Given, strict: bool) -> Result<Vec<Piece>, SchemeError> {
    let mut end = End::OfMessage;
    let mut judged = Vec::with_capacity(parts.len());
    for part in parts.into_iter().rev() {
        let next = match (&part, end) {
            (Part::Config(_) | Part::Secret, End::OfMessage) => End::OfMessage,
            _ => first(&part, given),
        };
        judged.push((piece(&part, end, From::Left, given), part));
        end = next;
    }
    let mut is_certain = true;
    let mut pieces = Vec::with_capacity(judged.len());
    for (piece, part) in judged.into_iter().rev() {
        is_certain &= piece.is_ok();
        let must_be = strict || matches!(part, Part::Id | Part::Timestamp);
        match piece {
            Ok(piece) if is_certain => pieces.push(piece),
            Ok(_) if must_be => return Err(ambiguous(&part)),
            Err(problem) if must_be => return Err(problem),
            _ => pieces.push(Piece {
                part,
                rule: Rule::Free,
                is_certain: false,
            }),
        }
    }
    Ok(pieces)
}

fn piece(part: &Part, end: End, from: From, given: Given) -> Result<Piece, SchemeError> {
    let rule = match part {
        Part::Timestamp => timestamp_rule(end, from, given.unit),
        Part::Id => given.id_bytes.map(Rule::Width).or_else(|| value_rule(end)),
        Part::Value(_) => value_rule(end),
        Part::SortedForm => Some(Rule::Free).filter(|_| matches!(end, End::OfMessage)),
        Part::Optional { after, .. } => after.first().map(|byte| Rule::Without(*byte)),
        Part::BodySha256 => Some(Rule::Width(64)),
        // The methods that are taken are neither a beginning nor an end of each other.
        Part::Literal(_) | Part::Config(_) | Part::Secret | Part::Method | Part::Body => Some(Rule::Free),
    };
    let rule = rule.ok_or_else(|| ambiguous(part))?;
    Ok(Piece {
        part: part.clone(),
        rule,
        is_certain: true,
    })
}

fn ambiguous(part: &Part) -> SchemeError {
    refuse(
        format!("nothing tells where {part} ends, so that one signature fits several readings"),
        "put literal text between placeholders, as in {id}.{timestamp}.{body}, or give the id a `length`",
    )
}

fn value_rule(end: End) -> Option<Rule> {
    match end {
        End::OfMessage => Some(Rule::Free),
        End::Byte(byte) => Some(Rule::Without(byte)),
        End::Unknown => None,
    }
}

fn timestamp_rule(end: End, from: From, unit: Option<Unit>) -> Option<Rule> {
    let Some(digits) = unit.map_or(Some(0), Unit::digits) else {
        // A time with a zone ends itself, on either side. One without has its fraction at the right.
        let ends_itself = matches!(unit, Some(Unit::Rfc3339 | Unit::HttpDate)) || from == From::Right;
        return match end {
            End::OfMessage => Some(Rule::Free),
            End::Byte(byte) if !byte.is_ascii_digit() && byte != b'.' => Some(Rule::Free),
            End::Byte(_) | End::Unknown => Some(Rule::Free).filter(|_| ends_itself),
        };
    };
    match end {
        End::OfMessage => Some(Rule::Free),
        End::Byte(byte) if !byte.is_ascii_digit() => Some(Rule::Free),
        End::Byte(_) | End::Unknown => Some(Rule::Width(digits)),
    }
}

fn first(part: &Part, given: Given) -> End {
    match part {
        Part::Literal(text) => text.first().map_or(End::Unknown, |byte| End::Byte(*byte)),
        // A date has its first colon at one place, so that what stands before it ends there if it has none.
        Part::Timestamp if given.unit.is_some_and(|unit| unit.digits().is_none()) => End::Byte(b':'),
        _ => End::Unknown,
    }
}

fn last(part: &Part) -> End {
    match part {
        Part::Literal(text) => text.last().map_or(End::Unknown, |byte| End::Byte(*byte)),
        _ => End::Unknown,
    }
}

/// Whether an optional part is there has to show at its first byte: what follows it begins with another one.
fn optional_parts_show(parts: &[Part]) -> Result<(), SchemeError> {
    let hidden = |part: &Part| {
        let problem = format!("nothing shows whether {part} is there");
        Err(refuse(problem, "begin it with text that nothing behind it begins with"))
    };
    for (at, part) in parts.iter().enumerate() {
        let Part::Optional { before, .. } = part else { continue };
        let mut rest = parts.iter().skip(at.saturating_add(1));
        loop {
            match rest.next() {
                Some(Part::Optional { before: other, .. }) if other.first() != before.first() => {}
                Some(Part::Literal(text)) if text.first() != before.first() => break,
                None => break,
                Some(_) => return hidden(part),
            }
        }
    }
    Ok(())
}
