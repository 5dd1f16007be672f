//! An HTTP/2 client without TLS, by prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// One connection.
pub struct H2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl H2 {
    pub async fn connect(address: SocketAddr) -> H2 {
        let stream = TcpStream::connect(address).await.unwrap();
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
        let (head, body) = request.into_parts();
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut sending) = requests.send_request(Request::from_parts(head, ()), body.is_empty())?;
        if !body.is_empty() {
            sending.send_data(body, true)?;
        }
        let (head, mut receiving) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = receiving.data().await {
            let piece = piece?;
            receiving.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        Ok(Response::from_parts(head, body))
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
