//! Disks as they are: a file system that is full, one that became read-only, one that cannot be read.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::kills::{empty, owed};
use super::{get, until_answered};
use crate::harness::process::{Process, Running, run};
use crate::harness::{Event, Folder, Queueing, Upstream, request, until};

/// Room on the small file system, in MiB: the reserve of 16 MiB, and as much again.
const ROOM_MIB: u32 = 36;

/// What makes a file system of the process's own, which is gone with it; `None` where nobody may.
async fn namespace() -> Option<&'static [&'static str]> {
    for wrapper in [
        &["unshare", "--mount"][..],
        &["unshare", "--user", "--map-root-user", "--mount"],
    ] {
        let tried = [&wrapper[1..], &["mount", "-t", "tmpfs", "none", "/mnt"]].concat();
        if run(wrapper[0], &tried, b"").await.code == Some(0) {
            return Some(wrapper);
        }
    }
    None
}

/// A file in the directory as the process sees it.
fn inside(process: &Process, dir: &Path, name: &str) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", process.id()));
    root.join(dir.strip_prefix("/").unwrap()).join(name)
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let zeros = [0; 64 * 1024];
    let mut piece = zeros.len();
    while piece > 0 {
        match file.write(&zeros[..piece]) {
            Ok(1..) => {}
            _ => piece /= 2,
        }
    }
}

/// Events after which a call is taken to be one that is not made.
const ENOUGH: usize = 200;

async fn send(running: &Running, number: usize) -> u16 {
    let answer = request(running.address, &Event::of("github", &number.to_string()).bytes()).await;
    if answer.status == 503 {
        assert!(answer.header("retry-after").is_some());
    }
    answer.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_fills_up_refuses_delivers_and_resumes() {
    // Somebody's log fills the disk: the gateway dies of it, or says "taken" about what is nowhere.
    let Some(namespace) = namespace().await else {
        println!("not tested: file systems cannot be made here");
        return;
    };
    let (folder, upstream) = (Folder::new(), Upstream::holding(|_| 200).await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "concurrency: 2")
        .route("github", "github", "app", "");
    let yaml = conf.yaml().replace("timeout: 5s", "timeout: 5m");
    let dir = folder.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size={ROOM_MIB}m none {dir} && exec \"$@\"");
    let wrapper = [namespace, &["sh", "-c", &mount, "sh"]].concat();
    let mut running = Running::under(&wrapper, &yaml).await;
    let mut accepted = 0;
    for number in 0..20 {
        assert_eq!(send(&running, number).await, 200);
        accepted += 1;
    }
    let ballast = inside(&running.process, folder.path(), "ballast");
    fill(&ballast);
    let mut number = accepted;
    // The log has pages to be written again; when those are used up there is no room.
    while send(&running, number).await == 200 {
        (accepted, number) = (accepted + 1, number + 1);
        assert!(number < 5_000, "it never becomes full");
    }
    running.process.stderr.has("no room").await;
    upstream.release(10_000);
    until("everything to be delivered", || upstream.count() >= accepted).await;
    empty(&running).await;
    std::fs::remove_file(ballast).unwrap();
    // By itself.
    until_open(&running).await;
    for more in 0..20 {
        assert_eq!(send(&running, number + 1 + more).await, 200);
        accepted += 1;
    }
    until("the rest to be delivered", || upstream.count() >= accepted).await;
    empty(&running).await;
    assert_eq!(upstream.count(), accepted, "what was refused is nowhere");
    running.process.signal("TERM").await;
    assert_eq!(running.process.end().await, Some(0));
}

async fn until_open(running: &Running) {
    let open = async {
        while running.metric("hookward_queue_writable").await < 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let open = tokio::time::timeout(super::PATIENCE, open).await;
    open.unwrap_or_else(|_| panic!("it does not resume\n{}", running.process.said()));
}

/// The options of strace for a failure of `call` on the data files, from its n-th of a thread on.
fn failing<'a>(files: &'a [String; 2], inject: &'a str) -> Vec<&'a str> {
    let mut options = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null"];
    options.extend(files.iter().flat_map(|file| ["-P", file]));
    options.extend(["-e", inject]);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_while_running_closes_the_queue_and_says_so() {
    // The system made the file system read-only after an error: providers are told "taken", and nobody is woken.
    let calls = [
        ("pwrite64", "EROFS", 20),
        ("fsync", "EIO", 5),
        ("fdatasync", "EIO", 5),
        ("pread64", "EIO", 60),
    ];
    for (call, error, from) in calls {
        let (folder, upstream) = (Folder::new(), Upstream::holding(|_| 200).await);
        let conf = Queueing::in_folder(&folder)
            .upstream("app", upstream.address, "concurrency: 2")
            .route("github", "github", "app", "");
        let files = ["hookward.db", "hookward.db-wal"].map(|name| folder.path().join(name));
        let files = files.map(|file| file.to_str().unwrap().to_owned());
        let inject = format!("inject={call}:error={error}:when={from}+");
        // The file is made before, so that a start needs few calls.
        let mut running = Running::start(&conf.yaml()).await;
        running.process.signal("TERM").await;
        assert_eq!(running.process.end().await, Some(0));
        let mut running = Running::under(&failing(&files, &inject), &conf.yaml()).await;
        let mut accepted = 0;
        while send(&running, accepted).await == 200 {
            accepted += 1;
            if accepted == ENOUGH {
                // Of reads there are few while everything fits into memory, and of the other sync none.
                break;
            }
        }
        if accepted < ENOUGH {
            until_answered(running.admin, "/readyz", 503).await;
            assert_eq!(running.metric("hookward_queue_writable").await, 0.0, "{call}");
            // For good.
            assert_eq!(send(&running, 10_000).await, 503, "{call}");
            assert!(running.process.said().contains("closed for good"), "{call}");
            assert_eq!(get(running.admin, "/healthz").await.status, 200);
        } else {
            assert_ne!(call, "pwrite64", "{}", running.process.said());
        }
        running.process.signal("KILL").await;
        running.process.end().await;
        upstream.release(10_000);
        let running = Running::start(&conf.yaml()).await;
        empty(&running).await;
        assert_eq!(owed(&running).await, 0);
        let mut bodies: Vec<_> = upstream.seen().into_iter().map(|request| request.body).collect();
        bodies.sort();
        bodies.dedup();
        // The one that was refused last may be there as well.
        let all = accepted..=accepted + 1;
        assert!(all.contains(&bodies.len()), "{call}: {} of {accepted}", bodies.len());
    }
}
