//! A client that sends exactly the bytes it is given and reads answers strictly.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Every value of a header, by lower-case name.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        headers(&self.head)
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A head as text; what is no UTF-8 in it is of no concern to any test.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// The value of a header in a head, by lower-case name.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    headers(head).find_map(|(n, value)| n.eq_ignore_ascii_case(name).then_some(value))
}

/// Names and values of a head, in order.
pub fn headers(head: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name, value.trim()))
}

/// One request on a connection of its own.
pub async fn request(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut client = Client::connect(address).await;
    client.send(bytes).await;
    client.answer().await
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        Client::at_once(TcpStream::connect(address).await.unwrap())
    }

    /// From an address of this machine's own: everything in 127.0.0.0/8 is.
    pub async fn connect_from(local: &str, address: SocketAddr) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(local.parse().unwrap(), 0)).unwrap();
        Client::at_once(socket.connect(address).await.unwrap())
    }

    fn at_once(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        Client::over(stream)
    }

    /// Ends the connection with a reset instead of a farewell.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// On a connection that is open already.
    pub fn over(stream: S) -> Client<S> {
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    /// The connection itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The connection itself, of which nothing was read yet.
    pub fn into_stream(self) -> S {
        assert!(self.unread.is_empty());
        self.stream
    }

    /// Sends as much as the other side takes: it may refuse, and close, before it has read everything. Tells whether
    /// it took everything.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// The next final answer; informational ones are skipped.
    pub async fn answer(&mut self) -> Answer {
        loop {
            let answer = self.any_answer().await;
            if answer.status >= 200 {
                return answer;
            }
        }
    }

    /// The next answer, informational or not.
    pub async fn any_answer(&mut self) -> Answer {
        let answer = tokio::time::timeout(PATIENCE, self.read_answer(false)).await;
        answer
            .expect("no answer in time")
            .expect("the connection ended before an answer")
    }

    /// The answer to a HEAD.
    pub async fn bodiless_answer(&mut self) -> Answer {
        let answer = tokio::time::timeout(PATIENCE, self.read_answer(true)).await;
        answer
            .expect("no answer in time")
            .expect("the connection ended before an answer")
    }

    /// The next final answer, or `None` when the connection ends before it is whole by its own framing.
    pub async fn whole_answer(&mut self) -> Option<Answer> {
        loop {
            let answer = tokio::time::timeout(PATIENCE, self.read_answer(false)).await;
            let answer = answer.expect("no answer in time")?;
            if answer.status >= 200 {
                return Some(answer);
            }
        }
    }

    /// The head of the next answer; its body is left to be read.
    pub async fn head(&mut self) -> String {
        let head = tokio::time::timeout(PATIENCE, self.read_head()).await;
        head.expect("no answer in time")
            .expect("the connection ended before an answer")
    }

    /// Whatever comes until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the other side closes without another byte.
    pub async fn closes(&mut self) -> bool {
        self.unread.is_empty() && !self.more().await
    }

    /// Whether the other side ends the connection in order: no byte more, and no reset either.
    pub async fn ends_in_order(&mut self) -> bool {
        let mut buffer = [0; 1];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        self.unread.is_empty() && matches!(read.expect("not closed in time"), Ok(0))
    }

    /// Waits for `count` bytes and takes them.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.take(count).await;
        bytes.unwrap_or_else(|| panic!("the connection ended early: {:?}", self.unread))
    }

    /// The next chunk of a chunked answer whose head was read.
    pub async fn chunk(&mut self) -> Vec<u8> {
        self.next_chunk().await.expect("the connection ended early")
    }

    /// Says that no more will be sent.
    pub async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The same to somebody who may have ended the connection already.
    pub async fn finish_sending_if_open(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    async fn more(&mut self) -> bool {
        self.unread.reserve(64 * 1024);
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
        matches!(read.expect("nothing to read in time"), Ok(read) if read > 0)
    }

    async fn read_answer(&mut self, bodiless: bool) -> Option<Answer> {
        let head = self.read_head().await?;
        let status: u16 = head[9..12].parse().unwrap();
        let body = match (header(&head, "content-length"), header(&head, "transfer-encoding")) {
            _ if bodiless || status < 200 || status == 204 || status == 304 => Vec::new(),
            (Some(length), None) => self.take(length.parse().unwrap()).await?,
            (None, Some("chunked")) => self.chunks().await?,
            (None, None) => self.rest().await,
            both => panic!("ambiguous framing {both:?}"),
        };
        Some(Answer { status, head, body })
    }

    async fn read_head(&mut self) -> Option<String> {
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

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.next_chunk().await? {
                last if last.is_empty() => return Some(body),
                chunk => body.extend(chunk),
            }
        }
    }

    async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(end) = self.unread.windows(2).position(|w| w == b"\r\n") {
                break end + 2;
            }
            if !self.more().await {
                return None;
            }
        };
        let line = self.take(end).await?;
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let chunk = self.take(size).await?;
        assert_eq!(self.take(2).await?, b"\r\n");
        Some(chunk)
    }

    /// Takes `count` bytes; `None` when the connection ends before.
    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..count).collect())
    }
}
