//! Outbound listeners.

use super::super::fixture::*;
use crate::ir::NodeView;
use crate::ir::build::Built;
use crate::ir::listener::{FilterChain, HttpFilter, Listener, NetworkFilter, RouteSource, TransportProtocol};
use crate::ir::node::InterceptionMode;
use crate::mesh::service::{Protocol, Resolution};
use crate::name::Kind;

/// The target of a chain: `http:<routes>` or its clusters.
fn leads_to(chain: &FilterChain) -> String {
    match &chain.network {
        NetworkFilter::Http(manager) => match &manager.routes {
            RouteSource::Rds(name) => format!("http:{name}"),
            RouteSource::Inline(routes) => format!("inline:{}", routes.name),
        },
        NetworkFilter::Tcp(proxy) => {
            let clusters: Vec<&str> = proxy.clusters.iter().map(|(cluster, _)| &**cluster).collect();
            clusters.join(",")
        }
    }
}

/// Chains as (SNI, ALPN or ranges; target); `default` for the default chain.
pub(super) fn chains(listener: &Listener) -> Vec<(String, String)> {
    let describe = |chain: &FilterChain| {
        let matcher = &chain.matcher;
        let names = matcher.server_names.iter().map(ToString::to_string);
        let protocols = matcher.application_protocols.iter().map(ToString::to_string);
        let ranges = matcher.prefix_ranges.iter().map(ToString::to_string);
        let all: Vec<String> = names.chain(protocols).chain(ranges).collect();
        (all.join(","), leads_to(chain))
    };
    let default = listener
        .default_chain
        .as_ref()
        .map(|chain| ("default".to_owned(), leads_to(chain)));
    listener.chains.iter().map(describe).chain(default).collect()
}

fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter()
        .map(|(one, other)| ((*one).to_owned(), (*other).to_owned()))
        .collect()
}

fn outbound(built: &Built) -> Vec<&str> {
    let all = built.listeners().into_iter();
    all.filter(|name| !name.starts_with("virtual")).collect()
}

#[test]
fn http_services_share_a_wildcard_listener() {
    let built = World::new()
        .with(service("a").port_of(80, Protocol::Http).vip("10.96.0.1"))
        .with(service("b").port_of(80, Protocol::GrpcWeb).vip("10.96.0.2"))
        .build(&node());
    assert_eq!(outbound(&built), ["0.0.0.0_80"]);
    let listener = built.listener("0.0.0.0_80");
    assert!(!listener.bind);
    assert_eq!(
        chains(listener),
        rows(&[("http/1.1,h2c", "http:80"), ("default", "PassthroughCluster")])
    );
    assert_eq!(listener.chains[0].matcher.transport, Some(TransportProtocol::RawBuffer));
    let NetworkFilter::Http(manager) = &listener.chains[0].network else {
        panic!("{listener:?}");
    };
    assert_eq!(
        manager.filters,
        [
            HttpFilter::GrpcWeb,
            HttpFilter::GrpcStats,
            HttpFilter::Fault,
            HttpFilter::Cors
        ]
    );
    assert!(listener.inspection.tls.is_some() && listener.inspection.http.is_some());
    assert_eq!(listener.origins.len(), 2);
}

#[test]
fn tcp_services_have_listeners_at_addresses_and_cidrs() {
    let built = World::new()
        .with(
            service("a")
                .port_of(91, Protocol::Tcp)
                .vip("10.96.0.1")
                .vip("10.96.0.2")
                .vip("192.0.2.0/24"),
        )
        .with(service("b").port_of(91, Protocol::Tcp))
        .build(&node());
    assert_eq!(outbound(&built), ["0.0.0.0_91", "10.96.0.1_91", "10.96.0.2_91"]);
    let a = "outbound|91||a.default.svc.cluster.local";
    let b = "outbound|91||b.default.svc.cluster.local";
    assert_eq!(
        chains(built.listener("0.0.0.0_91")),
        rows(&[("192.0.2.0/24", a), ("default", b)])
    );
    assert_eq!(chains(built.listener("10.96.0.1_91")), rows(&[("", a)]));
    assert_eq!(
        built.listener("10.96.0.1_91").inspection,
        Default::default(),
        "nothing to look at"
    );
}

#[test]
fn tls_services_without_addresses_are_distinguished_by_sni() {
    let built = World::new()
        .with(
            service("one.example.com")
                .port_of(443, Protocol::Https)
                .resolved_by(Resolution::Dns),
        )
        .with(service("two.example.com").port_of(443, Protocol::Tls))
        .with(service("a").port_of(443, Protocol::Tls).vip("10.96.0.1"))
        .build(&node());
    assert_eq!(
        chains(built.listener("0.0.0.0_443")),
        rows(&[
            ("one.example.com", "outbound|443||one.example.com"),
            ("two.example.com", "outbound|443||two.example.com"),
            ("default", "PassthroughCluster"),
        ])
    );
    assert_eq!(
        chains(built.listener("10.96.0.1_443")),
        rows(&[("", "outbound|443||a.default.svc.cluster.local")])
    );
}

#[test]
fn ports_without_protocol_use_detection() {
    let built = World::new()
        .with(service("a").port_of(92, Protocol::Auto).vip("10.96.0.1"))
        .build(&node());
    let listener = built.listener("10.96.0.1_92");
    let routes = "http:a.default.svc.cluster.local:92";
    assert_eq!(
        chains(listener),
        rows(&[
            ("http/1.1", routes),
            ("h2c", routes),
            ("default", "outbound|92||a.default.svc.cluster.local")
        ])
    );
    let offered = |chain: &FilterChain| match &chain.network {
        NetworkFilter::Http(manager) => manager.filters.iter().find_map(|filter| match filter {
            HttpFilter::UpstreamAlpn(protocols) => Some(protocols[0]),
            HttpFilter::GrpcWeb | HttpFilter::GrpcStats | HttpFilter::Fault | HttpFilter::Cors => None,
        }),
        NetworkFilter::Tcp(_) => None,
    };
    assert_eq!(offered(&listener.chains[0]), Some("istio-http/1.1"));
    assert_eq!(offered(&listener.chains[1]), Some("istio-h2"));
    let routes = built.routes("a.default.svc.cluster.local:92");
    assert_eq!(routes.virtual_hosts.len(), 1);
    assert_eq!(&*routes.virtual_hosts[0].domains[0], "*");
}

#[test]
fn a_detected_route_to_a_declared_port_offers_its_alpn() {
    let built = World::new()
        .with(service("a").port_of(92, Protocol::Auto).vip("10.96.0.1"))
        .with(service("b").port_of(93, Protocol::Grpc))
        .with(routes("a", vec![to(&[("b", 1)])]))
        .build(&node());
    let listener = built.listener("10.96.0.1_92");
    assert_eq!(
        chains(listener)[0].0,
        "http/1.1,h2c",
        "HTTP is one: the cluster's own ALPN holds"
    );
}

#[test]
fn services_at_one_address_share_a_listener_or_conflict() {
    let built = World::new()
        .with(service("a").port_of(80, Protocol::Http))
        .with(service("b").port_of(80, Protocol::Tcp))
        .with(service("c").port_of(80, Protocol::Tcp))
        .build(&node());
    assert_eq!(
        chains(built.listener("0.0.0.0_80")),
        rows(&[
            ("http/1.1,h2c", "http:80"),
            ("default", "outbound|80||b.default.svc.cluster.local")
        ])
    );
    let kept: Vec<_> = built
        .conflicts
        .iter()
        .map(|conflict| conflict.dropped.clone())
        .collect();
    assert_eq!(kept, [Some(id(Kind::Service, "c"))]);
}

#[test]
fn server_first_protocols_disable_detection() {
    let before = World::new()
        .with(service("a").port_of(80, Protocol::Mongo))
        .with(service("b").port_of(80, Protocol::Http))
        .build(&node());
    assert_eq!(
        chains(before.listener("0.0.0.0_80")),
        rows(&[("", "outbound|80||a.default.svc.cluster.local")])
    );
    let after = World::new()
        .with(service("a").port_of(80, Protocol::Http))
        .with(service("b").port_of(80, Protocol::MySql))
        .build(&node());
    assert_eq!(chains(after.listener("0.0.0.0_80"))[1].1, "PassthroughCluster");
    assert_eq!(after.conflicts.len(), 1);
}

#[test]
fn virtual_services_route_tls_and_tcp() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.96.0.1, ports: [{name: tcp, port: 91}, {name: tls, port: 94}]}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {ports: [{name: tcp, port: 91}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a, x.example.com, y.example.com]
  tcp:
  - match: [{destinationSubnets: [10.96.0.0/24], port: 91}]
    route: [{destination: {host: b}}]
  - match: [{sourceLabels: {app: nobody}}]
    route: [{destination: {host: nowhere.example.com}}]
  - match: [{port: 91}]
    route: [{destination: {host: a, port: {number: 91}}, weight: 1}, {destination: {host: b}, weight: 3}]
  tls:
  - match: [{sniHosts: [x.example.com]}, {sniHosts: [x.example.com], sourceLabels: {app: client}}]
    route: [{destination: {host: b}}]
  - match: [{sniHosts: [x.example.com, y.example.com]}]
    route: [{destination: {host: a, port: {number: 94}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: nowhere}
spec: {hosts: [nowhere.example.com], resolution: NONE, ports: [{name: tcp, number: 91, protocol: TCP}], addresses: [192.0.2.1]}
";
    let built = built(&node(), text);
    let (a, b) = (
        "outbound|91||a.default.svc.cluster.local",
        "outbound|91||b.default.svc.cluster.local",
    );
    assert_eq!(
        chains(built.listener("10.96.0.1_91")),
        rows(&[("10.96.0.0/24", b), ("default", &format!("{a},{b}"))])
    );
    assert_eq!(
        chains(built.listener("10.96.0.1_94")),
        rows(&[
            ("x.example.com", b),
            ("y.example.com", "outbound|94||a.default.svc.cluster.local")
        ])
    );
    let NetworkFilter::Tcp(proxy) = &built.listener("10.96.0.1_91").default_chain.as_ref().unwrap().network else {
        panic!("TCP");
    };
    assert_eq!(&*proxy.stat_prefix, "a.default");
    assert_eq!(
        proxy.clusters.iter().map(|(_, weight)| *weight).collect::<Vec<_>>(),
        [1, 3]
    );
}

#[test]
fn sni_hosts_that_envoy_cannot_match_are_omitted() {
    let built = World::new()
        .with(service("*-a.example.com").port_of(443, Protocol::Tls))
        .with(service("*.example.com").port_of(443, Protocol::Tls))
        .build(&node());
    assert_eq!(
        chains(built.listener("0.0.0.0_443")),
        rows(&[
            ("*.example.com", "outbound|443||*.example.com"),
            ("default", "PassthroughCluster")
        ])
    );
}

#[test]
fn virtual_outbound_receives_all_traffic() {
    let built = World::new().build(&node());
    let listener = built.listener("virtualOutbound");
    assert!(listener.use_original_dst && listener.bind && !listener.transparent);
    let ports: Vec<_> = listener
        .chains
        .iter()
        .map(|chain| (chain.matcher.destination_port, leads_to(chain)))
        .collect();
    assert_eq!(
        ports,
        [
            (Some(15001), "BlackHoleCluster".to_owned()),
            (None, "PassthroughCluster".to_owned())
        ]
    );
    let tproxy = NodeView {
        mode: InterceptionMode::Tproxy,
        ..node()
    };
    assert!(World::new().build(&tproxy).listener("virtualOutbound").transparent);
}

#[test]
fn an_ipv6_proxy_listens_on_ipv6() {
    let six = NodeView {
        addresses: vec!["fd00::9".parse().unwrap()],
        ..node()
    };
    let world = World::new().with(service("a").port_of(80, Protocol::Http));
    assert_eq!(outbound(&world.build(&six)), ["::_80"]);
    let bound = NodeView {
        mode: InterceptionMode::None,
        ..six
    };
    assert_eq!(outbound(&world.build(&bound)), ["::1_80"]);
}
