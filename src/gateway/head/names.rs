//! Names of headers, parsed once a thread: a provider sends the same ones with every request.

use std::cell::RefCell;

use http::HeaderName;

/// Names a thread remembers. Strangers can push honest ones out and make nothing but their own work of it.
const PLACES: usize = 64;

/// Longer names are not remembered, only parsed.
const NAME_BYTES_MAX: usize = 64;

/// A name as it was written, and what it means.
type Known = Option<(Box<[u8]>, HeaderName)>;

/// The name that `written` means; `None` when it is none.
pub(super) fn name(written: &[u8]) -> Option<HeaderName> {
    thread_local! {
        static KNOWN: RefCell<[Known; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
    }
    let parsed = || HeaderName::from_bytes(written).ok();
    if written.len() > NAME_BYTES_MAX {
        return parsed();
    }
    KNOWN.with_borrow_mut(|known| {
        let Some(place) = known.get_mut(place(written)) else {
            return parsed();
        };
        match place {
            Some((same, name)) if **same == *written => Some(name.clone()),
            _ => {
                let name = parsed()?;
                *place = Some((written.into(), name.clone()));
                Some(name)
            }
        }
    })
}

/// Where `written` is remembered: by its length and its last characters, in which names of one provider differ.
fn place(written: &[u8]) -> usize {
    let tail = written.iter().rev().take(3);
    tail.fold(written.len(), |place, byte| {
        place.wrapping_mul(5).wrapping_add(usize::from(*byte))
    }) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_same_remembered_or_not() {
        // A name taken for another one would put a stranger's value where the signature is read.
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let mut written: Vec<String> = (0..500).map(|number| format!("X-Name-{number}")).collect();
        written.extend(["x-name-7", "X-NAME-7", "Content-Type", &long].map(str::to_owned));
        for _ in 0..3 {
            for written in &written {
                assert_eq!(name(written.as_bytes()).unwrap(), *written.to_ascii_lowercase());
            }
            for none in ["", "a b", "a:", "caf\u{e9}"] {
                assert_eq!(name(none.as_bytes()), None, "{none}");
            }
        }
    }
}
