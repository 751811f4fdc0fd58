//! A downstream HTTP connection: its life from the first byte to its end, its statistics, and the choice of the codec.

mod ending;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderValue, Version};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::deadlines::Timer;
use super::filter::health_check;
use super::{Codec, HttpManager, HttpStats, http1, http2};
use crate::proxy::connection::Connection;
use crate::proxy::io::Io;
use crate::proxy::io::metered::{ByteStats, Counts, Metered};
use crate::proxy::listener::FilterChain;
use crate::proxy::turn;
use crate::proxy::worker::Worker;
pub(crate) use ending::{DrainDeadlines, GracefulClose, Stage};
use ending::{ending, expired};

/// The client's HTTP/2 connection preface (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How early a stream reset counts as premature, and after how many requests their share matters: as in Envoy
/// (`overload.premature_reset_min_stream_lifetime_seconds`, `overload.premature_reset_total_stream_count`).
const PREMATURE: Duration = Duration::from_secs(1);
const MANY_REQUESTS: u32 = 500;

/// A downstream connection as the requests on it see it.
#[derive(Debug)]
pub(crate) struct Downstream {
    /// The worker that serves it.
    pub(crate) worker: Rc<Worker>,
    /// Addresses and TLS state.
    pub(crate) connection: Connection,
    /// The filter chain that was matched.
    pub(crate) chain: Arc<FilterChain>,
    /// The HTTP connection manager of that chain.
    pub(crate) manager: Arc<HttpManager>,
    /// Counts of the requests on it.
    pub(crate) usage: ConnectionUse,
    /// A timer that consecutive requests reuse.
    pub(super) timer: RefCell<Timer>,
    /// The client's element of `x-forwarded-client-cert`, made for the first request.
    pub(super) client_cert: OnceCell<Option<HeaderValue>>,
}

impl Downstream {
    /// For a connection that a filter chain accepted.
    pub(crate) fn new(
        worker: Rc<Worker>,
        connection: Connection,
        chain: Arc<FilterChain>,
        manager: Arc<HttpManager>,
    ) -> Self {
        Self {
            worker,
            connection,
            chain,
            manager,
            usage: ConnectionUse::default(),
            timer: RefCell::default(),
            client_cert: OnceCell::new(),
        }
    }

    /// Whether the connection is to close as soon as it can.
    pub(crate) fn is_ending(&self) -> bool {
        // As in Envoy, `/healthcheck/fail` drains connections, too.
        if health_check::FAILING.load(Relaxed) {
            self.wears_out();
        }
        self.chain.draining.has_begun() || self.usage.worn_out.get()
    }

    /// Counts a request in.
    pub(crate) fn request_begins(&self) {
        let requests = &self.usage;
        requests.active.set(requests.active.get() + 1);
        requests.total.set(requests.total.get().saturating_add(1));
        let most = self.manager.limits.requests_per_connection;
        if most.is_some_and(|most| requests.total.get() >= most) {
            self.wears_out();
        }
    }

    /// Lets the connection carry no further requests.
    fn wears_out(&self) {
        if !self.usage.worn_out.replace(true) {
            self.usage.notify.notify_one();
        }
    }

    /// Counts a request that the client reset after this time. A client that resets most of its requests early wants to
    /// keep us busy with work it does not wait for (rapid reset, CVE-2023-44487).
    pub(crate) fn request_abandoned(&self, after: Duration) {
        let (premature, total) = (&self.usage.premature, self.usage.total.get());
        premature.set(premature.get() + u32::from(after < PREMATURE));
        if total >= MANY_REQUESTS && premature.get() >= total / 2 {
            self.usage.abused.set(true);
        }
    }

    /// Counts a request that the client reset before it was looked at.
    pub(super) fn request_unseen(&self) {
        self.request_begins();
        self.request_abandoned(Duration::ZERO);
        self.request_ends();
    }

    /// Whether the client reset too many requests early.
    pub(super) fn is_abused(&self) -> bool {
        self.usage.abused.get()
    }

    /// Marks the idle connection as closed by us: the client may see that, and close its end, before we do.
    pub(super) fn connection_closes(&self) {
        self.usage.closed.set(true);
    }

    /// Notes whether there are requests on the connection as it ends.
    pub(super) fn connection_ends(&self) {
        self.usage.cut_off.set(self.usage.active.get() > 0);
    }

    /// Counts a request out.
    pub(crate) fn request_ends(&self) {
        self.usage.active.set(self.usage.active.get().saturating_sub(1));
        self.usage.since.set(turn::now());
    }
}

/// Requests on a connection, and what is known of its end.
#[derive(Debug)]
pub(crate) struct ConnectionUse {
    active: Cell<u32>,
    total: Cell<u32>,
    /// Requests that the client reset early.
    premature: Cell<u32>,
    /// Since when there has been no request.
    since: Cell<Instant>,
    /// Whether it takes no further requests.
    worn_out: Cell<bool>,
    notify: Notify,
    /// Whether the client reset too many requests early.
    abused: Cell<bool>,
    /// Whether there were requests when it ended.
    cut_off: Cell<bool>,
    /// Whether we closed it.
    closed: Cell<bool>,
}

impl Default for ConnectionUse {
    fn default() -> Self {
        Self {
            active: Cell::new(0),
            total: Cell::new(0),
            premature: Cell::new(0),
            since: Cell::new(Instant::now()),
            worn_out: Cell::new(false),
            notify: Notify::new(),
            abused: Cell::new(false),
            cut_off: Cell::new(false),
            closed: Cell::new(false),
        }
    }
}

impl ConnectionUse {
    /// Waits until there has been no request for this long.
    async fn idle(&self, limit: Duration) {
        loop {
            let since = if self.active.get() > 0 {
                Instant::now()
            } else {
                self.since.get()
            };
            if since.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(since + limit).await;
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(io: Io, downstream: Rc<Downstream>) {
    let io = Metered::new(io, Open::new(downstream.clone()));
    let mut ending = pin!(ending(&downstream));
    let mut ending = GracefulClose::of(ending.as_mut());
    let begun = tokio::select! {
        begun = begin(io, &downstream) => begun,
        // No request can be under way here.
        () = expired(&downstream) => return,
        () = poll_fn(|cx| ending.poll_begun(cx)) => return,
    };
    let (mut io, read, speaks_http2) = match begun {
        Ok(begun) => begun,
        Err(error) => return tracing::debug!(%error, "a client's connection failed before its first request"),
    };
    let broke = "a client's connection failed";
    if speaks_http2 {
        io.counts().speaks(Version::HTTP_2);
        if let Err(error) = http2::serve(io, read, &downstream, ending).await {
            tracing::debug!(%error, broke);
        }
    } else {
        io.counts().speaks(Version::HTTP_11);
        if let Err(error) = http1::server::serve(io, read, &downstream, ending).await {
            tracing::debug!(%error, broke);
        }
    }
}

/// Reads enough to know the version. Returns the connection, what was read, and whether it is HTTP/2.
async fn begin(mut io: Metered<Open>, downstream: &Downstream) -> io::Result<(Metered<Open>, BytesMut, bool)> {
    let mut read = BytesMut::new();
    let http2 = match downstream.manager.codec {
        Codec::Http1 => false,
        Codec::Http2 => true,
        Codec::Auto => loop {
            let len = read.len().min(PREFACE.len());
            if read[..len] != PREFACE[..len] {
                break false;
            }
            if len == PREFACE.len() {
                break true;
            }
            if io.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        },
    };
    Ok((io, read, http2))
}

/// Counts an open connection in the gauges until dropped.
#[derive(Debug)]
pub(crate) struct Open {
    downstream: Rc<Downstream>,
    since: Instant,
    /// Its version, once known.
    version: Option<Version>,
}

impl Open {
    fn new(downstream: Rc<Downstream>) -> Self {
        let (stats, secured) = (&downstream.manager.stats, downstream.connection.tls.is_some());
        stats.cx_total.fetch_add(1, Relaxed);
        stats.cx_ssl_total.fetch_add(secured.into(), Relaxed);
        let open = Self {
            downstream,
            since: Instant::now(),
            version: None,
        };
        for gauge in open.active() {
            gauge.fetch_add(1, Relaxed);
        }
        open
    }

    fn stats(&self) -> &HttpStats {
        &self.downstream.manager.stats
    }

    /// Sets the version.
    fn speaks(&mut self, version: Version) {
        self.version = Some(version);
        let stats = self.stats();
        let total = match version {
            Version::HTTP_2 => &stats.cx_http2_total,
            _ => &stats.cx_http1_total,
        };
        total.fetch_add(1, Relaxed);
        if let Some(gauge) = self.of_version() {
            gauge.fetch_add(1, Relaxed);
        }
    }

    /// The version's gauge.
    fn of_version(&self) -> Option<&AtomicU64> {
        let stats = self.stats();
        self.version.map(|version| match version {
            Version::HTTP_2 => &stats.cx_http2_active,
            _ => &stats.cx_http1_active,
        })
    }

    /// All gauges in which it counts.
    fn active(&self) -> impl Iterator<Item = &AtomicU64> {
        let stats = self.stats();
        let secured = self.downstream.connection.tls.as_ref().map(|_| &stats.cx_ssl_active);
        std::iter::once(&stats.cx_active)
            .chain(secured)
            .chain(self.of_version())
    }
}

impl Counts for Open {
    fn bytes(&self) -> &ByteStats {
        &self.stats().bytes
    }

    fn closed(&mut self, by_peer: bool) {
        for gauge in self.active() {
            gauge.fetch_sub(1, Relaxed);
        }
        let (stats, usage) = (self.stats(), &self.downstream.usage);
        let by_peer = by_peer && !usage.closed.get();
        stats.cx_destroy.count(by_peer);
        if usage.cut_off.get() {
            stats.cx_destroy_active_rq.count(by_peer);
        }
        stats.cx_length.record(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::proxy::listener::accept::Listening;
    use crate::proxy::store::Store;
    use crate::proxy::worker::Command;
    use crate::xds::transcode::to_wire;

    #[test]
    fn a_request_on_a_listener_that_is_gone_is_cut_off_at_the_end_of_the_drain_time() {
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut store, now) = (Store::default(), Instant::now());
        let cluster = json!({
            "name": "c", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                {"socket_address": {"address": "127.0.0.1", "port_value": host.local_addr().unwrap().port()}}}}]}]},
        });
        let wire = |name: &str, json: &serde_json::Value| bytes::Bytes::from(to_wire(name, json).unwrap());
        let bytes = wire("envoy.config.cluster.v3.Cluster", &cluster);
        store.put_cluster(bytes, true, now).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let bytes = wire(
            "envoy.config.listener.v3.Listener",
            &json!({
                "name": "l",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": address.port()}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "h",
                        "drain_timeout": "0.01s",
                        "http_filters": [{
                            "name": "envoy.filters.http.router",
                            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                        }],
                        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                            {"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "0s"}},
                        ]}]},
                    },
                }]}],
            }),
        );
        let compiled = store.listener(None, &bytes).unwrap().unwrap();
        store.put_listener(compiled, bytes, false, now);
        store.settle(now);
        let drain_time = Duration::from_millis(100);
        let worker = Worker::start(0, store.published(), None, drain_time).unwrap();
        socket.set_nonblocking(true).unwrap();
        worker
            .commands
            .send(Command::Listen("l".into(), vec![Listening::Tcp(Arc::new(socket))]))
            .unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        // The host has the request, and never answers it.
        let (mut waits, _) = host.accept().unwrap();
        assert!(waits.read(&mut [0; 64]).unwrap() > 0);
        let begun = Instant::now();
        assert!(store.remove_listener("l"));
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        assert!(begun.elapsed() >= drain_time);
    }
}
