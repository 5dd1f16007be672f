//! Real servers behind the gateway: what each of them understood is what was meant to reach it.
//!
//! Each runs on a free port with a configuration of `tests/wire/judges/`, logs the line of every request it took, and
//! answers with the target. A server that reads a request in another way than the gateway has more lines, or others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::cases::{Case, Expect, Kind, all, folder};
use super::marked;
use super::play::{self, Account, gateway};
use crate::harness::process::Process;
use crate::sdk::installed;

/// Of the cases that never reach an upstream, a judge is shown one of so many; with `HOOKWARD_WIRE=all`, each.
const SHOWN_OF_REFUSED: usize = 9;

/// Where a judge is at home.
struct Place {
    folder: PathBuf,
    port: u16,
    /// Of the program that lighttpd hands its requests to.
    program: u16,
}

/// A server.
struct Judge {
    /// Its program.
    program: &'static str,
    /// Its configuration.
    file: &'static str,
    /// Its arguments; `{file}` and the words of its configuration are replaced.
    args: &'static [&'static str],
    log: Log,
}

#[derive(Clone, Copy, PartialEq)]
enum Log {
    /// Lines of method, target, status and more on standard output.
    Said,
    /// The same with the length of the body at the end.
    SaidWithLength,
    /// JSON on standard output.
    Json,
    /// Lines in `log`, whole once it has ended.
    Written,
}

const NGINX: Judge = Judge {
    program: "nginx",
    file: "nginx.conf",
    args: &["-c", "{file}", "-p", "{dir}"],
    log: Log::Said,
};
/// Writes into a file, from one thread: into a pipe that is full, or from two threads at once, HAProxy drops lines.
const HAPROXY: Judge = Judge {
    program: "sh",
    file: "haproxy.cfg",
    args: &[
        "-c",
        "PATH=$PATH:/usr/sbin:/usr/local/sbin; exec haproxy -db -f {file} >{dir}/log",
    ],
    log: Log::Written,
};
const APACHE: Judge = Judge {
    program: "apache2",
    file: "apache.conf",
    args: &["-X", "-f", "{file}"],
    log: Log::Written,
};
const LIGHTTPD: Judge = Judge {
    program: "lighttpd",
    file: "lighttpd.conf",
    args: &["-D", "-f", "{file}"],
    log: Log::Written,
};
const CADDY: Judge = Judge {
    program: "caddy",
    file: "caddy.json",
    args: &["run", "--config", "{file}"],
    log: Log::Json,
};
const NODE: Judge = Judge {
    program: "node",
    file: "node.mjs",
    args: &["{file}", "{port}"],
    log: Log::SaidWithLength,
};
const GUNICORN: Judge = Judge {
    program: "python",
    file: "wsgi.py",
    args: &[
        "-m",
        "gunicorn",
        "--chdir",
        "{dir}",
        "-k",
        "gthread",
        "--threads",
        "16",
        "--keep-alive",
        "60",
        "-b",
        "127.0.0.1:{port}",
        "wsgi:app",
    ],
    log: Log::SaidWithLength,
};
const UVICORN: Judge = Judge {
    program: "python",
    file: "asgi.py",
    args: &[
        "-m",
        "uvicorn",
        "--app-dir",
        "{dir}",
        "--http",
        "h11",
        "--port",
        "{port}",
        "--timeout-keep-alive",
        "60",
        "--no-access-log",
        "--log-level",
        "warning",
        "asgi:app",
    ],
    log: Log::SaidWithLength,
};
const AIOHTTP: Judge = Judge {
    program: "python",
    file: "aio.py",
    args: &["{file}", "{port}"],
    log: Log::SaidWithLength,
};

impl Judge {
    fn start(&self, place: &Place) -> Process {
        let text = std::fs::read_to_string(folder().join("judges").join(self.file)).unwrap();
        let file = place.folder.join(self.file);
        let filled = |text: &str| {
            text.replace("{file}", file.to_str().unwrap())
                .replace("{dir}", place.folder.to_str().unwrap())
                .replace("{port}", &place.port.to_string())
                .replace("{program}", &place.program.to_string())
                .replace("{modules}", modules())
        };
        std::fs::write(&file, filled(&text)).unwrap();
        let args: Vec<_> = self.args.iter().map(|arg| filled(arg)).collect();
        let home = place.folder.to_str().unwrap();
        // Everything it keeps stays where it is thrown away.
        let env = [
            ("HOME", home),
            ("XDG_DATA_HOME", home),
            ("XDG_CONFIG_HOME", home),
            ("TMPDIR", home),
        ];
        Process::start(program(self.program), &args, &env)
    }

    /// What it says it understood: targets, and the length of the body where it tells.
    fn understood(&self, log: &str) -> Vec<(String, Option<usize>)> {
        let of_line = |line: &str| match self.log {
            Log::Json => {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                let of_request = line["logger"] == "http.log.access" || line["logger"] == "http.log.access.judge";
                of_request.then(|| (line["request"]["uri"].as_str().unwrap_or_default().to_owned(), None))
            }
            _ => {
                let words: Vec<_> = line.split(' ').collect();
                let length = (self.log == Log::SaidWithLength)
                    .then(|| words.last()?.parse().ok())
                    .flatten();
                Some(((*words.get(1)?).to_owned(), length))
            }
        };
        log.lines().filter_map(of_line).collect()
    }
}

/// The path of a program. The servers of Debian are not on everybody's path.
fn program(name: &str) -> PathBuf {
    if name == "python" {
        return installed("python/bin/python");
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&paths).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    // Apache is called by either name.
    let other = if name == "apache2" { "httpd" } else { name };
    let mut paths = [name, other]
        .into_iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = paths.find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; `make setup-test` installs it"))
}

/// Where Apache's modules are, as Debian and others have them.
fn modules() -> &'static str {
    let folders = [
        "/usr/lib/apache2/modules",
        "/opt/homebrew/lib/httpd/modules",
        "/usr/local/lib/httpd/modules",
        "/usr/lib64/httpd/modules",
    ];
    folders
        .into_iter()
        .find(|folder| PathBuf::from(folder).is_dir())
        .unwrap_or_default()
}

/// A folder of its own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("hookward-judge-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // Servers that give up being root must still get in.
        #[cfg(unix)]
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        Scratch(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The program behind lighttpd: SCGI, one request a connection; tells how long each body was.
struct Program {
    port: u16,
    lengths: Arc<Mutex<BTreeMap<String, usize>>>,
    task: JoinHandle<()>,
}

impl Program {
    async fn start() -> Program {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lengths = Arc::new(Mutex::new(BTreeMap::new()));
        let told = Arc::clone(&lengths);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let told = Arc::clone(&told);
                tokio::spawn(async move {
                    // A server that ends in the middle is what its log is read for.
                    let _ = scgi(stream, &told).await;
                });
            }
        });
        Program { port, lengths, task }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn scgi(mut stream: TcpStream, told: &Mutex<BTreeMap<String, usize>>) -> std::io::Result<()> {
    let mut digits = String::new();
    loop {
        match stream.read_u8().await? {
            b':' => break,
            digit => digits.push(char::from(digit)),
        }
    }
    let mut head = vec![0; digits.parse::<usize>().unwrap() + 1];
    stream.read_exact(&mut head).await?;
    let words: Vec<_> = head.split(|b| *b == 0).collect();
    let value = |name: &str| {
        let at = words.iter().step_by(2).position(|word| *word == name.as_bytes())?;
        Some(String::from_utf8_lossy(words.get(at * 2 + 1)?).into_owned())
    };
    let length: usize = value("CONTENT_LENGTH")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let target = value("REQUEST_URI").unwrap_or_default();
    told.lock().unwrap().insert(target.clone(), length);
    let answer = format!("Status: 200\r\nContent-Length: {}\r\n\r\n{target}", target.len());
    stream.write_all(answer.as_bytes()).await
}

/// The cases that a judge is shown, numbered as all are.
fn shown() -> Vec<Case> {
    let whole = std::env::var_os("HOOKWARD_WIRE").is_some_and(|value| value == "all");
    let mut cases = all();
    let reaches = |case: &Case| match case.expect {
        Expect::Accepted | Expect::Last => true,
        Expect::Broken | Expect::Cut => case.kind == Kind::Page,
        _ => false,
    };
    cases.retain(|case| whole || reaches(case) || case.number % SHOWN_OF_REFUSED == 0);
    cases
}

/// Plays the cases in front of a judge, and compares what it understood with what was to reach it.
async fn judged(judge: &Judge) {
    let name = judge.file.split('.').next().unwrap();
    let (scratch, behind) = (Scratch::new(name), Program::start().await);
    let place = Place {
        folder: scratch.0.clone(),
        port: free_port().await,
        program: behind.port,
    };
    let mut process = judge.start(&place);
    let address = SocketAddr::from(([127, 0, 0, 1], place.port));
    serves(address, &process).await;
    let gateway = gateway(address).await;
    let cases = Arc::new(shown());
    assert!(cases.len() >= 2000, "{}", cases.len());
    let account = play::all(gateway.address, &cases).await;
    drop(gateway);

    let log = match judge.log {
        Log::Written => {
            process.signal("TERM").await;
            process.end().await;
            std::fs::read_to_string(scratch.0.join("log")).unwrap()
        }
        _ => {
            let whole = |log: &str| {
                let seen: BTreeSet<_> = judge
                    .understood(log)
                    .iter()
                    .filter_map(|(t, _)| Some(marked(t)?.to_owned()))
                    .collect();
                account.must.is_subset(&seen)
            };
            process.stdout.until("every request it answered", whole).await;
            process.signal("TERM").await;
            process.end().await;
            process.stdout.text()
        }
    };
    let mut understood = judge.understood(&log);
    for (target, length) in &mut understood {
        *length = length.or_else(|| behind.lengths.lock().unwrap().get(target).copied());
    }
    let mut wrong = account.wrong.clone();
    wrong.extend(compare(&understood, &cases, &account));
    assert!(
        wrong.is_empty(),
        "{name}: {} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    println!(
        "{name}: {} cases, {} honest requests beside them, {} requests understood, {} refused by it or never whole",
        cases.len(),
        account.honest,
        understood.len(),
        account.may.len()
    );
}

/// Waits until the server answers.
async fn serves(address: SocketAddr, process: &Process) {
    let up = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let up = tokio::time::timeout(Duration::from_secs(30), up).await;
    assert!(up.is_ok(), "it does not listen\n{}", process.said());
}

fn compare(understood: &[(String, Option<usize>)], cases: &[Case], account: &Account) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    let mut nameless = 0;
    for (target, length) in understood {
        let Some(id) = marked(target) else {
            nameless += 1;
            continue;
        };
        *times.entry(id).or_default() += 1;
        let case = id
            .parse::<usize>()
            .ok()
            .and_then(|n| cases.binary_search_by_key(&n, |case| case.number).ok());
        if let (Some(at), Some(length), true) = (case, length, account.must.contains(id))
            && cases[at].body.len() != *length
        {
            wrong.push(format!("{id}: a body of {length} instead of {}", cases[at].body.len()));
        }
    }
    for (id, times) in &times {
        if *times > 1 || !account.expects(id) {
            wrong.push(format!("{id} was understood {times} times"));
        }
    }
    let missing = |ids: &BTreeSet<String>| ids.iter().filter(|id| !times.contains_key(id.as_str())).count();
    if missing(&account.must) > 0 {
        let mut which: Vec<_> = account
            .must
            .iter()
            .filter(|id| !times.contains_key(id.as_str()))
            .collect();
        which.truncate(20);
        wrong.push(format!("answered and not understood: {which:?}"));
    }
    // What it could not make sense of must be one of those it refused.
    if nameless > missing(&account.may) {
        wrong.push(format!(
            "{nameless} nameless requests, and {} missing ones",
            missing(&account.may)
        ));
    }
    wrong
}

#[test]
fn a_disagreement_is_noticed() {
    // A comparison that finds nothing wrong with anything proves nothing.
    let cases = [];
    let account = || Account {
        must: BTreeSet::from(["v1".to_owned()]),
        may: BTreeSet::from(["7".to_owned()]),
        ..Account::default()
    };
    let understood =
        |targets: &[&str]| -> Vec<_> { targets.iter().map(|target| ((*target).to_owned(), None)).collect() };
    let wrong = |targets: &[&str]| compare(&understood(targets), &cases, &account()).len();
    assert_eq!(wrong(&["/webhooks/github?m=v1."]), 0);
    assert_eq!(wrong(&["/webhooks/github?m=v1.", "/page?m=7."]), 0);
    assert_eq!(
        wrong(&["/webhooks/github?m=v1.", "<BADREQ>"]),
        0,
        "the one it may refuse"
    );
    for breach in [
        &["/webhooks/github?m=v1.", "/webhooks/github?m=f12."][..],
        &["/webhooks/github?m=v1.", "/webhooks/github?m=v1."],
        &["/webhooks/github?m=v1.", "/page?m=7.", "-"],
        &["/page?m=7."],
        &[],
    ] {
        assert_eq!(wrong(breach), 1, "{breach:?}");
    }
}

macro_rules! judges {
    ($($name:ident: $judge:expr,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                // A request that this server reads in another way than the gateway is an event nobody has verified.
                judged(&$judge).await;
            }
        )*
    };
}

judges! {
    nginx_understands_what_was_verified: NGINX,
    haproxy_understands_what_was_verified: HAPROXY,
    apache_understands_what_was_verified: APACHE,
    lighttpd_understands_what_was_verified: LIGHTTPD,
    caddy_understands_what_was_verified: CADDY,
    node_understands_what_was_verified: NODE,
    gunicorn_understands_what_was_verified: GUNICORN,
    uvicorn_understands_what_was_verified: UVICORN,
    aiohttp_understands_what_was_verified: AIOHTTP,
}
