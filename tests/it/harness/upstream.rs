//! An upstream that keeps every byte it received and answers what the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::header;

/// A request as the upstream got it.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub head: String,
    pub body: Vec<u8>,
    /// Which of the upstream's connections it came on, from 0.
    pub connection: usize,
}

impl Recorded {
    /// The value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// How often a header occurs.
    pub fn count(&self, name: &str) -> usize {
        let names = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        names.filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }
}

/// What an upstream answers to the n-th request it got, as bytes on the wire; an empty answer closes the connection.
type Script = dyn Fn(usize, &Recorded) -> Vec<u8> + Send + Sync;

pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Recorded>>>,
    task: JoinHandle<()>,
    forbidden: bool,
}

impl Upstream {
    /// Answers 200 `ok` to everything.
    pub async fn ok() -> Upstream {
        Upstream::answering(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()).await
    }

    /// Answers each request with a status and an empty body.
    pub async fn status(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Upstream {
        Upstream::answering(move |n, _| format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n", status(n)).into_bytes())
            .await
    }

    /// Nothing may reach it: a request fails the test, at the latest when the upstream is dropped.
    pub async fn unreachable() -> Upstream {
        let mut upstream = Upstream::ok().await;
        upstream.forbidden = true;
        upstream
    }

    /// Answers as the script says.
    pub async fn answering(script: impl Fn(usize, &Recorded) -> Vec<u8> + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let record = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                tokio::spawn(serve(stream, connection, Arc::clone(&record), Arc::clone(&script)));
            }
        });
        Upstream {
            address,
            seen,
            task,
            forbidden: false,
        }
    }

    /// Everything received so far.
    pub fn seen(&self) -> Vec<Recorded> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
        if self.forbidden && !std::thread::panicking() {
            assert!(self.seen().is_empty(), "reached the upstream: {:?}", self.seen());
        }
    }
}

async fn serve(mut stream: TcpStream, connection: usize, seen: Arc<Mutex<Vec<Recorded>>>, script: Arc<Script>) {
    stream.set_nodelay(true).unwrap();
    let mut unread = Vec::new();
    while let Some(mut request) = receive(&mut stream, &mut unread).await {
        request.connection = connection;
        let n = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let answer = script(n, &request);
        if answer.is_empty() || stream.write_all(&answer).await.is_err() {
            return;
        }
        // An answer without a length ends with the connection.
        let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if !head.contains("content-length") && !head.contains("chunked") && !head.contains(" 204 ") {
            return;
        }
    }
}

async fn receive(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Recorded> {
    let mut buffer = vec![0; 256 * 1024];
    let end = loop {
        if let Some(end) = unread.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => unread.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    };
    let head = String::from_utf8(unread.drain(..end).collect()).unwrap();
    // Read by the declared length alone: what a proxy sends on must be framed by exactly one of those.
    let length: usize = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    while unread.len() < length {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => unread.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
    let body = unread.drain(..length).collect();
    Some(Recorded {
        head,
        body,
        connection: 0,
    })
}
