//! A configuration as a tree in which every node knows its line and its place in the file.
//!
//! Made by `yaml`; `load` reads the types from it, takes out what does not fit and reads again. List items keep the
//! index they had in the file, so that a problem found later is reported at the right place although its neighbours
//! are gone: in the paths taken here an index counts the items that are left, and [`Document::locate`] turns them
//! into those of the file.
//!
//! A tree may hold secrets: none of these types has a `Debug`.

use std::collections::HashSet;

use serde_yaml::{Mapping, Number, Value};

use super::path::{KeyPath, Segment};

/// A document without what its findings stood on.
#[derive(Default)]
pub(crate) struct Document {
    root: Option<Node>,
    /// Places in the file, not in the tree, that were left out.
    dropped: HashSet<KeyPath>,
}

/// A value and the line it begins in; for the value of a key, the line of the key.
pub(crate) struct Node {
    line: usize,
    pub(crate) kind: Kind,
    /// Not in the file: stands in for a missing key, after so many others.
    stand_in: Option<u8>,
}

/// What a node is.
pub(crate) enum Kind {
    Bool(bool),
    Number(Number),
    Text(String),
    /// Each item with its index in the file.
    List(Vec<(usize, Node)>),
    Map(Vec<(String, Node)>),
}

impl Document {
    /// A tree, and the places in the file that were left out of it.
    pub(crate) fn new(root: Option<Node>, dropped: HashSet<KeyPath>) -> Self {
        Document { root, dropped }
    }

    /// The tree as serde reads it; `None` when nothing is left.
    pub(crate) fn value(&self) -> Option<Value> {
        self.root.as_ref().map(Node::value)
    }

    /// The node at a place in the tree.
    pub(crate) fn node(&self, path: &KeyPath) -> Option<&Node> {
        let mut node = self.root.as_ref()?;
        for segment in path.segments() {
            node = node.child(segment)?.1;
        }
        Some(node)
    }

    /// The first place of a key, however deep; one in the same part of the file as `near` comes first.
    pub(crate) fn find(&self, key: &str, near: Option<&Segment>) -> Option<KeyPath> {
        let root = self.root.as_ref()?;
        let beside = near.and_then(|near| {
            let (step, node) = root.child(near)?;
            node.find(key, &KeyPath::root().step(step))
        });
        beside.or_else(|| root.find(key, &KeyPath::root()))
    }

    /// The place in the file of a place in the tree, and its line or that of the nearest node above it.
    pub(crate) fn locate(&self, path: &KeyPath) -> (KeyPath, Option<usize>) {
        let mut node = self.root.as_ref();
        let mut line = node.map(|node| node.line);
        let mut place = KeyPath::root();
        for segment in path.segments() {
            match node.and_then(|node| node.child(segment)) {
                Some((step, child)) => {
                    place = place.step(step);
                    line = Some(child.line);
                    node = Some(child);
                }
                None => {
                    place = place.step(segment.clone());
                    node = None;
                }
            }
        }
        (place, line)
    }

    /// Takes a node out of the tree.
    pub(crate) fn drop_node(&mut self, path: &KeyPath) {
        let (place, _) = self.locate(path);
        self.dropped.insert(place);
        match (path.parent(), path.segments().last()) {
            (Some(parent), Some(last)) => {
                if let Some(parent) = self.node_mut(&parent) {
                    parent.remove(last);
                }
            }
            _ => self.root = None,
        }
    }

    /// Puts something where a key is missing, so that reading goes on behind it. Called again for the same place it
    /// tries a value of another kind; false when there is none left.
    pub(crate) fn stand_in(&mut self, path: &KeyPath) -> bool {
        let (Some(parent), Some(Segment::Key(key))) = (path.parent(), path.segments().last()) else {
            return false;
        };
        let tries = self
            .node(path)
            .and_then(|node| node.stand_in)
            .map_or(0, |tries| tries.saturating_add(1));
        let kind = match tries {
            0 => Kind::Text("x".to_owned()),
            1 => Kind::List(Vec::new()),
            2 => Kind::Map(Vec::new()),
            3 => Kind::Number(1.into()),
            4 => Kind::Bool(false),
            _ => return false,
        };
        let Some(group) = self.node_mut(&parent) else {
            return false;
        };
        let line = group.line;
        group.remove(&Segment::Key(key.clone()));
        let Kind::Map(entries) = &mut group.kind else {
            return false;
        };
        let stand_in = Some(tries);
        entries.push((key.clone(), Node { line, kind, stand_in }));
        true
    }

    /// Whether the node at a place in the tree was put there by [`stand_in`](Self::stand_in).
    pub(crate) fn is_stand_in(&self, path: &KeyPath) -> bool {
        self.node(path).is_some_and(|node| node.stand_in.is_some())
    }

    /// Takes out every group in which something stands in for a missing key; false when there is none.
    pub(crate) fn drop_incomplete(&mut self) -> bool {
        let before = self.dropped.len();
        if let Some(mut root) = self.root.take() {
            let complete = root.sweep(&KeyPath::root(), &mut self.dropped);
            self.root = complete.then_some(root);
        }
        self.root.is_none() || self.dropped.len() > before
    }

    /// Whether a place in the tree, or one above it, was taken out.
    pub(crate) fn was_dropped(&self, path: &KeyPath) -> bool {
        let (place, _) = self.locate(path);
        place.upwards().any(|above| self.dropped.contains(&above))
    }

    fn node_mut(&mut self, path: &KeyPath) -> Option<&mut Node> {
        let mut node = self.root.as_mut()?;
        for segment in path.segments() {
            node = match (&mut node.kind, segment) {
                (Kind::Map(entries), Segment::Key(key)) => {
                    entries.iter_mut().find(|(have, _)| have == key).map(|e| &mut e.1)
                }
                (Kind::List(items), Segment::Index(at)) => items.get_mut(*at).map(|item| &mut item.1),
                _ => None,
            }?;
        }
        Some(node)
    }
}

impl Node {
    /// A node as the file has it.
    pub(crate) fn new(line: usize, kind: Kind) -> Self {
        let stand_in = None;
        Node { line, kind, stand_in }
    }

    /// The same value for a key in `line`.
    pub(crate) fn in_line(self, line: usize) -> Self {
        Node { line, ..self }
    }

    /// The node one step below, and that step as it is in the file.
    fn child(&self, segment: &Segment) -> Option<(Segment, &Node)> {
        match (&self.kind, segment) {
            (Kind::Map(entries), Segment::Key(key)) => {
                let (key, node) = entries.iter().find(|(have, _)| have == key)?;
                Some((Segment::Key(key.clone()), node))
            }
            (Kind::List(items), Segment::Index(at)) => {
                let (index, node) = items.get(*at)?;
                Some((Segment::Index(*index), node))
            }
            _ => None,
        }
    }

    fn find(&self, key: &str, here: &KeyPath) -> Option<KeyPath> {
        match &self.kind {
            Kind::Map(entries) if entries.iter().any(|(have, _)| have == key) => Some(here.key(key)),
            Kind::Map(entries) => entries.iter().find_map(|(have, node)| node.find(key, &here.key(have))),
            Kind::List(items) => items
                .iter()
                .find_map(|(index, node)| node.find(key, &here.index(*index))),
            _ => None,
        }
    }

    fn remove(&mut self, segment: &Segment) {
        match (&mut self.kind, segment) {
            (Kind::Map(entries), Segment::Key(key)) => entries.retain(|(have, _)| have != key),
            (Kind::List(items), Segment::Index(at)) if *at < items.len() => {
                items.remove(*at);
            }
            _ => {}
        }
    }

    /// Removes incomplete nodes below; whether this one is complete itself.
    fn sweep(&mut self, place: &KeyPath, dropped: &mut HashSet<KeyPath>) -> bool {
        let complete = match &mut self.kind {
            Kind::List(items) => {
                items.retain_mut(|(index, node)| node.sweep(&place.index(*index), dropped));
                true
            }
            Kind::Map(entries) => {
                let complete = entries.iter().all(|(_, node)| node.stand_in.is_none());
                entries.retain_mut(|(key, node)| node.sweep(&place.key(key), dropped));
                complete
            }
            _ => true,
        };
        if !complete {
            dropped.insert(place.clone());
        }
        complete
    }

    fn value(&self) -> Value {
        match &self.kind {
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(value) => Value::Number(value.clone()),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(items) => Value::Sequence(items.iter().map(|(_, node)| node.value()).collect()),
            Kind::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, node)| (Value::String(key.clone()), node.value()));
                Value::Mapping(entries.collect::<Mapping>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::read;
    use super::*;

    fn at(path: &[&str]) -> KeyPath {
        path.iter().fold(KeyPath::root(), |path, step| match step.parse() {
            Ok(index) => path.index(index),
            Err(_) => path.key(step),
        })
    }

    #[test]
    fn every_place_has_the_line_of_its_key() {
        // An operator is sent to the wrong line.
        let text = "# comment\n\na:\n\n  - b: |\n      text\n\n    c:\n      d\n  -\n    e: { f: 1,\n      g: 2 }\n";
        let (document, findings) = read(text);
        assert!(findings.is_empty(), "{findings:?}");
        let table: [(&[&str], usize); 9] = [
            (&[], 3),
            (&["a"], 3),
            (&["a", "0"], 5),
            (&["a", "0", "b"], 5),
            (&["a", "0", "c"], 8),
            (&["a", "1"], 11),
            (&["a", "1", "e", "f"], 11),
            (&["a", "1", "e", "g"], 12),
            (&["a", "0", "not", "there"], 5),
        ];
        for (path, line) in table {
            assert_eq!(document.locate(&at(path)).1, Some(line), "{path:?}");
        }
    }

    #[test]
    fn what_is_left_out_shifts_no_place() {
        // A problem of one route would be reported for its neighbour.
        let (mut document, _) = read("a: [x, ~, y, z]\n");
        assert_eq!(document.locate(&at(&["a", "1"])).0, at(&["a", "2"]));
        document.drop_node(&at(&["a", "0"]));
        assert_eq!(document.locate(&at(&["a", "0"])).0, at(&["a", "2"]));
        assert_eq!(document.locate(&at(&["a", "1"])).0, at(&["a", "3"]));
        assert!(!document.was_dropped(&at(&["a", "0"])));
    }

    #[test]
    fn groups_with_stand_ins_are_left_out() {
        // A made-up value would run.
        let (mut document, _) = read("a: [{ b: 1 }, { c: 2 }]\nd: { e: 3 }\n");
        assert!(document.stand_in(&at(&["a", "0", "x"])));
        assert!(document.is_stand_in(&at(&["a", "0", "x"])));
        assert!(document.stand_in(&at(&["d", "x"])));
        assert!(document.drop_incomplete());
        assert!(!document.drop_incomplete());
        assert!(document.was_dropped(&at(&["d", "e"])));
        let left: Value = serde_yaml::from_str("a: [{ c: 2 }]").unwrap();
        assert_eq!(document.value().unwrap(), left);
    }
}
