//! Compiling listeners.

mod inspection;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::value::{host_address, number, truth};
use super::{At, Compiled, Names, Refusal, all, chain};
use crate::proxy::connection::Address;
use crate::proxy::listener::chain::ChainIndex;
use crate::proxy::listener::{Bind, Direction, ListenAddress, Listener};
use crate::proxy::upstream::cluster::TcpKeepalive;
use crate::proxy::upstream::host::HostAddress;
use crate::xds::ResourceType;
use crate::xds::pb::core::{self, TrafficDirection};
use crate::xds::pb::{listener, wkt};

/// Envoy's default.
const BACKLOG: u32 = 128;
const BUFFER_LIMIT: u32 = 1 << 20;

/// Permission bits (`Pipe.mode`).
const MODES: u32 = 0o777;

/// Decodes a `Listener`, to be compiled by [`listener()`].
pub(crate) fn read(bytes: &[u8]) -> Compiled<listener::Listener> {
    super::read(ResourceType::Listener, bytes)
}

/// Compiles a `Listener`.
pub(crate) fn listener(message: &listener::Listener, names: &mut Names) -> Compiled<Listener> {
    if !message.access_log.is_empty() {
        return Err(Refusal::not_implemented("a log of all connections").within("access_log"));
    }
    let addresses = addresses(message)?;
    let direction = match message.traffic_direction() {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    };
    let stat_prefix = match message.stat_prefix.as_str() {
        "" => addresses[0].address.to_string(),
        prefix => prefix.to_owned(),
    };
    let within = chain::Within {
        direction,
        stat_prefix: &stat_prefix,
        buffer_limit: match number(message.per_connection_buffer_limit_bytes.as_ref(), BUFFER_LIMIT) {
            0 => usize::MAX,
            limit => limit as usize,
        },
    };
    let mut chain = |one| chain::chain(one, within, names).map(Arc::new);
    let chains = message.filter_chains.iter().enumerate();
    let chains = chains.map(|(index, one)| chain(one).at_index("filter_chains", index));
    let chains = all(chains)?;
    let default = message.default_filter_chain.as_ref();
    let default = default.map(chain).transpose().at("default_filter_chain")?;
    Ok(Listener {
        name: message.name.as_str().into(),
        bind: truth(message.bind_to_port.as_ref(), true).then(|| bind(message)),
        unlimited: message.ignore_global_conn_limit,
        accept_at_once: accept_at_once(message)?,
        use_original_dst: truth(message.use_original_dst.as_ref(), false),
        inspection: inspection::inspection(message, names)?,
        chains: ChainIndex::new(chains, default).map_err(|both| overlapping(message, both))?,
        direction,
        stat_prefix: stat_prefix.into(),
        stats: Arc::default(),
        addresses,
    })
}

/// The address, then the additional ones.
fn addresses(message: &listener::Listener) -> Compiled<Box<[ListenAddress]>> {
    let first = address(message.address.as_ref()).at("address");
    let more = message.additional_addresses.iter().enumerate();
    let more = more.map(|(index, one)| address(one.address.as_ref()).at_index("additional_addresses", index));
    std::iter::once(first).chain(more).collect()
}

fn address(message: Option<&core::Address>) -> Compiled<ListenAddress> {
    let mode = match message.and_then(|message| message.address.as_ref()) {
        Some(core::address::Address::Pipe(pipe)) => Some(pipe.mode).filter(|mode| *mode != 0),
        _ => None,
    };
    if mode.is_some_and(|mode| mode > MODES) {
        return Err(Refusal::new("not valid file permissions").within("pipe.mode"));
    }
    let address = match host_address(message)? {
        HostAddress::Ip(address) => Address::Ip(address),
        HostAddress::Unix(path) => Address::Unix(path.into()),
    };
    let with_ipv4 = match message.and_then(|message| message.address.as_ref()) {
        Some(core::address::Address::SocketAddress(socket)) => socket.ipv4_compat,
        _ => false,
    };
    Ok(ListenAddress {
        address,
        mode,
        with_ipv4,
    })
}

fn overlapping(message: &listener::Listener, (first, second): (usize, usize)) -> Refusal {
    let name = |place: usize| message.filter_chains.get(place).map_or("", |chain| chain.name.as_str());
    let why = format!(
        "filter chain '{}' has matching rules that overlap with those of '{}'",
        name(second),
        name(first)
    );
    Refusal::new(why).within(format!("filter_chains[{second}]"))
}

fn accept_at_once(message: &listener::Listener) -> Compiled<Option<u32>> {
    let most = message.max_connections_to_accept_per_socket_event.as_ref();
    match most.map(|most| most.value) {
        Some(0) => Err(Refusal::new("at least 1 is required").within("max_connections_to_accept_per_socket_event")),
        most => Ok(most),
    }
}

fn bind(message: &listener::Listener) -> Bind {
    Bind {
        reuse_port: truth(message.enable_reuse_port.as_ref(), true),
        transparent: truth(message.transparent.as_ref(), false),
        freebind: truth(message.freebind.as_ref(), false),
        backlog: number(message.tcp_backlog_size.as_ref(), BACKLOG),
        keepalive: message.tcp_keepalive.as_ref().and_then(keepalive),
    }
}

/// TCP keepalive; zero in any field disables it.
fn keepalive(message: &core::TcpKeepalive) -> Option<TcpKeepalive> {
    let fields = [
        message.keepalive_probes.as_ref(),
        message.keepalive_time.as_ref(),
        message.keepalive_interval.as_ref(),
    ];
    if fields.iter().flatten().any(|field| field.value == 0) {
        return None;
    }
    let seconds = |value: Option<&wkt::UInt32Value>| value.map(|value| Duration::from_secs(value.value.into()));
    let [probes, time, interval] = fields;
    Some(TcpKeepalive {
        probes: probes.map(|probes| probes.value),
        time: seconds(time),
        interval: seconds(interval),
    })
}
