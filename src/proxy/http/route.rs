//! Route tables: which route a request takes, and what that route does.

pub(crate) mod host;
mod list;
mod matching;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};
use regex::bytes::Regex;

use super::filter::Overrides;
use super::header_ops::HeaderOps;
use super::upgrade::Upgrades;
use crate::proxy::format::Format;
use crate::proxy::slot::Slot;
use crate::proxy::trace::RouteTracing;
use crate::proxy::upstream::cluster::{Answers, Cluster};
use crate::proxy::upstream::proxy_protocol::ProxyHeader;

pub(crate) use host::HostIndex;
pub(crate) use list::RouteList;
pub(crate) use matching::{HeaderKey, HeaderMatch, HeaderTest, PathMatch, QueryMatch, RouteMatch, is_grpc};

/// A compiled `RouteConfiguration`.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    /// Virtual hosts by domain.
    pub(crate) hosts: HostIndex,
    /// `ignore_port_in_host_matching`.
    pub(crate) ignore_port: bool,
    /// Changes to the headers of every request and response.
    pub(crate) headers: Mutations,
    /// `most_specific_header_mutations_wins`.
    pub(crate) most_specific_wins: bool,
}

/// Changes to the headers of requests and responses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mutations {
    /// Of requests.
    pub(crate) request: HeaderOps,
    /// Of responses.
    pub(crate) response: HeaderOps,
}

/// A virtual host.
#[derive(Debug, Default)]
pub(crate) struct VirtualHost {
    /// Routes; the first that matches is taken.
    pub(crate) routes: RouteList,
    /// Changes to headers.
    pub(crate) headers: Mutations,
    /// `include_request_attempt_count`: `x-envoy-attempt-count` to the endpoint.
    pub(crate) attempt_count: bool,
    /// `include_attempt_count_in_response`.
    pub(crate) attempt_count_in_response: bool,
}

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    /// The name; may be empty.
    pub(crate) name: Arc<str>,
    /// When it applies.
    pub(crate) matcher: RouteMatch,
    /// What it does.
    pub(crate) action: RouteAction,
    /// Changes to headers.
    pub(crate) headers: Mutations,
    /// What it and its virtual host say to filters.
    pub(crate) overrides: Overrides,
    /// What it says of tracing.
    pub(crate) tracing: Option<Arc<RouteTracing>>,
    /// Counters of its own, if it has any (`stat_prefix`).
    pub(crate) stats: Option<Arc<RouteStats>>,
    /// Of what is retained for retries, at most this many bytes (`request_body_buffer_limit`).
    pub(crate) buffer_limit: Option<usize>,
}

/// Counters of a route's own, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    /// `upstream_rq_total`: attempts that reached a host.
    pub(crate) rq_total: AtomicU64,
    /// `upstream_rq_retry`.
    pub(crate) rq_retry: AtomicU64,
    /// `upstream_rq_retry_success`.
    pub(crate) rq_retry_success: AtomicU64,
    /// `upstream_rq_retry_overflow`.
    pub(crate) rq_retry_overflow: AtomicU64,
    /// `upstream_rq_retry_limit_exceeded`.
    pub(crate) rq_retry_limit_exceeded: AtomicU64,
    /// `upstream_rq_timeout`.
    pub(crate) rq_timeout: AtomicU64,
    /// `upstream_rq_<status>` and the like.
    pub(crate) answers: Answers,
}

impl Route {
    /// Counts, if it has counters of its own.
    pub(crate) fn count(&self, counter: fn(&RouteStats) -> &AtomicU64) {
        if let Some(stats) = &self.stats {
            counter(stats).fetch_add(1, Relaxed);
        }
    }
}

/// What a route does.
#[derive(Debug)]
pub(crate) enum RouteAction {
    /// Sends the request on.
    Forward(Box<Forward>),
    /// Answers with a redirect.
    Redirect(Box<Redirect>),
    /// Answers itself.
    Direct(DirectResponse),
}

/// Sending a request on (`RouteAction`).
#[derive(Debug)]
pub(crate) struct Forward {
    /// Which cluster.
    pub(crate) destination: Destination,
    /// The answer where the cluster does not exist; 503 unless said otherwise.
    pub(crate) cluster_not_found: StatusCode,
    /// How the path is rewritten.
    pub(crate) path_rewrite: Option<PathRewrite>,
    /// How the host is rewritten.
    pub(crate) host_rewrite: Option<HostRewrite>,
    /// `append_x_forwarded_host`.
    pub(crate) append_forwarded_host: bool,
    /// Limits in time.
    pub(crate) timeouts: Timeouts,
    /// Retries.
    pub(crate) retry: Option<Arc<RetryPolicy>>,
    /// Copies.
    pub(crate) mirrors: Vec<Mirror>,
    /// What consistent hashing goes by.
    pub(crate) hash: Vec<HashPolicy>,
    /// Which circuit breaker counts (`RoutingPriority::HIGH`).
    pub(crate) high_priority: bool,
    /// Protocols that may be gone over to, or may not.
    pub(crate) upgrades: Upgrades,
    /// What becomes of CONNECT, where it ends here (`connect_config`).
    pub(crate) connect: Option<Connect>,
}

/// CONNECT that ends here: what comes on the tunnel goes to the host as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    /// How the host is told whose connection it is.
    pub(crate) proxy_header: Option<ProxyHeader>,
    /// Whether the body of POST is a tunnel, too.
    pub(crate) allow_post: bool,
}

impl Connect {
    /// Whether what comes with a request of this method goes to the host as it is.
    pub(crate) fn concerns(self, method: &Method) -> bool {
        *method == Method::CONNECT || (self.allow_post && *method == Method::POST)
    }
}

/// Which cluster a request goes to.
#[derive(Debug)]
pub(crate) enum Destination {
    /// This one.
    Cluster(Arc<Slot<Cluster>>),
    /// One of several, by weight.
    Weighted(WeightedClusters),
    /// The one that a header names.
    Header(HeaderName),
}

/// Clusters and their shares.
#[derive(Debug)]
pub(crate) struct WeightedClusters {
    /// The sum of the weights, at least 1.
    pub(crate) total: u64,
    /// The clusters.
    pub(crate) clusters: Vec<WeightedCluster>,
}

/// A cluster with its share.
#[derive(Debug)]
pub(crate) struct WeightedCluster {
    /// The cluster.
    pub(crate) cluster: Arc<Slot<Cluster>>,
    /// Its share of the total.
    pub(crate) weight: u64,
    /// Changes to headers.
    pub(crate) headers: Mutations,
    /// How the host is rewritten.
    pub(crate) host_rewrite: Option<HeaderValue>,
    /// What it, its route and its virtual host say to filters.
    pub(crate) overrides: Overrides,
}

/// How a path is rewritten.
#[derive(Debug)]
pub(crate) enum PathRewrite {
    /// What the route's prefix or path matched is replaced by this.
    Prefix(Box<str>),
    /// The path, without query, is changed by a regular expression and a substitution with `\1`.
    Regex(Regex, Box<[u8]>),
    /// The whole path is made of this (`path_rewrite`).
    Format(Format),
}

/// How a host is rewritten.
#[derive(Debug)]
pub(crate) enum HostRewrite {
    /// To this.
    Literal(HeaderValue),
    /// To the name of the endpoint that is chosen (`auto_host_rewrite`).
    Endpoint,
    /// To the value of a header (`host_rewrite_header`).
    Header(HeaderName),
}

/// Limits in time of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    /// From the end of the request to the end of the response; none: no limit.
    pub(crate) response: Option<Duration>,
    /// Without anything sent or received, over what the connection manager says; zero: no limit.
    pub(crate) idle: Option<Duration>,
    /// What is said of the whole stream (`max_stream_duration`); then [`Timeouts::response`] is none, as in Envoy.
    pub(crate) stream: Option<StreamLimit>,
}

/// How long a stream may take (`MaxStreamDuration`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamLimit {
    /// So long, over what the connection manager says; zero: no limit.
    pub(crate) whole: Option<Duration>,
    /// The most that the client may ask for by `grpc-timeout`; zero: whatever it asks for.
    pub(crate) grpc_max: Option<Duration>,
}

/// Retries (`RetryPolicy`).
#[derive(Debug)]
pub(crate) struct RetryPolicy {
    /// On what.
    pub(crate) on: RetryOn,
    /// How many, beside the first attempt.
    pub(crate) retries: u32,
    /// Limit of each attempt.
    pub(crate) per_try_timeout: Option<Duration>,
    /// Status codes for `retriable-status-codes`.
    pub(crate) status_codes: Vec<u16>,
    /// Response headers for `retriable-headers`.
    pub(crate) headers: Vec<HeaderMatch>,
    /// Requests that may be retried at all; none: every one.
    pub(crate) request_headers: Vec<HeaderMatch>,
    /// The first pause, doubled every time; jittered.
    pub(crate) base_interval: Duration,
    /// The longest pause.
    pub(crate) max_interval: Duration,
    /// After so many attempts, passes over the priorities that were tried (`previous_priorities`).
    pub(crate) other_priorities: Option<usize>,
    /// Avoids hosts that were tried (`previous_hosts`).
    pub(crate) other_hosts: bool,
    /// How often another host is looked for.
    pub(crate) host_attempts: u32,
}

/// What is retried on, a bit each (`x-envoy-retry-on` and `x-envoy-retry-grpc-on`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetryOn(pub(crate) u32);

impl RetryOn {
    /// Any 5xx, and no answer at all.
    pub(crate) const SERVER_ERROR: Self = Self(1);
    /// 502, 503, 504.
    pub(crate) const GATEWAY_ERROR: Self = Self(1 << 1);
    /// The connection broke or the attempt timed out.
    pub(crate) const RESET: Self = Self(1 << 2);
    /// The connection broke before the request was sent.
    pub(crate) const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// No connection.
    pub(crate) const CONNECT_FAILURE: Self = Self(1 << 4);
    /// 409.
    pub(crate) const RETRIABLE_4XX: Self = Self(1 << 5);
    /// HTTP/2 `REFUSED_STREAM`.
    pub(crate) const REFUSED_STREAM: Self = Self(1 << 6);
    /// [`RetryPolicy::status_codes`].
    pub(crate) const STATUS_CODES: Self = Self(1 << 7);
    /// [`RetryPolicy::headers`].
    pub(crate) const HEADERS: Self = Self(1 << 8);
    /// `x-envoy-ratelimited` does not stand against it.
    pub(crate) const RATE_LIMITED: Self = Self(1 << 9);
    /// HTTP/3 post-connect failures: never met here.
    pub(crate) const HTTP3: Self = Self(1 << 10);
    /// gRPC status 1.
    pub(crate) const GRPC_CANCELLED: Self = Self(1 << 11);
    /// gRPC status 4.
    pub(crate) const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 12);
    /// gRPC status 13.
    pub(crate) const GRPC_INTERNAL: Self = Self(1 << 13);
    /// gRPC status 8.
    pub(crate) const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 14);
    /// gRPC status 14.
    pub(crate) const GRPC_UNAVAILABLE: Self = Self(1 << 15);

    /// Reads a comma-separated list; words that mean nothing here are passed over, as Envoy does.
    pub(crate) fn parse(words: &str) -> Self {
        let bits = words.split(',').map(|word| match word.trim() {
            "5xx" => Self::SERVER_ERROR,
            "gateway-error" => Self::GATEWAY_ERROR,
            "reset" => Self::RESET,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            "connect-failure" => Self::CONNECT_FAILURE,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "refused-stream" => Self::REFUSED_STREAM,
            "retriable-status-codes" => Self::STATUS_CODES,
            "retriable-headers" => Self::HEADERS,
            "envoy-ratelimited" => Self::RATE_LIMITED,
            "http3-post-connect-failure" => Self::HTTP3,
            "cancelled" => Self::GRPC_CANCELLED,
            "deadline-exceeded" => Self::GRPC_DEADLINE_EXCEEDED,
            "internal" => Self::GRPC_INTERNAL,
            "resource-exhausted" => Self::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => Self::GRPC_UNAVAILABLE,
            _ => Self::default(),
        });
        bits.fold(Self::default(), |all, one| Self(all.0 | one.0))
    }

    /// Whether a gRPC status can be what is retried on.
    pub(crate) fn looks_at_grpc(self) -> bool {
        let grpc = Self::GRPC_CANCELLED.0
            | Self::GRPC_DEADLINE_EXCEEDED.0
            | Self::GRPC_INTERNAL.0
            | Self::GRPC_RESOURCE_EXHAUSTED.0
            | Self::GRPC_UNAVAILABLE.0;
        self.0 & grpc != 0
    }

    /// Whether all of these are among them.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0 && other.0 != 0
    }
}

/// A copy of requests.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// Where it goes.
    pub(crate) cluster: Arc<Slot<Cluster>>,
    /// Which share of requests, in parts per million.
    pub(crate) per_million: u32,
    /// Whether `-shadow` is not appended to the host.
    pub(crate) keep_host: bool,
    /// Whether who gets it is told to record what is traced (`trace_sampled`).
    pub(crate) sampled: bool,
}

/// What consistent hashing goes by.
#[derive(Debug)]
pub(crate) struct HashPolicy {
    /// The key.
    pub(crate) key: HashKey,
    /// If there is a hash after this, no further policy is looked at.
    pub(crate) terminal: bool,
}

/// The key of a hash.
#[derive(Debug)]
pub(crate) enum HashKey {
    /// A header's values.
    Header(HeaderName),
    /// A cookie; made and set if it is missing and has a time to live.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// Its path, for one that is made.
        path: Box<str>,
        /// How long one that is made lives; none: it is not made.
        ttl: Option<Duration>,
        /// Further attributes of one that is made.
        attributes: Vec<(Box<str>, Box<str>)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Box<str>),
}

/// A redirect.
#[derive(Debug)]
pub(crate) struct Redirect {
    /// Another scheme.
    pub(crate) scheme: Option<Box<str>>,
    /// Another host.
    pub(crate) host: Option<Box<str>>,
    /// Another port.
    pub(crate) port: Option<u16>,
    /// Another path.
    pub(crate) path: Option<RedirectPath>,
    /// The status.
    pub(crate) status: StatusCode,
    /// Whether the query is left out.
    pub(crate) strip_query: bool,
}

/// The path of a redirect.
#[derive(Debug)]
pub(crate) enum RedirectPath {
    /// This path.
    Full(Box<str>),
    /// What matched is replaced.
    Prefix(Box<str>),
    /// By a regular expression.
    Regex(Regex, Box<[u8]>),
}

/// A response of the proxy's own.
#[derive(Debug)]
pub(crate) struct DirectResponse {
    /// The status.
    pub(crate) status: StatusCode,
    /// The body.
    pub(crate) body: Bytes,
}

/// What a route is looked for by.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The method.
    pub(crate) method: &'a Method,
    /// Path and query; scheme and host do not count.
    pub(crate) uri: &'a Uri,
    /// `https` or `http`.
    pub(crate) scheme: &'a str,
    /// The host, as the client gave it.
    pub(crate) host: &'a str,
    /// The headers.
    pub(crate) headers: &'a HeaderMap,
    /// A number that decides what chance decides, the same for the whole request.
    pub(crate) random: u64,
}

/// A route that applies, with its virtual host.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    /// The virtual host.
    pub(crate) host: Arc<VirtualHost>,
    /// The route.
    pub(crate) route: Arc<Route>,
    /// The table that they are in.
    pub(crate) table: Arc<RouteTable>,
}

impl RouteTable {
    /// The route that a request takes; none: 404.
    pub(crate) fn find(self: &Arc<Self>, request: &Request<'_>) -> Option<Matched> {
        let host = self.hosts.find(request.host, self.ignore_port)?;
        // A request without a path takes no route that looks at one.
        let pathless = *request.method == Method::CONNECT;
        let takes = |route: &Route| (!pathless || route.matcher.is_pathless()) && route.matcher.matches(request);
        let route = host.routes.find(request.uri.path(), takes)?;
        Some(Matched {
            host: host.clone(),
            route: route.clone(),
            table: self.clone(),
        })
    }
}

impl Route {
    /// What is said to filters of a request for which this is drawn.
    pub(crate) fn overrides(&self, random: u64) -> &Overrides {
        let share = match &self.action {
            RouteAction::Forward(forward) => match &forward.destination {
                Destination::Weighted(weighted) => weighted.choose(random),
                Destination::Cluster(_) | Destination::Header(_) => None,
            },
            RouteAction::Redirect(_) | RouteAction::Direct(_) => None,
        };
        share.map_or(&self.overrides, |share| &share.overrides)
    }
}

impl Destination {
    /// The cluster for a request, with what the share says if it is one of several. None: no such cluster.
    pub(crate) fn choose(
        &self,
        random: u64,
        headers: &HeaderMap,
        named: impl FnOnce(&str) -> Option<Arc<Slot<Cluster>>>,
    ) -> (Option<Arc<Slot<Cluster>>>, Option<&WeightedCluster>) {
        match self {
            Destination::Cluster(cluster) => (Some(cluster.clone()), None),
            Destination::Weighted(weighted) => {
                let chosen = weighted.choose(random);
                (chosen.map(|chosen| chosen.cluster.clone()), chosen)
            }
            Destination::Header(name) => {
                let name = headers.get(name).and_then(|name| name.to_str().ok());
                (name.and_then(named), None)
            }
        }
    }
}

impl WeightedClusters {
    fn choose(&self, random: u64) -> Option<&WeightedCluster> {
        let mut left = random % self.total.max(1);
        self.clusters
            .iter()
            .find(|cluster| match left.checked_sub(cluster.weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            })
    }
}
