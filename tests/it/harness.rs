//! A gateway in this process, an upstream that records, a client that speaks raw HTTP/1.

mod client;
mod gateway;
mod h2;
mod program;
mod upstream;

use std::time::Duration;

pub use client::{Answer, Client, header, headers, request};
pub use gateway::{Gateway, NOW, SECRET, github, route_yaml, sign_github};
pub use h2::H2;
pub use program::Program;
pub use upstream::{Blackhole, Recorded, Refusing, Upstream, Wire};

/// Waits until something holds that happens by itself.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
    waited.unwrap_or_else(|_| panic!("in vain: {what}"));
}
