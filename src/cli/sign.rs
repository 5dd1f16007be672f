//! `hookward sign`: the headers a provider would send with a body.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::HeaderName;

use super::{SecretArgs, say};
use crate::clock::{Clock, UnixMillis};
use crate::providers::{Provider, builtin};
use crate::secret::Secret;
use crate::signature;

#[derive(Args)]
pub(super) struct Sign {
    /// A built-in provider
    provider: String,
    #[command(flatten)]
    secret: SecretArgs,
    /// The body to sign, byte for byte; `-` for standard input
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The event id, for providers that sign one in a header (default: a new one)
    #[arg(long)]
    id: Option<String>,
    /// The signed time in Unix seconds (default: now)
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<u64>,
    /// Print a whole curl command
    #[arg(long)]
    curl: bool,
    /// The address in that command
    #[arg(long, default_value = "http://127.0.0.1:8080/", value_name = "URL")]
    url: String,
}

impl Sign {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let provider = find(&self.provider)?;
        let body = read(&self.body)?;
        let id = self.id.clone().map_or_else(new_id, Ok)?;
        let now = self
            .timestamp
            .map_or_else(|| Clock::system().wall(), UnixMillis::from_seconds);
        let headers = sign(&provider, &self.secret.read()?, &id, now, &body)?;
        match self.curl {
            true => say(self.curl_command(&headers))?,
            false => headers
                .iter()
                .try_for_each(|(name, value)| say(format_args!("{name}: {value}")))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn curl_command(&self, headers: &[(HeaderName, String)]) -> String {
        let mut command = format!(
            "curl -i {} --data-binary {}",
            quoted(&self.url),
            quoted(&format!("@{}", self.body.display()))
        );
        let content_type = (http::header::CONTENT_TYPE, "application/json".to_owned());
        for (name, value) in std::iter::once(&content_type).chain(headers) {
            command.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
        }
        command
    }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = match path == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
        }
        false => std::fs::read(path),
    };
    bytes.with_context(|| format!("cannot read {}", path.display()))
}

/// The built-in provider called `id`.
pub(super) fn find(id: &str) -> anyhow::Result<Arc<Provider>> {
    let Some(provider) = builtin().find(id) else {
        let known: Vec<_> = builtin().ids().collect();
        bail!("there is no provider called {id:?}; there are {}", known.join(", "));
    };
    Ok(Arc::clone(provider))
}

/// Signs as `provider` would.
pub(super) fn sign(
    provider: &Provider,
    secret: &Secret,
    id: &str,
    now: UnixMillis,
    body: &[u8],
) -> anyhow::Result<Vec<(HeaderName, String)>> {
    signature::sign(&provider.scheme, secret, id, now, body)
        .with_context(|| format!("cannot sign as {} with this secret", provider.title))
}

/// An id that no other event has.
pub(super) fn new_id() -> anyhow::Result<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("the system has no random numbers: {e}"))?;
    Ok(hex::encode(bytes))
}
