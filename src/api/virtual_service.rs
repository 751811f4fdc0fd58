//! `VirtualService` of `networking.istio.io`: routing of requests and connections.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Bytes, Duration, Unsupported};

/// The spec of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// Hosts to whose traffic the rules apply. A short name is resolved in the object's namespace.
    pub hosts: Vec<String>,
    /// Gateways that apply the rules; default `mesh`, i.e. all sidecars.
    pub gateways: Vec<String>,
    /// Rules for HTTP ports, tried in order.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS passthrough ports, tried in order.
    pub tls: Vec<TlsRoute>,
    /// Rules for other ports, tried in order.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces to whose proxies the object is visible: `.`, `*` or names.
    pub export_to: Vec<String>,
}

/// `http[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// Name of the route in logs and statistics.
    pub name: String,
    /// Conditions, any one of which must match; empty matches everything.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Where requests go.
    pub route: Vec<HttpRouteDestination>,
    /// Respond with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Respond with a fixed response.
    pub direct_response: Option<HttpDirectResponse>,
    /// Delegates to another VirtualService.
    pub delegate: Option<Unsupported>,
    /// Path and authority rewrite before forwarding.
    pub rewrite: Option<HttpRewrite>,
    /// Timeout of the whole request including retries; none when unset.
    pub timeout: Option<Duration>,
    /// Retry policy; defaults to the mesh's.
    pub retries: Option<HttpRetry>,
    /// Faults to inject.
    pub fault: Option<HttpFault>,
    /// Where requests are mirrored to.
    pub mirror: Option<Destination>,
    /// Multiple mirror destinations.
    pub mirrors: Vec<HttpMirror>,
    /// Percentage of requests to mirror; deprecated integer form.
    pub mirror_percent: Option<u32>,
    /// Percentage of requests to mirror; default 100.
    pub mirror_percentage: Option<Percentage>,
    /// Cross-origin resource sharing.
    pub cors_policy: Option<CorsPolicy>,
    /// Header manipulation for all destinations of the route.
    pub headers: Option<Headers>,
}

/// `http[].match[]`: all conditions given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Appended to the route's name.
    pub name: String,
    /// Path, without the query string.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The `:authority` or `Host` header.
    pub authority: Option<StringMatch>,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, StringMatch>,
    /// The destination port of the request.
    pub port: u32,
    /// Labels of the client workload; ignored when `gateways` is set.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways the match applies to; overrides the object's.
    pub gateways: Vec<String>,
    /// Query parameters by name.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Whether `exact` and `prefix` matches of `uri` ignore case.
    pub ignore_uri_case: bool,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Namespace of the client workload; ignored when `gateways` is set.
    pub source_namespace: String,
    /// Statistics prefix of the route.
    pub stat_prefix: String,
}

/// A string matcher.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    /// The whole string.
    Exact(String),
    /// A prefix of the string.
    Prefix(String),
    /// The whole string, as an RE2 regular expression.
    Regex(String),
    /// `{}`: the header or parameter is present, whatever its value.
    #[default]
    #[serde(rename = "")]
    Present,
}

/// A routing destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// A service. A short name is resolved in the rule's namespace.
    pub host: String,
    /// A subset defined by a DestinationRule of the host; empty for all endpoints.
    pub subset: String,
    /// The port; optional if the service has only one.
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
    /// The destination.
    pub destination: Option<Destination>,
    /// Weight, relative to the sum of the route's weights.
    pub weight: i32,
    /// Header manipulation for this destination only.
    pub headers: Option<Headers>,
}

/// `tls[].route[]` and `tcp[].route[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    /// The destination.
    pub destination: Option<Destination>,
    /// Weight, relative to the sum of the route's weights.
    pub weight: i32,
}

/// Header manipulation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// Applied to requests.
    pub request: Option<HeaderOperations>,
    /// Applied to responses.
    pub response: Option<HeaderOperations>,
}

/// Header operations.
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
    /// Replacement for the matched prefix of the path.
    pub prefix_rewrite: String,
    /// The new authority.
    pub authority: String,
    /// The new port; mutually exclusive with `derivePort`.
    pub port: Option<u32>,
    /// How the new port is derived.
    pub derive_port: Option<RedirectPort>,
    /// `http` or `https`.
    pub scheme: String,
    /// The status code; 301 when 0.
    pub redirect_code: u32,
}

/// `http[].redirect.derivePort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPort {
    /// 80 for HTTP and 443 for HTTPS.
    FromProtocolDefault,
    /// The port of the original request.
    FromRequestPort,
}

/// `http[].directResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDirectResponse {
    /// The status code.
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
    /// The new path, or the replacement for its matched prefix.
    pub uri: String,
    /// The new authority.
    pub authority: String,
    /// Regular expression substitution in the path.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `http[].rewrite.uriRegexRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// An RE2 regular expression.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The substitution; `\1` refers to the first capture group.
    pub rewrite: String,
}

/// `http[].retries`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// Number of retries; 0 disables them.
    pub attempts: i32,
    /// Timeout per attempt; defaults to the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Comma-separated retry conditions and status codes.
    pub retry_on: String,
    /// Whether retries may use endpoints in other localities.
    pub retry_remote_localities: Option<bool>,
    /// Whether retries avoid hosts already attempted; default true.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base interval of the retry back-off.
    pub backoff: Option<Duration>,
}

/// `http[].fault`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFault {
    /// Delays requests.
    pub delay: Option<HttpFaultDelay>,
    /// Aborts requests.
    pub abort: Option<HttpFaultAbort>,
}

/// `http[].fault.delay`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultDelay {
    /// Percentage of requests; deprecated integer form.
    pub percent: i32,
    /// How long.
    pub fixed_delay: Option<Duration>,
    /// Reserved by Istio, which rejects it.
    pub exponential_delay: Option<Duration>,
    /// Percentage of requests; defaults to `percent`.
    pub percentage: Option<Percentage>,
}

/// `http[].fault.abort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultAbort {
    /// HTTP status code of the response.
    pub http_status: Option<i32>,
    /// gRPC status of the response, by name or number.
    pub grpc_status: Option<String>,
    /// Reserved by Istio, which rejects it.
    pub http2_error: Option<String>,
    /// Percentage of requests; none when unset.
    pub percentage: Option<Percentage>,
}

/// A percentage.
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
    /// The destination.
    pub destination: Option<Destination>,
    /// Percentage of requests; default 100.
    pub percentage: Option<Percentage>,
}

/// `http[].corsPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Allowed origins, exact; deprecated.
    pub allow_origin: Vec<String>,
    /// Allowed origins.
    pub allow_origins: Vec<StringMatch>,
    /// `access-control-allow-methods`.
    pub allow_methods: Vec<String>,
    /// `access-control-allow-headers`.
    pub allow_headers: Vec<String>,
    /// `access-control-expose-headers`.
    pub expose_headers: Vec<String>,
    /// `access-control-max-age`, in whole seconds.
    pub max_age: Option<Duration>,
    /// `access-control-allow-credentials`.
    pub allow_credentials: Option<bool>,
    /// Handling of preflight requests whose origin does not match.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// `http[].corsPolicy.unmatchedPreflights`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// Same as `FORWARD`.
    #[default]
    Unspecified,
    /// Forward to the upstream.
    Forward,
    /// Respond without CORS headers.
    Ignore,
}

/// `tls[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Conditions, any one of which must match.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Where connections go.
    pub route: Vec<RouteDestination>,
}

/// `tls[].match[]`: all conditions given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatch {
    /// SNI host names; wildcards are allowed.
    pub sni_hosts: Vec<String>,
    /// Destination addresses or CIDRs.
    pub destination_subnets: Vec<String>,
    /// The destination port.
    pub port: u32,
    /// Labels of the client workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways the match applies to; overrides the object's.
    pub gateways: Vec<String>,
    /// Namespace of the client workload.
    pub source_namespace: String,
}

/// `tcp[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Conditions, any one of which must match; empty matches everything.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    /// Where connections go.
    pub route: Vec<RouteDestination>,
}

/// `tcp[].match[]`: all conditions given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// Destination addresses or CIDRs.
    pub destination_subnets: Vec<String>,
    /// The destination port.
    pub port: u32,
    /// Accepted by Istio, but has no effect.
    pub source_subnet: String,
    /// Labels of the client workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways the match applies to; overrides the object's.
    pub gateways: Vec<String>,
    /// Namespace of the client workload.
    pub source_namespace: String,
}
