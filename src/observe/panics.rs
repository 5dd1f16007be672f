//! Panics: counted, and told by their place alone.
//!
//! A panic costs the request it happened in, and that only: each connection is a task of its own, and what it held is
//! given back as the task unwinds. But it is a mistake of ours, so it is counted where operators see it. Its words stay
//! untold: the text that could not be cut, or the value that was not there, may be a body's or a secret's.

use std::panic::{self, Location};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// From here on panics are counted, and told by a line of the process's log instead of their own words. For the whole
/// process, so it is for `main` to call, once.
pub fn watch() {
    panic::set_hook(Box::new(|panic| {
        COUNT.fetch_add(1, Ordering::Relaxed);
        log::error!("{}", told(panic.location()));
    }));
}

/// Panics since [`watch`].
pub(super) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

fn told(place: Option<&Location<'_>>) -> String {
    let place = place.map_or_else(|| "an unknown place".to_owned(), Location::to_string);
    format!(
        "panic at {place}: a mistake of this program, which the request of the moment has paid for; please report it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_without_its_words() {
        // "byte index 3 is not a char boundary; it is inside 'é' of `...`" has the whole text in it.
        let place = Location::caller();
        let line = told(Some(place));
        assert!(
            line.contains("panics.rs:") && !line.contains("words of the panic"),
            "{line}"
        );
        assert!(told(None).contains("unknown"));
    }
}
