//! What is wrong with a configuration: every problem at once, each with line, key path and a suggestion.
//!
//! `load` records what cannot be read and `build` what cannot run, into the same [`Problems`]. Whoever records gives
//! the place in the [`File`](super::File) it holds; the line and the place in the text are filled in here, also when
//! earlier list items were left out. Printed by `hookward check` and at start.
//!
//! A report is copied into tickets and chats. Whatever stands inside a secret is therefore never printed, not even
//! as a key: `secrets: [{whsec_...}]` is a map with the secret as its key.

use std::fmt;

use super::document::Document;
use super::path::{KeyPath, Segment};
use super::yaml::{FINDINGS_MAX, Finding};

/// After so many nobody looks for more; nobody mends more in one go.
pub(crate) const PROBLEMS_MAX: usize = FINDINGS_MAX;

/// The keys of a secret that may be printed in a path.
const SECRET_KEYS: [&str; 5] = ["env", "file", "value", "id", "until"];

/// Whether a configuration with this problem may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It must not.
    Error,
    /// It may, but somebody should know.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    severity: Severity,
    line: Option<usize>,
    path: KeyPath,
    message: String,
    suggestion: Option<String>,
}

impl Problem {
    /// Adds what the user could do about it.
    pub fn suggest(&mut self, suggestion: impl Into<String>) -> &mut Self {
        self.suggestion = Some(one_line(&suggestion.into()));
        self
    }

    /// Whether it stops the start.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The line in the file, counted from 1; `None` when the file could not be read at all.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The place in the file.
    pub fn path(&self) -> &KeyPath {
        &self.path
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the user could do about it.
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }
}

/// All problems of one file. `Display` sorts them by line and ends with their number; it prints nothing when there
/// are none.
pub struct Problems {
    file: String,
    list: Vec<Problem>,
    /// Nobody looked further after these.
    more: bool,
    document: Document,
}

impl Problems {
    /// No problems yet. `file` is printed before each line number.
    pub(crate) fn of(file: &str) -> Self {
        Problems {
            file: file.to_owned(),
            list: Vec::new(),
            more: false,
            document: Document::default(),
        }
    }

    /// Takes over what was found while reading, and the tree to find lines in.
    pub(crate) fn of_document(file: &str, document: Document, findings: Vec<Finding>) -> Self {
        let more = findings.len() >= PROBLEMS_MAX;
        let list = findings.into_iter().map(|finding| Problem {
            severity: Severity::Error,
            line: Some(finding.line),
            path: shown(finding.path),
            message: one_line(&finding.message),
            suggestion: finding.suggestion.map(str::to_owned),
        });
        Problems {
            file: file.to_owned(),
            list: list.collect(),
            more,
            document,
        }
    }

    /// Records what stops the start. `path` is a place in the [`File`](super::File); the line is that of the nearest
    /// key which is there. `message` must not hold a secret.
    pub fn error(&mut self, path: &KeyPath, message: impl Into<String>) -> &mut Problem {
        self.record(Severity::Error, path, message.into())
    }

    /// Records what somebody should know.
    pub fn warning(&mut self, path: &KeyPath, message: impl Into<String>) -> &mut Problem {
        self.record(Severity::Warning, path, message.into())
    }

    /// Whether something stood at `path`, or around it, that could not be read and is reported already. What refers
    /// to it needs no second problem.
    pub fn left_out(&self, path: &KeyPath) -> bool {
        self.document.was_dropped(path)
    }

    /// The problems in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// Whether any problem stops the start.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether so many are recorded that looking further is no use. `Display` says that there may be more.
    pub(crate) fn is_full(&mut self) -> bool {
        self.more |= self.list.len() >= PROBLEMS_MAX;
        self.more
    }

    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    pub(crate) fn document_mut(&mut self) -> &mut Document {
        &mut self.document
    }

    #[allow(clippy::indexing_slicing, reason = "what was pushed just now")]
    fn record(&mut self, severity: Severity, path: &KeyPath, message: String) -> &mut Problem {
        let (place, line) = self.document.locate(path);
        let problem = Problem {
            severity,
            line,
            path: shown(place),
            message: one_line(&message),
            suggestion: None,
        };
        let at = self.list.len();
        self.list.push(problem);
        &mut self.list[at]
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|problem| problem.severity == severity).count()
    }
}

/// Leaves out the tree, which holds the secrets that are written into the file.
impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut problems = f.debug_struct("Problems");
        problems
            .field("file", &self.file)
            .field("list", &self.list)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Problem> = self.list.iter().collect();
        sorted.sort_by_key(|problem| problem.line);
        for problem in sorted {
            writeln!(f, "{}{problem}", self.file)?;
        }
        let errors = counted(self.count(Severity::Error), "problem");
        let warnings = counted(self.count(Severity::Warning), "warning");
        let more = self.more.then(|| "perhaps more".to_owned());
        let counts: Vec<String> = [errors, warnings, more].into_iter().flatten().collect();
        if !counts.is_empty() {
            writeln!(f, "{}", counts.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `:14: routes[0].limits.rate: what is wrong; what to do`, to be put behind the name of a file.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.segments().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// The part of a path that may be printed: up to the first key inside of `secrets` that is not one of a secret's.
fn shown(path: KeyPath) -> KeyPath {
    let segments = path.segments();
    let Some(secrets) = segments.iter().position(|s| *s == Segment::Key("secrets".to_owned())) else {
        return path;
    };
    let hidden = |segment: &Segment| matches!(segment, Segment::Key(key) if !SECRET_KEYS.contains(&key.as_str()));
    let inside = secrets.saturating_add(1);
    match segments.iter().skip(inside).position(hidden) {
        Some(at) => path.cut(inside.saturating_add(at)),
        None => path,
    }
}

/// Messages of others quote values of the file, which may hold anything.
fn one_line(message: &str) -> String {
    const CHARS_MAX: usize = 400;
    let mut line = String::new();
    for c in message.chars().take(CHARS_MAX) {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// `2 problems`; nothing for none.
fn counted(n: usize, noun: &str) -> Option<String> {
    match n {
        0 => None,
        1 => Some(format!("1 {noun}")),
        n => Some(format!("{n} {noun}s")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    fn problems(text: &str) -> Problems {
        let (document, findings) = yaml::read(text);
        Problems::of_document("conf.yaml", document, findings)
    }

    #[test]
    fn problems_are_told_in_the_order_of_the_file() {
        // Whoever mends a file goes through it once.
        let mut problems = problems("a: 1\nb: 2\nc: { d: 3 }\n");
        let top = KeyPath::root();
        problems.error(&top.key("c").key("d"), "third");
        problems.warning(&top.key("b"), "second").suggest("leave it");
        problems.error(&top.key("a"), "first");
        problems.error(&top.key("c").key("e").key("f"), "fourth");
        let lines: Vec<Option<usize>> = problems.iter().map(Problem::line).collect();
        assert_eq!(lines, [Some(3), Some(2), Some(1), Some(3)]);
        let expected = "conf.yaml:1: a: first\nconf.yaml:2: warning: b: second; leave it\nconf.yaml:3: c.d: third\n\
                        conf.yaml:3: c.e.f: fourth\n3 problems, 1 warning\n";
        assert_eq!(problems.to_string(), expected);
    }

    #[test]
    fn what_stands_inside_a_secret_is_no_part_of_a_path() {
        // A secret typed where a key belongs would be printed with the problem it makes.
        let secrets = KeyPath::root().key("routes").index(0).key("secrets");
        let table = [
            (secrets.clone(), "routes[0].secrets"),
            (secrets.key("hunter2"), "routes[0].secrets"),
            (secrets.index(1), "routes[0].secrets[1]"),
            (secrets.index(1).key("until"), "routes[0].secrets[1].until"),
            (secrets.index(1).key("hunter2"), "routes[0].secrets[1]"),
            (
                secrets.index(1).key("value").key("hunter2"),
                "routes[0].secrets[1].value",
            ),
            (KeyPath::root().key("routes").index(0).key("path"), "routes[0].path"),
        ];
        for (path, told) in table {
            let mut problems = problems("a: 1\n");
            assert_eq!(problems.error(&path, "wrong").path().to_string(), told);
        }
    }

    #[test]
    fn a_message_is_one_short_line() {
        // A value with line ends or escapes would forge or hide the problems around it.
        let mut problems = problems("a: 1\n");
        let told = problems.error(&KeyPath::root(), format!("\u{1b}[2J\n\u{85}{}", "x".repeat(5000)));
        assert!(told.message().starts_with("\\u{1b}[2J\\n\\u{85}x"));
        assert!(told.message().len() < 500);
        assert_eq!(problems.to_string().lines().count(), 2);
    }
}
