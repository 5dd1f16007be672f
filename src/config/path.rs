//! Where in a configuration something stands: `routes[0].secrets[1].file`.
//!
//! Paths are made by whoever finds a problem and printed with it. Keys come from the file, so they are printed
//! escaped and cut short: a path is one line of a terminal whatever a file holds.

use std::fmt;

use super::value::quoted;

/// The way from the top of the file to a key or a list item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyPath(Vec<Segment>);

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// The top of the file.
    pub fn root() -> Self {
        KeyPath::default()
    }

    /// The value of `key` below this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Segment::Key(key.to_owned()))
    }

    /// The list item `index` below this one, counted from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Segment::Index(index))
    }

    pub(crate) fn step(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        KeyPath(segments)
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// One step up; `None` at the top.
    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(KeyPath(above.to_vec()))
    }

    /// This path and those above it, the longest first.
    pub(crate) fn upwards(&self) -> impl Iterator<Item = KeyPath> {
        std::iter::successors(Some(self.clone()), KeyPath::parent)
    }

    /// The first `steps` of this path.
    pub(crate) fn cut(&self, steps: usize) -> Self {
        KeyPath(self.0.iter().take(steps).cloned().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if !is_plain(key) => write!(f, "[{}]", quoted(key))?,
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// Whether a key can stand in a path without quotes.
fn is_plain(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.len() <= 64 && key.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_would_be_typed() {
        // A path that names another place sends the operator to the wrong line.
        let path = KeyPath::root()
            .key("routes")
            .index(0)
            .key("secrets")
            .index(1)
            .key("file");
        assert_eq!(path.to_string(), "routes[0].secrets[1].file");
        assert_eq!(KeyPath::root().to_string(), "");
        assert_eq!(path.upwards().count(), 6);
    }

    #[test]
    fn odd_keys_cannot_write_to_the_terminal() {
        // A key with an escape sequence could repaint the screen of whoever checks the file.
        let odd = KeyPath::root().key("schemes").key("a.b").key("\u{1b}[2J");
        assert_eq!(odd.to_string(), r#"schemes["a.b"]["\u{1b}[2J"]"#);
        let long = KeyPath::root().key(&"x".repeat(5000));
        assert!(long.to_string().len() < 100);
    }
}
