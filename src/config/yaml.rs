//! The text of a configuration read into a [`Document`].
//!
//! YAML has many ways to say more than is seen: anchors that expand without bound, tags that change types, the same
//! key twice, keys left empty. None of them is needed in a configuration, so each is a [`Finding`], and what it stood
//! on is left out. What remains is maps with text keys, lists and scalars of the YAML 1.2 core schema, of bounded
//! depth. Text that is not YAML ends the reading.
//!
//! No value is ever quoted here: it may be a secret. The parser's crate is named in this file alone.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_yaml::Number;

use super::document::{Document, Kind, Node};
use super::path::KeyPath;

/// A deeper nesting is no configuration.
const DEPTH_MAX: usize = 32;

/// After so many findings the rest is not read.
pub(crate) const FINDINGS_MAX: usize = 100;

/// Something that cannot be read. `path` and `line` are those of the file.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) path: KeyPath,
    pub(crate) line: usize,
    pub(crate) message: String,
    pub(crate) suggestion: Option<&'static str>,
}

/// Reads one document.
pub(crate) fn read(text: &str) -> (Document, Vec<Finding>) {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        findings: Vec::new(),
        dropped: HashSet::new(),
        here: KeyPath::root(),
    };
    let root = reader.document().unwrap_or(None);
    (Document::new(root, reader.dropped), reader.findings)
}

/// The rest of the text cannot be read; the finding that says why is recorded.
struct Stopped;

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    findings: Vec<Finding>,
    dropped: HashSet<KeyPath>,
    here: KeyPath,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Option<Node>, Stopped> {
        let mut root = None;
        let mut documents = 0_u32;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                Event::DocumentStart(_) => documents = documents.saturating_add(1),
                _ if documents > 1 => {
                    self.find(
                        &span,
                        "a second document begins here",
                        Some("keep one document in a file"),
                    )?;
                    return Err(Stopped);
                }
                event => root = self.node(event, &span, 0)?,
            }
        }
        if root.is_none() && self.findings.is_empty() {
            self.findings.push(Finding {
                path: KeyPath::root(),
                line: 1,
                message: "nothing is configured here".to_owned(),
                suggestion: Some("begin with conf/quickstart.yaml"),
            });
        }
        Ok(root)
    }

    /// Reads the node that `event` begins. `None`: it was left out.
    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Option<Node>, Stopped> {
        if depth > DEPTH_MAX {
            self.find(span, &format!("more than {DEPTH_MAX} levels deep"), None)?;
            return Err(Stopped);
        }
        let line = span.start.line();
        let (kind, anchored, tagged) = match event {
            Event::Alias(_) => return self.leave_out(span, "aliases are not supported", "write the value again"),
            Event::Scalar(text, style, anchor, tag) => match scalar(&text, style) {
                Some(kind) => (kind, anchor != 0, tag.is_some()),
                None if depth == 0 => return Ok(None),
                None => return self.leave_out(span, "has no value", "give it one, or remove it"),
            },
            Event::SequenceStart(anchor, tag) => (Kind::List(self.items(depth)?), anchor != 0, tag.is_some()),
            Event::MappingStart(anchor, tag) => (Kind::Map(self.entries(depth)?), anchor != 0, tag.is_some()),
            _ => return Err(Stopped),
        };
        if anchored {
            return self.leave_out(
                span,
                "anchors are not supported",
                "remove the &, or put quotes around the value",
            );
        }
        if tagged {
            return self.leave_out(
                span,
                "tags are not supported",
                "remove the !, or put quotes around the value",
            );
        }
        Ok(Some(Node::new(line, kind)))
    }

    fn items(&mut self, depth: usize) -> Result<Vec<(usize, Node)>, Stopped> {
        let mut items = Vec::new();
        let list = self.here.clone();
        for index in 0.. {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            self.here = list.index(index);
            if let Some(node) = self.node(event, &span, depth.saturating_add(1))? {
                items.push((index, node));
            }
        }
        self.here = list;
        Ok(items)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(String, Node)>, Stopped> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut lines = HashMap::new();
        let map = self.here.clone();
        loop {
            self.here = map.clone();
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(key, _, 0, None) => key.into_owned(),
                _ => {
                    self.find(
                        &span,
                        "a key is plain text",
                        Some("remove aliases, anchors, tags and brackets from it"),
                    )?;
                    return Err(Stopped);
                }
            };
            let key_line = span.start.line();
            self.here = map.key(&key);
            let (event, value_span) = self.next()?;
            let first = lines.get(&key).copied();
            if let Some(first) = first {
                let message = format!("the same key again; it is in line {first} already");
                self.find(&span, &message, Some("keep one of them"))?;
            }
            // An empty value stands where the parser found the next token; its key is what the reader looks for.
            let value_span = if value_span.is_empty() { span } else { value_span };
            let node = self.node(event, &value_span, depth.saturating_add(1))?;
            if first.is_some() {
                continue;
            }
            lines.insert(key.clone(), key_line);
            if let Some(node) = node {
                entries.push((key, node.in_line(key_line)));
            }
        }
        Ok(entries)
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stopped> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                self.findings.push(syntax(&error));
                Err(Stopped)
            }
            None => Err(Stopped),
        }
    }

    fn find(&mut self, span: &Span, message: &str, suggestion: Option<&'static str>) -> Result<(), Stopped> {
        if self.findings.len() >= FINDINGS_MAX {
            return Err(Stopped);
        }
        self.findings.push(Finding {
            path: self.here.clone(),
            line: span.start.line(),
            message: message.to_owned(),
            suggestion,
        });
        Ok(())
    }

    fn leave_out(&mut self, span: &Span, message: &str, mend: &'static str) -> Result<Option<Node>, Stopped> {
        self.find(span, message, Some(mend))?;
        self.dropped.insert(self.here.clone());
        Ok(None)
    }
}

/// A scalar by the YAML 1.2 core schema; `None` is null. Numbers with leading zeros, hexadecimal and octal ones are
/// text, as no two readers agree on them; so are whole numbers beyond 64 bits.
fn scalar(text: &str, style: ScalarStyle) -> Option<Kind> {
    if style != ScalarStyle::Plain {
        return Some(Kind::Text(text.to_owned()));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => None,
        "true" | "True" | "TRUE" => Some(Kind::Bool(true)),
        "false" | "False" | "FALSE" => Some(Kind::Bool(false)),
        text => Some(number(text).map_or_else(|| Kind::Text(text.to_owned()), Kind::Number)),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut bytes = digits.bytes();
    let first = bytes.next()?;
    let second = bytes.next();
    let zeros = first == b'0' && second.is_some_and(|b| b.is_ascii_digit());
    let shape = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    if zeros || !(first.is_ascii_digit() || first == b'.') || !digits.bytes().all(shape) {
        return None;
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<f64>().ok().map(Number::from)
}

/// A syntax error in words that help. The scanner's own words carry no text of the file but single characters.
fn syntax(error: &ScanError) -> Finding {
    let suggestion = match error.info() {
        info if info.contains("tab") => Some("indent with spaces"),
        info if info.contains("mapping values are not allowed") => Some("put quotes around a value that holds \": \""),
        info if info.contains("unknown anchor") => Some("put quotes around a value that begins with *"),
        info if info.contains("unexpected character") => Some("put quotes around a value that begins with @ or `"),
        info if info.contains("quoted scalar") => Some("close the quotes"),
        info if info.contains("simple key") => Some("write a colon and a space behind a key"),
        info if info.contains("block mapping") => Some("put keys of one group at one indentation"),
        info if info.contains("flow") || info.contains("':'") => {
            Some("close every [ and {, with commas between the items")
        }
        _ => None,
    };
    let column = error.marker().col().saturating_add(1);
    Finding {
        path: KeyPath::root(),
        line: error.marker().line(),
        message: format!("not YAML, at column {column}: {}", error.info()),
        suggestion,
    }
}

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::*;

    #[test]
    fn plain_words_mean_what_yaml_1_2_says() {
        // The Norway problem: a word that silently becomes a truth value, or a secret that becomes a number.
        let table = [
            ("true", Value::Bool(true)),
            ("FALSE", Value::Bool(false)),
            ("yes", Value::from("yes")),
            ("no", Value::from("no")),
            ("on", Value::from("on")),
            ("off", Value::from("off")),
            ("12", Value::from(12_u64)),
            ("-12", Value::from(-12_i64)),
            ("+12", Value::from(12_u64)),
            ("0", Value::from(0_u64)),
            ("012", Value::from("012")),
            ("0x1F", Value::from("0x1F")),
            ("0o17", Value::from("0o17")),
            ("1_000", Value::from("1_000")),
            ("1.5", Value::from(1.5)),
            (".5", Value::from(0.5)),
            ("1e3", Value::from(1000.0)),
            ("e3", Value::from("e3")),
            ("1-2", Value::from("1-2")),
            ("18446744073709551615", Value::from(u64::MAX)),
            ("18446744073709551616", Value::from("18446744073709551616")),
            ("12:30", Value::from("12:30")),
            ("2026-12-31", Value::from("2026-12-31")),
            (".inf", Value::from(".inf")),
            (".nan", Value::from(".nan")),
            ("'true'", Value::from("true")),
            ("\"~\"", Value::from("~")),
            ("\"\"", Value::from("")),
            ("|-\n  12", Value::from("12")),
        ];
        for (text, value) in table {
            let (document, findings) = read(&format!("key: {text}\n"));
            assert!(findings.is_empty(), "{text}: {findings:?}");
            assert_eq!(document.value().unwrap()["key"], value, "{text}");
        }
        for null in ["", "~", "null", "Null", "NULL"] {
            let (document, findings) = read(&format!("key: {null}\n"));
            assert_eq!(
                (findings.len(), document.node(&KeyPath::root().key("key")).is_none()),
                (1, true),
                "{null}"
            );
        }
    }

    #[test]
    fn nothing_expands_or_nests_without_bound() {
        // A few lines of aliases or brackets would take all memory or the stack.
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let item = format!("*a{}, ", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", item.repeat(9)));
        }
        let (document, findings) = read(&bomb);
        assert_eq!(findings.len(), FINDINGS_MAX);
        assert!(document.value().is_none());
        for deep in [
            "[".repeat(100_000),
            "- ".repeat(100_000),
            "{a: ".repeat(100_000),
            "? ".repeat(100_000),
        ] {
            let (document, findings) = read(&deep);
            assert_eq!((findings.len(), document.value().is_none()), (1, true));
        }
    }
}
