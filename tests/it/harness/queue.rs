//! A gateway that queues: its data directory, its configuration, its desk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::{Gateway, SECRET, request, until};

/// What operators of test gateways prove themselves with.
pub const API_SECRET: &str = "an-operator-of-tests";

/// A directory of a test's own, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("data-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The configuration of a gateway that queues.
#[derive(Clone)]
pub struct Queueing {
    dir: PathBuf,
    upstreams: Vec<String>,
    routes: Vec<String>,
    data: String,
}

impl Queueing {
    pub fn in_folder(folder: &Folder) -> Queueing {
        Queueing {
            dir: folder.path().to_owned(),
            upstreams: Vec::new(),
            routes: Vec::new(),
            data: String::new(),
        }
    }

    /// An upstream; `delivery` is what its group of that name has.
    pub fn upstream(mut self, name: &str, server: SocketAddr, delivery: &str) -> Queueing {
        self.upstreams.push(format!(
            "  {name}: {{ servers: [\"{server}\"], timeout: 5s, delivery: {{ {delivery} }} }}\n"
        ));
        self
    }

    /// A route of this name and provider to one upstream; `extra` is more keys in one line.
    pub fn route(self, name: &str, provider: &str, upstream: &str, extra: &str) -> Queueing {
        self.fan(name, provider, &format!("upstream: {upstream}"), extra)
    }

    /// A route to wherever `to` says.
    pub fn fan(mut self, name: &str, provider: &str, to: &str, extra: &str) -> Queueing {
        let extra = if extra.is_empty() {
            String::new()
        } else {
            format!(", {extra}")
        };
        self.routes.push(format!(
            "  - {{ name: {name}, path: /webhooks/{name}, provider: {provider}, secrets: [{{ value: {SECRET} }}], \
             deliver: queue, {to}, limits: {{ rate: 100000/s, burst: 100000, in_flight: 10000 }}{extra} }}\n"
        ));
        self
    }

    /// More keys of `data`.
    pub fn data(mut self, keys: &str) -> Queueing {
        self.data = format!(", {keys}");
        self
    }

    pub fn yaml(&self) -> String {
        format!(
            "limits: {{ client_rate: 1000000/s, client_burst: 1000000 }}\n\
             api: {{ secrets: [{{ value: {API_SECRET} }}] }}\n\
             data: {{ dir: {:?}{} }}\nupstreams:\n{}routes:\n{}",
            self.dir,
            self.data,
            self.upstreams.concat(),
            self.routes.concat()
        )
    }
}

/// Asks an admin listener; the status and the JSON of the answer.
pub async fn api(admin: SocketAddr, method: &str, target: &str, secret: &str) -> (u16, Value) {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {secret}\r\nContent-Length: 0\r\n\r\n"
    );
    let answer = request(admin, head.as_bytes()).await;
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

impl Gateway {
    /// Asks the desk; the answer must be good.
    pub async fn desk(&self, method: &str, target: &str) -> Value {
        let (status, value) = api(self.admin, method, target, API_SECRET).await;
        assert_eq!(status, 200, "{method} {target}: {value}");
        value
    }

    /// Deliveries in a state, over all lanes.
    pub async fn lying(&self, state: &str) -> u64 {
        let queue = self.desk("GET", "/api/queue").await;
        let lanes = queue["lanes"].as_array().unwrap().iter();
        let of_state = lanes.filter(|lane| lane["state"] == state);
        of_state.map(|lane| lane["deliveries"].as_u64().unwrap()).sum()
    }

    /// Waits until so many deliveries are in a state.
    pub async fn comes_to(&self, state: &str, count: u64) {
        let met = async {
            while self.lying(state).await != count {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let met = tokio::time::timeout(std::time::Duration::from_secs(30), met).await;
        if met.is_err() {
            panic!("no {count} {state}: {}", self.desk("GET", "/api/queue").await);
        }
    }

    /// The page of deliveries that match, once there are so many. Counts are ahead of what is on disk, pages are not.
    pub async fn listed(&self, query: &str, count: usize) -> Value {
        for _ in 0..2000 {
            let page = self.desk("GET", &format!("/api/events?{query}")).await;
            if page["deliveries"].as_array().unwrap().len() == count {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("no {count} deliveries of {query}");
    }

    /// Moves the clock in steps until the condition holds, as time does: what becomes due on the way is done on the way.
    pub async fn passing(&self, step: std::time::Duration, what: &str, mut condition: impl FnMut() -> bool) {
        until(what, || {
            self.clock.advance(step);
            condition()
        })
        .await;
    }
}
