//! One field of a `multipart/form-data` body (RFC 7578).
//!
//! Read by verifiers whose providers send JSON in a form field. Strict where readers differ: the boundary must be a
//! plain token, every part must say its name in quotes without escapes, and a field that is there twice is not used. Only
//! the names are looked at; nothing is decoded.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memmem;

use crate::signature::proof::Failure;

/// Longest boundary, in bytes (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// Most parts of a body.
const PARTS_MAX: usize = 64;

/// The boundary that the content type names; `None` when the body is no form in parts, or its boundary is no token.
pub(super) fn boundary(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (kind, parameters) = value.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let mut parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let (_, boundary) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    let boundary = boundary.trim();
    let bare = boundary
        .strip_prefix('"')
        .map_or(Some(boundary), |quoted| quoted.strip_suffix('"'))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&bare.len()) && bare.bytes().all(is_plain);
    fits.then_some(bare)
}

/// The content of the only field of this name.
///
/// # Errors
/// [`Failure::Missing`] when there is none; [`Failure::Malformed`] when there are several, when a part has no readable
/// name, or when the body is not cut up by the boundary as it should be.
pub(super) fn field<'b>(body: &'b [u8], boundary: &str, name: &str) -> Result<&'b [u8], Failure> {
    let opening = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(opening.as_bytes()).ok_or(Failure::Malformed)?;
    let mut found = Err(Failure::Missing);
    for _ in 0..PARTS_MAX {
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            let is_end = matches!(epilogue, b"" | b"\r\n");
            return if is_end { found } else { Err(Failure::Malformed) };
        }
        let part = rest.strip_prefix(b"\r\n").ok_or(Failure::Malformed)?;
        let end = memmem::find(part, between.as_bytes()).ok_or(Failure::Malformed)?;
        let (part, behind) = part.split_at_checked(end).ok_or(Failure::Malformed)?;
        rest = behind.strip_prefix(between.as_bytes()).ok_or(Failure::Malformed)?;
        let (head, content) = halves(part).ok_or(Failure::Malformed)?;
        if name_of(head).ok_or(Failure::Malformed)? != name {
            continue;
        }
        if found.is_ok() {
            return Err(Failure::Malformed);
        }
        found = Ok(content);
    }
    Err(Failure::Malformed)
}

/// The head of a part and its content.
fn halves(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memmem::find(part, b"\r\n\r\n")?;
    let (head, behind) = part.split_at_checked(at)?;
    Some((head, behind.strip_prefix(b"\r\n\r\n")?))
}

/// `name` of `Content-Disposition: form-data; name="name"`.
fn name_of(head: &[u8]) -> Option<&str> {
    let head = std::str::from_utf8(head).ok()?;
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let disposition = only(lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-disposition")))?.1;
    let mut parameters = disposition.split(';').map(str::trim);
    if !parameters.next()?.eq_ignore_ascii_case("form-data") {
        return None;
    }
    let named = only(parameters.filter_map(|parameter| parameter.strip_prefix("name=")))?;
    let name = named.strip_prefix('"')?.strip_suffix('"')?;
    (!name.contains(['"', '\\'])).then_some(name)
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const BODY: &str = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--B\r\n\
        Content-Type: text/plain\r\ncontent-disposition: form-data; name=\"json\"\r\n\r\n{\r\n}\r\n--B--\r\n";

    #[test]
    fn a_field_is_found_by_its_name() {
        // Genuine events would be refused.
        assert_eq!(field(BODY.as_bytes(), "B", "a"), Ok(b"one".as_slice()));
        assert_eq!(field(BODY.as_bytes(), "B", "json"), Ok(b"{\r\n}".as_slice()));
        assert_eq!(field(BODY.as_bytes(), "B", "b"), Err(Failure::Missing));
    }

    #[test]
    fn a_form_that_readers_could_cut_up_differently_is_refused() {
        // The verifier would judge one field and the backend read another one.
        let twice = BODY.replace("\"json\"", "\"a\"");
        assert_eq!(field(twice.as_bytes(), "B", "a"), Err(Failure::Malformed));
        let cases = [
            String::new(),
            format!("preamble\r\n{BODY}"),
            BODY.replace("--B--", "--B"),
            BODY.replace("\r\n\r\none", "\r\none"),
            BODY.replace("name=\"a\"", "name=a"),
            BODY.replace("name=\"a\"", "name=\"a\\\"\""),
            BODY.replace("form-data", "attachment"),
            BODY.replace("Content-Disposition: form-data; name=\"a\"", "X: y"),
            BODY.replace("name=\"a\"", "name=\"a\"; name=\"json\""),
            BODY.replace("Content-Type: text/plain", "Content-Disposition: form-data; name=\"a\""),
            format!("{BODY}epilogue"),
            BODY.replace(
                "--B--",
                &"--B\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n\r\n".repeat(70),
            ),
        ];
        for body in cases {
            assert_eq!(field(body.as_bytes(), "B", "json"), Err(Failure::Malformed), "{body:?}");
        }
    }

    #[test]
    fn a_boundary_is_a_token() {
        // A boundary that two readers understand differently makes two forms of one body.
        let rows = [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; Boundary=\"a-b_c\"", Some("a-b_c")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"a", None),
            ("multipart/form-data; boundary=a b", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json", None),
        ];
        for (value, expected) in rows {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(boundary(&headers), expected, "{value}");
        }
    }
}
