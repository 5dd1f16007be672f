//! The query of a question to the operators' desk: which deliveries, how many, from where.
//!
//! Strict, like everything an operator types: an unknown name, a value that cannot be read or a name that occurs twice
//! is refused. A misspelt `rout=billing` that is ignored would purge the events of every route.

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::clock::UnixMillis;
use crate::queue::{Cursor, EventId, EventState, Filter, Lane};

/// Longest value, in bytes: as long as an event id can be, encoded.
const VALUE_BYTES_MAX: usize = 2048;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) filter: Filter,
    pub(super) after: Option<Cursor>,
    pub(super) limit: Option<usize>,
    /// Every delivery is meant.
    pub(super) all: bool,
    /// The body is wanted, too.
    pub(super) with_body: bool,
}

/// What cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    /// A name that means nothing here.
    #[error(
        "{0:?} means nothing here; known are id, route, destination, state, since, until, type, event_id, after, limit, \
         all and body"
    )]
    Name(String),
    /// A name that may occur once.
    #[error("{0} occurs twice")]
    Twice(String),
    /// A value that is none.
    #[error("{name} needs {needs}")]
    Value {
        /// Of this name.
        name: String,
        /// What it should be.
        needs: &'static str,
    },
}

impl Query {
    /// Reads `name=value&name=value`, percent-encoded.
    pub(super) fn read(text: &str) -> Result<Query, Wrong> {
        let mut query = Query::default();
        let mut seen = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name != "state" && seen.contains(&name) {
                return Err(Wrong::Twice(name.to_owned()));
            }
            seen.push(name);
            query.take(name, value)?;
        }
        Ok(query)
    }

    fn take(&mut self, name: &str, raw: &str) -> Result<(), Wrong> {
        let value = || -> Result<String, Wrong> {
            let decoded = percent_decode_str(raw).decode_utf8().ok();
            let decoded = decoded.filter(|text| !text.is_empty() && text.len() <= VALUE_BYTES_MAX);
            decoded.map(String::from).ok_or_else(|| wrong(name, "a value in UTF-8"))
        };
        let filter = &mut self.filter;
        match name {
            "id" => filter.id = Some(EventId(number(name, &value()?)?)),
            "route" => filter.route = Some(Arc::from(value()?)),
            "destination" => filter.destination = Some(Arc::from(value()?)),
            "state" => filter.states.push(state(&value()?)?),
            "since" => filter.since = Some(instant(name, &value()?)?),
            "until" => filter.until = Some(instant(name, &value()?)?),
            "type" => filter.event_type = Some(Arc::from(value()?)),
            "event_id" => filter.event_id = Some(Arc::from(value()?)),
            "after" => self.after = Some(cursor(&value()?)?),
            "limit" => {
                let limit = number(name, &value()?)?;
                self.limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
            }
            "all" => self.all = truth(name, &value()?)?,
            "body" => self.with_body = truth(name, &value()?)?,
            _ => return Err(Wrong::Name(name.chars().take(64).collect())),
        }
        Ok(())
    }
}

fn wrong(name: &str, needs: &'static str) -> Wrong {
    Wrong::Value {
        name: name.to_owned(),
        needs,
    }
}

fn number(name: &str, text: &str) -> Result<u64, Wrong> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| wrong(name, "a whole number"))
}

fn truth(name: &str, text: &str) -> Result<bool, Wrong> {
    text.parse().map_err(|_| wrong(name, "true or false"))
}

fn state(text: &str) -> Result<EventState, Wrong> {
    let mut states = EventState::ALL.into_iter();
    let known = states.find(|state| state.as_str() == text);
    known.ok_or_else(|| {
        wrong(
            "state",
            "one of pending, waiting, blocked, leased, delivered, dead and cancelled",
        )
    })
}

fn instant(name: &str, text: &str) -> Result<UnixMillis, Wrong> {
    let instant: Option<jiff::Timestamp> = text.parse().ok();
    let millis = instant.and_then(|instant| u64::try_from(instant.as_millisecond()).ok());
    millis
        .map(UnixMillis)
        .ok_or_else(|| wrong(name, "a time such as 2026-11-23T00:00:00Z"))
}

/// What [`view::cursor`](super::view::cursor) wrote. Names have no colon.
fn cursor(text: &str) -> Result<Cursor, Wrong> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [id, route, destination] => Ok(Cursor {
            id: EventId(number("after", id)?),
            lane: Lane {
                route: Arc::from(*route),
                destination: Arc::from(*destination),
            },
        }),
        _ => Err(wrong("after", "the `next` of an earlier answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::desk::view;

    #[test]
    fn a_question_is_read_as_it_was_meant() {
        // An operator purges what the filter says; a filter that is read otherwise purges something else.
        let query = Query::read(
            "route=billing&destination=app&state=dead&state=waiting&since=2026-11-23T00:00:00%2B01:00&type=customer.*\
             &event_id=evt%20%c3%bc&limit=7&all=true&id=12",
        )
        .unwrap();
        let expected = Filter {
            id: Some(EventId(12)),
            route: Some("billing".into()),
            destination: Some("app".into()),
            states: vec![EventState::Dead, EventState::Waiting],
            since: Some(UnixMillis(1_795_388_400_000)),
            until: None,
            event_type: Some("customer.*".into()),
            event_id: Some("evt \u{fc}".into()),
        };
        assert_eq!((query.filter, query.limit, query.all), (expected, Some(7), true));
        assert_eq!(Query::read("").unwrap().filter, Filter::default());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        // A condition that is dropped silently makes the change one of everything.
        let table = [
            ("rout=billing", Wrong::Name("rout".to_owned())),
            ("route", wrong("route", "a value in UTF-8")),
            ("route=", wrong("route", "a value in UTF-8")),
            ("route=%ff", wrong("route", "a value in UTF-8")),
            ("route=a&route=b", Wrong::Twice("route".to_owned())),
            ("id=-1", wrong("id", "a whole number")),
            ("id=1.0", wrong("id", "a whole number")),
            ("all=yes", wrong("all", "true or false")),
            ("since=yesterday", wrong("since", "a time such as 2026-11-23T00:00:00Z")),
            ("after=1:a", wrong("after", "the `next` of an earlier answer")),
        ];
        for (text, expected) in table {
            assert_eq!(Query::read(text).unwrap_err(), expected, "{text}");
        }
        assert!(Query::read("state=dying").is_err());
    }

    #[test]
    fn a_page_leads_to_the_next() {
        // The second page would begin somewhere else, and a redrive leave events out.
        let cursor = Cursor {
            id: EventId(7),
            lane: Lane {
                route: "a-b".into(),
                destination: "c".into(),
            },
        };
        let query = Query::read(&format!("after={}", view::cursor(&cursor))).unwrap();
        assert_eq!(query.after, Some(cursor));
    }
}
