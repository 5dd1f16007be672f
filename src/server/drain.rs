//! The end: nothing new comes in, what is on its way is finished, and nothing waits longer than it must.

use std::time::Duration;

use tokio::sync::watch;

use crate::gateway::Shared;

/// How often the requests in flight are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Time for the last refusals to be written once the time to drain is over: longer than a sender that is refused in the
/// middle of its body is read on for, so that its line is in the log, too.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// Time for connections to close once nothing is in flight. Over HTTP/2 it is the connection that writes the last bytes
/// of an answer, when its request has ended already; a client that is gone without a word is not waited for longer.
const FAREWELL: Duration = Duration::from_millis(500);

/// Time for the access log to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Drains: stops the listeners, waits until nothing is in flight, for `patience` at most, then refuses what is left.
pub(crate) async fn drain(shared: &Shared, stop: &watch::Sender<bool>, patience: Duration) {
    shared.start_draining();
    // Fails only when no service is left to hear it.
    let _ = stop.send(true);
    if !none(|| shared.active(), patience).await {
        log::warn!(
            "{} requests still in flight after {patience:?}; refusing them",
            shared.active()
        );
        shared.end_draining();
        if !none(|| shared.active(), LAST_WORDS).await {
            log::warn!("{} requests cut off", shared.active());
        }
    }
    none(|| shared.metrics().open_connections(), FAREWELL).await;
    shared.close_log(LOG_PATIENCE);
}

/// Waits until there is none left of what is counted; false when that took longer than `patience`.
async fn none(left: impl Fn() -> usize, patience: Duration) -> bool {
    let nothing_left = async {
        while left() > 0 {
            pingora_timeout::sleep(LOOK_EVERY).await;
        }
    };
    pingora_timeout::timeout(patience, nothing_left).await.is_ok()
}
