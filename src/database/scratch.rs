//! Data directories for tests, gone when they are dropped. In memory where the system has a place for that, since what
//! is tested here is what is written, not that the disk keeps it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::DataSettings;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One directory.
pub(crate) struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("hookward-test-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Scratch { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn settings(&self) -> DataSettings {
        DataSettings {
            dir: self.dir.clone(),
            bytes_max: None,
            reserve_bytes: 0,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
