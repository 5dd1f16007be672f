//! `hookward check`: all problems of a configuration at once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{EX_CONFIG, say};
use crate::clock::Clock;
use crate::config::plan_file;

#[derive(Args)]
pub(super) struct Check {
    /// The configuration
    file: PathBuf,
}

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let (plan, problems) = plan_file(&self.file, Clock::system().wall());
        if !problems.is_empty() {
            say(problems.to_string().trim_end())?;
        }
        let Some(plan) = plan else {
            return Ok(ExitCode::from(EX_CONFIG));
        };
        let (routes, upstreams) = (&plan.gateway.routes, &plan.gateway.upstreams);
        let (routes, upstreams) = (counted(routes.len(), "route"), counted(upstreams.len(), "upstream"));
        say(format_args!(
            "{}: fit to run: {routes}, {upstreams}",
            self.file.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
