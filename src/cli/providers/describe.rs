//! One provider: how it signs, what that covers, what people get wrong, and a route to paste.

use std::io;

use super::Line;
use crate::cli::say;
use crate::providers::{EventId, Provider, Selector, builtin};
use crate::signature::Strength;

pub(super) fn describe(provider: &Provider, line: &Line) -> io::Result<()> {
    let entry = |what: &str, text: &str| say(format_args!("{what:<16}{text}"));
    entry("provider", &format!("{} ({})", provider.id, provider.title))?;
    if let Some(docs) = &provider.docs {
        entry("documentation", docs)?;
    }
    if let (Some(checked), Some(confidence)) = (&line.checked, &line.confidence) {
        entry("checked", &format!("{checked}, {confidence}"))?;
    }
    let proves = match provider.scheme.strength() {
        Strength::Verified => "verified: the sender, and every byte of the body",
        _ => "authenticated: the sender, not the body",
    };
    entry("proves", proves)?;
    entry("signs with", &line.signs_with)?;
    let headers: Vec<_> = provider
        .scheme
        .security_headers()
        .iter()
        .map(|name| name.as_str())
        .collect();
    if !headers.is_empty() {
        entry("reads", &headers.join(", "))?;
    }
    let freshness = line
        .tolerance_seconds
        .map(|seconds| format!("signed within {seconds} s"));
    let unsigned = "no age is demanded: only the replay guard stops a repeat";
    entry("freshness", freshness.as_deref().unwrap_or(unsigned))?;
    event(provider)?;
    for handshake in &line.handshakes {
        entry("handshake", &format!("answered at the gateway: {handshake}"))?;
    }
    if let Some(retry) = &provider.retry {
        if let Some(deadline) = retry.deadline {
            entry("waits", &format!("{} s for an answer", deadline.as_secs()))?;
        }
        if let Some(schedule) = &retry.schedule {
            entry("retries", schedule)?;
        }
    }
    for trap in &provider.traps {
        entry("mind", trap)?;
    }
    say("\nThe scheme, as conf/providers has it:\n")?;
    say(scheme_text(&provider.id))?;
    say("\nA route to paste:\n")?;
    say(route(provider))
}

fn event(provider: &Provider) -> io::Result<()> {
    let entry = |what: &str, text: &str| say(format_args!("{what:<16}{text}"));
    match &provider.event.id {
        EventId::Json(path) => entry("event id", &format!("{path} in the body, signed"))?,
        EventId::Form(name) => entry("event id", &format!("{name} in the form, signed"))?,
        EventId::Signed => entry("event id", "where the scheme has it, signed")?,
        EventId::Unsigned(why) => {
            let why = why.as_deref().unwrap_or("-");
            entry("event id", &format!("digest of what is signed: {why}"))?;
            if let Some(alike) = &provider.event.alike {
                entry(
                    "repeats",
                    &format!("let through, unless a route says `replay`: {alike}"),
                )?;
            }
        }
    }
    match &provider.event.kind {
        Some(Selector::Json(path)) => entry("event type", &format!("{path} in the body")),
        Some(Selector::Form(name)) => entry("event type", &format!("{name} in the form")),
        Some(Selector::Header(name)) => entry("event type", &format!("{name}, not signed")),
        None => Ok(()),
    }
}

/// The lines of the file that say how it signs.
fn scheme_text(id: &str) -> String {
    let text = builtin().text(id).unwrap_or_default();
    let from_scheme = text.lines().skip_while(|line| *line != "scheme:");
    let inside = |line: &&str| line.starts_with(' ') || *line == "scheme:";
    let lines: Vec<_> = from_scheme.take_while(inside).map(|line| format!("  {line}")).collect();
    lines.join("\n")
}

fn route(provider: &Provider) -> String {
    let id = &provider.id;
    let name = id.to_uppercase().replace('-', "_");
    let mut route = format!("  - name: {id}\n    path: /webhooks/{id}\n    provider: {id}\n");
    let brought = format!("/run/secrets/{id}");
    match provider.handshakes.bring_secrets() {
        true => route.push_str(&format!("    secrets: [{{ file: {brought} }}]\n")),
        false if provider.scheme.needs_secrets() => {
            route.push_str(&format!("    secrets: [{{ env: {name}_WEBHOOK_SECRET }}]\n"));
        }
        false => {}
    }
    if provider.scheme.needs_public_url() || provider.handshakes.use_url() {
        route.push_str(&format!("    public_url: https://hooks.example.com/webhooks/{id}\n"));
    }
    if !provider.settings.is_empty() {
        route.push_str("    settings:\n");
    }
    for (setting, what) in &provider.settings {
        route.push_str(&format!("      {setting}: \"...\" # {what}\n"));
    }
    if provider.handshakes.bring_secrets() {
        let path = format!("/run/secrets/{id}");
        route.push_str(&format!(
            "    register: {{ until: 2026-12-31T12:00:00Z, into: {path} }}\n"
        ));
    }
    route.push_str("    upstream: app");
    route
}
