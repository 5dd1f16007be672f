//! The fuzz targets without a fuzzer: the corpus, and a second of mutations of it. What coverage leads to is found by
//! `fuzz/run`; this holds what was found there, and that the targets still say something.
//!
//! `HOOKWARD_FUZZ_MS` is the time for each target, `HOOKWARD_FUZZ_SEED` where its mutations begin.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// Panics on the way, those included that a runtime has caught.
static PANICS: Mutex<Vec<(std::thread::ThreadId, String)>> = Mutex::new(Vec::new());

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is no number"))
    })
}

/// Every input that is kept for a target, with its name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let seeds = targets::SEEDS.iter().filter(|(of, _)| *of == target);
    let mut inputs: Vec<_> = seeds.map(|(_, bytes)| ("a seed".to_owned(), bytes.clone())).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        inputs.push((path.display().to_string(), std::fs::read(path).unwrap()));
    }
    inputs.sort();
    inputs
}

/// Numbers without an end (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        number as usize % bound.max(1)
    }
}

/// Bytes that mean something to somebody.
const WORDS: [&[u8]; 40] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b"/",
    b"//",
    b"/..",
    b"/.",
    b"%2e",
    b"%2f",
    b"%00",
    b"%25",
    b";",
    b"?",
    b"#",
    b"\\",
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"=",
    b"-",
    b"+",
    b"0",
    b"18446744073709551616",
    b"\xff",
    b"\xc3\xa9",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 0\r\n",
    b"Host: b\r\n",
    b"\xe2\x80\xa8",
    b"null",
    b"HTTP/1.1",
];

fn mutated(chance: &mut Chance, inputs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = inputs[chance.below(inputs.len())].1.clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let to = at + chance.below(bytes.len() - at + 1).min(64);
        match chance.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = chance.below(256) as u8,
            2 => drop(bytes.drain(at..to)),
            3 => {
                let twice = bytes[at..to].to_vec();
                bytes.splice(at..at, twice);
            }
            4 => {
                let other = &inputs[chance.below(inputs.len())].1;
                let from = chance.below(other.len());
                bytes.splice(at..to, other[from..].iter().take(128).copied());
            }
            5 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, WORDS[chance.below(WORDS.len())].iter().copied())),
        }
    }
    bytes
}

/// Gives a target its corpus, and mutations of it for a while.
fn play(name: &str) {
    let (_, target) = targets::TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let own = std::thread::current().id();
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS
                .lock()
                .unwrap()
                .push((std::thread::current().id(), panic.to_string()));
            before(panic);
        }));
    });
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "nothing to begin with");
    let one = |what: &str, bytes: &[u8]| {
        let ended = catch_unwind(AssertUnwindSafe(|| target(bytes)));
        // Free again before anything else can panic.
        let ours: Vec<_> = PANICS
            .lock()
            .unwrap()
            .extract_if(.., |(thread, _)| *thread == own)
            .collect();
        assert!(
            ended.is_ok() && ours.is_empty(),
            "{name}: {what}: {}: {ours:?}",
            bytes.escape_ascii()
        );
    };
    inputs.iter().for_each(|(what, bytes)| one(what, bytes));
    let seed = setting("HOOKWARD_FUZZ_SEED", 1);
    let (mut chance, mut count) = (Chance(seed | 1 << 40), 0);
    let end = Instant::now() + Duration::from_millis(setting("HOOKWARD_FUZZ_MS", 800));
    while Instant::now() < end || count < 100 {
        count += 1;
        one(
            &format!("mutation {count} of seed {seed}"),
            &mutated(&mut chance, &inputs),
        );
    }
    println!("{name}: {} inputs, {count} mutations", inputs.len());
}

macro_rules! targets {
    ($($name:ident: $why:literal,)*) => {
        $(
            #[test]
            fn $name() {
                // In the world:
                let _: &str = $why;
                play(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_played() {
            // A target that nobody runs finds nothing.
            let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, [$(stringify!($name)),*]);
        }
    };
}

targets! {
    head: "two parsers that read one head in two ways are how requests are smuggled",
    path: "a spelling that slips past the route reaches the application unverified",
    signature: "a header that makes a verifier say yes, or stop, is a way in or an outage",
    timestamp: "a second spelling of a signed time makes a captured event look new",
    token: "whoever publishes keys, or has one configured, must not be able to stop the process",
    facts: "what becomes a header or a line of the log must not become two",
    config: "a problem without a place sends somebody looking in the wrong line at night",
    request: "one connection must not end the process, or put anything upstream that nobody has signed",
}
