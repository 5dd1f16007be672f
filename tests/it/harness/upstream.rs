//! An upstream that keeps every byte it received and answers what the test says.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::{header, headers, lossy};
use super::until;

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
        headers(&self.head)
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .count()
    }

    /// Names and values of the head, in order.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        headers(&self.head).collect()
    }
}

/// What an upstream does with a request it got.
pub enum Act {
    /// Bytes on the wire; none at all close the connection.
    Answer(Vec<u8>),
    /// Waits for a turn that [`Upstream::release`] gives, then answers.
    Hold(Vec<u8>),
    /// Bytes on the wire, then the end of the connection.
    Last(Vec<u8>),
    /// Breaks the connection with a reset.
    Reset,
    /// Never answers.
    Silence,
}

/// An answer of this status without a body.
pub fn bare(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// What an upstream answers to the n-th request it got, as bytes on the wire; an empty answer closes the connection.
type Script = dyn Fn(usize, &Recorded) -> Vec<u8> + Send + Sync;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Recorded>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    turns: Arc<Semaphore>,
    task: JoinHandle<()>,
    forbidden: bool,
}

impl Upstream {
    /// Answers 200 `ok` to everything.
    pub async fn ok() -> Upstream {
        Upstream::answering(|_, _| OK.to_vec()).await
    }

    /// Answers each request with a status and an empty body.
    pub async fn status(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Upstream {
        Upstream::answering(move |n, _| bare(status(n))).await
    }

    /// Answers each request with a status, once the test releases it.
    pub async fn holding(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Upstream {
        Upstream::acting(move |n, _| Act::Hold(bare(status(n)))).await
    }

    /// Nothing may reach it: a request fails the test, at the latest when the upstream is dropped.
    pub async fn unreachable() -> Upstream {
        let mut upstream = Upstream::ok().await;
        upstream.forbidden = true;
        upstream
    }

    /// Answers as the script says.
    pub async fn answering(script: impl Fn(usize, &Recorded) -> Vec<u8> + Send + Sync + 'static) -> Upstream {
        let script: Arc<Script> = Arc::new(script);
        Upstream::playing(move |wire| serve(wire, Arc::clone(&script))).await
    }

    /// Acts as the script says.
    pub async fn acting(script: impl Fn(usize, &Recorded) -> Act + Send + Sync + 'static) -> Upstream {
        let (script, turns) = (Arc::new(script), Arc::new(Semaphore::new(0)));
        let given = Arc::clone(&turns);
        let mut upstream = Upstream::playing(move |wire| act(wire, Arc::clone(&script), Arc::clone(&given))).await;
        upstream.turns = turns;
        upstream
    }

    /// Plays every connection as the test says, byte by byte.
    pub async fn playing<F, Play>(play: F) -> Upstream
    where
        F: Fn(Wire) -> Play + Send + Sync + 'static,
        Play: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Upstream::on(listener, play)
    }

    /// Plays every connection over TLS; handshakes that fail are no connections.
    pub async fn over_tls<F, Play>(acceptor: TlsAcceptor, play: F) -> Upstream
    where
        F: Fn(Wire<TlsStream<TcpStream>>) -> Play + Send + Sync + 'static,
        Play: Future<Output = ()> + Send + 'static,
    {
        let play = Arc::new(play);
        Upstream::playing(move |wire| {
            let (acceptor, play) = (acceptor.clone(), Arc::clone(&play));
            async move {
                if let Ok(stream) = acceptor.accept(wire.stream).await {
                    play(Wire::new(stream, wire.number, wire.seen)).await;
                }
            }
        })
        .await
    }

    fn on<F, Play>(listener: TcpListener, play: F) -> Upstream
    where
        F: Fn(Wire) -> Play + Send + Sync + 'static,
        Play: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let [connections, open] = [(), ()].map(|()| Arc::new(AtomicUsize::new(0)));
        let (record, count, now) = (Arc::clone(&seen), Arc::clone(&connections), Arc::clone(&open));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                now.fetch_add(1, Ordering::SeqCst);
                let (playing, now) = (play(Wire::new(stream, number, Arc::clone(&record))), Arc::clone(&now));
                tokio::spawn(async move {
                    playing.await;
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Upstream {
            address,
            seen,
            connections,
            open,
            turns: Arc::new(Semaphore::new(0)),
            task,
            forbidden: false,
        }
    }

    /// Waits until no connection is open.
    pub async fn quiet(&self) {
        until("no connection is open", || self.open() == 0).await;
    }

    /// Connections open at present.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Everything received so far.
    pub fn seen(&self) -> Vec<Recorded> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests were received so far.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Waits until `count` requests were received.
    pub async fn reached(&self, count: usize) {
        until("the upstream to be reached", || self.count() >= count).await;
    }

    /// Lets this many of the requests that are held be answered.
    pub fn release(&self, count: usize) {
        self.turns.add_permits(count);
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

/// One connection to an upstream, in the hand of a test.
pub struct Wire<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
    /// Which of the upstream's connections it is, from 0.
    pub number: usize,
    seen: Arc<Mutex<Vec<Recorded>>>,
}

impl Wire {
    /// Ends the connection with a reset instead of a farewell.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn new(stream: S, number: usize, seen: Arc<Mutex<Vec<Recorded>>>) -> Self {
        Wire {
            stream,
            unread: Vec::new(),
            number,
            seen,
        }
    }

    /// The next request, recorded, with its position among all that the upstream got; `None` when the other side
    /// is done.
    pub async fn request(&mut self) -> Option<(usize, Recorded)> {
        let head = self.head().await?;
        let body = match (header(&head, "content-length"), header(&head, "transfer-encoding")) {
            (Some(length), None) => self.bytes(length.parse().unwrap()).await?,
            (None, Some("chunked")) => self.chunks().await?,
            (None, None) => Vec::new(),
            both => panic!("ambiguous framing {both:?}"),
        };
        let request = Recorded {
            head,
            body,
            connection: self.number,
        };
        let mut seen = self.seen.lock().unwrap();
        seen.push(request.clone());
        Some((seen.len() - 1, request))
    }

    /// The head of the next request, not recorded; its body is left to be read.
    pub async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        Some(lossy(self.unread.drain(..end).collect()))
    }

    /// The next `count` bytes; `None` when the other side ends before.
    pub async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..count).collect())
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(self.bytes(1).await?);
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            body.extend(self.bytes(size).await?);
            assert_eq!(self.bytes(2).await?, b"\r\n");
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// Sends bytes; false when the other side is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Waits until the other side ends the connection; true when it sent nothing more.
    pub async fn ends(&mut self) -> bool {
        self.unread.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(read) if read > 0 => {
                self.unread.extend_from_slice(&buffer[..read]);
                true
            }
            _ => false,
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut wire: Wire<S>, script: Arc<Script>) {
    while let Some((n, request)) = wire.request().await {
        if !answer(&mut wire, &script(n, &request)).await {
            return;
        }
    }
}

async fn act(mut wire: Wire, script: Arc<impl Fn(usize, &Recorded) -> Act>, turns: Arc<Semaphore>) {
    while let Some((n, request)) = wire.request().await {
        let bytes = match script(n, &request) {
            Act::Answer(bytes) => bytes,
            Act::Hold(bytes) => {
                turns.acquire().await.unwrap().forget();
                bytes
            }
            Act::Last(bytes) => {
                wire.send(&bytes).await;
                return;
            }
            Act::Reset => return wire.reset(),
            Act::Silence => std::future::pending().await,
        };
        if !answer(&mut wire, &bytes).await {
            return;
        }
    }
}

/// Sends an answer; false when the connection ends with it.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, bytes: &[u8]) -> bool {
    if bytes.is_empty() || !wire.send(bytes).await {
        return false;
    }
    // An answer without a length ends with the connection.
    let head = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    head.contains("content-length") || head.contains("chunked") || head.contains(" 204 ")
}

/// An address that refuses connections, and is nobody else's for as long as this is kept.
pub struct Refusing {
    pub address: SocketAddr,
    socket: TcpSocket,
}

impl Refusing {
    pub fn new() -> Refusing {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Refusing {
            address: socket.local_addr().unwrap(),
            socket,
        }
    }

    /// From here on it takes connections and answers 200 `ok`.
    pub fn recovers(self) -> Upstream {
        let script: Arc<Script> = Arc::new(|_, _| OK.to_vec());
        let listener = self.socket.listen(64).unwrap();
        Upstream::on(listener, move |wire| serve(wire, Arc::clone(&script)))
    }
}

/// An address that takes no connection and refuses none: its backlog is full, so that connecting takes for ever.
pub struct Blackhole {
    pub address: SocketAddr,
    _listener: TcpListener,
    _waiting: TcpStream,
}

impl Blackhole {
    pub async fn new() -> Blackhole {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        // A backlog of zero has room for one connection that waits to be accepted.
        let listener = socket.listen(0).unwrap();
        let waiting = TcpStream::connect(address).await.unwrap();
        Blackhole {
            address,
            _listener: listener,
            _waiting: waiting,
        }
    }
}
