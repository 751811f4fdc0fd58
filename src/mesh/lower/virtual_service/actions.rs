//! Actions and filters of an HTTP route: everything besides its destinations.

use std::sync::Arc;
use std::time::Duration;

use crate::api::FieldPath;
use crate::api::virtual_service as api;
use crate::mesh::lower::report::Report;
use crate::mesh::lower::value::is_header_name;
use crate::mesh::virtual_service::{
    Cors, DirectResponse, Fault, FaultAbort, PathRewrite, Redirect, RedirectPath, RedirectPort, RetryPolicy, Rewrite,
    StringMatch,
};
use crate::name::Percent;

/// `redirect`.
pub(super) fn redirect(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRedirect) -> Redirect {
    let changes_path = !entry.uri.is_empty() || !entry.prefix_rewrite.is_empty();
    let changes = changes_path || !entry.authority.is_empty() || !entry.scheme.is_empty();
    if !changes && entry.port.is_none() && entry.derive_port.is_none() {
        report
            .error(at, "this redirect leads back to the requested URL")
            .help("set `uri`, `prefixRewrite`, `authority`, `port` or `scheme`");
    }
    if !entry.uri.is_empty() && !entry.prefix_rewrite.is_empty() {
        report.error(
            &at.field("prefixRewrite"),
            "`prefixRewrite` and `uri` are mutually exclusive",
        );
    }
    if !matches!(entry.scheme.as_str(), "" | "http" | "https") {
        let scheme = &entry.scheme;
        report.error(
            &at.field("scheme"),
            format!("`{scheme}` is not a valid redirect scheme: expected `http` or `https`"),
        );
    }
    Redirect {
        path: text(&entry.uri)
            .map(RedirectPath::Full)
            .or_else(|| text(&entry.prefix_rewrite).map(RedirectPath::Prefix)),
        authority: text(&entry.authority),
        port: redirect_port(report, at, entry),
        scheme: text(&entry.scheme),
        code: redirect_code(report, at, entry.redirect_code),
    }
}

fn redirect_port(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRedirect) -> RedirectPort {
    if entry.port.is_some() && entry.derive_port.is_some() {
        report.error(
            &at.field("derivePort"),
            "`derivePort` and `port` are mutually exclusive",
        );
    }
    match (entry.port, entry.derive_port) {
        (Some(number), _) => report
            .optional_port(&at.field("port"), number)
            .map_or(RedirectPort::Unset, RedirectPort::Number),
        (None, Some(api::RedirectPort::FromProtocolDefault)) => RedirectPort::ProtocolDefault,
        (None, Some(api::RedirectPort::FromRequestPort)) => RedirectPort::RequestPort,
        (None, None) => RedirectPort::Unset,
    }
}

/// Istio accepts any 3xx code; Envoy supports five and rejects routes with others.
fn redirect_code(report: &mut Report<'_>, at: &FieldPath, code: u32) -> u16 {
    match code {
        0 | 301 => 301,
        302 => 302,
        303 => 303,
        307 => 307,
        308 => 308,
        other => {
            report.error(
                &at.field("redirectCode"),
                format!("{other} is not a redirect code supported by Envoy: expected 301, 302, 303, 307 or 308"),
            );
            301
        }
    }
}

/// `directResponse`.
pub(super) fn direct_response(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::HttpDirectResponse,
) -> DirectResponse {
    const WARNED: usize = 100 * 1024;
    const LARGEST: usize = 1024 * 1024;
    let body: Option<&[u8]> = entry.body.as_ref().and_then(|body| match body {
        api::HttpBody::String(text) => Some(text.as_bytes()),
        api::HttpBody::Bytes(bytes) => Some(bytes.0.as_slice()),
        api::HttpBody::Empty => None,
    });
    let size = body.map_or(0, <[u8]>::len);
    if size > LARGEST {
        report.error(
            &at.field("body"),
            format!("the body has {size} bytes, exceeding the limit of 1 MiB"),
        );
    } else if size > WARNED {
        report.warning(
            &at.field("body"),
            format!("the body has {size} bytes, which are sent to and stored by every proxy"),
        );
    }
    let status = u16::try_from(entry.status).unwrap_or(u16::MAX);
    if !(200..600).contains(&status) {
        let status = entry.status;
        report.error(
            &at.field("status"),
            format!("{status} is not a valid response status: expected 200 to 599"),
        );
    }
    DirectResponse {
        status,
        body: body.map(Arc::from),
    }
}

/// `rewrite`.
pub(super) fn rewrite(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRewrite) -> Rewrite {
    let regex_at = at.field("uriRegexRewrite");
    if entry.uri_regex_rewrite.is_some() && !entry.uri.is_empty() {
        report.error(&regex_at, "`uriRegexRewrite` and `uri` are mutually exclusive");
    }
    if entry.uri_regex_rewrite.is_none() && entry.uri.is_empty() && entry.authority.is_empty() {
        report
            .error(at, "this rewrite changes nothing")
            .help("set `uri`, `uriRegexRewrite` or `authority`");
    }
    let regex = entry.uri_regex_rewrite.as_ref().map(|regex| {
        if regex.rewrite.is_empty() {
            report.error(&regex_at.field("rewrite"), "the replacement must not be empty");
        }
        report.regex(&regex_at.field("match"), &regex.pattern);
        PathRewrite::Regex(regex.pattern.as_str().into(), regex.rewrite.as_str().into())
    });
    Rewrite {
        path: text(&entry.uri).map(PathRewrite::Prefix).or(regex),
        authority: text(&entry.authority),
    }
}

/// `retries` of a route or the mesh.
pub(in crate::mesh::lower) fn retries(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRetry) -> RetryPolicy {
    let attempts = u32::try_from(entry.attempts).unwrap_or_else(|_| {
        report.error(
            &at.field("attempts"),
            format!("the number of attempts must not be negative: {}", entry.attempts),
        );
        0
    });
    if entry.attempts == 0 {
        without_attempts(report, at, entry);
    }
    let (retry_on, status_codes) = retry_on(report, &at.field("retryOn"), &entry.retry_on);
    RetryPolicy {
        attempts,
        per_try_timeout: report.duration(&at.field("perTryTimeout"), entry.per_try_timeout),
        retry_on,
        status_codes,
        remote_localities: entry.retry_remote_localities.unwrap_or(false),
        ignore_previous_hosts: entry.retry_ignore_previous_hosts,
        backoff: report.duration(&at.field("backoff"), entry.backoff),
    }
}

/// Reports settings that are ignored with zero attempts.
fn without_attempts(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRetry) {
    let given = [
        ("perTryTimeout", entry.per_try_timeout.is_some()),
        ("retryOn", !entry.retry_on.is_empty()),
        ("retryRemoteLocalities", entry.retry_remote_localities.is_some()),
        ("retryIgnorePreviousHosts", entry.retry_ignore_previous_hosts.is_some()),
        ("backoff", entry.backoff.is_some()),
    ];
    for (field, _) in given.iter().filter(|(_, given)| *given) {
        report
            .error(&at.field(*field), format!("`{field}` has no effect without attempts"))
            .help("set `attempts`; 0 disables retries");
    }
}

/// Splits the conditions from the status codes. Empty means Istio's default.
fn retry_on(report: &mut Report<'_>, at: &FieldPath, text: &str) -> (Vec<Arc<str>>, Vec<u16>) {
    if text.is_empty() {
        return (RetryPolicy::default().retry_on, Vec::new());
    }
    let (mut conditions, mut codes) = (Vec::<Arc<str>>::new(), Vec::new());
    for token in text.split(',').map(str::trim) {
        if let Some(code) = token.parse::<u16>().ok().filter(|code| is_status(*code)) {
            codes.push(code);
        } else if CONDITIONS.contains(&token) {
            conditions.push(token.into());
        } else {
            let problem = report.error(at, format!("`{token}` is not a valid retry condition"));
            let close = CONDITIONS.iter().find(|known| strsim::jaro(known, token) > 0.85);
            match close {
                Some(known) => problem.help(format!("did you mean `{known}`?")),
                None => problem.help(format!("expected a status code or one of: {}", CONDITIONS.join(", "))),
            };
        }
    }
    if !codes.is_empty() && !conditions.iter().any(|known| &**known == STATUS_CODES) {
        conditions.push(STATUS_CODES.into());
    }
    (conditions, codes)
}

const STATUS_CODES: &str = "retriable-status-codes";

const CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    STATUS_CODES,
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Whether the status code is registered, as in Go's `http.StatusText`.
fn is_status(code: u16) -> bool {
    http::StatusCode::from_u16(code).is_ok_and(|status| status.canonical_reason().is_some())
}

/// `fault`.
pub(super) fn fault(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpFault) -> Fault {
    if entry.delay.is_none() && entry.abort.is_none() {
        report.error(at, "a fault must have `delay` or `abort`");
    }
    Fault {
        delay: entry
            .delay
            .as_ref()
            .and_then(|delay| fault_delay(report, &at.field("delay"), delay)),
        abort: entry
            .abort
            .as_ref()
            .and_then(|abort| fault_abort(report, &at.field("abort"), abort)),
    }
}

fn fault_delay(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpFaultDelay) -> Option<(Duration, Percent)> {
    if entry.exponential_delay.is_some() {
        report
            .error(
                &at.field("exponentialDelay"),
                "`exponentialDelay` is reserved by Istio and has no effect",
            )
            .help("use `fixedDelay`");
    }
    let percent = percentage(report, &at.field("percentage"), entry.percentage, SMALLEST).unwrap_or_else(|| {
        let whole = report.whole_percent(&at.field("percent"), entry.percent);
        report.name(at, Percent::new(f64::from(whole))).unwrap_or(Percent::FULL)
    });
    never(report, at, percent);
    let delay = report.duration(&at.field("fixedDelay"), entry.fixed_delay);
    if delay.is_none() && entry.exponential_delay.is_none() {
        report.warning(at, "a delay without `fixedDelay` has no effect");
    }
    Some((delay?, percent))
}

fn fault_abort(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpFaultAbort) -> Option<(FaultAbort, Percent)> {
    if entry.http2_error.is_some() {
        report.error(
            &at.field("http2Error"),
            "`http2Error` is reserved by Istio and has no effect",
        );
    }
    if entry.http_status.is_some() && entry.grpc_status.is_some() {
        report.error(
            &at.field("grpcStatus"),
            "`grpcStatus` and `httpStatus` are mutually exclusive",
        );
    }
    let none = Percent::new(0.0).unwrap_or(Percent::FULL);
    let percent = percentage(report, &at.field("percentage"), entry.percentage, SMALLEST).unwrap_or(none);
    never(report, at, percent);
    let abort = match (entry.http_status, entry.grpc_status.as_deref()) {
        (Some(status), _) => http_status(report, &at.field("httpStatus"), status).map(FaultAbort::Http),
        (None, Some(name)) => grpc_status(report, &at.field("grpcStatus"), name).map(FaultAbort::Grpc),
        (None, None) => {
            report.warning(at, "an abort without `httpStatus` or `grpcStatus` has no effect");
            None
        }
    };
    Some((abort?, percent))
}

/// Reports a fault with a share of zero, which is the default.
fn never(report: &mut Report<'_>, at: &FieldPath, percent: Percent) {
    if percent.per_million() == 0 {
        report
            .info(at, "this fault is never injected: its percentage is zero")
            .help("set `percentage: {value: 100}`");
    }
}

fn http_status(report: &mut Report<'_>, at: &FieldPath, status: i32) -> Option<u16> {
    let valid = u16::try_from(status).ok().filter(|code| (200..600).contains(code));
    if valid.is_none() {
        report.error(
            at,
            format!("{status} is not a valid response status: expected 200 to 599"),
        );
    }
    valid
}

/// The code of a gRPC status, by name or number.
fn grpc_status(report: &mut Report<'_>, at: &FieldPath, name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let found = (0..).zip(NAMES).find(|(_, known)| *known == name);
    if found.is_none() {
        report
            .error(at, format!("`{name}` is not a gRPC status name"))
            .help(format!("expected one of: {}", NAMES.join(", ")));
    }
    found.map(|(number, _)| number)
}

/// Smallest non-zero percentage that Istio accepts for faults.
const SMALLEST: f64 = 0.0001;

/// A percentage: 0, or from `smallest` to 100.
pub(super) fn percentage(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: Option<api::Percentage>,
    smallest: f64,
) -> Option<Percent> {
    let value = entry?.value;
    if value > 0.0 && value < smallest {
        report.error(
            &at.field("value"),
            format!("{value} is less than the smallest supported percentage, {smallest}"),
        );
    }
    report.name(&at.field("value"), Percent::new(value))
}

/// `corsPolicy`.
pub(super) fn cors(report: &mut Report<'_>, at: &FieldPath, entry: &api::CorsPolicy) -> Cors {
    let mut origins = Vec::new();
    for (index, origin) in entry.allow_origins.iter().enumerate() {
        origins.extend(cors_origin(report, &at.field("allowOrigins").index(index), origin));
    }
    if !entry.allow_origin.is_empty() {
        report
            .warning(&at.field("allowOrigin"), "`allowOrigin` is deprecated")
            .help("use `allowOrigins` with `exact`");
        if origins.is_empty() {
            let exact = |origin: &String| StringMatch::Exact(origin.as_str().into());
            origins.extend(entry.allow_origin.iter().map(exact));
        }
    }
    for (index, method) in entry.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            report
                .error(
                    &at.field("allowMethods").index(index),
                    format!("`{method}` is not an HTTP method"),
                )
                .help(format!("expected one of: {}", METHODS.join(", ")));
        }
    }
    Cors {
        allow_origins: origins,
        allow_methods: entry.allow_methods.iter().map(|text| text.as_str().into()).collect(),
        allow_headers: cors_headers(report, &at.field("allowHeaders"), &entry.allow_headers),
        expose_headers: cors_headers(report, &at.field("exposeHeaders"), &entry.expose_headers),
        max_age: max_age(report, &at.field("maxAge"), entry.max_age),
        allow_credentials: entry.allow_credentials,
        forward_unmatched_preflights: match entry.unmatched_preflights {
            api::UnmatchedPreflights::Unspecified | api::UnmatchedPreflights::Forward => true,
            api::UnmatchedPreflights::Ignore => false,
        },
    }
}

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
];

fn cors_origin(report: &mut Report<'_>, at: &FieldPath, origin: &api::StringMatch) -> Option<StringMatch> {
    let empty = match origin {
        api::StringMatch::Exact(text) | api::StringMatch::Prefix(text) | api::StringMatch::Regex(text) => {
            text.is_empty()
        }
        api::StringMatch::Present => true,
    };
    if empty {
        report.error(at, "an origin must not be empty");
        return None;
    }
    report.string_match(at, origin)
}

fn cors_headers(report: &mut Report<'_>, at: &FieldPath, names: &[String]) -> Vec<Arc<str>> {
    for (index, name) in names.iter().enumerate() {
        if name != "*" && !is_header_name(name) {
            report.error(&at.index(index), format!("`{name}` is not a valid header name"));
        }
    }
    names.iter().map(|name| name.as_str().into()).collect()
}

fn max_age(report: &mut Report<'_>, at: &FieldPath, age: Option<crate::api::value::Duration>) -> Option<Duration> {
    let age = report.duration(at, age)?;
    if age.subsec_nanos() > 0 && age >= Duration::from_millis(1) {
        report.error(at, format!("{age:?} is not a whole number of seconds"));
    }
    Some(age)
}

fn text(value: &str) -> Option<Arc<str>> {
    (!value.is_empty()).then(|| value.into())
}
