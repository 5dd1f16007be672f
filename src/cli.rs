//! The command line: `run`, `check`, `providers`, `sign`, `send`, `explain`, `events`.
//!
//! Every command is a file in `cli/`. Exit codes: 0 success; 1 it did not work; 2 wrong usage; 78 (`EX_CONFIG` of
//! sysexits) a configuration that must not start. What a command reports goes to standard output, what went wrong
//! to standard error; `run` leaves standard output to the access log. Secrets are taken from options, files or the
//! environment and are never printed.

mod check;
mod client;
mod events;
mod explain;
mod providers;
mod run;
mod send;
mod sign;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::secret::{Secret, SecretSource};

/// A configuration that must not start.
const EX_CONFIG: u8 = 78;

/// The webhook gateway: proves every webhook genuine, fresh and new before your backend sees it.
#[derive(Parser)]
#[command(name = "hookward", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Run(run::Run),
    /// Check a configuration and print all of its problems
    Check(check::Check),
    /// List the built-in providers, or describe one
    Providers(providers::Providers),
    /// Print the headers that a provider would sign a body with
    Sign(sign::Sign),
    /// Send a signed webhook, or a bad one, and show the answer
    Send(send::Send),
    /// Say why a captured request is refused
    Explain(explain::Explain),
    /// Look at queued events, deliver them again, end or remove them
    Events(events::Events),
}

/// Parses the command line, runs the command and says how it ended.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
        Command::Providers(providers) => providers.execute(),
        Command::Sign(sign) => sign.execute(),
        Command::Send(send) => send.execute(),
        Command::Explain(explain) => explain.execute(),
        Command::Events(events) => events.execute(),
    };
    result.unwrap_or_else(|problem| {
        complain(format_args!("hookward: {problem:#}\n"));
        ExitCode::FAILURE
    })
}

/// Writes a line of what a command reports.
///
/// # Errors
/// It cannot be written. A reader that has seen enough and left (`hookward providers | head -1`) is no error.
fn say(line: impl Display) -> io::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes what went wrong, or what else must not get in between the lines of a report.
fn complain(text: impl Display) {
    // There is nobody left to tell that standard error is gone.
    let _ = write!(io::stderr(), "{text}");
}

/// Where a signing secret comes from.
#[derive(Args)]
#[group(multiple = false)]
struct SecretArgs {
    /// The secret itself (other users of the machine can see it in the process list)
    #[arg(long, value_name = "TEXT")]
    secret: Option<String>,
    /// A file with the secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// An environment variable with the secret
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
}

/// Makes one of [`SecretArgs`] required.
fn secret_required() -> ArgGroup {
    ArgGroup::new("signing")
        .args(["secret", "secret_file", "secret_env"])
        .required(true)
}

impl SecretArgs {
    fn read(&self) -> anyhow::Result<Secret> {
        let source = match self {
            SecretArgs { secret: Some(text), .. } => SecretSource::Value(Secret::new(text.as_bytes())?),
            SecretArgs {
                secret_file: Some(path),
                ..
            } => SecretSource::File(path.clone()),
            SecretArgs {
                secret_env: Some(name), ..
            } => SecretSource::Env(name.clone()),
            _ => bail!("no secret given"),
        };
        source.resolve().context("the signing secret")
    }
}
