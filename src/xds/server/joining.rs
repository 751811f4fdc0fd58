//! Server of the [joining service](crate::xds::joining).

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::service::{BoxFuture, bearer, unimplemented};
use super::{BearerCaller, Fleet};
use crate::tls::PeerInfo;
use crate::xds::joining::{Empty, LEAVE, READY, RENEW, ReadyRequest, ReadyResponse, RenewResponse, SERVICE};

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
        let caller = BearerCaller {
            token: bearer(&request),
            peer: request.extensions().get::<PeerInfo>().cloned(),
        };
        let fleet = self.0.clone();
        match request.uri().path() {
            RENEW => unary(request, move |_: Empty| {
                fleet.renew(&caller).map(|token| RenewResponse { token })
            }),
            LEAVE => unary(request, move |_: Empty| fleet.leave(&caller).map(|()| Empty {})),
            READY => unary(request, move |ReadyRequest { run, ready }| {
                fleet.ready(&caller, run, ready).map(|probe| ReadyResponse { probe })
            }),
            _ => unimplemented(),
        }
    }
}

/// Handles a unary call with `answer`.
fn unary<Q, A, C>(request: http::Request<Body>, answer: C) -> BoxFuture<Result<http::Response<Body>, Infallible>>
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    C: Fn(Q) -> Result<A, Status> + Send + Sync + 'static,
{
    let answering = Answering(answer, PhantomData);
    Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(answering, request).await) })
}

struct Answering<Q, C>(C, PhantomData<fn(Q)>);

impl<Q, A, C: Fn(Q) -> Result<A, Status>> UnaryService<Q> for Answering<Q, C> {
    type Response = A;
    type Future = Ready<Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        ready((self.0)(request.into_inner()).map(Response::new))
    }
}
