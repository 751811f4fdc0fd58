//! One HTTP connection of a client.

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
pub(crate) use ending::{Ending, Farewell, Stage};
use ending::{ending, spent};

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How soon a request is given up that was never meant to be answered, and how many requests make it worth a look: as in
/// Envoy (`overload.premature_reset_min_stream_lifetime_seconds`, `overload.premature_reset_total_stream_count`).
const PREMATURE: Duration = Duration::from_secs(1);
const MANY_REQUESTS: u32 = 500;

/// A client's connection, for the requests on it.
#[derive(Debug)]
pub(crate) struct Downstream {
    /// The worker it lives on.
    pub(crate) worker: Rc<Worker>,
    /// What is known of it.
    pub(crate) connection: Connection,
    /// The chain that took it.
    pub(crate) chain: Arc<FilterChain>,
    /// What is done with its requests.
    pub(crate) manager: Arc<HttpManager>,
    /// The requests on it.
    pub(crate) usage: Use,
    /// A timer for the next request.
    pub(super) timer: RefCell<Timer>,
    /// What hosts are told of the client's certificate, the same for all requests: made for the first.
    pub(super) client_cert: OnceCell<Option<HeaderValue>>,
}

impl Downstream {
    /// A connection that a chain has taken.
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
            usage: Use::default(),
            timer: RefCell::default(),
            client_cert: OnceCell::new(),
        }
    }

    /// Whether the connection is to end as soon as it can.
    pub(crate) fn is_ending(&self) -> bool {
        // Whose health checks fail on purpose is to be left, too.
        if health_check::FAILING.load(Relaxed) {
            self.wears_out();
        }
        self.chain.draining.has_begun() || self.usage.worn_out.get()
    }

    /// A request begins.
    pub(crate) fn request_begins(&self) {
        let requests = &self.usage;
        requests.active.set(requests.active.get() + 1);
        requests.total.set(requests.total.get().saturating_add(1));
        let most = self.manager.limits.requests_per_connection;
        if most.is_some_and(|most| requests.total.get() >= most) {
            self.wears_out();
        }
    }

    /// The connection is to carry no more.
    fn wears_out(&self) {
        if !self.usage.worn_out.replace(true) {
            self.usage.notify.notify_one();
        }
    }

    /// The client gave it up so long after its beginning. Clients that do so with most of their requests want to keep us
    /// busy with what they need not wait for (CVE-2023-44487).
    pub(crate) fn request_abandoned(&self, after: Duration) {
        let (premature, total) = (&self.usage.premature, self.usage.total.get());
        premature.set(premature.get() + u32::from(after < PREMATURE));
        if total >= MANY_REQUESTS && premature.get() >= total / 2 {
            self.usage.abused.set(true);
        }
    }

    /// A request has come that the client gave up before anybody looked at it.
    pub(super) fn request_unseen(&self) {
        self.request_begins();
        self.request_abandoned(Duration::ZERO);
        self.request_ends();
    }

    /// Whether the client has given up too many.
    pub(super) fn is_abused(&self) -> bool {
        self.usage.abused.get()
    }

    /// The connection, which is not used, is closed. The client may see that before we see that it closes it, too.
    pub(super) fn connection_closes(&self) {
        self.usage.closed.set(true);
    }

    /// The connection ends, whatever becomes of the requests on it.
    pub(super) fn connection_ends(&self) {
        self.usage.cut_off.set(self.usage.active.get() > 0);
    }

    /// It is over.
    pub(crate) fn request_ends(&self) {
        self.usage.active.set(self.usage.active.get().saturating_sub(1));
        self.usage.since.set(turn::now());
    }
}

/// What is made of a connection.
#[derive(Debug)]
pub(crate) struct Use {
    active: Cell<u32>,
    total: Cell<u32>,
    /// How many the client gave up soon.
    premature: Cell<u32>,
    /// Since when there is no request, if there is none.
    since: Cell<Instant>,
    /// Whether it is to carry no more.
    worn_out: Cell<bool>,
    notify: Notify,
    /// Whether the client wants us no good.
    abused: Cell<bool>,
    /// Whether there were requests on it when it ended.
    cut_off: Cell<bool>,
    /// Whether we close it without a word that the client could have understood before.
    closed: Cell<bool>,
}

impl Default for Use {
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

impl Use {
    /// Waits until there has been no request for so long.
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
    let mut ending = Ending::of(ending.as_mut());
    let begun = tokio::select! {
        begun = begin(io, &downstream) => begun,
        // Nothing can be on its way.
        () = spent(&downstream) => return,
        () = poll_fn(|cx| ending.poll_begun(cx)) => return,
    };
    let (mut io, read, speaks_http2) = match begun {
        Ok(begun) => begun,
        Err(error) => return tracing::debug!(%error, "a client's connection broke before its first request"),
    };
    let broke = "a client's connection broke";
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

/// Waits for as much of a connection as it takes to know the version: the connection, what has come of it, and whether it
/// is HTTP/2.
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

/// A connection in the statistics.
#[derive(Debug)]
pub(crate) struct Open {
    downstream: Rc<Downstream>,
    since: Instant,
    /// What it speaks, once that is known.
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

    /// It speaks this version.
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

    /// The gauges of the version that it speaks.
    fn of_version(&self) -> Option<&AtomicU64> {
        let stats = self.stats();
        self.version.map(|version| match version {
            Version::HTTP_2 => &stats.cx_http2_active,
            _ => &stats.cx_http1_active,
        })
    }

    /// The gauges in which it counts.
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
