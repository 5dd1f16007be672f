//! `hookward explain`: why a captured request is refused.
//!
//! The request is judged as the gateway would judge it. When the verdict is no, the mistakes that people make are
//! undone one at a time, and two at a time, until the signature is right: a body written anew by a framework, a secret
//! that should have been decoded, a header that a proxy renamed, a clock that is off. What is found this way is certain,
//! since nobody can make a signature fit by chance; what only looks wrong is said to be a guess, after it.
//!
//! No secret, and nothing made of one, is printed.

mod bodies;
mod capture;
mod case;
mod guess;
mod headers;
mod packed;
mod search;
mod secrets;
mod urls;

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::say;
use crate::clock::{Clock, UnixMillis};
use capture::{Capture, CaptureArgs};
use case::CaseArgs;

#[derive(Args)]
pub(super) struct Explain {
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    case: CaseArgs,
    /// When the request was received: Unix seconds or 2026-11-23T14:02:11Z (default: its Date header, or now)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<UnixMillis>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
pub(super) struct Explanation {
    route: Option<String>,
    provider: String,
    /// `accepted`, or the label of the refusal.
    verdict: &'static str,
    /// What the verdict means here.
    summary: String,
    findings: Vec<Finding>,
}

/// A cause, and what to do about it.
#[derive(Serialize)]
pub(super) struct Finding {
    /// Whether the signature is right once this is undone.
    pub(super) certain: bool,
    pub(super) cause: String,
    pub(super) fix: String,
}

impl Explain {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let capture = self.capture.read()?;
        let at = self.at.unwrap_or_else(|| received_at(&capture));
        let cases = self.case.read(&capture, at)?;
        let mut accepted = false;
        for case in &cases.relevant {
            let explanation = explain(case, &cases.all, &capture, at);
            accepted |= explanation.verdict == search::ACCEPTED;
            match self.json {
                true => say(serde_json::to_string_pretty(&explanation).context("the explanation as JSON")?)?,
                false => print(&explanation)?,
            }
        }
        Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn explain(case: &case::Case, others: &[case::Case], capture: &Capture, at: UnixMillis) -> Explanation {
    let search = search::Search::new(case, others, capture, at);
    let (verdict, summary, findings) = search.run();
    Explanation {
        route: case.route.clone(),
        provider: case.provider.id.clone(),
        verdict,
        summary,
        findings,
    }
}

fn print(explanation: &Explanation) -> std::io::Result<()> {
    let Explanation { route, provider, .. } = explanation;
    match route {
        Some(route) => say(format_args!("route {route} ({provider}): {}", explanation.verdict))?,
        None => say(format_args!("{provider}: {}", explanation.verdict))?,
    }
    say(format_args!("  {}", explanation.summary))?;
    for (number, finding) in explanation.findings.iter().enumerate() {
        let how = match (finding.certain, number) {
            (true, 0) => "Cause",
            (true, _) => "Also fits",
            (false, 0) => "Most likely",
            (false, _) => "Or",
        };
        say(format_args!("\n{how}: {}", finding.cause))?;
        say(format_args!("  -> {}", finding.fix))?;
    }
    Ok(())
}

/// The time in the request's `date`, which some senders and proxies set; else now.
fn received_at(capture: &Capture) -> UnixMillis {
    let date = capture
        .headers
        .get(http::header::DATE)
        .and_then(|date| date.to_str().ok());
    let stated = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let stated = stated.and_then(|time| u64::try_from(time.timestamp().as_millisecond()).ok());
    stated.map_or_else(|| Clock::system().wall(), UnixMillis)
}

fn instant(text: &str) -> Result<UnixMillis, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(UnixMillis::from_seconds(seconds));
    }
    let time: Timestamp = text
        .parse()
        .map_err(|_| "write Unix seconds or 2026-11-23T14:02:11Z".to_owned())?;
    u64::try_from(time.as_millisecond())
        .map(UnixMillis)
        .map_err(|_| "is before 1970".to_owned())
}
