//! The load side of the benchmark: one thread, one epoll, signed webhooks of which no two are alike.
//!
//! `bench.py` starts it once per measured cell, pinned away from the proxy, and reads one JSON object from its standard
//! output. `run` measures, `idle` holds keep-alive connections open while memory is read, `one` shows a single answer.
//!
//! It promises that no body is ever sent twice under one seed: a gateway with a replay guard answers a repeat without
//! forwarding it, and a benchmark of repeats would measure the wrong thing. It promises nothing about its own share of the
//! result but reports it: when the load's core is full, requests per second are the load's, not the proxy's.

mod answer;
mod cpu;
mod http2;
mod idle;
mod load;
mod webhook;
mod window;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use rustix::net;

use crate::webhook::Webhooks;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Load the target for a while and print the figures as one JSON object.
    Run {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        plan: load::Plan,
    },
    /// Open connections, send one webhook on each, print `ready`, hold them until standard input ends.
    Idle {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        connections: usize,
    },
    /// Send one webhook and print the status it was answered with.
    One {
        #[command(flatten)]
        target: Target,
    },
}

/// Where webhooks go and what they look like.
#[derive(Args)]
struct Target {
    /// Port on 127.0.0.1; there is no way to load another machine.
    #[arg(long)]
    port: u16,
    #[arg(long, default_value = "/hooks/gh")]
    path: String,
    /// Length of every body, in bytes.
    #[arg(long, default_value_t = 1024)]
    body_bytes: usize,
    /// Sign with a key that is not the target's.
    #[arg(long)]
    forge: bool,
    /// Part of every body; two runs against one gateway process need two seeds.
    #[arg(long)]
    seed: u64,
    /// Address to connect from: everything in 127.0.0.0/8 is this machine.
    #[arg(long, default_value = "127.0.0.1")]
    from: Ipv4Addr,
    /// Claim another client in each request, in every header that some proxy writes.
    #[arg(long)]
    spoof: bool,
    /// HTTP/2 by prior knowledge.
    #[arg(long)]
    http2: bool,
    /// End connections with a reset, whose ports are free at once: a machine has some 28,000.
    #[arg(long)]
    reset: bool,
}

impl Target {
    fn way(&self) -> Way {
        Way {
            from: self.from,
            port: self.port,
            resets: self.reset,
        }
    }

    /// The key comes from the environment, as it does for every system under test.
    fn webhooks(&self) -> anyhow::Result<Webhooks> {
        let secret = std::env::var("SECRET").context("SECRET is not set")?;
        let key = if self.forge { "not-the-secret" } else { secret.as_str() };
        let mut webhooks = Webhooks::new(self.port, &self.path, self.body_bytes, self.seed, key.as_bytes())?;
        webhooks.spoof(self.spoof);
        webhooks.http2(self.http2);
        Ok(webhooks)
    }
}

/// A way to the target: an address of this machine, and a port of 127.0.0.1.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    from: Ipv4Addr,
    port: u16,
    resets: bool,
}

impl Way {
    /// # Errors
    /// Those of the sockets.
    pub(crate) fn connect(self) -> io::Result<TcpStream> {
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
        if self.resets {
            net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        }
        net::bind(&socket, &SocketAddrV4::new(self.from, 0))?;
        net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port))?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().mode {
        Mode::Run { target, plan } => println!("{}", load::run(target.way(), target.webhooks()?, &plan)?),
        Mode::Idle { target, connections } => idle::hold(target.way(), target.webhooks()?, connections)?,
        Mode::One { target } => println!("{}", idle::status_of_one(target.way(), target.webhooks()?)?),
    }
    Ok(())
}
