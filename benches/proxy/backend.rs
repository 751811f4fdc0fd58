//! The backend: 1 KiB responses for HTTP, 100-byte messages for gRPC, an endless stream for bulk.
//! It runs on the thread of a fixed-rate load: two threads on one CPU would wait for each other's
//! time slices, which last milliseconds.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Its address.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 28_080);

/// Address for bulk transfer.
pub(crate) const BULK_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 28_081);

/// Chunk for bulk transfer.
static BULK: [u8; 256 << 10] = [b'x'; 256 << 10];

static BODY: [u8; 1024] = [b'x'; 1024];

/// Starts it on the load's runtime.
pub(crate) async fn start() {
    let listener = TcpListener::bind(ADDRESS).await.expect("the backend's address is free");
    let bulk = TcpListener::bind(BULK_ADDRESS)
        .await
        .expect("the backend's address is free");
    tokio::spawn(send_bytes(bulk));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).ok();
            tokio::spawn(async move {
                let serve = auto::Builder::new(TokioExecutor::new());
                serve
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await
                    .ok();
            });
        }
    });
}

/// Sends bytes on every connection until the peer closes it.
async fn send_bytes(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move { while stream.write_all(&BULK).await.is_ok() {} });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == "application/grpc");
    request.into_body().collect().await.ok();
    if !grpc {
        return Ok(Response::new(Full::new(Bytes::from_static(&BODY)).boxed()));
    }
    let mut message = vec![0, 0, 0, 0, 100];
    message.extend_from_slice(&BODY[..100]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(Bytes::from(message))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames))));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}
