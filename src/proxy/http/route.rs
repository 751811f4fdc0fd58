//! Route tables: which route a request matches, and what the route does.
//!
//! Everything here is compiled from `RouteConfiguration` by `config::route` and immutable; [`RouteTable::find`] is on
//! the hot path.

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
    /// Header changes for every request and response.
    pub(crate) headers: Mutations,
    /// `most_specific_header_mutations_wins`.
    pub(crate) most_specific_wins: bool,
}

/// Header additions and removals for requests and responses.
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
    /// Routes; the first match wins.
    pub(crate) routes: RouteList,
    /// Header changes.
    pub(crate) headers: Mutations,
    /// `include_request_attempt_count`: whether hosts get `x-envoy-attempt-count`.
    pub(crate) attempt_count: bool,
    /// `include_attempt_count_in_response`: whether clients do.
    pub(crate) attempt_count_in_response: bool,
    /// `require_tls`: the redirect of requests without TLS.
    pub(crate) to_https: Option<Box<Matched>>,
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
    /// Header changes.
    pub(crate) headers: Mutations,
    /// Filter configuration of the route and its virtual host.
    pub(crate) overrides: Overrides,
    /// Its tracing configuration.
    pub(crate) tracing: Option<Arc<RouteTracing>>,
    /// Its own counters, if it has a `stat_prefix`.
    pub(crate) stats: Option<Arc<RouteStats>>,
    /// `request_body_buffer_limit`: how many bytes of a request body may be buffered.
    pub(crate) buffer_limit: Option<usize>,
}

/// Counters of a route with a `stat_prefix`, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    /// `upstream_rq_total`: attempts that were sent to a host.
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
    /// Counts, if the route has counters.
    pub(crate) fn count(&self, counter: fn(&RouteStats) -> &AtomicU64) {
        if let Some(stats) = &self.stats {
            counter(stats).fetch_add(1, Relaxed);
        }
    }
}

/// What a route does.
#[derive(Debug)]
pub(crate) enum RouteAction {
    /// Forwards the request.
    Forward(Box<Forward>),
    /// Redirects the client.
    Redirect(Box<Redirect>),
    /// Answers directly.
    Direct(DirectResponse),
}

/// Forwarding to a cluster (`RouteAction`).
#[derive(Debug)]
pub(crate) struct Forward {
    /// The cluster.
    pub(crate) destination: Destination,
    /// `cluster_not_found_response_code`; 503 by default.
    pub(crate) cluster_not_found: StatusCode,
    /// How the path is rewritten.
    pub(crate) path_rewrite: Option<PathRewrite>,
    /// How the host is rewritten.
    pub(crate) host_rewrite: Option<HostRewrite>,
    /// `append_x_forwarded_host`.
    pub(crate) append_forwarded_host: bool,
    /// Timeouts.
    pub(crate) timeouts: Timeouts,
    /// The retry policy.
    pub(crate) retry: Option<Arc<RetryPolicy>>,
    /// Mirror policies.
    pub(crate) mirrors: Vec<Mirror>,
    /// Hash policies.
    pub(crate) hash: Vec<HashPolicy>,
    /// Whether the circuit breaker for high priority applies (`RoutingPriority::HIGH`).
    pub(crate) high_priority: bool,
    /// Allowed and forbidden upgrades.
    pub(crate) upgrades: Upgrades,
    /// Set if CONNECT is terminated here (`connect_config`).
    pub(crate) connect: Option<Connect>,
}

/// Termination of CONNECT: the tunnel's bytes are forwarded to the host over plain TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    /// The PROXY protocol header for the host (`proxy_protocol_config`).
    pub(crate) proxy_header: Option<ProxyHeader>,
    /// `allow_post`: whether POST bodies are forwarded so, too.
    pub(crate) allow_post: bool,
}

impl Connect {
    /// Whether requests with this method are terminated here.
    pub(crate) fn concerns(self, method: &Method) -> bool {
        *method == Method::CONNECT || (self.allow_post && *method == Method::POST)
    }
}

/// How the cluster of a request is selected.
#[derive(Debug)]
pub(crate) enum Destination {
    /// By name.
    Cluster(Arc<Slot<Cluster>>),
    /// At random, by weight.
    Weighted(WeightedClusters),
    /// By the value of a header.
    Header(HeaderName),
}

/// Weighted clusters.
#[derive(Debug)]
pub(crate) struct WeightedClusters {
    /// The sum of the weights, at least 1.
    pub(crate) total: u64,
    /// The clusters.
    pub(crate) clusters: Vec<WeightedCluster>,
}

/// A weighted cluster.
#[derive(Debug)]
pub(crate) struct WeightedCluster {
    /// The cluster.
    pub(crate) cluster: Arc<Slot<Cluster>>,
    /// Its weight.
    pub(crate) weight: u64,
    /// Header changes.
    pub(crate) headers: Mutations,
    /// How the host is rewritten.
    pub(crate) host_rewrite: Option<HeaderValue>,
    /// Filter configuration of the weighted cluster, its route and its virtual host.
    pub(crate) overrides: Overrides,
}

/// How a path is rewritten.
#[derive(Debug)]
pub(crate) enum PathRewrite {
    /// The matched prefix or path is replaced.
    Prefix(Box<str>),
    /// The path without query is rewritten by a regular expression and a substitution with `\1`.
    Regex(Regex, Box<[u8]>),
    /// The path is made from a format string (`path_rewrite`).
    Format(Format),
}

/// How a host is rewritten.
#[derive(Debug)]
pub(crate) enum HostRewrite {
    /// To this value.
    Literal(HeaderValue),
    /// To the chosen host's name (`auto_host_rewrite`).
    Endpoint,
    /// To the value of a header (`host_rewrite_header`).
    Header(HeaderName),
}

/// Timeouts of a route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    /// `timeout`: from the end of the request to the end of the response; `None`: no limit.
    pub(crate) response: Option<Duration>,
    /// `idle_timeout`, instead of the connection manager's `stream_idle_timeout`; zero: no limit.
    pub(crate) idle: Option<Duration>,
    /// `max_stream_duration`; as in Envoy, [`Timeouts::response`] is `None` then.
    pub(crate) stream: Option<StreamLimit>,
}

/// `RouteAction.MaxStreamDuration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamLimit {
    /// `max_stream_duration`, instead of the connection manager's; zero: no limit.
    pub(crate) whole: Option<Duration>,
    /// `grpc_timeout_header_max`: the longest `grpc-timeout` that is honoured; zero: any.
    pub(crate) grpc_max: Option<Duration>,
}

/// Retries (`RetryPolicy`).
#[derive(Debug)]
pub(crate) struct RetryPolicy {
    /// Retry conditions.
    pub(crate) on: RetryOn,
    /// `num_retries`, beside the first attempt.
    pub(crate) retries: u32,
    /// `per_try_timeout`.
    pub(crate) per_try_timeout: Option<Duration>,
    /// Status codes for `retriable-status-codes`.
    pub(crate) status_codes: Vec<u16>,
    /// Response headers for `retriable-headers`.
    pub(crate) headers: Vec<HeaderMatch>,
    /// `retriable_request_headers`: which requests may be retried; empty: all.
    pub(crate) request_headers: Vec<HeaderMatch>,
    /// The base back-off, doubled with each retry and jittered.
    pub(crate) base_interval: Duration,
    /// The longest back-off.
    pub(crate) max_interval: Duration,
    /// `previous_priorities`: skips priorities that were tried, after so many attempts (`update_frequency`).
    pub(crate) other_priorities: Option<usize>,
    /// `previous_hosts`: avoids hosts that were tried.
    pub(crate) other_hosts: bool,
    /// `host_selection_retry_max_attempts`: how many times to choose again.
    pub(crate) host_attempts: u32,
}

/// Retry conditions, one bit each (`x-envoy-retry-on` and `x-envoy-retry-grpc-on`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetryOn(pub(crate) u32);

impl RetryOn {
    /// Any 5xx, or no response.
    pub(crate) const SERVER_ERROR: Self = Self(1);
    /// 502, 503, 504.
    pub(crate) const GATEWAY_ERROR: Self = Self(1 << 1);
    /// The connection closed, or the attempt timed out.
    pub(crate) const RESET: Self = Self(1 << 2);
    /// The connection closed before the request was sent.
    pub(crate) const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// No connection could be made.
    pub(crate) const CONNECT_FAILURE: Self = Self(1 << 4);
    /// 409.
    pub(crate) const RETRIABLE_4XX: Self = Self(1 << 5);
    /// HTTP/2 `REFUSED_STREAM`, or the equivalent.
    pub(crate) const REFUSED_STREAM: Self = Self(1 << 6);
    /// [`RetryPolicy::status_codes`].
    pub(crate) const STATUS_CODES: Self = Self(1 << 7);
    /// [`RetryPolicy::headers`].
    pub(crate) const HEADERS: Self = Self(1 << 8);
    /// Retries in spite of `x-envoy-ratelimited`.
    pub(crate) const RATE_LIMITED: Self = Self(1 << 9);
    /// HTTP/3 post-connect failures: never met, as HTTP/3 is not supported.
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

    /// Parses a comma-separated list; like Envoy, ignores unknown words.
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

    /// Whether any condition depends on the gRPC status.
    pub(crate) fn looks_at_grpc(self) -> bool {
        let grpc = Self::GRPC_CANCELLED.0
            | Self::GRPC_DEADLINE_EXCEEDED.0
            | Self::GRPC_INTERNAL.0
            | Self::GRPC_RESOURCE_EXHAUSTED.0
            | Self::GRPC_UNAVAILABLE.0;
        self.0 & grpc != 0
    }

    /// Whether all of these conditions are set.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0 && other.0 != 0
    }
}

/// A mirror policy.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// The cluster that gets the copies.
    pub(crate) cluster: Arc<Slot<Cluster>>,
    /// The share of requests that are mirrored, in parts per million.
    pub(crate) per_million: u32,
    /// `disable_shadow_host_suffix_append`.
    pub(crate) keep_host: bool,
    /// `trace_sampled`: whether copies are marked as sampled for tracing.
    pub(crate) sampled: bool,
}

/// A hash policy.
#[derive(Debug)]
pub(crate) struct HashPolicy {
    /// What is hashed.
    pub(crate) key: HashKey,
    /// Whether further policies are skipped once there is a hash.
    pub(crate) terminal: bool,
}

/// The property of a request that is hashed.
#[derive(Debug)]
pub(crate) enum HashKey {
    /// A header's values.
    Header(HeaderName),
    /// A cookie. If it is missing and has a time to live, one is generated.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// Path of a generated cookie.
        path: Box<str>,
        /// Time to live of a generated cookie; `None`: none is generated.
        ttl: Option<Duration>,
        /// Further attributes of a generated cookie.
        attributes: Vec<(Box<str>, Box<str>)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Box<str>),
}

/// A redirect; what is `None` is the request's.
#[derive(Debug)]
pub(crate) struct Redirect {
    /// The new scheme.
    pub(crate) scheme: Option<Box<str>>,
    /// The new host.
    pub(crate) host: Option<Box<str>>,
    /// The new port.
    pub(crate) port: Option<u16>,
    /// The new path.
    pub(crate) path: Option<RedirectPath>,
    /// The status.
    pub(crate) status: StatusCode,
    /// Whether the query is left out.
    pub(crate) strip_query: bool,
    /// Whether the default port of a replaced scheme is kept.
    pub(crate) keep_port: bool,
}

/// The new path of a redirect.
#[derive(Debug)]
pub(crate) enum RedirectPath {
    /// This path.
    Full(Box<str>),
    /// The matched prefix is replaced by this.
    Prefix(Box<str>),
    /// The path is rewritten by a regular expression and a substitution.
    Regex(Regex, Box<[u8]>),
}

/// A direct response.
#[derive(Debug)]
pub(crate) struct DirectResponse {
    /// The status.
    pub(crate) status: StatusCode,
    /// The body.
    pub(crate) body: Bytes,
}

/// What route matching looks at.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The method.
    pub(crate) method: &'a Method,
    /// Path and query; scheme and authority are not looked at.
    pub(crate) uri: &'a Uri,
    /// `https` or `http`.
    pub(crate) scheme: &'a str,
    /// The authority, as the client sent it.
    pub(crate) host: &'a str,
    /// The headers.
    pub(crate) headers: &'a HeaderMap,
    /// A random number for weighted clusters and fractions, the same for the whole request.
    pub(crate) random: u64,
}

/// A matched route with its virtual host.
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
    /// The first matching route; `None`: 404.
    pub(crate) fn find(self: &Arc<Self>, request: &Request<'_>) -> Option<Matched> {
        let host = self.hosts.find(request.host, self.ignore_port)?;
        if let Some(redirect) = host.to_https.as_deref().filter(|_| request.scheme != "https") {
            return Some(redirect.clone());
        }
        // A request without a path matches no route with a path condition.
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
    /// The filter configuration for a request, by its random number if the route has weighted clusters.
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
    /// The cluster for a request, and its entry if it is a weighted one. `None`: no such cluster.
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
