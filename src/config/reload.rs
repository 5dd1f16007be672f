//! A new configuration for a running process. A bad file changes nothing.
//!
//! The file is read, checked and built whole before the first request sees any of it; then one pointer changes. What
//! is counted, remembered or connected lives elsewhere and stays. Sockets cannot be moved in a running process, so
//! what a reload cannot change is said instead of being half done.

use std::net::SocketAddr;
use std::path::Path;

use super::build::{Plan, plan_file};
use super::problem::Problems;
use crate::gateway::{Guard, Rules};
use crate::upstream::ServerSettings;

/// What a file does not know and a process adds to it, at its start and at every reload alike.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Where the sample backend listens.
    pub sample: Option<SocketAddr>,
    /// The server that stands in for all upstreams.
    pub upstream: Option<ServerSettings>,
}

/// How a reload ended.
pub enum Reloaded {
    /// The new rules are in force. Lists the keys whose change waits for a restart.
    Done(Problems, Vec<&'static str>),
    /// The file has errors; the old rules stay in force.
    Refused(Problems),
}

/// Reads the file at `path` again and puts it in force. `running` is the plan the process was started with, `placed`
/// what was added to it.
pub async fn reload(path: &Path, guard: &Guard, running: &Plan, placed: &Placed) -> Reloaded {
    let shared = guard.shared();
    let (plan, problems) = plan_file(path, shared.clock().wall());
    let Some(mut plan) = plan else {
        shared.metrics().config_refused();
        return Reloaded::Refused(problems);
    };
    plan.place(placed);
    let waiting = plan.waits_for_restart(running);
    let rules = Rules::build(plan.gateway, shared, Some(&guard.rules()));
    rules.look_up().await;
    guard.replace(rules);
    shared.metrics().config_reloaded(shared.clock().wall());
    Reloaded::Done(problems, waiting)
}

impl Plan {
    /// Puts the server that stands in for all upstreams in their place; without one, fills the address of the sample
    /// backend in where the configuration asks for it.
    pub fn place(&mut self, placed: &Placed) {
        let sample = placed.sample.map(|address| ServerSettings {
            tls: false,
            host: address.ip().to_string(),
            port: address.port(),
        });
        for upstream in &mut self.gateway.upstreams {
            match &placed.upstream {
                Some(server) => upstream.servers = vec![server.clone()],
                None if upstream.sample => upstream.servers = sample.iter().cloned().collect(),
                None => {}
            }
        }
    }

    /// The keys in which this plan differs from the running one and that only a restart changes.
    fn waits_for_restart(&self, running: &Plan) -> Vec<&'static str> {
        let (new, old) = (&self.server, &running.server);
        let differs = [
            ("listen", new.listen != old.listen),
            ("admin", new.admin != old.admin),
            ("threads", new.threads != old.threads),
            ("drain", new.drain != old.drain),
            (
                "client.head_timeout",
                new.ingress.head_timeout != old.ingress.head_timeout,
            ),
            (
                "client.head_bytes",
                new.ingress.head_bytes_max != old.ingress.head_bytes_max,
            ),
            (
                "client.idle_timeout",
                new.ingress.idle_timeout != old.ingress.idle_timeout,
            ),
            ("log", self.log != running.log),
            ("data", self.data != running.data),
            ("replay.entries", self.replay_entries != running.replay_entries),
        ];
        differs
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| key)
            .collect()
    }
}
