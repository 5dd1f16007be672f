//! Frames of HTTP/2 that cost more than they say, counted on their way to Pingora.
//!
//! Settings, pings and priorities carry no request: they cost a sender a dozen bytes, and us a few microseconds each and
//! perhaps an answer; no library bounds how many may come. So it is with bodies that come in crumbs: sixteen hundred
//! frames of a byte fit into one read, and whoever else is served by that thread waits until all of them are taken apart,
//! also when their streams are reset already. So a connection has a number of either in a time, far above what any client
//! needs, and is ended beyond, before what piled up is looked at. Frames that open, reset or continue streams are bounded
//! where streams are known (Pingora, the h2 crate).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use super::tally::{Counted, Tally};
use crate::clock::{Clock, Moment};

/// Frames without a request in one [`PERIOD`]. Browsers send a few settings and priorities at the start, and a ping now
/// and then.
const IDLE_MAX: u32 = 1000;

/// Crumbs in one [`PERIOD`], beyond those that were paid for: all in one read, they take half a millisecond.
const CRUMBS_MAX: u32 = 256;

/// A frame of a body that is shorter is a crumb. Those who stream send lines of a table, or what a read gave them.
const CRUMB_BYTES: u32 = 32;

/// Crumbs that come with each request: a short body, its end in a frame of its own, and one more.
const CRUMBS_EACH: u32 = 3;

/// A frame of a body that is as long is one of many: what follows it is more of that body, not another request.
const BULK_BYTES: u32 = 8 << 10;

/// A frame of a body that is as long pays for a crumb: whoever cuts a file into frames has a rest each time.
const PAYING_BYTES: u32 = 1024;

const PERIOD: Duration = Duration::from_secs(10);

/// The length of what every connection begins with.
const PREFACE_BYTES: u64 = 24;

/// Bytes in front of each frame (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

/// What whoever serves the requests of a connection learns from its being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    flood: AtomicBool,
    turns: AtomicU32,
    in_line: AtomicBool,
    waiting: Arc<Tally>,
}

impl Reading {
    /// Whether there was a flood; nothing is read any more then.
    pub(super) fn is_flood(&self) -> bool {
        self.flood.load(Ordering::Relaxed)
    }

    /// How many turns of reading there were, modulo 2^32.
    pub(super) fn turns(&self) -> u32 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Whether something waits for its turn to be read.
    pub(super) fn is_in_line(&self) -> bool {
        self.in_line.load(Ordering::Relaxed)
    }

    /// A request that was read waits for its turn until this is dropped; no more are read as long.
    pub(super) fn waits(&self) -> Counted {
        self.waiting.enter()
    }
}

/// How far a connection has been read.
#[derive(Debug)]
pub(super) struct Frames {
    clock: Clock,
    reading: Arc<Reading>,
    /// Bytes until the next head.
    skip: u64,
    head: [u8; HEAD_BYTES],
    known: usize,
    /// The last frame is a long one of a body.
    is_bulk: bool,
    idle: Account,
    /// `None`: of a proxy, which carries the bodies of many as they came.
    crumbs: Option<Account>,
}

/// What is left of one kind of frames.
#[derive(Debug)]
struct Account {
    max: u32,
    left: u32,
    since: Moment,
}

/// More than anybody needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Frames {
    /// The start of a connection, its preface included; `is_proxy`: it carries many clients.
    pub(super) fn new(clock: &Clock, reading: &Arc<Reading>, is_proxy: bool) -> Self {
        let since = clock.moment();
        Frames {
            clock: clock.clone(),
            reading: Arc::clone(reading),
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            known: 0,
            is_bulk: false,
            idle: Account::new(IDLE_MAX, since),
            crumbs: (!is_proxy).then(|| Account::new(CRUMBS_MAX, since)),
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// [`Flood`]; the connection is to be ended.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        loop {
            let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
            self.skip = self.skip.saturating_sub(skipped as u64);
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else {
                return Ok(());
            };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.known) {
                *place = *first;
                self.known = self.known.saturating_add(1);
            }
            if self.known == HEAD_BYTES {
                self.known = 0;
                let [a, b, c, kind, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.skip = u64::from(length);
                self.is_bulk = kind == 0 && length >= BULK_BYTES;
                if self.count(kind, length).is_err() {
                    self.reading.flood.store(true, Ordering::Relaxed);
                    return Err(Flood);
                }
            }
        }
    }

    /// Whether there was a flood.
    pub(super) fn is_flood(&self) -> bool {
        self.reading.is_flood()
    }

    /// Ready when nothing that was read waits for its turn.
    pub(super) fn poll_begun(&self, context: &mut Context<'_>) -> Poll<()> {
        self.reading.waiting.poll_none(context)
    }

    /// Bytes until the end of the frame or the head that was read last, and of a long body the next head as well; 0 when a
    /// request may follow.
    pub(super) fn rest(&self) -> usize {
        match self.known {
            0 => {
                let next = if self.is_bulk { HEAD_BYTES } else { 0 };
                usize::try_from(self.skip).map_or(usize::MAX, |skip| skip.saturating_add(next))
            }
            known => HEAD_BYTES.saturating_sub(known),
        }
    }

    /// The next turn of reading is waited for in line.
    pub(super) fn line_up(&self) {
        self.reading.in_line.store(true, Ordering::Relaxed);
    }

    /// Another turn of reading begins.
    pub(super) fn begin_turn(&self) {
        self.reading.in_line.store(false, Ordering::Relaxed);
        self.reading.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&mut self, kind: u8, length: u32) -> Result<(), Flood> {
        match (kind, &mut self.crumbs) {
            // DATA.
            (0, Some(crumbs)) if length < CRUMB_BYTES => crumbs.spend(&self.clock),
            (0, Some(crumbs)) if length >= PAYING_BYTES => crumbs.earn(1),
            // HEADERS.
            (1, Some(crumbs)) => crumbs.earn(CRUMBS_EACH),
            // And RST_STREAM, WINDOW_UPDATE, CONTINUATION.
            (0 | 1 | 3 | 8 | 9, _) => Ok(()),
            _ => self.idle.spend(&self.clock),
        }
    }
}

impl Account {
    fn new(max: u32, since: Moment) -> Self {
        Account { max, left: max, since }
    }

    fn earn(&mut self, frames: u32) -> Result<(), Flood> {
        self.left = self.left.saturating_add(frames).min(self.max);
        Ok(())
    }

    fn spend(&mut self, clock: &Clock) -> Result<(), Flood> {
        if self.left == 0 {
            // The clock is read once in hundreds of frames.
            let now = clock.moment();
            if now.since(self.since) < PERIOD {
                return Err(Flood);
            }
            (self.since, self.left) = (now, self.max);
        }
        self.left = self.left.saturating_sub(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frames(clock: &Clock, is_proxy: bool) -> Frames {
        let mut frames = Frames::new(clock, &Arc::default(), is_proxy);
        frames.read(PREFACE).unwrap();
        frames
    }

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 0]);
        // Content that looks like a head of a ping.
        frame.extend([0, 0, 0, 6].iter().cycle().take(length as usize));
        frame
    }

    #[test]
    fn a_flood_is_seen_however_it_is_cut() {
        // A frame that is cut in two, or whose content looks like frames, must be counted once.
        let pings = frame(6, 8).repeat(1001);
        let pings = [PREFACE, &frame(0, 5000), &pings].concat();
        for cut in [1, 7, 9, 100, 4096, pings.len()] {
            let mut frames = Frames::new(&ManualClock::at(UnixMillis(0)).clock(), &Arc::default(), false);
            let read: Vec<_> = pings.chunks(cut).map(|piece| frames.read(piece)).collect();
            // The last frame's head tells, 17 bytes before the end at most.
            let seen = read.iter().position(Result::is_err).expect("a flood");
            assert!(
                seen.saturating_add(1).saturating_mul(cut) >= pings.len() - 17,
                "{cut}: {seen}"
            );
            assert!(frames.is_flood());
        }
    }

    #[test]
    fn requests_and_time_cost_nothing() {
        // A connection that lives for days pings all the time, and one that is busy opens streams without end.
        let manual = ManualClock::at(UnixMillis(0));
        let mut busy = frames(&manual.clock(), false);
        for kind in [0, 1, 3, 8, 9] {
            busy.read(&frame(kind, 100).repeat(5000)).unwrap();
        }
        for _ in 0..5000 {
            manual.advance(Duration::from_millis(20));
            busy.read(&frame(6, 8)).unwrap();
        }
        for kind in [2, 4, 5, 7, 10, 255] {
            let mut idle = frames(&manual.clock(), true);
            assert_eq!(idle.read(&frame(kind, 4).repeat(1001)), Err(Flood), "{kind}");
        }
    }

    #[test]
    fn bodies_in_crumbs_are_a_flood_and_what_libraries_send_is_none() {
        // One client that sends its bodies by the byte takes the thread from everybody; one that is taken for it though it
        // only ends each short body with an empty frame loses its events.
        let manual = ManualClock::at(UnixMillis(0));
        let clock = manual.clock();
        for length in [0, 1, 31] {
            let mut crumbs = frames(&clock, false);
            crumbs.read(&frame(0, length).repeat(256)).unwrap();
            assert_eq!(crumbs.read(&frame(0, length)), Err(Flood), "{length}");
        }
        let genuine = [
            (
                "short bodies and their ends",
                [frame(1, 50), frame(0, 2), frame(0, 0)].concat(),
            ),
            (
                "a file in pieces with a rest",
                [frame(0, 16_384), frame(0, 16)].concat(),
            ),
            ("lines of a table", frame(0, 32)),
        ];
        for (name, piece) in genuine {
            assert_eq!(frames(&clock, false).read(&piece.repeat(5000)), Ok(()), "{name}");
        }
        let mut drips = frames(&clock, false);
        for _ in 0..5000 {
            manual.advance(Duration::from_millis(40));
            drips.read(&frame(0, 1)).unwrap();
        }
        assert_eq!(
            frames(&clock, true).read(&frame(0, 1).repeat(5000)),
            Ok(()),
            "a proxy's"
        );
        let paid = [frame(1, 50).repeat(100), frame(0, 5000).repeat(1000)].concat();
        let mut rich = frames(&clock, false);
        rich.read(&paid).unwrap();
        assert_eq!(rich.read(&frame(0, 1).repeat(257)), Err(Flood), "nothing is saved up");
    }
}
