//! A gateway from YAML, on free ports, with its access log kept and its clock in the test's hand.

use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::Duration;

use hookward::clock::{ManualClock, UnixMillis};
use hookward::config::{Plan, plan_text};
use hookward::fetch::World;
use hookward::gateway::{Guard, Rules};
use hookward::observe::{AccessLog, Format};
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::server::{Bound, Server, ServerSettings};
use hookward::signature;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::until;

/// What the clocks of all test gateways show at first.
pub const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// The secret of every test route.
pub const SECRET: &str = "a-secret-for-tests-only";

pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub clock: ManualClock,
    settings: ServerSettings,
    guard: Arc<Guard>,
    server: Option<Server>,
    log: Log,
}

impl Gateway {
    /// Starts a gateway; `yaml` has everything but `listen` and `admin`.
    pub async fn start(yaml: &str) -> Gateway {
        Gateway::start_in(World::internet(), yaml).await
    }

    /// Starts a gateway in another world than the internet, where published keys come from.
    pub async fn start_in(world: World, yaml: &str) -> Gateway {
        let plan = plan(yaml).unwrap_or_else(|told| panic!("{told}"));
        Gateway::from_plan(plan, world).await
    }

    /// Starts a gateway that listens as `listen` says: an entry of that key in flow style, with a port of 0.
    pub async fn listening(listen: &str, yaml: &str) -> Gateway {
        let plan = plan_listening(listen, yaml).unwrap_or_else(|told| panic!("{told}"));
        Gateway::from_plan(plan, World::internet()).await
    }

    /// Starts a gateway, unless its configuration has errors.
    pub async fn try_start(yaml: &str) -> Option<Gateway> {
        Some(Gateway::from_plan(plan(yaml).ok()?, World::internet()).await)
    }

    async fn from_plan(plan: Plan, world: World) -> Gateway {
        let clock = ManualClock::at(NOW);
        let log = Log::default();
        let access = AccessLog::to(Format::Json, log.clone()).unwrap();
        let guard = plan.guard_in(world, clock.clock(), access).unwrap();
        guard.rules().look_up().await;
        let bound = Bound::new(&plan.server).unwrap();
        let (address, admin) = (bound.listen()[0], bound.admin().unwrap());
        let server = Server::start(bound, &plan.server, &guard).unwrap();
        Gateway {
            address,
            admin,
            clock,
            settings: plan.server,
            guard,
            server: Some(server),
            log,
        }
    }

    /// Puts another configuration in force, as a reload does.
    pub fn reload(&self, yaml: &str) {
        self.put_in_force(plan(yaml).unwrap_or_else(|told| panic!("{told}")));
    }

    /// The same with one that was read before.
    pub fn put_in_force(&self, plan: Plan) {
        let rules = Rules::build(plan.gateway, self.guard.shared(), Some(&self.guard.rules()));
        self.guard.replace(rules);
    }

    /// Requests on their way at present.
    pub fn active(&self) -> usize {
        self.guard.shared().active()
    }

    /// Waits until nothing is on its way any more.
    pub async fn idle(&self) {
        until("all requests to end", || self.active() == 0).await;
    }

    /// Begins to end the gateway in order; resolves at the end.
    pub fn stopping(&mut self) -> JoinHandle<()> {
        tokio::spawn(self.server.take().unwrap().stop())
    }

    /// Serves with the same guard once more after [`stopping`](Gateway::stopping), elsewhere.
    pub fn serve_again(&mut self) {
        let bound = Bound::new(&self.settings).unwrap();
        (self.address, self.admin) = (bound.listen()[0], bound.admin().unwrap());
        self.server = Some(Server::start(bound, &self.settings, &self.guard).unwrap());
    }

    /// Has the gateway find itself behind. The clock stands still afterwards.
    pub async fn strain(&self) {
        // The clock may have gone on for too long after the gateway's last look.
        while self.metric("hookward_overloaded") != 1.0 {
            self.fall_behind().await;
        }
    }

    /// Beside the gateway runs a task that takes five milliseconds each time.
    async fn fall_behind(&self) {
        let over = Arc::new(AtomicBool::new(false));
        let work = {
            let (clock, over) = (self.clock.clone(), Arc::clone(&over));
            // Woken while it works, it lines up with everybody else.
            tokio::spawn(poll_fn(move |context| {
                clock.advance(Duration::from_millis(5));
                context.waker().wake_by_ref();
                match over.load(Ordering::SeqCst) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            }))
        };
        let clock = self.clock.clock();
        let enough = clock.moment().plus(Duration::from_secs(20));
        until("strain", || clock.moment() >= enough).await;
        over.store(true, Ordering::SeqCst);
        work.await.unwrap();
    }

    /// The most events of `route` that are begun between one look and the next, one look for each time that all who were
    /// ready had their turn, until `count` are under way.
    pub fn most_begun(&self, route: &str, count: usize) -> Arc<AtomicUsize> {
        let mut before = 0;
        self.most(route, count, move |_, begun| {
            begun.saturating_sub(std::mem::replace(&mut before, begun))
        })
    }

    /// The most requests that have been read and not begun at any such look.
    pub fn most_waiting(&self, route: &str, count: usize) -> Arc<AtomicUsize> {
        self.most(route, count, |active, begun| active.saturating_sub(begun))
    }

    /// The most that `seen` makes of the requests that are active and those of `route` that are begun.
    fn most(
        &self,
        route: &str,
        count: usize,
        mut seen: impl FnMut(usize, usize) -> usize + Send + 'static,
    ) -> Arc<AtomicUsize> {
        let most = Arc::new(AtomicUsize::new(0));
        let (guard, found) = (Arc::clone(&self.guard), Arc::clone(&most));
        let series = format!("hookward_in_flight{{route=\"{route}\"}}");
        tokio::spawn(poll_fn(move |context| {
            let now = metric(&guard, &series) as usize;
            found.fetch_max(seen(guard.shared().active(), now), Ordering::Relaxed);
            // Woken while it runs, it lines up with everybody else.
            context.waker().wake_by_ref();
            match now == count {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        most
    }

    /// The value of one series, `name{labels}` as exposed; zero when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        metric(&self.guard, series)
    }

    /// Every access-log line so far, parsed.
    pub fn logged(&self) -> Vec<serde_json::Value> {
        self.log.lines()
    }

    /// Every access-log line so far, parsed. Waits until there are `count`.
    pub async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        until(&format!("{count} lines of access log"), || {
            self.log.lines().len() >= count
        })
        .await;
        self.log.lines()
    }
}

/// Keeps the only thread of the runtime, so that nobody is served until what is returned is dropped.
pub async fn hold_thread() -> mpsc::Sender<()> {
    let (free, held) = mpsc::channel();
    let (began, begun) = oneshot::channel();
    tokio::spawn(async move {
        began.send(()).unwrap();
        assert!(held.recv().is_err());
    });
    begun.await.unwrap();
    free
}

fn metric(guard: &Guard, series: &str) -> f64 {
    let text = guard.shared().metrics().text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

fn plan(yaml: &str) -> Result<Plan, String> {
    plan_listening("127.0.0.1:0", yaml)
}

fn plan_listening(listen: &str, yaml: &str) -> Result<Plan, String> {
    let text = format!("listen: [{listen}]\nadmin: 127.0.0.1:0\n{yaml}");
    let (plan, problems) = plan_text("test.yaml", &text, NOW);
    plan.ok_or_else(|| format!("{problems}\n{text}"))
}

/// One GitHub route to `upstream`; `extra` is more keys of the route, of two spaces less indentation than a route's.
pub fn route_yaml(upstream: SocketAddr, extra: &str) -> String {
    let extra: String = extra.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
         upstreams: {{ app: {{ servers: [\"{upstream}\"] }} }}\n\
         routes:\n  - name: github\n    path: /webhooks/github\n    provider: github\n    \
         secrets: [{{ value: {SECRET} }}]\n    upstream: app\n{extra}"
    )
}

/// The signature header of a GitHub event.
pub fn sign_github(body: &[u8]) -> String {
    let provider = builtin().find("github").unwrap();
    let secret = Secret::new(SECRET).unwrap();
    let headers = signature::sign(&provider.scheme, &secret, "", NOW, body).unwrap();
    headers[0].1.clone()
}

/// A genuine GitHub event as bytes on the wire.
pub fn github(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: push\r\nX-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        sign_github(body),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What the access log wrote.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
