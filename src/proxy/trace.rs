//! Tracing: which requests are traced, what their spans say, and how the spans reach a collector.
//!
//! Everything follows Envoy's OpenTelemetry tracer (`envoy.tracers.opentelemetry`). A request's span is begun before
//! the filters see it and ends with the response; spans wait on the worker that made them and are sent in batches by a
//! task of their own, so that no request waits for a collector.

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

/// What a connection manager says of tracing (`HttpConnectionManager.Tracing`).
#[derive(Debug)]
pub(crate) struct Tracing {
    /// Which requests are traced.
    pub(crate) sampling: Sampling,
    /// Tags beside the usual ones, each name once.
    pub(crate) tags: Vec<Tag>,
    /// How much of a path is told (`max_path_tag_length`), in bytes.
    pub(crate) max_path: usize,
    /// Whether the listener takes requests of the workload itself: spans are a client's.
    pub(crate) egress: bool,
    /// Whether the proxy is a hop of its own in the trace (`spawn_upstream_span`): spans are a server's.
    pub(crate) own_hop: bool,
    /// Whether every attempt has a span of its own.
    pub(crate) upstream_spans: bool,
    /// The name of spans, if it is not to be Envoy's.
    pub(crate) operation: Option<Format>,
    /// The name of attempts' spans, if it is not to be Envoy's.
    pub(crate) upstream_operation: Option<Format>,
    /// Whether hosts are told of the trace.
    pub(crate) propagate: bool,
    /// Who makes spans of it; none: nobody.
    pub(crate) tracer: Option<Arc<Tracer>>,
}

impl Tracing {
    /// Whether tags are made of the request's headers when it has ended.
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

/// A tag that the configuration adds (`CustomTag`).
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its value.
    pub(crate) value: TagValue,
}

/// The value of a tag. An empty one is left out.
#[derive(Clone, Debug)]
pub(crate) enum TagValue {
    /// The same always.
    Fixed(Arc<str>),
    /// A header of the request, or else this.
    Header(HeaderName, Arc<str>),
    /// A format string.
    Format(Format),
}

/// What a route says of tracing (`Route.tracing`, `Route.decorator`).
#[derive(Debug, Default)]
pub(crate) struct RouteTracing {
    /// Which requests are traced, if not as the connection manager says.
    pub(crate) sampling: Option<Sampling>,
    /// Tags beside those of the connection manager, whose place they take.
    pub(crate) tags: Vec<Tag>,
    /// The name of spans, on top of what the connection manager says.
    pub(crate) operation: Option<Format>,
    /// The same for attempts.
    pub(crate) upstream_operation: Option<Format>,
    /// `decorator.operation`; empty: none.
    pub(crate) decorator: Arc<str>,
    /// `decorator.propagate`: whether the other side is told it.
    pub(crate) propagate: bool,
}

/// An OpenTelemetry tracer (`OpenTelemetryConfig`). Connection managers that say the same share one.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// What decides beside the connection manager which traces are recorded; none: the client.
    pub(crate) sampler: Option<Sampler>,
    /// How the collector is reached.
    pub(crate) exporter: Exporter,
    /// What is known of this process.
    pub(crate) resource: Vec<otlp::Attribute>,
    /// Who makes the spans, if that is told.
    pub(crate) scope: Option<otlp::Scope>,
    /// `node_id` and `zone` of every span.
    pub(crate) node: NodeNames,
    /// Spans that may wait on a worker; further ones are dropped.
    pub(crate) max_waiting: usize,
    /// What is counted.
    pub(crate) stats: Arc<TracerStats>,
}

/// Who this proxy is, as the bootstrap says.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeNames {
    /// `node.id`.
    pub(crate) id: Arc<str>,
    /// `node.cluster`.
    pub(crate) cluster: Arc<str>,
    /// `node.locality.zone`.
    pub(crate) zone: Arc<str>,
}

/// What all tracers count together: `tracing.opentelemetry.`
#[derive(Debug, Default)]
pub(crate) struct TracerStats {
    /// `spans_sent`.
    pub(crate) sent: AtomicU64,
    /// `spans_dropped`: too many waited, or the collector did not take them.
    pub(crate) dropped: AtomicU64,
    /// `timer_flushed`: batches that were sent although they were small.
    pub(crate) timer_flushed: AtomicU64,
}

/// The tracers there are, by what their configuration says.
#[derive(Debug, Default)]
pub(crate) struct Tracers {
    by_content: HashMap<Vec<u8>, Arc<Tracer>>,
    stats: Arc<TracerStats>,
}

impl Tracers {
    /// The tracer of a configuration.
    ///
    /// # Errors
    /// When it cannot be made.
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

    /// Forgets tracers that nobody uses.
    pub(crate) fn sweep(&mut self) {
        self.by_content.retain(|_, tracer| Arc::strong_count(tracer) > 1);
    }
}
