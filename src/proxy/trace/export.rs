//! Export of spans to a collector, by OTLP over gRPC or HTTP.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};
use http_body_util::BodyExt;

use super::Tracer;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::grpc::{GRPC_STATUS, framed};
use crate::proxy::slot::Slot;
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::pool::UpstreamTarget;
use crate::proxy::worker::Worker;
use crate::xds::otlp;

/// The size of a batch (Envoy's `tracing.opentelemetry.min_flush_spans`).
const BATCH: usize = 5;

/// How long spans wait for a full batch (`tracing.opentelemetry.flush_interval_ms`).
const INTERVAL: Duration = Duration::from_secs(5);

/// The default timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

const AGENT: HeaderValue = HeaderValue::from_static(concat!("OTel-OTLP-Exporter-Topsail/", env!("CARGO_PKG_VERSION")));

/// How the collector is reached.
#[derive(Debug)]
pub(crate) struct Exporter {
    /// Its cluster.
    pub(crate) cluster: Arc<Slot<Cluster>>,
    /// Whether by gRPC; otherwise by HTTP with protobuf.
    pub(crate) grpc: bool,
    /// `:authority`.
    pub(crate) authority: Box<str>,
    /// `:path`.
    pub(crate) path: PathAndQuery,
    /// Further headers.
    pub(crate) headers: HeaderMap,
    /// The timeout; `None`: ten seconds.
    pub(crate) timeout: Option<Duration>,
}

/// The spans waiting on a worker, by tracer.
#[derive(Debug, Default)]
pub(crate) struct Outboxes(RefCell<HashMap<usize, Rc<Outbox>>>);

/// The spans of one tracer waiting on a worker.
#[derive(Debug)]
struct Outbox {
    tracer: Arc<Tracer>,
    waiting: RefCell<Vec<otlp::Span>>,
    under_way: Cell<usize>,
    /// Whether the flush timer runs.
    timed: Cell<bool>,
}

impl Outboxes {
    /// The address identifies the tracer, which the outbox keeps alive.
    fn of(&self, tracer: &Arc<Tracer>) -> Rc<Outbox> {
        let new = || {
            Rc::new(Outbox {
                tracer: tracer.clone(),
                waiting: RefCell::default(),
                under_way: Cell::new(0),
                timed: Cell::new(false),
            })
        };
        let mut boxes = self.0.borrow_mut();
        boxes.entry(Arc::as_ptr(tracer).addr()).or_insert_with(new).clone()
    }

    /// Drops tracers that no listener uses.
    fn sweep(&self) {
        let mut boxes = self.0.borrow_mut();
        boxes.retain(|_, outbox| !outbox.is_empty() || Arc::strong_count(&outbox.tracer) > 1);
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty() && self.under_way.get() == 0
    }

    /// Adds spans, up to the limit.
    fn take(&self, spans: Vec<otlp::Span>) {
        let mut waiting = self.waiting.borrow_mut();
        let room = self
            .tracer
            .max_waiting
            .saturating_sub(waiting.len() + self.under_way.get());
        let dropped = spans.len().saturating_sub(room);
        waiting.extend(spans.into_iter().take(room));
        self.tracer.stats.dropped.fetch_add(dropped as u64, Relaxed);
    }
}

/// Queues finished spans for export.
pub(crate) fn hand_over(worker: &Rc<Worker>, tracer: &Arc<Tracer>, spans: Vec<otlp::Span>) {
    if spans.is_empty() {
        return;
    }
    let outbox = worker.outboxes.of(tracer);
    outbox.take(spans);
    if outbox.waiting.borrow().len() >= BATCH {
        flush(worker, &outbox);
    } else if !outbox.timed.replace(true) {
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(INTERVAL).await;
            outbox.timed.set(false);
            if !outbox.waiting.borrow().is_empty() {
                outbox.tracer.stats.timer_flushed.fetch_add(1, Relaxed);
                flush(&worker, &outbox);
            }
            worker.outboxes.sweep();
        });
    }
}

/// Sends what is waiting, in a task.
fn flush(worker: &Rc<Worker>, outbox: &Rc<Outbox>) {
    let spans = outbox.waiting.take();
    let count = spans.len();
    outbox.under_way.set(outbox.under_way.get() + count);
    let (worker, outbox) = (worker.clone(), outbox.clone());
    tokio::task::spawn_local(async move {
        let tracer = &outbox.tracer;
        let limit = tracer.exporter.timeout.unwrap_or(TIMEOUT);
        let sent = tokio::time::timeout(limit, send(&worker, tracer, spans)).await;
        let outcome = sent.unwrap_or_else(|_| Err("timed out".to_owned()));
        let stats = &tracer.stats;
        match outcome {
            Ok(()) => stats.sent.fetch_add(count as u64, Relaxed),
            Err(why) => {
                tracing::debug!(why, spans = count, "a collector does not accept spans");
                stats.dropped.fetch_add(count as u64, Relaxed)
            }
        };
        outbox.under_way.set(outbox.under_way.get() - count);
    });
}

/// Sends spans, and waits for the collector's response.
async fn send(worker: &Worker, tracer: &Tracer, spans: Vec<otlp::Span>) -> Result<(), String> {
    let exporter = &tracer.exporter;
    let cluster = exporter.cluster.load_full().ok_or("no such cluster")?;
    let host = cluster.choose(&Choice::default()).ok_or("no healthy upstream")?;
    let target = UpstreamTarget {
        cluster: &cluster,
        host: &host,
        downstream: if exporter.grpc {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        },
        alpn: None,
        authority: &exporter.authority,
        scheme: "http",
        high_priority: false,
        upgrade: false,
        source: None,
        passed_on: None,
        carried: None,
        route: None,
        meter: None,
        interims: None,
    };
    let message = otlp::encode(&tracer.resource, tracer.scope.as_ref(), spans);
    let mut request = Some(exporter.request(message));
    let sent = worker.pools.send_own(&target, &mut request);
    let (response, mut lease) = sent.await.map_err(|error| error.reason.to_string())?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    lease.finished();
    if !parts.status.is_success() {
        return Err(parts.status.to_string());
    }
    let grpc = body.trailers().unwrap_or(&parts.headers).get(GRPC_STATUS);
    match grpc.filter(|status| *status != "0") {
        Some(status) => Err(format!("gRPC status {}", String::from_utf8_lossy(status.as_bytes()))),
        None => Ok(()),
    }
}

impl Exporter {
    fn request(&self, message: Vec<u8>) -> Request<RequestBody> {
        let body = if self.grpc { framed(&message) } else { message.into() };
        let mut request = Request::new(RequestBody::Whole(Some(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        if let Ok(host) = HeaderValue::from_str(&self.authority) {
            headers.insert(HOST, host);
        }
        headers.insert(USER_AGENT, AGENT);
        if self.grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        }
        request
    }
}
