//! The commands of format strings.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Version};

use super::grpc::GrpcForm;
use super::header::{HeaderSource, pseudo_size, size};
use super::request::{self, DurationSource, PathSource};
use super::time::TimeFormat;
use super::wire::WireBytes;
use super::{Context, Need, Value};
use crate::proxy::connection::{Address, PeerTls};
use crate::proxy::flags::Flags;
use crate::proxy::http::route::host;
use crate::proxy::http::uuid;
use crate::proxy::tls::Certificate;
use crate::proxy::upstream::host::{Host, HostAddress};

/// A command.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// The source of its value.
    pub(super) source: Source,
    /// The maximum length of its text.
    pub(super) max_len: Option<usize>,
}

/// The source of a command's value.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A constant, or nothing.
    Fixed(Option<Box<str>>),
    /// A request header.
    Request(HeaderSource),
    /// A response header.
    Response(HeaderSource),
    /// A response trailer.
    Trailer(HeaderSource),
    /// `%START_TIME%`.
    StartTime(TimeFormat),
    /// `%EMIT_TIME%`.
    EmitTime(TimeFormat),
    /// The path, or parts of it.
    Path(PathSource),
    /// A query parameter.
    QueryParameter(Box<str>),
    /// The query.
    Query,
    /// The time between two events.
    Duration(DurationSource),
    /// The size of the request headers.
    RequestSize,
    /// The gRPC status, in one of three formats.
    GrpcStatus(GrpcForm),
    /// Bytes on the wire.
    WireBytes(WireBytes),
    /// A command without arguments.
    Plain(for<'a> fn(&Context<'a>) -> Value<'a>),
}

impl Command {
    /// The value.
    pub(super) fn value<'a>(&'a self, context: &Context<'a>) -> Value<'a> {
        let value = match &self.source {
            Source::Fixed(value) => text(value.as_deref()),
            Source::Request(header) => header.of(context, context.request_headers),
            Source::Response(header) => header.of(context, context.response_headers),
            Source::Trailer(header) => header.of(context, context.response_trailers),
            Source::GrpcStatus(form) => {
                let status = context.grpc_status_of_request();
                status.map_or(Value::None, |status| form.of(status))
            }
            Source::StartTime(format) => Value::Time(format, context.stream.start_time),
            Source::EmitTime(format) => Value::Time(format, SystemTime::now()),
            Source::Path(path) => path.of(context),
            Source::QueryParameter(name) => request::query_parameter(context, name),
            Source::Query => text(request::query(context)),
            Source::RequestSize => size(context.request_headers, pseudo_size(context)),
            Source::Duration(duration) => duration.of(context),
            Source::WireBytes(bytes) => number(bytes.of(context.stream)),
            Source::Plain(yields) => yields(context),
        };
        match (self.max_len, value) {
            (None, value) | (Some(_), value @ (Value::None | Value::Number(_))) => value,
            (Some(max), value) => {
                let mut text = String::new();
                // Writing to a string cannot fail.
                let _ = value.write(&mut text);
                Value::Text(text.chars().take(max).collect::<String>().into())
            }
        }
    }

    pub(super) fn asks_for(&self, need: Need) -> bool {
        match self.source {
            Source::Request(_) | Source::Path(_) | Source::RequestSize | Source::GrpcStatus(_) => {
                need == Need::RequestHeaders
            }
            Source::WireBytes(_) => need == Need::WireBytes,
            _ => false,
        }
    }
}

/// A string; missing if empty.
pub(super) fn text(value: Option<&str>) -> Value<'_> {
    match value {
        Some(text) if !text.is_empty() => Value::Text(text.into()),
        Some(_) | None => Value::None,
    }
}

/// An owned string; missing if empty.
fn owned(value: Option<String>) -> Value<'static> {
    match value.filter(|text| !text.is_empty()) {
        Some(text) => Value::Text(text.into()),
        None => Value::None,
    }
}

fn joined(names: Option<&Vec<String>>) -> Value<'static> {
    owned(names.map(|names| names.join(",")))
}

fn address(address: &Address) -> Value<'static> {
    match address {
        Address::Ip(address) => Value::Address(*address),
        Address::Unix(path) => owned(Some(path.display().to_string())),
    }
}

fn without_port(of: &Address) -> Value<'static> {
    match of {
        Address::Ip(address) => Value::Ip(address.ip()),
        Address::Unix(_) => address(of),
    }
}

fn host_address(address: Option<&HostAddress>) -> Value<'static> {
    match address {
        None => Value::None,
        Some(HostAddress::Ip(address)) => Value::Address(*address),
        Some(HostAddress::Unix(path)) => owned(Some(path.display().to_string())),
    }
}

fn number(value: impl Into<u64>) -> Value<'static> {
    Value::Number(value.into())
}

/// Envoy writes the empty string for the port of a Unix domain socket.
fn port(address: &Address) -> Value<'static> {
    address.port().map_or(Value::Text("".into()), number)
}

fn milliseconds(value: Option<Duration>) -> Value<'static> {
    value.map_or(Value::None, |value| {
        number(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    })
}

fn tls<'a>(context: &Context<'a>) -> Option<&'a PeerTls> {
    context.connection.tls.as_ref()
}

impl Source {
    /// The command without arguments with this name.
    pub(super) fn plain(name: &str) -> Option<Self> {
        let yields: for<'a> fn(&Context<'a>) -> Value<'a> = match name {
            "ACCESS_LOG_TYPE" => |c| {
                let of_connection = c.stream.protocol.is_none();
                text(Some(if of_connection {
                    "TcpConnectionEnd"
                } else {
                    "DownstreamEnd"
                }))
            },
            "BYTES_RECEIVED" => |c| number(c.stream.bytes_received),
            "BYTES_SENT" => |c| number(c.stream.bytes_sent),
            // Envoy writes the empty string where these have no value.
            "CUSTOM_FLAGS" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID" | "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID" => {
                |_| Value::Text("".into())
            }
            "CONNECTION_ID" => |c| number(c.connection.id),
            "DOWNSTREAM_DETECTED_CLOSE_TYPE" => |c| text(Some(c.stream.downstream_close.name())),
            "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => |c| address(&c.connection.direct_local),
            "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => |c| without_port(&c.connection.direct_local),
            "DOWNSTREAM_DIRECT_LOCAL_PORT" => |c| port(&c.connection.direct_local),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => |c| address(&c.connection.direct),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => |c| without_port(&c.connection.direct),
            "DOWNSTREAM_DIRECT_REMOTE_PORT" => |c| port(&c.connection.direct),
            "DOWNSTREAM_LOCAL_ADDRESS" => |c| address(&c.connection.local),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => |c| without_port(&c.connection.local),
            "DOWNSTREAM_LOCAL_CLOSE_REASON" => |c| text(c.stream.local_close),
            "DOWNSTREAM_LOCAL_PORT" => |c| port(&c.connection.local),
            "DOWNSTREAM_LOCAL_DNS_SAN" => |c| owned(tls(c).map(|tls| of_own(tls, Certificate::dns_sans))),
            "DOWNSTREAM_LOCAL_EMAIL_SAN" => |c| owned(tls(c).map(|tls| of_own(tls, Certificate::email_sans))),
            "DOWNSTREAM_LOCAL_IP_SAN" => |c| owned(tls(c).map(|tls| of_own(tls, Certificate::ip_sans))),
            "DOWNSTREAM_LOCAL_SUBJECT" => |c| owned(tls(c).map(|tls| of_own(tls, Certificate::subject))),
            "DOWNSTREAM_LOCAL_URI_SAN" => |c| joined(tls(c).and_then(|tls| Some(&tls.own.as_ref()?.uri_sans))),
            "DOWNSTREAM_PEER_CERT" => |c| text(tls(c).map(|tls| &*tls.pem)),
            "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1" => |c| owned(tls(c).map(PeerTls::chain_fingerprints_sha1)),
            "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256" => |c| owned(tls(c).map(PeerTls::chain_fingerprints)),
            "DOWNSTREAM_PEER_CHAIN_SERIALS" => |c| owned(tls(c).map(PeerTls::chain_serials)),
            "DOWNSTREAM_PEER_DNS_SAN" => |c| joined(tls(c).map(|tls| &tls.dns_sans)),
            "DOWNSTREAM_PEER_EMAIL_SAN" => |c| text(tls(c).map(|tls| &*tls.email_sans)),
            "DOWNSTREAM_PEER_FINGERPRINT_1" => |c| owned(tls(c).map(PeerTls::fingerprint_sha1)),
            "DOWNSTREAM_PEER_FINGERPRINT_256" => |c| text(tls(c).map(|tls| &*tls.fingerprint)),
            "DOWNSTREAM_PEER_IP_SAN" => |c| text(tls(c).map(|tls| &*tls.ip_sans)),
            "DOWNSTREAM_PEER_CERT_V_END" => |c| text(tls(c).map(|tls| &*tls.valid_until)),
            "DOWNSTREAM_PEER_CERT_V_START" => |c| text(tls(c).map(|tls| &*tls.valid_from)),
            "DOWNSTREAM_PEER_ISSUER" => |c| text(tls(c).map(|tls| &*tls.issuer)),
            "DOWNSTREAM_PEER_SERIAL" => |c| text(tls(c).map(|tls| &*tls.serial)),
            "DOWNSTREAM_PEER_SUBJECT" => |c| text(tls(c).map(|tls| &*tls.subject)),
            "DOWNSTREAM_PEER_URI_SAN" => |c| joined(tls(c).map(|tls| &tls.uri_sans)),
            "DOWNSTREAM_REMOTE_ADDRESS" => |c| match c.stream.remote {
                // Told by `x-forwarded-for`, which has no port.
                Some(ip) if Some(ip) != c.connection.remote.ip() => Value::Address(SocketAddr::new(ip, 0)),
                Some(_) | None => address(&c.connection.remote),
            },
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => |c| match c.stream.remote {
                Some(ip) => Value::Ip(ip),
                None => without_port(&c.connection.remote),
            },
            "DOWNSTREAM_REMOTE_PORT" => |c| port(&c.connection.remote),
            "DOWNSTREAM_TLS_CIPHER" => |c| text(tls(c).map(|tls| tls.cipher)),
            "DOWNSTREAM_TLS_GROUP" => |c| text(tls(c).map(|tls| tls.group)),
            "DOWNSTREAM_TLS_VERSION" => |c| text(tls(c).map(|tls| tls.version)),
            "DURATION" => |c| milliseconds(c.stream.timing.end.or_else(|| Some(c.stream.elapsed()))),
            "FILTER_CHAIN_NAME" => |c| text(Some(&c.connection.chain)),
            "PROTOCOL" => |c| text(c.stream.protocol.map(protocol_name)),
            "REQUESTED_SERVER_NAME" => |c| text(c.connection.sni.as_deref()),
            "REQUEST_TX_DURATION" => {
                |c| milliseconds(c.stream.carried.borrow().as_ref().and(c.stream.timing.request_received))
            }
            "RESPONSE_HEADERS_BYTES" => {
                |c| size(c.response_headers, c.response_headers.map_or(0, |_| ":status200".len()))
            }
            "RESPONSE_TRAILERS_BYTES" => |c| size(c.response_trailers, 0),
            "REQUEST_DURATION" => |c| milliseconds(c.stream.timing.request_received),
            "RESPONSE_CODE" => |c| number(c.stream.status),
            "RESPONSE_CODE_DETAILS" => |c| text(c.stream.details.as_deref()),
            "RESPONSE_DURATION" => |c| milliseconds(c.stream.timing.upstream_first_rx),
            "RESPONSE_FLAGS" => |c| match c.stream.flags {
                none if none.is_empty() => Value::Text("-".into()),
                flags => owned(Some(flags.to_string())),
            },
            "RESPONSE_FLAGS_LONG" => |c| owned(Some(c.stream.flags.long())),
            "RESPONSE_TX_DURATION" => |c| {
                let timing = &c.stream.timing;
                let first = timing.upstream_first_rx;
                milliseconds(first.and_then(|first| timing.end?.checked_sub(first)))
            },
            "ROUTE_NAME" => |c| text(Some(&c.stream.route)),
            "STREAM_ID" => |c| owned(Some(stream_id(c))),
            "TRACE_ID" => |c| owned(c.stream.trace_id.map(|id| format!("{id:032x}"))),
            "UNIQUE_ID" => |_| owned(Some(uuid(fastrand::u128(..)))),
            "UPSTREAM_CLUSTER" => |c| text(c.stream.cluster.as_ref().map(|cluster| &*cluster.config.stat_name)),
            "UPSTREAM_CLUSTER_RAW" => |c| text(c.stream.cluster.as_ref().map(|cluster| &*cluster.config.name)),
            "UPSTREAM_CONNECTION_ID" => |c| number(connection_to_host(c).unwrap_or(0)),
            "UPSTREAM_CONNECTION_IDS_ATTEMPTED" => |c| owned(connection_to_host(c).map(|id| id.to_string())),
            "UPSTREAM_DETECTED_CLOSE_TYPE" => |c| text(has_upstream(c).then(|| c.stream.upstream_close.name())),
            "UPSTREAM_HOSTS_ATTEMPTED" => |c| attempted(c, |host| host.address.to_string()),
            "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => |c| attempted(c, |host| host.address.without_port()),
            "UPSTREAM_HOST_NAMES_ATTEMPTED" => |c| attempted(c, name_of),
            "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => {
                |c| attempted(c, |host| host::without_port(&name_of(host)).to_owned())
            }
            "UPSTREAM_LOCAL_CLOSE_REASON" => |c| text(c.stream.local_close.filter(|_| connection_to_host(c).is_some())),
            "UPSTREAM_HOST" => |c| host_address(c.stream.host.as_ref().map(|host| &host.address)),
            "UPSTREAM_HOST_NAME" => |c| owned(c.stream.host.as_deref().map(name_of)),
            "UPSTREAM_HOST_NAME_WITHOUT_PORT" => |c| {
                let name = c.stream.host.as_deref().map(name_of);
                owned(name.map(|name| host::without_port(&name).to_owned()))
            },
            "UPSTREAM_LOCAL_DNS_SAN" => |c| of_host(c, |tls| of_own(tls, Certificate::dns_sans)),
            "UPSTREAM_LOCAL_IP_SAN" => |c| of_host(c, |tls| of_own(tls, Certificate::ip_sans)),
            "UPSTREAM_LOCAL_URI_SAN" => |c| of_host(c, |tls| of_own(tls, |own| own.uri_sans.join(","))),
            "UPSTREAM_PEER_CERT" => |c| of_host(c, |tls| tls.pem.to_string()),
            "UPSTREAM_PEER_CERT_V_END" => |c| of_host(c, |tls| tls.valid_until.to_string()),
            "UPSTREAM_PEER_CERT_V_START" => |c| of_host(c, |tls| tls.valid_from.to_string()),
            "UPSTREAM_PEER_DNS_SAN" => |c| of_host(c, |tls| tls.dns_sans.join(",")),
            "UPSTREAM_PEER_IP_SAN" => |c| of_host(c, |tls| tls.ip_sans.to_string()),
            "UPSTREAM_PEER_ISSUER" => |c| of_host(c, |tls| tls.issuer.to_string()),
            "UPSTREAM_PEER_SUBJECT" => |c| of_host(c, |tls| tls.subject.to_string()),
            "UPSTREAM_PEER_URI_SAN" => |c| of_host(c, |tls| tls.uri_sans.join(",")),
            "UPSTREAM_TLS_CIPHER" => |c| of_host(c, |tls| tls.cipher.to_owned()),
            "UPSTREAM_TLS_GROUP" => |c| of_host(c, |tls| tls.group.to_owned()),
            "UPSTREAM_TLS_VERSION" => |c| of_host(c, |tls| tls.version.to_owned()),
            "UPSTREAM_LOCAL_PORT" => |c| local(c).map_or(Value::None, |local| number(local.port())),
            "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => |c| local(c).map_or(Value::None, |local| Value::Ip(local.ip())),
            "UPSTREAM_PROTOCOL" => |c| {
                let protocol = c.stream.carried.borrow().as_ref().and_then(|carried| carried.protocol);
                text(protocol.map(protocol_name))
            },
            "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID" => |c| match remote(c) {
                Some(_) => Value::Text("".into()),
                None => Value::None,
            },
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => |c| match remote(c) {
                Some(HostAddress::Ip(address)) => Value::Ip(address.ip()),
                path => host_address(path),
            },
            "UPSTREAM_REMOTE_PORT" => |c| match remote(c) {
                Some(HostAddress::Ip(address)) => number(address.port()),
                Some(HostAddress::Unix(_)) | None => Value::None,
            },
            "UPSTREAM_LOCAL_ADDRESS" => |c| local(c).map_or(Value::None, Value::Address),
            "UPSTREAM_REMOTE_ADDRESS" => |c| host_address(remote(c)),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => |c| number(c.stream.attempts),
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => |c| {
                owned(
                    c.stream
                        .transport_failure
                        .as_deref()
                        .map(|reason| reason.replace(' ', "_")),
                )
            },
            _ => return None,
        };
        Some(Source::Plain(yields))
    }
}

/// Envoy's name of an HTTP version.
pub(crate) fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// `%STREAM_ID%`: the request id, or else a UUID that is the same for the whole connection.
fn stream_id(context: &Context<'_>) -> String {
    if let Some(Ok(id)) = context.stream.request_id.as_ref().map(HeaderValue::to_str) {
        return id.to_owned();
    }
    let begun = context.stream.start_time.duration_since(SystemTime::UNIX_EPOCH);
    let begun = begun.map_or(0, |since| since.as_nanos());
    uuid(u128::from(context.connection.id) << 64 ^ begun.rotate_left(32))
}

/// The upstream local address.
fn local(context: &Context<'_>) -> Option<SocketAddr> {
    context.stream.carried.borrow().as_ref()?.near.local
}

/// A TLS property of the host.
fn of_host(context: &Context<'_>, of: impl FnOnce(&PeerTls) -> String) -> Value<'static> {
    let carried = context.stream.carried.borrow();
    owned(carried.as_ref().and_then(|carried| carried.near.tls.as_deref()).map(of))
}

/// A property of our certificate.
fn of_own(tls: &PeerTls, of: impl FnOnce(&Certificate) -> String) -> String {
    tls.own.as_deref().map(of).unwrap_or_default()
}

/// The upstream connection id.
fn connection_to_host(context: &Context<'_>) -> Option<u64> {
    Some(context.stream.carried.borrow().as_ref()?.near.id)
}

/// Whether a host was looked for and found.
fn has_upstream(context: &Context<'_>) -> bool {
    let stream = context.stream;
    stream.protocol.is_none() || stream.host.is_some() || stream.flags.contains(Flags::UPSTREAM_OVERFLOW)
}

/// The attempted hosts, separated by commas: all for TCP; as in Envoy, only the last for requests, if it was connected
/// to.
fn attempted(context: &Context<'_>, show: fn(&Host) -> String) -> Value<'static> {
    let stream = context.stream;
    let last = stream.host.as_ref();
    let last = last.filter(|_| stream.protocol.is_none() || connection_to_host(context).is_some());
    let shown: Vec<_> = stream.earlier.iter().chain(last).map(|host| show(host)).collect();
    owned(Some(shown.join(",")))
}

/// A host's name, or else its address.
fn name_of(host: &Host) -> String {
    let name = host.hostname.as_deref().filter(|name| !name.is_empty());
    name.map_or_else(|| host.address.to_string(), str::to_owned)
}

/// The upstream remote address, once connected.
fn remote<'a>(context: &Context<'a>) -> Option<&'a HostAddress> {
    context.stream.carried.borrow().as_ref()?;
    Some(&context.stream.host.as_ref()?.address)
}
