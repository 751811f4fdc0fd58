//! Request headers before the filters see them: hop-by-hop and untrusted headers are removed, those that the mesh
//! relies on are added. This is Envoy's `ConnectionManagerUtility::mutateRequestHeaders` with the checks around it.

mod authority;
pub(crate) mod client;

use bytes::Bytes;
pub(super) use client::mark_internal;
use client::{FORWARDED_FOR, FORWARDED_PROTO};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION,
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE, ETAG, EXPECT, EXPIRES, HOST, HeaderMap, HeaderName,
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, ORIGIN, PRAGMA, REFERER, TE,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT, VARY, VIA,
};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version, request};

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::path::Normalized;
use super::{HttpManager, Underscores};
use crate::proxy::connection::Address;
use crate::proxy::flags::Flags;
use crate::proxy::trace::decision::Reason;

/// Hop-by-hop headers (RFC 9110 section 7.6.1), beside those that `connection` names. HTTP/2 has none of them but the
/// first (RFC 9113 section 8.2.2).
static HOP_BY_HOP: [HeaderName; 7] = [
    TE,
    CONNECTION,
    UPGRADE,
    TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Lengths of those names as a bit set.
const HOP_BY_HOP_LENGTHS: u32 = 1 << 2 | 1 << 7 | 1 << 10 | 1 << 14 | 1 << 16 | 1 << 17;

/// Headers that control Envoy; only internal requests may have them, and none counts as internal (Envoy's
/// `internal_address_config` is empty).
static INTERNAL: [HeaderName; 16] = [
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-upstream-stream-duration-ms"),
];

/// Further such headers, removed at an edge (`use_remote_address`).
static EDGE: [HeaderName; 5] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-original-host"),
];

/// Request headers whose lines are joined into one (RFC 9110 section 5.2): Envoy's inline headers, but for those that
/// other checks here treat by themselves.
pub(crate) static LISTS: [HeaderName; 25] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    EXPECT,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    ORIGIN,
    PRAGMA,
    REFERER,
    USER_AGENT,
    VIA,
    FORWARDED_PROTO,
    REQUEST_ID,
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-client-trace-id"),
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
];

/// The same for response headers.
pub(super) static LISTS_OF_ANSWERS: [HeaderName; 20] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    AGE,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    LOCATION,
    VARY,
    VIA,
    REQUEST_ID,
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
];

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Checks the request and makes its headers what filters and hosts may rely on.
///
/// # Errors
/// The local reply to a request that must not be forwarded.
pub(super) fn mutate_request_headers(exchange: &mut Exchange) -> Result<(), LocalReply> {
    let downstream = exchange.downstream.clone();
    let manager = &*downstream.manager;
    underscores(&mut exchange.request, manager)?;
    join_lists(&mut exchange.request.headers, &LISTS);
    if !manager.proxy_100_continue {
        ask_for_body(exchange);
    }
    if exchange.request.method != Method::CONNECT {
        exchange.upgrade = upgrade(&exchange.request.headers);
    }
    check(exchange)?;
    normalize_path(exchange, manager)?;
    normalize_authority(exchange, manager);
    let headers = &mut exchange.request.headers;
    remove_hop_by_hop(headers, exchange.upgrade.is_some())?;
    if exchange.request.version >= Version::HTTP_2 {
        // HTTP/2 clients may split cookies (RFC 9113 section 8.2.3).
        join(headers, &COOKIE, b"; ");
    }
    if (exchange.request.uri.authority().is_some() || exchange.request.version >= Version::HTTP_2)
        && let Ok(host) = HeaderValue::from_str(&exchange.authority)
    {
        headers.insert(HOST, host);
    }
    if has_envoy_headers(headers) {
        INTERNAL.iter().for_each(|name| drop(headers.remove(name)));
        if manager.use_remote_address {
            EDGE.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    exchange.stream.remote = client::forwarded_for(headers, manager, &downstream.connection);
    exchange.scheme = client::scheme(headers, manager, &downstream.connection);
    client::certificate(headers, &downstream);
    request_id(headers, manager);
    if let Some(via) = &manager.via {
        headers.append(VIA, via.clone());
    }
    Ok(())
}

/// Answers `expect: 100-continue` here, so that no host has to.
fn ask_for_body(exchange: &mut Exchange) {
    let expects = exchange.request.headers.get(EXPECT).map(HeaderValue::as_bytes);
    if expects.is_some_and(|expects| expects.eq_ignore_ascii_case(b"100-continue")) {
        exchange.request.headers.remove(EXPECT);
        if let Some(interims) = &exchange.interims {
            interims.ask_for_body();
            exchange.count_status(StatusCode::CONTINUE.as_u16());
        }
    }
}

fn underscores(request: &mut request::Parts, manager: &HttpManager) -> Result<(), LocalReply> {
    if manager.underscores == Underscores::Allow {
        return Ok(());
    }
    let names = request.headers.keys().filter(|name| name.as_str().contains('_'));
    let names: Vec<_> = names.cloned().collect();
    if names.is_empty() {
        return Ok(());
    }
    if manager.underscores == Underscores::Reject {
        let (flags, details) = (Flags::DOWNSTREAM_PROTOCOL_ERROR, "http1.unexpected_underscore");
        return Err(LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", flags, details).closing());
    }
    names.iter().for_each(|name| drop(request.headers.remove(name)));
    Ok(())
}

/// `:method`, `:scheme`, `:authority` and `:path`.
const PSEUDO_HEADERS: usize = 4;

/// Why an HTTP/2 stream with these request headers is reset instead of answered, if it is.
pub(super) fn reset_details(headers: &HeaderMap, manager: &HttpManager) -> Option<&'static str> {
    let underscore = || headers.keys().any(|name| name.as_str().contains('_'));
    if manager.underscores == Underscores::Reject && underscore() {
        return Some("http2.unexpected_underscore");
    }
    // Envoy counts pseudo-headers.
    let many = headers.len() + PSEUDO_HEADERS > manager.limits.header_count;
    many.then_some("http2.too_many_headers")
}

/// Refuses malformed requests.
fn check(exchange: &Exchange) -> Result<(), LocalReply> {
    let request = &exchange.request;
    let bad = |details: &'static str| LocalReply::new(StatusCode::BAD_REQUEST, "", Flags::NONE, details);
    let headers = &request.headers;
    if request.version >= Version::HTTP_2 {
        let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
        // HTTP/2 allows no userinfo in `:authority` (RFC 9113 section 8.3.1).
        if lengths > 1 || exchange.authority.contains('@') {
            return Err(bad("http2.violation.of.messaging.rule"));
        }
    }
    let hosts = headers.get_all(HOST).iter().count();
    if request.uri.authority().is_none() && hosts == 0 {
        return Err(bad("missing_host_header").closing());
    }
    if hosts > 1 {
        return Err(bad("http1.multiple_host").closing());
    }
    let path = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let whole = request.version < Version::HTTP_2 && request.uri.scheme().is_some();
    let refused = whole && !exchange.downstream.manager.allow_absolute_url;
    if request.method != Method::CONNECT && (refused || !path.starts_with('/')) {
        let details = "absolute_path_rejected";
        return Err(LocalReply::new(StatusCode::NOT_FOUND, "", Flags::NONE, details));
    }
    // Content of a QUERY request is meaningless without its type; Envoy checks this, too.
    if request.method.as_str() == "QUERY" && !headers.contains_key(CONTENT_TYPE) {
        return Err(bad("query_missing_content_type").closing());
    }
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > exchange.downstream.manager.limits.header_bytes {
        let text = "Request Header Fields Too Large";
        return Err(LocalReply::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            text,
            Flags::default(),
            "request_headers_too_large",
        )
        .closing());
    }
    Ok(())
}

fn normalize_path(exchange: &mut Exchange, manager: &HttpManager) -> Result<(), LocalReply> {
    if exchange.request.method == Method::CONNECT {
        return Ok(());
    }
    let path = exchange.request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if !manager.path.concerns(path) {
        return Ok(());
    }
    match manager.path.apply(path) {
        Normalized::Same => Ok(()),
        Normalized::Changed(path) => {
            exchange.request.uri = origin_form(&path)?;
            Ok(())
        }
        Normalized::Redirect(path) => {
            let details = "path_normalization_failed";
            let mut reply = LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "", Flags::default(), details);
            if let Ok(location) = HeaderValue::from_str(&path) {
                reply.headers.insert(http::header::LOCATION, location);
            }
            Err(reply)
        }
        Normalized::Refused => Err(LocalReply::new(
            StatusCode::BAD_REQUEST,
            "",
            Flags::default(),
            "path_normalization_failed",
        )
        .closing()),
    }
}

fn normalize_authority(exchange: &mut Exchange, manager: &HttpManager) {
    let port = match &exchange.downstream.connection.local {
        Address::Ip(address) => Some(address.port()),
        Address::Unix(_) => None,
    };
    if let Some(authority) = manager.authority.apply(&exchange.authority, port) {
        exchange.authority = authority.into();
    }
}

fn origin_form(path: &str) -> Result<Uri, LocalReply> {
    let parsed = path.parse::<PathAndQuery>();
    parsed.map(Uri::from).map_err(|_| {
        LocalReply::new(
            StatusCode::BAD_REQUEST,
            "",
            Flags::default(),
            "path_normalization_failed",
        )
        .closing()
    })
}

/// The protocol of an `upgrade` request, in lower case; `h2c` is not supported.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<Box<str>> {
    let protocol = headers.get(UPGRADE).and_then(|value| value.to_str().ok())?;
    let wants = headers.get_all(CONNECTION).iter().any(|value| {
        let tokens = value.to_str().unwrap_or_default().split(',');
        tokens.map(str::trim).any(|token| token.eq_ignore_ascii_case("upgrade"))
    });
    let protocol = Some(protocol).filter(|_| wants)?.to_ascii_lowercase();
    (protocol != "h2c").then(|| protocol.into())
}

/// Whether a header named by `connection` stays, because it is treated by itself.
fn is_kept(token: &str, upgrading: bool) -> bool {
    token.eq_ignore_ascii_case("te") || (upgrading && token.eq_ignore_ascii_case("upgrade"))
}

/// Headers that `connection` must not name, as hosts rely on those set by proxies before us.
static PROTECTED: [HeaderName; 3] = [
    FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-host"),
    FORWARDED_PROTO,
];

pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, upgrading: bool) -> Result<(), LocalReply> {
    if found(headers, &HOP_BY_HOP) == 0 {
        return Ok(());
    }
    if headers.contains_key(CONNECTION) {
        let lines: Vec<_> = headers.get_all(CONNECTION).iter().cloned().collect();
        headers.remove(CONNECTION);
        let tokens = lines
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        for token in tokens {
            let Ok(name) = HeaderName::from_bytes(token.trim_ascii()) else {
                continue;
            };
            if name == HOST {
                // A request without `host` is malformed.
                return Err(LocalReply::new(StatusCode::BAD_REQUEST, "", Flags::NONE, "missing_host_header").closing());
            }
            if PROTECTED.contains(&name) {
                return Err(LocalReply::new(
                    StatusCode::BAD_REQUEST,
                    "Bad Request",
                    Flags::DOWNSTREAM_PROTOCOL_ERROR,
                    "http1.connection_header_rejected",
                )
                .closing());
            }
            if !is_kept(name.as_str(), upgrading) {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP[if upgrading { 3 } else { 2 }..] {
        headers.remove(name);
    }
    if let Some(te) = headers.remove(TE) {
        let trailers = te
            .to_str()
            .unwrap_or_default()
            .split(',')
            .any(|token| token.trim().eq_ignore_ascii_case("trailers"));
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    Ok(())
}

/// Removes hop-by-hop headers that need no further treatment: from responses, and from what goes out over HTTP/2.
pub(crate) fn remove_one_hop(headers: &mut HeaderMap) {
    let [_, one_hop @ ..] = &HOP_BY_HOP;
    let found = found(headers, one_hop);
    for (place, name) in one_hop.iter().enumerate() {
        if found & 1 << place != 0 {
            headers.remove(name);
        }
    }
}

/// Which of these headers are present, as a bit set. They rarely are, and one pass over all names is cheaper than a
/// look-up of each of these.
fn found(headers: &HeaderMap, names: &[HeaderName]) -> u32 {
    // A first filter: few names have the length of one of these.
    let may_be =
        |name: &HeaderName| 1_u32.checked_shl(name.as_str().len() as u32).unwrap_or(0) & HOP_BY_HOP_LENGTHS != 0;
    let place = |name: &HeaderName| names.iter().position(|one| one == name);
    let odd = headers.keys().filter(|name| may_be(name));
    odd.filter_map(place).fold(0, |found, place| found | 1 << place)
}

/// Joins the lines of each of these headers into one.
pub(crate) fn join_lists(headers: &mut HeaderMap, names: &[HeaderName]) {
    if headers.len() > headers.keys_len() {
        names.iter().for_each(|name| join(headers, name, b","));
    }
}

/// Joins the lines of one header (RFC 9110 section 5.2).
fn join(headers: &mut HeaderMap, name: &HeaderName, separator: &[u8]) {
    let values = headers.get_all(name);
    if values.iter().nth(1).is_none() {
        return;
    }
    let joined: Vec<_> = values.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_bytes(&joined.join(separator)) {
        headers.insert(name, value);
    }
}

fn has_envoy_headers(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-envoy-"))
}

fn request_id(headers: &mut HeaderMap, manager: &HttpManager) {
    let settings = &manager.request_id;
    if manager.use_remote_address {
        if !settings.preserve_external {
            headers.remove(REQUEST_ID);
        } else if settings.pack_trace_reason {
            // Clients outside of the mesh do not decide what is traced in it.
            Reason::NotTraceable.mark(headers);
        }
    }
    if settings.generate {
        let own = headers.entry(REQUEST_ID).or_insert(HeaderValue::from_static(""));
        if own.is_empty()
            && let Ok(id) = HeaderValue::from_maybe_shared(Bytes::from(uuid(fastrand::u128(..))))
        {
            *own = id;
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A random UUID (RFC 9562 version 4) of these bits, six of which are overwritten.
pub(crate) fn uuid(bits: u128) -> String {
    /// Offsets of the bytes in its text.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    for (byte, at) in bits.to_be_bytes().into_iter().zip(PLACES) {
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 0xf)];
    }
    String::from_utf8(text.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0x0123 << 64), "00000000-0000-4123-8000-000000000000");
    }

    #[test]
    fn names_that_are_looked_for_have_the_lengths_that_are_looked_at() {
        let lengths = HOP_BY_HOP.iter().map(|name| 1 << name.as_str().len());
        assert_eq!(lengths.fold(0, |all, length: u32| all | length), HOP_BY_HOP_LENGTHS);
    }

    #[test]
    fn what_is_meant_for_one_hop_does_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-foo, TE"),
            ("x-foo", "1"),
            ("keep-alive", "5"),
            ("te", "trailers, deflate"),
            ("x-bar", "2"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert!(remove_hop_by_hop(&mut headers, false).is_ok());
        let left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&("te", "trailers")) && left.contains(&("x-bar", "2")));
    }
}
