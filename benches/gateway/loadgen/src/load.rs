//! The run itself: connections on one edge-triggered epoll, paced either by the answers or by the clock.
//!
//! Without a rate the loop is closed: each connection sends its next webhook when its answer has come. With a rate it is open:
//! webhooks are due at fixed times and latency counts from when one was *due*, so that a proxy that stalls cannot hide it by
//! keeping the load from being sent (coordinated omission). How late the load itself came, although a connection was free,
//! is no latency; it is told apart.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde_json::Value;

use crate::Way;
use crate::answer::{Answer, Seen};
use crate::webhook::{Request, Webhooks};
use crate::window::{self, Watched, Window};

/// No answer at all for this long ends the run as failed.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Requests in flight at the end are answered within this or abandoned.
const DRAIN_MAX: Duration = Duration::from_secs(1);
const EVENTS_MAX: usize = 256;

/// How the load is paced and measured.
#[derive(clap::Args)]
pub(crate) struct Plan {
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests at a time on each connection; more than one of HTTP/2 alone, and two dozen at most.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Requests per second, due at even distances; 0: as fast as answers come.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Load before the first window, in seconds.
    #[arg(long, default_value_t = 0.15)]
    warm: f64,
    /// Length of one window, in seconds.
    #[arg(long, default_value_t = 0.4)]
    window: f64,
    /// Windows without disturbance that are wanted.
    #[arg(long, default_value_t = 1)]
    clean_windows: usize,
    /// Windows after which the run ends in any case.
    #[arg(long, default_value_t = 3)]
    windows_max: usize,
    /// Hypervisor steal, all cores together, that a clean window may have, in milliseconds.
    #[arg(long, default_value_t = 10)]
    steal_ms: u64,
    /// Requests after which a connection is replaced by a new one; 0: never.
    #[arg(long, default_value_t = 0)]
    requests_each: u64,
    #[arg(long, default_value_t = 200)]
    expect: u16,
    /// name=pid,pid of processes whose CPU time is reported; may be repeated.
    #[arg(long)]
    watch: Vec<Watched>,
}

/// Loads the target as planned; the figures.
///
/// # Errors
/// When the target cannot be reached or falls silent.
pub(crate) fn run(way: Way, webhooks: Webhooks, plan: &Plan) -> anyhow::Result<Value> {
    // The default slack of 50 us would delay what is due and be taken for the proxy's latency.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("timer slack")?;
    let mut load = Load::connect(way, webhooks, plan)?;
    load.serve_for(Duration::from_secs_f64(plan.warm))?;
    let (mut windows, mut clean) = (Vec::new(), 0);
    while windows.len() < plan.windows_max && clean < plan.clean_windows {
        let window = load.measure(Duration::from_secs_f64(plan.window), &plan.watch)?;
        clean += usize::from(window.is_clean(plan.steal_ms));
        windows.push(window);
    }
    let behind = load.pace.behind(Instant::now());
    load.drain()?;
    let mut report = window::report(windows, &plan.watch, plan.expect, plan.steal_ms, plan.clean_windows);
    report["behind"] = behind.into();
    Ok(report)
}

/// When webhooks are due.
enum Pace {
    Closed,
    Open { next: Instant, period: Duration },
    Stopped,
}

impl Pace {
    fn due(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Closed => Some(now),
            Self::Open { next, .. } => (*next <= now).then_some(*next),
            Self::Stopped => None,
        }
    }

    fn advance(&mut self) {
        if let Self::Open { next, period } = self {
            *next += *period;
        }
    }

    /// How many webhooks are due and unsent.
    fn behind(&self, now: Instant) -> u64 {
        match self {
            Self::Open { next, period } => (now.saturating_duration_since(*next).as_nanos() / period.as_nanos()) as u64,
            Self::Closed | Self::Stopped => 0,
        }
    }
}

struct Client {
    socket: TcpStream,
    /// The last one that was sent, or is being sent.
    request: Request,
    answer: Answer,
    flights: Vec<Flight>,
    unsent: bool,
    /// Answers on this connection.
    answered: u64,
    /// No more are sent on it.
    leaves: bool,
    /// So many more could be in flight, but for one that is not sent, or because it is left.
    held: usize,
}

/// A webhook in flight.
struct Flight {
    stream: Option<u32>,
    /// When it was due, or when the load got round to it if a connection was free before.
    due: Instant,
}

struct Load {
    way: Way,
    webhooks: Webhooks,
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// Clients that may have another webhook in flight, each as often as it may.
    idle: Vec<usize>,
    /// Since when there is one.
    idle_since: Instant,
    requests_each: u64,
    pace: Pace,
    last_answer: Instant,
    window: Option<Window>,
    buffer: Vec<u8>,
}

impl Load {
    fn connect(way: Way, webhooks: Webhooks, plan: &Plan) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let clients = (0..plan.connections)
            .map(|id| Client::connect(way, &epoll, id))
            .collect::<Result<_, _>>()?;
        let now = Instant::now();
        let pace = match plan.rate > 0.0 {
            true => Pace::Open {
                next: now,
                period: Duration::from_secs_f64(1.0 / plan.rate),
            },
            false => Pace::Closed,
        };
        let idle = (0..plan.streams).flat_map(|_| 0..plan.connections).collect();
        Ok(Self {
            way,
            webhooks,
            epoll,
            clients,
            idle,
            idle_since: now,
            requests_each: plan.requests_each,
            pace,
            last_answer: now,
            window: None,
            buffer: vec![0; 65536],
        })
    }

    fn measure(&mut self, length: Duration, watched: &[Watched]) -> anyhow::Result<Window> {
        self.window = Some(Window::begin(watched));
        self.serve_for(length)?;
        Ok(self.window.take().context("a window was begun")?.end(watched))
    }

    /// Lets what is in flight be answered, so that no proxy meets a client that hangs up and does extra work for it.
    fn drain(&mut self) -> anyhow::Result<()> {
        self.pace = Pace::Stopped;
        let deadline = Instant::now() + DRAIN_MAX;
        while self.clients.iter().any(|client| !client.flights.is_empty()) && Instant::now() < deadline {
            self.serve_for(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn serve_for(&mut self, length: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + length;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if now.saturating_duration_since(self.last_answer) > SILENCE_MAX {
                bail!("no answer for {SILENCE_MAX:?}");
            }
            self.send_due(now)?;
            let wake = match self.pace {
                Pace::Open { next, .. } if !self.idle.is_empty() => end.min(next),
                _ => end,
            };
            events.clear();
            let timeout = Timespec::try_from(wake.saturating_duration_since(Instant::now()))?;
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
            for event in &events {
                self.progress(event.data.u64() as usize)?;
                self.send_due(Instant::now())?;
            }
        }
    }

    /// Puts webhooks that are due on idle connections.
    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        // Each connection at most once: one that is lost on every try must not keep the loop from its deadline.
        for _ in 0..self.idle.len() {
            let (Some(due), Some(id)) = (self.pace.due(now), self.idle.last().copied()) else {
                break;
            };
            self.idle.pop();
            let client = &mut self.clients[id];
            if client.unsent || client.leaves {
                client.held += 1;
                continue;
            }
            self.pace.advance();
            self.webhooks.write_next(&mut client.request)?;
            let stream = client.request.stream();
            client.answer.expect(stream.is_some());
            let late = now.saturating_duration_since(due.max(self.idle_since));
            client.flights.push(Flight {
                stream,
                due: due + late,
            });
            if let Some(window) = &mut self.window {
                window.count_late(late);
            }
            client.unsent = true;
            self.progress(id)?;
        }
        Ok(())
    }

    /// Sends and receives what one connection can right now.
    fn progress(&mut self, id: usize) -> anyhow::Result<()> {
        let lost = self.exchange(id).is_err();
        while lost && let Some(flight) = self.clients[id].flights.pop() {
            self.finish(id, flight.due, 0);
        }
        let client = &mut self.clients[id];
        let left = lost || client.leaves && client.flights.is_empty();
        if !client.unsent && !client.leaves || left {
            self.idle
                .extend(std::iter::repeat_n(id, std::mem::take(&mut client.held)));
        }
        match left {
            true => self.reconnect(id),
            false => Ok(()),
        }
    }

    /// # Errors
    /// When the connection is lost.
    fn exchange(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        if client.unsent {
            client.unsent = !self.webhooks.send(&mut client.request, &mut client.socket)?;
        }
        // The epoll is edge-triggered: short of an answer, whoever stops before the socket is dry is not woken again.
        loop {
            let client = &mut self.clients[id];
            let mut seen = match client.socket.read(&mut self.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) if client.flights.is_empty() && !client.answer.is_http2() => {
                    return Err(ErrorKind::InvalidData.into());
                }
                Ok(bytes) => client.answer.push(&self.buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            while let Some(one) = seen {
                self.take(id, one);
                let client = &mut self.clients[id];
                if client.flights.is_empty() {
                    return Ok(());
                }
                seen = client.answer.push(&[]);
            }
        }
    }

    /// Takes an answer for what it is.
    fn take(&mut self, id: usize, seen: Seen) {
        let client = &mut self.clients[id];
        let Seen::Answer { stream, status, close } = seen else {
            client.leaves = true;
            return;
        };
        let Some(n) = client.flights.iter().position(|flight| flight.stream == stream) else {
            return;
        };
        let flight = client.flights.swap_remove(n);
        client.answered += 1;
        let worn = self.requests_each > 0 && client.answered >= self.requests_each;
        // An answer before the end of the request leaves the connection in the middle of a body.
        let cut = client.unsent && client.request.stream() == stream;
        client.leaves |= close || worn || cut;
        self.finish(id, flight.due, status);
    }

    /// Counts a webhook that was in flight, due at `due`, and frees its place.
    fn finish(&mut self, id: usize, due: Instant, status: u16) {
        let now = Instant::now();
        if self.idle.is_empty() {
            self.idle_since = now;
        }
        self.idle.push(id);
        if status != 0 {
            self.last_answer = now;
        }
        if let Some(window) = &mut self.window {
            window.count_answer(status, now.saturating_duration_since(due));
        }
    }

    fn reconnect(&mut self, id: usize) -> anyhow::Result<()> {
        // The socket that is replaced is closed, which takes it off the epoll.
        self.clients[id] = Client::connect(self.way, &self.epoll, id)?;
        // To be let in late is the target's doing, not the load's.
        self.idle_since = Instant::now();
        if let Some(window) = &mut self.window {
            window.count_reconnect();
        }
        Ok(())
    }
}

impl Client {
    fn connect(way: Way, epoll: &OwnedFd, id: usize) -> anyhow::Result<Self> {
        let socket = way.connect().context("connect")?;
        socket.set_nonblocking(true)?;
        let interest =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(id as u64), interest)?;
        Ok(Self {
            socket,
            request: Request::default(),
            answer: Answer::default(),
            flights: Vec::new(),
            unsent: false,
            answered: 0,
            leaves: false,
            held: 0,
        })
    }
}
