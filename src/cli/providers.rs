//! `hookward providers`: what is built in, and what each of it proves.

use std::io;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::say;
use crate::providers::{EventId, Provider, Selector, builtin};

#[derive(Args)]
pub(super) struct Providers {
    /// Describe this one
    id: Option<String>,
}

impl Providers {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Some(id) = self.id else {
            for provider in builtin().iter() {
                say(format_args!("{:<20} {}", provider.id, provider.title))?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        match builtin().find(&id) {
            Some(provider) => describe(provider)?,
            None => match builtin().nearest(&id) {
                Some(near) => bail!("there is no provider called {id:?}; did you mean {near}?"),
                None => bail!("there is no provider called {id:?}"),
            },
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(provider: &Provider) -> io::Result<()> {
    let line = |what: &str, text: &str| say(format_args!("{what:<16}{text}"));
    line("provider", &format!("{} ({})", provider.id, provider.title))?;
    if let Some(docs) = &provider.docs {
        line("documentation", docs)?;
    }
    let headers: Vec<_> = provider
        .scheme
        .security_headers()
        .iter()
        .map(|name| name.as_str())
        .collect();
    line("reads", &headers.join(", "))?;
    let tolerance = provider.scheme.tolerance();
    let freshness = tolerance.map(|tolerance| format!("signed within {} s", tolerance.as_secs()));
    line(
        "freshness",
        freshness
            .as_deref()
            .unwrap_or("no signed time: only the replay guard stops a repeat"),
    )?;
    match &provider.event.id {
        EventId::Json(path) => line("event id", &format!("{path} in the body, signed"))?,
        EventId::Signed => line("event id", "its header, signed")?,
        EventId::Unsigned(why) => line(
            "event id",
            &format!("digest of what is signed: {}", why.as_deref().unwrap_or("-")),
        )?,
    }
    match &provider.event.kind {
        Some(Selector::Json(path)) => line("event type", &format!("{path} in the body"))?,
        Some(Selector::Header(name)) => line("event type", &format!("{name}, not signed"))?,
        None => {}
    }
    if let Some(handshake) = &provider.handshake {
        line(
            "handshake",
            &format!(
                "answered at the gateway when {} is {}",
                handshake.when, handshake.equals
            ),
        )?;
    }
    if let Some(retry) = &provider.retry {
        if let Some(deadline) = retry.deadline {
            line("waits", &format!("{} s for an answer", deadline.as_secs()))?;
        }
        if let Some(schedule) = &retry.schedule {
            line("retries", schedule)?;
        }
    }
    Ok(())
}
