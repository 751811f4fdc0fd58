//! HTTP/2 connections to hosts.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::{Authority, Parts, Scheme};
use http::{Method, Request, Response, Uri, Version};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::failure::{self, Unanswered};
use super::host_pool::{HostPool, Place};
use super::metered::Metered;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::connection::LocalExecutor;
use crate::proxy::io::gather::{Gathered, Turns, gathered};
use crate::proxy::upstream::cluster::{Cluster, UpstreamHttp};
use crate::proxy::upstream::connect::{Link, SendError};

/// What a stream may have on its way to us.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same for a connection: so much that a hundred streams which nobody reads do not hold up the others.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// Envoy's limit of headers.
const HEADER_BYTES: u32 = 60 << 10;

type Driver = http2::Connection<TokioIo<Gathered<Metered>>, RequestBody, Spawner>;

/// A connection, which carries many requests at the same time. It closes when this is dropped, once they have ended.
pub(super) struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    /// None as soon as it has ended, so that nothing waits in it.
    driver: Rc<RefCell<Option<Driver>>>,
    local: Option<SocketAddr>,
    opened: Instant,
    since: Cell<Instant>,
    active: Cell<usize>,
    requests: Cell<u32>,
    /// It took a request and then did not: it is going away.
    leaving: Cell<bool>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP/2 connection with {} streams", self.active.get())
    }
}

/// Spawns what hyper asks for. The first is what reads and writes; its writes go out when it has had its turn.
#[derive(Clone)]
struct Spawner(Rc<Cell<Option<Turns<Metered>>>>);

impl<F> Executor<F> for Spawner
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let Some(turns) = self.0.take() else {
            return LocalExecutor.execute(future);
        };
        tokio::task::spawn_local(async move {
            turns.drive(pin!(future)).await;
        });
    }
}

/// A stream of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    pool: Rc<HostPool>,
    connection: Rc<Http2>,
    reused: bool,
}

/// Makes a connection speak HTTP/2.
pub(super) async fn handshake(link: Link, place: Place, cluster: &Arc<Cluster>) -> Result<Http2, SendError> {
    cluster.stats.cx_http2_total.fetch_add(1, Relaxed);
    let local = link.local;
    let (io, turns) = gathered(Metered::new(link, cluster.stats.clone()));
    let io = TokioIo::new(io);
    let mut builder = http2::Builder::new(Spawner(Rc::new(Cell::new(Some(turns)))));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_BYTES);
    if let Some((interval, timeout)) = cluster.config.http.keepalive {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true);
    }
    let (sender, driver) = builder
        .handshake(io)
        .await
        .map_err(|error| failure::of(&error.into()))?;
    let driver = Rc::new(RefCell::new(Some(driver)));
    let driven = driver.clone();
    tokio::task::spawn_local(async move {
        let result = poll_fn(|cx| match &mut *driven.borrow_mut() {
            Some(driver) => Pin::new(driver).poll(cx),
            None => Poll::Ready(Ok(())),
        });
        let result = result.await;
        let ended = driven.borrow_mut().take();
        drop(ended);
        if let Err(error) = result {
            tracing::debug!(%error, "a host's connection broke");
        }
        drop(place);
    });
    let now = Instant::now();
    Ok(Http2 {
        sender,
        driver,
        local,
        opened: now,
        since: Cell::new(now),
        active: Cell::new(0),
        requests: Cell::new(0),
        leaving: Cell::new(false),
    })
}

impl Http2 {
    /// Whether it takes no requests any more.
    pub(super) fn is_closed(&self) -> bool {
        self.leaving.get() || self.sender.is_closed()
    }

    /// Whether it takes one more stream now.
    pub(super) fn has_room(&self, http: &UpstreamHttp) -> bool {
        // The driver is being polled: it takes whatever it gets, and another look comes soon.
        let max = |driver: &Option<Driver>| driver.as_ref().map(Driver::current_max_send_streams);
        let peer = self
            .driver
            .try_borrow()
            .ok()
            .and_then(|driver| max(&driver))
            .unwrap_or(usize::MAX);
        let configured = http.max_concurrent_streams.map_or(usize::MAX, |max| max as usize);
        self.active.get() < peer.min(configured).max(1)
    }

    /// Whether it has lived for too long or carried as many requests as it may.
    pub(super) fn is_over(&self, http: &UpstreamHttp, now: Instant) -> bool {
        let lived = now.saturating_duration_since(self.opened);
        http.max_connection_duration.is_some_and(|longest| lived >= longest)
            || http.max_requests.is_some_and(|max| self.requests.get() >= max)
    }

    /// Whether it has been unused for too long.
    pub(super) fn is_idle(&self, http: &UpstreamHttp, now: Instant) -> bool {
        let longer = |than: Duration| now.saturating_duration_since(self.since.get()) >= than;
        self.active.get() == 0 && http.idle_timeout.is_some_and(longer)
    }
}

impl Stream {
    pub(super) fn new(pool: &Rc<HostPool>, connection: Rc<Http2>) -> Self {
        connection.active.set(connection.active.get() + 1);
        let requests = connection.requests.get();
        connection.requests.set(requests.saturating_add(1));
        Self {
            pool: pool.clone(),
            connection,
            reused: requests > 0,
        }
    }

    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
        scheme: &'static str,
    ) -> Result<Response<Incoming>, Unanswered> {
        let (uri, host) = (request.uri().clone(), request.headers().get(HOST).cloned());
        complete(&mut request, scheme);
        let mut sender = self.connection.sender.clone();
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(Incoming::from)),
            Err(error) => {
                let mut error = Unanswered::from(error);
                if let Some(unsent) = &mut error.unsent {
                    // As it was, in case the next connection speaks HTTP/1.1.
                    *unsent.uri_mut() = uri;
                    *unsent.version_mut() = Version::HTTP_11;
                    if let Some(host) = host {
                        unsent.headers_mut().insert(HOST, host);
                    }
                    self.connection.leaving.set(true);
                }
                Err(error)
            }
        }
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.connection.local
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.active.set(connection.active.get() - 1);
        if connection.active.get() == 0 {
            connection.since.set(Instant::now());
        }
        self.pool.freed();
    }
}

/// Gives a request `:scheme` and `:authority`, which stands in `Host` until here.
fn complete(request: &mut Request<RequestBody>, scheme: &'static str) {
    *request.version_mut() = Version::HTTP_2;
    if request.method() == Method::CONNECT {
        request.headers_mut().remove(HOST);
        return;
    }
    let authority = request.headers().get(HOST);
    let Some(authority) = authority.and_then(|host| Authority::try_from(host.as_bytes()).ok()) else {
        // Without an authority, which HTTP/2 allows a proxy only for what came as HTTP/1.1.
        *request.version_mut() = Version::HTTP_11;
        return;
    };
    let mut parts = Parts::default();
    parts.scheme = Some(if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.headers_mut().remove(HOST);
    }
}
