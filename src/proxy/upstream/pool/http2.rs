//! HTTP/2 connections to hosts.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri, Version, request, uri};
use http_body::Body;

use super::failure::{self, Unanswered};
use super::host_pool::{HostPool, Place};
use super::metered::Metered;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::http2::{KeepAlive, Pump, StreamBody, remove_what_is_not_in_http2};
use crate::proxy::io::gather::{Gathered, Turns, gathered};
use crate::proxy::upstream::cluster::{Cluster, UpstreamHttp};
use crate::proxy::upstream::connect::{Link, SendError};

/// What a stream may have on its way to us.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same for a connection: so much that a hundred streams which nobody reads do not hold up the others.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// Envoy's limit of headers.
const HEADER_BYTES: u32 = 60 << 10;

/// Streams that we reset for what the host did wrong, before the connection ends.
const RESET_STREAMS: usize = 1024;

/// A connection, which carries many requests at the same time. It closes when this is dropped, once they have ended.
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    local: Option<SocketAddr>,
    opened: Instant,
    since: Cell<Instant>,
    active: Cell<usize>,
    requests: Cell<u32>,
    /// It did not take a request: it is going away.
    leaving: Cell<bool>,
}

/// What the task that drives a connection tells of it.
#[derive(Debug, Default)]
struct State {
    ended: Cell<bool>,
    /// Streams that the host takes at the same time; none: it has not been asked yet.
    room: Cell<Option<usize>>,
}

/// Reads and writes.
struct Driver {
    connection: Connection<Gathered<Metered>, Bytes>,
    keepalive: Option<KeepAlive>,
    state: Rc<State>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP/2 connection with {} streams", self.active.get())
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
    let received = turns.received();
    let made = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_BYTES)
        .max_local_error_reset_streams(Some(RESET_STREAMS))
        .enable_push(false)
        .handshake(io);
    let (sender, mut connection) = made.await.map_err(|error| failure::of(&error.into()))?;
    let times = cluster.config.http.keepalive;
    let keepalive = times.and_then(|times| Some(KeepAlive::new(connection.ping_pong()?, times, received)));
    let state = Rc::new(State::default());
    let driver = Driver {
        connection,
        keepalive,
        state: state.clone(),
    };
    tokio::task::spawn_local(driver.run(turns, place));
    let now = Instant::now();
    Ok(Http2 {
        sender,
        state,
        local,
        opened: now,
        since: Cell::new(now),
        active: Cell::new(0),
        requests: Cell::new(0),
        leaving: Cell::new(false),
    })
}

impl Driver {
    async fn run(mut self, turns: Turns<Metered>, place: Place) {
        let driven = pin!(poll_fn(|cx| self.poll(cx)));
        if let Err(error) = turns.drive(driven).await {
            tracing::debug!(%error, "a host's connection broke");
        }
        self.state.ended.set(true);
        // Its streams learn of the end before the pool does.
        drop(self);
        drop(place);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.connection).poll(cx);
        self.state.room.set(Some(self.connection.max_concurrent_send_streams()));
        polled
    }
}

impl Http2 {
    /// Whether it takes no requests any more.
    pub(super) fn is_closed(&self) -> bool {
        self.leaving.get() || self.state.ended.get()
    }

    /// Whether it takes one more stream now.
    pub(super) fn has_room(&self, http: &UpstreamHttp) -> bool {
        let peer = self.state.room.get().unwrap_or(usize::MAX);
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
        request: Request<RequestBody>,
        scheme: &'static str,
    ) -> Result<Response<Incoming>, Unanswered> {
        let mut sender = self.connection.sender.clone();
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            self.connection.leaving.set(true);
            return Err(Unanswered {
                error: failure::of(&error.into()),
                unsent: Some(request),
            });
        }
        let (head, body) = request.into_parts();
        let (head, ended) = (complete(head, &body, scheme), body.is_end_stream());
        let (mut response, stream) = sender.send_request(head, ended).map_err(Unanswered::from)?;
        drop(sender);
        let mut pump = (!ended).then(|| Box::new(Pump::new(stream, body)));
        let answered = poll_fn(|cx| {
            if pump.as_mut().is_some_and(|pump| pump.poll(cx).is_ready()) {
                pump = None;
            }
            Pin::new(&mut response).poll(cx)
        });
        let (head, stream) = answered.await.map_err(Unanswered::from)?.into_parts();
        let body = Incoming::Http2(StreamBody::answer(stream, &head.headers, pump));
        Ok(Response::from_parts(head, body))
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
fn complete(mut head: request::Parts, body: &RequestBody, scheme: &'static str) -> Request<()> {
    head.version = Version::HTTP_2;
    remove_what_is_not_in_http2(&mut head.headers);
    let host = head.headers.remove(HOST);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        let header = head.headers.entry(CONTENT_LENGTH);
        header.or_insert_with(|| HeaderValue::from(length));
    }
    if head.method != Method::CONNECT {
        match host.and_then(|host| target(&host, &head.uri, scheme)) {
            Some(uri) => head.uri = uri,
            // Without an authority, which HTTP/2 allows a proxy only for what came as HTTP/1.1.
            None => head.version = Version::HTTP_11,
        }
    }
    Request::from_parts(head, ())
}

/// The whole of what a request is for.
fn target(host: &HeaderValue, uri: &Uri, scheme: &'static str) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    parts.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(parts).ok()
}
