//! The engine in a process of its own that ends badly: killed at any moment, or with a disk that fails at any write.
//!
//! The process is this test binary, run again for the one test `child`. What it was told to be durable it says on its
//! standard output; what the next life finds must have all of it.
//!
//! For a long run `HOOKWARD_KILLS` and `HOOKWARD_FAILURES` say how many kills and failing calls there are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::super::super::suite::lane;
use super::super::super::{End, Filter, NewEvent, Queue, QueueError};
use super::{TERM, attempt, deliver_all, settings, start};
use crate::clock::{Clock, UnixMillis};
use crate::database::scratch::Scratch;
use crate::queue::sqlite::{SqliteQueue, SqliteSettings};

/// Names the directory for `child`, and what it is to do.
const DIR: &str = "HOOKWARD_TEST_CHILD_DIR";
const ROLE: &str = "HOOKWARD_TEST_CHILD_ROLE";

pub(super) fn child_command(strace: &[&str], scratch: &Scratch, role: &str) -> Command {
    let binary = std::env::current_exe().unwrap();
    let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
    let mut command = match strace {
        [] => Command::new(binary),
        options => {
            let mut strace = Command::new("strace");
            strace.args(options).arg(binary);
            strace
        }
    };
    command.args(["--exact", &name, "--ignored", "--nocapture", "--test-threads", "1"]);
    command.env(DIR, scratch.dir()).env(ROLE, role);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// A running child and what it says.
pub(super) struct Life {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Life {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("strace is missing: see .ci/setup");
        let says = BufReader::new(child.stdout.take().unwrap());
        Life { child, says }
    }

    /// The next line of ours; `None` when the process has ended.
    pub(super) fn next(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.says.read_until(b'\n', &mut line).unwrap();
            // A line that the kill cut off was not said.
            if read == 0 || line.last() != Some(&b'\n') {
                return None;
            }
            let said = String::from_utf8_lossy(&line);
            if let Some((_, said)) = said.split_once('!') {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// Whether it ended well.
    pub(super) fn wait(mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let mut rest = Vec::new();
        while let Some(line) = self.next() {
            rest.push(line);
        }
        self.child.wait().unwrap();
        rest
    }
}

/// One line in one write, so that it is said wholly or not at all.
fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("!{line}\n").as_bytes());
}

#[test]
#[ignore = "run by the tests around it"]
fn child() {
    // The other side of the tests around it.
    let Ok(dir) = std::env::var(DIR) else { return };
    let settings = child_settings(Path::new(&dir));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (queue, _) = match SqliteQueue::open(&settings, Clock::system(), Box::new(|_| {})) {
        Ok(opened) => opened,
        Err(_) => return say("cannot open"),
    };
    runtime.block_on(async {
        match std::env::var(ROLE).as_deref() {
            Ok("busy") => busy(queue).await,
            Ok("steady") => steady(&queue).await,
            Ok("until it fails") => until_it_fails(&queue).await,
            Ok("whatever fails") => whatever_fails(&queue).await,
            other => panic!("{other:?}"),
        }
    });
}

fn amount(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |count| count.parse().unwrap())
}

fn child_settings(dir: &Path) -> SqliteSettings {
    let scratch = Scratch::new();
    let mut settings = settings(&scratch);
    settings.data.dir = dir.to_owned();
    settings
}

fn new_event(body: String) -> NewEvent {
    NewEvent::sample("github", &["app"], body, Clock::system().wall())
}

/// Publishes and delivers for ever.
async fn busy(queue: Arc<SqliteQueue>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let queue = Arc::clone(&queue);
        tasks.spawn(async move {
            loop {
                let id = queue.publish(new_event("body".to_owned()), None).await.unwrap().id();
                say(&format!("published {id}"));
            }
        });
    }
    for worker in 0..2 {
        let queue = Arc::clone(&queue);
        tasks.spawn(async move {
            loop {
                let batch = queue.lease(&lane("app"), 4, TERM).await.unwrap();
                for leased in batch.leased {
                    let (id, number) = (leased.lease.id(), leased.attempt);
                    say(&format!("received {id} {number}"));
                    let fails = (id.0 + u64::from(number)) % 3 == worker;
                    let end = match fails {
                        true => End::Retry(attempt(503), UnixMillis(0)),
                        false => End::Ack(attempt(200)),
                    };
                    queue.end(&leased.lease, end).await.unwrap();
                    say(&format!("{} {id} {number}", if fails { "failed" } else { "delivered" }));
                }
            }
        });
    }
    tasks.join_all().await;
}

#[test]
fn a_kill_loses_nothing_and_repeats_only_what_was_out() {
    // A process that dies takes events with it that their providers believe to be taken.
    let cycles = amount("HOOKWARD_KILLS", 100);
    let scratch = Scratch::new();
    let mut published = BTreeSet::new();
    let mut received: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut delivered = BTreeSet::new();
    let mut out = BTreeSet::new();
    for cycle in 0..cycles {
        let mut life = Life::start(child_command(&[], &scratch, "busy"));
        let mut lines = Vec::new();
        // Some die while they start.
        for _ in 0..cycle * 7 % 61 {
            lines.push(life.next().expect("the child ended by itself"));
        }
        lines.extend(life.kill());
        let mut out_now = BTreeSet::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let id: u64 = words[1].parse().unwrap();
            let number = || words[2].parse().unwrap();
            match words[0] {
                "published" => drop(published.insert(id)),
                "received" => {
                    // Once delivered, and on record as such, it is not seen again.
                    assert!(!delivered.contains(&id) || out.contains(&id), "{id} again");
                    received.entry(id).or_default().push(number());
                    out_now.insert(id);
                }
                "failed" => drop(out_now.remove(&id)),
                "delivered" => {
                    out_now.remove(&id);
                    delivered.insert(id);
                }
                other => panic!("{other}"),
            }
        }
        out = out_now;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (queue, _) = SqliteQueue::open(&child_settings(scratch.dir()), Clock::system(), Box::new(|_| {})).unwrap();
        loop {
            let rest = queue.lease(&lane("app"), 1000, TERM).await.unwrap().leased;
            if rest.is_empty() {
                break;
            }
            for leased in rest {
                assert!(!delivered.contains(&leased.lease.id().0) || out.contains(&leased.lease.id().0));
                received.entry(leased.lease.id().0).or_default().push(leased.attempt);
            }
        }
    });
    assert!(published.len() > cycles, "{}", published.len());
    let lost: Vec<_> = published.iter().filter(|id| !received.contains_key(id)).collect();
    assert!(
        lost.is_empty(),
        "{} of {}, first {:?}",
        lost.len(),
        published.len(),
        lost.first()
    );
    for (id, numbers) in received {
        assert!(numbers.is_sorted_by(|a, b| a < b), "attempts of {id}: {numbers:?}");
    }
}

/// Publishes a number of events one after the other, delivering some, and ends.
async fn steady(queue: &SqliteQueue) {
    for number in 0..40_usize {
        let body = format!("{number}:{}", "x".repeat(number * 211 % 9000));
        let id = queue.publish(new_event(body), None).await.unwrap().id();
        say(&format!("published {id}"));
        if number % 4 == 3 {
            for leased in queue.lease(&lane("app"), 2, TERM).await.unwrap().leased {
                let id = leased.lease.id();
                queue.end(&leased.lease, End::Ack(attempt(200))).await.unwrap();
                say(&format!("delivered {id}"));
            }
        }
    }
}

/// Publishes until it cannot, then says what the engine says of itself.
async fn until_it_fails(queue: &SqliteQueue) {
    for number in 0..200 {
        match queue
            .publish(new_event(format!("{number}:{}", "x".repeat(2000))), None)
            .await
        {
            Ok(receipt) => say(&format!("published {}", receipt.id())),
            Err(problem) => {
                let again = queue
                    .publish(new_event("0:".to_owned()), None)
                    .await
                    .map(|receipt| receipt.id());
                let leased = queue.lease(&lane("app"), 1, TERM).await.map(|batch| batch.leased.len());
                return say(&format!("failed {problem:?} {again:?} {leased:?} {:?}", queue.health()));
            }
        }
    }
    say("never failed");
}

/// What the next life finds, each with its body.
pub(super) async fn found(dir: &Path) -> BTreeMap<u64, bool> {
    let (queue, _) = SqliteQueue::open(&child_settings(dir), Clock::system(), Box::new(|_| {})).unwrap();
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = queue.list(&Filter::default(), after, 1000).await.unwrap();
        for delivery in &page.deliveries {
            let shown = queue.show(delivery.id).await.unwrap().unwrap();
            let (number, filling) = str::from_utf8(&shown.event.body).unwrap().split_once(':').unwrap();
            assert!(number.parse::<u32>().is_ok() && filling.bytes().all(|b| b == b'x'));
            found.insert(delivery.id.0, delivery.state.is_open());
        }
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[test]
fn a_disk_that_fails_closes_the_queue() {
    // After a failed sync the next one succeeds over data that is gone: "taken" would be a lie.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let calls = [("pwrite64", 3), ("fsync", 1), ("fdatasync", 1)];
    for (call, step) in calls {
        let mut failures = 0;
        for number in 0..amount("HOOKWARD_FAILURES", 16) {
            let scratch = Scratch::new();
            let time = super::clock();
            runtime.block_on(async { start(&settings(&scratch), &time).0.close().await });
            let log = scratch.dir().join("hookward.db-wal").to_str().unwrap().to_owned();
            let file = scratch.dir().join("hookward.db").to_str().unwrap().to_owned();
            let inject = format!("inject={call}:error=EIO:when={}", 1 + number * step);
            let options = ["-f", "-qq", "-o", "/dev/null", "-P", &log, "-P", &file, "-e", &inject];
            let mut life = Life::start(child_command(&options, &scratch, "until it fails"));
            let (mut published, mut last) = (Vec::new(), String::new());
            while let Some(line) = life.next() {
                match line.strip_prefix("published ") {
                    Some(id) => published.push(id.parse::<u64>().unwrap()),
                    None => last = line,
                }
            }
            life.child.wait().unwrap();
            match last.as_str() {
                "failed Closed Err(Closed) Err(Closed) Closed" => failures += 1,
                // Met while it was opened, or not at all: SQLite syncs by one of the two calls only.
                "cannot open" | "never failed" => {}
                other => panic!("{call} {number}: {other}"),
            }
            let found = runtime.block_on(found(scratch.dir()));
            assert!(published.iter().all(|id| found.contains_key(id)), "{call} {number}");
        }
        assert!(failures > 8 || call != "pwrite64", "{call}: {failures}");
    }
}

/// Publishes and delivers, taking every failure for what it is.
async fn whatever_fails(queue: &SqliteQueue) {
    let mut failed = 0;
    for number in 0..60_usize {
        let body = format!("{number}:{}", "x".repeat(number * 211 % 9000));
        match queue.publish(new_event(body), None).await {
            Ok(receipt) => say(&format!("published {}", receipt.id())),
            Err(_) => failed += 1,
        }
        match queue.lease(&lane("app"), 2, TERM).await {
            Err(_) => failed += 1,
            Ok(batch) => {
                for leased in batch.leased {
                    let (number, filling) = str::from_utf8(&leased.event.body).unwrap().split_once(':').unwrap();
                    let length = number.parse::<usize>().unwrap() * 211 % 9000;
                    assert!(filling.len() == length && filling.bytes().all(|b| b == b'x'));
                    let _ = queue.end(&leased.lease, End::Ack(attempt(200))).await;
                }
            }
        }
    }
    say(&format!("failed {failed} {:?}", queue.health()));
}

#[test]
fn a_disk_that_cannot_be_read_hands_out_nothing_else() {
    // One bad sector, and the gateway delivers something that nobody sent, forgets what is beside it, or dies of it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut failures = 0;
    for number in 0..amount("HOOKWARD_FAILURES", 24) {
        let scratch = Scratch::new();
        let time = super::clock();
        runtime.block_on(async { start(&settings(&scratch), &time).0.close().await });
        let log = scratch.dir().join("hookward.db-wal").to_str().unwrap().to_owned();
        let file = scratch.dir().join("hookward.db").to_str().unwrap().to_owned();
        // A single one at first, then a device that fails for good.
        let when = [format!("{}", 1 + number * 4), format!("{}+", 1 + number * 4)];
        let inject = format!("inject=pread64:error=EIO:when={}", when[number % 2]);
        let options = ["-f", "-qq", "-o", "/dev/null", "-P", &log, "-P", &file, "-e", &inject];
        let mut life = Life::start(child_command(&options, &scratch, "whatever fails"));
        let (mut published, mut last) = (Vec::new(), String::new());
        while let Some(line) = life.next() {
            match line.strip_prefix("published ") {
                Some(id) => published.push(id.parse::<u64>().unwrap()),
                None => last = line,
            }
        }
        life.child.wait().unwrap();
        assert!(
            last == "cannot open" || last.starts_with("failed "),
            "{number}: {last:?}"
        );
        failures += usize::from(last != "failed 0 Open");
        let found = runtime.block_on(found(scratch.dir()));
        assert!(published.iter().all(|id| found.contains_key(id)), "{number}");
    }
    assert!(failures > 12, "{failures}");
}

#[test]
fn a_disk_that_is_full_for_a_while_refuses_for_a_while() {
    // Somebody's log fills the disk for a minute, and the gateway has to be restarted by hand, or forgets events.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for first in [5, 9, 14, 22] {
        let scratch = Scratch::new();
        let time = super::clock();
        runtime.block_on(async { start(&settings(&scratch), &time).0.close().await });
        let log = scratch.dir().join("hookward.db-wal").to_str().unwrap().to_owned();
        let inject = format!("inject=pwrite64:error=ENOSPC:when={first}");
        let options = ["-f", "-qq", "-o", "/dev/null", "-P", &log, "-e", &inject];
        let mut life = Life::start(child_command(&options, &scratch, "until it fails"));
        let (mut published, mut last) = (Vec::new(), String::new());
        while let Some(line) = life.next() {
            match line.strip_prefix("published ") {
                Some(id) => published.push(id.parse::<u64>().unwrap()),
                None => last = line,
            }
        }
        life.child.wait().unwrap();
        // Refused, delivering all the same; whether there is room again by then is a matter of time.
        assert!(last.starts_with("failed Full ") && !last.contains("Closed"), "{last}");
        assert!(last.contains(") Ok("), "{last}");
        let found = runtime.block_on(found(scratch.dir()));
        assert!(published.iter().all(|id| found.contains_key(id)));
    }
}

#[tokio::test]
async fn what_was_out_at_a_crash_is_another_attempt() {
    // The backend cannot tell the repeat from the first, since both say that they are the first.
    let (scratch, time) = (Scratch::new(), super::clock());
    let copy = Scratch::new();
    let (queue, _) = start(&settings(&scratch), &time);
    for _ in 0..4 {
        let _ = queue.publish(super::event(&time, "1"), None).await.unwrap();
    }
    let leased = queue
        .lease(&lane("app"), 3, Duration::from_secs(30))
        .await
        .unwrap()
        .leased;
    queue.end(&leased[0].lease, End::Ack(attempt(200))).await.unwrap();
    queue
        .end(&leased[1].lease, End::Retry(attempt(500), UnixMillis(0)))
        .await
        .unwrap();
    // As a kill leaves it.
    std::fs::create_dir_all(copy.dir()).unwrap();
    for name in ["hookward.db", "hookward.db-wal"] {
        std::fs::copy(scratch.dir().join(name), copy.dir().join(name)).unwrap();
    }
    let (again, _) = start(&settings(&copy), &time);
    let batch = again.lease(&lane("app"), 10, TERM).await.unwrap();
    let numbers: Vec<u32> = batch.leased.iter().map(|leased| leased.attempt).collect();
    assert_eq!(numbers, [2, 2, 1]);
    let (_, attempts) = &again.show(leased[2].lease.id()).await.unwrap().unwrap().deliveries[0];
    assert_eq!((attempts.len(), attempts[0].status), (1, None));
    // No lease of the former life ends anything.
    for old in &leased {
        assert_eq!(
            again.end(&old.lease, End::Ack(attempt(200))).await,
            Ok(crate::queue::Ended::Fenced)
        );
    }
    assert_eq!(deliver_all(&again).await, 0);
    assert_ne!(
        again.publish(super::event(&time, "1"), None).await.map(|_| ()),
        Err(QueueError::Closed)
    );
}

#[tokio::test]
async fn a_crash_leaves_the_schedule_alone() {
    // What has failed and waits an hour is sent at once, because another of its batch was out at the crash.
    let (scratch, time, copy) = (Scratch::new(), super::clock(), Scratch::new());
    let (queue, _) = start(&settings(&scratch), &time);
    for _ in 0..2 {
        let _ = queue.publish(super::event(&time, "1"), None).await.unwrap();
    }
    let leased = queue.lease(&lane("app"), 2, TERM).await.unwrap().leased;
    let in_an_hour = UnixMillis(time.clock().steady().0 + 3_600_000);
    let failed = End::Retry(attempt(500), in_an_hour);
    queue.end(&leased[0].lease, failed).await.unwrap();
    std::fs::create_dir_all(copy.dir()).unwrap();
    for name in ["hookward.db", "hookward.db-wal"] {
        std::fs::copy(scratch.dir().join(name), copy.dir().join(name)).unwrap();
    }
    let (again, _) = start(&settings(&copy), &time);
    let batch = again.lease(&lane("app"), 10, TERM).await.unwrap().leased;
    let ids: Vec<_> = batch.iter().map(|leased| leased.lease.id()).collect();
    assert_eq!(ids, [leased[1].lease.id()]);
    again.end(&batch[0].lease, End::Ack(attempt(200))).await.unwrap();
    let next_at = again.lease(&lane("app"), 10, TERM).await.unwrap().next_at;
    assert_eq!(next_at, Some(in_an_hour));
}
