//! Finding deliveries for operators: by route, destination, state, time, type or id, a page at a time.
//!
//! Each state of each lane is a table range in the order of events, so a page costs about its rows where the filter is
//! about lanes and states, and a walk over the lanes' events where it is about what the events contain. Such a walk goes
//! by stretches of events, each over all lanes, so that a lane without any match is not walked once for every page of
//! the others, and ends after a few of them with a short page. All of it is reading, on a reader's connection: however
//! long it takes, the writer writes.

use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::desk::{Desk, Held};
use super::schema::LaneNumber;
use crate::clock::UnixMillis;
use crate::queue::{Attempt, Cursor, Delivery, EventId, EventState, Filter, Lane};

/// What of the engine's memory a search needs: the lanes that match, and what is out of them.
pub(super) struct Scope {
    lanes: Vec<LaneScope>,
}

struct LaneScope {
    number: LaneNumber,
    lane: Lane,
    held: Vec<(u64, Held)>,
}

impl Scope {
    pub(super) fn new(desk: &Desk, filter: &Filter) -> Self {
        let wanted = |lane: &Lane| {
            let same = |name: &Option<Arc<str>>, is: &Arc<str>| name.as_ref().is_none_or(|name| name == is);
            same(&filter.route, &lane.route) && same(&filter.destination, &lane.destination)
        };
        let lanes = desk.lanes().filter(|(_, lane)| wanted(lane));
        let with_held = lanes.map(|(number, lane)| {
            let held = desk.held_of(number).map(|(event, held)| (event, held.clone()));
            LaneScope {
                number,
                lane: lane.clone(),
                held: held.collect(),
            }
        });
        Scope {
            lanes: with_held.collect(),
        }
    }
}

/// Events of one stretch of a walk. Tests meet more of them.
const STRETCH: u32 = if cfg!(test) { 3 } else { 20_000 };

/// Stretches of one call: then it ends with what it has, so that nobody waits for long and the log can be cut short.
const STRETCHES_MAX: usize = if cfg!(test) { 2 } else { 5 };

/// Which way a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    OldestFirst,
    NewestFirst,
}

/// A delivery with its lane's number.
pub(super) struct Found {
    pub(super) lane: LaneNumber,
    pub(super) delivery: Delivery,
}

/// Up to `max` deliveries behind `after`, and where to go on: there may be none and more behind.
pub(super) fn find(
    db: &Connection,
    scope: &Scope,
    filter: &Filter,
    after: Option<&Cursor>,
    max: usize,
    direction: Direction,
) -> rusqlite::Result<(Vec<Found>, Option<Cursor>)> {
    let mut all = Vec::new();
    let mut stretch = Stretch {
        first: after.map(|after| after.id.0),
        last: None,
    };
    if let (Direction::OldestFirst, Some(since)) = (direction, filter.since) {
        stretch.first = stretch.first.max(Some(lowest_id(since)));
    }
    let mut stretches = 0_usize;
    let rest = loop {
        if is_walk(filter) {
            stretch.last = stretch.end(db, direction)?;
        }
        for LaneScope { number, lane, held } in &scope.lanes {
            let mut search = Search {
                db,
                filter,
                after,
                stretch,
                direction,
                lane: (*number, lane),
                found: &mut all,
            };
            for state in EventState::ALL {
                if filter.states.is_empty() || filter.states.contains(&state) {
                    search.state(state, held, max)?;
                }
            }
        }
        stretches = stretches.saturating_add(1);
        match stretch.next(direction) {
            Some(next) if all.len() > max || is_before(filter, next, direction) => break None,
            Some(next) if stretches >= STRETCHES_MAX => break next.first,
            Some(next) => stretch = next,
            None => break None,
        }
    };
    all.sort_by(|a, b| {
        let by_event = a.delivery.id.cmp(&b.delivery.id);
        let by_event = if direction == Direction::OldestFirst {
            by_event
        } else {
            by_event.reverse()
        };
        by_event.then_with(|| a.delivery.lane.cmp(&b.delivery.lane))
    });
    let more = all.len() > max;
    all.truncate(max);
    let next = match all.last().filter(|_| more) {
        Some(last) => Some(Cursor {
            id: last.delivery.id,
            lane: last.delivery.lane.clone(),
        }),
        // Before every lane of the first event that was not looked at.
        None => rest.map(|first| Cursor {
            id: EventId(first),
            lane: Lane {
                route: Arc::from(""),
                destination: Arc::from(""),
            },
        }),
    };
    Ok((all, next))
}

/// Whether it takes a look at the events themselves to tell which are meant.
fn is_walk(filter: &Filter) -> bool {
    filter.id.is_none() && (filter.event_type.is_some() || filter.event_id.is_some() || filter.until.is_some())
}

/// Whether all that is left of a search is older than what is meant.
fn is_before(filter: &Filter, rest: Stretch, direction: Direction) -> bool {
    let oldest = filter.since.map_or(0, lowest_id);
    direction == Direction::NewestFirst && rest.first.is_some_and(|first| first < oldest)
}

/// An id is never below its acceptance, in microseconds.
fn lowest_id(since: UnixMillis) -> u64 {
    since.0.saturating_mul(1000)
}

/// Events from one to another, both included, in the direction of the search; without an end as far as there are any.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: Option<u64>,
    last: Option<u64>,
}

impl Stretch {
    /// Where the stretch that begins here ends; `None` when it is the last one.
    fn end(&self, db: &Connection, direction: Direction) -> rusqlite::Result<Option<u64>> {
        let (sql, from) = match direction {
            Direction::OldestFirst => (
                "SELECT id FROM event WHERE id >= ?1 ORDER BY id LIMIT 1 OFFSET ?2",
                self.first.unwrap_or(0),
            ),
            Direction::NewestFirst => (
                "SELECT id FROM event WHERE id <= ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2",
                self.first.unwrap_or(u64::MAX),
            ),
        };
        let mut select = db.prepare_cached(sql)?;
        let end = select.query_row((signed(from), STRETCH.saturating_sub(1)), |row| row.get(0));
        end.optional()
    }

    /// The one behind it.
    fn next(&self, direction: Direction) -> Option<Stretch> {
        let first = match direction {
            Direction::OldestFirst => self.last?.checked_add(1),
            Direction::NewestFirst => self.last?.checked_sub(1),
        };
        first.map(|first| Stretch {
            first: Some(first),
            last: None,
        })
    }
}

/// As SQLite has its integers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

struct Search<'a> {
    db: &'a Connection,
    filter: &'a Filter,
    after: Option<&'a Cursor>,
    stretch: Stretch,
    direction: Direction,
    lane: (LaneNumber, &'a Lane),
    found: &'a mut Vec<Found>,
}

impl Search<'_> {
    fn state(&mut self, state: EventState, held: &[(u64, Held)], max: usize) -> rusqlite::Result<()> {
        if state == EventState::Leased {
            for (event, held) in held {
                if self.filter.id.is_none_or(|id| id.0 == *event) {
                    self.table(held.state, state, Some(*event), 1)?;
                }
            }
            return Ok(());
        }
        let before = self.found.len();
        // What is out lies in the same table and is left out below, as is one row at the cursor.
        let limit = max.saturating_add(held.len()).saturating_add(2);
        self.table(state, state, self.filter.id.map(|id| id.0), limit)?;
        if matches!(state, EventState::Pending | EventState::Waiting) {
            let found = self.found.split_off(before);
            let is_out = |found: &Found| held.iter().any(|(event, _)| *event == found.delivery.id.0);
            self.found.extend(found.into_iter().filter(|found| !is_out(found)));
        }
        Ok(())
    }

    /// Rows of the table that deliveries of `lying` lie in, shown as in `state`.
    fn table(&mut self, lying: EventState, state: EventState, only: Option<u64>, max: usize) -> rusqlite::Result<()> {
        let (sql, values) = self.statement(lying, only, max);
        let mut select = self.db.prepare_cached(&sql)?;
        let mut rows = select.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let delivery = self.delivery(row, state)?;
            if self.after.is_none_or(|after| self.is_behind(&delivery, after)) {
                let lane = self.lane.0;
                self.found.push(Found { lane, delivery });
            }
        }
        Ok(())
    }

    fn is_behind(&self, delivery: &Delivery, after: &Cursor) -> bool {
        let (ours, theirs) = (delivery.id, after.id);
        let event_is_behind = match self.direction {
            Direction::OldestFirst => ours > theirs,
            Direction::NewestFirst => ours < theirs,
        };
        event_is_behind || (ours == theirs && delivery.lane > after.lane)
    }

    fn statement(&self, lying: EventState, only: Option<u64>, max: usize) -> (String, Vec<Value>) {
        let (table, columns, condition) = match lying {
            EventState::Pending | EventState::Leased => ("fresh", "0, NULL, NULL", ""),
            EventState::Waiting => ("waiting", "t.attempts, t.due, NULL", ""),
            EventState::Blocked => ("blocked", "t.attempts, NULL, NULL", ""),
            EventState::Dead => ("dead", "t.attempts, NULL, t.at", ""),
            EventState::Delivered => ("done", "t.attempts, NULL, t.at", " AND t.state = 0"),
            EventState::Cancelled => ("done", "t.attempts, NULL, t.at", " AND t.state = 1"),
        };
        let mut sql = format!(
            "SELECT t.event, e.accepted, e.event_id, e.type, e.bytes, {columns}
            FROM {table} t CROSS JOIN event e ON e.id = t.event WHERE t.lane = ?{condition}"
        );
        let mut values = vec![Value::Integer(self.lane.0)];
        let mut also = |condition: &str, value: Value| {
            sql.push_str(condition);
            values.push(value);
        };
        let number = |number: u64| Value::Integer(signed(number));
        let (least, most) = match self.direction {
            Direction::OldestFirst => (self.stretch.first, self.stretch.last),
            Direction::NewestFirst => (self.stretch.last, self.stretch.first),
        };
        if let Some(least) = least {
            also(" AND t.event >= ?", number(least));
        }
        if let Some(most) = most {
            also(" AND t.event <= ?", number(most));
        }
        if let Some(id) = only {
            also(" AND t.event = ?", number(id));
        }
        if let Some(since) = self.filter.since {
            also(" AND e.accepted >= ?", number(since.0));
            also(" AND t.event >= ?", number(lowest_id(since)));
        }
        if let Some(until) = self.filter.until {
            also(" AND e.accepted < ?", number(until.0));
        }
        if let Some(id) = &self.filter.event_id {
            also(" AND e.event_id = ?", Value::Text(id.to_string()));
        }
        match self
            .filter
            .event_type
            .as_deref()
            .map(|kind| (kind, kind.strip_suffix('*')))
        {
            Some((_, Some(start))) => {
                also(" AND substr(e.type, 1, ?)", number(start.chars().count() as u64));
                also(" = ?", Value::Text(start.to_owned()));
            }
            Some((kind, None)) => also(" AND e.type = ?", Value::Text(kind.to_owned())),
            None => {}
        }
        let order = if self.direction == Direction::OldestFirst {
            "ASC"
        } else {
            "DESC"
        };
        also(&format!(" ORDER BY t.event {order} LIMIT ?"), number(max as u64));
        (sql, values)
    }

    fn delivery(&self, row: &Row<'_>, state: EventState) -> rusqlite::Result<Delivery> {
        Ok(Delivery {
            id: EventId(row.get(0)?),
            lane: self.lane.1.clone(),
            state,
            attempts: row.get(5)?,
            accepted_at: UnixMillis(row.get(1)?),
            next_at: row.get::<_, Option<u64>>(6)?.map(UnixMillis),
            ended_at: row.get::<_, Option<u64>>(7)?.map(UnixMillis),
            event_id: row.get(2)?,
            event_type: row.get(3)?,
            body_bytes: row.get(4)?,
        })
    }
}

/// The attempts of one delivery, in order.
pub(super) fn attempts(db: &Connection, lane: LaneNumber, event: u64) -> rusqlite::Result<Vec<Attempt>> {
    let sql = "SELECT at, took, status, error, number FROM attempt WHERE lane = ?1 AND event = ?2
        UNION ALL SELECT began, took, status, '', attempts FROM done
        WHERE lane = ?1 AND event = ?2 AND began IS NOT NULL ORDER BY number";
    let mut select = db.prepare_cached(sql)?;
    let attempts = select.query_map((lane, event), |row| {
        Ok(Attempt {
            at: UnixMillis(row.get(0)?),
            took: std::time::Duration::from_millis(row.get(1)?),
            status: row.get(2)?,
            error: row.get(3)?,
        })
    })?;
    attempts.collect()
}
