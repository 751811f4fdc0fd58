//! The span of a request, and those of its attempts.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Response, Version, request};

use super::context::{TRACE_PARENT, TraceContext, trace_state};
use super::decision::Reason;
use super::{RouteTracing, Tag, TagValue, Tracer, Tracing};
use crate::proxy::connection::Connection;
use crate::proxy::flags::Flags;
use crate::proxy::format::{Context, Format, protocol_name};
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::host::Host;
use crate::xds::otlp::{self, Attribute, Kind, text};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const DOWNSTREAM_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const DECORATOR: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// A request at the start of its span.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    /// The request.
    pub(crate) request: &'a mut request::Parts,
    /// `:authority`.
    pub(crate) authority: &'a str,
    /// `:scheme`.
    pub(crate) scheme: &'a str,
    /// Whether it is gRPC.
    pub(crate) grpc: bool,
    /// The downstream connection.
    pub(crate) connection: &'a Connection,
    /// The time of the start.
    pub(crate) time: SystemTime,
    /// The route's tracing configuration.
    pub(crate) route: Option<Arc<RouteTracing>>,
}

/// The span of an active request.
#[derive(Debug)]
pub(crate) struct ActiveSpan {
    tracer: Arc<Tracer>,
    context: TraceContext,
    parent: Option<u64>,
    state: String,
    /// Empty if the span is not recorded.
    name: String,
    kind: Kind,
    begun: SystemTime,
    /// Attributes known at the start; empty if the span is not recorded.
    attributes: Vec<Attribute>,
    attempts: Vec<Attempt>,
    route: Option<Arc<RouteTracing>>,
    /// Whether the client is to be told the decorator's operation.
    told: bool,
}

/// An attempt with its own span.
#[derive(Debug)]
struct Attempt {
    id: u64,
    begun: SystemTime,
    /// The end, with the custom tags at that time; `None`: it ends with the request.
    ended: Option<(SystemTime, Vec<Attribute>)>,
    failure: Option<Failure>,
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    /// Earlier attempts.
    retries: u32,
    protocol: Option<Version>,
    status: u16,
}

/// Why an attempt has no complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The proxy cancelled it.
    Canceled,
    /// It was reset: response flags and reason.
    Reset(Flags, &'static str),
}

impl ActiveSpan {
    /// Starts a span and propagates it to the host. `None` if the client's `traceparent` is malformed: as in Envoy,
    /// such a request is forwarded as it is.
    pub(crate) fn begin(
        tracing: &Tracing,
        tracer: &Arc<Tracer>,
        reason: Reason,
        beginning: Beginning<'_>,
    ) -> Option<Self> {
        let headers = &beginning.request.headers;
        let (parent, state) = match headers.get(TRACE_PARENT) {
            Some(value) => (Some(TraceContext::parse(value.to_str().ok()?)?), trace_state(headers)),
            None => (None, String::new()),
        };
        let trace = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
        let sampled = parent.map(|parent| parent.sampled);
        let context = TraceContext {
            trace,
            span: fastrand::u64(1..),
            sampled: match &tracer.sampler {
                Some(sampler) => reason != Reason::NotTraceable && sampler.samples(trace, sampled),
                None => sampled.unwrap_or(reason != Reason::NotTraceable),
            },
        };
        let mut span = Self {
            tracer: tracer.clone(),
            context,
            parent: parent.map(|parent| parent.span),
            state,
            name: match tracing.egress {
                _ if !context.sampled => String::new(),
                true => format!("egress {}", beginning.authority),
                false => "ingress".to_owned(),
            },
            kind: match tracing.egress && !tracing.own_hop {
                true => Kind::Client,
                false => Kind::Server,
            },
            begun: beginning.time,
            attributes: Vec::new(),
            attempts: Vec::new(),
            route: beginning.route.clone(),
            told: false,
        };
        if context.sampled {
            span.attributes = attributes(tracing, tracer, &beginning);
        }
        span.decorate(tracing, &mut beginning.request.headers);
        if tracing.propagate && !tracing.upstream_spans {
            context.inject(&span.state, &mut beginning.request.headers);
        }
        Some(span)
    }

    /// The trace id.
    pub(crate) fn trace_id(&self) -> u128 {
        self.context.trace
    }

    /// Propagates to a mirrored request that it is not sampled.
    pub(crate) fn tell_unsampled(&self, tracing: &Tracing, headers: &mut HeaderMap) {
        let context = TraceContext {
            span: fastrand::u64(1..),
            sampled: false,
            ..self.context
        };
        if tracing.propagate {
            context.inject(&self.state, headers);
        }
    }

    /// Whether it is recorded.
    fn is_recorded(&self) -> bool {
        self.context.sampled
    }

    /// Names the span by the route's decorator. On egress the operation is sent to the host, whose proxy uses it for
    /// its span; on ingress an operation that was received takes precedence, and otherwise the response tells it.
    /// Nothing of that if the configuration sets operation names.
    fn decorate(&mut self, tracing: &Tracing, headers: &mut HeaderMap) {
        if self.operation(tracing).is_some() {
            return;
        }
        let route = self.route.clone().filter(|route| !route.decorator.is_empty());
        if let Some(route) = &route {
            self.rename(route.decorator.as_bytes());
        }
        let told = route.filter(|route| route.propagate);
        if tracing.egress {
            if let Some(Ok(name)) = told.map(|route| HeaderValue::from_str(&route.decorator)) {
                headers.insert(DECORATOR, name);
            }
            return;
        }
        self.told = told.is_some();
        if let Some(name) = headers.remove(DECORATOR).filter(|name| !name.is_empty()) {
            self.rename(name.as_bytes());
            self.told = false;
        }
    }

    fn rename(&mut self, name: &[u8]) {
        if self.is_recorded() {
            self.name = String::from_utf8_lossy(name).into_owned();
        }
    }

    /// The same for the response.
    pub(crate) fn answered(&mut self, tracing: &Tracing, headers: &mut HeaderMap) {
        if self.operation(tracing).is_some() {
            return;
        }
        if tracing.egress {
            if let Some(name) = headers.remove(DECORATOR).filter(|name| !name.is_empty()) {
                self.rename(name.as_bytes());
            }
        } else if let (true, Some(route)) = (self.told, &self.route)
            && let Ok(name) = HeaderValue::from_str(&route.decorator)
        {
            headers.insert(DECORATOR, name);
        }
    }

    /// Starts the span of an attempt and propagates it to the host.
    pub(crate) fn attempt(
        &mut self,
        tracing: &Tracing,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        retries: u32,
        headers: &mut HeaderMap,
    ) {
        let context = TraceContext {
            span: fastrand::u64(1..),
            ..self.context
        };
        if tracing.propagate {
            context.inject(&self.state, headers);
        }
        if !self.context.sampled {
            return;
        }
        self.attempts.push(Attempt {
            id: context.span,
            begun: SystemTime::now(),
            ended: None,
            failure: None,
            cluster: cluster.clone(),
            host: host.clone(),
            retries,
            protocol: None,
            status: 0,
        });
    }

    /// The current attempt has a response, with which its span ends.
    pub(crate) fn attempt_answered<B>(&mut self, response: &Response<B>) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.protocol = Some(response.version());
            attempt.status = response.status().as_u16();
        }
    }

    /// The current attempt ended without a complete response.
    pub(crate) fn attempt_over(&mut self, tracing: &Tracing, failure: Failure, context: &Context<'_>) {
        if self.attempts.last().is_none_or(|attempt| attempt.ended.is_some()) {
            return;
        }
        let ended = (SystemTime::now(), self.tags(tracing, context));
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.failure = Some(failure);
            attempt.ended = Some(ended);
        }
    }

    /// Ends the span and those of its attempts. Returns the tracer and the spans to export.
    pub(crate) fn end(mut self, tracing: &Tracing, context: &Context<'_>) -> (Arc<Tracer>, Vec<otlp::Span>) {
        if !self.context.sampled {
            return (self.tracer, Vec::new());
        }
        let now = SystemTime::now();
        let tags = self.tags(tracing, context);
        let attempts = std::mem::take(&mut self.attempts);
        let mut spans: Vec<_> = attempts
            .into_iter()
            .map(|attempt| self.attempt_span(tracing, attempt, context, &tags, now))
            .collect();
        let name = self.operation(tracing).map(|operation| operation.text(context, ""));
        let stream = context.stream;
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.push(text("request_size", stream.bytes_received.to_string()));
        attributes.push(text("response_size", stream.bytes_sent.to_string()));
        let failed = is_error(stream.status) || grpc_error(context);
        common(
            &mut attributes,
            stream.cluster.as_deref(),
            stream.status,
            stream.flags,
            failed,
        );
        attributes.extend(grpc_answer(context.response_headers));
        attributes.extend(grpc_answer(context.response_trailers));
        attributes.extend(tags);
        spans.push(otlp::Span {
            parent_span_id: self.parent.map(id).unwrap_or_default(),
            name: name.unwrap_or_else(|| std::mem::take(&mut self.name)),
            kind: self.kind.into(),
            flags: otlp::flags(self.parent.is_some()),
            status: status(self.kind, stream.status),
            ..self.span(self.context.span, self.begun, now, attributes)
        });
        (self.tracer, spans)
    }

    fn attempt_span(
        &self,
        tracing: &Tracing,
        attempt: Attempt,
        context: &Context<'_>,
        tags: &[Attribute],
        now: SystemTime,
    ) -> otlp::Span {
        let own = self
            .route
            .as_deref()
            .and_then(|route| route.upstream_operation.as_ref());
        let name = match own.or(tracing.upstream_operation.as_ref()) {
            Some(operation) => operation.text(context, ""),
            None => format!("router {} egress", attempt.cluster.config.stat_name),
        };
        let address = attempt.host.address.to_string();
        let mut attributes = Vec::with_capacity(12);
        if attempt.retries > 0 {
            attributes.push(text("retry.count", attempt.retries.to_string()));
        }
        attributes.extend([
            text("http.protocol", attempt.protocol.map_or("-", protocol_name)),
            text("upstream_address", address.clone()),
            text("peer.address", address),
        ]);
        let gone = context.stream.flags.contains(Flags::DOWNSTREAM_CONNECTION_TERMINATION);
        let (flags, more) = match attempt.failure {
            Some(Failure::Reset(flags, reason)) => (flags, Some(text("error.reason", reason))),
            Some(Failure::Canceled) => (Flags::default(), Some(text("canceled", "true"))),
            None => (Flags::default(), gone.then(|| text("canceled", "true"))),
        };
        attributes.extend(more);
        let failed = is_error(attempt.status);
        common(&mut attributes, Some(&attempt.cluster), attempt.status, flags, failed);
        let (ended, tags) = attempt.ended.unwrap_or_else(|| (now, tags.to_vec()));
        attributes.extend(tags);
        otlp::Span {
            parent_span_id: id(self.context.span),
            name,
            kind: Kind::Client.into(),
            flags: otlp::flags(false),
            status: status(Kind::Client, attempt.status),
            ..self.span(attempt.id, attempt.begun, ended, attributes)
        }
    }

    /// A span with what all spans of the trace have in common.
    fn span(&self, span: u64, begun: SystemTime, ended: SystemTime, attributes: Vec<Attribute>) -> otlp::Span {
        otlp::Span {
            trace_id: Bytes::copy_from_slice(&self.context.trace.to_be_bytes()),
            span_id: id(span),
            trace_state: self.state.clone(),
            start_time_unix_nano: nanoseconds(begun),
            end_time_unix_nano: nanoseconds(ended.max(begun)),
            attributes,
            ..Default::default()
        }
    }

    /// The configured operation name.
    fn operation<'a>(&'a self, tracing: &'a Tracing) -> Option<&'a Format> {
        let own = self.route.as_deref().and_then(|route| route.operation.as_ref());
        own.or(tracing.operation.as_ref())
    }

    /// The custom tags; the route's take precedence.
    fn tags(&self, tracing: &Tracing, context: &Context<'_>) -> Vec<Attribute> {
        let own: &[Tag] = self.route.as_deref().map_or(&[], |route| &route.tags);
        let others = tracing.tags.iter();
        let others = others.filter(|tag| !own.iter().any(|other| other.name == tag.name));
        let tags = own.iter().chain(others);
        let tag = |tag: &Tag| {
            let value = tag.value.of(context);
            (!value.is_empty()).then(|| text(&*tag.name, value))
        };
        tags.filter_map(tag).collect()
    }
}

impl TagValue {
    fn of<'a>(&'a self, context: &Context<'a>) -> Cow<'a, str> {
        match self {
            TagValue::Fixed(value) => Cow::Borrowed(value),
            TagValue::Header(name, default) => match context.request_headers.and_then(|headers| headers.get(name)) {
                Some(value) => String::from_utf8_lossy(value.as_bytes()),
                None => Cow::Borrowed(default),
            },
            TagValue::Format(format) => format.text(context, "").into(),
        }
    }
}

/// Attributes known at the start.
fn attributes(tracing: &Tracing, tracer: &Tracer, beginning: &Beginning<'_>) -> Vec<Attribute> {
    let request = &*beginning.request;
    let header = |name: &HeaderName| {
        request
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    let or_none = |value: Option<Cow<'_, str>>| value.map_or_else(|| "-".to_owned(), Cow::into_owned);
    let mut all = Vec::with_capacity(24);
    all.push(text("node_id", &*tracer.node.id));
    all.push(text("zone", &*tracer.node.zone));
    if let Some(request_id) = header(&REQUEST_ID) {
        all.push(text("guid:x-request-id", request_id));
    }
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = header(&ORIGINAL_PATH).unwrap_or(Cow::Borrowed(path));
    let path = &path[..path.floor_char_boundary(tracing.max_path)];
    let (scheme, authority) = (beginning.scheme, beginning.authority);
    all.push(text("http.url", format!("{scheme}://{authority}{path}")));
    all.push(text("http.method", request.method.as_str()));
    all.push(text("downstream_cluster", or_none(header(&DOWNSTREAM_CLUSTER))));
    all.push(text("user_agent", or_none(header(&USER_AGENT))));
    all.push(text("http.protocol", protocol_name(request.version)));
    all.push(text("peer.address", beginning.connection.direct.without_port()));
    if let Some(client) = header(&CLIENT_TRACE_ID) {
        all.push(text("guid:x-client-trace-id", client));
    }
    if beginning.grpc {
        all.push(text("grpc.path", path));
        all.push(text("grpc.authority", authority));
        let more = [("grpc.content_type", &CONTENT_TYPE), ("grpc.timeout", &GRPC_TIMEOUT)];
        all.extend(more.iter().filter_map(|(key, name)| Some(text(*key, header(name)?))));
    }
    all
}

/// Attributes of requests and attempts alike.
fn common(all: &mut Vec<Attribute>, cluster: Option<&Cluster>, status: u16, flags: Flags, failed: bool) {
    all.push(text("component", "proxy"));
    if let Some(cluster) = cluster {
        all.push(text("upstream_cluster", &*cluster.config.name));
        all.push(text("upstream_cluster.name", &*cluster.config.stat_name));
    }
    all.push(text("http.status_code", status.to_string()));
    all.push(text("response_flags", flags.to_string()));
    if failed {
        all.push(text("error", "true"));
    }
}

fn grpc_answer(headers: Option<&HeaderMap>) -> impl Iterator<Item = Attribute> {
    let headers = headers.filter(|headers| headers.contains_key("grpc-status"));
    let names = [("grpc.status_code", "grpc-status"), ("grpc.message", "grpc-message")];
    names.into_iter().filter_map(move |(key, name)| {
        let value = headers?.get(name)?;
        Some(text(key, String::from_utf8_lossy(value.as_bytes())))
    })
}

/// Whether there is no response, or a 5xx.
fn is_error(status: u16) -> bool {
    status == 0 || status >= 500
}

/// Whether a gRPC call failed by the server's fault: unknown, deadline exceeded, resource exhausted, unimplemented,
/// internal, unavailable, data loss.
fn grpc_error(context: &Context<'_>) -> bool {
    matches!(context.grpc_status(), Some(2 | 4 | 8 | 12 | 13 | 14 | 15))
}

/// By OpenTelemetry's semantic conventions for HTTP: 4xx is the client's fault.
fn status(kind: Kind, status: u16) -> Option<otlp::Status> {
    let from = if kind == Kind::Client { 400 } else { 500 };
    (status >= from).then_some(otlp::Status {
        code: otlp::STATUS_ERROR,
    })
}

fn id(span: u64) -> Bytes {
    Bytes::copy_from_slice(&span.to_be_bytes())
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
