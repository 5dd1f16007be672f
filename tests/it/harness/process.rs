//! Programs as processes: started, listened to, signalled, and ended with the test that started them.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::request;

const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub const HOOKWARD: &str = env!("CARGO_BIN_EXE_hookward");

/// A process at work; killed when it is dropped.
pub struct Process {
    child: Child,
    pub stdout: Output,
    pub stderr: Output,
}

impl Process {
    /// Starts `program` without standard input and with nothing in its environment but `env` and the path.
    pub fn start<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[A], env: &[(&str, &str)]) -> Process {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(env.iter().copied());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Process::of(command.kill_on_drop(true).spawn().unwrap())
    }

    /// Starts `program` once nobody reads its standard output any more.
    pub async fn unread(program: &str, args: &[&str]) -> Process {
        let mut command = Command::new("sh");
        // The same process, so that signals reach it.
        command
            .args(["-c", "read -r go; exec \"$@\"", "sh", program])
            .args(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        drop(child.stdout.take());
        child.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
        Process::of(child)
    }

    fn of(mut child: Child) -> Process {
        Process {
            stdout: child.stdout.take().map_or_else(Output::none, Output::of),
            stderr: child.stderr.take().map_or_else(Output::none, Output::of),
            child,
        }
    }

    /// Sends a signal by its name without `SIG`.
    pub async fn signal(&self, name: &str) {
        let command = format!("kill -s {name} {}", self.id());
        let sent = Command::new("sh").args(["-c", &command]).status().await.unwrap();
        assert!(sent.success(), "kill -s {name}");
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the process has ended already")
    }

    /// Waits for the end and for everything written until then; returns the exit code.
    pub async fn end(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it goes on\n{}", self.said()));
        self.stdout.finish().await;
        self.stderr.finish().await;
        status.unwrap().code()
    }

    /// The most memory it has had so far, in bytes; `None` where the system does not tell.
    pub fn memory_peak_bytes(&self) -> Option<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: usize = peak.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    }

    /// Everything written so far, for the messages of failing tests.
    pub fn said(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", self.stdout.text(), self.stderr.text())
    }
}

/// What a process writes to one of its streams.
pub struct Output(watch::Receiver<Vec<u8>>);

impl Output {
    fn of(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Output {
        let (written, output) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                written.send_modify(|bytes| bytes.extend_from_slice(&buffer[..read]));
            }
        });
        Output(output)
    }

    fn none() -> Output {
        Output(watch::channel(Vec::new()).1)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }

    /// Waits until `done` says so about what was written, and returns that.
    pub async fn until(&self, what: &str, done: impl Fn(&str) -> bool) -> String {
        let mut output = self.0.clone();
        let there = output.wait_for(|bytes| done(&String::from_utf8_lossy(bytes)));
        match tokio::time::timeout(PATIENCE, there).await {
            Ok(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Err(_)) => panic!("it ended without {what}:\n{}", self.text()),
            Err(_) => panic!("no {what} in time:\n{}", self.text()),
        }
    }

    /// Waits for a line with `words`.
    pub async fn has(&self, words: &str) -> String {
        self.until(words, |text| text.contains(words) && text.ends_with('\n'))
            .await
    }

    async fn finish(&mut self) {
        let ended = async { while self.0.changed().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("an open stream of an ended process");
    }
}

/// A command that was run to its end.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `program` to its end.
pub async fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[A], stdin: &[u8]) -> Ended {
    let mut command = Command::new(program);
    command.args(args);
    complete(command, stdin).await
}

/// Runs a command to its end.
pub async fn complete(mut command: Command, stdin: &[u8]) -> Ended {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let spawned = command.kill_on_drop(true).spawn();
    let mut child = spawned.unwrap_or_else(|e| panic!("{:?} does not start: {e}", command.as_std().get_program()));
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    tokio::spawn(async move {
        // A program need not read what it is given.
        let _ = input.write_all(&stdin).await;
    });
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended.expect("it did not end in time").unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `hookward` to its end.
pub async fn hookward(args: &[&str]) -> Ended {
    run(HOOKWARD, args, b"").await
}

/// `hookward run` with a configuration of the test's, once it listens.
pub struct Running {
    pub process: Process,
    pub file: TestFile,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Running {
    /// Starts it; `yaml` has everything but `listen` and `admin`.
    pub async fn start(yaml: &str) -> Running {
        Running::start_with(yaml, &[], &[]).await
    }

    /// Starts it with more options and variables.
    pub async fn start_with(yaml: &str, options: &[&str], env: &[(&str, &str)]) -> Running {
        Running::from_file(&with_listeners(yaml), options, env).await
    }

    /// Starts it by another program, such as strace, which becomes it or stands beside it.
    pub async fn under(wrapper: &[&str], yaml: &str) -> Running {
        Running::by(wrapper, &with_listeners(yaml), &[], &[]).await
    }

    /// Starts it with a whole file; the first listener is the one whose address is kept.
    pub async fn from_file(yaml: &str, options: &[&str], env: &[(&str, &str)]) -> Running {
        Running::by(&[], yaml, options, env).await
    }

    async fn by(wrapper: &[&str], yaml: &str, options: &[&str], env: &[(&str, &str)]) -> Running {
        let file = TestFile::new("hookward.yaml", yaml);
        let whole = wrapper.iter().chain([&HOOKWARD, &"run"]).map(OsStr::new);
        let mut whole: Vec<&OsStr> = whole.chain([file.path().as_os_str()]).collect();
        whole.extend(options.iter().map(OsStr::new));
        let process = Process::start(whole[0], &whole[1..], env);
        let banner = process.stderr.has("everything else").await;
        Running {
            address: address_after(&banner, "webhooks").expect("no listener in the banner"),
            admin: address_after(&banner, "admin").expect("no admin in the banner"),
            process,
            file,
        }
    }

    /// The value of one series, `name{labels}` as exposed.
    pub async fn metric(&self, series: &str) -> f64 {
        let answer = request(self.admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut lines = answer.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
    }

    /// Changes the file; `yaml` has everything but `listen` and `admin`.
    pub fn rewrite(&self, yaml: &str) {
        std::fs::write(self.file.path(), with_listeners(yaml)).unwrap();
    }
}

fn with_listeners(yaml: &str) -> String {
    format!("listen: [127.0.0.1:0]\nadmin: 127.0.0.1:0\n{yaml}")
}

/// The address in the banner's line that begins with `word`.
pub fn address_after(banner: &str, word: &str) -> Option<SocketAddr> {
    let mut lines = banner.lines().map(str::trim_start);
    let line = lines.find_map(|line| line.strip_prefix(word))?.trim_start();
    let (_, address) = line.split_once("://")?;
    address.split(['/', ' ']).next()?.parse().ok()
}

/// A file in a directory of its own, gone with the test.
pub struct TestFile(PathBuf);

impl TestFile {
    pub fn new(name: &str, content: impl AsRef<[u8]>) -> TestFile {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        TestFile(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path beside it, for more files that are gone with it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.0.with_file_name(name)
    }

    pub fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}
