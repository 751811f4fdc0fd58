//! HTTP: the connection manager (`envoy.filters.network.http_connection_manager`) and everything below it.
//!
//! [`connection`] serves a downstream connection with the codec of its version ([`http1`], [`http2`]); [`exchange`]
//! takes each request through header conditioning, routing and the HTTP filters; `forward`, the router, sends it to a
//! host of a cluster and the response back.

pub(crate) mod body;
pub(crate) mod conditioning;
pub(crate) mod connection;
pub(crate) mod deadlines;
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

/// A compiled `HttpConnectionManager`.
#[derive(Debug)]
pub(crate) struct HttpManager {
    /// `stat_prefix`.
    pub(crate) stat_prefix: Arc<str>,
    /// HTTP versions it accepts (`codec_type`).
    pub(crate) codec: Codec,
    /// The route table; empty until RDS has answered.
    pub(crate) routes: Arc<Slot<RouteTable>>,
    /// The `update_…` counters of its RDS subscription, if the routes come by RDS.
    pub(crate) route_updates: Option<Arc<UpdateStats>>,
    /// How long the listener waits for the first route table before it starts without one (`initial_fetch_timeout`);
    /// `None`: for ever.
    pub(crate) routes_timeout: Option<Duration>,
    /// HTTP filters before the router, in order.
    pub(crate) filters: Box<[HttpFilter]>,
    /// Value of the `server` header.
    pub(crate) server_name: HeaderValue,
    /// How the `server` header of an upstream response is treated (`server_header_transformation`).
    pub(crate) server_header: ServerHeader,
    /// `use_remote_address`: whether the peer is the client itself, as at an edge.
    pub(crate) use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub(crate) trusted_hops: u32,
    /// `skip_xff_append`.
    pub(crate) skip_xff_append: bool,
    /// `proxy_100_continue`: whether `expect: 100-continue` is forwarded instead of answered here.
    pub(crate) proxy_100_continue: bool,
    /// `via`; `None`: none is added.
    pub(crate) via: Option<HeaderValue>,
    /// How request ids are made and trusted.
    pub(crate) request_id: RequestId,
    /// How `x-forwarded-client-cert` is set.
    pub(crate) client_cert: ForwardClientCert,
    /// How paths are normalized.
    pub(crate) path: PathNormalization,
    /// How `:authority` is normalized.
    pub(crate) authority: AuthorityNormalization,
    /// How headers with `_` in their names are treated.
    pub(crate) underscores: Underscores,
    /// Timeouts and header limits.
    pub(crate) limits: Limits,
    /// Bytes of a request body that may be buffered over HTTP/1.1 (the listener's `per_connection_buffer_limit_bytes`).
    pub(crate) buffer_limit: usize,
    /// `upgrade_configs`, for routes that have none of their own.
    pub(crate) upgrades: Upgrades,
    /// Tracing, if it is configured.
    pub(crate) tracing: Option<Box<Tracing>>,
    /// Access logs.
    pub(crate) access_logs: Box<[AccessLog]>,
    /// `suppress_envoy_headers` of the router: whether it adds no `x-envoy-` headers.
    pub(crate) suppress_envoy_headers: bool,
    /// `allow_absolute_url`: whether an HTTP/1.1 request target may be in absolute form.
    pub(crate) allow_absolute_url: bool,
    /// Whether access logs or response headers refer to request headers, which then have to outlive the sending.
    pub(crate) keeps_request_headers: bool,
    /// Whether access logs refer to bytes on the wire.
    pub(crate) metered: bool,
    /// `http2_protocol_options`.
    pub(crate) http2: Http2,
    /// Counters.
    pub(crate) stats: Arc<HttpStats>,
    /// `listener.<address>.http.<stat_prefix>.downstream_rq_1xx` to `downstream_rq_5xx`.
    pub(crate) rq_class_of_listener: Arc<Classes>,
}

/// HTTP versions that a connection manager accepts (`CodecType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Whichever the client speaks.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What becomes of the `server` header of an upstream response (`ServerHeaderTransformation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ServerHeader {
    /// It is replaced.
    #[default]
    Overwrite,
    /// It stays; ours is added if there is none.
    AppendIfAbsent,
    /// It stays, and none is added.
    PassThrough,
}

/// How request ids are made and trusted (`UuidRequestIdConfig` and the fields beside it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// `generate_request_id`.
    pub(crate) generate: bool,
    /// `preserve_external_request_id`.
    pub(crate) preserve_external: bool,
    /// `always_set_request_id_in_response`.
    pub(crate) in_response: bool,
    /// `pack_trace_reason`: whether the tracing decision is written into the id.
    pub(crate) pack_trace_reason: bool,
    /// `use_request_id_for_trace_sampling`: whether random sampling goes by the id.
    pub(crate) for_sampling: bool,
}

/// What `x-forwarded-client-cert` tells of the client's certificate (`SetCurrentClientCertDetails`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForwardClientCert {
    /// What becomes of the header as received.
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

/// What becomes of `x-forwarded-client-cert` as received (`ForwardClientCertDetails`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ForwardClientCertMode {
    /// It is removed.
    #[default]
    Sanitize,
    /// It is forwarded over mutual TLS, else removed.
    ForwardOnly,
    /// Over mutual TLS the client's certificate is appended; else it is removed.
    AppendForward,
    /// Over mutual TLS the client's certificate replaces it; else it is removed.
    SanitizeSet,
    /// It is forwarded as it is.
    AlwaysForwardOnly,
}

/// What becomes of request headers with `_` in their names (`HeadersWithUnderscoresAction`): some servers take it for
/// `-`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Underscores {
    /// They are forwarded.
    #[default]
    Allow,
    /// The request is refused.
    Reject,
    /// They are dropped.
    Drop,
}

/// How `:authority` is normalized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthorityNormalization {
    /// Which ports are stripped.
    pub(crate) strip_port: StripPort,
    /// `strip_trailing_host_dot`.
    pub(crate) strip_dot: bool,
}

/// Which ports are stripped from `:authority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StripPort {
    /// None.
    #[default]
    No,
    /// `strip_matching_host_port`: the port of the connection.
    Matching,
    /// `strip_any_host_port`.
    Any,
}

/// How paths are normalized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathNormalization {
    /// `normalize_path`: `.` and `..` segments are resolved (RFC 3986), percent-encodings become upper case.
    pub(crate) normalize: bool,
    /// `merge_slashes`: `//` becomes `/`.
    pub(crate) merge_slashes: bool,
    /// `path_with_escaped_slashes_action`: what becomes of `%2F`, `%5C` and the like.
    pub(crate) escaped_slashes: EscapedSlashes,
}

/// What becomes of escaped slashes (`PathWithEscapedSlashesAction`).
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

/// Timeouts and limits of connections and streams; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `idle_timeout`: a connection without streams; an hour by default.
    pub(crate) idle: Option<Duration>,
    /// `max_connection_duration`.
    pub(crate) connection: Option<Duration>,
    /// `stream_idle_timeout`: a stream on which nothing is sent or received; 5 minutes by default.
    pub(crate) stream_idle: Option<Duration>,
    /// `max_stream_duration`.
    pub(crate) stream: Option<Duration>,
    /// `request_timeout`: until the whole request has been received.
    pub(crate) request: Option<Duration>,
    /// `request_headers_timeout`: until its headers have been received.
    pub(crate) request_headers: Option<Duration>,
    /// `drain_timeout`: between the announcement that a connection closes and its end.
    pub(crate) drain: Duration,
    /// `delayed_close_timeout`: how long we wait for the peer to close after our last byte; zero: we close at once.
    pub(crate) delayed_close: Duration,
    /// `max_requests_per_connection`.
    pub(crate) requests_per_connection: Option<u32>,
    /// `max_request_headers_kb`, in bytes.
    pub(crate) header_bytes: usize,
    /// `max_headers_count`.
    pub(crate) header_count: usize,
}

/// HTTP/2 settings of a connection manager; `None`: the defaults of [`http2`].
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
    /// `allow_connect`: extended CONNECT (RFC 8441).
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
    /// `downstream_cx_destroy_…active_rq`: connections that closed with requests on them.
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
    /// `downstream_rq_rx_reset`: requests that the client reset, or left by closing its connection, before the response
    /// was complete.
    pub(crate) rq_rx_reset: AtomicU64,
    /// `downstream_rq_max_duration_reached`.
    pub(crate) rq_max_duration: AtomicU64,
    /// `rq_total`: requests that reached the router.
    pub(crate) routed: AtomicU64,
    /// `rq_direct_response`.
    pub(crate) direct_response: AtomicU64,
    /// `rq_redirect`.
    pub(crate) redirect: AtomicU64,
    /// `downstream_rq_total`.
    pub(crate) rq_total: AtomicU64,
    /// `downstream_rq_ws_on_non_ws_route`: upgrades and CONNECTs that the route does not allow.
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

/// Tracing decisions of a connection manager, by Envoy's names (`tracing.…`).
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
