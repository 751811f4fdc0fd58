//! The service by which sidecars keep joining: see [`crate::xds::joining`].

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::service::{BoxFuture, bearer, unimplemented};
use super::{Bearing, Fleet};
use crate::tls::PeerInfo;
use crate::xds::joining::{Empty, LEAVE, READY, RENEW, ReadyRequest, RenewResponse, SERVICE};

/// The service.
pub fn joining<F: Fleet>(fleet: Arc<F>) -> Joining<F> {
    Joining(fleet)
}

/// `topsail.v1.Joining`.
#[derive(Debug)]
pub struct Joining<F>(Arc<F>);

impl<F> NamedService for Joining<F> {
    const NAME: &'static str = SERVICE;
}

impl<F> Clone for Joining<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: Fleet> Service<http::Request<Body>> for Joining<F> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let bearing = Bearing {
            token: bearer(&request),
            peer: request.extensions().get::<PeerInfo>().cloned(),
        };
        let fleet = self.0.clone();
        match request.uri().path() {
            RENEW => Box::pin(async move {
                Ok(Grpc::new(ProstCodec::default())
                    .unary(Renew { fleet, bearing }, request)
                    .await)
            }),
            LEAVE => Box::pin(async move {
                Ok(Grpc::new(ProstCodec::default())
                    .unary(Leave { fleet, bearing }, request)
                    .await)
            }),
            READY => Box::pin(async move {
                Ok(Grpc::new(ProstCodec::default())
                    .unary(TakeReadiness { fleet, bearing }, request)
                    .await)
            }),
            _ => unimplemented(),
        }
    }
}

struct Renew<F> {
    fleet: Arc<F>,
    bearing: Bearing,
}

impl<F: Fleet> UnaryService<Empty> for Renew<F> {
    type Response = RenewResponse;
    type Future = Ready<Result<Response<RenewResponse>, Status>>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        let renewed = self.fleet.renew(&self.bearing);
        ready(renewed.map(|token| Response::new(RenewResponse { token })))
    }
}

struct Leave<F> {
    fleet: Arc<F>,
    bearing: Bearing,
}

impl<F: Fleet> UnaryService<Empty> for Leave<F> {
    type Response = Empty;
    type Future = Ready<Result<Response<Empty>, Status>>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        ready(self.fleet.leave(&self.bearing).map(|()| Response::new(Empty {})))
    }
}

struct TakeReadiness<F> {
    fleet: Arc<F>,
    bearing: Bearing,
}

impl<F: Fleet> UnaryService<ReadyRequest> for TakeReadiness<F> {
    type Response = Empty;
    type Future = Ready<Result<Response<Empty>, Status>>;

    fn call(&mut self, request: Request<ReadyRequest>) -> Self::Future {
        let ReadyRequest { run, ready: is_ready } = request.into_inner();
        let taken = self.fleet.ready(&self.bearing, run, is_ready);
        ready(taken.map(|()| Response::new(Empty {})))
    }
}
