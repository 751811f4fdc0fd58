//! Route configurations: which cluster a request goes to.

use std::sync::Arc;
use std::time::Duration;

use super::{Origins, ResourceName};
use crate::mesh::destination_rule::HashKey;
use crate::mesh::virtual_service::{
    Cors, DirectResponse, Fault, HeaderOps, PathRewrite, Redirect, RetryPolicy, StringMatch,
};
use crate::name::{ObjectId, Percent};

/// A route configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// `9080`, `host:port` for sniffed ports, `inbound|9080||` inline.
    pub name: ResourceName,
    /// Virtual hosts, sorted by name, the catch-all last.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// `ignore_port_in_host_matching`: `Host: a:80` means `a`. False where the port chooses among services, as
    /// for an explicit HTTP proxy.
    pub ignore_port: bool,
    /// The objects it was made from.
    pub origins: Origins,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    /// `host:port`, `allow_any`, …
    pub name: Arc<str>,
    /// Values of `Host` it answers to; no two virtual hosts of one configuration share one.
    pub domains: Vec<Arc<str>>,
    /// Routes, first match wins.
    pub routes: Vec<Route>,
    /// `include_request_attempt_count`.
    pub attempt_count: bool,
    /// The objects it was made from.
    pub origins: Origins,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `default`, or the names of the VirtualService's route and match; may be empty.
    pub name: Arc<str>,
    /// When it applies.
    pub matcher: RouteMatch,
    /// What it does.
    pub action: RouteAction,
    /// Changes to the request's headers.
    pub request_headers: HeaderOps,
    /// Changes to the response's headers.
    pub response_headers: HeaderOps,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// CORS.
    pub cors: Option<Cors>,
    /// `decorator.operation`, `host:port/path`; may be empty.
    pub operation: Arc<str>,
    /// `istio.config` metadata: the VirtualService and its apiVersion.
    pub config: Option<(ObjectId, Arc<str>)>,
    /// `stat_prefix`; may be empty.
    pub stat_prefix: Arc<str>,
}

/// When a route applies: all of it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// `case_sensitive: false`.
    pub ignore_case: bool,
    /// Headers, pseudo-headers included.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters; `None` asks for presence.
    pub query: Vec<(Arc<str>, Option<StringMatch>)>,
}

/// How the path is compared, without the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Plain prefix, not by segments.
    Prefix(Arc<str>),
    /// Equal.
    Exact(Arc<str>),
    /// The whole path.
    Regex(Arc<str>),
}

/// How a header is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower case; `:method` and the like for pseudo-headers.
    pub name: Arc<str>,
    /// The value; `None` asks for presence.
    pub value: Option<StringMatch>,
    /// The route applies when the header does *not* match (a missing header counts as empty when a
    /// value is compared).
    pub invert: bool,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Sends the request on.
    Forward(Box<Forward>),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers itself.
    Direct(DirectResponse),
}

/// Sending a request on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Clusters and their shares; never empty, shares sum up to at least 1. One alone is sent as
    /// `cluster`, with its headers already merged into the route's.
    pub clusters: Vec<WeightedCluster>,
    /// How the path is rewritten.
    pub path_rewrite: Option<PathRewrite>,
    /// What `Host` is rewritten to.
    pub host_rewrite: Option<Arc<str>>,
    /// The whole request's limit; none: no limit. Also caps the client's `grpc-timeout`.
    pub timeout: Option<Duration>,
    /// Retries; none: no retries.
    pub retry: Option<RetryPolicy>,
    /// Whether retries avoid hosts already tried (`previous_hosts`).
    pub retry_other_hosts: bool,
    /// Copies of requests: cluster and share.
    pub mirrors: Vec<(ResourceName, Percent)>,
    /// What a consistent hash is taken of.
    pub hash: Option<HashKey>,
}

/// A cluster with its share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ResourceName,
    /// Its share.
    pub weight: u32,
    /// Changes to the request's headers, after the route's.
    pub request_headers: HeaderOps,
    /// Changes to the response's headers.
    pub response_headers: HeaderOps,
    /// What `Host` is rewritten to for this cluster.
    pub host_rewrite: Option<Arc<str>>,
}
