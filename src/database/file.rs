//! Opening the data directory: the lock, the settings of SQLite, the version of the tables, the reserve.
//!
//! The lock is the operating system's (`flock` on a file of its own), so it ends with the process however that ends.
//! SQLite's own locks would let a second process in between two transactions.
//!
//! The reserve is a file of zeros. A database that cannot grow cannot even delete, since deleting writes too; giving
//! up the reserve makes room for that on a disk that others have filled.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{DataSettings, OpenError};

/// Bytes of a page of a file that is made; one that is there keeps its own. Each page is written, summed up and copied on
/// its own, so a large event in small pages costs most of its time there; the pages that every group writes anew, the
/// last of each table, speak against larger ones.
const PAGE_BYTES: u32 = 16_384;

/// "HkWd": tells our files from other programs'.
const APPLICATION_ID: i64 = 0x486b_5764;

/// The file, open for its writer, before anybody works with it.
pub(crate) struct Opened {
    pub(super) db: Connection,
    pub(super) file: PathBuf,
    pub(super) reserve: Reserve,
    /// Bytes of a page of this file.
    pub(super) page_bytes: u64,
    /// The page count that the file may not exceed, if it may not.
    pub(super) pages_max: Option<u64>,
    /// Holds the directory as long as it is open.
    _lock: Lock,
}

impl Opened {
    /// Takes the directory and brings its tables to the version after the last of `steps`: step `n` leads from version
    /// `n` to `n + 1`, and an empty file is of version 0.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing was changed, or all of a step.
    pub(crate) fn open(settings: &DataSettings, steps: &[&str]) -> Result<Self, OpenError> {
        let dir = &settings.dir;
        let at = |name: &str| dir.join(name);
        make_dir(dir)?;
        let lock = lock(&at("lock"))?;
        let file = at("hookward.db");
        make_private(&file)?;
        let db = Connection::open_with_flags(
            &file,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        set_up(&db)?;
        let id: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if id != APPLICATION_ID && id != 0 {
            return Err(OpenError::Foreign(file));
        }
        migrate(&db, steps)?;
        // A file that was just made is durable only when its name is.
        sync_dir(dir)?;
        let page_bytes: u64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let in_pages = |bytes: u64| bytes.checked_div(page_bytes).unwrap_or(bytes);
        let reserve = Reserve {
            path: at("reserve"),
            bytes: settings.reserve_bytes,
            pages: in_pages(settings.reserve_bytes),
            is_there: false,
        };
        let pages_max = settings.bytes_max.map(in_pages);
        Ok(Opened {
            db,
            file,
            reserve,
            page_bytes,
            pages_max,
            _lock: lock,
        })
    }

    /// The writer's connection, to read and mend what a crash left before anybody works with it.
    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    // Bodies are nobody else's to read.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| OpenError::File {
        path: dir.to_owned(),
        error,
    })
}

/// Makes the file if there is none, readable by its owner alone; SQLite gives its log the same mode.
fn make_private(path: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    let made = options.create(true).truncate(false).write(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| OpenError::File {
        path: path.to_owned(),
        error,
    })
}

/// The hold on a data directory.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that is being started at this moment has a copy of the descriptor until it
        // is the other program. That it cannot be let go is the next opener's news.
        let _ = self.0.unlock();
    }
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let failed = |error| OpenError::File {
        path: path.to_owned(),
        error,
    };
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        // Whoever can open it can hold it, and the gateway does not start.
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| OpenError::File {
        path: dir.to_owned(),
        error,
    })
}

fn set_up(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "page_size", PAGE_BYTES)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    // Checkpoints are the writer's own: SQLite would ignore their errors.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "foreign_keys", false)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    // Negative: KiB. Bounds what a large backlog takes of memory. What is written once and again goes round in it, so more
    // of it is memory that the processor's caches do not have.
    db.pragma_update(None, "cache_size", -8192)?;
    // Closing after a failed fsync must not write what nobody knows the state of.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // One plan for all values: else a statement about a range is compiled anew for each other value.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(128);
    Ok(())
}

fn migrate(db: &Connection, steps: &[&str]) -> Result<(), OpenError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let ours = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let done = usize::try_from(version).ok().filter(|done| *done <= steps.len());
    let Some(done) = done else {
        return Err(OpenError::TooNew(version, ours));
    };
    for (step, next) in steps.iter().skip(done).zip(version.saturating_add(1)..) {
        let step = format!(
            "BEGIN IMMEDIATE; {step}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {next}; COMMIT;"
        );
        db.execute_batch(&step)?;
    }
    Ok(())
}

/// A connection that reads.
pub(super) fn reader(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.pragma_update(None, "query_only", true)?;
    db.pragma_update(None, "cache_size", -4096)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Room that is kept back.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// What it holds of the database's pages.
    pub(super) pages: u64,
    pub(super) is_there: bool,
}

impl Reserve {
    /// Makes it if it is not there. Written, not only sized: a hole is no room.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        if self.is_there || self.bytes == 0 {
            self.is_there = true;
            return Ok(());
        }
        let there = fs::metadata(&self.path).is_ok_and(|file| file.len() == self.bytes);
        if !there {
            let made = self.write();
            if made.is_err() {
                // Half a reserve is half of the room that is missing now.
                let _ = fs::remove_file(&self.path);
            }
            made?;
        }
        self.is_there = true;
        Ok(())
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        let zeros = [0; 64 * 1024];
        let mut left = self.bytes;
        while left > 0 {
            let piece = left.min(zeros.len() as u64);
            file.write_all(zeros.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or(&zeros))?;
            left = left.saturating_sub(piece);
        }
        file.sync_all()
    }

    /// Gives it up.
    pub(super) fn give_up(&mut self) {
        self.is_there = false;
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::scratch::Scratch;

    const FIRST: &str = "CREATE TABLE a (x); INSERT INTO a VALUES (1)";
    const SECOND: &str = "ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x + 1";
    const BROKEN: &str = "UPDATE a SET x = 7; CREATE TABLE a (x)";

    fn version(opened: &Opened) -> i64 {
        opened
            .db()
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_file_of_an_earlier_version_is_brought_forward() {
        // An update of the program cannot read the events that the last version took.
        let scratch = Scratch::new();
        assert_eq!(version(&Opened::open(&scratch.settings(), &[FIRST]).unwrap()), 1);
        for _ in 0..2 {
            let opened = Opened::open(&scratch.settings(), &[FIRST, SECOND]).unwrap();
            let row = opened
                .db()
                .query_row("SELECT x, y FROM a", (), |row| Ok((row.get(0)?, row.get(1)?)));
            assert_eq!((version(&opened), row.unwrap()), (2, (1, 2)));
        }
    }

    #[test]
    fn a_step_happens_wholly_or_not_at_all() {
        // A start that was cut off leaves tables that no version knows.
        let scratch = Scratch::new();
        drop(Opened::open(&scratch.settings(), &[FIRST]).unwrap());
        let broken = Opened::open(&scratch.settings(), &[FIRST, BROKEN]);
        assert!(matches!(broken.map(drop), Err(OpenError::Database(_))));
        let opened = Opened::open(&scratch.settings(), &[FIRST]).unwrap();
        let x: i64 = opened.db().query_row("SELECT x FROM a", (), |row| row.get(0)).unwrap();
        assert_eq!((version(&opened), x), (1, 1));
    }

    #[test]
    fn a_file_with_other_pages_keeps_its_bounds() {
        // An update of the program, and a directory that may take a gigabyte takes four, or is full with a quarter.
        let bounds = |scratch: &Scratch| {
            let settings = DataSettings {
                bytes_max: Some(1 << 20),
                reserve_bytes: 64 << 10,
                ..scratch.settings()
            };
            let opened = Opened::open(&settings, &[FIRST]).unwrap();
            (opened.page_bytes, opened.pages_max, opened.reserve.pages)
        };
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.dir()).unwrap();
        let db = Connection::open(scratch.dir().join("hookward.db")).unwrap();
        db.pragma_update(None, "page_size", 4096).unwrap();
        db.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE before (x)")
            .unwrap();
        drop(db);
        assert_eq!(bounds(&scratch), (4096, Some(256), 16));
        assert_eq!(bounds(&Scratch::new()), (16_384, Some(64), 4));
    }

    #[test]
    fn what_is_promised_is_set() {
        // A library's other default, and what was acknowledged is in no file when the power goes.
        let scratch = Scratch::new();
        let opened = Opened::open(&scratch.settings(), &[FIRST]).unwrap();
        let number = |name: &str| -> i64 { opened.db().pragma_query_value(None, name, |row| row.get(0)).unwrap() };
        let mode: String = opened
            .db()
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(
            (mode.as_str(), number("synchronous"), number("wal_autocheckpoint")),
            ("wal", 2, 0)
        );
        // The fix of the log's reset is in 3.52.
        let version = rusqlite::version_number();
        assert!(version >= 3_052_000, "{version}");
        use std::os::unix::fs::MetadataExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(scratch.dir()), 0o700);
        for name in ["hookward.db", "hookward.db-wal", "hookward.db-shm", "lock"] {
            assert_eq!(mode(&scratch.dir().join(name)), 0o600, "{name}");
        }
    }
}
