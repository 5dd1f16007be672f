//! A gateway in this process, an upstream that records, a client that speaks raw HTTP/1.

mod client;
mod gateway;
mod upstream;

pub use client::{Answer, Client, header, headers, request};
pub use gateway::{Gateway, NOW, SECRET, github, route_yaml, sign_github};
pub use upstream::{Blackhole, Recorded, Refusing, Upstream, Wire};
