//! The access log: one line per request, written by a thread of its own.
//!
//! The gateway calls [`AccessLog::write`] when a request has ended. The line is rendered into a buffer of the calling
//! thread and appended to a shared one; a writer thread takes the whole buffer and writes it in one go. A request
//! never waits for the writer: when [`PENDING_BYTES_MAX`] are waiting already, because the disk is full or the pipe
//! is stuck, the line is dropped and counted. Lines are never torn, mixed or reordered within a thread.
//!
//! What shaped it: whoever can slow down a log must not be able to slow down the webhooks, and a gateway that answers
//! twenty thousand requests a second cannot afford a system call for each. So a writer that has just written rests
//! for [`REST`] before it looks again, and only a writer that found nothing to do is woken by the next line.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::record::{Format, Record};

/// Bytes of lines that wait to be written, at most; as many again may be with the writer.
pub const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes waiting that end the writer's rest.
const URGENT_BYTES: usize = PENDING_BYTES_MAX / 8;

/// How long lines are gathered after a write.
const REST: Duration = Duration::from_millis(10);

/// A buffer that a burst has grown beyond this is given back.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// The access log. Clones write to the same place; when the last one is gone the writer ends.
#[derive(Clone)]
pub struct AccessLog(Option<Arc<Handle>>);

impl AccessLog {
    /// No log: records go nowhere and are not counted as lost.
    pub fn off() -> Self {
        AccessLog(None)
    }

    /// Lines go to standard output.
    ///
    /// # Errors
    /// When the writer thread cannot be started.
    pub fn stdout(format: Format) -> io::Result<Self> {
        Self::to(format, io::stdout())
    }

    /// Lines go to `writer`, in pieces that end with a line. A piece that cannot be written is lost and counted.
    ///
    /// # Errors
    /// When the writer thread cannot be started.
    pub fn to(format: Format, writer: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let thread = Arc::clone(&queue);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || thread.drain_to(writer))?;
        Ok(AccessLog(Some(Arc::new(Handle { format, queue }))))
    }

    /// Takes a record; never waits for the writer. After [`AccessLog::close`] it is dropped and counted.
    pub fn write(&self, record: &Record<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(handle) = &self.0 else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            record.render(handle.format, line);
            handle.queue.push(line);
        });
    }

    /// Lines lost since the start.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |handle| handle.queue.pending.lock().dropped)
    }

    /// Takes no more lines and waits until those taken are written, at most for `patience`. Returns whether they were.
    ///
    /// Called once nothing is in flight any more. Blocks its thread.
    pub fn close(&self, patience: Duration) -> bool {
        self.0.as_ref().is_none_or(|handle| handle.queue.close(patience))
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "AccessLog(on)"
        } else {
            "AccessLog(off)"
        })
    }
}

/// What clones share; its drop ends the writer without waiting for it.
struct Handle {
    format: Format,
    queue: Arc<Queue>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close(Duration::ZERO);
    }
}

/// Lines on their way to the writer.
#[derive(Default)]
struct Queue {
    pending: Mutex<Pending>,
    /// Signalled when the writer has a reason to look.
    work: Condvar,
    /// Signalled when the writer has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
    dropped: u64,
    writer: Writer,
    closing: bool,
}

/// What the writer is doing, which decides whether a new line wakes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    /// Writing, or about to look.
    #[default]
    Busy,
    /// Gathering lines after a write; wakes by itself.
    Resting,
    /// Found nothing to do; waits to be woken.
    Idle,
    /// Gone.
    Ended,
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut pending = self.pending.lock();
        if pending.closing || line.len() > PENDING_BYTES_MAX.saturating_sub(pending.bytes.len()) {
            pending.dropped = pending.dropped.saturating_add(1);
            return;
        }
        pending.bytes.extend_from_slice(line);
        pending.lines = pending.lines.saturating_add(1);
        let wake = match pending.writer {
            Writer::Idle => true,
            Writer::Resting => pending.bytes.len() >= URGENT_BYTES,
            Writer::Busy | Writer::Ended => false,
        };
        if wake {
            // Woken by this line; those that follow need not wake it again.
            pending.writer = Writer::Busy;
            drop(pending);
            self.work.notify_one();
        }
    }

    fn close(&self, patience: Duration) -> bool {
        let mut pending = self.pending.lock();
        pending.closing = true;
        self.work.notify_one();
        self.ended
            .wait_while_for(&mut pending, |pending| pending.writer != Writer::Ended, patience);
        pending.writer == Writer::Ended
    }

    /// The writer thread: takes everything that waits, writes it, rests, until the log is closed and empty.
    fn drain_to(&self, mut writer: impl Write) {
        // However the thread ends, nobody waits for it in vain.
        let _ended = Ended(self);
        let mut batch = Vec::with_capacity(64 * 1024);
        while let Some(lines) = self.take(&mut batch) {
            let written = writer.write_all(&batch).and_then(|()| writer.flush());
            self.written(lines, written);
            batch.clear();
            batch.shrink_to(KEPT_BYTES_MAX);
        }
    }

    /// Waits for lines and swaps them into the empty `batch`; `None` when there will be no more.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let mut pending = self.pending.lock();
        while pending.bytes.is_empty() {
            if pending.closing {
                return None;
            }
            pending.writer = Writer::Idle;
            self.work.wait(&mut pending);
        }
        pending.writer = Writer::Busy;
        std::mem::swap(&mut pending.bytes, batch);
        Some(std::mem::take(&mut pending.lines))
    }

    /// Books the outcome of a write and rests, unless there is a reason not to.
    fn written(&self, lines: u64, outcome: io::Result<()>) {
        if let Err(problem) = outcome {
            self.lost(lines, &problem);
        }
        let mut pending = self.pending.lock();
        if !pending.closing && pending.bytes.len() < URGENT_BYTES {
            pending.writer = Writer::Resting;
            self.work.wait_for(&mut pending, REST);
        }
        pending.writer = Writer::Busy;
    }

    /// Counts the lines of a write that failed; which of them arrived is unknown. Tells of the first loss only.
    fn lost(&self, lines: u64, problem: &io::Error) {
        let mut pending = self.pending.lock();
        let before = pending.dropped;
        pending.dropped = before.saturating_add(lines);
        drop(pending);
        if before == 0 {
            log::error!("the access log cannot be written, lines are lost: {problem}");
        }
    }
}

/// Marks the writer as ended when it is dropped.
struct Ended<'a>(&'a Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut pending = self.0.pending.lock();
        pending.closing = true;
        pending.dropped = pending.dropped.saturating_add(std::mem::take(&mut pending.lines));
        pending.writer = Writer::Ended;
        drop(pending);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::UnixMillis;

    const LONG: Duration = Duration::from_secs(30);

    fn record(path: &[u8]) -> Record<'_> {
        Record::new(UnixMillis(0), "forwarded", b"POST", path)
    }

    /// Sends each write to the test.
    struct Told(mpsc::Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Tells of each write and stays in it until it is let go, or for good once nobody can.
    struct Stuck {
        entered: mpsc::Sender<()>,
        go: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.go.recv();
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log, what tells of a write, what lets it go on, what was written.
    type Harness = (AccessLog, mpsc::Receiver<()>, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>);

    fn stuck() -> Harness {
        let (entered, has_entered) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Stuck {
            entered,
            go: wait,
            written: Arc::clone(&written),
        };
        (AccessLog::to(Format::Text, writer).unwrap(), has_entered, go, written)
    }

    fn lines(bytes: &[u8]) -> usize {
        bytes.iter().filter(|&&byte| byte == b'\n').count()
    }

    #[test]
    fn what_was_taken_is_written_before_the_log_closes() {
        // The lines of a restart's last second are those somebody will look for.
        let (told, writes) = mpsc::channel();
        let log = AccessLog::to(Format::Text, Told(told)).unwrap();
        for number in 0..1000 {
            log.write(&record(format!("/{number}").as_bytes()));
        }
        assert!(log.close(LONG));
        assert_eq!(lines(&writes.iter().collect::<Vec<_>>().concat()), 1000);
        log.write(&record(b"/late"));
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn lines_of_many_threads_are_whole_and_in_order() {
        // A torn line is a lost line, and two requests mixed into one accuse the wrong sender.
        let (told, writes) = mpsc::channel();
        let log = AccessLog::to(Format::Json, Told(told)).unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..5000 {
                        log.write(&record(format!("/{thread}/{number}").as_bytes()));
                    }
                });
            }
        });
        assert!(log.close(LONG));
        let mut next = [0; 4];
        for piece in writes {
            assert_eq!(piece.last(), Some(&b'\n'));
            for line in piece.split_inclusive(|&byte| byte == b'\n') {
                let value: serde_json::Value = serde_json::from_slice(line).unwrap();
                let mut parts = value["path"]
                    .as_str()
                    .unwrap()
                    .split('/')
                    .skip(1)
                    .map(|part| part.parse().unwrap());
                let (thread, number): (usize, usize) = (parts.next().unwrap(), parts.next().unwrap());
                assert_eq!(number, next[thread]);
                next[thread] += 1;
            }
        }
        assert_eq!((next, log.dropped()), ([5000; 4], 0));
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_never_time_or_memory() {
        // A full disk would stop the webhooks.
        let (log, entered, go, written) = stuck();
        log.write(&record(b"/first"));
        entered.recv().unwrap();
        let path = [b'p'; 256];
        let mut length = Vec::new();
        record(&path).render(Format::Text, &mut length);
        let fitting = PENDING_BYTES_MAX / length.len();
        for _ in 0..fitting + 100 {
            log.write(&record(&path));
        }
        assert_eq!(log.dropped(), 100);
        assert!(!log.close(Duration::ZERO));
        drop(go);
        assert!(log.close(LONG));
        assert_eq!((lines(&written.lock()), log.dropped()), (fitting + 1, 100));
    }

    #[test]
    fn a_busy_or_resting_writer_is_not_woken_for_each_line() {
        // A system call per request is what the thread was made to save.
        let (log, entered, go, _written) = stuck();
        let queue = Arc::clone(&log.0.as_ref().unwrap().queue);
        log.write(&record(b"/first"));
        entered.recv().unwrap();
        assert_eq!(queue.pending.lock().writer, Writer::Busy);
        log.write(&record(b"/second"));
        log.write(&record(b"/third"));
        go.send(()).unwrap();
        // Both came with one write, after the rest.
        entered.recv().unwrap();
        assert_eq!(queue.pending.lock().lines, 0);
        drop(go);
        assert!(log.close(LONG));
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_is_tried() {
        // A disk that was full for an hour would silence the log until a restart.
        struct FailsOnce(Option<mpsc::Sender<()>>, mpsc::Sender<Vec<u8>>);
        impl Write for FailsOnce {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if let Some(failed) = self.0.take() {
                    let _ = failed.send(());
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let _ = self.1.send(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (failed, has_failed) = mpsc::channel();
        let (told, writes) = mpsc::channel();
        let log = AccessLog::to(Format::Text, FailsOnce(Some(failed), told)).unwrap();
        log.write(&record(b"/lost"));
        has_failed.recv().unwrap();
        log.write(&record(b"/kept"));
        assert!(log.close(LONG));
        let written = writes.iter().collect::<Vec<_>>().concat();
        assert_eq!((log.dropped(), lines(&written)), (1, 1));
    }

    #[test]
    fn the_writer_ends_with_the_last_clone() {
        // Every reload would leave a thread behind.
        let (told, writes) = mpsc::channel();
        let log = AccessLog::to(Format::Text, Told(told)).unwrap();
        let clone = log.clone();
        drop(log);
        clone.write(&record(b"/"));
        drop(clone);
        // Ends when the thread has let go of the writer.
        assert_eq!(lines(&writes.iter().collect::<Vec<_>>().concat()), 1);
    }

    #[test]
    fn a_writer_that_panics_leaves_nobody_waiting() {
        // A shutdown would hang until it is killed.
        struct Panics;
        impl Write for Panics {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("as the test wants")
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = AccessLog::to(Format::Text, Panics).unwrap();
        log.write(&record(b"/"));
        assert!(log.close(LONG));
        log.write(&record(b"/"));
        assert!(log.dropped() >= 1);
    }

    #[test]
    fn a_log_that_is_off_loses_nothing() {
        // An alarm on lost lines would ring for everybody who wants no log.
        let log = AccessLog::off();
        log.write(&record(b"/"));
        assert!(log.close(Duration::ZERO));
        assert_eq!(log.dropped(), 0);
    }
}
