//! Frames of HTTP/2 that ask for work and carry no request, counted on their way to Pingora.
//!
//! Settings, pings and priorities cost a sender a dozen bytes, and us a few microseconds each and perhaps an answer; no
//! library bounds how many may come. One connection that sends nothing else keeps a thread busy, and everybody on that
//! thread waiting. So a connection has a number of them in a time, far above what any client needs, and is ended beyond.
//! Frames that open, reset or continue streams are bounded where streams are known (Pingora, the h2 crate).

use std::time::Duration;

use crate::clock::{Clock, Moment};

/// Such frames in one [`PERIOD`]. Browsers send a few settings and priorities at the start, and a ping now and then.
const FRAMES_MAX: u32 = 1000;

const PERIOD: Duration = Duration::from_secs(10);

/// The length of what every connection begins with.
const PREFACE_BYTES: u64 = 24;

/// Bytes in front of each frame (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

/// How far a connection has been read.
#[derive(Debug)]
pub(super) struct Frames {
    clock: Clock,
    /// Bytes until the next head.
    skip: u64,
    head: [u8; HEAD_BYTES],
    known: usize,
    /// Since when, and how many.
    since: Moment,
    count: u32,
}

/// More than anybody needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Frames {
    /// The start of a connection, its preface included.
    pub(super) fn new(clock: &Clock) -> Self {
        Frames {
            since: clock.moment(),
            clock: clock.clone(),
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            known: 0,
            count: 0,
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
                self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
                self.count(kind)?;
            }
        }
    }

    fn count(&mut self, kind: u8) -> Result<(), Flood> {
        // DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION.
        if matches!(kind, 0 | 1 | 3 | 8 | 9) {
            return Ok(());
        }
        self.count = self.count.saturating_add(1);
        if self.count <= FRAMES_MAX {
            return Ok(());
        }
        // The clock is read once in a thousand frames.
        let now = self.clock.moment();
        if now.since(self.since) < PERIOD {
            return Err(Flood);
        }
        (self.since, self.count) = (now, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
            let mut frames = Frames::new(&ManualClock::at(UnixMillis(0)).clock());
            let read: Vec<_> = pings.chunks(cut).map(|piece| frames.read(piece)).collect();
            // The last frame's head tells, 17 bytes before the end at most.
            let seen = read.iter().position(Result::is_err).expect("a flood");
            assert!(
                seen.saturating_add(1).saturating_mul(cut) >= pings.len() - 17,
                "{cut}: {seen}"
            );
        }
    }

    #[test]
    fn requests_and_time_cost_nothing() {
        // A connection that lives for days pings all the time, and one that is busy opens streams without end.
        let manual = ManualClock::at(UnixMillis(0));
        let mut frames = Frames::new(&manual.clock());
        frames.read(PREFACE).unwrap();
        for kind in [0, 1, 3, 8, 9] {
            frames.read(&frame(kind, 100).repeat(5000)).unwrap();
        }
        for _ in 0..5000 {
            manual.advance(Duration::from_millis(20));
            frames.read(&frame(6, 8)).unwrap();
        }
        for kind in [2, 4, 5, 7, 10, 255] {
            let mut frames = Frames::new(&manual.clock());
            frames.read(PREFACE).unwrap();
            assert_eq!(frames.read(&frame(kind, 4).repeat(1001)), Err(Flood), "{kind}");
        }
    }
}
