//! HTTP: what a connection manager does with a connection and every request on it.

pub(crate) mod body;
pub(crate) mod conditioning;
pub(crate) mod connection;
mod deadlines;
pub(crate) mod exchange;
pub(crate) mod filter;
mod forward;
pub(crate) mod grpc;
pub(crate) mod hash;
pub(crate) mod header_ops;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod interim;
pub(crate) mod local_reply;
pub(crate) mod meter;
mod mirror;
pub(crate) mod path;
mod retry;
mod rewrite;
pub(crate) mod route;
mod upgrade;

pub(crate) use conditioning::uuid;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::header::HeaderValue;

use super::access_log::AccessLog;
use super::io::metered::{ByteStats, Closings};
use super::slot::Slot;
use super::stats::UpdateStats;
use super::stats::codes::Classes;
use super::stats::histogram::Histogram;
use super::trace::Tracing;
use filter::HttpFilter;
use route::RouteTable;
pub(crate) use upgrade::Upgrades;

#[cfg(fuzzing)]
pub(crate) fn read_grpc_timeout(headers: &http::HeaderMap) {
    deadlines::draw_on(headers);
}

/// A compiled `HttpConnectionManager`.
#[derive(Debug)]
pub(crate) struct HttpManager {
    /// `stat_prefix`.
    pub(crate) stat_prefix: Arc<str>,
    /// Which versions it speaks.
    pub(crate) codec: Codec,
    /// The routes; empty until RDS has answered.
    pub(crate) routes: Arc<Slot<RouteTable>>,
    /// What is counted of them, if they come by RDS.
    pub(crate) route_updates: Option<Arc<UpdateStats>>,
    /// How long the listener waits for them before it is served without; none: for ever.
    pub(crate) routes_timeout: Option<Duration>,
    /// Filters before the router.
    pub(crate) filters: Box<[HttpFilter]>,
    /// The `server` header.
    pub(crate) server_name: HeaderValue,
    /// What happens to the endpoint's own `server` header.
    pub(crate) server_header: ServerHeader,
    /// Whether the peer's address is the client's (`use_remote_address`): an edge.
    pub(crate) use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub(crate) trusted_hops: u32,
    /// `skip_xff_append`.
    pub(crate) skip_xff_append: bool,
    /// `proxy_100_continue`: whether it is for hosts to ask for a body that a client has announced.
    pub(crate) proxy_100_continue: bool,
    /// `via`; empty: none.
    pub(crate) via: Option<HeaderValue>,
    /// Request ids.
    pub(crate) request_id: RequestId,
    /// The client's certificate in `x-forwarded-client-cert`.
    pub(crate) client_cert: ForwardClientCert,
    /// How paths are normalised.
    pub(crate) path: PathNormalization,
    /// What becomes of headers with `_` in their names.
    pub(crate) underscores: Underscores,
    /// Limits.
    pub(crate) limits: Limits,
    /// What a request by HTTP/1.1 may have waiting, in bytes (`per_connection_buffer_limit_bytes` of the listener).
    pub(crate) buffer_limit: usize,
    /// Protocols that may be gone over to where routes say nothing of them.
    pub(crate) upgrades: Upgrades,
    /// Tracing, if there is any.
    pub(crate) tracing: Option<Box<Tracing>>,
    /// Access logs.
    pub(crate) access_logs: Box<[AccessLog]>,
    /// Whether the router adds no `x-envoy-` headers (`suppress_envoy_headers`).
    pub(crate) suppress_envoy_headers: bool,
    /// Whether a request may have a whole URL in its first line (`allow_absolute_url`).
    pub(crate) allow_absolute_url: bool,
    /// Whether access logs or headers of responses need the request's headers once it is sent.
    pub(crate) keeps_request_headers: bool,
    /// Whether access logs ask for bytes on the wire.
    pub(crate) metered: bool,
    /// HTTP/2 settings.
    pub(crate) http2: Http2,
    /// Counters.
    pub(crate) stats: Arc<HttpStats>,
    /// `listener.<address>.http.<stat_prefix>.downstream_rq_1xx` to `downstream_rq_5xx`.
    pub(crate) rq_class_of_listener: Arc<Classes>,
}

/// Which versions of HTTP a connection manager speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codec {
    /// What the client speaks.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What happens to the endpoint's own `server` header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ServerHeader {
    /// It is replaced.
    #[default]
    Overwrite,
    /// It stays; ours is added where there is none.
    AppendIfAbsent,
    /// It stays, and none is added.
    PassThrough,
}

/// Request ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// `generate_request_id`.
    pub(crate) generate: bool,
    /// `preserve_external_request_id`.
    pub(crate) preserve_external: bool,
    /// `always_set_request_id_in_response`.
    pub(crate) in_response: bool,
    /// `pack_trace_reason`: whether the id says if the request is traced.
    pub(crate) pack_trace_reason: bool,
    /// `use_request_id_for_trace_sampling`: whether the id decides what chance decides.
    pub(crate) for_sampling: bool,
}

/// The client's certificate in `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForwardClientCert {
    /// What happens to what is there.
    pub(crate) mode: ForwardClientCertMode,
    /// `Subject`.
    pub(crate) subject: bool,
    /// `Cert`.
    pub(crate) cert: bool,
    /// `Chain`.
    pub(crate) chain: bool,
    /// `DNS`.
    pub(crate) dns: bool,
    /// `URI`.
    pub(crate) uri: bool,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ForwardClientCertMode {
    /// It is removed.
    #[default]
    Sanitize,
    /// Over mutual TLS it is passed on.
    ForwardOnly,
    /// Over mutual TLS the client is appended.
    AppendForward,
    /// Over mutual TLS it is replaced by the client.
    SanitizeSet,
    /// It is passed on.
    AlwaysForwardOnly,
}

/// What becomes of request headers with `_` in their names (`HeadersWithUnderscoresAction`), which some take for `-`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Underscores {
    /// They are passed on.
    #[default]
    Allow,
    /// The request is refused.
    Reject,
    /// They are dropped.
    Drop,
}

/// How paths are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathNormalization {
    /// RFC 3986: `.` and `..`, and upper-case percent-encodings.
    pub(crate) normalize: bool,
    /// `//` becomes `/`.
    pub(crate) merge_slashes: bool,
    /// What happens to `%2F`, `%5C` and the like.
    pub(crate) escaped_slashes: EscapedSlashes,
}

/// What happens to escaped slashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// The client is redirected to the unescaped path.
    UnescapeAndRedirect,
    /// They are unescaped.
    UnescapeAndForward,
}

/// Limits of connections and streams; none: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A connection without streams; an hour unless said otherwise.
    pub(crate) idle: Option<Duration>,
    /// A connection's life.
    pub(crate) connection: Option<Duration>,
    /// A stream without anything sent or received; 5 minutes unless said otherwise.
    pub(crate) stream_idle: Option<Duration>,
    /// A stream's life.
    pub(crate) stream: Option<Duration>,
    /// A whole request.
    pub(crate) request: Option<Duration>,
    /// The headers of a request.
    pub(crate) request_headers: Option<Duration>,
    /// Between the announcement of the end and the end.
    pub(crate) drain: Duration,
    /// How long a connection whose end we have announced may take to end; zero: it is closed at once.
    pub(crate) delayed_close: Duration,
    /// Requests on one connection.
    pub(crate) requests_per_connection: Option<u32>,
    /// Headers of a request, in bytes.
    pub(crate) header_bytes: usize,
    /// Headers of a request.
    pub(crate) header_count: usize,
}

/// HTTP/2 settings of a connection manager; none: those of [`http2`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Http2 {
    /// `max_concurrent_streams`.
    pub(crate) max_concurrent_streams: Option<u32>,
    /// `initial_stream_window_size`.
    pub(crate) stream_window: Option<u32>,
    /// `initial_connection_window_size`.
    pub(crate) connection_window: Option<u32>,
    /// `connection_keepalive`: interval and timeout.
    pub(crate) keepalive: Option<(Duration, Duration)>,
    /// `allow_connect`: extended CONNECT.
    pub(crate) allow_connect: bool,
}

/// Counters of a connection manager, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct HttpStats {
    /// `downstream_cx_total`.
    pub(crate) cx_total: AtomicU64,
    /// `downstream_cx_active`.
    pub(crate) cx_active: AtomicU64,
    /// `downstream_cx_http1_total`.
    pub(crate) cx_http1_total: AtomicU64,
    /// `downstream_cx_http2_total`.
    pub(crate) cx_http2_total: AtomicU64,
    /// `downstream_cx_http1_active`.
    pub(crate) cx_http1_active: AtomicU64,
    /// `downstream_cx_http2_active`.
    pub(crate) cx_http2_active: AtomicU64,
    /// `downstream_cx_destroy…`.
    pub(crate) cx_destroy: Closings,
    /// `downstream_cx_destroy_…active_rq`: those of them on which there were requests.
    pub(crate) cx_destroy_active_rq: Closings,
    /// `downstream_cx_…_bytes_…`.
    pub(crate) bytes: ByteStats,
    /// `downstream_cx_length_ms`.
    pub(crate) cx_length: Histogram,
    /// `downstream_cx_ssl_total`.
    pub(crate) cx_ssl_total: AtomicU64,
    /// `downstream_cx_ssl_active`.
    pub(crate) cx_ssl_active: AtomicU64,
    /// `downstream_rq_http1_total`.
    pub(crate) rq_http1_total: AtomicU64,
    /// `downstream_rq_http2_total`.
    pub(crate) rq_http2_total: AtomicU64,
    /// `downstream_rq_rx_reset`: clients that went away before their answer was complete.
    pub(crate) rq_rx_reset: AtomicU64,
    /// `downstream_rq_max_duration_reached`: requests that were not to live longer.
    pub(crate) rq_max_duration: AtomicU64,
    /// `rq_total`: requests that reached the router.
    pub(crate) routed: AtomicU64,
    /// `rq_direct_response`.
    pub(crate) direct_response: AtomicU64,
    /// `rq_redirect`.
    pub(crate) redirect: AtomicU64,
    /// `downstream_rq_total`.
    pub(crate) rq_total: AtomicU64,
    /// `downstream_rq_ws_on_non_ws_route`: requests to go over to what is not allowed.
    pub(crate) rq_ws_on_non_ws_route: AtomicU64,
    /// `downstream_rq_active`.
    pub(crate) rq_active: AtomicU64,
    /// `downstream_rq_1xx` to `downstream_rq_5xx`.
    pub(crate) rq_class: Classes,
    /// `tracing.`
    pub(crate) tracing: TracingStats,
    /// `fault.aborts_injected`.
    pub(crate) aborts_injected: AtomicU64,
    /// `fault.delays_injected`.
    pub(crate) delays_injected: AtomicU64,
    /// `no_route`.
    pub(crate) no_route: AtomicU64,
    /// `no_cluster`.
    pub(crate) no_cluster: AtomicU64,
    /// `downstream_cx_protocol_error`.
    pub(crate) protocol_error: AtomicU64,
    /// `downstream_rq_time`.
    pub(crate) rq_time: Histogram,
}

/// What a connection manager decided of tracing, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct TracingStats {
    /// `random_sampling`.
    pub(crate) random_sampling: AtomicU64,
    /// `service_forced`.
    pub(crate) service_forced: AtomicU64,
    /// `client_enabled`.
    pub(crate) client_enabled: AtomicU64,
    /// `not_traceable`.
    pub(crate) not_traceable: AtomicU64,
}
