//! The providers that are part of the program, by id.
//!
//! Every file in `conf/providers/` is in the binary as it was written (`build.rs` lists them) and is read when somebody
//! asks for it: a start costs what its routes use, not what the catalogue holds. Only listing them all reads them all.
//!
//! A preset that cannot be read is a bug in this repository, found by the first test that runs; no configuration and no
//! request leads there.

use std::sync::{Arc, OnceLock};

use super::Provider;
use crate::nearest::nearest;

include!(concat!(env!("OUT_DIR"), "/presets.rs"));

static CATALOGUE: Catalogue = Catalogue { presets: &PRESETS };

/// The providers that are part of the program.
pub fn builtin() -> &'static Catalogue {
    &CATALOGUE
}

/// Providers by id.
#[derive(Debug)]
pub struct Catalogue {
    /// Sorted by id.
    presets: &'static [Preset],
}

impl Catalogue {
    /// The provider with exactly this id.
    pub fn find(&self, id: &str) -> Option<&Arc<Provider>> {
        let at = self.presets.binary_search_by_key(&id, |preset| preset.id).ok()?;
        self.presets.get(at).map(Preset::provider)
    }

    /// Its file, as it was written.
    pub fn text(&self, id: &str) -> Option<&'static str> {
        let at = self.presets.binary_search_by_key(&id, |preset| preset.id).ok()?;
        self.presets.get(at).map(|preset| preset.text)
    }

    /// All of them, in alphabetical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Provider>> {
        self.presets.iter().map(Preset::provider)
    }

    /// Their ids, in alphabetical order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.presets.iter().map(|preset| preset.id)
    }

    /// The id that somebody who typed `id` may have meant.
    pub fn nearest(&self, id: &str) -> Option<&str> {
        let typed = id.to_ascii_lowercase();
        // Part of a long id is an id half remembered.
        let contained = || self.ids().find(|known| typed.len() >= 4 && known.contains(&typed));
        nearest(id, self.ids()).or_else(contained)
    }
}

/// A provider's file, and the provider once somebody has asked for it.
#[derive(Debug)]
struct Preset {
    id: &'static str,
    text: &'static str,
    provider: OnceLock<Arc<Provider>>,
}

impl Preset {
    const fn new(id: &'static str, text: &'static str) -> Preset {
        Preset {
            id,
            text,
            provider: OnceLock::new(),
        }
    }

    fn provider(&self) -> &Arc<Provider> {
        self.provider.get_or_init(|| Arc::new(self.read()))
    }

    fn read(&self) -> Provider {
        let file = serde_yaml::from_str(self.text).unwrap_or_else(|e| panic!("conf/providers/{}.yaml: {e}", self.id));
        Provider::own(self.id, &file).unwrap_or_else(|e| panic!("conf/providers/{}.yaml: {e}", self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_find_what_is_listed() {
        // A list out of order would make providers unknown that `hookward providers` shows.
        let ids: Vec<_> = builtin().ids().collect();
        assert!(ids.is_sorted() && ids.len() > 200, "{ids:?}");
        for id in ids {
            assert_eq!(builtin().find(id).unwrap().id, id);
        }
        assert!(builtin().find("githb").is_none() && builtin().find("").is_none());
    }

    #[test]
    fn a_provider_is_read_once() {
        // Every reload would read the catalogue anew, and routes of one provider would not share its scheme.
        let (one, other) = (builtin().find("github").unwrap(), builtin().find("github").unwrap());
        assert!(Arc::ptr_eq(one, other));
    }

    #[test]
    fn a_mistyped_name_finds_the_right_one() {
        // The message would say that there is no such provider and leave it at that.
        let rows = [
            ("githb", Some("github")),
            ("GitHub", Some("github")),
            ("stirpe", Some("stripe")),
            ("standard", Some("standard-webhooks")),
            ("standard_webhooks", Some("standard-webhooks")),
            ("slak", Some("slack")),
            ("x", None),
            ("", None),
            ("something-else", None),
        ];
        for (typed, meant) in rows {
            assert_eq!(builtin().nearest(typed), meant, "{typed:?}");
        }
        assert_eq!(builtin().nearest(&"\u{1f980}".repeat(10_000)), None);
    }
}
