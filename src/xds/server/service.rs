//! The gRPC services. They are written by hand because responses are bytes already (see
//! [`crate::xds::wire`]), which generated services cannot send.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Code, Request, Response, Status};

use super::stream::{self, Protocol, Scope};
use super::{Credential, Fleet};
use crate::tls::PeerInfo;
use crate::xds::pb::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};

/// A request of Envoy with its `node` is 61 KB; names and versions of a large mesh come on top.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// The aggregated discovery service.
pub fn aggregated<F: Fleet>(fleet: Arc<F>) -> Aggregated<F> {
    Aggregated(fleet)
}

/// The secret discovery service, for clients that ask for secrets on streams of their own.
pub fn secrets<F: Fleet>(fleet: Arc<F>) -> Secrets<F> {
    Secrets(fleet)
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`.
#[derive(Debug)]
pub struct Aggregated<F>(Arc<F>);

/// `envoy.service.secret.v3.SecretDiscoveryService`. The unary `FetchSecrets` is not served.
#[derive(Debug)]
pub struct Secrets<F>(Arc<F>);

impl<F> NamedService for Aggregated<F> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<F> NamedService for Secrets<F> {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl<F> Clone for Aggregated<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F> Clone for Secrets<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<F: Fleet> Service<http::Request<Body>> for Aggregated<F> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fleet = self.0.clone();
        match request.uri().path().rsplit('/').next() {
            Some("StreamAggregatedResources") => serve::<DiscoveryRequest, F>(fleet, Scope::All, request),
            Some("DeltaAggregatedResources") => serve::<DeltaDiscoveryRequest, F>(fleet, Scope::All, request),
            _ => unimplemented(),
        }
    }
}

impl<F: Fleet> Service<http::Request<Body>> for Secrets<F> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fleet = self.0.clone();
        match request.uri().path().rsplit('/').next() {
            Some("StreamSecrets") => serve::<DiscoveryRequest, F>(fleet, Scope::Secrets, request),
            Some("DeltaSecrets") => serve::<DeltaDiscoveryRequest, F>(fleet, Scope::Secrets, request),
            _ => unimplemented(),
        }
    }
}

fn serve<P: Protocol, F: Fleet>(
    fleet: Arc<F>,
    scope: Scope,
    request: http::Request<Body>,
) -> BoxFuture<Result<http::Response<Body>, Infallible>> {
    Box::pin(async move {
        let mut grpc = Grpc::new(FrameCodec::<P>(PhantomData)).max_decoding_message_size(MAX_REQUEST_BYTES);
        Ok(grpc.streaming(Method { fleet, scope }, request).await)
    })
}

fn unimplemented() -> BoxFuture<Result<http::Response<Body>, Infallible>> {
    Box::pin(async { Ok(Status::new(Code::Unimplemented, "no such method").into_http()) })
}

/// One streaming method: starts the stream's task.
struct Method<F> {
    fleet: Arc<F>,
    scope: Scope,
}

impl<P: Protocol, F: Fleet> StreamingService<P> for Method<F> {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<P>>) -> Self::Future {
        let credential = credential(&request);
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(stream::run(
            self.fleet.clone(),
            self.scope,
            credential,
            request.into_inner(),
            send,
        ));
        std::future::ready(Ok(Response::new(ReceiverStream::new(receive))))
    }
}

/// A certificate counts before a token.
fn credential<T>(request: &Request<T>) -> Credential {
    if let Some(identity) = request
        .extensions()
        .get::<PeerInfo>()
        .and_then(|peer| peer.identity.clone())
    {
        return Credential::Certificate(identity);
    }
    let bearer = request
        .metadata()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    match bearer.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) => Credential::Token(token.trim().into()),
        None => Credential::None,
    }
}

/// Reads messages with prost and writes frames as they are.
#[derive(Debug)]
struct FrameCodec<P>(PhantomData<P>);

impl<P: Message + Default + 'static> Codec for FrameCodec<P> {
    type Encode = Bytes;
    type Decode = P;
    type Encoder = FrameEncoder;
    type Decoder = MessageDecoder<P>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> MessageDecoder<P> {
        MessageDecoder(PhantomData)
    }
}

#[derive(Debug)]
struct FrameEncoder;

impl Encoder for FrameEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frame: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(frame);
        Ok(())
    }
}

#[derive(Debug)]
struct MessageDecoder<P>(PhantomData<P>);

impl<P: Message + Default> Decoder for MessageDecoder<P> {
    type Item = P;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<P>, Status> {
        P::decode(buffer)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
