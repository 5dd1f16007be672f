//! The program itself, serving in a process of its own: what is read once in a process, and what it takes of memory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::request;

/// `hookward run`; ended when dropped.
pub struct Program {
    child: Child,
    directory: PathBuf,
    pub address: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    /// Starts it with `yaml`, which has everything but `listen` and `admin`, and the certificates that it trusts.
    pub fn start(yaml: &str, trusted: &str) -> Program {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "program-{}-{}",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        );
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let (store, file) = (directory.join("trusted.pem"), directory.join("hookward.yaml"));
        std::fs::write(&store, trusted).unwrap();
        std::fs::write(&file, format!("listen: [127.0.0.1:0]\nadmin: 127.0.0.1:0\n{yaml}")).unwrap();
        let run = format!("exec {} run {} 2>&1", env!("CARGO_BIN_EXE_hookward"), file.display());
        let mut child = Command::new("sh")
            .args(["-c", &run])
            .env("SSL_CERT_FILE", &store)
            .env_remove("SSL_CERT_DIR")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut address = |word: &str| loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "ended before it served");
            let mut words = line.split_whitespace();
            if words.next() == Some(word) {
                let url = words.next().unwrap().trim_start_matches("http://");
                break url.split('/').next().unwrap().parse().unwrap();
            }
        };
        let (webhooks, admin) = (address("webhooks"), address("admin"));
        // Whoever fills a pipe that nobody reads stands still.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Program {
            child,
            directory,
            address: webhooks,
            admin,
        }
    }

    /// The value of one series, `name{labels}` as exposed.
    pub async fn metric(&self, series: &str) -> f64 {
        let answer = request(self.admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut lines = answer.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    /// The most memory it has had so far, in bytes; `None` where the system does not tell.
    pub fn memory_peak_bytes(&self) -> Option<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: usize = peak.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
