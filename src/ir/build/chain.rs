//! Filter chains of outbound listeners.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::naming;
use super::routing::{Routing, Target};
use super::virtual_host::Exposed;
use crate::ir::ResourceName;
use crate::ir::listener::{
    ChainMatch, FilterChain, HttpConnectionManager, HttpFilter, HttpRole, NetworkFilter, RouteSource, TcpProxy,
    TransportProtocol,
};
use crate::mesh::config::{MeshConfig, OutboundPolicy};
use crate::mesh::destination_rule::HashKey;
use crate::mesh::virtual_service::{Destination, L4Match, TlsMatch, TlsRoute, VirtualService};
use crate::name::Hostname;

/// Protocols that the HTTP inspector detects in plaintext.
pub(super) const PLAINTEXT_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// HTTP settings of an outbound listener.
#[derive(Clone, Debug)]
pub(super) struct HttpPart {
    /// Name of the route configuration.
    pub(super) routes: ResourceName,
    /// Whether the gRPC-Web filter is added.
    pub(super) grpc_web: bool,
    /// Whether it is an explicit HTTP proxy.
    pub(super) forward_proxy: bool,
}

impl HttpPart {
    /// The chain for all connections.
    pub(super) fn chain(&self, listener: &str, config: &MeshConfig) -> FilterChain {
        self.with(ChainMatch::default(), self.manager(listener, None, config))
    }

    /// The chains for connections detected as HTTP. If all clusters use the downstream protocol,
    /// HTTP/1 and HTTP/2 get separate chains, so that each can offer the matching ALPN upstream.
    pub(super) fn sniffing(&self, listener: &str, follows_client: bool, config: &MeshConfig) -> Vec<FilterChain> {
        let chain = |protocols: &[&'static str], offered: Option<&[&'static str]>| {
            let matcher = ChainMatch {
                transport: Some(TransportProtocol::RawBuffer),
                application_protocols: protocols.to_vec(),
                ..ChainMatch::default()
            };
            self.with(matcher, self.manager(listener, offered, config))
        };
        let [http1, http2] = PLAINTEXT_HTTP;
        match follows_client {
            true => vec![
                chain(&[http1], Some(&naming::ALPN_HTTP1)),
                chain(&[http2], Some(&naming::ALPN_HTTP2)),
            ],
            false => vec![chain(&PLAINTEXT_HTTP, None)],
        }
    }

    fn with(&self, matcher: ChainMatch, manager: HttpConnectionManager) -> FilterChain {
        FilterChain {
            name: None,
            matcher,
            tls: None,
            network: NetworkFilter::Http(Box::new(manager)),
        }
    }

    fn manager(&self, listener: &str, offered: Option<&[&'static str]>, config: &MeshConfig) -> HttpConnectionManager {
        let web = self.grpc_web.then_some(HttpFilter::GrpcWeb);
        let alpn = offered.map(|protocols| HttpFilter::UpstreamAlpn(protocols.to_vec()));
        let before = web.into_iter().chain([HttpFilter::GrpcStats]).chain(alpn);
        HttpConnectionManager {
            stat_prefix: format!("outbound_{listener};").into(),
            routes: RouteSource::Rds(self.routes.clone()),
            filters: before.chain([HttpFilter::Fault, HttpFilter::Cors]).collect(),
            role: match self.forward_proxy {
                true => HttpRole::ForwardProxy,
                false => HttpRole::Client,
            },
            path_normalization: config.path_normalization,
        }
    }
}

/// Properties of a listener that its chain matches depend on.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Whether the listener has the wildcard address, so that only SNI distinguishes services.
    pub(super) wildcard: bool,
    /// CIDRs of the service.
    pub(super) ranges: &'a [IpNet],
}

/// The chains for a port that is TCP, TLS or protocol-detected.
pub(super) fn stream_chains<'a>(
    routing: &mut Routing<'a>,
    exposed: &Exposed<'a>,
    place: Place<'_>,
) -> Vec<FilterChain> {
    if let Some(rule) = exposed.rule {
        routing.reads.extend(rule.hosts.iter().cloned());
    }
    match exposed.protocol.is_tls() {
        true => tls_chains(routing, exposed, place),
        false => tcp_chains(routing, exposed, place),
    }
}

/// The chain for connections that match no other.
pub(super) fn fallthrough(policy: &OutboundPolicy) -> FilterChain {
    FilterChain {
        name: Some("PassthroughFilterChain".into()),
        matcher: ChainMatch::default(),
        tls: None,
        network: NetworkFilter::Tcp(to_cluster(&unclaimed(policy))),
    }
}

/// The cluster for destinations unknown to the mesh. The name of an egress proxy's cluster is
/// derived from its host whether such a service exists or not (Istio's
/// `buildOutboundCatchAllNetworkFiltersOnly`).
pub(super) fn unclaimed(policy: &OutboundPolicy) -> ResourceName {
    match policy {
        OutboundPolicy::AllowAny => naming::PASSTHROUGH.into(),
        OutboundPolicy::EgressProxy(proxy) => {
            naming::outbound_cluster(proxy.port.unwrap_or_default(), proxy.subset.as_deref(), &proxy.host)
        }
        OutboundPolicy::RegistryOnly => naming::BLACK_HOLE.into(),
    }
}

/// A TCP proxy to one cluster.
pub(super) fn to_cluster(cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.into(),
        clusters: vec![(cluster.into(), 1)],
        idle_timeout: None,
        max_connection_duration: None,
        hash_source_ip: false,
    }
}

/// Chains by SNI: the VirtualService's `tls` routes, else the service itself.
fn tls_chains<'a>(routing: &mut Routing<'a>, exposed: &Exposed<'a>, place: Place<'_>) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    let mut matched = false;
    for (rule, route, entry) in exposed.rule.into_iter().flat_map(tls_entries) {
        if !applies(routing, &entry.l4, exposed.port.number) {
            continue;
        }
        matched = true;
        if let Some(server_names) = server_names(&entry.sni_hosts) {
            let matcher = ChainMatch {
                server_names,
                prefix_ranges: ranges(&entry.l4, place),
                ..ChainMatch::default()
            };
            let proxy = to_destinations(routing, rule, &route.destinations, exposed);
            chains.push(chain(matcher, proxy));
        }
    }
    if matched {
        return chains;
    }
    let by_name = place.wildcard || !place.ranges.is_empty();
    let own = std::slice::from_ref(&exposed.service.key.host);
    if let Some(server_names) = server_names(if by_name { own } else { &[] }) {
        let matcher = ChainMatch {
            server_names,
            prefix_ranges: place.ranges.to_vec(),
            ..ChainMatch::default()
        };
        chains.push(chain(matcher, to_service(routing, exposed)));
    }
    chains
}

fn tls_entries(rule: &Arc<VirtualService>) -> impl Iterator<Item = (&VirtualService, &TlsRoute, &TlsMatch)> {
    rule.tls
        .iter()
        .flat_map(move |route| route.matches.iter().map(move |entry| (&**rule, route, entry)))
}

/// The VirtualService's `tcp` routes up to the first that matches every address, else the service
/// itself.
fn tcp_chains<'a>(routing: &mut Routing<'a>, exposed: &Exposed<'a>, place: Place<'_>) -> Vec<FilterChain> {
    let mut chains: Vec<FilterChain> = Vec::new();
    let own = || ChainMatch {
        prefix_ranges: place.ranges.to_vec(),
        ..ChainMatch::default()
    };
    for (rule, route) in exposed
        .rule
        .into_iter()
        .flat_map(|rule| rule.tcp.iter().map(move |route| (rule, route)))
    {
        let matches = route
            .matches
            .iter()
            .filter(|entry| applies(routing, entry, exposed.port.number));
        let matches: Vec<&L4Match> = matches.collect();
        let everything = route.matches.is_empty() || matches.iter().any(|entry| entry.destination_subnets.is_empty());
        let subnets: BTreeSet<IpNet> = matches
            .iter()
            .flat_map(|entry| &entry.destination_subnets)
            .copied()
            .collect();
        if !everything && subnets.is_empty() {
            continue;
        }
        let matcher = match everything {
            true => own(),
            false => ChainMatch {
                prefix_ranges: subnets.into_iter().collect(),
                ..ChainMatch::default()
            },
        };
        if chains.iter().all(|chain| chain.matcher != matcher) {
            chains.push(chain(
                matcher,
                to_destinations(routing, rule, &route.destinations, exposed),
            ));
        }
        if everything {
            return chains;
        }
    }
    if chains.iter().all(|chain| chain.matcher != own()) {
        chains.push(chain(own(), to_service(routing, exposed)));
    }
    chains
}

fn chain(matcher: ChainMatch, proxy: TcpProxy) -> FilterChain {
    FilterChain {
        name: None,
        matcher,
        tls: None,
        network: NetworkFilter::Tcp(proxy),
    }
}

fn applies(routing: &Routing<'_>, entry: &L4Match, port: u16) -> bool {
    entry.port.is_none_or(|only| only == port) && routing.is_source(&entry.source)
}

/// The subnets of the match, else those of the service.
fn ranges(entry: &L4Match, place: Place<'_>) -> Vec<IpNet> {
    match entry.destination_subnets.is_empty() {
        true => place.ranges.to_vec(),
        false => entry.destination_subnets.clone(),
    }
}

/// Hosts as Envoy matches SNI: `*` is expressed by an empty list, and `*-a.com` is not supported.
/// `None` if no host is left.
fn server_names(hosts: &[Hostname]) -> Option<Vec<Arc<str>>> {
    if hosts.iter().any(|host| host.as_str() == "*") {
        return Some(Vec::new());
    }
    let known = |host: &&Hostname| !host.is_wildcard() || host.as_str().starts_with("*.");
    let names: Vec<Arc<str>> = hosts.iter().filter(known).map(|host| host.as_str().into()).collect();
    (hosts.is_empty() || !names.is_empty()).then_some(names)
}

fn to_service<'a>(routing: &mut Routing<'a>, exposed: &Exposed<'a>) -> TcpProxy {
    let target = routing.whole(exposed.service, exposed.port.number);
    TcpProxy {
        stat_prefix: target.cluster.clone(),
        clusters: vec![(target.cluster.clone(), 1)],
        ..with_policy(&target)
    }
}

fn to_destinations(
    routing: &mut Routing<'_>,
    rule: &VirtualService,
    destinations: &[(Destination, u32)],
    exposed: &Exposed<'_>,
) -> TcpProxy {
    let weighted = destinations.iter().filter(|(_, weight)| *weight > 0).count();
    let chosen = destinations
        .iter()
        .filter(|(_, weight)| weighted == 0 || *weight > 0)
        .take(if weighted == 0 { 1 } else { usize::MAX });
    let targets: Vec<(Target, u32)> = chosen
        .map(|(destination, weight)| (routing.target(destination, exposed.port.number), (*weight).max(1)))
        .collect();
    let Some((first, _)) = targets.first() else {
        return to_cluster(naming::BLACK_HOLE);
    };
    TcpProxy {
        stat_prefix: match targets.len() {
            1 => first.cluster.clone(),
            _ => format!("{}.{}", rule.id.name, rule.id.namespace).into(),
        },
        clusters: targets
            .iter()
            .map(|(target, weight)| (target.cluster.clone(), *weight))
            .collect(),
        ..with_policy(first)
    }
}

/// Connection settings of the destination's policy.
fn with_policy(target: &Target) -> TcpProxy {
    let pool = target.policy.connection_pool.as_ref();
    TcpProxy {
        idle_timeout: pool.and_then(|pool| pool.tcp_idle_timeout),
        max_connection_duration: pool.and_then(|pool| pool.max_connection_duration),
        hash_source_ip: target.hash() == Some(&HashKey::SourceIp),
        ..to_cluster(&target.cluster)
    }
}
