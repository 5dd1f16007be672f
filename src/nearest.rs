//! The name somebody probably meant.
//!
//! Asked for unknown keys, for names that refer to nothing and for providers that do not exist. Only known names are
//! ever returned, so an answer can be printed wherever it comes from.

/// The one of `known` that is closest to `typed`, when it is close enough to be a slip: one edit for every three
/// characters, at least one; a swap of neighbours is one edit. Case and `-` for `_` do not count. Names over 64
/// bytes are close to nothing.
pub(crate) fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    const NAME_BYTES_MAX: usize = 64;
    if typed.len() > NAME_BYTES_MAX {
        return None;
    }
    let typed = folded(typed);
    let slips = |name: &str| strsim::osa_distance(&typed, &folded(name));
    let names = known.into_iter().filter(|name| name.len() <= NAME_BYTES_MAX);
    let (slips, name) = names.map(|name| (slips(name), name)).min_by_key(|(slips, _)| *slips)?;
    let slips_max = (typed.chars().count() / 3).max(1);
    (slips <= slips_max).then_some(name)
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_other_words_are_not() {
        // A wrong guess costs an operator more time than none.
        let known = ["secrets", "short_secrets", "limits", "upstream", "host", "rate"];
        let table = [
            ("secret", Some("secrets")),
            ("secerts", Some("secrets")),
            ("limit", Some("limits")),
            ("Upstream", Some("upstream")),
            ("short-secrets", Some("short_secrets")),
            ("shortSecrets", Some("short_secrets")),
            ("hosts", Some("host")),
            ("raet", Some("rate")),
            ("tolerance", None),
            ("xy", None),
            ("", None),
        ];
        for (typed, meant) in table {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
        assert_eq!(nearest(&"s".repeat(100_000), known), None);
    }
}
