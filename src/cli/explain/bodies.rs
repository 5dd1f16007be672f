//! What a body may have been before something on its way changed it.
//!
//! Each [`Original`] undoes one thing that frameworks, proxies, editors and shells do to bodies. The JSON ones work on
//! the text: strings stay what they are, only what stands between them and how their characters are written changes, so
//! that an original is found even where parsing and writing again would lose the order of keys or the form of numbers.

use super::packed::unpacked;

/// Longest body that is rewritten; a larger one is only trimmed and extended.
const REWRITE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A body as it may have been signed.
pub(super) struct Original {
    /// What happened to it on its way, as the end of "the body ...".
    pub(super) what: &'static str,
    /// What to do about it.
    pub(super) fix: &'static str,
    pub(super) body: Vec<u8>,
}

const RAW: &str = "verify and forward the bytes as they were received: read the raw body before anything parses it";
const FILE: &str = "take the body without a trailing newline: printf instead of echo, --data-binary instead of --data";
const DECODED: &str = "verify before anything decompresses, decodes or converts the body";

const PACKED: &str = "the provider signed it before: let nothing in front of the gateway compress requests";

/// Bodies that may have been signed instead of `received`, the likeliest first.
pub(super) fn originals(received: &[u8]) -> Vec<Original> {
    let mut originals = ends(received);
    originals.extend(line_ends(received));
    if received.len() <= REWRITE_BYTES_MAX {
        originals.extend(json(received));
        originals.extend(characters(received));
        originals.extend(forms(received));
        originals.extend(unpacked(received).map(|body| original("was compressed on its way", PACKED, body)));
    }
    originals.retain(|original| original.body != received);
    originals
}

fn original(what: &'static str, fix: &'static str, body: Vec<u8>) -> Original {
    Original { what, fix, body }
}

fn ends(received: &[u8]) -> Vec<Original> {
    let trimmed = received.trim_ascii();
    let with = |end: &[u8]| [received, end].concat();
    vec![
        original("got a newline at its end", FILE, received.trim_ascii_end().to_vec()),
        original("got white space around it", FILE, trimmed.to_vec()),
        original("lost the newline at its end", RAW, with(b"\n")),
        original("lost the line end (CR LF) at its end", RAW, with(b"\r\n")),
        original("was dropped: an empty one was signed", RAW, Vec::new()),
    ]
}

fn line_ends(received: &[u8]) -> Vec<Original> {
    let lf = replaced(received, b"\r\n", b"\n");
    let crlf = replaced(&lf, b"\n", b"\r\n");
    vec![
        original("had its line ends changed from LF to CR LF", RAW, lf),
        original("had its line ends changed from CR LF to LF", RAW, crlf),
    ]
}

fn characters(received: &[u8]) -> Vec<Original> {
    const BOM: &[u8] = b"\xef\xbb\xbf";
    let mut originals = vec![original("lost its byte order mark", DECODED, [BOM, received].concat())];
    if let Some(bare) = received.strip_prefix(BOM) {
        originals.push(original("got a byte order mark", DECODED, bare.to_vec()));
    }
    let latin = std::str::from_utf8(received)
        .ok()
        .map(|text| text.chars().map(u8::try_from).collect());
    if let Some(Ok(bytes)) = latin {
        originals.push(original("was read as Latin-1 and written as UTF-8", DECODED, bytes));
    }
    originals
}

/// Forms that were decoded and encoded again in another spelling.
fn forms(received: &[u8]) -> Vec<Original> {
    let pluses = replaced(received, b"%20", b"+");
    let percents = replaced(received, b"+", b"%20");
    vec![
        original("is a form whose spaces were + and became %20", RAW, pluses),
        original("is a form whose spaces were %20 and became +", RAW, percents),
        original(
            "is a form whose escapes were upper case",
            RAW,
            escapes(received, u8::to_ascii_uppercase),
        ),
        original(
            "is a form whose escapes were lower case",
            RAW,
            escapes(received, u8::to_ascii_lowercase),
        ),
    ]
}

fn escapes(received: &[u8], case: fn(&u8) -> u8) -> Vec<u8> {
    let mut left = 0_u8;
    let change = |byte: &u8| {
        let inside = left > 0;
        left = if *byte == b'%' { 2 } else { left.saturating_sub(1) };
        if inside { case(byte) } else { *byte }
    };
    received.iter().map(change).collect()
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, from) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        out.extend_from_slice(to);
        rest = rest.get(at.saturating_add(from.len())..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// How a writer of JSON puts white space.
#[derive(Clone, Copy)]
enum Spacing {
    AsReceived,
    /// `{"a":1,"b":2}`
    None,
    /// `{"a": 1, "b": 2}`
    Python,
    /// One member a line, indented by this many of this.
    Lines(usize, u8),
}

/// How a writer of JSON spells the characters of strings.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    AsReceived,
    /// Everything beyond ASCII as `\u00e9`.
    Ascii,
    /// Nothing as `\u` that need not be.
    Unicode,
    /// `/` as `\/`.
    Slashes,
    /// Both, as PHP does.
    AsciiAndSlashes,
    /// `\/` as `/`.
    NoSlashes,
}

/// JSON that was parsed and written again.
fn json(received: &[u8]) -> Vec<Original> {
    let Ok(text) = std::str::from_utf8(received) else {
        return Vec::new();
    };
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return Vec::new();
    }
    let spacings = [
        (
            Spacing::AsReceived,
            "had the characters of its JSON strings written in another way",
        ),
        (
            Spacing::None,
            "is JSON that was compact and was written again with white space",
        ),
        (
            Spacing::Python,
            "is JSON that had a space behind each comma and colon and was written again",
        ),
        (
            Spacing::Lines(2, b' '),
            "is JSON that was indented by two spaces and was written again",
        ),
        (
            Spacing::Lines(4, b' '),
            "is JSON that was indented by four spaces and was written again",
        ),
        (
            Spacing::Lines(1, b'\t'),
            "is JSON that was indented by tabs and was written again",
        ),
    ];
    let spellings = [
        Spelling::AsReceived,
        Spelling::Ascii,
        Spelling::Unicode,
        Spelling::Slashes,
        Spelling::AsciiAndSlashes,
        Spelling::NoSlashes,
    ];
    let mut originals = Vec::new();
    for (spacing, what) in spacings {
        for spelling in spellings {
            let body = rewritten(text, spacing, spelling).into_bytes();
            let ended = [&body[..], b"\n"].concat();
            originals.push(original(what, RAW, body));
            originals.push(original(what, RAW, ended));
        }
    }
    originals
}

/// Writes JSON again, with its strings' content and the order of everything left as they are.
fn rewritten(text: &str, spacing: Spacing, spelling: Spelling) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut depth = 0_usize;
    while let Some(next) = rest.chars().next() {
        let (token, after) = token(rest, next);
        rest = after;
        match next {
            '"' => respell(token, spelling, &mut out),
            _ if matches!(spacing, Spacing::AsReceived) => out.push_str(token),
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                out.push(next);
                let empty = rest.trim_start().starts_with(['}', ']']);
                depth = depth.saturating_add(1);
                if !empty {
                    indent(spacing, depth, &mut out);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !out.ends_with(['{', '[']) {
                    indent(spacing, depth, &mut out);
                }
                out.push(next);
            }
            ',' => {
                out.push(',');
                if matches!(spacing, Spacing::Python) {
                    out.push(' ');
                }
                indent(spacing, depth, &mut out);
            }
            ':' => out.push_str(if matches!(spacing, Spacing::None) { ":" } else { ": " }),
            _ => out.push_str(token),
        }
    }
    out
}

/// The next token: a whole string, or one character.
fn token(rest: &str, next: char) -> (&str, &str) {
    let mut end = next.len_utf8();
    if next == '"' {
        let mut escaped = false;
        for (at, byte) in rest.bytes().enumerate().skip(1) {
            end = at.saturating_add(1);
            match byte {
                b'"' if !escaped => break,
                b'\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
    }
    rest.split_at_checked(end).unwrap_or((rest, ""))
}

fn indent(spacing: Spacing, depth: usize, out: &mut String) {
    if let Spacing::Lines(width, with) = spacing {
        out.push('\n');
        let count = depth.saturating_mul(width);
        out.extend(std::iter::repeat_n(char::from(with), count));
    }
}

/// Writes a string, quotes included, in another spelling of the same characters.
fn respell(string: &str, spelling: Spelling, out: &mut String) {
    if spelling == Spelling::AsReceived {
        return out.push_str(string);
    }
    let mut left = string;
    while let Some(next) = left.chars().next() {
        let length = match next {
            '\\' if left.starts_with("\\u") => 6,
            '\\' => 2,
            _ => next.len_utf8(),
        };
        let (piece, after) = left.split_at_checked(length).unwrap_or((left, ""));
        left = after;
        match spelling {
            Spelling::Slashes | Spelling::AsciiAndSlashes if piece == "/" => out.push_str("\\/"),
            Spelling::NoSlashes if piece == "\\/" => out.push('/'),
            Spelling::Ascii | Spelling::AsciiAndSlashes if !piece.is_ascii() => {
                let mut units = [0; 2];
                for unit in next.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            Spelling::Unicode if piece.starts_with("\\u") => left = unescaped(piece, left, out),
            _ => out.push_str(piece),
        }
    }
}

/// Writes the character of `\uXXXX`, together with the second half of a pair; returns what is left behind it.
fn unescaped<'t>(piece: &str, left: &'t str, out: &mut String) -> &'t str {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?, 16).ok();
    let second = left.split_at_checked(6);
    let both = (unit(piece), second.and_then(|(text, _)| unit(text)));
    let decode = |units: &[u16]| {
        let one = char::decode_utf16(units.iter().copied()).next()?;
        one.ok().filter(|c| !c.is_ascii_control() && !matches!(c, '"' | '\\'))
    };
    match both {
        (Some(high @ 0xd800..=0xdbff), Some(low)) => match decode(&[high, low]) {
            Some(character) => {
                out.push(character);
                second.map_or(left, |(_, after)| after)
            }
            None => {
                out.push_str(piece);
                left
            }
        },
        (Some(one), _) if let Some(character) = decode(&[one]) => {
            out.push(character);
            left
        }
        _ => {
            out.push_str(piece);
            left
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of the first original that equals `signed`.
    fn found(signed: &[u8], received: &[u8]) -> Option<&'static str> {
        let originals = originals(received);
        originals
            .iter()
            .find(|original| original.body == signed)
            .map(|original| original.what)
    }

    #[test]
    fn what_people_do_to_bodies_is_undone() {
        // The person at 3 a.m. would be told that the secret is wrong.
        let rows: [(&[u8], &[u8], &str); 21] = [
            (b"{}", b"{}\n", "newline"),
            (b"{}", b" {} ", "white space around"),
            (b"{}\n", b"{}", "lost the newline"),
            (b"{}\r\n", b"{}", "CR LF) at its end"),
            (b"{}", b"", ""),
            (b"", b"{}", "dropped"),
            (b"a\nb", b"a\r\nb", "from LF to CR LF"),
            (b"a\r\nb", b"a\nb", "from CR LF to LF"),
            (
                b"{\"a\":[1,{}],\"b\":\"x, y\"}",
                b"{\"a\": [1, {}], \"b\": \"x, y\"}",
                "compact",
            ),
            (
                b"{\"a\": [1, 2], \"b\": {}}",
                b"{\"a\":[1,2],\"b\":{}}",
                "behind each comma",
            ),
            (
                b"{\n  \"a\": [\n    1.0\n  ],\n  \"b\": []\n}",
                b"{\"a\":[1.0],\"b\":[]}",
                "two spaces",
            ),
            (b"{\n  \"a\": 1\n}\n", b"{\"a\":1}", "two spaces"),
            (b"{\n\t\"a\": 1\n}", b"{\"a\":1}", "tabs"),
            (
                "{\"a\":\"é🦀\"}".as_bytes(),
                b"{\"a\":\"\\u00e9\\ud83e\\udd80\"}",
                "characters",
            ),
            (
                b"{\"a\":\"\\u00e9\\ud83e\\udd80\"}",
                "{\"a\":\"é🦀\"}".as_bytes(),
                "characters",
            ),
            (b"{\"a\":\"http:\\/\\/x\"}", b"{\"a\":\"http://x\"}", "characters"),
            (b"{\"a\":\"http://x\"}", b"{\"a\":\"http:\\/\\/x\"}", "characters"),
            ("\u{feff}{}".as_bytes(), b"{}", "byte order mark"),
            (b"caf\xe9", "café".as_bytes(), "Latin-1"),
            (b"a=b+c", b"a=b%20c", "+ and became %20"),
            (b"a=%2F", b"a=%2f", "upper case"),
        ];
        for (signed, received, what) in rows {
            let said = found(signed, received);
            let expected = !what.is_empty();
            assert_eq!(
                said.is_some_and(|said| said.contains(what)),
                expected,
                "{received:?}: {said:?}"
            );
        }
    }

    #[test]
    fn any_bytes_are_rewritten_without_harm() {
        // A body that was captured in the middle of an attack must not stop the explanation.
        let strange: [&[u8]; 8] = [
            b"\"\\",
            b"\"\\u12",
            b"{\"a\":\"\\ud83e\"}",
            b"[[[[",
            b"\xff",
            b"%",
            b"\"\\ud83e\\u0041\"",
            b"\"\\u0022\\u000a\"",
        ];
        for bytes in strange {
            assert!(originals(bytes).iter().all(|original| original.body != bytes));
        }
        let text = "{\"a\":\"\\u0022\\u000a\\ud83e\"}";
        assert_eq!(
            rewritten(text, Spacing::AsReceived, Spelling::Unicode),
            text,
            "what must be escaped stays"
        );
    }
}
