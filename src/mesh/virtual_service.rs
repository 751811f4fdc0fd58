//! VirtualServices, lowered: routing rules for hosts.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;

use super::{ExportTo, Labels};
use crate::name::{Hostname, Namespace, ObjectId, Percent};

/// A VirtualService that applies to sidecars (`gateways` absent or with `mesh`).
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// The object.
    pub id: ObjectId,
    /// `apiVersion` as written, for Envoy's `istio.config` metadata.
    pub api_version: Arc<str>,
    /// `hosts`, fully qualified.
    pub hosts: Vec<Hostname>,
    /// Visibility.
    pub export_to: ExportTo,
    /// `http`, in order.
    pub http: Vec<HttpRoute>,
    /// `tls`, in order.
    pub tls: Vec<TlsRoute>,
    /// `tcp`, in order.
    pub tcp: Vec<TcpRoute>,
}

impl VirtualService {
    /// The source criteria of all `match`es.
    fn sources(&self) -> impl Iterator<Item = &SourceMatch> {
        let http = self.http.iter().flat_map(|route| &route.matches).map(|m| &m.source);
        let tls = self.tls.iter().flat_map(|route| &route.matches).map(|m| &m.l4.source);
        let tcp = self.tcp.iter().flat_map(|route| &route.matches).map(|m| &m.source);
        http.chain(tls).chain(tcp)
    }

    /// All `sourceLabels`; may repeat.
    pub fn source_labels(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.sources().flat_map(|source| &source.labels)
    }

    /// Destinations of all routes, mirrors included; may repeat.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let http = self.http.iter().flat_map(|route| route.action.destinations());
        let tls = self.tls.iter().flat_map(|route| &route.destinations);
        let tcp = self.tcp.iter().flat_map(|route| &route.destinations);
        http.chain(tls.chain(tcp).map(|(destination, _)| destination))
    }
}

/// An entry of `http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// `name`; may be empty.
    pub name: Arc<str>,
    /// `match`: any must match; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// The action.
    pub action: HttpAction,
    /// `headers`.
    pub headers: HeaderChanges,
    /// `fault`.
    pub fault: Option<Fault>,
    /// `corsPolicy`.
    pub cors: Option<Cors>,
}

/// Action of an HTTP route.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpAction {
    /// `route`.
    Forward(Box<HttpForward>),
    /// `redirect`.
    Redirect(Redirect),
    /// `directResponse`.
    Direct(DirectResponse),
}

impl HttpAction {
    fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let forward = match self {
            HttpAction::Forward(forward) => Some(forward),
            HttpAction::Redirect(_) | HttpAction::Direct(_) => None,
        };
        forward.into_iter().flat_map(|forward| {
            let routes = forward.destinations.iter().map(|weighted| &weighted.destination);
            routes.chain(forward.mirrors.iter().map(|mirror| &mirror.destination))
        })
    }
}

/// `route` and the settings that apply to it.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpForward {
    /// `route`; never empty.
    pub destinations: Vec<WeightedDestination>,
    /// `rewrite`.
    pub rewrite: Option<Rewrite>,
    /// `timeout`; `None` disables it, as in Istio.
    pub timeout: Option<Duration>,
    /// `retries`; `None` means the mesh's default policy.
    pub retries: Option<RetryPolicy>,
    /// `mirror` and `mirrors`.
    pub mirrors: Vec<Mirror>,
}

/// `match` of an HTTP route: all criteria that are set must hold.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct HttpMatch {
    /// `name`; may be empty.
    pub name: Arc<str>,
    /// `uri`.
    pub uri: Option<StringMatch>,
    /// `ignoreUriCase`.
    pub ignore_uri_case: bool,
    /// `scheme`.
    pub scheme: Option<StringMatch>,
    /// `method`.
    pub method: Option<StringMatch>,
    /// `authority`.
    pub authority: Option<StringMatch>,
    /// `headers`, sorted by name; `None` matches if present.
    pub headers: Vec<(Arc<str>, Option<StringMatch>)>,
    /// `withoutHeaders`.
    pub without_headers: Vec<(Arc<str>, Option<StringMatch>)>,
    /// `queryParams`.
    pub query_params: Vec<(Arc<str>, Option<StringMatch>)>,
    /// `port`.
    pub port: Option<u16>,
    /// `statPrefix`; may be empty.
    pub stat_prefix: Arc<str>,
    /// The client proxies it applies to.
    pub source: SourceMatch,
}

/// The static part of a match: the client proxies it applies to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SourceMatch {
    /// `sourceLabels`.
    pub labels: Labels,
    /// `sourceNamespace`.
    pub namespace: Option<Namespace>,
    /// Whether `gateways` excludes sidecars.
    pub gateways_only: bool,
}

/// String matcher.
#[derive(Clone, Debug)]
pub enum StringMatch {
    /// Exact match.
    Exact(Arc<str>),
    /// Prefix match.
    Prefix(Arc<str>),
    /// RE2 regular expression for the whole string.
    Regex(Arc<str>),
}

impl PartialEq for StringMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (StringMatch::Exact(a), StringMatch::Exact(b))
            | (StringMatch::Prefix(a), StringMatch::Prefix(b))
            | (StringMatch::Regex(a), StringMatch::Regex(b)) => a == b,
            (StringMatch::Exact(_) | StringMatch::Prefix(_) | StringMatch::Regex(_), _) => false,
        }
    }
}

impl Eq for StringMatch {}

/// A destination and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedDestination {
    /// The destination.
    pub destination: Destination,
    /// `weight`, relative; a destination with weight 0 gets no traffic.
    pub weight: u32,
    /// `headers`, applied after those of the route.
    pub headers: HeaderChanges,
}

/// `destination`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// `host`, fully qualified.
    pub host: Hostname,
    /// `subset`.
    pub subset: Option<Arc<str>>,
    /// `port.number`; `None` means the service's only port, else the listener's.
    pub port: Option<u16>,
}

/// `headers`: operations on requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// On requests. Excludes `:authority` and `Host`, see [`HeaderChanges::authority`].
    pub request: HeaderOps,
    /// On responses.
    pub response: HeaderOps,
    /// `request.set` of `:authority` or `Host`, which rewrites the host.
    pub authority: Option<Arc<str>>,
}

/// `set`, `add` and `remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Set, replacing existing values.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Appended.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Removed.
    pub remove: Vec<Arc<str>>,
}

/// `redirect`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// `uri` or `prefixRewrite`.
    pub path: Option<RedirectPath>,
    /// `authority`.
    pub authority: Option<Arc<str>>,
    /// `port` and `derivePort`.
    pub port: RedirectPort,
    /// `scheme`.
    pub scheme: Option<Arc<str>>,
    /// `redirectCode`: 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// Path of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPath {
    /// `uri`: replaces the path.
    Full(Arc<str>),
    /// `prefixRewrite`: replaces the matched prefix.
    Prefix(Arc<str>),
}

/// Port of a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPort {
    /// The request's port, dropped if the scheme changes.
    #[default]
    Unset,
    /// `port`.
    Number(u16),
    /// `derivePort: FROM_PROTOCOL_DEFAULT`.
    ProtocolDefault,
    /// `derivePort: FROM_REQUEST_PORT`.
    RequestPort,
}

/// `directResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// `status`, 200 to 599.
    pub status: u16,
    /// `body`.
    pub body: Option<Arc<[u8]>>,
}

/// `rewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// `uri` or `uriRegexRewrite`.
    pub path: Option<PathRewrite>,
    /// `authority`.
    pub authority: Option<Arc<str>>,
}

/// Path rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// `uri`: replaces the matched part.
    Prefix(Arc<str>),
    /// `uriRegexRewrite`: pattern and substitution.
    Regex(Arc<str>, Arc<str>),
}

/// `retries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// `attempts`; zero disables retries.
    pub attempts: u32,
    /// `perTryTimeout`.
    pub per_try_timeout: Option<Duration>,
    /// `retryOn`, except status codes.
    pub retry_on: Vec<Arc<str>>,
    /// Status codes in `retryOn`.
    pub status_codes: Vec<u16>,
    /// `retryRemoteLocalities`.
    pub remote_localities: bool,
    /// `retryIgnorePreviousHosts`; `None` means Istio's default: on, unless the route has a single
    /// destination with consistent hashing.
    pub ignore_previous_hosts: Option<bool>,
    /// `backoff`; `None` means Envoy's default of 25 ms.
    pub backoff: Option<Duration>,
}

impl Default for RetryPolicy {
    /// Istio's default for outbound routes.
    fn default() -> Self {
        let on = [
            "connect-failure",
            "refused-stream",
            "unavailable",
            "cancelled",
            "retriable-status-codes",
        ];
        Self {
            attempts: 2,
            per_try_timeout: None,
            retry_on: on.into_iter().map(Arc::from).collect(),
            status_codes: Vec::new(),
            remote_localities: false,
            ignore_previous_hosts: None,
            backoff: None,
        }
    }
}

/// `mirror` or an entry of `mirrors`. Mirrors of zero percent are dropped in lowering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The destination.
    pub destination: Destination,
    /// Share of requests.
    pub percent: Percent,
}

/// `fault`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `delay`: duration and share of requests.
    pub delay: Option<(Duration, Percent)>,
    /// `abort`: response and share of requests.
    pub abort: Option<(FaultAbort, Percent)>,
}

/// Response to an aborted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAbort {
    /// `httpStatus`.
    Http(u16),
    /// `grpcStatus`, as a number.
    Grpc(u32),
}

/// `corsPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `allowOrigins`.
    pub allow_origins: Vec<StringMatch>,
    /// `allowMethods`.
    pub allow_methods: Vec<Arc<str>>,
    /// `allowHeaders`.
    pub allow_headers: Vec<Arc<str>>,
    /// `exposeHeaders`.
    pub expose_headers: Vec<Arc<str>>,
    /// `maxAge`, whole seconds.
    pub max_age: Option<Duration>,
    /// `allowCredentials`.
    pub allow_credentials: Option<bool>,
    /// Whether preflights whose origin does not match are forwarded: `unmatchedPreflights` other
    /// than `IGNORE`.
    pub forward_unmatched_preflights: bool,
}

/// An entry of `tls`.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    /// `match`; never empty.
    pub matches: Vec<TlsMatch>,
    /// `route`.
    pub destinations: Vec<(Destination, u32)>,
}

/// `match` of a TLS route.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsMatch {
    /// `sniHosts`.
    pub sni_hosts: Vec<Hostname>,
    /// Criteria common with TCP.
    pub l4: L4Match,
}

/// An entry of `tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    /// `match`; empty matches everything.
    pub matches: Vec<L4Match>,
    /// `route`.
    pub destinations: Vec<(Destination, u32)>,
}

/// Match criteria common to TLS and TCP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct L4Match {
    /// `destinationSubnets`.
    pub destination_subnets: Vec<IpNet>,
    /// `port`.
    pub port: Option<u16>,
    /// The client proxies it applies to.
    pub source: SourceMatch,
}

/// Checks whether Envoy accepts a regular expression. Istio limits its length, and the syntax is
/// RE2's.
///
/// # Errors
///
/// Why the pattern is invalid.
pub fn check_regex(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.len() > 1024 {
        return Err("expected a regular expression of 1 to 1024 characters".to_owned());
    }
    Regex::new(pattern).map(|_| ()).map_err(|error| error.to_string())
}
