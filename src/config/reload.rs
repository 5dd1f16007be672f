//! A new configuration for a running process. A bad file changes nothing.
//!
//! The file is read, checked and built whole before the first request sees any of it; then one pointer changes. What
//! is counted, remembered or connected lives elsewhere and stays. Sockets cannot be moved in a running process, so
//! what a reload cannot change is said instead of being half done.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::build::{Plan, plan_file};
use super::problem::Problems;
use crate::gateway::{Guard, Rules};
use crate::server::{Certificates, ListenSettings};
use crate::upstream::ServerSettings;

/// What a file does not know and a process adds to it, at its start and at every reload alike.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Where the sample backend listens.
    pub sample: Option<SocketAddr>,
    /// The server that stands in for all upstreams.
    pub upstream: Option<ServerSettings>,
    /// The certificates of each listener that speaks TLS, in the order of the file the process was started with.
    pub certificates: Vec<Option<Certificates>>,
}

/// How a reload ended.
pub enum Reloaded {
    /// The new rules are in force.
    Done {
        /// Warnings.
        problems: Problems,
        /// The keys whose change waits for a restart.
        waiting: Vec<&'static str>,
        /// The files that the new configuration names.
        files: Vec<PathBuf>,
    },
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
    placed.replace_certificates(&plan.server.listen, &running.server.listen);
    let rules = Rules::build(plan.gateway, shared, Some(&guard.rules()));
    rules.look_up().await;
    guard.replace(rules);
    shared.metrics().config_reloaded(shared.clock().wall());
    Reloaded::Done {
        problems,
        waiting,
        files: plan.files,
    }
}

impl Placed {
    /// Puts the certificates of `new` in force on those of the `running` listeners that are the same.
    fn replace_certificates(&self, new: &[ListenSettings], running: &[ListenSettings]) {
        for ((new, running), certificates) in new.iter().zip(running).zip(&self.certificates) {
            let (Some(certificates), Some(tls)) = (certificates, &new.tls) else {
                continue;
            };
            if new.address != running.address {
                continue;
            }
            // Read a moment ago when the plan was made; files that changed since are met by the next reload.
            match Certificates::read(tls) {
                Ok(read) => certificates.replace(&read),
                Err(problem) => log::error!("{}: the certificates in force stay: {problem}", new.address),
            }
        }
    }
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
            ("listen", !same_sockets(&new.listen, &old.listen)),
            (
                "client.connections",
                new.doors.connections_max != old.doors.connections_max,
            ),
            (
                "client.connections_each",
                new.doors.client_connections_max != old.doors.client_connections_max,
            ),
            (
                "client.requests_each",
                new.ingress.requests_max != old.ingress.requests_max,
            ),
            ("admin", new.admin != old.admin),
            ("threads", new.threads != old.threads),
            ("upstreams.*.sample", new.sample && !old.sample),
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
            ("watch", self.watch != running.watch),
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

/// Whether the listeners differ in nothing but certificates, which can be replaced.
fn same_sockets(new: &[ListenSettings], old: &[ListenSettings]) -> bool {
    let same = |(new, old): (&ListenSettings, &ListenSettings)| {
        new.address == old.address && new.proxies == old.proxies && new.tls.is_some() == old.tls.is_some()
    };
    new.len() == old.len() && new.iter().zip(old).all(same)
}
