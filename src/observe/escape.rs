//! The one place where bytes from outside become text in a log.
//!
//! Everything but printable ASCII becomes `\xNN`, the backslash itself included, so that the result is one line, holds
//! no byte a terminal obeys, and can be turned back into exactly the bytes that were received. Non-ASCII text is
//! escaped too: beyond ASCII there are line separators, C1 controls and direction overrides that rearrange what the
//! eye reads.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What stands after a field that was cut.
const CUT: &[u8] = b"...";

/// Which further bytes are escaped, by where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// A `name=value` word: no space, no quote.
    Value,
    /// A word without a name: no `=` either, so that it cannot pass for another field.
    Word,
    /// A JSON string: no quote; the backslash of the escape is doubled.
    Json,
}

impl Within {
    #[allow(clippy::indexing_slicing, reason = "a table of 256, asked with a byte")]
    fn plain(self, byte: u8) -> bool {
        PLAIN[usize::from(byte)] & self.bit() != 0
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Where each byte is plain, a bit for each [`Within`].
#[allow(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const PLAIN: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'\\' | b'"' => 0,
            b' ' => Within::Json.bit(),
            b'=' => Within::Value.bit() | Within::Json.bit(),
            graphic if graphic.is_ascii_graphic() => Within::Value.bit() | Within::Word.bit() | Within::Json.bit(),
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// Appends at most `bytes_max` bytes of `bytes`, escaped; `...` follows when something was cut.
#[allow(clippy::indexing_slicing, reason = "a table of 256, asked with a byte")]
pub(super) fn escaped(out: &mut Vec<u8>, bytes: &[u8], within: Within, bytes_max: usize) {
    let (mut rest, cut) = match bytes.split_at_checked(bytes_max) {
        Some((kept, dropped)) => (kept, !dropped.is_empty()),
        None => (bytes, false),
    };
    // Summed up rather than stopped at: nearly every field is plain.
    let everywhere = rest.iter().fold(u8::MAX, |all, &byte| all & PLAIN[usize::from(byte)]);
    if everywhere & within.bit() != 0 {
        out.extend_from_slice(rest);
        rest = &[];
    }
    while !rest.is_empty() {
        let run = rest.iter().position(|&byte| !within.plain(byte)).unwrap_or(rest.len());
        let (plain, other) = rest.split_at(run);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = other.split_first() else {
            break;
        };
        push_hex(out, byte, within);
        rest = after;
    }
    if cut {
        out.extend_from_slice(CUT);
    }
}

#[allow(clippy::indexing_slicing, reason = "sixteen digits, asked with four bits")]
fn push_hex(out: &mut Vec<u8>, byte: u8, within: Within) {
    let digit = |nibble: u8| HEX[usize::from(nibble & 0x0f)];
    let escape: &[u8] = if within == Within::Json { br"\\x" } else { br"\x" };
    out.extend_from_slice(escape);
    out.extend_from_slice(&[digit(byte >> 4), digit(byte)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8], within: Within) -> Vec<u8> {
        let mut out = Vec::new();
        escaped(&mut out, bytes, within, 1000);
        out
    }

    /// The bytes that a word or value was made from.
    fn unescaped(text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some((&first, after)) = rest.split_first() {
            if first == b'\\' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&after[1..3]).unwrap(), 16).unwrap());
                rest = &after[3..];
            } else {
                bytes.push(first);
                rest = after;
            }
        }
        bytes
    }

    #[test]
    fn what_drives_a_terminal_or_ends_a_line_is_shown_as_hex() {
        // A path could clear the operator's screen or write a line of its own.
        assert_eq!(
            shown(b"a\r\n\x1b[2Jb\x7f\0", Within::Value),
            br"a\x0d\x0a\x1b[2Jb\x7f\x00"
        );
        // CSI as one C1 character, a line separator, a right-to-left override.
        assert_eq!(shown("\u{9b}".as_bytes(), Within::Value), br"\xc2\x9b");
        assert_eq!(
            shown("\u{2028}\u{202e}".as_bytes(), Within::Json),
            br"\\xe2\\x80\\xa8\\xe2\\x80\\xae"
        );
    }

    #[test]
    fn a_nameless_word_cannot_pass_for_a_field() {
        // The path `status=200` would read as a field of ours.
        assert_eq!(shown(b"a=b c", Within::Word), br"a\x3db\x20c");
        assert_eq!(shown(b"a=b c", Within::Value), br"a=b\x20c");
        assert_eq!(shown(b"a=b c", Within::Json), b"a=b c");
    }

    #[test]
    fn long_fields_are_cut_and_say_so() {
        // One request with a megabyte of path would push a thousand honest lines out.
        let mut out = Vec::new();
        escaped(&mut out, b"abcdef", Within::Value, 6);
        escaped(&mut out, b"abcdef", Within::Value, 5);
        escaped(&mut out, b"", Within::Value, 0);
        assert_eq!(out, b"abcdefabcde...");
    }

    proptest! {
        #[test]
        fn any_bytes_become_printable_ascii_and_can_be_read_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Two different inputs that look the same in the log hide an attack behind an honest request.
            for within in [Within::Value, Within::Word] {
                let text = shown(&bytes, within);
                prop_assert!(text.iter().all(u8::is_ascii_graphic));
                prop_assert_eq!(unescaped(&text), bytes.clone());
            }
            let json = [b"\"", shown(&bytes, Within::Json).as_slice(), b"\""].concat();
            let text: String = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(unescaped(text.as_bytes()), bytes);
        }
    }
}
