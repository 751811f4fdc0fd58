//! One HTTP connection of a client.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;

use super::{Codec, HttpManager, HttpStats, exchange};
use crate::proxy::connection::Connection;
use crate::proxy::io::Io;
use crate::proxy::listener::FilterChain;
use crate::proxy::worker::Worker;

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
}

impl Downstream {
    /// Whether the connection is to end as soon as it can.
    pub(crate) fn is_ending(&self) -> bool {
        self.chain.draining.has_begun()
    }
}

/// Spawns tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(io: Io, downstream: Rc<Downstream>) {
    let manager = downstream.manager.clone();
    // Whoever holds a connection is told with the next answer on it; one that is not used ends after a while. Ended at
    // once, it could meet a request that is on its way.
    let (draining, grace) = (downstream.chain.draining.clone(), manager.limits.drain);
    let ending = async move {
        draining.wait().await;
        tokio::time::sleep(grace).await;
    };
    let _open = Open::new(manager.stats.clone());
    let (stats, used) = (manager.stats.clone(), Cell::new(false));
    let service = service_fn(move |request: Request<Incoming>| {
        if !used.replace(true) {
            count_version(&stats, request.version());
        }
        let downstream = downstream.clone();
        async move { Ok::<_, Infallible>(exchange::exchange(downstream, request).await) }
    });
    let builder = builder(&manager);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a client's connection broke");
    }
}

/// A connection in the statistics.
struct Open(Arc<HttpStats>);

impl Open {
    fn new(stats: Arc<HttpStats>) -> Self {
        stats.cx_total.fetch_add(1, Relaxed);
        stats.cx_active.fetch_add(1, Relaxed);
        Self(stats)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.cx_active.fetch_sub(1, Relaxed);
    }
}

fn count_version(stats: &HttpStats, version: Version) {
    let counter = match version {
        Version::HTTP_2 => &stats.cx_http2_total,
        _ => &stats.cx_http1_total,
    };
    counter.fetch_add(1, Relaxed);
}

fn builder(manager: &HttpManager) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_headers(manager.limits.header_count)
        .header_read_timeout(manager.limits.request_headers)
        .max_buf_size(manager.limits.header_bytes.max(8192));
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(manager.http2.max_concurrent_streams)
        .initial_stream_window_size(manager.http2.stream_window)
        .initial_connection_window_size(manager.http2.connection_window)
        .max_header_list_size(u32::try_from(manager.limits.header_bytes).unwrap_or(u32::MAX));
    if let Some((interval, timeout)) = manager.http2.keepalive {
        http2.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    if manager.http2.allow_connect {
        http2.enable_connect_protocol();
    }
    match manager.codec {
        Codec::Auto => builder,
        Codec::Http1 => builder.http1_only(),
        Codec::Http2 => builder.http2_only(),
    }
}
