//! `VirtualService` of `networking.istio.io`: how requests and connections are routed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Bytes, Duration, Unsupported};

/// The spec of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// Hosts whose traffic the rules apply to. A short name belongs to the object's namespace.
    pub hosts: Vec<String>,
    /// Gateways that apply the rules; empty means `mesh`, every sidecar.
    pub gateways: Vec<String>,
    /// Rules for HTTP ports, tried in order.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS ports that are not terminated, tried in order.
    pub tls: Vec<TlsRoute>,
    /// Rules for other ports, tried in order.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces whose proxies see the object: `.`, `*` or names.
    pub export_to: Vec<String>,
}

/// `http[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// The name of the route in logs and statistics.
    pub name: String,
    /// Alternatives, one of which must match; none match everything.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Where requests go.
    pub route: Vec<HttpRouteDestination>,
    /// Answers with a redirect instead.
    pub redirect: Option<HttpRedirect>,
    /// Answers with a fixed response instead.
    pub direct_response: Option<HttpDirectResponse>,
    /// Another VirtualService that goes on from here.
    pub delegate: Option<Unsupported>,
    /// Changes path or authority before forwarding.
    pub rewrite: Option<HttpRewrite>,
    /// The longest time for a whole request; no limit when unset.
    pub timeout: Option<Duration>,
    /// When and how often to try again; the mesh's policy when unset.
    pub retries: Option<HttpRetry>,
    /// Faults to inject.
    pub fault: Option<HttpFault>,
    /// Where to send a copy of each request.
    pub mirror: Option<Destination>,
    /// Several such places.
    pub mirrors: Vec<HttpMirror>,
    /// Share of requests to mirror, deprecated form in whole per cent.
    pub mirror_percent: Option<u32>,
    /// Share of requests to mirror; all of them when unset.
    pub mirror_percentage: Option<Percentage>,
    /// Cross-origin resource sharing.
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes of the whole route.
    pub headers: Option<Headers>,
}

/// `http[].match[]`: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Appended to the route's name.
    pub name: String,
    /// The path, without the query.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The `:authority` or `Host` header.
    pub authority: Option<StringMatch>,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, StringMatch>,
    /// The port that the client called.
    pub port: u32,
    /// Labels of the client workload; ignored when `gateways` is set.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that this match is for, instead of the object's.
    pub gateways: Vec<String>,
    /// Query parameters by name.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Whether `uri` is compared without regard to case (`exact` and `prefix`).
    pub ignore_uri_case: bool,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Namespace of the client workload; ignored when `gateways` is set.
    pub source_namespace: String,
    /// Prefix of the route's statistics.
    pub stat_prefix: String,
}

/// How a text is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    /// The whole text.
    Exact(String),
    /// The start of the text.
    Prefix(String),
    /// The whole text, by an RE2 regular expression.
    Regex(String),
    /// `{}`: whatever the text, it must be there.
    #[default]
    #[serde(rename = "")]
    Present,
}

/// Where traffic goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// A service of the mesh. A short name belongs to the rule's namespace.
    pub host: String,
    /// A subset that a DestinationRule of the host defines; empty for all endpoints.
    pub subset: String,
    /// The port; may be left out when the service has only one.
    pub port: Option<PortSelector>,
}

/// A port by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// 1 to 65535.
    pub number: u32,
}

/// `http[].route[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// The share, relative to the sum of all weights of the route.
    pub weight: i32,
    /// Header changes for this destination only.
    pub headers: Option<Headers>,
}

/// `tls[].route[]` and `tcp[].route[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// The share, relative to the sum of all weights of the route.
    pub weight: i32,
}

/// Header changes in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// Before a request is forwarded.
    pub request: Option<HeaderOperations>,
    /// Before a response goes back.
    pub response: Option<HeaderOperations>,
}

/// Changes to headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Headers to replace.
    pub set: BTreeMap<String, String>,
    /// Headers to append.
    pub add: BTreeMap<String, String>,
    /// Headers to remove.
    pub remove: Vec<String>,
}

/// `http[].redirect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    /// The new path.
    pub uri: String,
    /// What replaces the matched prefix of the path.
    pub prefix_rewrite: String,
    /// The new authority.
    pub authority: String,
    /// The new port; excludes `derivePort`.
    pub port: Option<u32>,
    /// Where to take the new port from.
    pub derive_port: Option<RedirectPort>,
    /// `http` or `https`.
    pub scheme: String,
    /// The status, 301 when 0.
    pub redirect_code: u32,
}

/// `http[].redirect.derivePort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPort {
    /// 80 for HTTP and 443 for HTTPS.
    FromProtocolDefault,
    /// The port of the request.
    FromRequestPort,
}

/// `http[].directResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDirectResponse {
    /// The status.
    pub status: u32,
    /// The body, if any.
    pub body: Option<HttpBody>,
}

/// `http[].directResponse.body`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpBody {
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Bytes),
    /// `{}`: no body.
    #[default]
    #[serde(rename = "")]
    Empty,
}

/// `http[].rewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// The new path, or what replaces the matched prefix of it.
    pub uri: String,
    /// The new authority.
    pub authority: String,
    /// A substitution in the path.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `http[].rewrite.uriRegexRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// An RE2 regular expression.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What replaces each match; `\1` is the first group.
    pub rewrite: String,
}

/// `http[].retries`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// How often to try again; 0 for never.
    pub attempts: i32,
    /// The longest time for one try; the route's timeout when unset.
    pub per_try_timeout: Option<Duration>,
    /// Conditions and status codes, joined by commas.
    pub retry_on: String,
    /// Whether to try endpoints of other localities too.
    pub retry_remote_localities: Option<bool>,
    /// Whether to avoid the endpoints that failed already; true when unset.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// The first pause between two tries.
    pub backoff: Option<Duration>,
}

/// `http[].fault`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFault {
    /// Requests to delay.
    pub delay: Option<HttpFaultDelay>,
    /// Requests to abort.
    pub abort: Option<HttpFaultAbort>,
}

/// `http[].fault.delay`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultDelay {
    /// Share in whole per cent, deprecated.
    pub percent: i32,
    /// How long.
    pub fixed_delay: Option<Duration>,
    /// Reserved by Istio, which refuses it.
    pub exponential_delay: Option<Duration>,
    /// The share; `percent` when unset.
    pub percentage: Option<Percentage>,
}

/// `http[].fault.abort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultAbort {
    /// The HTTP status to answer with.
    pub http_status: Option<i32>,
    /// The gRPC status to answer with, by name or number.
    pub grpc_status: Option<String>,
    /// Reserved by Istio, which refuses it.
    pub http2_error: Option<String>,
    /// The share; none when unset.
    pub percentage: Option<Percentage>,
}

/// A share as Istio writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Percentage {
    /// 0 to 100.
    pub value: f64,
}

/// `http[].mirrors[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMirror {
    /// Where to.
    pub destination: Option<Destination>,
    /// The share; all when unset.
    pub percentage: Option<Percentage>,
}

/// `http[].corsPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Exact origins, deprecated.
    pub allow_origin: Vec<String>,
    /// Origins.
    pub allow_origins: Vec<StringMatch>,
    /// `access-control-allow-methods`.
    pub allow_methods: Vec<String>,
    /// `access-control-allow-headers`.
    pub allow_headers: Vec<String>,
    /// `access-control-expose-headers`.
    pub expose_headers: Vec<String>,
    /// `access-control-max-age`, whole seconds.
    pub max_age: Option<Duration>,
    /// `access-control-allow-credentials`.
    pub allow_credentials: Option<bool>,
    /// What happens to preflights that no origin matches.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// `http[].corsPolicy.unmatchedPreflights`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// As `FORWARD`.
    #[default]
    Unspecified,
    /// They go to the upstream.
    Forward,
    /// They are answered here, without CORS headers.
    Ignore,
}

/// `tls[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Alternatives, one of which must match.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Where connections go.
    pub route: Vec<RouteDestination>,
}

/// `tls[].match[]`: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatch {
    /// Server names, wildcards allowed.
    pub sni_hosts: Vec<String>,
    /// Addresses or CIDRs that the client called.
    pub destination_subnets: Vec<String>,
    /// The port that the client called.
    pub port: u32,
    /// Labels of the client workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that this match is for, instead of the object's.
    pub gateways: Vec<String>,
    /// Namespace of the client workload.
    pub source_namespace: String,
}

/// `tcp[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Alternatives, one of which must match; none match everything.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    /// Where connections go.
    pub route: Vec<RouteDestination>,
}

/// `tcp[].match[]`: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// Addresses or CIDRs that the client called.
    pub destination_subnets: Vec<String>,
    /// The port that the client called.
    pub port: u32,
    /// Accepted by Istio, without effect.
    pub source_subnet: String,
    /// Labels of the client workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that this match is for, instead of the object's.
    pub gateways: Vec<String>,
    /// Namespace of the client workload.
    pub source_namespace: String,
}
