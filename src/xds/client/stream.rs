//! An xDS stream to a server: gRPC over HTTP/2 on an established connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::Uri;
use http::uri::PathAndQuery;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::codegen::Service;
use tonic::{Request, Status};

use super::Variant;

/// The service and protocol variant of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// ADS.
    Aggregated(Variant),
    /// SDS.
    Secrets(Variant),
}

/// Settings of a stream.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The service.
    pub method: Method,
    /// `:authority`.
    pub authority: String,
    /// HTTP/2 keepalive: PING interval and timeout.
    pub keepalive: Option<(Duration, Duration)>,
    /// Request headers, e.g. the credential.
    pub metadata: http::HeaderMap,
}

/// An open stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    requests: mpsc::UnboundedSender<Bytes>,
    responses: Streaming<Bytes>,
}

/// Why a stream could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The HTTP/2 connection failed.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The server ended the stream with this status.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The server ended the stream without a status.
    #[error("the server closed the stream")]
    Ended,
    /// The request could not be built.
    #[error("{0}")]
    Opening(#[from] http::Error),
}

impl From<Status> for StreamError {
    fn from(status: Status) -> Self {
        StreamError::Status(Box::new(status))
    }
}

impl Method {
    const fn path(self) -> &'static str {
        match self {
            Method::Aggregated(Variant::Delta) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
            Method::Aggregated(Variant::Sotw) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
            Method::Secrets(Variant::Delta) => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            Method::Secrets(Variant::Sotw) => "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
        }
    }
}

impl Stream {
    /// Opens a stream on a connection. The requests in `first` are sent at once, since a server may
    /// send response headers only after the first request.
    ///
    /// # Errors
    ///
    /// If the stream cannot be opened.
    pub async fn open<I>(io: I, opening: Opening, first: impl IntoIterator<Item = Bytes>) -> Result<Self, StreamError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        if let Some((interval, timeout)) = opening.keepalive {
            builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        // Errors of the connection are reported by the stream.
        tokio::spawn(async move { drop(connection.await) });
        let origin = Uri::builder().scheme("https").authority(opening.authority);
        let origin = origin.path_and_query("/").build()?;
        let mut grpc = Grpc::with_origin(Connection(sender), origin).max_decoding_message_size(usize::MAX);
        grpc.ready().await?;
        let (requests, receive) = mpsc::unbounded_channel();
        first.into_iter().for_each(|request| drop(requests.send(request)));
        let mut request = Request::new(UnboundedReceiverStream::new(receive));
        request.metadata_mut().as_mut().extend(opening.metadata);
        let path = PathAndQuery::from_static(opening.method.path());
        let responses = grpc.streaming(request, path, Frames).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// Sends a request. If the stream has ended it is dropped; [`Stream::next`] returns the reason.
    pub fn send(&self, request: Bytes) {
        drop(self.requests.send(request));
    }

    /// Waits for the next response. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the stream has ended.
    pub async fn next(&mut self) -> Result<Bytes, StreamError> {
        self.responses.message().await?.ok_or(StreamError::Ended)
    }
}

/// Adapts hyper's connection to tonic.
pub(super) struct Connection(pub(super) SendRequest<Body>);

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Codec for messages that are already serialized.
#[derive(Clone, Copy, Debug)]
struct Frames;

impl Codec for Frames {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Frames {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frame: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(frame);
        Ok(())
    }
}

impl Decoder for Frames {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
