//! A gateway in this process or as a process, an upstream that records, a client that speaks raw HTTP/1.

mod client;
mod conf;
mod event;
mod gateway;
mod h2;
mod pki;
pub mod process;
mod published;
mod queue;
mod upstream;

use std::time::Duration;

pub use client::{Answer, Client, header, request};
pub use conf::{Conf, NOBODY};
pub use event::{Event, PROVIDERS, secret_of};
pub use gateway::{Gateway, NOW, SECRET, github, hold_thread, route_yaml, sign_github};
pub use h2::H2;
pub use pki::{Authority, Identity, Tls};
pub use published::{Sns, TOPIC, sns_event, sns_message, unsigned_sns_event};
pub use queue::{API_SECRET, Folder, Queueing, api};
pub use upstream::{Act, Blackhole, Recorded, Refusing, Upstream, Wire, bare};

/// How much of something, unless the environment says otherwise, as it does for a long run.
pub fn amount(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |count| count.parse().unwrap())
}

/// Waits until something has come about; nothing here takes long, so what takes long never comes.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let met = tokio::time::timeout(Duration::from_secs(20), met).await;
    assert!(met.is_ok(), "waited in vain for {what}");
}
