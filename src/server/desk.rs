//! The operators' desk: what waits, what died, and what is to become of it. JSON in and out, no HTTP.
//!
//! Two doors lead here: the API of the admin listener, and `hookward events` on a gateway that is not running. Both put
//! the same questions, as a method and a target, so that they cannot answer differently; docs/openapi.yaml describes
//! them. Who may ask was decided at the door.
//!
//! A change works in batches and tells where to go on, so that a million events neither block the queue nor end in a
//! timeout that leaves nobody knowing what was done. A change of everything has to be asked for in so many words.

mod query;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::queue::{Change, EventId, Filter, Health, Queue, QueueError, Worker};

use query::{Query, Wrong};

/// Deliveries of one page, unless asked otherwise.
const PAGE: usize = 100;

/// Deliveries of one batch of changes, unless asked otherwise.
const BATCH: usize = 500;

/// Answers operators.
pub(crate) struct Desk<'a> {
    pub(crate) queue: &'a Arc<dyn Queue>,
    /// Absent where nothing is delivered: routes can be neither paused nor resumed then.
    pub(crate) worker: Option<&'a Worker>,
    pub(crate) clock: &'a Clock,
}

/// What is asked for.
enum Asked<'t> {
    List,
    Show(EventId),
    Change(Change, Option<EventId>),
    Queue,
    Routes,
    Pause(&'t str, bool),
}

/// A status and what is said with it.
pub(crate) type Said = (StatusCode, Value);

impl Desk<'_> {
    /// Answers one question. `target` is a path and a query.
    pub(crate) async fn answer(&self, method: &Method, target: &str) -> Said {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asked = match asked(method, path) {
            Ok(asked) => asked,
            Err(said) => return said,
        };
        let query = match Query::read(query) {
            Ok(query) => query,
            Err(wrong) => return refused(&wrong),
        };
        let said = match asked {
            Asked::List => self.list(&query).await,
            Asked::Show(id) => self.show(id, &query).await,
            Asked::Change(change, id) => self.change(change, id, &query).await,
            Asked::Queue => self.state().await,
            Asked::Routes => Ok(self.routes()),
            Asked::Pause(route, pause) => Ok(self.pause(route, pause)),
        };
        said.unwrap_or_else(|problem| down(&problem))
    }

    async fn list(&self, query: &Query) -> Result<Said, QueueError> {
        let page = self
            .queue
            .list(&query.filter, query.after.clone(), query.limit.unwrap_or(PAGE))
            .await?;
        Ok(ok(view::page(&page)))
    }

    async fn show(&self, id: EventId, query: &Query) -> Result<Said, QueueError> {
        Ok(match self.queue.show(id).await? {
            Some(shown) => ok(view::shown(id, &shown, query.with_body)),
            None => said(StatusCode::NOT_FOUND, "there is no event of this id"),
        })
    }

    async fn change(&self, change: Change, id: Option<EventId>, query: &Query) -> Result<Said, QueueError> {
        let filter = Filter {
            id: id.or(query.filter.id),
            ..query.filter.clone()
        };
        if filter == Filter::default() && !query.all {
            let words = "this would change every delivery; say which, or all=true";
            return Ok(said(StatusCode::BAD_REQUEST, words));
        }
        let max = query.limit.unwrap_or(BATCH);
        let changed = self.queue.change(change, &filter, query.after.clone(), max).await?;
        Ok(ok(json!({
            "changed": changed.changed,
            "skipped": changed.skipped,
            "next": changed.next.as_ref().map(view::cursor),
        })))
    }

    async fn state(&self) -> Result<Said, QueueError> {
        let counts = self.queue.counts().await?;
        let health = match self.queue.health() {
            Health::Open => "open",
            Health::Full => "full",
            Health::Closed => "closed",
        };
        let now = self.clock.steady();
        Ok(ok(json!({ "health": health, "lanes": view::counts(&counts, now) })))
    }

    fn routes(&self) -> Said {
        let Some(worker) = self.worker else { return idle() };
        let routes = worker.routes().into_iter();
        let routes: Vec<Value> = routes
            .map(|(route, paused)| json!({ "route": &*route, "paused": paused }))
            .collect();
        ok(json!({ "routes": routes }))
    }

    fn pause(&self, route: &str, pause: bool) -> Said {
        let Some(worker) = self.worker else { return idle() };
        let known = match pause {
            true => worker.pause(route),
            false => worker.resume(route),
        };
        match known {
            true => {
                log::warn!("route {route}: deliveries {}", if pause { "paused" } else { "resumed" });
                ok(json!({ "route": route, "paused": pause }))
            }
            false => said(StatusCode::NOT_FOUND, "there is no route of this name that queues"),
        }
    }
}

fn asked<'t>(method: &Method, path: &'t str) -> Result<Asked<'t>, Said> {
    let rest = path.strip_prefix("/api/").unwrap_or_default();
    let parts: Vec<&str> = rest.split('/').collect();
    let nothing = || said(StatusCode::NOT_FOUND, "nothing is here; see docs/openapi.yaml");
    let (wanted, asked) = match parts.as_slice() {
        ["events"] => (Method::GET, Asked::List),
        ["queue"] => (Method::GET, Asked::Queue),
        ["routes"] => (Method::GET, Asked::Routes),
        ["routes", route, "pause"] => (Method::POST, Asked::Pause(route, true)),
        ["routes", route, "resume"] => (Method::POST, Asked::Pause(route, false)),
        ["events", verb @ ("retry" | "cancel" | "purge")] => (Method::POST, Asked::Change(change(verb), None)),
        ["events", id] => (Method::GET, Asked::Show(event_id(id).ok_or_else(nothing)?)),
        ["events", id, verb @ ("retry" | "cancel" | "purge")] => {
            let id = event_id(id).ok_or_else(nothing)?;
            (Method::POST, Asked::Change(change(verb), Some(id)))
        }
        _ => return Err(nothing()),
    };
    match *method == wanted {
        true => Ok(asked),
        false => Err(said(StatusCode::METHOD_NOT_ALLOWED, "another method is meant")),
    }
}

fn change(verb: &str) -> Change {
    match verb {
        "retry" => Change::Retry,
        "cancel" => Change::Cancel,
        _ => Change::Purge,
    }
}

fn event_id(text: &str) -> Option<EventId> {
    text.parse().ok().map(EventId)
}

fn ok(value: Value) -> Said {
    (StatusCode::OK, value)
}

fn said(status: StatusCode, words: &str) -> Said {
    (status, json!({ "error": words }))
}

fn refused(wrong: &Wrong) -> Said {
    said(StatusCode::BAD_REQUEST, &wrong.to_string())
}

fn idle() -> Said {
    said(
        StatusCode::CONFLICT,
        "nothing is delivered here: the gateway does not run",
    )
}

fn down(problem: &QueueError) -> Said {
    match problem {
        QueueError::Damaged => said(StatusCode::GONE, &problem.to_string()),
        QueueError::Full | QueueError::Closed => said(StatusCode::SERVICE_UNAVAILABLE, &problem.to_string()),
    }
}
