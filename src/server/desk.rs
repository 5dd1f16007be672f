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

use std::borrow::Cow;
use std::sync::Arc;

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
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
    /// Absent where nothing is delivered. Routes that are paused or resumed then are so from the next start.
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
    Pause(Cow<'t, str>, bool),
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
            Asked::Routes => self.routes().await,
            Asked::Pause(route, pause) => self.pause(&route, pause).await,
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

    async fn routes(&self) -> Result<Said, QueueError> {
        let routes = match self.worker {
            Some(worker) => worker.routes(),
            None => self.known_routes().await?,
        };
        let routes: Vec<Value> = routes
            .into_iter()
            .map(|(route, paused)| json!({ "route": &*route, "paused": paused }))
            .collect();
        Ok(ok(json!({ "routes": routes })))
    }

    /// The routes that ever queued an event or are paused: all that is known where nothing is delivered.
    async fn known_routes(&self) -> Result<Vec<(Arc<str>, bool)>, QueueError> {
        let paused = self.queue.paused();
        let mut routes: Vec<Arc<str>> = self.queue.counts().await?.into_iter().map(|c| c.lane.route).collect();
        routes.extend(paused.iter().cloned());
        routes.sort();
        routes.dedup();
        let each = routes.into_iter().map(|route| {
            let is_paused = paused.contains(&route);
            (route, is_paused)
        });
        Ok(each.collect())
    }

    async fn pause(&self, route: &str, pause: bool) -> Result<Said, QueueError> {
        let known = match self.worker {
            Some(worker) => worker.pause(route, pause).await?,
            None => {
                let known = self.known_routes().await?.iter().any(|(known, _)| &**known == route);
                if known {
                    self.queue.pause(route, pause).await?;
                }
                known
            }
        };
        Ok(match known {
            true => {
                log::warn!("route {route}: deliveries {}", if pause { "paused" } else { "resumed" });
                ok(json!({ "route": route, "paused": pause }))
            }
            false => said(StatusCode::NOT_FOUND, "there is no route of this name that queues"),
        })
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
        ["routes", route, verb @ ("pause" | "resume")] => {
            let route = percent_decode_str(route).decode_utf8().map_err(|_| nothing())?;
            (Method::POST, Asked::Pause(route, *verb == "pause"))
        }
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

fn down(problem: &QueueError) -> Said {
    match problem {
        QueueError::Damaged => said(StatusCode::GONE, &problem.to_string()),
        QueueError::Full | QueueError::Closed => said(StatusCode::SERVICE_UNAVAILABLE, &problem.to_string()),
    }
}
