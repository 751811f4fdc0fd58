//! Client of the [joining service](crate::xds::joining).

use http::Uri;
use http::uri::PathAndQuery;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::stream::{Connection, StreamError};
use crate::xds::joining::{Empty, LEAVE, Probe, READY, RENEW, ReadyRequest, ReadyResponse, RenewResponse};

/// Renews a join token on an established connection.
///
/// # Errors
///
/// If the control plane rejects it or the connection fails.
pub async fn renew<I>(io: I, token: &str) -> Result<String, StreamError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let response: RenewResponse = ask(io, RENEW, Empty {}, token).await?;
    Ok(response.token)
}

/// Announces that the group member at this end of the connection is shutting down, so that it gets
/// no more traffic.
///
/// # Errors
///
/// If the control plane rejects it or the connection fails.
pub async fn leave<I>(io: I, token: &str) -> Result<(), StreamError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Empty {} = ask(io, LEAVE, Empty {}, token).await?;
    Ok(())
}

/// Reports the readiness of the application of the group member at this end of the connection.
/// `run` is `TOPSAIL_READINESS_RUN` in its node metadata. Returns the readiness probe of the
/// WorkloadGroup, if it has one.
///
/// # Errors
///
/// If the control plane rejects it, which includes the proxy not being connected, or the connection
/// fails.
pub async fn ready<I>(io: I, token: &str, run: u64, ready: bool) -> Result<Option<Probe>, StreamError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let response: ReadyResponse = ask(io, READY, ReadyRequest { run, ready }, token).await?;
    Ok(response.probe)
}

async fn ask<I, Q, R>(io: I, path: &'static str, message: Q, token: &str) -> Result<R, StreamError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(io))
        .await?;
    // Ends when the sender is dropped; earlier errors are reported by the call.
    tokio::spawn(async move { drop(connection.await) });
    let mut grpc = Grpc::with_origin(Connection(sender), Uri::from_static("https://topsail"));
    grpc.ready().await?;
    let mut request = Request::new(message);
    let bearer = AsciiMetadataValue::try_from(format!("Bearer {token}"));
    let mut bearer = bearer.map_err(|_| Status::invalid_argument("the join token is not a valid header value"))?;
    bearer.set_sensitive(true);
    request.metadata_mut().insert("authorization", bearer);
    let codec: ProstCodec<Q, R> = ProstCodec::default();
    Ok(grpc
        .unary(request, PathAndQuery::from_static(path), codec)
        .await?
        .into_inner())
}
