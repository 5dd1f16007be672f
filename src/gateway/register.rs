//! A route that waits for its secret: some providers bring it along in the first request, unsigned.
//!
//! Believing the first who knocks is as dangerous as it sounds, so it happens only while the operator says so: until
//! an instant that the configuration names, once, and with a warning in the log. The secret is on disk, in a file that
//! was not there before and that nobody else can read, before the provider hears that it was taken. From then on the
//! route verifies with it, without a restart; a configuration that is put in force meanwhile finds it, too. Until
//! then the route refuses everything else.
//!
//! Not checked here: who brings the secret. The window should be as short as the setting-up takes.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Route;
use crate::clock::{Clock, UnixMillis};
use crate::secret::{Secret, SecretError};
use crate::signature::{KeyError, Verifier};

/// Longest secret that is taken, in bytes.
const BROUGHT_BYTES_MAX: usize = 512;

/// What a route that waits for its secret has to know.
#[derive(Clone)]
pub struct RegisterSettings {
    /// From this instant on none is taken.
    pub until: UnixMillis,
    /// The file it is kept in, which is not there yet.
    pub into: PathBuf,
    /// Its name, for logs and metrics.
    pub key_id: Arc<str>,
    /// Makes the route's verifier, with all of its secrets.
    pub verifier: Arc<dyn Fn(Secret) -> Result<Verifier, KeyError> + Send + Sync>,
}

/// A secret that came in while the process runs, and the file it is in; kept when the rules are replaced.
pub(crate) type Brought = Arc<Mutex<Option<(PathBuf, Secret)>>>;

/// The wait of one route for one secret.
pub(crate) struct Registration {
    settings: RegisterSettings,
    brought: Brought,
    verifier: OnceLock<Arc<Verifier>>,
}

impl Registration {
    /// Begins to wait, or goes on doing so: `brought` is what the route knows from before.
    pub(crate) fn new(settings: RegisterSettings, brought: Brought) -> Self {
        let mut before = brought.lock();
        // An operator who has taken the file away wants another secret.
        if before.as_ref().is_some_and(|(path, _)| !path.exists()) {
            *before = None;
        }
        drop(before);
        Registration {
            settings,
            brought,
            verifier: OnceLock::new(),
        }
    }

    /// The verifier with the secret, once there is one.
    pub(crate) fn verifier(&self) -> Option<&Arc<Verifier>> {
        // Whoever holds the lock is still writing to the disk.
        if self.verifier.get().is_none()
            && let Some(brought) = self.brought.try_lock()
            && let Some((path, secret)) = &*brought
            && *path == self.settings.into
            && let Ok(verifier) = (self.settings.verifier)(secret.clone())
        {
            // Another request may have been faster, with the same.
            let _ = self.verifier.set(Arc::new(verifier));
        }
        self.verifier.get()
    }

    /// Takes the secret, keeps it, and verifies with it from here on.
    fn take(&self, secret: Secret, now: UnixMillis) -> Result<(), NotTaken> {
        if now >= self.settings.until {
            return Err(NotTaken::Over);
        }
        if secret.len() > BROUGHT_BYTES_MAX {
            return Err(NotTaken::Long(secret.len()));
        }
        (self.settings.verifier)(secret.clone())?;
        // Held while the file is written: of two that come at once one is first.
        let mut brought = self.brought.lock();
        if brought.as_ref().is_some_and(|(path, _)| *path == self.settings.into) {
            return Err(NotTaken::Taken);
        }
        secret.keep(&self.settings.into)?;
        *brought = Some((self.settings.into.clone(), secret));
        Ok(())
    }
}

/// Why a secret was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("the time for it is over")]
    Over,
    #[error("there is one already")]
    Taken,
    #[error("{0} bytes are too many for a secret")]
    Long(usize),
    #[error(transparent)]
    Unfit(#[from] KeyError),
    #[error(transparent)]
    Unkept(#[from] SecretError),
}

impl NotTaken {
    /// What a stranger can cause at will does not fill the log; what an operator has to mend does not stay unseen.
    fn level(&self) -> log::Level {
        match self {
            NotTaken::Over | NotTaken::Taken | NotTaken::Long(_) => log::Level::Debug,
            NotTaken::Unfit(_) => log::Level::Info,
            NotTaken::Unkept(_) => log::Level::Error,
        }
    }
}

impl Route {
    /// What verifies at this moment.
    pub(crate) fn verifier(&self) -> &Arc<Verifier> {
        let brought = self.registration.as_ref().and_then(|wait| wait.verifier());
        brought.unwrap_or(&self.own_verifier)
    }

    /// Takes the secret that a request brings, if the route waits for one. True when it is on disk and in force.
    pub(super) async fn register(&self, secret: Secret, clock: &Clock) -> bool {
        let Some(registration) = &self.registration else {
            return false;
        };
        let (waiting, now) = (Arc::clone(registration), clock.wall());
        // Waits for the disk, which a thread that serves others must not.
        let taken = tokio::task::spawn_blocking(move || waiting.take(secret, now)).await;
        let name = &self.name;
        match taken {
            Ok(Ok(())) => {
                let into = registration.settings.into.display();
                log::warn!(
                    "route {name}: REGISTERED the secret that a request brought; it is in {into} and verifies from now \
                     on. Take `register` out of the configuration"
                );
                true
            }
            Ok(Err(why)) => {
                log::log!(
                    why.level(),
                    "route {name}: a secret that a request brought was not registered: {why}"
                );
                false
            }
            // The process ends.
            Err(_) => false,
        }
    }
}
