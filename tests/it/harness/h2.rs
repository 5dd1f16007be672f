//! An HTTP/2 client: by prior knowledge, or over whatever connection it is given.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct H2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

/// A request on its way, its body still to be sent.
pub struct H2Stream {
    pub body: SendStream<Bytes>,
    answer: ResponseFuture,
}

impl H2 {
    pub async fn connect(address: SocketAddr) -> H2 {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        H2::over(stream).await
    }

    /// On a connection that is open already.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> H2 {
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        H2 { requests, connection }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The stream was reset before the answer was whole.
    pub async fn ask(&mut self, request: Request<Bytes>) -> Result<Response<Vec<u8>>, h2::Error> {
        self.ask_in_frames(request, usize::MAX).await
    }

    /// The same, the body in frames of at most `frame` bytes.
    ///
    /// # Errors
    /// The stream was reset before the answer was whole.
    pub async fn ask_in_frames(
        &mut self,
        request: Request<Bytes>,
        frame: usize,
    ) -> Result<Response<Vec<u8>>, h2::Error> {
        let (head, body) = request.into_parts();
        let mut stream = self.open(Request::from_parts(head, ()), body.is_empty()).await?;
        stream.send(body, frame, true).await;
        stream.answer().await
    }

    /// Sends a head; the request `ends` with it, or its body is to come.
    ///
    /// # Errors
    /// The connection takes no more requests.
    pub async fn open(&mut self, head: Request<()>, ends: bool) -> Result<H2Stream, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (answer, body) = requests.send_request(head, ends)?;
        Ok(H2Stream { body, answer })
    }

    /// Waits until the other side has ended the connection.
    pub async fn ended(mut self) {
        let ended = tokio::time::timeout(PATIENCE, &mut self.connection).await;
        ended.expect("the connection is still open").unwrap();
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl H2Stream {
    /// Sends a piece of the body in frames of at most `frame` bytes, as far as the other side takes it; the body
    /// `ends` with it, or more is to come.
    pub async fn send(&mut self, piece: impl Into<Bytes>, frame: usize, ends: bool) {
        let mut rest: Bytes = piece.into();
        while !rest.is_empty() {
            self.body.reserve_capacity(rest.len().min(frame));
            let room = tokio::time::timeout(PATIENCE, poll_fn(|cx| self.body.poll_capacity(cx))).await;
            // None when the stream was reset: it has been answered, or never will be.
            let Some(Ok(room)) = room.expect("no room in time") else {
                return;
            };
            let now = rest.split_to(room.min(rest.len()).min(frame));
            let last = ends && rest.is_empty();
            if self.body.send_data(now, last).is_err() {
                return;
            }
        }
    }

    /// The whole answer.
    ///
    /// # Errors
    /// The stream was reset before the answer was whole.
    pub async fn answer(self) -> Result<Response<Vec<u8>>, h2::Error> {
        let answer = async {
            let (head, body) = self.answer.await?.into_parts();
            Ok(Response::from_parts(head, whole(body).await?))
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("no answer in time")
    }
}

async fn whole(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
