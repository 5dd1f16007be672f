//! Rust files as far as the rules need them read: code without comments, texts and tests.

use std::collections::BTreeSet;
use std::path::Path;

/// One file.
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub text: String,
    /// Declared as a module under `#[cfg(test)]`.
    pub is_test: bool,
    /// Lines without tests.
    pub lines: usize,
    /// What is left when comments, texts and tests are taken out.
    code: String,
}

/// Every file under `src/`.
pub fn read_all(root: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    paths.sort();
    let mut sources: Vec<Source> = paths.iter().map(|path| Source::read(root, path)).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(Source::test_files).collect();
    for source in &mut sources {
        source.is_test = tests.contains(&source.path);
    }
    sources
}

fn collect(folder: &Path, paths: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, paths),
            false => paths.extend(path.extension().is_some_and(|e| e == "rs").then_some(path)),
        }
    }
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let relative = path.strip_prefix(root).unwrap().components();
        let relative: Vec<_> = relative.map(|part| part.as_os_str().to_str().unwrap()).collect();
        Source::of(relative.join("/"), std::fs::read_to_string(path).unwrap())
    }

    fn of(path: String, text: String) -> Source {
        let (code, tests) = without_tests(blank(&text));
        Source {
            path,
            lines: text.lines().count() - tests,
            text,
            is_test: false,
            code,
        }
    }

    /// The module below the root that the file belongs to.
    pub fn room(&self) -> String {
        let inside = self.path.strip_prefix("src/").unwrap();
        let name = inside.split('/').next().unwrap();
        name.strip_suffix(".rs").unwrap_or(name).to_owned()
    }

    /// The step of the corridor that the file is.
    pub fn step(&self) -> Option<String> {
        let file = self.path.strip_prefix("src/gateway/")?;
        Some(file.strip_suffix(".rs")?.to_owned())
    }

    /// The rooms that the file names, by `crate::`, by `hookward::` or by climbing up with `super::`.
    pub fn rooms_named(&self) -> BTreeSet<String> {
        let depth = self.path.matches('/').count();
        let climb = "super::".repeat(depth);
        let mut named = BTreeSet::new();
        for start in ["crate::", "hookward::", &climb] {
            named.extend(self.after(start));
        }
        // The face of the library, its `open` aside, is nobody's to know; `self` is a `pub use` there.
        named.retain(|name| name.starts_with(char::is_lowercase) && !matches!(name.as_str(), "self" | "super"));
        named
    }

    /// What the file names of the modules beside it.
    pub fn siblings_named(&self) -> BTreeSet<String> {
        self.after("super::")
    }

    /// The names that follow `start`, those in braces included.
    fn after(&self, start: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (at, _) in self.code.match_indices(start) {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            let rest = &self.code[at + start.len()..];
            match rest.strip_prefix('{') {
                None => names.extend(
                    words(rest)
                        .next()
                        .filter(|word| rest.starts_with(word))
                        .map(str::to_owned),
                ),
                Some(group) => names.extend(group_heads(group)),
            }
        }
        names
    }

    /// Every word of the code.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        words(&self.code)
    }

    /// The names of the functions that the file defines and that no trait named before.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        let mut named = Vec::new();
        for (number, item) in self.code.split("\nimpl").enumerate() {
            let (head, block) = item.split_at(item.find('{').unwrap_or(item.len()));
            let of_trait = number > 0 && head.contains(" for ");
            let own = if of_trait { &block[item_length(block)..] } else { item };
            let words: Vec<&str> = words(own).collect();
            named.extend(words.windows(2).filter(|pair| pair[0] == "fn").map(|pair| pair[1]));
        }
        named.into_iter()
    }

    /// How often `what` stands in the code, not as a part of a longer name nor where only the compiler gets.
    pub fn count(&self, what: &str) -> usize {
        let code = self
            .code
            .replace("const _: () = assert!", "")
            .replace("const { assert!", "");
        let named = |c: char| c.is_alphanumeric() || c == '_';
        let longer = |at: usize| {
            let (before, after) = (&code[..at], &code[at + what.len()..]);
            (what.starts_with(named) && before.ends_with(named)) || (what.ends_with(named) && after.starts_with(named))
        };
        code.match_indices(what).filter(|(at, _)| !longer(*at)).count()
    }

    /// The files of the modules that are declared for tests alone.
    fn test_files(&self) -> Vec<String> {
        let folder = self.path.strip_suffix(".rs").unwrap();
        let folder = folder
            .strip_suffix("/lib")
            .or(folder.strip_suffix("/main"))
            .unwrap_or(folder);
        let declared = self.text.split("#[cfg(test)]\n").skip(1);
        let modules = declared.filter_map(|rest| rest.trim_start_matches("pub(crate) ").strip_prefix("mod "));
        let names = modules.filter_map(|rest| rest.split_once([';', ' ']));
        names.map(|(name, _)| format!("{folder}/{name}.rs")).collect()
    }
}

/// The parts of a name: `replay_store`, `ReplayStore` and `REPLAY_STORE` are `replay` and `store`.
pub fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut lower_before = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && lower_before) {
            parts.push(String::new());
        }
        lower_before = c.is_lowercase() || c.is_ascii_digit();
        if c != '_' {
            parts.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// The first names of the entries of a `{a::b, c::{d, e}, f}` whose brace is open already.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut entry) = (0, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut entry)),
            c => entry.push(c),
        }
    }
    heads.push(entry);
    let first = |entry: &String| words(entry.trim()).next().map(str::to_owned);
    heads.iter().filter_map(first).collect()
}

/// Blanks comments, texts and characters; every line stays where it was.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '"' => text_length(rest),
            'r' if is_raw_text(rest) && !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                raw_text_length(rest)
            }
            '\'' => char_length(rest),
            c => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        let (gone, left) = rest.split_at(length);
        code.push(' ');
        code.extend(gone.chars().filter(|c| *c == '\n'));
        rest = left;
    }
    code
}

fn text_length(rest: &str) -> usize {
    let mut escaped = true;
    for (at, c) in rest.char_indices() {
        match c {
            '"' if !escaped => return at + 1,
            '\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    rest.len()
}

fn is_raw_text(rest: &str) -> bool {
    rest[1..].trim_start_matches('#').starts_with('"') && !rest[1..].starts_with("##\"#")
}

fn raw_text_length(rest: &str) -> usize {
    let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = hashes + 2;
    rest[inside..]
        .find(&end)
        .map_or(rest.len(), |at| inside + at + end.len())
}

/// A character, or the tick of a lifetime.
fn char_length(rest: &str) -> usize {
    let mut inside = rest[1..].char_indices();
    match (inside.next(), inside.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let from = 1 + at + c.len_utf8();
            rest[from..].find('\'').map_or(1, |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 2,
        _ => 1,
    }
}

/// Takes out what stands under `#[cfg(test)]`; tells how many lines that were.
fn without_tests(code: String) -> (String, usize) {
    let (mut kept, mut lines) = (String::with_capacity(code.len()), 0);
    let mut rest = code.as_str();
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, tests) = rest.split_at(at);
        kept.push_str(before);
        let length = item_length(tests);
        lines += tests[..length].matches('\n').count() + 1;
        rest = &tests[length..];
    }
    kept.push_str(rest);
    (kept, lines)
}

/// Up to the `;` or the closing brace of the item at the beginning.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn code_is_told_from_texts_comments_and_tests() {
    // A rule that looks for words in texts finds the wrong ones, and stops looking where it takes code for a text.
    let table = [
        ("a(\"b\\\"c\"); // d\ne", "a e"),
        ("r#\"b\"c\"#; x", "x"),
        ("b\"\\\\\" y", "b y"),
        ("let c = '\"'; d", "let c d"),
        ("fn f<'a>(x: &'a str) {} '\\''", "fn f a x a str"),
        ("'\\u{1b}' z /* a\nb */ k", "z k"),
        ("u\n#[cfg(test)]\nmod tests { fn a() { b } }\nfn v", "u fn v"),
        ("#[cfg(test)]\nmod m;\nuse x;", "use x"),
        ("for r in \"\" {}", "for r in"),
    ];
    for (text, expected) in table {
        let code = without_tests(blank(text)).0;
        assert_eq!(words(&code).collect::<Vec<_>>().join(" "), expected, "{text}");
    }
    let items = "fn a() { b }\nimpl C {\n fn d() {}\n}\n\nimpl<E> F for G<E> {\n fn get_h() {}\n}\nfn i() {}\n";
    let source = Source::of("src/x.rs".to_owned(), items.to_owned());
    assert_eq!(source.functions().collect::<Vec<_>>(), ["a", "d", "i"]);
    assert_eq!(
        parts("ReplayStore_of2HTTPThings"),
        ["replay", "store", "of2", "httpthings"]
    );
    assert_eq!(group_heads("self, a::{b, c::D}, e as f}; g"), ["self", "a", "e"]);
}
