//! Route configurations: the mapping of requests to clusters.

use std::sync::Arc;
use std::time::Duration;

use super::{Origins, ResourceName};
use crate::mesh::destination_rule::HashKey;
use crate::mesh::virtual_service::{
    Cors, DirectResponse, Fault, HeaderOps, PathRewrite, Redirect, RetryPolicy, StringMatch,
};
use crate::name::{ObjectId, Percent};

/// A route configuration (`RouteConfiguration`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// `9080`, `host:port` for ports with protocol detection, `inbound|9080||` inline.
    pub name: ResourceName,
    /// Virtual hosts, sorted by name, the catch-all last.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// `ignore_port_in_host_matching`: `Host: a:80` matches the domain `a`. False where the port in
    /// the request selects the service, as for an explicit HTTP proxy.
    pub ignore_port: bool,
    /// The objects it was built from.
    pub origins: Origins,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    /// `host:port`, `allow_any`, …
    pub name: Arc<str>,
    /// Values of `Host` it matches; unique within a route configuration.
    pub domains: Vec<Arc<str>>,
    /// Routes; the first match wins.
    pub routes: Vec<Route>,
    /// `include_request_attempt_count`.
    pub attempt_count: bool,
    /// The objects it was built from.
    pub origins: Origins,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `default`, or the names of the VirtualService's route and match; may be empty.
    pub name: Arc<str>,
    /// Match criteria.
    pub matcher: RouteMatch,
    /// The action.
    pub action: RouteAction,
    /// Header operations on requests.
    pub request_headers: HeaderOps,
    /// Header operations on responses.
    pub response_headers: HeaderOps,
    /// Fault injection.
    pub fault: Option<Fault>,
    /// CORS policy.
    pub cors: Option<Cors>,
    /// `decorator.operation`, `host:port/path`; may be empty.
    pub operation: Arc<str>,
    /// `istio.config` metadata: the VirtualService and its apiVersion.
    pub config: Option<(ObjectId, Arc<str>)>,
    /// `stat_prefix`; may be empty.
    pub stat_prefix: Arc<str>,
}

/// Match criteria of a route; all must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// `case_sensitive: false` for the path.
    pub ignore_case: bool,
    /// Headers, pseudo-headers included.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters; `None` matches if present.
    pub query: Vec<(Arc<str>, Option<StringMatch>)>,
}

/// Path matcher; excludes the query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// String prefix, not segment-wise.
    Prefix(Arc<str>),
    /// Exact path.
    Exact(Arc<str>),
    /// RE2 regular expression for the whole path.
    Regex(Arc<str>),
}

/// Header matcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower case; `:method` and the like for pseudo-headers.
    pub name: Arc<str>,
    /// Value; `None` matches if present.
    pub value: Option<StringMatch>,
    /// `invert_match`. For value matches a missing header counts as empty.
    pub invert: bool,
}

/// Action of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Forwards the request.
    Forward(Box<Forward>),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Responds directly.
    Direct(DirectResponse),
}

/// Settings for forwarding a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Clusters and their weights; never empty, with a sum of at least 1. A single one is sent as
    /// `cluster`, with its header operations already merged into the route's.
    pub clusters: Vec<WeightedCluster>,
    /// How the path is rewritten.
    pub path_rewrite: Option<PathRewrite>,
    /// Host rewrite.
    pub host_rewrite: Option<Arc<str>>,
    /// Timeout of the whole request; `None` disables it. Also the upper bound of `grpc-timeout`.
    pub timeout: Option<Duration>,
    /// Retry policy; `None` disables retries.
    pub retry: Option<RetryPolicy>,
    /// Whether retries avoid hosts already attempted (`previous_hosts`).
    pub retry_other_hosts: bool,
    /// Mirror clusters and the share of requests.
    pub mirrors: Vec<(ResourceName, Percent)>,
    /// Hash key for consistent hashing.
    pub hash: Option<HashKey>,
}

/// A cluster and its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ResourceName,
    /// Its weight.
    pub weight: u32,
    /// Header operations on requests, applied after the route's.
    pub request_headers: HeaderOps,
    /// Header operations on responses.
    pub response_headers: HeaderOps,
    /// Host rewrite for this cluster.
    pub host_rewrite: Option<Arc<str>>,
}
