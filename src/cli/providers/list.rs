//! All providers at once: a table for the terminal, a page for the documentation.

use std::io;

use super::Line;
use crate::cli::say;
use crate::signature::Strength;

/// The table.
pub(super) fn table(lines: &[Line]) -> io::Result<()> {
    let width = |of: fn(&Line) -> &str| lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0);
    let (ids, names) = (width(|line| &line.id), width(|line| &line.name));
    for line in lines {
        say(format_args!(
            "{:<ids$}  {:<names$}  {:<13}  {}",
            line.id, line.name, line.strength, line.signs_with
        ))?;
    }
    Ok(())
}

/// The page, which links to each vendor's own.
pub(super) fn page(lines: &[Line]) -> String {
    let verified = lines
        .iter()
        .filter(|line| line.strength == Strength::Verified.as_str())
        .count();
    let mut page = format!(
        "# Providers\n\n\
         {} of them, {verified} of which prove sender and body (`verified`); the others prove the sender alone (`authenticated`).\n\
         `hookward providers NAME` shows one with all that a route needs for it. This page is the output of\n\
         `hookward providers --markdown`; what it says comes from the files in [conf/providers](../conf/providers).\n\n\
         - *signs with*: the algorithm; `native` verifiers are for what the [scheme language](schemes.md) cannot say.\n\
         - *fresh*: how far the signed time may be from the clock; without one the replay guard alone stops a repeat.\n\
         - *event id*: whether a signed id tells an event from every other; if not, the digest of what is signed has to do.\n\
         - *needs*: what a route says besides secrets: `public_url`, `settings`.\n\n\
         | provider | `provider:` | proves | signs with | fresh | event id | needs | handshake |\n\
         |---|---|---|---|---|---|---|---|\n",
        lines.len()
    );
    for line in lines {
        page.push_str(&row(line));
    }
    page.push_str("\n## Mind\n\nWhat is not covered, and what people get wrong.\n");
    for line in lines.iter().filter(|line| !line.traps.is_empty()) {
        page.push_str(&format!("\n**{}** (`{}`)\n\n", line.name, line.id));
        line.traps
            .iter()
            .for_each(|trap| page.push_str(&format!("- {}\n", cell(trap))));
    }
    page
}

/// The table of the README: who is there, by what a signature proves.
pub(super) fn summary(lines: &[Line]) -> String {
    let of = |strength: Strength| {
        let ids: Vec<_> = lines
            .iter()
            .filter(|line| line.strength == strength.as_str())
            .map(|line| line.id.as_str())
            .collect();
        (ids.len(), ids.join(", "))
    };
    let (verified, authenticated) = (of(Strength::Verified), of(Strength::Authenticated));
    format!(
        "| {} providers | |\n|---|---|\n| **verified**: sender and body ({}) | {} |\n| **authenticated**: the sender alone ({}) | {} |\n",
        lines.len(),
        verified.0,
        verified.1,
        authenticated.0,
        authenticated.1
    )
}

fn row(line: &Line) -> String {
    let name = match &line.docs {
        Some(docs) => format!("[{}]({docs})", cell(&line.name)),
        None => cell(&line.name),
    };
    let fresh = line
        .tolerance_seconds
        .map_or("-".to_owned(), |seconds| format!("{seconds} s"));
    let url = line.public_url.then(|| "public_url".to_owned());
    let needs: Vec<_> = url
        .into_iter()
        .chain(line.settings.iter().cloned())
        .map(|need| format!("`{need}`"))
        .collect();
    format!(
        "| {name} | `{}` | {} | {} | {fresh} | {} | {} | {} |\n",
        line.id,
        line.strength,
        line.signs_with,
        if line.event_id_signed { "signed" } else { "-" },
        needs.join(", "),
        if line.handshakes.is_empty() { "" } else { "yes" },
    )
}

/// Text that does not end a cell, nor begin an element.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
