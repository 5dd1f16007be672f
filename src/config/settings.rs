//! What a route tells its scheme: the URL under which the provider reaches it, and values by name.
//!
//! Both are a part of what is signed, so a route that lacks one, or has one that nothing reads, does not start. Values
//! may be secrets (a verify token), so they can come from the environment or a file and are never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::file::RouteFile;
use super::path::KeyPath;
use super::problem::Problems;
use super::routes::meant;
use crate::providers::Provider;
use crate::secret::{Secret, SecretSource};
use crate::signature::{PublicUrl, Settings};

/// `routes[].settings.<name>`: a text, or where it comes from.
#[derive(Clone, Debug)]
pub enum SettingFile {
    /// The value itself.
    Written(Secret),
    /// An environment variable or a file.
    From(SettingSource),
}

/// `routes[].settings.<name>`: exactly one of the two.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingSource {
    /// Name of an environment variable.
    pub env: Option<String>,
    /// Path of a file; one line end at its end is not part of the value.
    pub file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for SettingFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Typed)
    }
}

struct Typed;

impl<'de> Visitor<'de> for Typed {
    type Value = SettingFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes, { env: NAME } or { file: PATH }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SettingFile, E> {
        let secret = Secret::new(text).map_err(|_| E::custom("is empty"))?;
        Ok(SettingFile::Written(secret))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SettingFile, A::Error> {
        SettingSource::deserialize(MapAccessDeserializer::new(map)).map(SettingFile::From)
    }
}

/// The URL of a route, if its scheme signs one; `None` when it is wrong.
pub(super) fn public_url(
    route: &RouteFile,
    path: &KeyPath,
    provider: &Provider,
    problems: &mut Problems,
) -> Option<Option<PublicUrl>> {
    let path = path.key("public_url");
    let needed = provider.scheme.needs_public_url() || provider.handshakes.use_url();
    match (&route.public_url, needed) {
        (None, false) => Some(None),
        (None, true) => {
            let message = format!(
                "is missing: {} signs the URL under which it reaches this route",
                provider.title
            );
            let example = format!("public_url: https://hooks.example.com{}", route.path);
            problems.error(&path, message).suggest(example);
            None
        }
        (Some(_), false) => {
            problems.error(
                &path,
                format!("is read by nothing: {} does not sign it", provider.title),
            );
            None
        }
        (Some(text), _) => match PublicUrl::parse(text) {
            Ok(url) => Some(Some(url)),
            Err(why) => {
                let example = format!("https://hooks.example.com{}", route.path);
                problems.error(&path, why).suggest(example);
                None
            }
        },
    }
}

/// The settings of a route: every name that its provider lists and no other; `None` when one is wrong.
pub(super) fn settings(
    route: &RouteFile,
    path: &KeyPath,
    provider: &Provider,
    problems: &mut Problems,
) -> Option<Settings> {
    let path = path.key("settings");
    let mut settings = Settings::default();
    let mut complete = true;
    for (name, what) in &provider.settings {
        if !route.settings.contains_key(name) {
            let problem = problems.error(&path, format!("has no {name}: {what}"));
            problem.suggest(format!("settings: {{ {name}: ... }}"));
            complete = false;
        }
    }
    for (name, typed) in &route.settings {
        let path = path.key(name);
        if !provider.settings.contains_key(name) {
            unknown(name, &path, &provider.settings, problems);
            complete = false;
            continue;
        }
        let Some(value) = read(typed, &path, problems) else {
            complete = false;
            continue;
        };
        if let Err(why) = settings.insert(name, value) {
            problems.error(&path, why);
            complete = false;
        }
    }
    complete.then_some(settings)
}

fn unknown(name: &str, path: &KeyPath, known: &BTreeMap<String, String>, problems: &mut Problems) {
    let near = meant(known.keys().map(String::as_str), name);
    let problem = problems.error(path, "is no setting of this provider");
    if let Some(near) = near {
        problem.suggest(near);
    }
}

fn read(typed: &SettingFile, path: &KeyPath, problems: &mut Problems) -> Option<Secret> {
    let source = match typed {
        SettingFile::Written(secret) => SecretSource::Value(secret.clone()),
        SettingFile::From(SettingSource {
            env: Some(name),
            file: None,
        }) => SecretSource::Env(name.clone()),
        SettingFile::From(SettingSource {
            env: None,
            file: Some(path),
        }) => SecretSource::File(path.clone()),
        SettingFile::From(_) => {
            problems.error(path, "needs exactly one of `env` and `file`, or is a text");
            return None;
        }
    };
    match source.resolve() {
        Ok(secret) => Some(secret),
        Err(problem) => {
            problems.error(path, problem.to_string());
            None
        }
    }
}
