//! `hookward providers`: what is built in, what each of it proves, and what a route needs for it.
//!
//! The pages of the documentation are this command's output (`--markdown`), so that they say what the program does.

mod describe;
mod list;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_yaml::Value;

use super::say;
use crate::providers::{EventId, Provider, builtin};
use crate::signature::Strength;

#[derive(Args)]
pub(super) struct Providers {
    /// Describe this one
    id: Option<String>,
    /// Only those whose id, name or algorithm has this in it
    #[arg(long, value_name = "TEXT", conflicts_with = "id")]
    filter: Option<String>,
    /// Only those that prove this
    #[arg(long, value_name = "WHAT", conflicts_with = "id")]
    proves: Option<Proves>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the page of the documentation
    #[arg(long, conflicts_with_all = ["id", "json", "filter", "proves", "summary"])]
    markdown: bool,
    /// Print the table of the README
    #[arg(long, conflicts_with_all = ["id", "json", "filter", "proves"])]
    summary: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Proves {
    /// Sender and body
    Verified,
    /// The sender alone
    Authenticated,
}

/// A provider in a line.
#[derive(Serialize)]
struct Line {
    id: String,
    name: String,
    docs: Option<String>,
    checked: Option<String>,
    confidence: Option<String>,
    strength: &'static str,
    signs_with: String,
    tolerance_seconds: Option<u64>,
    event_id_signed: bool,
    public_url: bool,
    settings: Vec<String>,
    handshakes: Vec<String>,
    traps: Vec<String>,
}

impl Providers {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        if self.markdown {
            say(list::page(&lines()?).trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.summary {
            say(list::summary(&lines()?).trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(id) = &self.id {
            self.one(id)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut lines = lines()?;
        lines.retain(|line| self.is_wanted(line));
        match self.json {
            true => say(serde_json::to_string_pretty(&lines)?)?,
            false => list::table(&lines)?,
        }
        // So that a script can ask whether there is one.
        Ok(if lines.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn one(&self, id: &str) -> anyhow::Result<()> {
        let Some(provider) = builtin().find(id) else {
            match builtin().nearest(id) {
                Some(near) => bail!("there is no provider called {id:?}; did you mean {near}?"),
                None => bail!("there is no provider called {id:?}"),
            }
        };
        let line = line(provider)?;
        match self.json {
            true => say(serde_json::to_string_pretty(&line)?)?,
            false => describe::describe(provider, &line)?,
        }
        Ok(())
    }

    fn is_wanted(&self, line: &Line) -> bool {
        let has = |text: &str| {
            let texts = [&line.id, &line.name, &line.signs_with];
            texts
                .iter()
                .any(|own| own.to_lowercase().contains(&text.to_lowercase()))
        };
        let proves = self.proves.is_none_or(|wanted| match wanted {
            Proves::Verified => line.strength == Strength::Verified.as_str(),
            Proves::Authenticated => line.strength == Strength::Authenticated.as_str(),
        });
        proves && self.filter.as_deref().is_none_or(has)
    }
}

fn lines() -> anyhow::Result<Vec<Line>> {
    builtin().iter().map(|provider| line(provider)).collect()
}

fn line(provider: &Provider) -> anyhow::Result<Line> {
    let scheme = scheme_of(&provider.id)?;
    Ok(Line {
        id: provider.id.clone(),
        name: provider.title.clone(),
        docs: provider.docs.clone(),
        checked: provider.checked.clone(),
        confidence: provider
            .confidence
            .map(|confidence| format!("{confidence:?}").to_lowercase()),
        strength: provider.scheme.strength().as_str(),
        signs_with: signs_with(&scheme),
        tolerance_seconds: provider.scheme.tolerance().map(|tolerance| tolerance.as_secs()),
        event_id_signed: !matches!(provider.event.id, EventId::Unsigned(_)),
        public_url: provider.scheme.needs_public_url() || provider.handshakes.use_url(),
        settings: provider.settings.keys().cloned().collect(),
        handshakes: provider.handshakes.iter().map(ToString::to_string).collect(),
        traps: provider.traps.clone(),
    })
}

/// The scheme as its file has it.
fn scheme_of(id: &str) -> anyhow::Result<Value> {
    let text = builtin().text(id).context("no such file")?;
    let file: Value = serde_yaml::from_str(text)?;
    file.get("scheme").cloned().context("a file without a scheme")
}

/// The algorithm in a word or two.
fn signs_with(scheme: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("-").to_owned();
    if let Some(native) = scheme.get("native") {
        return format!("native {}", text(Some(native)));
    }
    match scheme.get("jwt") {
        Some(jwt) => format!("jwt {}", text(jwt.get("algorithm"))),
        None => text(scheme.get("algorithm")),
    }
}
