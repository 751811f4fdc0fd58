//! Asking Envoy's admin listener.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why the admin listener gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nothing listens there, or the connection broke.
    #[error("no connection to {address}: {error}")]
    Connect {
        /// The admin listener.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// What answers there does not speak HTTP.
    #[error("{address}: {error}")]
    Http {
        /// The admin listener.
        address: SocketAddr,
        /// What was wrong.
        error: hyper::Error,
    },
    /// The path is no path.
    #[error(transparent)]
    Path(#[from] http::Error),
}

/// `GET <path>` at an admin listener, on a connection of its own: `/ready`, `/config_dump`, `/stats`.
///
/// # Errors
/// When there is no whole HTTP answer. An answer of any status is an answer.
pub async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), AdminError> {
    ask(Method::GET, address, path).await
}

/// `POST <path>`, as [`get`]: what changes something, `/drain_listeners?graceful`.
///
/// # Errors
/// When there is no whole HTTP answer.
pub async fn post(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), AdminError> {
    ask(Method::POST, address, path).await
}

async fn ask(method: Method, address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), AdminError> {
    let http_error = |error| AdminError::Http { address, error };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| AdminError::Connect { address, error })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http_error)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    // An error of the connection reaches the exchange as well, so the connection's own is of no use.
    let (answer, _) = tokio::join!(exchange, connection);
    answer.map_err(http_error)
}
