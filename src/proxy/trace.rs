//! Tracing: which requests are traced, the contents of spans, and their export.
//!
//! This follows Envoy's OpenTelemetry tracer (`envoy.tracers.opentelemetry`). A request's span starts before the
//! filters and ends with the response. Spans are gathered on their worker and exported in batches by a task, so that no
//! request waits for a collector.

pub(crate) mod context;
pub(crate) mod decision;
pub(crate) mod export;
pub(crate) mod sampler;
pub(crate) mod span;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::HeaderName;

use super::format::{Format, Need};
use crate::xds::otlp;
use decision::Sampling;
use export::Exporter;
use sampler::Sampler;

/// Tracing configuration of a connection manager (`HttpConnectionManager.Tracing`).
#[derive(Debug)]
pub(crate) struct Tracing {
    /// Sampling rates.
    pub(crate) sampling: Sampling,
    /// Custom tags, with distinct names.
    pub(crate) tags: Vec<Tag>,
    /// `max_path_tag_length`, in bytes.
    pub(crate) max_path: usize,
    /// Whether the listener is outbound, so that spans have the kind client.
    pub(crate) egress: bool,
    /// `spawn_upstream_span`: whether the proxy is a separate hop in the trace, so that spans have the kind server.
    pub(crate) own_hop: bool,
    /// Whether each attempt has a span of its own.
    pub(crate) upstream_spans: bool,
    /// The operation name of spans, if configured.
    pub(crate) operation: Option<Format>,
    /// The operation name of attempts' spans, if configured.
    pub(crate) upstream_operation: Option<Format>,
    /// Whether trace context is propagated to hosts.
    pub(crate) propagate: bool,
    /// The tracer; `None`: no spans are made.
    pub(crate) tracer: Option<Arc<Tracer>>,
}

impl Tracing {
    /// Whether tags refer to request headers.
    pub(crate) fn asks_for_request_headers(&self) -> bool {
        let formats = [&self.operation, &self.upstream_operation];
        formats
            .into_iter()
            .flatten()
            .any(|format| format.asks_for(Need::RequestHeaders))
            || self.tags.iter().any(|tag| match &tag.value {
                TagValue::Fixed(_) => false,
                TagValue::Header(..) => true,
                TagValue::Format(format) => format.asks_for(Need::RequestHeaders),
            })
    }
}

/// A custom tag (`CustomTag`).
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its value.
    pub(crate) value: TagValue,
}

/// The value of a tag; empty ones are omitted.
#[derive(Clone, Debug)]
pub(crate) enum TagValue {
    /// A literal.
    Fixed(Arc<str>),
    /// A request header, or a default.
    Header(HeaderName, Arc<str>),
    /// A format string.
    Format(Format),
}

/// Tracing configuration of a route (`Route.tracing`, `Route.decorator`).
#[derive(Debug, Default)]
pub(crate) struct RouteTracing {
    /// Sampling rates, instead of the connection manager's.
    pub(crate) sampling: Option<Sampling>,
    /// Custom tags, which override the connection manager's.
    pub(crate) tags: Vec<Tag>,
    /// The operation name of spans, which overrides the connection manager's.
    pub(crate) operation: Option<Format>,
    /// The operation name of attempts' spans.
    pub(crate) upstream_operation: Option<Format>,
    /// `decorator.operation`; empty if unset.
    pub(crate) decorator: Arc<str>,
    /// `decorator.propagate`: whether the operation is told to the other side.
    pub(crate) propagate: bool,
}

/// An OpenTelemetry tracer (`OpenTelemetryConfig`), shared by connection managers with the same configuration.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// The configured sampler; `None`: the parent's decision is followed.
    pub(crate) sampler: Option<Sampler>,
    /// The exporter.
    pub(crate) exporter: Exporter,
    /// Resource attributes.
    pub(crate) resource: Vec<otlp::Attribute>,
    /// The instrumentation scope, if it is sent.
    pub(crate) scope: Option<otlp::Scope>,
    /// `node_id` and `zone` attributes of every span.
    pub(crate) node: NodeNames,
    /// How many spans may wait on a worker; more are dropped.
    pub(crate) max_waiting: usize,
    /// What is counted.
    pub(crate) stats: Arc<TracerStats>,
}

/// The node, from the bootstrap.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeNames {
    /// `node.id`.
    pub(crate) id: Arc<str>,
    /// `node.cluster`.
    pub(crate) cluster: Arc<str>,
    /// `node.locality.zone`.
    pub(crate) zone: Arc<str>,
}

/// Statistics shared by all tracers: `tracing.opentelemetry.`
#[derive(Debug, Default)]
pub(crate) struct TracerStats {
    /// `spans_sent`.
    pub(crate) sent: AtomicU64,
    /// `spans_dropped`: too many were waiting, or the collector refused them.
    pub(crate) dropped: AtomicU64,
    /// `timer_flushed`: batches sent by the timer.
    pub(crate) timer_flushed: AtomicU64,
}

/// All tracers, by their configuration.
#[derive(Debug, Default)]
pub(crate) struct Tracers {
    by_content: HashMap<Vec<u8>, Arc<Tracer>>,
    stats: Arc<TracerStats>,
}

impl Tracers {
    /// The tracer for a configuration; made if there is none.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn of<E>(
        &mut self,
        content: &[u8],
        make: impl FnOnce(Arc<TracerStats>) -> Result<Tracer, E>,
    ) -> Result<Arc<Tracer>, E> {
        if let Some(tracer) = self.by_content.get(content) {
            return Ok(tracer.clone());
        }
        let tracer = Arc::new(make(self.stats.clone())?);
        self.by_content.insert(content.to_vec(), tracer.clone());
        Ok(tracer)
    }

    /// Drops tracers that nothing uses.
    pub(crate) fn sweep(&mut self) {
        self.by_content.retain(|_, tracer| Arc::strong_count(tracer) > 1);
    }
}
