//! Applications behind sidecars, which respond with what they received.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tonic_health::server::HealthReporter;
use tower::ServiceExt;

use super::tls::Authority;

/// A request as received by a backend; its JSON response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Name of the backend, `<app>-<version>`.
    pub backend: String,
    /// Source IP address of the connection.
    pub peer: String,
    /// The request's method.
    pub method: String,
    /// The `:authority` or `Host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// Headers by lower-case name; multiple values are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// An application on a port of 127.0.0.1. Stops on drop.
///
/// Request headers control the response: `x-echo-status` is the status code, `x-echo-delay` a delay
/// in milliseconds.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    name: String,
    failing: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

impl Backend {
    /// An HTTP application that supports HTTP/1.1 and HTTP/2 with prior knowledge.
    pub async fn http(name: &str) -> Self {
        Self::http_at("127.0.0.1:0".parse().unwrap(), name).await
    }

    /// Like [`Backend::http`], at a given address.
    pub async fn http_at(address: SocketAddr, name: &str) -> Self {
        Self::start(address, name, async |stream, shared: Arc<Shared>| {
            // Fails if the client has already disconnected.
            let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical().to_string());
            let peer: Arc<str> = peer.unwrap_or_default().into();
            let service = service_fn(move |request| answer(shared.clone(), peer.clone(), request));
            let builder = auto::Builder::new(TokioExecutor::new());
            // Errors of a client's connection are not of interest.
            let _ = builder
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        })
        .await
    }

    /// A TCP application that prefixes each received chunk with its name and a colon.
    pub async fn tcp(name: &str) -> Self {
        Self::tcp_at("127.0.0.1:0".parse().unwrap(), name).await
    }

    /// Like [`Backend::tcp`], at a given address.
    pub async fn tcp_at(address: SocketAddr, name: &str) -> Self {
        Self::start(address, name, async |stream, shared: Arc<Shared>| {
            echo(stream, &shared.name).await;
        })
        .await
    }

    /// A TCP application with TLS and a self-signed certificate.
    pub async fn tls(name: &str) -> Self {
        let acceptor = super::tls::acceptor(name);
        Self::start(
            "127.0.0.1:0".parse().unwrap(),
            name,
            move |stream, shared: Arc<Shared>| {
                let acceptor = acceptor.clone();
                async move {
                    // Failed handshakes are ignored.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        echo(stream, &shared.name).await;
                    }
                }
            },
        )
        .await
    }

    /// An HTTPS application with a certificate of this CA for this name, which optionally requires
    /// client certificates of the same CA.
    pub async fn https(name: &str, authority: &Authority, server_name: &str, mutual: bool) -> Self {
        let acceptor = authority.acceptor(server_name, mutual);
        let serve = move |stream, shared: Arc<Shared>| {
            let acceptor = acceptor.clone();
            async move {
                // Failed handshakes are ignored.
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request| answer(shared.clone(), "".into(), request));
                // Errors of a client's connection are not of interest.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        };
        Self::start("127.0.0.1:0".parse().unwrap(), name, serve).await
    }

    /// The gRPC health service, and a handle that sets its status.
    pub async fn grpc(name: &str) -> (Self, HealthReporter) {
        let (reporter, health) = tonic_health::server::health_reporter();
        let serve = move |stream, _: Arc<Shared>| {
            let health = health.clone();
            async move {
                let service = service_fn(move |request: Request<Incoming>| health.clone().oneshot(request));
                // Errors of a client's connection are not of interest.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        };
        (Self::start("127.0.0.1:0".parse().unwrap(), name, serve).await, reporter)
    }

    /// A gRPC application for any service. It echoes the messages of a call and returns the status
    /// in `x-status`; a call without messages gets a trailers-only response.
    pub async fn calls(name: &str) -> Self {
        Self::start("127.0.0.1:0".parse().unwrap(), name, async |stream, _: Arc<Shared>| {
            // Errors of a client's connection are not of interest.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(called))
                .await;
        })
        .await
    }

    async fn start<F>(
        address: SocketAddr,
        name: &str,
        serve: impl Fn(TcpStream, Arc<Shared>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.into(),
            failing: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let of_task = shared.clone();
        let accepting = async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, of_task.clone()));
                while connections.try_join_next().is_some() {}
            }
        };
        Self {
            address,
            shared,
            task: tokio::spawn(accepting).abort_handle(),
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests it has responded to, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Responds to the next `count` requests with 503.
    pub fn fail_next(&self, count: usize) {
        self.shared.failing.store(count, Ordering::Relaxed);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, name: &str) {
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        let answer = [name.as_bytes(), b":", &chunk[..length]].concat();
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    peer: Arc<str>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let steer = |name| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
    };
    let failing = shared
        .failing
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .is_ok();
    let status = steer("x-echo-status").map(|status| StatusCode::from_u16(status.try_into().unwrap()).unwrap());
    let status = if failing {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        status.unwrap_or_default()
    };
    let authority = head
        .uri
        .authority()
        .map(ToString::to_string)
        .or_else(|| joined(&head.headers).remove("host"));
    let seen = Seen {
        backend: shared.name.clone(),
        peer: peer.to_string(),
        method: head.method.to_string(),
        authority: authority.unwrap_or_default(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        protocol: format!("{:?}", head.version),
        headers: joined(&head.headers),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let json = serde_json::to_vec(&seen).unwrap();
    shared.seen.lock().unwrap().push(seen);
    if let Some(delay) = steer("x-echo-delay") {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut response = Response::new(Full::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert("x-backend", shared.name.parse().unwrap());
    Ok(response)
}

async fn called(request: Request<Incoming>) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let messages = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let status = head.headers.get("x-status").cloned();
    let status = HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        status.unwrap_or("0".parse().unwrap()),
    )]);
    let mut response = Response::new(UnsyncBoxBody::default());
    if messages.is_empty() {
        *response.headers_mut() = status;
    } else {
        let trailers = std::future::ready(Some(Ok(status)));
        *response.body_mut() = Full::from(messages).with_trailers(trailers).boxed_unsync();
    }
    response
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    Ok(response)
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let value = |name| {
        let values = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    headers.keys().map(|name| (name.to_string(), value(name))).collect()
}
