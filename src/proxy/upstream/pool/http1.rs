//! HTTP/1.1 connections to hosts.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::failure::{self, Unanswered};
use super::host_pool::{HostPool, Place};
use super::metered::Metered;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::upstream::cluster::{Cluster, UpstreamHttp};
use crate::proxy::upstream::connect::{FailureKind, Link, SendError};

/// A connection, which carries one request at a time. It closes when this is dropped.
#[derive(Debug)]
pub(super) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    /// Bytes that have come from the host.
    received: Arc<AtomicU64>,
    /// Where it goes back to; nowhere, if it is for one request only.
    home: Weak<HostPool>,
    /// Our own address.
    pub(super) local: Option<SocketAddr>,
    opened: Instant,
    since: Instant,
    requests: u32,
    max_requests: u32,
}

/// Makes a connection speak HTTP/1.1.
pub(super) async fn handshake(
    link: Link,
    place: Place,
    home: Weak<HostPool>,
    cluster: &Arc<Cluster>,
) -> Result<Http1, SendError> {
    cluster.stats.cx_http1_total.fetch_add(1, Relaxed);
    let local = link.local;
    let io = Metered::new(link, cluster.stats.clone());
    let received = io.received();
    let made = http1::Builder::new().handshake(TokioIo::new(io)).await;
    let (sender, connection) = made.map_err(|error| failure::of(&error.into()))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a host's connection broke");
        }
        drop(place);
    });
    let now = Instant::now();
    Ok(Http1 {
        sender,
        received,
        home,
        local,
        opened: now,
        since: now,
        requests: 0,
        max_requests: cluster.config.http.max_requests.unwrap_or(u32::MAX),
    })
}

/// A request without a body whose method would have one says so (RFC 9110 section 8.6), as in Envoy.
fn tell_emptiness(request: &mut Request<RequestBody>) {
    let never = [
        Method::GET,
        Method::HEAD,
        Method::DELETE,
        Method::TRACE,
        Method::CONNECT,
    ];
    if !never.contains(request.method()) && request.body().is_end_stream() {
        let length = request.headers_mut().entry(CONTENT_LENGTH);
        length.or_insert(HeaderValue::from_static("0"));
    }
}

impl Http1 {
    pub(super) async fn send(&mut self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        self.requests += 1;
        tell_emptiness(&mut request);
        // A new connection has to be asked for first whether it takes a request.
        if !self.sender.is_ready()
            && let Err(error) = self.sender.ready().await
        {
            return Err(Unanswered {
                error: failure::of(&error.into()),
                unsent: Some(request),
            });
        }
        let before = self.received.load(Relaxed);
        let response = self.sender.try_send_request(request).await.map_err(|error| {
            let mut unanswered = Unanswered::from(error);
            // Half an answer is none at all.
            if unanswered.error.kind == FailureKind::Reset && self.received.load(Relaxed) > before {
                unanswered.error.kind = FailureKind::Protocol;
            }
            unanswered
        })?;
        Ok(response.map(Incoming::from))
    }

    pub(super) fn is_reused(&self) -> bool {
        self.requests > 0
    }

    /// Whether it takes a request now.
    pub(super) fn is_ready(&self) -> bool {
        // One that was never asked says no.
        self.sender.is_ready() || (self.requests == 0 && !self.sender.is_closed())
    }

    /// Waits until it takes a request, and says whether it ever will.
    pub(super) async fn until_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Whether it has been unused or has lived for too long.
    pub(super) fn is_over(&self, http: &UpstreamHttp, now: Instant) -> bool {
        let longer = |than: Option<std::time::Duration>, since| {
            than.is_some_and(|than| now.saturating_duration_since(since) >= than)
        };
        longer(http.idle_timeout, self.since) || longer(http.max_connection_duration, self.opened)
    }

    /// It carries no request any more.
    pub(super) fn give_back(mut self) {
        let pool: Option<Rc<HostPool>> = self.home.upgrade();
        let (Some(pool), false) = (pool, self.sender.is_closed() || self.requests >= self.max_requests) else {
            return;
        };
        self.since = Instant::now();
        if self.is_ready() {
            pool.take(self);
        } else {
            pool.take_later(self);
        }
    }
}
