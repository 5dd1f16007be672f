//! `hookward events`: what is queued, and what is to become of it.
//!
//! Asks the running gateway through its admin API, or the data directory itself when no gateway runs; the answers are
//! the same. Tables are for people, `--json` is for scripts: one document, or one line for each event on `export`.
//! Changes go in batches with their progress on standard error, and can be interrupted and repeated.

#![allow(clippy::indexing_slicing, reason = "a JSON value that has no such member is null")]

mod door;
mod progress;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::say;
use crate::clock::Clock;
use crate::units;
use door::Door;
use progress::{Progress, goal};

/// Deliveries asked for at a time when all of them are wanted.
const PAGE: usize = 500;

#[derive(Args)]
pub(super) struct Events {
    /// The configuration of the gateway
    #[arg(long, short, value_name = "FILE", default_value = "hookward.yaml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List deliveries, newest first
    List {
        #[command(flatten)]
        which: Which,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one event: its headers, deliveries and attempts
    Show {
        /// The event
        id: u64,
        /// With its body
        #[arg(long)]
        body: bool,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Deliver dead, cancelled or delivered events again, and waiting ones at once
    Retry(Changing),
    /// End deliveries that are still owed
    Cancel(Changing),
    /// Remove deliveries that have ended
    Purge(Changing),
    /// Write events as lines of JSON, bodies in base64
    Export {
        #[command(flatten)]
        which: Which,
    },
    /// Tell how much waits where
    Queue {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop delivering events of a route; they are accepted all the same, and a restart changes nothing
    Pause {
        /// The route
        route: String,
    },
    /// Deliver events of a route again
    Resume {
        /// The route
        route: String,
    },
    /// List the routes that queue, and which are paused
    Routes {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which deliveries.
#[derive(Args)]
struct Which {
    /// Of this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// To this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// In this state: pending, waiting, blocked, leased, delivered, dead, cancelled
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Dead letters; the same as --state dead
    #[arg(long)]
    dead: bool,
    /// Accepted since then: 2026-11-23T00:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Accepted before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of this type; `customer.*` for all that begin so
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// With this event id of the provider
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
}

#[derive(Args)]
struct Changing {
    /// These events
    ids: Vec<u64>,
    #[command(flatten)]
    which: Which,
    /// Every delivery, whatever it is
    #[arg(long)]
    all: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let door = Door::open(&self.config).await?;
            let done = self.verb.execute(&door).await;
            door.close().await;
            done
        })
    }
}

impl Verb {
    async fn execute(self, door: &Door) -> anyhow::Result<ExitCode> {
        match self {
            Verb::List { which, limit, json } => list(door, &which, limit, json).await,
            Verb::Show { id, body, json } => {
                let shown = door.get(&format!("/api/events/{id}?body={body}")).await?;
                let text = if json { shown.to_string() } else { table::event(&shown) };
                say(text)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Retry(changing) => change(door, "retry", changing).await,
            Verb::Cancel(changing) => change(door, "cancel", changing).await,
            Verb::Purge(changing) => change(door, "purge", changing).await,
            Verb::Export { which } => export(door, &which).await,
            Verb::Queue { json } => {
                let queue = door.get("/api/queue").await?;
                let text = if json { queue.to_string() } else { table::queue(&queue) };
                say(text)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Pause { route } => pause(door, "pause", &route).await,
            Verb::Resume { route } => pause(door, "resume", &route).await,
            Verb::Routes { json } => {
                let routes = door.get("/api/routes").await?;
                let text = if json {
                    routes["routes"].to_string()
                } else {
                    table::routes(&routes)
                };
                say(text)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn list(door: &Door, which: &Which, limit: usize, json: bool) -> anyhow::Result<ExitCode> {
    let mut deliveries = Vec::new();
    let mut pages = Pages::new(which.query()?);
    while deliveries.len() < limit {
        let wanted = limit.saturating_sub(deliveries.len()).min(PAGE);
        let Some(page) = pages.next(door, wanted).await? else {
            break;
        };
        deliveries.extend(page);
    }
    match json {
        true => say(Value::Array(deliveries))?,
        false => say(table::deliveries(&deliveries))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn export(door: &Door, which: &Which) -> anyhow::Result<ExitCode> {
    let mut pages = Pages::new(which.query()?);
    // Deliveries of one event stand beside each other.
    let mut last = None;
    let mut whole = true;
    while let Some(page) = pages.next(door, PAGE).await? {
        for delivery in page {
            let id = delivery["id"].as_u64();
            if id == last {
                continue;
            }
            last = id;
            let id = id.context("a delivery without an id")?;
            match door.get(&format!("/api/events/{id}?body=true")).await {
                Ok(event) => say(event)?,
                // One damaged or just purged event keeps nobody from exporting the others.
                Err(problem) => {
                    whole = false;
                    super::complain(format_args!("event {id}: {problem:#}\n"));
                }
            }
        }
    }
    // A script that purges what it has exported must not go on.
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn pause(door: &Door, verb: &str, route: &str) -> anyhow::Result<ExitCode> {
    let done = door.post(&format!("/api/routes/{}/{verb}", encoded(route))).await?;
    let is = if done["paused"] == true { "paused" } else { "delivered" };
    let when = if door.is_running() {
        ""
    } else {
        " from the next start on"
    };
    say(format_args!("{route}: {is}{when}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn change(door: &Door, verb: &str, changing: Changing) -> anyhow::Result<ExitCode> {
    let query = changing.which.query()?;
    if query.is_empty() && changing.ids.is_empty() && !changing.all {
        bail!("say which events: by their ids, by --route, --state and so on, or --all");
    }
    let mut total = Total::default();
    if changing.ids.is_empty() {
        let all = if changing.all {
            "all=true".to_owned()
        } else {
            String::new()
        };
        let goal = goal(door, &changing.which, verb).await;
        batches(
            door,
            &format!("/api/events/{verb}"),
            &[query.clone(), all],
            goal,
            &mut total,
        )
        .await?;
    }
    let mut all_there = true;
    for id in &changing.ids {
        // Whoever mistypes an id must not believe that it was done.
        if let Err(problem) = door.get(&format!("/api/events/{id}")).await {
            super::complain(format_args!("event {id}: {problem:#}\n"));
            all_there = false;
            continue;
        }
        let target = format!("/api/events/{id}/{verb}");
        batches(door, &target, std::slice::from_ref(&query), None, &mut total).await?;
    }
    let Total { changed, skipped } = total;
    match changing.json {
        true => say(serde_json::json!({ "changed": changed, "skipped": skipped }))?,
        false => say(format_args!("{verb}: {changed} changed, {skipped} left as they are"))?,
    }
    Ok(if all_there {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What a change came to.
#[derive(Default)]
struct Total {
    changed: u64,
    skipped: u64,
}

async fn batches(
    door: &Door,
    target: &str,
    query: &[String],
    goal: Option<u64>,
    total: &mut Total,
) -> anyhow::Result<()> {
    let mut after = String::new();
    let mut progress = Progress::new(goal);
    loop {
        let mut parts: Vec<&str> = query
            .iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        parts.extend(Some(after.as_str()).filter(|after| !after.is_empty()));
        let done = door.post(&format!("{target}?{}", parts.join("&"))).await?;
        let count = |name: &str| done[name].as_u64().unwrap_or(0);
        total.changed = total.changed.saturating_add(count("changed"));
        total.skipped = total.skipped.saturating_add(count("skipped"));
        progress.show(total.changed);
        match done["next"].as_str() {
            Some(next) => after = format!("after={}", encoded(next)),
            None => return Ok(()),
        }
    }
}

/// The pages of a listing, one after another.
struct Pages {
    query: String,
    after: Option<String>,
    over: bool,
}

impl Pages {
    fn new(query: String) -> Self {
        Pages {
            query,
            after: None,
            over: false,
        }
    }

    async fn next(&mut self, door: &Door, limit: usize) -> anyhow::Result<Option<Vec<Value>>> {
        if self.over {
            return Ok(None);
        }
        let mut target = format!("/api/events?limit={limit}");
        for part in [Some(&self.query), self.after.as_ref()].into_iter().flatten() {
            if !part.is_empty() {
                target.push('&');
                target.push_str(part);
            }
        }
        let mut page = door.get(&target).await?;
        self.after = page["next"].as_str().map(|next| format!("after={}", encoded(next)));
        self.over = self.after.is_none();
        match page["deliveries"].take() {
            Value::Array(deliveries) => Ok(Some(deliveries)),
            _ => bail!("the answer has no deliveries"),
        }
    }
}

impl Which {
    fn states(&self) -> Vec<String> {
        let mut states = self.state.clone();
        states.extend(self.dead.then(|| "dead".to_owned()));
        states
    }

    /// The conditions as the desk reads them; empty when there are none.
    fn query(&self) -> anyhow::Result<String> {
        let texts = [
            ("route", self.route.clone()),
            ("destination", self.destination.clone()),
            ("since", self.since.as_deref().map(instant).transpose()?),
            ("until", self.until.as_deref().map(instant).transpose()?),
            ("type", self.event_type.clone()),
            ("event_id", self.event_id.clone()),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let states = self.states().into_iter().map(|state| ("state", state));
        let pairs = texts
            .chain(states)
            .map(|(name, value)| format!("{name}={}", encoded(&value)));
        Ok(pairs.collect::<Vec<_>>().join("&"))
    }
}

/// A date as it is, a length of time as that long ago.
fn instant(text: &str) -> anyhow::Result<String> {
    let Ok(ago) = units::duration(text) else {
        return Ok(text.to_owned());
    };
    let millis = Clock::system().wall().0.saturating_sub(u64::try_from(ago.as_millis())?);
    Ok(jiff::Timestamp::from_millisecond(i64::try_from(millis)?)?.to_string())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
