//! Which events a destination wants, by their type: `invoice.paid`, `customer.*`, `*`.
//!
//! Asked once for each destination before an event is published. An event without a type goes only to destinations
//! that want every event: a filter that cannot tell must not let through what somebody wanted to keep away.

/// Longest pattern, in bytes: as long as an event type can be.
const PATTERN_BYTES_MAX: usize = 512;

/// The types that a destination wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeFilter {
    /// Empty: every event.
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// What stands before a `*` at the end.
    Prefix(String),
}

impl TypeFilter {
    /// Reads patterns; none at all is every event.
    ///
    /// # Errors
    /// The position of a pattern that is empty, too long, or has a `*` elsewhere than at its end.
    pub fn new<'t>(patterns: impl IntoIterator<Item = &'t str>) -> Result<Self, usize> {
        let read = |(position, text): (usize, &str)| pattern(text).ok_or(position);
        let patterns = patterns.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(TypeFilter { patterns })
    }

    /// Whether an event of this type is wanted.
    pub fn wants(&self, event_type: Option<&str>) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(event_type))
    }
}

impl Pattern {
    fn matches(&self, event_type: Option<&str>) -> bool {
        match (self, event_type) {
            (Pattern::Prefix(prefix), None) => prefix.is_empty(),
            (Pattern::Exact(_), None) => false,
            (Pattern::Exact(exact), Some(event_type)) => exact == event_type,
            (Pattern::Prefix(prefix), Some(event_type)) => event_type.starts_with(prefix.as_str()),
        }
    }
}

fn pattern(text: &str) -> Option<Pattern> {
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
        return None;
    }
    match text.strip_suffix('*') {
        Some(prefix) if !prefix.contains('*') => Some(Pattern::Prefix(prefix.to_owned())),
        None if !text.contains('*') => Some(Pattern::Exact(text.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_gets_what_it_asked_for_and_nothing_else() {
        // An invoice would reach the mailing list, or not reach the accounts.
        type Types = &'static [Option<&'static str>];
        let table: [(&[&str], Types, Types); 4] = [
            (&[], &[None, Some("a")], &[]),
            (&["*"], &[None, Some("a")], &[]),
            (
                &["invoice.paid", "customer.*"],
                &[Some("invoice.paid"), Some("customer."), Some("customer.created")],
                &[
                    None,
                    Some("invoice.paid.late"),
                    Some("customer"),
                    Some("Customer.created"),
                ],
            ),
            (&["a"], &[Some("a")], &[None, Some("A"), Some("ab"), Some("")]),
        ];
        for (patterns, wanted, unwanted) in table {
            let filter = TypeFilter::new(patterns.iter().copied()).unwrap();
            for event_type in wanted {
                assert!(filter.wants(*event_type), "{patterns:?} {event_type:?}");
            }
            for event_type in unwanted {
                assert!(!filter.wants(*event_type), "{patterns:?} {event_type:?}");
            }
        }
    }

    #[test]
    fn patterns_that_promise_more_are_refused() {
        // `*.created` taken for a literal would match nothing, silently.
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        for wrong in ["", "*.created", "a*b", "**", long.as_str()] {
            assert_eq!(TypeFilter::new(["ok", wrong]), Err(1), "{wrong:?}");
        }
    }
}
