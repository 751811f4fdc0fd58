//! Header changes of routes and destinations.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::FieldPath;
use crate::api::virtual_service::{HeaderOperations, Headers};
use crate::mesh::lower::report::Report;
use crate::mesh::virtual_service::{HeaderChanges, HeaderOps};

/// `headers`.
pub(super) fn changes(report: &mut Report<'_>, at: &FieldPath, headers: Option<&Headers>) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let Some(headers) = headers else {
        return changes;
    };
    if let Some(request) = &headers.request {
        let at = at.field("request");
        changes.request = operations(report, &at, request, Authority::Rewritten);
        changes.authority = authority(report, &at, request);
    }
    if let Some(response) = &headers.response {
        changes.response = operations(report, &at.field("response"), response, Authority::Refused);
    }
    changes
}

/// What setting `:authority` or `Host` means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authority {
    /// The request's host is rewritten.
    Rewritten,
    /// It cannot be.
    Refused,
}

fn operations(
    report: &mut Report<'_>,
    at: &FieldPath,
    operations: &HeaderOperations,
    authority: Authority,
) -> HeaderOps {
    for (index, name) in operations.remove.iter().enumerate() {
        operation_name(report, &at.field("remove").index(index), name, Authority::Refused);
    }
    HeaderOps {
        set: values(report, &at.field("set"), &operations.set, authority),
        add: values(report, &at.field("add"), &operations.add, authority),
        remove: operations.remove.iter().map(|name| name.as_str().into()).collect(),
    }
}

/// Names and values, without those that rewrite the host.
fn values(
    report: &mut Report<'_>,
    at: &FieldPath,
    headers: &BTreeMap<String, String>,
    authority: Authority,
) -> Vec<(Arc<str>, Arc<str>)> {
    for (name, value) in headers {
        let at = at.key(name.as_str());
        operation_name(report, &at, name, authority);
        if let Err(why) = check_value(value) {
            report
                .error(&at, format!("`{value}` cannot be the value of a header: {why}"))
                .help(
                    "a `%` is written `%%`; Envoy's variables stand between two, as in `%DOWNSTREAM_REMOTE_ADDRESS%`",
                );
        }
    }
    headers
        .iter()
        .filter(|(name, _)| !is_authority(name))
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect()
}

/// The one value that `:authority` or `Host` is set to.
fn authority(report: &mut Report<'_>, at: &FieldPath, operations: &HeaderOperations) -> Option<Arc<str>> {
    let set = operations.set.iter().map(|entry| ("set", entry));
    let add = operations.add.iter().map(|entry| ("add", entry));
    let mut found: Option<Arc<str>> = None;
    for (field, (name, value)) in set.chain(add).filter(|(_, (name, _))| is_authority(name)) {
        if found.is_some() {
            report.error(
                &at.field(field).key(name.as_str()),
                "the request's host is rewritten twice",
            );
        }
        found = Some(value.as_str().into());
    }
    found
}

fn operation_name(report: &mut Report<'_>, at: &FieldPath, name: &str, authority: Authority) {
    if is_authority(name) {
        if authority == Authority::Refused {
            report
                .error(at, format!("`{name}` cannot be changed here"))
                .help("`rewrite.authority` changes the host of a request");
        }
    } else if name.starts_with(':') {
        report.error(at, format!("`{name}` cannot be changed: it is a part of HTTP itself"));
    } else if !is_header_name(name) {
        report.error(at, format!("`{name}` is not the name of a header"));
    }
}

/// `:authority` or `Host`, in any case.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// The characters of an HTTP token (RFC 9110, `tchar`).
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether Envoy takes the value: no control characters, and each `%` doubled or a variable's
/// bounds, `%NAME%` or `%NAME(argument):length%`.
fn check_value(value: &str) -> Result<(), &'static str> {
    if value.bytes().any(|b| b == 0x7f || (b < 0x20 && b != b'\t')) {
        return Err("it holds a control character");
    }
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        rest = match after.strip_prefix('%') {
            Some(tail) => tail,
            None => variable(after)?,
        };
    }
    Ok(())
}

/// A variable after its first `%`: what follows its last.
fn variable(text: &str) -> Result<&str, &'static str> {
    const OPEN: &str = "a `%` begins a variable that does not end";
    let name_end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .ok_or(OPEN)?;
    if name_end == 0 {
        return Err("a `%` is not followed by the name of a variable");
    }
    let (name, mut rest) = text.split_at(name_end);
    if !VARIABLES.contains(&name) {
        return Err("it holds a variable that Envoy does not know");
    }
    if let Some(arguments) = rest.strip_prefix('(') {
        rest = arguments.split_once(')').ok_or(OPEN)?.1;
    }
    if let Some(length) = rest.strip_prefix(':') {
        rest = length.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    rest.strip_prefix('%').ok_or(OPEN)
}

/// The names of Envoy's substitution formatters. An unknown one would have the route refused.
const VARIABLES: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "COMMON_DURATION",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "DYNAMIC_METADATA",
    "EMIT_TIME",
    "ENVIRONMENT",
    "FILTER_CHAIN_NAME",
    "FILTER_STATE",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "LOCAL_REPLY_BODY",
    "METADATA",
    "PATH",
    "PER_REQUEST_STATE",
    "PROTOCOL",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "REQ",
    "REQUESTED_SERVER_NAME",
    "REQUEST_DURATION",
    "REQUEST_HEADER",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "REQ_WITHOUT_QUERY",
    "RESP",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADER",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "ROUTE_NAME",
    "START_TIME",
    "START_TIME_LOCAL",
    "STREAM_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "TRAILER",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_IP_SAN",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_LOCAL_SUBJECT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_escaped_percent_signs_and_known_variables() {
        for good in [
            "",
            "foo",
            "100%%",
            "a %PROTOCOL% b",
            "%REQ(x-a)%%RESP(b):10%",
            "%START_TIME(%s)%",
            "\t",
        ] {
            assert_eq!(check_value(good), Ok(()), "{good}");
        }
        for bad in [
            "100%",
            "%",
            "%FOO%",
            "%REQ(x",
            "%PROTOCOL",
            "%START_TIME%%",
            "% %",
            "a\nb",
            "\u{7f}",
        ] {
            assert!(check_value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_tokens() {
        assert!(is_header_name("x-a_1.~"));
        assert!(!is_header_name("") && !is_header_name("x a") && !is_header_name("x:a") && !is_header_name("ä"));
        assert!(is_authority("HOST") && is_authority(":Authority") && !is_authority(":path"));
    }
}
