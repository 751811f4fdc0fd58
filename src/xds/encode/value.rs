//! Constructors for common protobuf values.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::{Message, Name};

use crate::mesh::virtual_service::StringMatch;
use crate::name::{Kind, ObjectId, Percent};
use crate::xds::pb::core::address::Address as AddressKind;
use crate::xds::pb::core::config_source::ConfigSourceSpecifier;
use crate::xds::pb::core::socket_address::PortSpecifier;
use crate::xds::pb::core::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Pipe, RuntimeFractionalPercent, SocketAddress,
};
use crate::xds::pb::matcher::string_matcher::MatchPattern;
use crate::xds::pb::matcher::{RegexMatcher, StringMatcher};
use crate::xds::pb::types::FractionalPercent;
use crate::xds::pb::types::fractional_percent::DenominatorType;
use crate::xds::pb::wkt;

/// A duration, capped at protobuf's maximum of 10,000 years.
pub(super) fn duration(duration: Duration) -> wkt::Duration {
    const LONGEST_SECONDS: i64 = 315_576_000_000;
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(LONGEST_SECONDS);
    wkt::Duration {
        seconds: seconds.min(LONGEST_SECONDS),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// An optional number.
pub(super) fn uint32(value: impl Into<u32>) -> wkt::UInt32Value {
    wkt::UInt32Value { value: value.into() }
}

/// An optional boolean.
pub(super) fn boolean(value: bool) -> wkt::BoolValue {
    wkt::BoolValue { value }
}

/// Packs a message into an `Any`.
pub(super) fn any<M: Message + Name>(message: &M) -> wkt::Any {
    wkt::Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// A string in a `Struct`.
pub(super) fn text(value: impl Into<String>) -> wkt::Value {
    use wkt::value::Kind::StringValue;
    wkt::Value {
        kind: Some(StringValue(value.into())),
    }
}

/// A boolean in a `Struct`.
pub(super) fn truth(value: bool) -> wkt::Value {
    use wkt::value::Kind::BoolValue;
    wkt::Value {
        kind: Some(BoolValue(value)),
    }
}

/// A list in a `Struct`.
pub(super) fn list(values: Vec<wkt::Value>) -> wkt::Value {
    use wkt::value::Kind::ListValue;
    wkt::Value {
        kind: Some(ListValue(wkt::ListValue { values })),
    }
}

/// A nested `Struct`.
pub(super) fn nested(fields: wkt::Struct) -> wkt::Value {
    use wkt::value::Kind::StructValue;
    wkt::Value {
        kind: Some(StructValue(fields)),
    }
}

/// A `Struct`.
pub(super) fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, wkt::Value)>) -> wkt::Struct {
    let fields: HashMap<_, _> = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    wkt::Struct { fields }
}

/// A socket address.
pub(super) fn socket_address(address: impl ToString, port: u16) -> SocketAddress {
    SocketAddress {
        address: address.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..Default::default()
    }
}

/// An IP address and port.
pub(super) fn ip_address(ip: IpAddr, port: u16) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(socket_address(ip, port))),
    }
}

/// A Unix domain socket.
pub(super) fn pipe(path: &str) -> Address {
    Address {
        address: Some(AddressKind::Pipe(Pipe {
            path: path.to_owned(),
            ..Default::default()
        })),
    }
}

/// `ads` config source, without initial fetch timeout.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// A string matcher.
pub(super) fn string_matcher(matcher: &StringMatch) -> StringMatcher {
    let pattern = match matcher {
        StringMatch::Exact(value) => MatchPattern::Exact(value.to_string()),
        StringMatch::Prefix(value) => MatchPattern::Prefix(value.to_string()),
        StringMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern)),
    };
    StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    }
}

/// A regular expression that matches the whole string.
pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher {
        regex: pattern.to_owned(),
        ..Default::default()
    }
}

/// A share of requests.
pub(super) fn fraction(percent: Percent) -> FractionalPercent {
    FractionalPercent {
        numerator: percent.per_million(),
        denominator: DenominatorType::Million.into(),
    }
}

/// A share of requests, without a runtime key.
pub(super) fn runtime_fraction(percent: Percent) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent {
        default_value: Some(fraction(percent)),
        ..Default::default()
    }
}

/// Path by which Istio's tools identify the object that a resource comes from
/// (`/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`).
pub(super) fn config_path(object: &ObjectId, api_version: &str) -> String {
    format!(
        "/apis/{api_version}/namespaces/{}/{}/{}",
        object.namespace,
        kebab_case(object.kind),
        object.name
    )
}

fn kebab_case(kind: Kind) -> String {
    let mut text = String::new();
    for letter in kind.as_str().chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Owned strings.
pub(super) fn strings(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_paths_are_those_of_istio() {
        let id = ObjectId {
            kind: Kind::VirtualService,
            namespace: "shop".parse().unwrap(),
            name: "reviews".into(),
        };
        assert_eq!(
            config_path(&id, "networking.istio.io/v1alpha3"),
            "/apis/networking.istio.io/v1alpha3/namespaces/shop/virtual-service/reviews"
        );
    }

    #[test]
    fn durations_stay_in_protobufs_range() {
        let exact = duration(Duration::from_millis(1500));
        assert_eq!((exact.seconds, exact.nanos), (1, 500_000_000));
        assert_eq!(duration(Duration::MAX).seconds, 315_576_000_000);
    }
}
