//! Listeners.

use std::sync::Arc;
use std::time::Duration;

use super::value::{host_address, limit, number, truth};
use super::{At, Compiled, Names, chain};
use crate::proxy::listener::chain::ChainIndex;
use crate::proxy::listener::{Bind, Direction, Inspection, ListenAddress, Listener};
use crate::proxy::upstream::host::HostAddress;
use crate::xds::pb::core::TrafficDirection;
use crate::xds::pb::listener;

/// Envoy's, where nothing is said.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(15);
const BACKLOG: u32 = 128;

/// A `Listener`.
pub(crate) fn listener(message: &listener::Listener, names: &mut Names) -> Compiled<Listener> {
    let address = match host_address(message.address.as_ref()).at("address")? {
        HostAddress::Ip(address) => ListenAddress::Ip(address),
        HostAddress::Unix(path) => ListenAddress::Unix(path),
    };
    let chains = message.filter_chains.iter().enumerate();
    let chains = chains.map(|(index, one)| chain::chain(one, names).at_index("filter_chains", index).map(Arc::new));
    let chains = chains.collect::<Compiled<_>>()?;
    let default = message.default_filter_chain.as_ref();
    let default = default
        .map(|one| chain::chain(one, names))
        .transpose()
        .at("default_filter_chain")?;
    Ok(Listener {
        name: message.name.as_str().into(),
        address,
        bind: truth(message.bind_to_port.as_ref(), true).then(|| bind(message)),
        use_original_dst: truth(message.use_original_dst.as_ref(), false),
        inspection: Inspection {
            timeout: limit(message.listener_filters_timeout.as_ref(), Some(INSPECTION_TIMEOUT)),
            continue_on_timeout: message.continue_on_listener_filters_timeout,
            ..Default::default()
        },
        chains: ChainIndex {
            chains,
            default: default.map(Arc::new),
        },
        direction: match message.traffic_direction() {
            TrafficDirection::Unspecified => Direction::Unspecified,
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
        },
        stats: Arc::default(),
    })
}

fn bind(message: &listener::Listener) -> Bind {
    Bind {
        reuse_port: truth(message.enable_reuse_port.as_ref(), true),
        transparent: truth(message.transparent.as_ref(), false),
        freebind: truth(message.freebind.as_ref(), false),
        backlog: number(message.tcp_backlog_size.as_ref(), BACKLOG),
    }
}
