//! One connection pool: interchangeable connections to a host.
//!
//! ```text
//! request ── idle or shared connection ──> carried
//!    └── pending ── a connection becomes free, or is opened ──> carried
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{self, Arc};
use std::time::Instant;

use http::{Request, Response, Version};
use tokio::sync::oneshot;

use super::http1::Http1;
use super::http2::{self, Http2, Stream};
use super::{Protocol, UpstreamTarget};
use crate::proxy::connection::UpstreamInfo;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::tls::{Offer, TlsOverrides};
use crate::proxy::turn;
use crate::proxy::upstream::breaker::Permit;
use crate::proxy::upstream::cluster::{Cluster, UpstreamHttp};
use crate::proxy::upstream::connect::{self, FailureKind, MadeFor, SendError, Source};
use crate::proxy::upstream::host::Host;
use crate::proxy::upstream::proxy_protocol::Ends;

/// Concurrent streams assumed of an HTTP/2 connection before its SETTINGS are received.
const EXPECTED_STREAMS: usize = 100;

/// A connection pool.
#[derive(Debug)]
pub(super) struct HostPool {
    cluster: sync::Weak<Cluster>,
    host: Arc<Host>,
    alpn: Option<Arc<[Vec<u8>]>>,
    sni: Option<Box<str>>,
    source: Option<Source>,
    ends: Option<Rc<Ends>>,
    high_priority: bool,
    /// The HTTP version, as soon as it is known.
    protocol: Cell<Protocol>,
    /// Idle HTTP/1.1 connections, the last used last.
    idle: RefCell<Vec<Http1>>,
    /// HTTP/2 connections that may take streams.
    shared: RefCell<Vec<Rc<Http2>>>,
    /// Requests waiting for a connection.
    pending: RefCell<VecDeque<oneshot::Sender<Result<Carrier, SendError>>>>,
    /// Connections being opened.
    opening: Cell<usize>,
    /// Connections, with those being opened.
    open: Cell<usize>,
}

/// What carries one request: a connection or a stream.
#[derive(Debug)]
pub(super) enum Carrier {
    Http1(Http1),
    Http2(Stream),
}

/// A connection's place in its pool, until it closes.
#[derive(Debug)]
pub(super) struct Place(Weak<HostPool>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.closed();
        }
    }
}

impl HostPool {
    pub(super) fn new(
        target: &UpstreamTarget<'_>,
        protocol: Protocol,
        alpn: Option<&Arc<[Vec<u8>]>>,
        sni: Option<&str>,
        ends: Option<Rc<Ends>>,
    ) -> Self {
        Self {
            cluster: Arc::downgrade(target.cluster),
            host: target.host.clone(),
            alpn: alpn.cloned(),
            sni: sni.map(Box::from),
            source: target.source,
            ends,
            high_priority: target.high_priority,
            protocol: Cell::new(protocol),
            idle: RefCell::default(),
            shared: RefCell::default(),
            pending: RefCell::default(),
            opening: Cell::new(0),
            open: Cell::new(0),
        }
    }

    /// Whether its connections speak HTTP/1.1.
    pub(super) fn speaks_http1(&self) -> bool {
        self.protocol.get() == Protocol::Http1
    }

    /// Waits for a connection or stream. Cancel safe.
    pub(super) async fn acquire(self: &Rc<Self>, cluster: &Arc<Cluster>) -> Result<Carrier, SendError> {
        if let Some(carrier) = self.ready(cluster) {
            return Ok(carrier);
        }
        cluster.stats.rq_pending_total.fetch_add(1, Relaxed);
        let breaker = cluster.breakers.of(self.high_priority);
        let Some(_pending) = breaker.enter(|breaker| &breaker.pending) else {
            cluster.stats.rq_pending_overflow.fetch_add(1, Relaxed);
            return Err(SendError::new(FailureKind::Overflow, "too many pending requests"));
        };
        let (give, receive) = oneshot::channel();
        self.pending.borrow_mut().push_back(give);
        self.provide(cluster);
        match receive.await {
            Ok(result) => result,
            Err(_) => Err(SendError::new(FailureKind::Reset, "the pool was closed")),
        }
    }

    /// Opens a connection that is for one request only.
    pub(super) async fn connect_once(self: &Rc<Self>, cluster: &Arc<Cluster>) -> Result<Carrier, SendError> {
        let breaker = cluster.breakers.of(self.high_priority);
        let Some(permit) = breaker.enter(|breaker| &breaker.connections) else {
            cluster.stats.cx_overflow.fetch_add(1, Relaxed);
            return Err(SendError::new(FailureKind::Overflow, "too many connections"));
        };
        match self.connect(cluster, permit, self.place(), true).await? {
            New::Http1(connection) => Ok(Carrier::Http1(connection)),
            New::Http2(_) => Err(SendError::new(FailureKind::Protocol, "HTTP/1.1 is required")),
        }
    }

    /// An idle connection or free stream, if there is one.
    fn ready(self: &Rc<Self>, cluster: &Cluster) -> Option<Carrier> {
        let http = &cluster.config.http;
        if !self.idle.borrow().is_empty() {
            let now = turn::now().into_std();
            loop {
                // Not in the loop's condition, where the borrow would outlive it.
                let popped = self.idle.borrow_mut().pop();
                let Some(connection) = popped else { break };
                if connection.is_ready() && !connection.is_over(http, now) {
                    return Some(Carrier::Http1(connection));
                }
            }
        }
        self.ready_stream(http).map(Carrier::Http2)
    }

    /// A stream of a connection that has room.
    fn ready_stream(self: &Rc<Self>, http: &UpstreamHttp) -> Option<Stream> {
        // The time matters only if connections have a maximum age.
        let now = http.max_connection_duration.map(|_| Instant::now());
        let usable = |connection: &Rc<Http2>| !connection.is_closed() && !connection.is_over(http, now);
        let mut shared = self.shared.borrow_mut();
        let over = match shared.iter().all(usable) {
            true => Vec::new(),
            false => shared.extract_if(.., |connection| !usable(connection)).collect(),
        };
        let found = shared.iter().rev().find(|connection| connection.has_room(http));
        let found = found.cloned();
        // Closing connections must not meet the borrow.
        drop(shared);
        drop::<Vec<_>>(over);
        found.map(|connection| Stream::new(self, connection))
    }

    /// Opens connections for waiting requests, as far as circuit breakers allow.
    fn provide(self: &Rc<Self>, cluster: &Arc<Cluster>) {
        let breaker = cluster.breakers.of(self.high_priority);
        loop {
            self.pending.borrow_mut().retain(|waiting| !waiting.is_closed());
            let expected = match self.protocol.get() {
                Protocol::Http1 => 1,
                Protocol::Http2 | Protocol::Either => {
                    let configured = cluster.config.http.max_concurrent_streams;
                    EXPECTED_STREAMS.min(configured.unwrap_or(u32::MAX).max(1) as usize)
                }
            };
            if self.pending.borrow().len() <= self.opening.get() * expected {
                return;
            }
            let permit = match breaker.enter(|breaker| &breaker.connections) {
                Some(permit) => permit,
                None => {
                    cluster.stats.cx_overflow.fetch_add(1, Relaxed);
                    // With no connection of its own that could become free, the pool opens one whatever the limit, as
                    // in Envoy.
                    if self.open.get() > 0 {
                        return;
                    }
                    breaker.enter_anyway(|breaker| &breaker.connections)
                }
            };
            self.open_one(cluster.clone(), permit);
        }
    }

    fn open_one(self: &Rc<Self>, cluster: Arc<Cluster>, permit: Permit) {
        self.opening.set(self.opening.get() + 1);
        let (pool, place) = (self.clone(), self.place());
        // The connection outlives the request that it is opened for.
        let connecting = async move {
            let result = pool.connect(&cluster, permit, place, false).await;
            pool.opening.set(pool.opening.get() - 1);
            match result {
                Ok(New::Http1(connection)) => {
                    pool.protocol.set(Protocol::Http1);
                    pool.take(connection);
                }
                Ok(New::Http2(connection)) => {
                    pool.protocol.set(Protocol::Http2);
                    pool.shared.borrow_mut().push(connection);
                }
                Err(error) => return pool.refuse(&error),
            }
            pool.serve(&cluster);
            pool.provide(&cluster);
        };
        tokio::task::spawn_local(connecting);
    }

    /// What connections are made for.
    fn made_for(&self) -> MadeFor<'_> {
        MadeFor {
            source: self.source,
            ends: self.ends.as_deref(),
        }
    }

    /// Counts a new connection.
    fn place(self: &Rc<Self>) -> Place {
        self.open.set(self.open.get() + 1);
        Place(Rc::downgrade(self))
    }

    async fn connect(
        self: &Rc<Self>,
        cluster: &Arc<Cluster>,
        permit: Permit,
        place: Place,
        once: bool,
    ) -> Result<New, SendError> {
        let overrides = TlsOverrides {
            sni: self.sni.as_deref(),
            alpn: self.alpn.as_deref(),
            offer: match self.protocol.get() {
                Protocol::Http1 => Offer::Http1,
                Protocol::Http2 => Offer::Http2,
                Protocol::Either => Offer::Either,
            },
        };
        let link = connect::connect_with(cluster, &self.host, overrides, self.made_for(), permit).await?;
        let speaks_http2 = match self.protocol.get() {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Either => link.alpn.as_deref() == Some(b"h2"),
        };
        if speaks_http2 && !once {
            return Ok(New::Http2(Rc::new(http2::begin(link, place, cluster))));
        }
        let home = (!once).then(|| Rc::downgrade(self));
        Ok(New::Http1(Http1::new(link, place, home, cluster)))
    }

    /// Gives an idle connection to the first waiting request, or keeps it.
    pub(super) fn take(self: &Rc<Self>, connection: Http1) {
        let gone = self.cluster.strong_count() == 0 || self.host.state.removed.load(Relaxed);
        match self.next_pending() {
            // The receiver exists: it was not closed when it was popped, and runs on this thread.
            Some(waiting) => drop(waiting.send(Ok(Carrier::Http1(connection)))),
            None if gone => drop(connection),
            None => self.idle.borrow_mut().push(connection),
        }
    }

    /// Gives free streams to waiting requests.
    fn serve(self: &Rc<Self>, cluster: &Cluster) {
        while !self.pending.borrow().is_empty() {
            let Some(carrier) = self.ready(cluster) else {
                return;
            };
            match self.next_pending() {
                Some(waiting) => drop(waiting.send(Ok(carrier))),
                None => return carrier.unused(),
            }
        }
    }

    /// The first waiting request that was not abandoned.
    fn next_pending(&self) -> Option<oneshot::Sender<Result<Carrier, SendError>>> {
        let mut pending = self.pending.borrow_mut();
        loop {
            let waiting = pending.pop_front()?;
            if !waiting.is_closed() {
                return Some(waiting);
            }
        }
    }

    /// Connecting failed: as in Envoy, all waiting requests fail, rather than wait longer.
    fn refuse(&self, error: &SendError) {
        let pending = std::mem::take(&mut *self.pending.borrow_mut());
        let cluster = self.cluster.upgrade();
        for waiting in pending {
            if let Some(cluster) = &cluster {
                cluster.stats.rq_pending_failure.fetch_add(1, Relaxed);
            }
            // It may have been abandoned.
            let _ = waiting.send(Err(error.clone()));
        }
    }

    /// A stream has ended.
    pub(super) fn freed(self: &Rc<Self>) {
        if !self.pending.borrow().is_empty()
            && let Some(cluster) = self.cluster.upgrade()
        {
            self.serve(&cluster);
            self.provide(&cluster);
        }
    }

    /// A connection has closed.
    fn closed(self: &Rc<Self>) {
        self.open.set(self.open.get() - 1);
        if !self.pending.borrow().is_empty()
            && let Some(cluster) = self.cluster.upgrade()
        {
            self.provide(&cluster);
        }
    }

    /// Closes connections that have been idle too long, are too old, or lead to a removed host.
    pub(super) fn sweep(&self, now: Instant) {
        let cluster = self.cluster.upgrade();
        let cluster = cluster.filter(|_| !self.host.state.removed.load(Relaxed));
        let http = cluster.as_ref().map(|cluster| &cluster.config.http);
        let mut over1 = Vec::new();
        let mut over2 = Vec::new();
        let mut idle = self.idle.borrow_mut();
        for connection in std::mem::take(&mut *idle) {
            let stays = http.is_some_and(|http| connection.is_ready() && !connection.is_over(http, now));
            if stays {
                idle.push(connection)
            } else {
                over1.push(connection)
            }
        }
        let mut shared = self.shared.borrow_mut();
        for connection in std::mem::take(&mut *shared) {
            let stays = http.is_some_and(|http| {
                !connection.is_closed() && !connection.is_over(http, Some(now)) && !connection.is_idle(http, now)
            });
            if stays {
                shared.push(connection)
            } else {
                over2.push(connection)
            }
        }
        // Closing connections must not meet the borrows.
        drop((idle, shared));
        drop((over1, over2));
    }

    /// Whether it has no connections or requests left.
    pub(super) fn is_empty(&self) -> bool {
        self.open.get() == 0 && self.pending.borrow().is_empty()
    }
}

/// A newly opened connection.
enum New {
    Http1(Http1),
    Http2(Rc<Http2>),
}

impl Carrier {
    /// Sends a request and waits for the response headers.
    pub(super) async fn send(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        target: &UpstreamTarget<'_>,
    ) -> Result<Response<Incoming>, SendError> {
        match self {
            Carrier::Http1(connection) => connection.send(request, target.interims, target.meter).await,
            Carrier::Http2(stream) => stream.send(request, target.scheme, target.interims, target.meter).await,
        }
    }

    /// Whether the connection has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Carrier::Http1(connection) => connection.is_reused(),
            Carrier::Http2(stream) => stream.is_reused(),
        }
    }

    /// Our end of it, for access logs.
    pub(super) fn carried(&self) -> UpstreamInfo {
        let (near, protocol) = match self {
            Carrier::Http1(connection) => (&connection.near, Version::HTTP_11),
            Carrier::Http2(stream) => (stream.near(), Version::HTTP_2),
        };
        UpstreamInfo {
            near: near.clone(),
            protocol: Some(protocol),
        }
    }

    /// Returns it unused.
    pub(super) fn unused(self) {
        if let Carrier::Http1(connection) = self {
            connection.give_back();
        }
    }
}
