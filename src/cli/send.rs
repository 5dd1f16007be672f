//! `hookward send`: a webhook as a provider would send it, or as an attacker would, and what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http::HeaderMap;
use zeroize::Zeroizing;

use super::{SecretArgs, client, say, secret_required, sign};
use crate::clock::{Clock, UnixMillis};
use crate::providers::Provider;
use crate::secret::Secret;
use crate::signature::{self, Draft, Signed, Strength, fitting_id};

/// How old a stale event is signed to be.
const STALE: Duration = Duration::from_secs(60 * 60);

/// How many letters of a secret are changed, one at a time, before a forgery of another kind is sent.
const LETTERS_TRIED: usize = 16;

#[derive(Args)]
#[command(group = secret_required())]
pub(super) struct Send {
    /// A built-in provider
    provider: String,
    /// Where to; http:// only
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    secret: SecretArgs,
    /// A body of your own, byte for byte (default: a typical event)
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    #[command(flatten)]
    scheme: sign::SchemeArgs,
    #[command(flatten)]
    fault: Fault,
}

/// What is wrong with the request.
#[derive(Args)]
#[group(multiple = false)]
struct Fault {
    /// Change the body after it was signed; of providers that do not sign it, use another secret
    #[arg(long)]
    forge: bool,
    /// Send the very same request twice
    #[arg(long)]
    replay: bool,
    /// Sign it an hour ago
    #[arg(long)]
    stale: bool,
}

impl Send {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let provider = sign::find(&self.provider)?;
        let clock = Clock::system();
        let now = clock.wall();
        let stale = UnixMillis(now.0.saturating_sub(STALE.as_millis() as u64));
        let signed_at = if self.fault.stale { stale } else { now };
        let id = sign::new_id()?;
        let sample = provider.sample(&id, signed_at);
        let mut body = match &self.body {
            Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => sample.body.to_vec(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in sample.headers {
            headers.insert(name, value.try_into()?);
        }
        let (settings, public_url) = self.scheme.read(&self.url)?;
        let draft = Draft {
            method: "POST",
            target: public_url.path_and_query(),
            headers: &headers,
            body: &body,
            public_url: Some(&public_url),
            settings: &settings,
            id: &fitting_id(&provider.scheme, &format!("msg_{id}")),
            now: signed_at,
        };
        let secret = self.secret.read()?;
        let mut signed = sign::sign(&provider, &secret, &draft)?;
        let guessed = match self.fault.forge && provider.scheme.strength() == Strength::Authenticated {
            true => guess(&provider, &secret, &draft, &signed),
            false => None,
        };
        let by_secret = guessed.is_some();
        signed = guessed.unwrap_or(signed);
        let url = sign::with_query(&self.url, signed.query.as_deref());
        for (name, value) in signed.headers {
            headers.insert(name, value.try_into()?);
        }
        body = signed.body.unwrap_or(body);
        if self.fault.forge && !by_secret {
            forge(&mut body);
        }
        let stamped = provider.scheme.tolerance().is_some();
        match &self.fault {
            Fault { forge: true, .. } if by_secret => say(format_args!(
                "Sending an event under another secret: what {} signs does not cover the body.",
                provider.title
            ))?,
            Fault { forge: true, .. } => say("Sending a body that was changed after it was signed.")?,
            Fault { stale: true, .. } if stamped => say("Sending an event signed an hour ago.")?,
            Fault { stale: true, .. } => say(format_args!(
                "{} signs no time, so nothing can be stale.",
                provider.title
            ))?,
            Fault { replay: true, .. } => say("Sending an event.")?,
            _ => say("Sending a genuine event.")?,
        }
        let bad = self.fault.forge || (self.fault.stale && stamped);
        let first = exchange(&clock, &url, &headers, &body, if bad { "401" } else { "a 2xx" })?;
        let mut as_expected = if bad { first == 401 } else { (200..300).contains(&first) };
        if self.fault.replay {
            say("Sending the very same request again.")?;
            let expected = format!("{first} again, and nothing new at the backend");
            as_expected &= exchange(&clock, &url, &headers, &body, &expected)? == first;
        }
        Ok(if as_expected {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Flips one bit; an empty body gets a byte.
fn forge(body: &mut Vec<u8>) {
    match body.last_mut() {
        Some(last) => *last ^= 1,
        None => body.push(b' '),
    }
}

/// The event as somebody would sign it who has the secret but for one letter; `None` where that signs nothing, as with
/// private keys.
fn guess(provider: &Provider, secret: &Secret, draft: &Draft<'_>, genuine: &Signed) -> Option<Signed> {
    let text = secret.expose();
    (0..text.len().min(LETTERS_TRIED)).find_map(|at| {
        let mut other = Zeroizing::new(text.to_vec());
        let letter = other.get_mut(at)?;
        *letter = match *letter {
            b'0'..=b'8' | b'a'..=b'e' | b'A'..=b'E' => letter.saturating_add(1),
            b'9' => b'0',
            b'f' => b'a',
            b'F' => b'A',
            _ => b'x',
        };
        let signed = signature::sign_request(&provider.scheme, &Secret::new(other.as_slice()).ok()?, draft).ok()?;
        (signed != *genuine).then_some(signed)
    })
}

fn exchange(clock: &Clock, url: &str, headers: &HeaderMap, body: &[u8], expected: &str) -> anyhow::Result<u16> {
    let started = clock.moment();
    let answer = client::post(url, headers, body)?;
    let took = clock.moment().since(started);
    say(answer
        .head
        .replace("\r\n", "\n")
        .escape_default()
        .to_string()
        .replace("\\n", "\n")
        .replace("\\\"", "\"")
        .replace("\\'", "'"))?;
    if !answer.body.is_empty() {
        say(format_args!("\n{}", String::from_utf8_lossy(&answer.body).trim_end()))?;
    }
    say(format_args!(
        "\n-> {} in {:.1} ms; expected {expected}\n",
        answer.status,
        took.as_secs_f64() * 1000.0
    ))?;
    Ok(answer.status)
}
