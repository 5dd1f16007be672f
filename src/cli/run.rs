//! `hookward run`: from a configuration to a serving process, and to its end.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{EX_CONFIG, complain};
use crate::clock::Clock;
use crate::config::{Placed, Plan, Reloaded, Watch, plan_file, reload, server_address};
use crate::gateway::{Deliver, Guard, ReplayPolicy, RouteSettings};
use crate::observe::{AccessLog, ProcessLog, ProcessLogSettings, panics};
use crate::server::{Bound, ListenSettings, Server};

#[derive(Args)]
pub(super) struct Run {
    /// The configuration
    file: PathBuf,
    /// Send everything to this server instead of the configured upstreams
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        small_pages();
        let clock = Clock::system();
        let (plan, problems) = plan_file(&self.file, clock.wall());
        if !problems.is_empty() {
            complain(&problems);
        }
        drop(problems);
        let Some(plan) = plan else {
            return Ok(ExitCode::from(EX_CONFIG));
        };
        let upstream = self.upstream.as_deref().map(server_address).transpose();
        let upstream = upstream.map_err(anyhow::Error::msg).context("--upstream")?;
        let settings = ProcessLogSettings::at(plan.log.level);
        ProcessLog::install(&settings, clock.clone()).map_err(|_| anyhow!("another log is installed"))?;
        panics::watch();
        let bound = Bound::new(&plan.server)?;
        let placed = Placed {
            sample: bound.sample(),
            upstream,
            certificates: Vec::new(),
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = plan.server.threads {
            runtime.worker_threads(threads);
        }
        let runtime = runtime.enable_all().build().context("cannot start threads")?;
        runtime.block_on(self.serve(plan, bound, placed, clock))?;
        // Whatever is left after the drain is not waited for.
        runtime.shutdown_background();
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self, mut plan: Plan, bound: Bound, mut placed: Placed, clock: Clock) -> anyhow::Result<()> {
        let access = match plan.log.access {
            true => AccessLog::stdout(plan.log.format).context("cannot start the access log")?,
            false => AccessLog::off(),
        };
        // From before names are looked up, which may take long.
        let mut watch = plan.watch.map(|every| Watch::new(self.files(&plan.files), every));
        plan.place(&placed);
        let guard = plan.guard(clock, access).context("cannot use the data directory")?;
        guard.rules().look_up().await;
        let mut signals = Signals::new()?;
        let banner = banner(&plan, &bound);
        let mut settings = plan.server.clone();
        settings.doors.fit(descriptors());
        let server = Server::start(bound, &settings, &guard).context("cannot serve")?;
        placed.certificates = server.certificates().to_vec();
        complain(banner);
        loop {
            let wish = tokio::select! {
                wish = signals.next() => wish,
                () = changed(&mut watch) => Wish::Reload,
            };
            if wish == Wish::End {
                break;
            }
            if let (Some(files), Some(watch)) = (self.reload(&guard, &plan, &placed).await, &mut watch) {
                watch.follow(self.files(&files));
            }
        }
        tokio::select! {
            () = server.stop() => {}
            // Asked twice: not even what is in flight is waited for.
            _ = signals.next_end() => {}
        }
        Ok(())
    }

    /// The files to watch: the configuration, and those that it names.
    fn files(&self, named: &[PathBuf]) -> Vec<PathBuf> {
        std::iter::once(&self.file).chain(named).cloned().collect()
    }

    /// Reloads; the files that the new configuration names.
    async fn reload(&self, guard: &Guard, running: &Plan, placed: &Placed) -> Option<Vec<PathBuf>> {
        let file = self.file.display();
        match reload(&self.file, guard, running, placed).await {
            Reloaded::Done {
                problems,
                waiting,
                files,
            } => {
                for problem in problems.to_string().lines() {
                    log::warn!("{problem}");
                }
                if !waiting.is_empty() {
                    log::warn!("{file}: changes of {} wait for a restart", waiting.join(", "));
                }
                log::info!("{file}: reloaded");
                Some(files)
            }
            Reloaded::Refused(problems) => {
                for problem in problems.to_string().lines() {
                    log::error!("{problem}");
                }
                log::error!("{file}: not reloaded; the configuration in force stays");
                None
            }
        }
    }
}

/// Has the system give the process memory by the 4 KiB, not by the 2 MiB: it clears as much before the process may go on,
/// again and again as memory is given back and taken, and on a virtual machine that took five milliseconds each time, in
/// which a thread serves nobody. Larger pages are faster where thousands of connections of HTTP/2 are busy, by a tenth at most.
fn small_pages() {
    // A system that does not know of this goes on as it is.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Raises the number of descriptors to what the system allows; how many that is.
fn descriptors() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX)
}

#[derive(PartialEq)]
enum Wish {
    Reload,
    End,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
        }
    }

    async fn next_end(&mut self) {
        while self.next().await != Wish::End {}
    }
}

/// What listens where, what is verified how, and what to try first.
fn banner(plan: &Plan, bound: &Bound) -> String {
    let mut text = format!("hookward {}\n\n", env!("CARGO_PKG_VERSION"));
    for (address, listen) in bound.listen().iter().zip(&plan.server.listen) {
        let protocol = if listen.tls.is_some() { "https" } else { "http" };
        text.push_str(&format!("  webhooks   {protocol}://{address}\n"));
    }
    if let Some(address) = bound.admin() {
        text.push_str(&format!("  admin      http://{address}/metrics /healthz /readyz\n"));
    }
    text.push('\n');
    for route in &plan.gateway.routes {
        text.push_str(&route_line(route));
    }
    match &plan.gateway.passthrough {
        Some(upstream) => text.push_str(&format!("  everything else -> {upstream}, not verified\n")),
        None => text.push_str("  everything else: 404\n"),
    }
    match &plan.data {
        Some(data) => text.push_str(&format!(
            "  events and repeats are kept in {}\n",
            data.data.dir.display()
        )),
        None => text.push_str("  repeats are remembered in memory: a restart forgets them\n"),
    }
    // `send` speaks plain HTTP, and for nobody else.
    let plain = |listen: &ListenSettings| listen.tls.is_none() && listen.proxies.is_none();
    let plain = plan.server.listen.iter().position(plain);
    let address = plain.and_then(|at| bound.listen().get(at).copied());
    if let (Some(route), Some(address)) = (plan.gateway.routes.first(), address) {
        let provider = &route.provider.id;
        let url = format!("http://{address}{}", route.path);
        let program = std::env::args().next().unwrap_or_else(|| "hookward".to_owned());
        text.push_str(&format!(
            "\nTry it from another terminal, with the secret of route {}:\n\n  \
             {program} send {provider} --url {url} --secret SECRET\n  \
             {program} send {provider} --url {url} --secret SECRET --forge\n\n",
            route.name
        ));
    }
    text
}

fn route_line(route: &RouteSettings) -> String {
    let methods: Vec<_> = route.methods.iter().map(|method| method.as_str()).collect();
    let replay = match route.replay {
        ReplayPolicy::Guard { keep, .. } => format!("repeats known for {} h", keep.as_secs() / 3600),
        ReplayPolicy::Off => "repeats let through".to_owned(),
    };
    let way = match &route.deliver {
        Deliver::Forward { upstream, .. } => upstream.clone(),
        Deliver::Queue { destinations, .. } => {
            let names: Vec<_> = destinations.iter().map(|destination| &*destination.name).collect();
            format!("queue -> {}", names.join(", "))
        }
    };
    format!(
        "  {} {}{} -> {}\n      {}: {} events per {:?}, bodies up to {} KiB, {} in flight, {replay}\n",
        methods.join(","),
        route.host.as_deref().unwrap_or(""),
        route.path,
        way,
        route.provider.id,
        route.rate.count,
        route.rate.per,
        route.body_bytes_max / 1024,
        route.in_flight_max,
    )
}
