//! How many requests one connection of HTTP/2 may carry.
//!
//! HTTP/1 closes after the last one; Pingora knows no such bound for HTTP/2, where a connection may live for ever. So
//! each has a watch of its own, which ends it as the end of the process would: a GOAWAY, after which what is under way is
//! finished. Pingora then waits for the other side without a deadline; [`Tally::ended`] has one.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use tokio::sync::watch;

/// How long requests that were under way may take once the connection is told to end.
const FAREWELL: Duration = Duration::from_secs(120);

/// The requests of one connection, and how it ended.
#[derive(Debug)]
pub(super) struct Tally {
    left: AtomicU32,
    over: watch::Sender<bool>,
    flooded: AtomicBool,
}

impl Tally {
    /// A connection that may carry `requests_max`.
    pub(super) fn new(requests_max: u32) -> Arc<Self> {
        Arc::new(Tally {
            left: AtomicU32::new(requests_max),
            over: watch::Sender::new(false),
            flooded: AtomicBool::new(false),
        })
    }

    /// Counts the request of `session` on its connection, if that has a tally.
    pub(super) fn count(session: &ServerSession) {
        let proxy = session.digest().and_then(|digest| digest.proxy_digest.as_ref());
        let known: Option<&(dyn Any + Send + Sync)> = proxy.and_then(|proxy| proxy.user_data.as_deref());
        let Some(tally) = known.and_then(|known| known.downcast_ref::<Arc<Tally>>()) else {
            return;
        };
        if tally.left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            tally.end();
        }
    }

    /// The connection is ended for its frames.
    pub(super) fn flooded(&self) {
        self.flooded.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was ended for its frames.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Ends the connection in order.
    fn end(&self) {
        // Once: each change is another GOAWAY.
        self.over.send_if_modified(|over| !std::mem::replace(over, true));
    }

    /// What Pingora watches.
    pub(super) fn watch(&self) -> ShutdownWatch {
        self.over.subscribe()
    }

    /// Ends the connection when the process ends; resolves when it had its time after whatever ended it.
    pub(super) async fn ended(&self, stopping: &ShutdownWatch) {
        tokio::select! {
            () = turned(stopping.clone()) => {
                self.end();
                // The end of the process has a deadline of its own.
                std::future::pending().await
            }
            () = turned(self.watch()) => pingora_timeout::sleep(FAREWELL).await,
        }
    }
}

/// Waits until it is so, or nobody is left to say it.
async fn turned(mut watch: ShutdownWatch) {
    drop(watch.wait_for(|turned| *turned).await);
}
