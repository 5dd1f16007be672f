//! `hookward sign`: the headers a provider would send with a body.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::HeaderMap;

use super::{SecretArgs, say, secret_required};
use crate::clock::{Clock, UnixMillis};
use crate::providers::{Provider, builtin};
use crate::secret::Secret;
use crate::signature::{self, Draft, PublicUrl, Settings, Signed};

#[derive(Args)]
#[command(group = secret_required())]
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
    #[command(flatten)]
    scheme: SchemeArgs,
    /// Print a whole curl command
    #[arg(long)]
    curl: bool,
    /// The address in that command
    #[arg(long, default_value = "http://127.0.0.1:8080/", value_name = "URL")]
    url: String,
}

/// What a route would tell the scheme.
#[derive(Args)]
pub(super) struct SchemeArgs {
    /// A value that the scheme asks for by name; `hookward providers ID` lists them
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// The route's `public_url`, for providers that sign the URL
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

impl SchemeArgs {
    /// The settings, and the URL or else `default_url`.
    pub(super) fn read(&self, default_url: &str) -> anyhow::Result<(Settings, PublicUrl)> {
        let mut settings = Settings::default();
        for pair in &self.settings {
            let (name, value) = pair.split_once('=').context("a setting is written NAME=VALUE")?;
            let inserted = settings.insert(name, Secret::new(value)?);
            inserted.map_err(|why| anyhow!("the setting {name} {why}"))?;
        }
        let url = self.public_url.as_deref().unwrap_or(default_url);
        let url = PublicUrl::parse(url).map_err(|why| anyhow!("the URL {why}"))?;
        Ok((settings, url))
    }
}

impl Sign {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let provider = find(&self.provider)?;
        let body = read(&self.body)?;
        let id = match &self.id {
            Some(id) => id.clone(),
            None => signature::fitting_id(&provider.scheme, &new_id()?),
        };
        let now = self
            .timestamp
            .map_or_else(|| Clock::system().wall(), UnixMillis::from_seconds);
        let (settings, public_url) = self.scheme.read(&self.url)?;
        let draft = Draft {
            method: "POST",
            target: public_url.path_and_query(),
            headers: &HeaderMap::new(),
            body: &body,
            public_url: Some(&public_url),
            settings: &settings,
            id: &id,
            now,
        };
        let signed = sign(&provider, &self.secret.read()?, &draft)?;
        if self.curl && signed.body.is_some() {
            bail!("{} changes the body; without --curl it is printed", provider.title);
        }
        match self.curl {
            true => say(self.curl_command(&signed))?,
            false => print(&signed)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn curl_command(&self, signed: &Signed) -> String {
        let url = with_query(&self.url, signed.query.as_deref());
        let mut command = format!(
            "curl -i {} --data-binary {}",
            quoted(&url),
            quoted(&format!("@{}", self.body.display()))
        );
        let content_type = (http::header::CONTENT_TYPE, "application/json".to_owned());
        for (name, value) in std::iter::once(&content_type).chain(&signed.headers) {
            command.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
        }
        command
    }
}

/// The headers, the query where it is another one, and the body where it is another one.
fn print(signed: &Signed) -> anyhow::Result<()> {
    for (name, value) in &signed.headers {
        say(format_args!("{name}: {value}"))?;
    }
    if let Some(query) = &signed.query {
        say(format_args!("?{query}"))?;
    }
    if let Some(body) = &signed.body {
        say(format_args!("\n{}", String::from_utf8_lossy(body)))?;
    }
    Ok(())
}

/// The URL with another query, if there is one.
pub(super) fn with_query(url: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{}?{query}", url.split('?').next().unwrap_or_default()),
        None => url.to_owned(),
    }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Reads a file; `-` is standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
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
pub(super) fn sign(provider: &Provider, secret: &Secret, draft: &Draft<'_>) -> anyhow::Result<Signed> {
    signature::sign_request(&provider.scheme, secret, draft)
        .with_context(|| format!("cannot sign as {} with this secret", provider.title))
}

/// An id that no other event has.
pub(super) fn new_id() -> anyhow::Result<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("the system has no random numbers: {e}"))?;
    Ok(hex::encode(bytes))
}
