//! Conversion of plain protobuf values.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use prost::{Message, Name};

use super::{At, Compiled, Refusal};
use crate::proxy::upstream::host::{HostAddress, Target};
use crate::proxy::upstream::proxy_protocol::ProxyHeader;
use crate::xds::pb::core::data_source::Specifier;
use crate::xds::pb::core::socket_address::PortSpecifier;
use crate::xds::pb::core::{
    Address, CidrRange, ConfigSource, DataSource, ProxyProtocolConfig, RuntimeFractionalPercent, address,
    proxy_protocol_config,
};
use crate::xds::pb::types::FractionalPercent;
use crate::xds::pb::types::fractional_percent::DenominatorType;
use crate::xds::pb::wkt;

/// Envoy's default.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Protobuf's longest duration, ten thousand years, in seconds.
const LONGEST: u64 = 315_576_000_000;

/// A duration; negative ones become zero. Longer ones than protobuf allows are cut off, so that every duration can be
/// added to an `Instant`, which panics on overflow.
pub(crate) fn duration(value: &wkt::Duration) -> Duration {
    let seconds = u64::try_from(value.seconds).unwrap_or(0).min(LONGEST);
    let nanos = u32::try_from(value.nanos).unwrap_or(0);
    Duration::new(seconds, nanos.min(999_999_999))
}

/// A duration of which zero means no limit; `default` if unset.
pub(crate) fn limit(value: Option<&wkt::Duration>, default: Option<Duration>) -> Option<Duration> {
    match value {
        None => default,
        Some(value) => Some(duration(value)).filter(|limit| !limit.is_zero()),
    }
}

/// `initial_fetch_timeout`; `None`: no limit.
pub(crate) fn fetch_timeout(source: Option<&ConfigSource>) -> Option<Duration> {
    limit(
        source.and_then(|source| source.initial_fetch_timeout.as_ref()),
        Some(FETCH_TIMEOUT),
    )
}

/// Reads a `DataSource`, files and environment variables included.
pub(crate) fn data(source: &DataSource) -> Compiled<Vec<u8>> {
    match source.specifier.as_ref() {
        Some(Specifier::InlineString(text)) => Ok(text.as_bytes().to_vec()),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.to_vec()),
        Some(Specifier::Filename(path)) => {
            std::fs::read(path).map_err(|error| Refusal::new(format!("cannot read `{path}`: {error}")))
        }
        Some(Specifier::EnvironmentVariable(name)) => match std::env::var_os(name) {
            Some(value) => Ok(value.into_vec()),
            None => Err(Refusal::new(format!("the environment variable `{name}` is not set"))),
        },
        None => Err(Refusal::new("it is empty")),
    }
}

/// Reads a `DataSource` as text.
pub(crate) fn text(source: &DataSource) -> Compiled<String> {
    String::from_utf8(data(source)?).map_err(|_| Refusal::new("it is not valid UTF-8"))
}

/// A number; `default` if unset.
pub(crate) fn number(value: Option<&wkt::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// A boolean; `default` if unset.
pub(crate) fn truth(value: Option<&wkt::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

/// Unpacks an `Any`, which must be of this type.
pub(crate) fn unpack<M: Message + Name + Default>(any: &wkt::Any) -> Compiled<M> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != M::full_name() {
        return Err(Refusal::not_implemented(format!("`{name}` here")));
    }
    Ok(M::decode(&any.value[..])?)
}

/// An endpoint's address or DNS name.
pub(crate) fn target(address: Option<&Address>) -> Compiled<Target> {
    match address.and_then(|address| address.address.as_ref()) {
        Some(address::Address::Pipe(pipe)) => Ok(Target::Address(HostAddress::Unix(PathBuf::from(&pipe.path)))),
        Some(address::Address::SocketAddress(socket)) => {
            let port = port(socket.port_specifier.as_ref())?;
            Ok(match socket.address.parse() {
                Ok(ip) => Target::Address(HostAddress::Ip(SocketAddr::new(ip, port))),
                Err(_) => Target::Name(socket.address.as_str().into(), port),
            })
        }
        Some(address::Address::EnvoyInternalAddress(_)) => Err(Refusal::not_implemented("an internal address")),
        None => Err(Refusal::new("an address is required")),
    }
}

/// An address, which must not be a DNS name.
pub(crate) fn host_address(address: Option<&Address>) -> Compiled<HostAddress> {
    match target(address)? {
        Target::Address(address) => Ok(address),
        Target::Name(name, _) => Err(Refusal::new(format!("`{name}` is not an IP address"))),
    }
}

/// A port number.
pub(crate) fn port_number(port: u32) -> Compiled<u16> {
    u16::try_from(port).map_err(|_| Refusal::new(format!("{port} is not a valid port")))
}

fn port(specifier: Option<&PortSpecifier>) -> Compiled<u16> {
    match specifier {
        Some(PortSpecifier::PortValue(port)) => port_number(*port),
        Some(PortSpecifier::NamedPort(_)) => Err(Refusal::not_implemented("a named port")),
        None => Ok(0),
    }
}

/// A range of IP addresses.
pub(crate) fn cidr(range: &CidrRange) -> Compiled<IpNet> {
    let address: IpAddr = range
        .address_prefix
        .parse()
        .map_err(|_| Refusal::new(format!("`{}` is not an IP address", range.address_prefix)))?;
    let len = number(range.prefix_len.as_ref(), 0);
    let net = u8::try_from(len).ok().and_then(|len| IpNet::new(address, len).ok());
    net.map(|net| net.trunc())
        .ok_or_else(|| Refusal::new(format!("the prefix length {len} is too large")))
        .at("prefix_len")
}

/// The PROXY protocol version for hosts.
pub(crate) fn proxy_header(config: &ProxyProtocolConfig) -> ProxyHeader {
    match config.version() {
        proxy_protocol_config::Version::V1 => ProxyHeader::V1,
        proxy_protocol_config::Version::V2 => ProxyHeader::V2,
    }
}

/// A fraction in parts per million.
pub(crate) fn per_million(fraction: &FractionalPercent) -> u32 {
    let scale = match fraction.denominator() {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    fraction.numerator.saturating_mul(scale).min(1_000_000)
}

/// The default of a runtime fraction; there is no runtime to change it.
pub(crate) fn runtime_per_million(fraction: Option<&RuntimeFractionalPercent>) -> Option<u32> {
    fraction
        .and_then(|fraction| fraction.default_value.as_ref())
        .map(per_million)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn every_duration_can_be_added_to_a_point_in_time() {
        for seconds in [i64::MIN, -1, 0, 1, i64::MAX] {
            let nanos = i32::MAX;
            let duration = duration(&wkt::Duration { seconds, nanos });
            assert!(Instant::now().checked_add(duration).is_some(), "{seconds}");
        }
    }
}
