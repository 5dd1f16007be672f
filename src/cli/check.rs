//! `hookward check`: all problems of a configuration at once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::EX_CONFIG;
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
            print!("{problems}");
        }
        let Some(plan) = plan else {
            return Ok(ExitCode::from(EX_CONFIG));
        };
        let (routes, upstreams) = (plan.gateway.routes.len(), plan.gateway.upstreams.len());
        println!(
            "{}: fit to run: {routes} routes, {upstreams} upstreams",
            self.file.display()
        );
        Ok(ExitCode::SUCCESS)
    }
}
