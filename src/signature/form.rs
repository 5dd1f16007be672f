//! Forms and queries as name and value pairs, decoded strictly.
//!
//! Read by verifiers whose providers sign decoded fields. A `%` without two hex digits behind it is refused: lenient
//! decoders disagree about it, and a field that two of them read differently is signed in one meaning and used in
//! another. Everything else follows the URL standard's `application/x-www-form-urlencoded`: `+` is a space, an absent `=`
//! an empty value, empty pairs are nothing. At most 2048 pairs.

use super::native::Message;
use super::proof::Failure;

/// Most pairs in a form; providers send less than a hundred.
const PAIRS_MAX: usize = 2048;

/// A field of a form: name and value, decoded.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// The pairs of a form, in the order in which they stand.
///
/// # Errors
/// [`Failure::Malformed`] when an escape is incomplete or there are too many pairs.
pub(super) fn pairs(text: &[u8]) -> Result<Vec<Pair>, Failure> {
    let mut pairs = Vec::new();
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == PAIRS_MAX {
            return Err(Failure::Malformed);
        }
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut half = || decode(halves.next().unwrap_or_default());
        pairs.push((half()?, half()?));
    }
    Ok(pairs)
}

/// The pairs of a request's body; of an empty body there are none.
///
/// # Errors
/// [`Failure::Malformed`] also when the content type says that the body is something else than a form: a backend that
/// believes it would read another message than the one that was signed.
pub(super) fn of_body(message: &Message<'_>) -> Result<Vec<Pair>, Failure> {
    if message.body.is_empty() {
        return Ok(Vec::new());
    }
    match content_type(message).as_deref() {
        Some("application/x-www-form-urlencoded") => pairs(message.body),
        _ => Err(Failure::Malformed),
    }
}

/// The content type in lower case and without its parameters.
pub(super) fn content_type(message: &Message<'_>) -> Option<String> {
    let value = message.headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next()?;
    Some(kind.trim().to_ascii_lowercase())
}

/// The value of the only pair of this name.
///
/// # Errors
/// [`Failure::Missing`] when there is none, [`Failure::Malformed`] when there are several.
pub(super) fn only<'p>(pairs: &'p [Pair], name: &str) -> Result<&'p [u8], Failure> {
    let mut values = pairs.iter().filter(|(key, _)| key == name.as_bytes());
    let (_, value) = values.next().ok_or(Failure::Missing)?;
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Failure::Malformed),
    }
}

/// The text of a field of the form that a body is; `None` when it is absent, repeated, no text or longer than `bytes_max`.
pub(crate) fn form_value(body: &[u8], name: &str, bytes_max: usize) -> Option<String> {
    let pairs = pairs(body).ok()?;
    let value = only(&pairs, name).ok().filter(|value| value.len() <= bytes_max)?;
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// Names and values one behind the other, nothing between, sorted by the bytes of the names and then of the values.
pub(super) fn sorted(mut pairs: Vec<Pair>) -> Vec<u8> {
    pairs.sort_unstable();
    let text = pairs.into_iter().flat_map(|(name, value)| [name, value]);
    text.flatten().collect()
}

fn decode(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    unescape(&spaced)
}

/// Percent-decodes (RFC 3986 section 2.1).
pub(super) fn unescape(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>().ok_or(Failure::Malformed)?;
        let mut value = [0];
        hex::decode_to_slice(digits, &mut value).map_err(|_| Failure::Malformed)?;
        decoded.extend(value);
        rest = behind;
    }
    Ok(decoded)
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub(super) fn escape(text: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(*byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, String)>> {
        let text_of = |bytes| String::from_utf8(bytes).unwrap();
        let pairs = pairs(text.as_bytes()).ok()?;
        Some(
            pairs
                .into_iter()
                .map(|(name, value)| (text_of(name), text_of(value)))
                .collect(),
        )
    }

    #[test]
    fn a_form_has_one_reading() {
        // A field that is signed in one meaning and delivered in another is a forged field.
        type Row = (&'static str, Option<&'static [(&'static str, &'static str)]>);
        let rows: [Row; 16] = [
            ("", Some(&[])),
            ("a=b", Some(&[("a", "b")])),
            ("a=b&a=c", Some(&[("a", "b"), ("a", "c")])),
            ("b=1&a=2", Some(&[("b", "1"), ("a", "2")])),
            ("a", Some(&[("a", "")])),
            ("a=", Some(&[("a", "")])),
            ("=a", Some(&[("", "a")])),
            ("a=b=c", Some(&[("a", "b=c")])),
            ("&&a=b&", Some(&[("a", "b")])),
            ("a+b=c+d", Some(&[("a b", "c d")])),
            ("%61=%2b%2B%26%3d", Some(&[("a", "++&=")])),
            ("a=%C3%A9", Some(&[("a", "\u{e9}")])),
            ("a=%", None),
            ("a=%2", None),
            ("a=%zz", None),
            ("%=a", None),
        ];
        for (text, expected) in rows {
            let expected: Option<Vec<_>> = expected.map(|pairs| {
                let owned = pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                owned.collect()
            });
            assert_eq!(read(text), expected, "{text:?}");
        }
        assert!(pairs("a&".repeat(PAIRS_MAX).as_bytes()).is_ok());
        assert!(pairs("a&".repeat(PAIRS_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_field_that_is_there_twice_is_not_used() {
        // The verifier would judge the first and the backend believe the last.
        let pairs = pairs(b"a=1&b=2&b=3").unwrap();
        assert_eq!(only(&pairs, "a"), Ok(b"1".as_slice()));
        assert_eq!(only(&pairs, "b"), Err(Failure::Malformed));
        assert_eq!(only(&pairs, "c"), Err(Failure::Missing));
    }

    #[test]
    fn names_sort_by_bytes() {
        // Reason stands before ReasonConferenceEnded and behind every upper-case letter comes lower case.
        let pairs = pairs(b"b=2&Bc=1&B=3&B=0&a=%C3%A9").unwrap();
        assert_eq!(sorted(pairs), "B0B3Bc1a\u{e9}b2".as_bytes());
    }

    #[test]
    fn what_is_escaped_reads_back() {
        // A signed request of ours would be refused.
        let text: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(escape(&text).as_bytes()), Ok(text));
    }
}
