//! Listeners and clusters that every proxy has, independent of services.

use std::time::Duration;

use super::chain;
use super::naming;
use super::view::OutboundView;
use crate::ir::cluster::{
    Cluster, ClusterEndpoints, ClusterMetadata, Discovery, HttpVersion, Limits, LoadBalancer, Transport, UpstreamHttp,
};
use crate::ir::listener::{
    ChainMatch, Direction, FilterChain, Inspection, ListenAddress, Listener, NetworkFilter, TcpProxy,
};
use crate::ir::node::InterceptionMode;
use crate::ir::{Origins, ResourceName};
use crate::mesh::config::{MeshConfig, OutboundPolicy};

/// Idle timeout for HTTP connections to unknown destinations.
const UNCLAIMED_IDLE: Duration = Duration::from_secs(300);

/// `virtualOutbound`: receives all intercepted outbound connections and hands them over to the
/// listener of their original destination address. The rest go to unknown destinations.
pub(super) fn virtual_outbound(view: &OutboundView, config: &MeshConfig, policy: &OutboundPolicy) -> Listener {
    let port = config.outbound_port;
    let itself = ChainMatch {
        destination_port: Some(port),
        ..ChainMatch::default()
    };
    Listener {
        name: "virtualOutbound".into(),
        address: ListenAddress::Ip(view.wildcard(), port),
        bind: true,
        use_original_dst: true,
        transparent: view.mode == InterceptionMode::Tproxy,
        direction: Direction::Outbound,
        inspection: Inspection::default(),
        chains: vec![
            stream(
                "virtualOutbound-blackhole",
                itself,
                chain::to_cluster(naming::BLACK_HOLE),
            ),
            stream(
                "virtualOutbound-catchall-tcp",
                ChainMatch::default(),
                chain::to_cluster(&chain::unclaimed(policy)),
            ),
        ],
        default_chain: None,
        origins: Origins::default(),
    }
}

/// A named TCP filter chain.
pub(super) fn stream(name: &str, matcher: ChainMatch, proxy: TcpProxy) -> FilterChain {
    FilterChain {
        name: Some(name.into()),
        matcher,
        tls: None,
        network: NetworkFilter::Tcp(proxy),
    }
}

/// `PassthroughCluster`.
pub(super) fn passthrough(config: &MeshConfig) -> Cluster {
    Cluster {
        discovery: Discovery::OriginalDst {
            port: None,
            inbound: false,
        },
        load_balancer: LoadBalancer::ClusterProvided,
        ..unclaimed(naming::PASSTHROUGH.into(), config)
    }
}

/// Common settings of the clusters for unknown destinations.
pub(super) fn unclaimed(name: ResourceName, config: &MeshConfig) -> Cluster {
    Cluster {
        http: UpstreamHttp {
            version: HttpVersion::Downstream,
            idle_timeout: Some(UNCLAIMED_IDLE),
            ..UpstreamHttp::default()
        },
        tcp_keepalive: config.tcp_keepalive,
        ..plain(name, config.connect_timeout)
    }
}

/// `BlackHoleCluster`.
pub(super) fn black_hole(config: &MeshConfig) -> Cluster {
    plain(naming::BLACK_HOLE.into(), config.connect_timeout)
}

/// A plaintext cluster without endpoints or limits.
pub(super) fn plain(name: ResourceName, connect_timeout: Duration) -> Cluster {
    let nowhere = ClusterEndpoints {
        cluster: name.clone(),
        ..ClusterEndpoints::default()
    };
    Cluster {
        discovery: Discovery::Static(nowhere.into()),
        name,
        connect_timeout,
        load_balancer: LoadBalancer::LeastRequest,
        warmup: None,
        locality_weighted: false,
        limits: Limits::default(),
        outlier_detection: None,
        panic_threshold: 0,
        http: UpstreamHttp::default(),
        tcp_keepalive: None,
        marked_source: false,
        transport: Transport::Plaintext,
        proxy_protocol: None,
        metadata: ClusterMetadata::default(),
        origins: Origins::default(),
    }
}
