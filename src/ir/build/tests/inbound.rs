//! Inbound listeners.

use std::sync::Arc;

use super::super::fixture::*;
use crate::ir::NodeView;
use crate::ir::build::{Built, update};
use crate::ir::cluster::Discovery;
use crate::ir::listener::{
    FilterChain, HttpRole, InspectExcept, Listener, NetworkFilter, RouteSource, TransportProtocol,
};
use crate::ir::node::InterceptionMode;
use crate::mesh::Labels;
use crate::mesh::destination_rule::{ConnectionPool, TrafficPolicy};
use crate::mesh::peer_authentication::{MutualTlsMode, PeerAuthentication};
use crate::mesh::service::{Address, Protocol};
use crate::mesh::sidecar::DefaultEndpoint;
use crate::name::Kind;

/// A chain in one line: ALPN, transport, handling, and whether TLS is terminated.
fn line(chain: &FilterChain) -> String {
    let alpn = match chain.matcher.application_protocols.as_slice() {
        [] => "-".to_owned(),
        [first, ..] if first.starts_with("istio-http") && chain.matcher.application_protocols.len() == 5 => {
            "all-istio".to_owned()
        }
        [first, ..] if first.starts_with("istio-http") => "istio-http".to_owned(),
        ["istio-peer-exchange", "istio"] => "istio-tcp".to_owned(),
        ["http/1.1", "h2c"] => "plain-http".to_owned(),
        other => format!("{other:?}"),
    };
    let transport = match chain.matcher.transport {
        Some(TransportProtocol::Tls) => "tls",
        Some(TransportProtocol::RawBuffer) => "raw",
        None => "any",
    };
    let serve = match &chain.network {
        NetworkFilter::Http(_) => "http",
        NetworkFilter::Tcp(_) => "tcp",
    };
    let ends = if chain.tls.is_some() { " mtls" } else { "" };
    format!("{alpn} {transport} {serve}{ends}")
}

fn lines(listener: &Listener, port: Option<u16>) -> Vec<String> {
    let of_port = listener
        .chains
        .iter()
        .filter(|chain| chain.matcher.destination_port == port);
    of_port.map(line).collect()
}

/// The chains of port 8080 for a mode and a protocol.
fn table(mutual: MutualTlsMode, protocol: Protocol) -> Vec<String> {
    let service = service("own")
        .port_of(8080, protocol)
        .endpoint(endpoint("10.0.0.9", "own"));
    let built = World::new().with(service).with(mode("default", mutual)).build(&node());
    lines(built.listener("virtualInbound"), Some(8080))
}

#[test]
fn filter_chains_by_mode_and_protocol() {
    use MutualTlsMode::{Disable, Permissive, Strict};
    let http = [Protocol::Http, Protocol::Grpc];
    let tcp = [Protocol::Tcp, Protocol::Https, Protocol::Redis];
    for protocol in http {
        assert_eq!(table(Permissive, protocol), ["all-istio tls http mtls", "- raw http"]);
        assert_eq!(table(Strict, protocol), ["- tls http mtls"]);
        assert_eq!(table(Disable, protocol), ["- raw http"]);
    }
    for protocol in tcp {
        assert_eq!(
            table(Permissive, protocol),
            ["all-istio tls tcp mtls", "- tls tcp", "- raw tcp"]
        );
        assert_eq!(table(Strict, protocol), ["- tls tcp mtls"]);
        assert_eq!(table(Disable, protocol), ["- raw tcp"]);
    }
    let auto = Protocol::Auto;
    assert_eq!(
        table(Permissive, auto),
        [
            "istio-http tls http mtls",
            "plain-http raw http",
            "istio-tcp tls tcp mtls",
            "- raw tcp",
            "- tls tcp"
        ]
    );
    assert_eq!(table(Strict, auto), ["istio-http tls http mtls", "- tls tcp mtls"]);
    assert_eq!(table(Disable, auto), ["plain-http raw http", "- raw tcp"]);
}

fn for_ports(ports: Vec<(u16, Option<MutualTlsMode>)>) -> PeerAuthentication {
    PeerAuthentication {
        id: id(Kind::PeerAuthentication, "own"),
        selector: Some(labels(&[("app", "client")])),
        mode: Some(MutualTlsMode::Strict),
        ports,
    }
}

#[test]
fn port_level_mtls_applies_with_and_without_a_service() {
    let service = service("own")
        .port_of(8080, Protocol::Http)
        .endpoint(endpoint("10.0.0.9", "own"));
    let policy = for_ports(vec![
        (8080, Some(MutualTlsMode::Disable)),
        (9999, Some(MutualTlsMode::Disable)),
        (9998, None),
    ]);
    let built = World::new().with(service).with(policy).build(&node());
    let listener = built.listener("virtualInbound");
    assert_eq!(lines(listener, Some(8080)), ["- raw http"]);
    assert_eq!(lines(listener, Some(9999)), ["plain-http raw http", "- raw tcp"]);
    assert_eq!(
        lines(listener, Some(9998)),
        ["istio-http tls http mtls", "- tls tcp mtls"]
    );
    assert_eq!(lines(listener, None), ["istio-http tls http mtls", "- tls tcp mtls"]);
    assert_eq!(listener.inspection.tls, Some(InspectExcept(vec![8080, 9999, 15006])));
    assert_eq!(listener.inspection.http, Some(InspectExcept(vec![8080, 9998, 15006])));
    assert!(listener.inspection.original_dst);
}

#[test]
fn the_tls_inspector_is_disabled_without_mutual_tls() {
    let built = World::new()
        .with(mode("istio-system", MutualTlsMode::Disable))
        .build(&node());
    let listener = built.listener("virtualInbound");
    assert_eq!(listener.inspection.tls, None);
    assert_eq!(lines(listener, None), ["plain-http raw http", "- any tcp"]);
}

#[test]
fn the_client_certificate_is_forwarded() {
    let built = World::new()
        .with(
            service("own")
                .port_of(8080, Protocol::Http)
                .endpoint(endpoint("10.0.0.9", "own")),
        )
        .build(&node());
    let listener = built.listener("virtualInbound");
    let chain = listener
        .chains
        .iter()
        .find(|chain| chain.name.as_deref() == Some("0.0.0.0_8080"))
        .unwrap();
    let tls = chain.tls.as_ref().unwrap();
    assert_eq!(tls.trust_domains, [built_in_domain()]);
    assert_eq!(tls.alpn, ["h2", "http/1.1"]);
    let NetworkFilter::Http(manager) = &chain.network else {
        panic!("{chain:?}");
    };
    assert_eq!(
        (manager.role, &*manager.stat_prefix),
        (HttpRole::Server, "inbound_0.0.0.0_8080;")
    );
    let RouteSource::Inline(routes) = &manager.routes else {
        panic!("inbound routes are in the listener");
    };
    assert_eq!(&*routes.name, "inbound|8080||");
    assert_eq!(&*routes.virtual_hosts[0].name, "inbound|http|8080");
    assert_eq!(
        &*routes.virtual_hosts[0].routes[0].operation,
        "own.default.svc.cluster.local:8080/*"
    );
}

fn built_in_domain() -> crate::name::TrustDomain {
    crate::name::TrustDomain::default()
}

#[test]
fn the_older_of_two_services_determines_the_protocol_of_a_port() {
    let at = |name: &str, port: u16, protocol: Protocol| {
        let mut service = service(name).port_of(port, protocol);
        service.ports[0].target = 8080;
        service.endpoint(endpoint("10.0.0.9", "own"))
    };
    let built = World::new()
        .with(at("b", 80, Protocol::Http))
        .with(at("a", 81, Protocol::Tcp))
        .build(&node());
    assert!(
        lines(built.listener("virtualInbound"), Some(8080))
            .iter()
            .all(|line| line.contains("tcp"))
    );
    assert_eq!(
        built.cluster("inbound|8080||").origins.first(),
        Some(&id(Kind::Service, "a"))
    );
}

#[test]
fn the_services_destination_rule_limits_inbound_connections() {
    let pool = |connections| ConnectionPool {
        max_connections: Some(connections),
        ..ConnectionPool::default()
    };
    let policy = TrafficPolicy {
        connection_pool: Some(pool(7)),
        ..TrafficPolicy::default()
    };
    let mut world = World::new()
        .with(
            service("own")
                .port_of(8080, Protocol::Http)
                .endpoint(endpoint("10.0.0.9", "own")),
        )
        .with(with_policy(rule("own", &[]), policy));
    let limit = |built: &Built| built.cluster("inbound|8080||").limits.connections;
    let before = world.build(&node());
    assert_eq!(limit(&before), Some(7));
    let mut own = sidecar(Vec::new(), Vec::new());
    own.inbound_connection_pool = Some(pool(3));
    let touched = world.put(own);
    assert_eq!(limit(&update(&world.mesh, &node(), &before, &touched)), Some(3));
}

#[test]
fn ingress_replaces_the_ports_of_services() {
    let world = World::new()
        .with(
            service("own")
                .port_of(8080, Protocol::Http)
                .endpoint(endpoint("10.0.0.9", "own")),
        )
        .with(sidecar(
            vec![
                ingress(9080, None, DefaultEndpoint::Unix("/var/run/app".into())),
                ingress(9081, None, DefaultEndpoint::Instance(81)),
                ingress(9082, None, DefaultEndpoint::Original),
            ],
            Vec::new(),
        ));
    let built = world.build(&node());
    assert!(lines(built.listener("virtualInbound"), Some(8080)).is_empty());
    assert_eq!(lines(built.listener("virtualInbound"), Some(9080)).len(), 2);
    let place = |name: &str| match &built.cluster(name).discovery {
        Discovery::Static(endpoints) => {
            let endpoint = &endpoints.localities[0].endpoints[0];
            Some((endpoint.address.clone(), endpoint.port))
        }
        Discovery::Eds | Discovery::StrictDns(..) | Discovery::LogicalDns(..) | Discovery::OriginalDst { .. } => None,
    };
    assert_eq!(place("inbound|9080||"), Some((Address::Unix("/var/run/app".into()), 0)));
    assert_eq!(
        place("inbound|9081||"),
        Some((Address::Ip("10.0.0.9".parse().unwrap()), 81))
    );
    assert_eq!(place("inbound|9082||"), None, "where the client dialled");
}

#[test]
fn bound_ingress_listeners_support_mutual_tls() {
    let world = World::new().with(mode("default", MutualTlsMode::Strict)).with(sidecar(
        vec![
            ingress(
                9080,
                Some("127.0.10.1"),
                DefaultEndpoint::Loopback("127.0.0.1:19080".parse().unwrap()),
            ),
            ingress(9081, None, DefaultEndpoint::Original),
        ],
        Vec::new(),
    ));
    let built = world.build(&bound_node("127.0.10.9"));
    assert_eq!(
        built.listeners(),
        ["127.0.10.1_9080", "127.0.10.9_9081"],
        "the workload's own address else"
    );
    let listener = built.listener("127.0.10.1_9080");
    assert_eq!(lines(listener, None), ["- tls http mtls"]);
    assert!(listener.inspection.tls.is_some() && !listener.inspection.original_dst);
    let Discovery::Static(endpoints) = &built.cluster("inbound|9081||").discovery else {
        panic!("a listener of its own is not where the application is");
    };
    assert_eq!(
        endpoints.localities[0].endpoints[0].address,
        Address::Ip("127.0.0.1".parse().unwrap())
    );
}

#[test]
fn an_ingress_listener_can_bind_despite_interception() {
    let mut bound = ingress(
        9080,
        Some("127.0.10.1"),
        DefaultEndpoint::Loopback("127.0.0.1:80".parse().unwrap()),
    );
    bound.bound = true;
    let built = World::new().with(sidecar(vec![bound], Vec::new())).build(&node());
    assert_eq!(
        built.listeners(),
        ["127.0.10.1_9080", "virtualInbound", "virtualOutbound"]
    );
    assert!(lines(built.listener("virtualInbound"), Some(9080)).is_empty());
}

#[test]
fn tproxy_keeps_the_clients_address() {
    let tproxy = NodeView {
        mode: InterceptionMode::Tproxy,
        ..node()
    };
    let built = World::new().build(&tproxy);
    let listener = built.listener("virtualInbound");
    assert!(listener.transparent);
    assert_eq!(listener.inspection.original_src_mark, Some(1337));
}

#[test]
fn unrelated_edits_keep_the_inbound_part() {
    let mut world = World::new().with(
        service("own")
            .port_of(8080, Protocol::Http)
            .endpoint(endpoint("10.0.0.9", "own")),
    );
    let before = world.build(&node());
    let touched = world.put(
        service("other")
            .port_of(80, Protocol::Http)
            .endpoint(endpoint("10.0.0.8", "other")),
    );
    let after = update(&world.mesh, &node(), &before, &touched);
    assert!(Arc::ptr_eq(&before.inbound, &after.inbound));
    let relabelled = NodeView {
        labels: Arc::new(Labels::new()),
        ..node()
    };
    let other = update(&world.mesh, &relabelled, &after, &Default::default());
    assert!(!Arc::ptr_eq(&other.inbound, &after.inbound));
    assert!(
        Arc::ptr_eq(&other.outbound, &after.outbound),
        "no rule asks for the label"
    );
}
