//! What a provider signs, as a template: `v0:{timestamp}:{body}`.
//!
//! Parsed once at start, written into the MACs of every request. Besides the syntax it holds the rules that keep the
//! signed bytes unambiguous. HMAC proves a string, not its parts: if an id may contain the delimiter behind it, a
//! captured `id.timestamp.body` can be cut elsewhere, so that a part of the body passes for a fresh timestamp or
//! for an id never seen, under the provider's own signature. Standard Webhooks says the same of its full stops
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! So the parts before the body can always be told apart from the left and those behind it from the right: an id must
//! not contain the character that ends it, a timestamp that touches something that may begin with a digit has a fixed
//! number of digits, and a template that no such rule can save is refused at start.

/// Longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 1024;

/// What is known about a message before its body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Values<'h> {
    /// The timestamp's own text.
    pub(crate) timestamp: &'h [u8],
    /// The id's own text.
    pub(crate) id: &'h [u8],
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    head: Vec<Part>,
    has_body: bool,
    tail: Vec<Part>,
    timestamp: Option<TimestampRule>,
    id: Option<IdRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Timestamp,
    Id,
    Body,
}

/// What else a signed timestamp must obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimestampRule {
    /// A neighbour that is no digit ends it.
    AnyWidth,
    /// Nothing ends it, so its width is fixed.
    FixedWidth,
}

/// What else a signed id must obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdRule {
    /// It ends with the message.
    Free,
    /// It must not contain the byte that ends it.
    Without(u8),
}

/// Why a template is refused: what is wrong, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TemplateError {
    pub(crate) problem: String,
    pub(crate) suggestion: &'static str,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            let problem = format!("longer than {TEMPLATE_BYTES_MAX} bytes");
            return Err(refuse(problem, "shorten the literal text"));
        }
        let mut head = split(text)?;
        for (part, name) in [(Part::Timestamp, "timestamp"), (Part::Id, "id"), (Part::Body, "body")] {
            if head.iter().filter(|p| **p == part).count() > 1 {
                return Err(refuse(format!("{{{name}}} occurs twice"), "use each placeholder once"));
            }
        }
        if head.iter().all(|part| matches!(part, Part::Literal(_))) {
            let problem = "nothing of the request is signed";
            return Err(refuse(problem, "a message usually ends with {body}"));
        }
        let mut template = match head.iter().position(|part| *part == Part::Body) {
            Some(at) => {
                let tail = head.split_off(at).split_off(1);
                Template::of(head, true, tail)
            }
            None => Template::of(head, false, Vec::new()),
        };
        template.set_rules()?;
        Ok(template)
    }

    fn of(head: Vec<Part>, has_body: bool, tail: Vec<Part>) -> Template {
        Template {
            head,
            has_body,
            tail,
            timestamp: None,
            id: None,
        }
    }

    /// Finds for each value what ends it: its right neighbour before the body, its left neighbour behind it.
    fn set_rules(&mut self) -> Result<(), TemplateError> {
        let (mut timestamp, mut id) = (None, None);
        let mut rule = |part: &Part, end: End| -> Result<(), TemplateError> {
            match part {
                Part::Timestamp => timestamp = Some(timestamp_rule(end)),
                Part::Id => id = Some(id_rule(end)?),
                Part::Literal(_) | Part::Body => {}
            }
            Ok(())
        };
        let mut end = if self.has_body { End::Unknown } else { End::OfMessage };
        for part in self.head.iter().rev() {
            rule(part, end)?;
            end = part.first();
        }
        let mut end = End::Unknown;
        for part in &self.tail {
            rule(part, end)?;
            end = part.last();
        }
        (self.timestamp, self.id) = (timestamp, id);
        Ok(())
    }

    /// Whether the body is a part of what is signed.
    pub(crate) fn has_body(&self) -> bool {
        self.has_body
    }

    /// The rule for the timestamp, if there is one in the message.
    pub(crate) fn timestamp(&self) -> Option<TimestampRule> {
        self.timestamp
    }

    /// The rule for the id, if there is one in the message.
    pub(crate) fn id(&self) -> Option<IdRule> {
        self.id
    }

    /// Hands everything before the body to `sink`, in order.
    pub(crate) fn write_head(&self, values: Values<'_>, sink: impl FnMut(&[u8])) {
        write(&self.head, values, sink);
    }

    /// Hands everything behind the body to `sink`, in order.
    pub(crate) fn write_tail(&self, values: Values<'_>, sink: impl FnMut(&[u8])) {
        write(&self.tail, values, sink);
    }
}

fn write(parts: &[Part], values: Values<'_>, mut sink: impl FnMut(&[u8])) {
    for part in parts {
        match part {
            Part::Literal(text) => sink(text),
            Part::Timestamp => sink(values.timestamp),
            Part::Id => sink(values.id),
            // Streamed by the caller; parsing leaves none in the head or the tail.
            Part::Body => {}
        }
    }
}

/// What a value meets on the side from which its end is sought.
#[derive(Clone, Copy)]
enum End {
    OfMessage,
    Byte(u8),
    Unknown,
}

impl Part {
    fn first(&self) -> End {
        match self {
            Part::Literal(text) => text.first().map_or(End::Unknown, |byte| End::Byte(*byte)),
            Part::Timestamp | Part::Id | Part::Body => End::Unknown,
        }
    }

    fn last(&self) -> End {
        match self {
            Part::Literal(text) => text.last().map_or(End::Unknown, |byte| End::Byte(*byte)),
            Part::Timestamp | Part::Id | Part::Body => End::Unknown,
        }
    }
}

fn timestamp_rule(end: End) -> TimestampRule {
    match end {
        End::OfMessage => TimestampRule::AnyWidth,
        End::Byte(byte) if !byte.is_ascii_digit() => TimestampRule::AnyWidth,
        End::Byte(_) | End::Unknown => TimestampRule::FixedWidth,
    }
}

fn id_rule(end: End) -> Result<IdRule, TemplateError> {
    match end {
        End::OfMessage => Ok(IdRule::Free),
        End::Byte(byte) => Ok(IdRule::Without(byte)),
        End::Unknown => Err(refuse(
            "{id} touches another placeholder, so that one signature fits several readings",
            "put literal text between them, as in {id}.{timestamp}.{body}",
        )),
    }
}

/// Cuts a template's text into literals and placeholders; neighbouring literals become one.
fn split(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from_brace) = rest.split_at(at);
        literal.extend_from_slice(before.as_bytes());
        if let Some(after) = from_brace.strip_prefix("{{") {
            literal.push(b'{');
            rest = after;
        } else if let Some(after) = from_brace.strip_prefix("}}") {
            literal.push(b'}');
            rest = after;
        } else {
            let (name, after) = placeholder(from_brace)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(name);
            rest = after;
        }
    }
    literal.extend_from_slice(rest.as_bytes());
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn placeholder(from_brace: &str) -> Result<(Part, &str), TemplateError> {
    const KNOWN: &str = "the placeholders are {timestamp}, {id} and {body}";
    let inside = from_brace.strip_prefix('{').and_then(|text| text.split_once('}'));
    let Some((name, after)) = inside else {
        return Err(refuse("a brace stands alone", "write {{ or }} for a literal brace"));
    };
    let part = match name {
        "timestamp" => Part::Timestamp,
        "id" => Part::Id,
        "body" => Part::Body,
        _ => return Err(refuse(format!("there is no placeholder {{{name}}}"), KNOWN)),
    };
    Ok((part, after))
}

fn refuse(problem: impl Into<String>, suggestion: &'static str) -> TemplateError {
    TemplateError {
        problem: problem.into(),
        suggestion,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::signature::extract::read_id;
    use crate::signature::timestamp::Unit;

    fn rules(text: &str) -> Option<(Option<TimestampRule>, Option<IdRule>, bool)> {
        let template = Template::parse(text).ok()?;
        Some((template.timestamp(), template.id(), template.has_body()))
    }

    #[test]
    fn what_can_be_told_apart_is_accepted() {
        // A template that can be cut in two ways turns a part of the body into a fresh timestamp.
        use IdRule::{Free, Without};
        use TimestampRule::{AnyWidth, FixedWidth};
        let rows = [
            ("{body}", Some((None, None, true))),
            ("POST{body}", Some((None, None, true))),
            ("{timestamp}.{body}", Some((Some(AnyWidth), None, true))),
            ("v0:{timestamp}:{body}", Some((Some(AnyWidth), None, true))),
            ("{timestamp}{body}", Some((Some(FixedWidth), None, true))),
            ("{timestamp}0{body}", Some((Some(FixedWidth), None, true))),
            ("{body}{timestamp}", Some((Some(FixedWidth), None, true))),
            ("{body}.{timestamp}", Some((Some(AnyWidth), None, true))),
            ("{body}.0{timestamp}", Some((Some(FixedWidth), None, true))),
            (
                "{id}.{timestamp}.{body}",
                Some((Some(AnyWidth), Some(Without(b'.')), true)),
            ),
            (
                "{id}, {timestamp}{body}",
                Some((Some(FixedWidth), Some(Without(b',')), true)),
            ),
            (
                "{body}.{id}.{timestamp}",
                Some((Some(AnyWidth), Some(Without(b'.')), true)),
            ),
            ("{timestamp}{id}", Some((Some(FixedWidth), Some(Free), false))),
            ("{timestamp}", Some((Some(AnyWidth), None, false))),
            ("{{{body}}}", Some((None, None, true))),
            ("{id}{body}", None),
            ("{id}{timestamp}.{body}", None),
            ("{body}{id}", None),
            ("{id}{timestamp}", None),
            ("", None),
            ("constant", None),
            ("{{body}}", None),
            ("{body}{body}", None),
            ("{timestamp}.{timestamp}.{body}", None),
            ("{id}.{id}.{body}", None),
            ("{ts}.{body}", None),
            ("{Body}", None),
            ("{ body }", None),
            ("{}{body}", None),
            ("{body", None),
            ("body}", None),
            ("{body}}", None),
            ("{{body}", None),
        ];
        for (text, expected) in rows {
            assert_eq!(rules(text), expected, "{text:?}");
        }
        assert!(Template::parse(&("x".repeat(1018) + "{body}")).is_ok());
        assert!(Template::parse(&("x".repeat(1019) + "{body}")).is_err());
    }

    fn written(template: &Template, values: Values<'_>, body: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        template.write_head(values, |bytes| all.extend_from_slice(bytes));
        if template.has_body() {
            all.extend_from_slice(body);
        }
        template.write_tail(values, |bytes| all.extend_from_slice(bytes));
        all
    }

    #[test]
    fn braces_and_text_are_written_as_they_are() {
        // Signed bytes that differ from the provider's in one brace refuse everything.
        let template = Template::parse("{{a}}:{id}/{timestamp}:{body}}}z").unwrap();
        let values = Values {
            timestamp: b"12",
            id: b"x",
        };
        assert_eq!(written(&template, values, b"B"), b"{a}:x/12:B}z");
    }

    fn parts_of(template: &Template) -> Vec<Part> {
        let body = template.has_body.then_some(Part::Body);
        template
            .head
            .iter()
            .cloned()
            .chain(body)
            .chain(template.tail.iter().cloned())
            .collect()
    }

    /// In how many ways `text` can be cut into values that obey the rules, by trying every cut.
    fn readings(template: &Template, parts: &[Part], text: &[u8]) -> usize {
        let Some((part, rest)) = parts.split_first() else {
            return usize::from(text.is_empty());
        };
        if let Part::Literal(literal) = part {
            return text
                .strip_prefix(literal.as_slice())
                .map_or(0, |text| readings(template, rest, text));
        }
        let fits = |value: &[u8]| match part {
            Part::Id => read_id(template.id.unwrap(), value).is_some(),
            Part::Timestamp if template.timestamp == Some(TimestampRule::FixedWidth) => {
                value.len() == Unit::Seconds.digits() && Unit::Seconds.parse(value).is_some()
            }
            Part::Timestamp => Unit::Seconds.parse(value).is_some(),
            Part::Literal(_) | Part::Body => true,
        };
        (0..=text.len())
            .map(|at| text.split_at(at))
            .filter(|(value, _)| fits(value))
            .map(|(_, text)| readings(template, rest, text))
            .sum()
    }

    fn any_template() -> impl Strategy<Value = Template> {
        let literal = prop::sample::select(vec!["", ".", ":", "1", "a", ".1", "1.", "aa", "..", "{{"]);
        let places = prop::sample::subsequence(vec!["{timestamp}", "{id}", "{body}"], 1..=3).prop_shuffle();
        (places, vec(literal, 4)).prop_filter_map("refused", |(places, literals)| {
            let mut text = String::from(literals[3]);
            for (place, literal) in places.iter().zip(literals) {
                text.push_str(place);
                text.push_str(literal);
            }
            Template::parse(&text).ok()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        // One captured signature would fit a second id, time or body.
        #[test]
        fn signed_bytes_have_one_reading(
            template in any_template(),
            id in "[.:1a{]{1,6}",
            timestamp in "1[01]{9}",
            body in "[.:01a{]{0,8}",
            after in "(|[.:]1[01]{9}[.:1]?)",
        ) {
            let id = match template.id() {
                Some(IdRule::Without(byte)) => id.replace(char::from(byte), "b"),
                Some(IdRule::Free) | None => id,
            };
            let body = body + &after;
            let values = Values { timestamp: timestamp.as_bytes(), id: id.as_bytes() };
            let text = written(&template, values, body.as_bytes());
            prop_assert_eq!(readings(&template, &parts_of(&template), &text), 1);
        }
    }
}
