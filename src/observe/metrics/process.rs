//! What the kernel says about this process, read from `/proc/self` when somebody scrapes.
//!
//! Read by hand: seven numbers do not justify a dependency. Where there is no `/proc` there are no numbers, and the
//! `process_*` families do not exist. A file that is missing or odd reads as zero rather than failing a scrape.

use std::fs;

/// Clock ticks per second in `/proc`: `USER_HZ`, which the kernel keeps at 100 for user space whatever its own is.
const TICKS_PER_SECOND: f64 = 100.0;

/// One reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ProcessStats {
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// Memory that is in RAM.
    pub(super) resident_bytes: u64,
    /// Address space.
    pub(super) virtual_bytes: u64,
    /// When the process started, in seconds since 1970.
    pub(super) start_seconds: f64,
    pub(super) threads: u64,
    pub(super) open_fds: u64,
    /// The soft limit; zero when there is none.
    pub(super) max_fds: u64,
}

impl ProcessStats {
    /// Reads the present numbers; `None` where the system has no `/proc/self/stat`.
    pub(super) fn read() -> Option<Self> {
        let mut stats = ProcessStats::default();
        let since_boot = stats.take_stat(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let boot = fs::read_to_string("/proc/stat")
            .ok()
            .and_then(|text| boot_seconds(&text))
            .unwrap_or(0.0);
        stats.start_seconds = boot + since_boot;
        stats.take_status(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        stats.max_fds = fs::read_to_string("/proc/self/limits")
            .ok()
            .and_then(|text| max_fds(&text))
            .unwrap_or(0);
        // The directory that is being read is one of the entries.
        let entries = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        stats.open_fds = u64::try_from(entries).unwrap_or(0).saturating_sub(1);
        Some(stats)
    }

    /// Takes the processor time from `proc_pid_stat(5)`; returns the start in seconds since boot.
    fn take_stat(&mut self, text: &str) -> Option<f64> {
        // The second field is the program's name in parentheses and may hold anything, parentheses and spaces too.
        let (_, after_name) = text.rsplit_once(')')?;
        // The first field after the name is number 3 in the manual.
        let field =
            |number: usize| -> Option<f64> { after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok() };
        let (user, system, start) = (field(14)?, field(15)?, field(22)?);
        self.cpu_seconds = (user + system) / TICKS_PER_SECOND;
        Some(start / TICKS_PER_SECOND)
    }

    /// Takes memory and threads from `proc_pid_status(5)`, whose kB are KiB.
    fn take_status(&mut self, text: &str) {
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let number: u64 = value
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0);
            match name {
                "VmRSS" => self.resident_bytes = number.saturating_mul(1024),
                "VmSize" => self.virtual_bytes = number.saturating_mul(1024),
                "Threads" => self.threads = number,
                _ => {}
            }
        }
    }
}

/// The time of the boot from `proc_stat(5)`.
fn boot_seconds(text: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

/// The soft limit of open files from `proc_pid_limits(5)`.
fn max_fds(text: &str) -> Option<u64> {
    let limits = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    limits.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_shifts_no_field() {
        // A renamed binary would report its page faults as processor time.
        let mut stats = ProcessStats::default();
        let text = "42 (hook) ward (1)) S 1 42 42 0 -1 4194304 900 0 0 0 250 50 0 0 20 0 9 0 123400 1 2 3";
        assert_eq!(stats.take_stat(text), Some(1234.0));
        assert_eq!(stats.cpu_seconds, 3.0);
    }

    #[test]
    fn odd_files_read_as_nothing() {
        // A kernel that words a file differently must not fail the scrape.
        let mut stats = ProcessStats::default();
        for text in [
            "",
            "1 (x",
            "1 (x) S 1",
            "1 (x) S 1 1 1 1 1 1 1 1 1 1 a b 0 0 20 0 9 0 c",
        ] {
            assert_eq!(stats.take_stat(text), None, "{text}");
        }
        stats.take_status("VmRSS\nVmSize:\nThreads: many\n:::");
        assert_eq!(stats, ProcessStats::default());
        assert_eq!(boot_seconds("cpu 1 2 3"), None);
        assert_eq!(
            max_fds("Max open files            unlimited            unlimited            files"),
            None
        );
    }

    #[test]
    fn memory_limits_and_boot_are_read_in_their_units() {
        // KiB taken for bytes would hide a leak by a factor of a thousand.
        let mut stats = ProcessStats::default();
        stats.take_status("Name:\tx\nVmSize:\t  200 kB\nVmRSS:\t  100 kB\nThreads:\t7\n");
        assert_eq!(
            (stats.resident_bytes, stats.virtual_bytes, stats.threads),
            (102_400, 204_800, 7)
        );
        assert_eq!(
            max_fds("Limit\nMax open files            1024                 4096                 files"),
            Some(1024)
        );
        assert_eq!(
            boot_seconds("cpu 1\nbtime 1700000000\nprocesses 5"),
            Some(1_700_000_000.0)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_reads_itself() {
        // Dashboards would show a dead process.
        let stats = ProcessStats::read().unwrap();
        assert!(
            stats.resident_bytes > 100 * 1024 && stats.virtual_bytes >= stats.resident_bytes,
            "{stats:?}"
        );
        assert!(
            stats.threads >= 1 && stats.open_fds >= 3 && stats.max_fds >= stats.open_fds,
            "{stats:?}"
        );
        assert!(stats.start_seconds > 1_600_000_000.0, "{stats:?}");
    }
}
