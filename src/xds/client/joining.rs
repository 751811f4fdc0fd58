//! The sidecar's side of [`crate::xds::joining`].

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

/// Asks for another join token, for the same bearer and as long a time, on a connection that somebody made to the
/// control plane.
///
/// # Errors
/// When there is none to be had.
pub async fn renew<I>(io: I, token: &str) -> Result<String, StreamError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let response: RenewResponse = ask(io, RENEW, Empty {}, token).await?;
    Ok(response.token)
}

/// Says that nothing more is to be sent to the member of a group that is at the other end of this connection: it is about
/// to end.
///
/// # Errors
/// When the control plane does not take it.
pub async fn leave<I>(io: I, token: &str) -> Result<(), StreamError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Empty {} = ask(io, LEAVE, Empty {}, token).await?;
    Ok(())
}

/// Says whether the application of the member of a group that is at the other end of this connection is ready. `run` is
/// what the metadata of its node calls `TOPSAIL_READINESS_RUN`. The answer is how its group asks applications whether they
/// are ready, if it says so.
///
/// # Errors
/// When the control plane does not take it: among others while the data plane is not connected.
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
    // It ends with the sender; why it ended before is told by the answer.
    tokio::spawn(async move { drop(connection.await) });
    let mut grpc = Grpc::with_origin(Connection(sender), Uri::from_static("https://topsail"));
    grpc.ready().await?;
    let mut request = Request::new(message);
    let bearer = AsciiMetadataValue::try_from(format!("Bearer {token}"));
    let mut bearer = bearer.map_err(|_| Status::invalid_argument("the join token is no header's value"))?;
    bearer.set_sensitive(true);
    request.metadata_mut().insert("authorization", bearer);
    let codec: ProstCodec<Q, R> = ProstCodec::default();
    Ok(grpc
        .unary(request, PathAndQuery::from_static(path), codec)
        .await?
        .into_inner())
}
