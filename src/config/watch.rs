//! Files that change by themselves: secrets and certificates that something else renews.
//!
//! Kubernetes swaps a link, certbot moves a new file in place, an editor writes anew. None of them tells us, and
//! notifications of the system miss half of them (links, network file systems), so the files' marks are looked at from
//! time to time: what they are, how long, and since when. A change counts once it has stood still for one look, so that
//! half a file is not read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a file looks like from outside; `None` when it is not there.
type Mark = Option<(u64, u64, u64, i64, i64)>;

/// Files under watch.
pub struct Watch {
    files: Vec<PathBuf>,
    every: Duration,
    /// What was acted on.
    known: Vec<Mark>,
    /// What was seen at the last look.
    seen: Vec<Mark>,
}

impl Watch {
    /// Watches `files`, a look at a time. Links are followed.
    pub fn new(files: Vec<PathBuf>, every: Duration) -> Self {
        let known: Vec<_> = files.iter().map(|file| mark(file)).collect();
        Watch {
            seen: known.clone(),
            files,
            every,
            known,
        }
    }

    /// Waits until one of the files has changed.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(self.every).await;
            if self.look() {
                return;
            }
        }
    }

    /// Watches other files from here on; those that it knew already keep what is known about them.
    pub fn follow(&mut self, files: Vec<PathBuf>) {
        let known = |file: &PathBuf| self.files.iter().position(|known| known == file);
        let places: Vec<_> = files.iter().map(known).collect();
        let kept = |marks: &[Mark]| {
            let of = |(file, place): (&PathBuf, &Option<usize>)| match place.and_then(|at| marks.get(at)) {
                Some(mark) => *mark,
                None => mark(file),
            };
            files.iter().zip(&places).map(of).collect()
        };
        (self.known, self.seen) = (kept(&self.known), kept(&self.seen));
        self.files = files;
    }

    /// Whether something changed and has stood still since the last look.
    fn look(&mut self) -> bool {
        let now: Vec<_> = self.files.iter().map(|file| mark(file)).collect();
        let still = now == self.seen;
        self.seen = now;
        let changed = still && self.seen != self.known;
        if changed {
            self.known.clone_from(&self.seen);
        }
        changed
    }
}

fn mark(file: &Path) -> Mark {
    let metadata = fs::metadata(file).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_counts_once_and_when_it_is_complete() {
        // Half a secret would be read, or a renewed one never.
        let folder = std::env::temp_dir().join(format!("hookward-watch-{}", std::process::id()));
        fs::create_dir_all(folder.join("1")).unwrap();
        fs::create_dir_all(folder.join("2")).unwrap();
        fs::write(folder.join("1/secret"), "one").unwrap();
        fs::write(folder.join("2/secret"), "other").unwrap();
        symlink("1", folder.join("current")).unwrap();
        let mut watch = Watch::new(
            vec![folder.join("current/secret"), folder.join("absent")],
            Duration::ZERO,
        );
        assert!(!watch.look() && !watch.look());
        // As Kubernetes does it: a new link is moved over the old one.
        symlink("2", folder.join("next")).unwrap();
        fs::rename(folder.join("next"), folder.join("current")).unwrap();
        assert!(!watch.look(), "it may not be complete yet");
        assert!(watch.look());
        assert!(!watch.look(), "once");
        fs::write(folder.join("absent"), "there").unwrap();
        assert_eq!((watch.look(), watch.look(), watch.look()), (false, true, false));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_change_is_not_forgotten_when_other_files_are_named() {
        // A secret that changes while a reload reads the files would stay the old one until it changes again.
        let folder = std::env::temp_dir().join(format!("hookward-follow-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [configuration, secret, added] = ["configuration", "secret", "added"].map(|name| folder.join(name));
        for file in [&configuration, &secret, &added] {
            fs::write(file, "one").unwrap();
        }
        let mut watch = Watch::new(vec![configuration.clone(), secret.clone()], Duration::ZERO);
        fs::write(&configuration, "names another").unwrap();
        assert_eq!((watch.look(), watch.look()), (false, true));
        fs::write(&secret, "changed meanwhile").unwrap();
        watch.follow(vec![configuration, added, secret]);
        assert_eq!((watch.look(), watch.look(), watch.look()), (false, true, false));
        fs::remove_dir_all(folder).unwrap();
    }
}
