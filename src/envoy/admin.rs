//! Client for Envoy's admin listener.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why a request to the admin listener failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The connection was refused or failed.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// The admin listener.
        address: SocketAddr,
        /// The I/O error.
        error: io::Error,
    },
    /// The response is not valid HTTP.
    #[error("{address}: {error}")]
    Http {
        /// The admin listener.
        address: SocketAddr,
        /// The error.
        error: hyper::Error,
    },
    /// The path is invalid.
    #[error(transparent)]
    Path(#[from] http::Error),
}

/// Sends `GET <path>` to an admin listener: `/ready`, `/config_dump`, `/stats`.
///
/// # Errors
///
/// If there is no complete HTTP response. Any status code is a success.
pub async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), AdminError> {
    ask(Method::GET, address, path).await
}

/// Sends `POST <path>` to an admin listener, for requests with side effects such as
/// `/drain_listeners?graceful`.
///
/// # Errors
///
/// If there is no complete HTTP response.
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
    // Connection errors are reported by the exchange as well.
    let (answer, _) = tokio::join!(exchange, connection);
    answer.map_err(http_error)
}
