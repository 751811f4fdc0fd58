//! `http[].match[]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateway_names;
use crate::api::FieldPath;
use crate::api::virtual_service as api;
use crate::diag::Code;
use crate::mesh::lower::report::Report;
use crate::mesh::lower::value::is_header_name;
use crate::mesh::virtual_service::{HttpMatch, SourceMatch, StringMatch};
use crate::name::Namespace;

/// Prefix by which `match.headers` refers to a JWT claim instead of a header.
const CLAIM: &str = "@request.auth.claims";

/// The matches of a route.
pub(super) fn http(report: &mut Report<'_>, at: &FieldPath, matches: &[api::HttpMatch]) -> Vec<HttpMatch> {
    let matches = matches.iter().enumerate();
    matches
        .map(|(index, entry)| one(report, &at.index(index), entry))
        .collect()
}

fn one(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpMatch) -> HttpMatch {
    let mut text = |field: &str, value: &Option<api::StringMatch>| {
        value
            .as_ref()
            .and_then(|value| report.string_match(&at.field(field), value))
    };
    let (scheme, method, authority) = (
        text("scheme", &entry.scheme),
        text("method", &entry.method),
        text("authority", &entry.authority),
    );
    HttpMatch {
        name: entry.name.as_str().into(),
        uri: entry.uri.as_ref().and_then(|uri| path(report, &at.field("uri"), uri)),
        ignore_uri_case: entry.ignore_uri_case,
        scheme,
        method,
        authority,
        headers: headers(report, &at.field("headers"), &entry.headers, Report::string_match),
        without_headers: headers(report, &at.field("withoutHeaders"), &entry.without_headers, unwanted),
        query_params: query(report, &at.field("queryParams"), &entry.query_params),
        port: report.optional_port(&at.field("port"), entry.port),
        stat_prefix: entry.stat_prefix.as_str().into(),
        source: source(report, at, entry),
    }
}

/// The path. Unlike in other matches, an empty prefix is allowed.
fn path(report: &mut Report<'_>, at: &FieldPath, uri: &api::StringMatch) -> Option<StringMatch> {
    match uri {
        api::StringMatch::Prefix(prefix) => Some(StringMatch::Prefix(prefix.as_str().into())),
        api::StringMatch::Exact(_) | api::StringMatch::Regex(_) | api::StringMatch::Present => {
            report.string_match(at, uri)
        }
    }
}

/// Header matches; `meaning` converts the value.
fn headers<'a>(
    report: &mut Report<'a>,
    at: &FieldPath,
    headers: &BTreeMap<String, api::StringMatch>,
    meaning: fn(&mut Report<'a>, &FieldPath, &api::StringMatch) -> Option<StringMatch>,
) -> Vec<(Arc<str>, Option<StringMatch>)> {
    let mut found = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let at = at.key(name.as_str());
        header_name(report, &at, name);
        found.push((name.to_ascii_lowercase().into(), meaning(report, &at, value)));
    }
    found
}

/// A value of `withoutHeaders`. The regular expression `*`, though invalid, matches any value, as
/// in Istio.
fn unwanted(report: &mut Report<'_>, at: &FieldPath, value: &api::StringMatch) -> Option<StringMatch> {
    match value {
        api::StringMatch::Regex(any) if any == "*" => None,
        other => report.string_match(at, other),
    }
}

fn header_name(report: &mut Report<'_>, at: &FieldPath, name: &str) {
    if name.starts_with(CLAIM) {
        report
            .add(Code::UnsupportedField, at, "matching JWT claims is not supported yet")
            .help("Istio also supports it on gateways only");
    } else if !is_header_name(name) {
        let problem = report.error(at, format!("`{name}` is not a valid header name"));
        if name.starts_with(':') {
            problem.help("use `uri`, `scheme`, `method` or `authority` to match pseudo-headers");
        }
    }
}

fn query(
    report: &mut Report<'_>,
    at: &FieldPath,
    params: &BTreeMap<String, api::StringMatch>,
) -> Vec<(Arc<str>, Option<StringMatch>)> {
    let mut found = Vec::with_capacity(params.len());
    for (name, value) in params {
        let at = at.key(name.as_str());
        if name.is_empty() || name.len() > 1024 {
            report.error(&at, "the name of a query parameter must have 1 to 1024 bytes");
        }
        found.push((name.as_str().into(), report.string_match(&at, value)));
    }
    found
}

/// Source criteria of an HTTP match; `gateways` overrides labels and namespace.
fn source(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpMatch) -> SourceMatch {
    let mut source = clients(
        report,
        at,
        &entry.source_labels,
        &entry.source_namespace,
        &entry.gateways,
    );
    let unused = [
        ("sourceLabels", !entry.source_labels.is_empty()),
        ("sourceNamespace", !entry.source_namespace.is_empty()),
    ];
    for (field, given) in unused {
        if given && !entry.gateways.is_empty() {
            report
                .warning(
                    &at.field(field),
                    format!("`{field}` has no effect together with `gateways`"),
                )
                .help("remove one of them");
        }
    }
    if !entry.gateways.is_empty() {
        source.labels.clear();
        source.namespace = None;
    }
    source
}

/// `sourceLabels`, `sourceNamespace` and `gateways` of a match.
pub(super) fn clients(
    report: &mut Report<'_>,
    at: &FieldPath,
    labels: &BTreeMap<String, String>,
    namespace: &str,
    gateways: &[String],
) -> SourceMatch {
    gateway_names(report, &at.field("gateways"), gateways);
    SourceMatch {
        labels: report.labels(&at.field("sourceLabels"), labels),
        namespace: (!namespace.is_empty())
            .then(|| report.name(&at.field("sourceNamespace"), namespace.parse::<Namespace>()))
            .flatten(),
        gateways_only: !gateways.is_empty() && !gateways.iter().any(|name| name == super::MESH),
    }
}
