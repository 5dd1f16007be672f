//! What the request is judged by: a route of a configuration, or a provider and a secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, ensure};
use clap::Args;

use super::capture::Capture;
use crate::cli::SecretArgs;
use crate::cli::sign::{SchemeArgs, find};
use crate::clock::UnixMillis;
use crate::config::{self, RouteKeys};
use crate::providers::Provider;
use crate::signature::{KeyError, KeyedSecret, Verifier, VerifierOptions};

#[derive(Args)]
pub(super) struct CaseArgs {
    /// Judge by a route of this configuration
    #[arg(long, value_name = "FILE", required_unless_present = "provider")]
    config: Option<PathBuf>,
    /// Which route (default: the one whose path the request has)
    #[arg(long, value_name = "NAME", requires = "config")]
    route: Option<String>,
    /// Judge as this built-in provider's, under one secret
    #[arg(long, value_name = "ID", conflicts_with = "config", requires = "SecretArgs")]
    provider: Option<String>,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    scheme: SchemeArgs,
}

/// A scheme with its secrets.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) route: Option<String>,
    pub(super) provider: Arc<Provider>,
    pub(super) secrets: Vec<KeyedSecret>,
    pub(super) options: VerifierOptions,
}

/// Whom the request may be for, and whose secrets are at hand.
pub(super) struct Cases {
    pub(super) relevant: Vec<Case>,
    pub(super) all: Vec<Case>,
}

impl Case {
    fn of(keys: &RouteKeys) -> Case {
        Case {
            route: Some(keys.name.clone()),
            provider: Arc::clone(&keys.provider),
            secrets: keys.secrets.clone(),
            options: keys.options.clone(),
        }
    }

    /// As this case, with other secrets.
    pub(super) fn verifier(&self, secrets: Vec<KeyedSecret>) -> Result<Verifier, KeyError> {
        let options = VerifierOptions {
            allow_short: true,
            ..self.options.clone()
        };
        Verifier::new(Arc::clone(&self.provider.scheme), secrets, options)
    }
}

impl CaseArgs {
    /// The case, or the cases, that the request is for.
    pub(super) fn read(&self, capture: &Capture, at: UnixMillis) -> anyhow::Result<Cases> {
        match &self.config {
            Some(file) => self.of_routes(file, capture, at),
            None => self.of_provider(capture),
        }
    }

    fn of_provider(&self, capture: &Capture) -> anyhow::Result<Cases> {
        let Some(id) = &self.provider else {
            bail!("needs --config, or --provider and its secret");
        };
        let case = Case {
            route: None,
            provider: find(id)?,
            secrets: vec![KeyedSecret {
                id: "given".into(),
                secret: self.secret.read()?,
                until: None,
            }],
            options: self.options(capture)?,
        };
        Ok(Cases {
            relevant: vec![case.clone()],
            all: vec![case],
        })
    }

    /// The URL is the one that the request shows, unless another is given.
    fn options(&self, capture: &Capture) -> anyhow::Result<VerifierOptions> {
        let host = capture
            .headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok());
        let shown = format!("https://{}{}", host.unwrap_or("localhost"), capture.target);
        let (settings, public_url) = self.scheme.read(&shown)?;
        Ok(VerifierOptions {
            public_url: Some(public_url),
            settings,
            ..VerifierOptions::default()
        })
    }

    fn of_routes(&self, file: &Path, capture: &Capture, at: UnixMillis) -> anyhow::Result<Cases> {
        let (keys, problems) = config::route_keys(file, at);
        ensure!(
            !keys.is_empty(),
            "there is no route to judge by\n{}",
            problems.to_string().trim_end()
        );
        let path = capture.target.split('?').next().unwrap_or_default();
        let wanted = |keys: &RouteKeys| match &self.route {
            Some(name) => keys.name == *name,
            None => keys.path == path,
        };
        let relevant: Vec<_> = keys.iter().filter(|keys| wanted(keys)).map(Case::of).collect();
        if relevant.is_empty() {
            let known: Vec<_> = keys
                .iter()
                .map(|keys| format!("{} ({})", keys.name, keys.path))
                .collect();
            match &self.route {
                Some(name) => bail!("there is no route called {name:?}; there are {}", known.join(", ")),
                None => bail!(
                    "no route has the path {path:?}, so the gateway would refuse this with no_route; choose one by --route: {}",
                    known.join(", ")
                ),
            }
        }
        Ok(Cases {
            relevant,
            all: keys.iter().map(Case::of).collect(),
        })
    }
}
