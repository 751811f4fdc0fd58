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
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri, Version, request, uri};
use http_body::Body;

use super::failure;
use super::host_pool::{HostPool, Place};
use super::metered::Metered;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::http2::{KeepAlive, Pump, StreamBody, remove_what_is_not_in_http2, tunnel};
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

/// Whether no two requests have a header alike. In the compressor's table such a one would take the place of others, and
/// the next would be compared with all that are there: said to be sensitive, it does not get there.
fn is_new_each_time(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-request-id" | "traceparent" | "tracestate" | "b3" | "x-b3-traceid" | "x-b3-spanid" | "grpc-timeout"
    )
}

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
    let http = &cluster.config.http;
    let made = Builder::new()
        .initial_window_size(http.stream_window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(http.connection_window.unwrap_or(CONNECTION_WINDOW))
        .max_header_list_size(HEADER_BYTES)
        .max_local_error_reset_streams(Some(RESET_STREAMS))
        .enable_push(false)
        .handshake(io);
    let (sender, mut connection) = made.await.map_err(|error| failure::of(&error.into()))?;
    let keepalive = http.keepalive;
    let keepalive = keepalive.and_then(|times| Some(KeepAlive::new(connection.ping_pong()?, times, received)));
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
    pub(super) fn is_over(&self, http: &UpstreamHttp, now: Option<Instant>) -> bool {
        let lived = now.map(|now| now.saturating_duration_since(self.opened));
        http.max_connection_duration
            .is_some_and(|longest| lived >= Some(longest))
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

    /// Sends a request, which stays where it is if the connection does not take it, and waits for the headers of the answer.
    ///
    /// # Errors
    /// When there are none.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<RequestBody>>,
        scheme: &'static str,
    ) -> Result<Response<Incoming>, SendError> {
        let mut sender = self.connection.sender.clone();
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            self.connection.leaving.set(true);
            return Err(failure::of(&error.into()));
        }
        let Begun {
            mut response,
            mut pump,
            tunnel,
        } = begin(sender, request.take().unwrap_or_default(), scheme)?;
        let answered = poll_fn(|cx| {
            if pump.as_mut().is_some_and(|pump| pump.poll(cx).is_ready()) {
                pump = None;
            }
            Pin::new(&mut response).poll(cx)
        });
        let answered = answered.await.map_err(|error| failure::of(&error.into()))?;
        let (mut head, stream) = answered.into_parts();
        if let Some(protocol) = tunnel {
            tunnel::answered(&mut head, protocol);
        }
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

/// A request of which the headers are sent.
struct Begun {
    response: ResponseFuture,
    /// What sends the body, if there is one.
    pump: Option<Box<Pump<RequestBody>>>,
    /// The protocol that the request wants to go over to.
    tunnel: Option<HeaderValue>,
}

/// Sends the headers of a request.
fn begin(
    mut sender: SendRequest<Bytes>,
    request: Request<RequestBody>,
    scheme: &'static str,
) -> Result<Begun, SendError> {
    let (mut head, body) = request.into_parts();
    let tunnel = tunnel::ask(&mut head);
    let (head, ended) = (complete(head, &body, scheme), body.is_end_stream());
    let sent = sender.send_request(head, ended);
    let (response, stream) = sent.map_err(|error| failure::of(&error.into()))?;
    Ok(Begun {
        response,
        pump: (!ended).then(|| Box::new(Pump::new(stream, body))),
        tunnel,
    })
}

/// Gives a request `:scheme` and `:authority`, which stands in `Host` until here.
fn complete(mut head: request::Parts, body: &RequestBody, scheme: &'static str) -> Request<()> {
    head.version = Version::HTTP_2;
    remove_what_is_not_in_http2(&mut head.headers);
    let unique = head.headers.iter_mut().filter(|(name, _)| is_new_each_time(name));
    unique.for_each(|(_, value)| value.set_sensitive(true));
    let host = head.headers.remove(HOST);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        let header = head.headers.entry(CONTENT_LENGTH);
        header.or_insert_with(|| HeaderValue::from(length));
    }
    if head.method != Method::CONNECT || head.extensions.get::<Protocol>().is_some() {
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
