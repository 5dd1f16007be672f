//! The way to the queue: the admin API of the gateway that runs, or the data directory of one that does not.
//!
//! The configuration says where both are. It is read for that alone: an operator's shell need not have the secrets of
//! every route, and a mistake elsewhere in the file must not keep anybody from looking at the dead letters. A directory
//! that a process holds is never opened a second time, so there is no moment in which two would deliver.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use crate::cli::client;
use crate::clock::Clock;
use crate::config::{DeskPlan, desk_plan};
use crate::database::OpenError;
use crate::queue::{Queue, SqliteQueue};
use crate::server::Desk;

/// Where questions are put.
pub(super) enum Door {
    /// A gateway that runs.
    Api { url: String, authorization: HeaderMap },
    /// A data directory.
    File { queue: Arc<dyn Queue>, clock: Clock },
}

impl Door {
    /// Finds the way that the configuration at `path` describes.
    pub(super) async fn open(path: &Path) -> anyhow::Result<Door> {
        let plan = desk_plan(path).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        if let Some(door) = Door::running(&plan).await {
            return Ok(door);
        }
        let data = plan
            .data
            .context("the configuration has no `data`: nothing is queued")?;
        let clock = Clock::system();
        match SqliteQueue::open(&data, clock.clone(), Box::new(|_| {})) {
            Ok((queue, _)) => Ok(Door::File { queue, clock }),
            Err(OpenError::InUse(dir)) => bail!(
                "{} is in use by a gateway that cannot be asked: it needs `admin` and `api`, and this shell the secret",
                dir.display()
            ),
            Err(problem) => Err(problem.into()),
        }
    }

    /// The API, when there is one and something answers there.
    async fn running(plan: &DeskPlan) -> Option<Door> {
        let (address, secret) = (plan.admin?, plan.secret.as_ref()?);
        tokio::net::TcpStream::connect(address).await.ok()?;
        let secret = std::str::from_utf8(secret.expose()).ok()?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {secret}")).ok()?;
        bearer.set_sensitive(true);
        Some(Door::Api {
            url: format!("http://{address}"),
            authorization: HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]),
        })
    }

    /// Asks.
    pub(super) async fn get(&self, target: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, target).await
    }

    /// Changes.
    pub(super) async fn post(&self, target: &str) -> anyhow::Result<Value> {
        self.ask(Method::POST, target).await
    }

    /// Whether a gateway answers, and not its data directory.
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Door::Api { .. })
    }

    /// Lets go of the data directory.
    pub(super) async fn close(&self) {
        if let Door::File { queue, .. } = self {
            queue.close().await;
        }
    }

    async fn ask(&self, method: Method, target: &str) -> anyhow::Result<Value> {
        let (status, value) = match self {
            Door::Api { url, authorization } => {
                let answer = client::exchange(&method, &format!("{url}{target}"), authorization, b"")?;
                let value = serde_json::from_slice(&answer.body).context("the gateway's answer is no JSON")?;
                (answer.status, value)
            }
            Door::File { queue, clock } => {
                let desk = Desk {
                    queue,
                    worker: None,
                    clock,
                };
                let (status, value) = desk.answer(&method, target).await;
                (status.as_u16(), value)
            }
        };
        match (status, value["error"].as_str()) {
            (200, _) => Ok(value),
            (_, Some(error)) => bail!("{error}"),
            (status, None) => bail!("the gateway answered {status}"),
        }
    }
}
