//! Upstream HTTP/2 connections in a pool.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Request, Response};

use super::failure;
use super::host_pool::{HostPool, Place};
use crate::proxy::connection::LocalEnd;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::http2::{self, Client, ClientDriver};
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter::Meter;
use crate::proxy::io::metered::Metered;
use crate::proxy::upstream::cluster::{Cluster, UpstreamHttp};
use crate::proxy::upstream::connect::{Link, Open, SendError};

/// Receive window of a stream by default.
const STREAM_WINDOW: u32 = 256 << 10;

/// Receive window of a connection by default: large enough that a hundred unread streams do not block the others.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// A connection with concurrent streams. When this is dropped, it closes once they have ended.
#[derive(Debug)]
pub(super) struct Http2 {
    client: Client,
    near: LocalEnd,
    opened: Instant,
    since: Cell<Instant>,
    active: Cell<usize>,
    requests: Cell<u32>,
}

/// A stream of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    pool: Rc<HostPool>,
    connection: Rc<Http2>,
    reused: bool,
}

/// Starts HTTP/2 on a connection.
pub(super) fn begin(link: Link, place: Place, cluster: &Arc<Cluster>) -> Http2 {
    cluster.stats.cx_http2_total.fetch_add(1, Relaxed);
    let near = link.near.clone();
    let io = Metered::new(link.io, link.open);
    let http = &cluster.config.http;
    let (client, driver) = http2::begin(
        io,
        http.stream_window.unwrap_or(STREAM_WINDOW),
        http.connection_window.unwrap_or(CONNECTION_WINDOW),
        http.keepalive,
    );
    tokio::task::spawn_local(drive(driver, place));
    let now = Instant::now();
    Http2 {
        client,
        near,
        opened: now,
        since: Cell::new(now),
        active: Cell::new(0),
        requests: Cell::new(0),
    }
}

async fn drive(driver: ClientDriver<Metered<Open>>, place: Place) {
    if let Err(error) = driver.run().await {
        tracing::debug!(%error, "a host's connection failed");
    }
    // All streams have learnt of the end before the pool does.
    drop(place);
}

impl Http2 {
    /// Whether it takes no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether it can take another stream now.
    pub(super) fn has_room(&self, http: &UpstreamHttp) -> bool {
        let configured = http.max_concurrent_streams.map_or(usize::MAX, |max| max as usize);
        self.active.get() < self.client.room().min(configured).max(1)
    }

    /// Whether it is too old or has carried as many requests as it may.
    pub(super) fn is_over(&self, http: &UpstreamHttp, now: Option<Instant>) -> bool {
        let lived = now.map(|now| now.saturating_duration_since(self.opened));
        http.max_connection_duration
            .is_some_and(|longest| lived >= Some(longest))
            || http.max_requests.is_some_and(|max| self.requests.get() >= max)
    }

    /// Whether it has been idle too long.
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

    /// Sends a request and waits for the response headers. A request that the connection does not take stays in
    /// `request`.
    ///
    /// # Errors
    /// If there is no response.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<RequestBody>>,
        scheme: &'static str,
        interims: Option<&Interims>,
        meter: Option<&Rc<Meter>>,
    ) -> Result<Response<Incoming>, SendError> {
        let client = &self.connection.client;
        let failed = |error: http2::Error| failure::of(&error.into());
        client.ready().await.map_err(failed)?;
        let sent = client
            .send(request.take().unwrap_or_default(), scheme, meter.cloned())
            .map_err(failed)?;
        let answer = sent.answer(interims).await.map_err(failed)?;
        Ok(answer.map(Incoming::Http2))
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn near(&self) -> &LocalEnd {
        &self.connection.near
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
