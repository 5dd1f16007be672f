//! The power goes: what SQLite promises, checked on our use of it.
//!
//! A child's writes and syncs are recorded by strace. For every moment between two of them the files are put together
//! as the disk may have them then: everything that was synced, and of what was not all, nothing, the first ones, some,
//! or one torn in the middle of a sector's run. Each must open, and must have everything that was said to be published.
//!
//! 1,000 such moments as a rule; `HOOKWARD_CUTS` says otherwise for a long run, which sees each moment in many ways.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::super::Queue;
use super::crash::{Life, child_command, found};
use super::{clock, settings, start};
use crate::database::scratch::Scratch;

/// What was done to the files, in order.
#[derive(Debug)]
enum Step {
    Write { file: usize, at: usize, bytes: Vec<u8> },
    Truncate { file: usize, length: usize },
    Sync { file: usize },
    Published(u64),
}

const FILES: [&str; 2] = ["hookward.db", "hookward.db-wal"];

/// The unit that a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// Kinds of loss; they take turns.
const KINDS: usize = 6;

/// One call of strace's log, with what was cut in two by another thread's call put together.
fn calls(log: &str) -> Vec<String> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, start.to_owned());
        } else if let Some((_, end)) = call.split_once(" resumed>") {
            let start = begun.remove(thread).unwrap_or_default();
            calls.push(format!("{start}{end}"));
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

fn step(call: &str, dir: &Path) -> Option<Step> {
    let (name, rest) = call.split_once('(')?;
    let (fd, rest) = rest.split_once('>')?;
    let (_, path) = fd.split_once('<')?;
    if name == "write" {
        let text = unescaped(rest.split('"').nth(1)?);
        let said = String::from_utf8(text).ok()?;
        return Some(Step::Published(
            said.strip_prefix("!published ")?.trim_end().parse().ok()?,
        ));
    }
    let path = String::from_utf8(unescaped(path)).ok()?;
    let file = FILES.iter().position(|file| Path::new(&path) == dir.join(file))?;
    let numbers = |text: &str| -> Vec<usize> {
        text.split([',', ')'])
            .filter_map(|number| number.trim().parse().ok())
            .collect()
    };
    assert!(!rest.contains("= -1"), "{call}");
    Some(match name {
        "pwrite64" => {
            let bytes = unescaped(rest.split('"').nth(1)?);
            let numbers = numbers(rest.rsplit('"').next()?);
            assert_eq!(numbers[0], bytes.len());
            Step::Write {
                file,
                at: numbers[1],
                bytes,
            }
        }
        "ftruncate" => Step::Truncate {
            file,
            length: numbers(rest)[0],
        },
        "fsync" | "fdatasync" => Step::Sync { file },
        other => panic!("{other}"),
    })
}

fn unescaped(hex: &str) -> Vec<u8> {
    hex.split("\\x")
        .skip(1)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// A file on the disk, and what was written to it and not synced since.
#[derive(Clone, Default)]
struct Disk {
    synced: Vec<u8>,
    loose: Vec<(usize, Option<Vec<u8>>)>,
}

impl Disk {
    fn apply(bytes: &mut Vec<u8>, at: usize, piece: Option<&[u8]>) {
        match piece {
            Some(piece) => {
                bytes.resize(bytes.len().max(at + piece.len()), 0);
                bytes[at..at + piece.len()].copy_from_slice(piece);
            }
            None => bytes.resize(at, 0),
        }
    }

    fn sync(&mut self) {
        for (at, piece) in self.loose.drain(..) {
            Disk::apply(&mut self.synced, at, piece.as_deref());
        }
    }

    /// What may be there after the power went, of the kind `kind`.
    fn after_loss(&self, kind: usize, seed: usize) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let all = self.loose.len();
        for (number, (at, piece)) in self.loose.iter().enumerate() {
            let chance = (number + 1).wrapping_mul(2_654_435_761).wrapping_add(seed * 40_503) >> 7;
            let kept = match kind {
                0 => true,
                1 => false,
                2 => number < chance % (all + 1),
                3 | 4 => chance % 2 == 0,
                _ => number + 1 == all,
            };
            // Torn: some sectors of a write are there, others are not.
            let whole = piece.as_deref().filter(|_| kind >= 4);
            match whole {
                _ if !kept => {}
                None => Disk::apply(&mut bytes, *at, piece.as_deref()),
                Some(whole) => {
                    for (sector, part) in whole.chunks(SECTOR).enumerate() {
                        if (chance >> (sector % 16)) % 2 == 0 {
                            Disk::apply(&mut bytes, at + sector * SECTOR, Some(part));
                        }
                    }
                }
            }
        }
        bytes
    }
}

#[test]
fn the_power_may_go_at_any_moment() {
    // A provider was told "taken", the machine lost its power, and the event is gone, or the queue does not open.
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { start(&settings(&scratch), &clock()).0.close().await });
    let mut disks = FILES.map(|file| Disk {
        synced: std::fs::read(scratch.dir().join(file)).unwrap_or_default(),
        loose: Vec::new(),
    });
    let log = scratch.dir().join("strace.log");
    let trace = "trace=write,pwrite64,ftruncate,fsync,fdatasync";
    let options = [
        "-f",
        "-qq",
        "-y",
        "-xx",
        "-s",
        "1000000",
        "-e",
        trace,
        "-o",
        log.to_str().unwrap(),
    ];
    let mut life = Life::start(child_command(&options, &scratch, "steady"));
    let mut said = 0;
    while let Some(line) = life.next() {
        said += usize::from(line.starts_with("published"));
    }
    assert!(life.wait());
    let calls = calls(&std::fs::read_to_string(&log).unwrap());
    let steps: Vec<Step> = calls.iter().filter_map(|call| step(call, scratch.dir())).collect();
    let published = steps.iter().filter(|step| matches!(step, Step::Published(_))).count();
    let synced_files = |file| {
        steps
            .iter()
            .filter(|step| matches!(step, Step::Sync { file: f } if *f == file))
            .count()
    };
    assert_eq!((published, said), (40, 40));
    // The log was synced for each event, and copied into the database now and then.
    assert!(
        synced_files(1) >= 40 && synced_files(0) >= 3,
        "{} {}",
        synced_files(1),
        synced_files(0)
    );

    let cuts_wanted: usize = std::env::var("HOOKWARD_CUTS").map_or(1000, |count| count.parse().unwrap());
    let each = cuts_wanted.div_ceil(steps.len());
    let mut durable = Vec::new();
    let mut cuts = 0;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write { file, at, bytes } => disks[file].loose.push((at, Some(bytes))),
            Step::Truncate { file, length } => disks[file].loose.push((length, None)),
            Step::Sync { file } => disks[file].sync(),
            Step::Published(id) => durable.push(id),
        }
        for round in 0..each {
            let (kind, seed) = ((number + round) % KINDS, number + round * 7919);
            cuts += 1;
            let copy = Scratch::new();
            std::fs::create_dir_all(copy.dir()).unwrap();
            for (file, disk) in FILES.iter().zip(&disks) {
                std::fs::write(copy.dir().join(file), disk.after_loss(kind, seed)).unwrap();
            }
            let found = runtime.block_on(found(copy.dir()));
            let lost: Vec<_> = durable.iter().filter(|id| !found.contains_key(id)).collect();
            assert!(
                lost.is_empty(),
                "cut {number}, kind {kind}, seed {seed}: {lost:?} of {}",
                durable.len()
            );
        }
    }
    println!("{cuts} cuts of {} steps", cuts / each);
    assert!(cuts >= cuts_wanted, "{cuts}");
}
