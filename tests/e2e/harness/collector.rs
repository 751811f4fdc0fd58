//! A trace collector that supports OTLP by gRPC and HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use topsail::xds::otlp::{self, ExportRequest, Span};

use super::wait::eventually;

/// A collector on a port of 127.0.0.1. Stops on drop.
pub struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Export>>>,
    task: AbortHandle,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The export request.
    pub request: ExportRequest,
}

impl Collector {
    /// Starts a collector.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken: Arc<Mutex<Vec<Export>>> = Arc::default();
        let of_task = taken.clone();
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = of_task.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| take(taken.clone(), request));
                    // Errors of a client's connection are not of interest.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        };
        Self {
            address,
            taken,
            task: tokio::spawn(accepting).abort_handle(),
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests received so far.
    pub fn taken(&self) -> Vec<Export> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits for this many spans and returns all.
    pub async fn spans(&self, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans"), async || {
            let taken = self.taken();
            let spans = taken.iter().flat_map(|export| &export.request.resource_spans);
            let spans = spans.flat_map(|one| &one.scope_spans).flat_map(|one| &one.spans);
            let spans: Vec<_> = spans.cloned().collect();
            match spans.len() >= count {
                true => Ok(spans),
                false => Err(format!("there are {}", spans.len())),
            }
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    taken: Arc<Mutex<Vec<Export>>>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let grpc = head.uri.path() == otlp::EXPORT_PATH;
    let message = if grpc {
        assert_eq!(body[0], 0, "it is not compressed");
        assert_eq!(
            u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize,
            body.len() - 5
        );
        body.slice(5..)
    } else {
        body
    };
    taken.lock().unwrap().push(Export {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        request: ExportRequest::decode(message).unwrap(),
    });
    if !grpc {
        return Ok(Response::new(Full::default().boxed()));
    }
    let trailers = async {
        Some(Ok(HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            "0".parse().unwrap(),
        )])))
    };
    let mut response = Response::new(Full::from(vec![0; 5]).with_trailers(trailers).boxed());
    let kind = "application/grpc".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}
