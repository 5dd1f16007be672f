//! Repeats: absorbed when the event was taken, let through when it was not, whatever was changed about them.
//!
//! The upstream is the judge: what it received is what was forwarded, and every test counts it.

mod failed;
mod identity;
mod in_flight;
mod scope;
mod taken;

use hookward::clock::UnixMillis;

use crate::harness::{Answer, Conf, Event, Gateway, NOW, PROVIDERS, request};

async fn send(gateway: &Gateway, event: &Event) -> Answer {
    request(gateway.address, &event.bytes()).await
}

fn every_provider(conf: Conf, keys: &str) -> Conf {
    PROVIDERS.iter().fold(conf, |conf, provider| conf.route(provider, keys))
}

fn later(seconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 + seconds * 1000)
}
