//! A route that waits for its secret: what `register` needs around it, and the verifier for before and after.
//!
//! Such a route may start without the file of that one secret. It verifies nothing under it until then, but for a key
//! that has ended before time began: everything is refused, in the same time as with a real one. Whether the file is
//! there is looked at when the configuration is built; a file that is there is a secret like any other, and the wait
//! is over before it began.

use std::path::Path;
use std::sync::Arc;

use super::file::{RegisterFile, RouteFile};
use super::path::KeyPath;
use super::problem::Problems;
use crate::clock::UnixMillis;
use crate::gateway::RegisterSettings;
use crate::providers::Provider;
use crate::secret::{Secret, SecretError};
use crate::signature::{KeyError, KeyedSecret, Scheme, Verifier, VerifierOptions};

/// Readable in every form that a shared secret has; it never verifies anything.
const NOBODYS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A secret of a route, as far as it is known.
pub(super) enum Listed {
    /// It was read.
    There(KeyedSecret),
    /// The route waits for it: its name, and its end.
    Awaited(Arc<str>, Option<UnixMillis>),
}

/// Whether a route waits for a secret from this file: it is the one to register into, and is not there yet.
pub(super) fn awaits(route: &RouteFile, file: Option<&Path>, now: UnixMillis) -> bool {
    let open = |register: &RegisterFile| {
        Some(register.into.as_path()) == file && register.until.0 > now && !register.into.exists()
    };
    route.register.as_ref().is_some_and(open)
}

/// Reports what does not fit around `register`, and that the route waits.
pub(super) fn check(route: &RouteFile, path: &KeyPath, provider: &Provider, problems: &mut Problems, now: UnixMillis) {
    let Some(register) = &route.register else { return };
    let path = path.key("register");
    if !provider.handshakes.bring_secrets() {
        problems.error(
            &path,
            format!("does not go with {}, which brings no secret along", provider.id),
        );
        return;
    }
    let into = register.into.display();
    let folder = register.into.parent().filter(|folder| !folder.as_os_str().is_empty());
    if !route
        .secrets
        .iter()
        .any(|secret| secret.file.as_ref() == Some(&register.into))
    {
        let problem = problems.error(&path.key("into"), "is not the file of one of the route's secrets");
        problem.suggest(format!("secrets: [{{ file: {into} }}]"));
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        problems.error(&path.key("into"), "is in a folder that is not there");
    } else if register.into.exists() {
        problems.warning(
            &path,
            format!("is done: {into} is there, and no other secret is taken; take it out"),
        );
    } else if register.until.0 <= now {
        problems.error(&path.key("until"), "has passed, and no secret has come in");
    } else {
        let message = "the route believes the first secret that anybody brings";
        problems
            .warning(&path, message)
            .suggest("keep the time until `until` short");
    }
}

/// The verifier of a route, and the wait for the secret that it lacks.
///
/// # Errors
/// What is wrong with the secrets that are there.
pub(super) fn verifiers(
    scheme: &Arc<Scheme>,
    listed: Vec<Listed>,
    options: VerifierOptions,
    register: Option<&RegisterFile>,
) -> Result<(Verifier, Option<RegisterSettings>), KeyError> {
    let awaited = listed.iter().find_map(|secret| match secret {
        Listed::Awaited(id, _) => Some(Arc::clone(id)),
        Listed::There(_) => None,
    });
    let mut there: Vec<KeyedSecret> = listed.iter().filter_map(Listed::there).collect();
    let (Some(key_id), Some(register)) = (awaited, register) else {
        return Ok((Verifier::new(Arc::clone(scheme), there, options)?, None));
    };
    if there.is_empty() {
        there.extend(nobodys(&key_id));
    }
    let verifier = Verifier::new(Arc::clone(scheme), there, options.clone())?;
    let scheme = Arc::clone(scheme);
    let settings = RegisterSettings {
        until: register.until.0,
        into: register.into.clone(),
        key_id,
        verifier: Arc::new(move |brought| {
            let secrets = listed.iter().map(|secret| secret.with(&brought)).collect();
            Verifier::new(Arc::clone(&scheme), secrets, options.clone())
        }),
    };
    Ok((verifier, Some(settings)))
}

/// A key that has ended before time began.
fn nobodys(id: &Arc<str>) -> Result<KeyedSecret, SecretError> {
    Ok(KeyedSecret {
        id: Arc::clone(id),
        secret: Secret::new(NOBODYS)?,
        until: Some(UnixMillis(0)),
    })
}

impl Listed {
    /// The secret, unless it is awaited.
    pub(super) fn there(&self) -> Option<KeyedSecret> {
        match self {
            Listed::There(secret) => Some(secret.clone()),
            Listed::Awaited(..) => None,
        }
    }

    /// The secret, with `brought` for the one that is waited for.
    fn with(&self, brought: &Secret) -> KeyedSecret {
        match self {
            Listed::There(secret) => secret.clone(),
            Listed::Awaited(id, until) => KeyedSecret {
                id: Arc::clone(id),
                secret: brought.clone(),
                until: *until,
            },
        }
    }
}
