//! VirtualServices, lowered: how requests for a host are routed.

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
    /// Who sees it.
    pub export_to: ExportTo,
    /// `http`, in order.
    pub http: Vec<HttpRoute>,
    /// `tls`, in order.
    pub tls: Vec<TlsRoute>,
    /// `tcp`, in order.
    pub tcp: Vec<TcpRoute>,
}

impl VirtualService {
    /// Every `match` that asks which proxy the client has.
    fn sources(&self) -> impl Iterator<Item = &SourceMatch> {
        let http = self.http.iter().flat_map(|route| &route.matches).map(|m| &m.source);
        let tls = self.tls.iter().flat_map(|route| &route.matches).map(|m| &m.l4.source);
        let tcp = self.tcp.iter().flat_map(|route| &route.matches).map(|m| &m.source);
        http.chain(tls).chain(tcp)
    }

    /// All `sourceLabels`, repeats included.
    pub fn source_labels(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.sources().flat_map(|source| &source.labels)
    }

    /// Every destination of every route, mirrors and repeats included.
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
    /// `match`: any of them; none matches everything.
    pub matches: Vec<HttpMatch>,
    /// What is done.
    pub action: HttpAction,
    /// `headers`.
    pub headers: HeaderChanges,
    /// `fault`.
    pub fault: Option<Fault>,
    /// `corsPolicy`.
    pub cors: Option<Cors>,
}

/// What a route does with a request.
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

/// `route` with what applies to it.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpForward {
    /// `route`: at least one.
    pub destinations: Vec<WeightedDestination>,
    /// `rewrite`.
    pub rewrite: Option<Rewrite>,
    /// `timeout`; none means no limit, as in Istio.
    pub timeout: Option<Duration>,
    /// `retries`; none means the mesh's default policy.
    pub retries: Option<RetryPolicy>,
    /// `mirror` and `mirrors`.
    pub mirrors: Vec<Mirror>,
}

/// `match` of an HTTP route: all that is set must hold.
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
    /// `headers`, sorted by name; `None` asks for presence.
    pub headers: Vec<(Arc<str>, Option<StringMatch>)>,
    /// `withoutHeaders`.
    pub without_headers: Vec<(Arc<str>, Option<StringMatch>)>,
    /// `queryParams`.
    pub query_params: Vec<(Arc<str>, Option<StringMatch>)>,
    /// `port`.
    pub port: Option<u16>,
    /// `statPrefix`; may be empty.
    pub stat_prefix: Arc<str>,
    /// Which proxies it applies to.
    pub source: SourceMatch,
}

/// The static part of a match: which client proxies it applies to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SourceMatch {
    /// `sourceLabels`.
    pub labels: Labels,
    /// `sourceNamespace`.
    pub namespace: Option<Namespace>,
    /// `gateways` names only gateways: no sidecar.
    pub gateways_only: bool,
}

/// How a string is compared.
#[derive(Clone, Debug)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Starts with.
    Prefix(Arc<str>),
    /// RE2, the whole string.
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

/// A destination with its share of the traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// `weight`; shares are relative, zero gets nothing.
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
    /// `port.number`; none means the service's only port, else the listener's.
    pub port: Option<u16>,
}

/// `headers`: changes to requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// To the request. `:authority` and `Host` are not among them: see [`HeaderChanges::authority`].
    pub request: HeaderOps,
    /// To the response.
    pub response: HeaderOps,
    /// `request.set` of `:authority` or `Host`: rewrites the host.
    pub authority: Option<Arc<str>>,
}

/// `set`, `add` and `remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Overwrites or adds.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Appends.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Removes.
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

/// The path a redirect leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPath {
    /// `uri`: this path.
    Full(Arc<str>),
    /// `prefixRewrite`: the matched prefix replaced.
    Prefix(Arc<str>),
}

/// The port a redirect leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPort {
    /// The request's own, dropped when the scheme changes.
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

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// `uri`: the matched part replaced.
    Prefix(Arc<str>),
    /// `uriRegexRewrite`: pattern and substitution.
    Regex(Arc<str>, Arc<str>),
}

/// `retries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// `attempts`; zero turns retries off.
    pub attempts: u32,
    /// `perTryTimeout`.
    pub per_try_timeout: Option<Duration>,
    /// `retryOn`, with numbers moved to `status_codes`.
    pub retry_on: Vec<Arc<str>>,
    /// Status codes named in `retryOn`.
    pub status_codes: Vec<u16>,
    /// `retryRemoteLocalities`.
    pub remote_localities: bool,
    /// `retryIgnorePreviousHosts`; none means Istio's default: on, unless the one destination has a
    /// consistent hash.
    pub ignore_previous_hosts: Option<bool>,
    /// `backoff`; none means Envoy's 25 ms.
    pub backoff: Option<Duration>,
}

impl Default for RetryPolicy {
    /// Istio's default for every outbound route.
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

/// `mirror` or an entry of `mirrors`; a share of zero is left out in lowering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// The share of requests.
    pub percent: Percent,
}

/// `fault`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `delay`: how long and how often.
    pub delay: Option<(Duration, Percent)>,
    /// `abort`: with what and how often.
    pub abort: Option<(FaultAbort, Percent)>,
}

/// What an aborted request is answered with.
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
    /// `unmatchedPreflights` is not IGNORE: preflights that match no origin are forwarded.
    pub forward_unmatched_preflights: bool,
}

/// An entry of `tls`.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    /// `match`: at least one.
    pub matches: Vec<TlsMatch>,
    /// `route`.
    pub destinations: Vec<(Destination, u32)>,
}

/// `match` of a TLS route.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsMatch {
    /// `sniHosts`.
    pub sni_hosts: Vec<Hostname>,
    /// What else must hold.
    pub l4: L4Match,
}

/// An entry of `tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    /// `match`; none matches everything.
    pub matches: Vec<L4Match>,
    /// `route`.
    pub destinations: Vec<(Destination, u32)>,
}

/// What TLS and TCP matches have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct L4Match {
    /// `destinationSubnets`.
    pub destination_subnets: Vec<IpNet>,
    /// `port`.
    pub port: Option<u16>,
    /// Which proxies it applies to.
    pub source: SourceMatch,
}

/// Whether Envoy will take the pattern: Istio bounds its length, and the `regex` crate accepts what
/// RE2 does but for a few rare classes.
///
/// # Errors
/// The reason, when it is not a pattern.
pub fn check_regex(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.len() > 1024 {
        return Err("a regular expression of 1 to 1024 characters is needed".to_owned());
    }
    Regex::new(pattern).map(|_| ()).map_err(|error| error.to_string())
}
