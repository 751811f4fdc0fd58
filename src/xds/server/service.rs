//! The gRPC services. Implemented by hand, because generated services cannot send responses that
//! are already serialized (see [`crate::xds::wire`]).

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::grpc::{self, Requests};
use super::stream::{self, Protocol};
use super::{Credential, Fleet, Scope};
use crate::tls::PeerInfo;
use crate::xds::pb::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};

/// The aggregated discovery service (ADS).
pub fn aggregated<F: Fleet>(fleet: Arc<F>) -> Aggregated<F> {
    Aggregated(fleet)
}

/// The secret discovery service (SDS), for clients that do not use ADS for secrets.
pub fn secrets<F: Fleet>(fleet: Arc<F>) -> Secrets<F> {
    Secrets(fleet)
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`.
#[derive(Debug)]
pub struct Aggregated<F>(Arc<F>);

/// `envoy.service.secret.v3.SecretDiscoveryService`. The unary `FetchSecrets` is not supported.
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

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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

/// Spawns the task of a stream.
fn serve<P: Protocol, F: Fleet>(
    fleet: Arc<F>,
    scope: Scope,
    request: http::Request<Body>,
) -> BoxFuture<Result<http::Response<Body>, Infallible>> {
    let credential = credential(&request);
    let peer = request.extensions().get::<PeerInfo>().cloned();
    let (responses, response) = grpc::respond();
    let requests = Requests::<P>::new(request.into_body());
    tokio::spawn(stream::run(fleet, scope, credential, peer, requests, responses));
    Box::pin(ready(Ok(response)))
}

pub(super) fn unimplemented() -> BoxFuture<Result<http::Response<Body>, Infallible>> {
    Box::pin(ready(
        Ok(Status::new(Code::Unimplemented, "no such method").into_http()),
    ))
}

/// The client's credential. A certificate takes precedence over a token.
fn credential<T>(request: &http::Request<T>) -> Credential {
    if let Some(identity) = request
        .extensions()
        .get::<PeerInfo>()
        .and_then(|peer| peer.identity.clone())
    {
        return Credential::Certificate(identity);
    }
    match bearer(request) {
        Some(token) => Credential::Token(token),
        None => Credential::None,
    }
}

/// The bearer token of a request.
pub(super) fn bearer<T>(request: &http::Request<T>) -> Option<Box<str>> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    Some(header.strip_prefix("Bearer ")?.trim().into())
}
