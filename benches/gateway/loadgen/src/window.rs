//! A run is cut into windows, and its figures come from the windows nobody disturbed.
//!
//! On a shared machine the hypervisor takes a core away now and then; a window in which it did says little about the proxy.
//! When too few clean windows came together, the least disturbed ones are used and `clean` says how few there were.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cpu::{self, Machine};

const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Processes whose CPU time is told apart in the report, by a name such as `proxy`.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    name: String,
    pids: Vec<u32>,
}

impl std::str::FromStr for Watched {
    type Err = String;

    /// `name=pid,pid`, where `self` is the load generator.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pids) = text.split_once('=').ok_or("expected name=pid,pid")?;
        let pids = pids.split(',').map(|pid| match pid {
            "self" => Ok(std::process::id()),
            _ => pid.parse().map_err(|_| format!("{pid:?} is no process id")),
        });
        Ok(Self {
            name: name.to_owned(),
            pids: pids.collect::<Result<_, _>>()?,
        })
    }
}

/// What happened between two readings of the counters.
pub(crate) struct Window {
    began: Instant,
    cpu_began: Vec<u64>,
    machine_began: Machine,
    elapsed: Duration,
    cpu_ns: Vec<u64>,
    machine: Machine,
    latency_ns: Histogram<u64>,
    late_ns: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    reconnects: u64,
}

impl Window {
    pub(crate) fn begin(watched: &[Watched]) -> Self {
        Self {
            cpu_began: watched.iter().map(|one| cpu::used_ns(&one.pids)).collect(),
            machine_began: Machine::read(),
            began: Instant::now(),
            elapsed: Duration::ZERO,
            cpu_ns: Vec::new(),
            machine: Machine::default(),
            latency_ns: empty_histogram(),
            late_ns: empty_histogram(),
            statuses: BTreeMap::new(),
            reconnects: 0,
        }
    }

    /// An answer; status 0 is a connection lost in the middle of an exchange.
    pub(crate) fn count_answer(&mut self, status: u16, latency: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        record(&mut self.latency_ns, latency);
    }

    /// How late the load came to send a webhook.
    pub(crate) fn count_late(&mut self, late: Duration) {
        record(&mut self.late_ns, late);
    }

    pub(crate) fn count_reconnect(&mut self) {
        self.reconnects += 1;
    }

    pub(crate) fn end(mut self, watched: &[Watched]) -> Self {
        self.elapsed = self.began.elapsed();
        self.machine = Machine::read().since(self.machine_began);
        let ended = watched.iter().map(|one| cpu::used_ns(&one.pids));
        self.cpu_ns = ended
            .zip(&self.cpu_began)
            .map(|(end, began)| end.saturating_sub(*began))
            .collect();
        self
    }

    pub(crate) fn is_clean(&self, steal_ms_max: u64) -> bool {
        self.machine.steal_ms <= steal_ms_max
    }
}

/// The figures of the clean windows together, or of the `least` least disturbed when there are fewer.
pub(crate) fn report(
    mut windows: Vec<Window>,
    watched: &[Watched],
    expected_status: u16,
    steal_ms_max: u64,
    least: usize,
) -> Value {
    let all = windows.len();
    let clean = windows.iter().filter(|window| window.is_clean(steal_ms_max)).count();
    windows.sort_by_key(|window| window.machine.steal_ms);
    windows.truncate(clean.max(least));

    let (mut latency_ns, mut late_ns) = (empty_histogram(), empty_histogram());
    let mut statuses = BTreeMap::<u16, u64>::new();
    let mut cpu_ns = vec![0; watched.len()];
    for window in &windows {
        latency_ns += &window.latency_ns;
        late_ns += &window.late_ns;
        window
            .statuses
            .iter()
            .for_each(|(status, count)| *statuses.entry(*status).or_default() += count);
        cpu_ns.iter_mut().zip(&window.cpu_ns).for_each(|(sum, ns)| *sum += ns);
    }
    let answers: u64 = statuses.values().sum();
    let seconds: f64 = windows.iter().map(|window| window.elapsed.as_secs_f64()).sum();
    let latency_us = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
    let cpu_ms = watched
        .iter()
        .zip(&cpu_ns)
        .map(|(one, ns)| (one.name.clone(), json!(*ns as f64 / 1e6)));
    json!({
        "windows": all,
        "clean": clean,
        "seconds": seconds,
        "answers": answers,
        "unexpected": answers - statuses.get(&expected_status).unwrap_or(&0),
        "statuses": statuses,
        "reconnects": windows.iter().map(|window| window.reconnects).sum::<u64>(),
        "per_second": answers as f64 / seconds,
        "p50_us": latency_us(0.5),
        "p99_us": latency_us(0.99),
        "p999_us": latency_us(0.999),
        "max_us": latency_us(1.0),
        "late_p99_us": late_ns.value_at_quantile(0.99) as f64 / 1e3,
        "cpu_ms": cpu_ms.collect::<serde_json::Map<_, _>>(),
        "machine_busy_ms": windows.iter().map(|window| window.machine.busy_ms).sum::<u64>(),
        "machine_steal_ms": windows.iter().map(|window| window.machine.steal_ms).sum::<u64>(),
    })
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(steal_ms: u64, statuses: &[(u16, u64)]) -> Window {
        let mut window = Window::begin(&[]);
        for (status, latency_us) in statuses {
            window.count_answer(*status, Duration::from_micros(*latency_us));
        }
        window.elapsed = Duration::from_secs(1);
        window.machine.steal_ms = steal_ms;
        window
    }

    #[test]
    fn disturbed_windows_are_left_out_when_clean_ones_suffice() {
        // If this fails, a noisy neighbour's bad second is printed as a proxy's latency.
        let windows = vec![
            window(500, &[(200, 9000)]),
            window(0, &[(200, 100)]),
            window(10, &[(200, 100), (502, 200)]),
        ];
        let report = report(windows, &[], 200, 10, 1);
        assert_eq!(
            (report["windows"].clone(), report["clean"].clone()),
            (json!(3), json!(2))
        );
        assert_eq!(
            (report["answers"].clone(), report["unexpected"].clone()),
            (json!(3), json!(1))
        );
        assert!(report["max_us"].as_f64().unwrap() < 300.0);
    }

    #[test]
    fn without_a_clean_window_the_least_disturbed_one_speaks_and_says_so() {
        // If this fails, a run on a busy machine yields nothing, or yields noise without a mark.
        let report = report(
            vec![window(500, &[(200, 9000)]), window(40, &[(200, 100)])],
            &[],
            200,
            10,
            1,
        );
        assert_eq!(
            (report["clean"].clone(), report["answers"].clone()),
            (json!(0), json!(1))
        );
        assert!(report["max_us"].as_f64().unwrap() < 300.0);
    }
}
