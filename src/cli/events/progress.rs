//! How far a change of many deliveries is, on a terminal.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use super::Which;
use super::door::Door;

/// How many deliveries a change is about to concern, where the queue's counts tell.
pub(super) async fn goal(door: &Door, which: &Which, verb: &str) -> Option<u64> {
    if which.since.is_some() || which.until.is_some() || which.event_type.is_some() || which.event_id.is_some() {
        return None;
    }
    let queue = door.get("/api/queue").await.ok()?;
    let states = which.states();
    let concerned: &[&str] = match verb {
        "retry" => &["waiting", "delivered", "dead", "cancelled"],
        "cancel" => &["pending", "waiting", "blocked"],
        _ => &["delivered", "dead", "cancelled"],
    };
    let matches = |lane: &&Value| {
        let named = |wanted: &Option<String>, name: &str| wanted.is_none() || wanted.as_deref() == lane[name].as_str();
        let state = lane["state"].as_str().unwrap_or_default();
        concerned.contains(&state)
            && named(&which.route, "route")
            && named(&which.destination, "destination")
            && (states.is_empty() || states.iter().any(|wanted| wanted == state))
    };
    let lanes = queue["lanes"].as_array()?.iter().filter(matches);
    Some(lanes.filter_map(|lane| lane["deliveries"].as_u64()).sum())
}

/// A bar on a terminal, and nothing elsewhere.
pub(super) struct Progress {
    goal: Option<u64>,
    shown: bool,
}

impl Progress {
    pub(super) fn new(goal: Option<u64>) -> Self {
        Progress {
            goal,
            shown: std::io::stderr().is_terminal(),
        }
    }

    pub(super) fn show(&mut self, done: u64) {
        if self.shown {
            crate::cli::complain(format_args!("\r{}", bar(done, self.goal)));
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            crate::cli::complain("\n");
        }
    }
}

fn bar(done: u64, goal: Option<u64>) -> String {
    const WIDTH: u64 = 40;
    let Some(goal) = goal.filter(|goal| *goal > 0) else {
        return format!("{done}");
    };
    let share = done.min(goal).saturating_mul(WIDTH).checked_div(goal).unwrap_or(0);
    let full = usize::try_from(share).unwrap_or(0);
    let empty = usize::try_from(WIDTH.saturating_sub(share)).unwrap_or(0);
    format!("[{}{}] {done} of {goal}", "#".repeat(full), ".".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_how_far_it_is() {
        // An operator who sees no progress interrupts a redrive of a million events.
        assert_eq!(bar(0, Some(80)), format!("[{}] 0 of 80", ".".repeat(40)));
        assert_eq!(
            bar(20, Some(80)),
            format!("[{}{}] 20 of 80", "#".repeat(10), ".".repeat(30))
        );
        assert_eq!(bar(90, Some(80)), format!("[{}] 90 of 80", "#".repeat(40)));
        assert_eq!(bar(7, None), "7");
        assert_eq!(bar(0, Some(0)), "0");
    }
}
