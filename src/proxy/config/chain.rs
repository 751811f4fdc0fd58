//! Compiling filter chains.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use prost::Message;

use super::value::{cidr, limit, number, unpack};
use super::{At, Compiled, Names, Refusal, http, tcp, tls};
use crate::proxy::listener::chain::{ChainMatch, SourceType};
use crate::proxy::listener::{Direction, FilterChain, NetworkFilter};
use crate::xds::pb::core::{CidrRange, TransportSocket, transport_socket};
use crate::xds::pb::listener::filter::ConfigType;
use crate::xds::pb::listener::{self, Filter, filter_chain_match::ConnectionSourceType};

const HTTP: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Settings of the listener around a filter chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within<'a> {
    /// The direction of its traffic.
    pub(crate) direction: Direction,
    /// The prefix of its statistics.
    pub(crate) stat_prefix: &'a str,
    /// `per_connection_buffer_limit_bytes`.
    pub(crate) buffer_limit: usize,
}

/// A `FilterChain`.
pub(crate) fn chain(message: &listener::FilterChain, listener: Within<'_>, names: &mut Names) -> Compiled<FilterChain> {
    let matcher = message.filter_chain_match.as_ref().map(self::matcher).transpose();
    let tls = match message.transport_socket.as_ref() {
        Some(TransportSocket {
            config_type: Some(transport_socket::ConfigType::TypedConfig(any)),
            ..
        }) if !any.type_url.ends_with(".RawBuffer") => {
            let context = unpack(any).at("transport_socket")?;
            Some(Arc::new(tls::downstream(&context, names).at("transport_socket")?))
        }
        Some(_) | None => None,
    };
    Ok(FilterChain {
        name: message.name.as_str().into(),
        matcher: matcher.at("filter_chain_match")?.unwrap_or_default(),
        tls,
        handshake_timeout: limit(message.transport_socket_connect_timeout.as_ref(), None),
        network: network(&message.filters, listener, names)?,
        content: content(message, listener),
        draining: Default::default(),
    })
}

/// A hash of the message and the listener's settings, stable within this process.
fn content(message: &listener::FilterChain, listener: Within<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (listener.direction, listener.buffer_limit).hash(&mut hasher);
    hasher.write(&message.encode_to_vec());
    hasher.finish()
}

fn network(filters: &[Filter], listener: Within<'_>, names: &mut Names) -> Compiled<NetworkFilter> {
    let [filter] = filters else {
        return Err(Refusal::not_implemented("a chain of other than one network filter").within("filters"));
    };
    let Some(ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
        return Err(
            Refusal::not_implemented(format!("`{}` without a configuration", filter.name)).within("filters[0]"),
        );
    };
    let compiled = match any.type_url.rsplit('/').next() {
        Some(HTTP) => unpack(any)
            .and_then(|message| http::manager(&message, listener, names))
            .map(|manager| NetworkFilter::Http(Arc::new(manager))),
        Some(TCP) => unpack(any)
            .and_then(|message| tcp::proxy(&message, names))
            .map(|proxy| NetworkFilter::Tcp(Arc::new(proxy))),
        Some(_) | None => Err(Refusal::not_implemented(format!(
            "the network filter `{}`",
            filter.name
        ))),
    };
    compiled.at("filters[0]")
}

fn matcher(message: &listener::FilterChainMatch) -> Compiled<ChainMatch> {
    let ranges = |field: &str, ranges: &[CidrRange]| -> Compiled<Vec<_>> {
        ranges
            .iter()
            .enumerate()
            .map(|(index, range)| cidr(range).at_index(field, index))
            .collect()
    };
    let port = u16::try_from(number(message.destination_port.as_ref(), 0));
    let port = port.map_err(|_| Refusal::new("no port")).at("destination_port")?;
    let source_ports = message.source_ports.iter().map(|port| u16::try_from(*port));
    Ok(ChainMatch {
        port: Some(port).filter(|port| *port != 0),
        prefixes: ranges("prefix_ranges", &message.prefix_ranges)?,
        server_names: server_names(&message.server_names)?,
        transport: (!message.transport_protocol.is_empty()).then(|| message.transport_protocol.as_str().into()),
        alpn: message
            .application_protocols
            .iter()
            .map(|protocol| protocol.as_bytes().into())
            .collect(),
        direct_sources: ranges("direct_source_prefix_ranges", &message.direct_source_prefix_ranges)?,
        sources: ranges("source_prefix_ranges", &message.source_prefix_ranges)?,
        source_ports: source_ports
            .collect::<Result<_, _>>()
            .map_err(|_| Refusal::new("no port"))
            .at("source_ports")?,
        source_type: match message.source_type() {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::Local,
            ConnectionSourceType::External => SourceType::External,
        },
    })
}

fn server_names(names: &[String]) -> Compiled<Vec<Box<str>>> {
    let names = names.iter().enumerate();
    names
        .map(|(index, name)| {
            if name.strip_prefix("*.").unwrap_or(name).contains('*') {
                let why = format!("partial wildcards are not supported: `{name}`");
                return Err(Refusal::new(why)).at_index("server_names", index);
            }
            Ok(name.to_ascii_lowercase().into())
        })
        .collect()
}
