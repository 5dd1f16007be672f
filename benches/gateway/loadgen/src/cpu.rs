//! CPU time of processes and of the machine, read from `/proc`.
//!
//! `schedstat` counts nanoseconds per thread and needs neither root nor a cgroup, of whichever version; where the kernel was
//! built without it, `stat` counts in ticks of 10 ms. A thread that ends takes its `schedstat` with it: the systems measured
//! here keep their threads.

use std::fs;

/// The kernel reports to user space in hundredths of a second whatever its own tick.
const TICK_MS: u64 = 10;

/// CPU time the processes have used so far, user and system, all threads, in nanoseconds. What cannot be read counts as none.
pub(crate) fn used_ns(pids: &[u32]) -> u64 {
    pids.iter()
        .map(|pid| threads_ns(*pid).unwrap_or_else(|| ticks_ns(*pid).unwrap_or(0)))
        .sum()
}

/// Where all cores together spent their time so far, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// Anything but idling, waiting and being robbed.
    pub(crate) busy_ms: u64,
    /// Taken by the hypervisor: what is measured meanwhile is not the proxy.
    pub(crate) steal_ms: u64,
}

impl Machine {
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let first = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first
            .split_ascii_whitespace()
            .skip(1)
            .map(|text| text.parse().unwrap_or(0))
            .collect();
        // user nice system idle iowait irq softirq steal
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
            return Self::default();
        };
        Self {
            busy_ms: (user + nice + system + irq + softirq) * TICK_MS,
            steal_ms: steal * TICK_MS,
        }
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            busy_ms: self.busy_ms.saturating_sub(earlier.busy_ms),
            steal_ms: self.steal_ms.saturating_sub(earlier.steal_ms),
        }
    }
}

fn threads_ns(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut sum_ns = 0;
    for thread in threads.flatten() {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        sum_ns += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(sum_ns)
}

fn ticks_ns(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; user and system time are the 12th and 13th field after it.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * TICK_MS * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_not_work() {
        // If this fails, a noisy neighbour is taken for the proxy's own cost.
        let machine = Machine::parse("cpu  10 2 30 400 50 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n");
        assert_eq!((machine.busy_ms, machine.steal_ms), (550, 800));
    }

    #[test]
    fn work_of_this_very_process_is_counted_either_way() {
        // If this fails, the figures of the whole benchmark are noise.
        let pid = std::process::id();
        let before = (used_ns(&[pid]), ticks_ns(pid).unwrap());
        let mut sum = 0_u64;
        while ticks_ns(pid).unwrap() < before.1 + 50_000_000 {
            sum = std::hint::black_box((0..100_000_u64).fold(sum, u64::wrapping_add));
        }
        assert!(used_ns(&[pid]) > before.0 + 20_000_000);
    }
}
