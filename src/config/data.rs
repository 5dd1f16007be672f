//! What lies on disk, and who may look at it: the data directory, and the way to it for `hookward events`.
//!
//! A gateway opens its directory once, at start; what is found there (a second process, a version it does not know, no
//! room) stops the start with the reason.

use std::net::SocketAddr;
use std::path::Path;

use super::file::{File, SecretFile};
use super::load;
use super::problem::Problems;
use super::value::Switch;
use crate::database::DataSettings;
use crate::queue::{History, SqliteSettings};
use crate::secret::{Secret, SecretSource};

/// Kept free in the data directory for delivering and removing, when there is room for nothing else.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// What is needed to ask about queued events.
pub struct DeskPlan {
    /// Where the gateway answers, if it runs.
    pub admin: Option<SocketAddr>,
    /// One of the API's secrets that this process can read.
    pub secret: Option<Secret>,
    /// Where the events lie.
    pub data: Option<SqliteSettings>,
}

/// Reads from the file at `path` what is needed to ask about queued events, and nothing else: secrets of routes need
/// not be there.
///
/// # Errors
/// The problems of a file that is not well formed.
pub fn desk_plan(path: &Path) -> Result<DeskPlan, Box<Problems>> {
    let (file, problems) = load(path);
    let Some(file) = file.filter(|_| !problems.has_errors()) else {
        return Err(Box::new(problems));
    };
    Ok(DeskPlan {
        admin: match file.admin {
            Switch::On(address) => Some(address.0),
            Switch::Off => None,
        },
        secret: file.api.iter().flat_map(|api| &api.secrets).find_map(read),
        data: settings(&file),
    })
}

fn read(typed: &SecretFile) -> Option<Secret> {
    let source = match (&typed.env, &typed.file, &typed.value) {
        (Some(name), None, None) => SecretSource::Env(name.clone()),
        (None, Some(path), None) => SecretSource::File(path.clone()),
        (None, None, Some(written)) => SecretSource::Value(written.0.clone()),
        _ => return None,
    };
    source.resolve().ok()
}

/// How the data directory is set up; `None` without one.
pub(super) fn settings(file: &File) -> Option<SqliteSettings> {
    let typed = file.data.as_ref()?;
    Some(SqliteSettings {
        data: DataSettings {
            dir: typed.dir.clone(),
            bytes_max: typed.bytes.map(|size| size.0),
            reserve_bytes: typed.bytes.map_or(RESERVE_BYTES, |size| RESERVE_BYTES.min(size.0 / 8)),
        },
        history: History {
            keep: typed.history.keep.0,
            bytes_max: typed.history.bytes.0,
        },
        replay_entries_max: file.replay.entries.0.get(),
    })
}
