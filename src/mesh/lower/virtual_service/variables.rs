//! Command operators in header values, which Envoy substitutes: `%PROTOCOL%`, `%REQ(x-a):10%`.
//!
//! Envoy rejects a route with an unknown operator or a missing argument. The lists are those of
//! Envoy 1.40.

/// Checks a header value: no control characters, and each `%` is doubled or delimits an operator.
///
/// # Errors
///
/// Why Envoy would reject it.
pub(super) fn check(value: &str) -> Result<(), String> {
    if value.bytes().any(|b| b == 0x7f || (b < 0x20 && b != b'\t')) {
        return Err("it contains a control character".to_owned());
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

/// Checks an operator after its opening `%`; returns what follows its closing one.
fn variable(text: &str) -> Result<&str, String> {
    let open = || "a variable is missing its closing `%`".to_owned();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let (name, rest) = text.split_at(text.find(|c| !is_name(c)).ok_or_else(open)?);
    if name.is_empty() {
        return Err("a `%` is not followed by a variable name".to_owned());
    }
    let (argument, rest) = match rest.strip_prefix('(') {
        Some(inner) => inner.split_once(')').ok_or_else(open)?,
        None => ("", rest),
    };
    let (length, rest) = match rest.strip_prefix(':') {
        Some(digits) => digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).ok_or_else(open)?),
        None => ("0", rest),
    };
    if length.is_empty() {
        return Err("the length of a variable must be a number".to_owned());
    }
    let rest = rest.strip_prefix('%').ok_or_else(open)?;
    usage(name, argument, length).map(|()| rest)
}

/// Checks that the operator exists and takes the given argument and length.
fn usage(name: &str, argument: &str, length: &str) -> Result<(), String> {
    let within = |names: &[&str]| names.contains(&name);
    let needs_argument = within(NEED_ARGUMENT) || within(NEED_ARGUMENT_AND_TAKE_LENGTH);
    let takes_argument = needs_argument || within(TAKE_ARGUMENT);
    let takes_length = within(TAKE_LENGTH) || within(NEED_ARGUMENT_AND_TAKE_LENGTH);
    if !takes_argument && !takes_length && !within(PLAIN) {
        return Err(format!("Envoy has no variable `{name}`"));
    }
    if needs_argument && argument.is_empty() {
        return Err(format!(
            "the variable `{name}` requires an argument, as in `%{name}(a)%`"
        ));
    }
    if !takes_argument && !argument.is_empty() {
        return Err(format!("the variable `{name}` takes no argument"));
    }
    if !takes_length && length != "0" {
        return Err(format!("the variable `{name}` does not support a length"));
    }
    Ok(())
}

/// Require an argument.
const NEED_ARGUMENT: &[&str] = &[
    "CLUSTER_METADATA",
    "COMMON_DURATION",
    "METADATA",
    "PER_REQUEST_STATE",
    "UPSTREAM_METADATA",
];

/// Require an argument and accept a length.
const NEED_ARGUMENT_AND_TAKE_LENGTH: &[&str] = &[
    "DYNAMIC_METADATA",
    "ENVIRONMENT",
    "FILTER_STATE",
    "QUERY_PARAM",
    "REQ",
    "REQUEST_HEADER",
    "RESP",
    "RESPONSE_HEADER",
    "RESPONSE_TRAILER",
    "STREAM_INFO_REQ",
    "TRAILER",
    "UPSTREAM_FILTER_STATE",
];

/// Accept an argument.
const TAKE_ARGUMENT: &[&str] = &[
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "EMIT_TIME",
    "EMIT_TIME_LOCAL",
    "RESPONSE_CODE_DETAILS",
    "START_TIME",
    "START_TIME_LOCAL",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
];

/// Accept a length.
const TAKE_LENGTH: &[&str] = &["PATH", "QUERY_PARAMS"];

/// Accept neither.
const PLAIN: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_RETRANSMITTED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_CX_RTT",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER_SERIAL",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_GROUP",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "FILTER_CHAIN_NAME",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "LISTENER_NAME",
    "LOCAL_REPLY_BODY",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "REQUEST_DURATION",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "ROUTE_NAME",
    "ROUTE_RESOLUTION_COUNT",
    "ROUTE_RESOLUTION_TIME_US",
    "SPAN_ID",
    "STREAM_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
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
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_IP_SAN",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_SERVER_NAME",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_GROUP",
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
            "a%%%PROTOCOL()%",
            "%PATH:5%",
            "\t",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "100%",
            "%",
            "%FOO%",
            "%protocol%",
            "%REQ(x",
            "%REQ%",
            "%REQ(a):%b",
            "%PROTOCOL(a)%",
            "%PROTOCOL:5%",
            "%PROTOCOL",
            "%START_TIME%%",
            "% %",
            "a\nb",
            "\u{7f}",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
