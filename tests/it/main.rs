//! The gateway from outside: real sockets, real processes, an upstream that remembers every byte.
//!
//! One binary, by topic. `harness` starts gateways in this process on free ports, with a clock that tests move.

// A test binary has no outside that `pub` could be too wide for.
#![allow(unreachable_pub)]

mod bodies;
mod catalogue;
mod config;
mod drain;
mod edge;
mod embedding;
mod first;
mod forwarding;
mod fuzz;
mod h2;
mod handshakes;
mod harness;
mod house;
mod labels;
mod limits;
mod panics;
mod passthrough;
mod process;
mod published;
mod queue;
mod refusals;
mod reload;
mod replay;
mod sdk;
mod timing;
mod tls;
mod verification;
mod wire;
