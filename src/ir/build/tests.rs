//! Building a node's configuration from a mesh.

mod clusters;
mod inbound;
mod listeners;
mod routes;
mod sidecars;

use std::sync::Arc;

use super::fixture::*;
use super::*;
use crate::ir::cluster::{Discovery, ServerIdentity, Transport, UpstreamTls};
use crate::ir::route::{RouteAction, VirtualHost};
use crate::mesh::destination_rule::{ClientTlsMode, LbAlgorithm, LoadBalancerPolicy, TrafficPolicy};
use crate::mesh::service::{Protocol, Resolution};
use crate::mesh::sidecar::DefaultEndpoint;
use crate::name::Kind;

/// Bookinfo from Istio's documentation: HTTP on 9080, and a database.
fn bookinfo() -> World {
    let http = |name: &str, vip: &str| service(name).port_of(9080, Protocol::Http).vip(vip);
    let reviews = http("reviews", "10.96.0.3")
        .endpoint(labelled(endpoint("10.0.0.3", "bookinfo-reviews"), &[("version", "v1")]))
        .endpoint(labelled(endpoint("10.0.0.4", "bookinfo-reviews"), &[("version", "v2")]));
    World::new()
        .with(http("details", "10.96.0.1"))
        .with(http("ratings", "10.96.0.2"))
        .with(reviews)
        .with(http("productpage", "10.96.0.4").endpoint(endpoint("10.0.0.9", "productpage")))
        .with(service("mongo").port_of(27017, Protocol::Mongo).vip("10.96.0.9"))
        .with(rule("reviews", &["v1", "v2"]))
        .with(routes("reviews", vec![to(&[("reviews/v1", 80), ("reviews/v2", 20)])]))
}

fn virtual_host<'a>(built: &'a Built, routes: &str, name: &str) -> &'a Arc<VirtualHost> {
    let found = built
        .routes(routes)
        .virtual_hosts
        .iter()
        .find(|host| *host.name == *name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

fn domains(host: &VirtualHost) -> Vec<&str> {
    host.domains.iter().map(|domain| &**domain).collect()
}

/// Clusters and weights of the first route.
fn clusters_of(host: &VirtualHost) -> Vec<(&str, u32)> {
    match &host.routes[0].action {
        RouteAction::Forward(forward) => {
            let clusters = forward.clusters.iter();
            clusters.map(|cluster| (&*cluster.cluster, cluster.weight)).collect()
        }
        RouteAction::Redirect(_) | RouteAction::Direct(_) => Vec::new(),
    }
}

#[test]
fn bookinfo_has_the_same_resources_as_in_istio() {
    let built = bookinfo().build(&node());
    assert_eq!(
        built.listeners(),
        ["0.0.0.0_9080", "10.96.0.9_27017", "virtualInbound", "virtualOutbound"]
    );
    assert_eq!(
        built.clusters(),
        [
            "BlackHoleCluster",
            "InboundPassthroughCluster",
            "PassthroughCluster",
            "inbound|9080||",
            "outbound|27017||mongo.default.svc.cluster.local",
            "outbound|9080|v1|reviews.default.svc.cluster.local",
            "outbound|9080|v2|reviews.default.svc.cluster.local",
            "outbound|9080||details.default.svc.cluster.local",
            "outbound|9080||productpage.default.svc.cluster.local",
            "outbound|9080||ratings.default.svc.cluster.local",
            "outbound|9080||reviews.default.svc.cluster.local",
        ]
    );
    let eds: Vec<&str> = built.config.endpoints.keys().map(|name| &**name).collect();
    assert_eq!(eds, &built.clusters()[4..]);
    let hosts: Vec<&str> = built
        .routes("9080")
        .virtual_hosts
        .iter()
        .map(|host| &*host.name)
        .collect();
    assert_eq!(
        hosts,
        [
            "details.default.svc.cluster.local:9080",
            "productpage.default.svc.cluster.local:9080",
            "ratings.default.svc.cluster.local:9080",
            "reviews.default.svc.cluster.local:9080",
            "allow_any",
        ]
    );
    let reviews = virtual_host(&built, "9080", "reviews.default.svc.cluster.local:9080");
    assert_eq!(
        domains(reviews),
        [
            "reviews.default.svc.cluster.local",
            "reviews.default.svc.cluster.local.",
            "10.96.0.3",
            "reviews",
            "reviews.default.svc",
            "reviews.default",
        ]
    );
    assert_eq!(
        clusters_of(reviews),
        [
            ("outbound|9080|v1|reviews.default.svc.cluster.local", 80),
            ("outbound|9080|v2|reviews.default.svc.cluster.local", 20)
        ]
    );
}

#[test]
fn subsets_use_auto_mtls() {
    let built = bookinfo().build(&node());
    let v1 = built.cluster("outbound|9080|v1|reviews.default.svc.cluster.local");
    let Transport::Auto(UpstreamTls::Istio { server, sni, alpn, .. }) = &v1.transport else {
        panic!("{:?}", v1.transport);
    };
    assert_eq!(**sni, *"outbound_.9080_.v1_.reviews.default.svc.cluster.local");
    assert_eq!(*alpn, ["istio-http/1.1", "istio", "http/1.1"]);
    let account = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews".to_owned();
    assert_eq!(*server, ServerIdentity::Exact(vec![account]));
    assert_eq!(v1.discovery, Discovery::Eds);
    let groups = &built.endpoints(&v1.name).localities;
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].endpoints.len(), 1);
    assert!(groups[0].endpoints[0].mutual_tls);
}

#[test]
fn a_virtual_service_routes_to_a_subset_of_a_destination_rule() {
    let world = bookinfo()
        .with(routes("reviews", vec![prefix("/v2", to(&[("reviews/v2", 0)]))]))
        .with(with_policy(
            rule("reviews", &["v1", "v2"]),
            tls(ClientTlsMode::IstioMutual),
        ));
    let built = world.build(&node());
    let reviews = virtual_host(&built, "9080", "reviews.default.svc.cluster.local:9080");
    assert_eq!(reviews.routes.len(), 1, "nothing but /v2 is routed");
    assert_eq!(
        clusters_of(reviews),
        [("outbound|9080|v2|reviews.default.svc.cluster.local", 1)]
    );
    let v2 = built.cluster("outbound|9080|v2|reviews.default.svc.cluster.local");
    assert!(matches!(v2.transport, Transport::Tls(UpstreamTls::Istio { .. })));
}

#[test]
fn without_interception_listeners_are_bound() {
    let reviews = "./reviews.default.svc.cluster.local";
    let world = bookinfo().with(sidecar(
        vec![ingress(
            9080,
            Some("127.0.10.1"),
            DefaultEndpoint::Loopback("127.0.0.1:19081".parse().unwrap()),
        )],
        vec![egress(Some((9080, Protocol::Http)), Some("127.0.11.1"), &[reviews])],
    ));
    let built = world.build(&bound_node("127.0.10.1"));
    assert_eq!(built.listeners(), ["127.0.10.1_9080", "127.0.11.1_9080"]);
    let out = built.listener("127.0.11.1_9080");
    assert!(out.bind && out.chains.len() == 1 && out.chains[0].matcher == Default::default());
    assert!(built.listener("127.0.10.1_9080").bind);
    let hosts: Vec<&str> = built
        .routes("9080")
        .virtual_hosts
        .iter()
        .map(|host| &*host.name)
        .collect();
    // Traffic to unknown destinations cannot be passed through.
    assert_eq!(hosts, ["reviews.default.svc.cluster.local:9080", "block_all"]);
    assert_eq!(
        built.clusters(),
        [
            "BlackHoleCluster",
            "PassthroughCluster",
            "inbound|9080||",
            "outbound|9080|v1|reviews.default.svc.cluster.local",
            "outbound|9080|v2|reviews.default.svc.cluster.local",
            "outbound|9080||reviews.default.svc.cluster.local",
        ]
    );
    let Discovery::Static(application) = &built.cluster("inbound|9080||").discovery else {
        panic!("the application has an address");
    };
    assert_eq!(application.localities[0].endpoints[0].port, 19081);
}

#[test]
fn ingress_takes_precedence_over_an_outbound_listener_at_its_address() {
    let world = bookinfo().with(sidecar(
        vec![ingress(9080, None, DefaultEndpoint::Original)],
        vec![egress(None, Some("127.0.10.1"), &["*/*"])],
    ));
    let built = world.build(&bound_node("127.0.10.1"));
    assert_eq!(built.listeners(), ["127.0.10.1_27017", "127.0.10.1_9080"]);
    assert_eq!(
        built.listener("127.0.10.1_9080").direction,
        crate::ir::listener::Direction::Inbound
    );
    assert_eq!(built.conflicts.len(), 1);
    assert_eq!(built.conflicts[0].kept, Some(id(Kind::Sidecar, "default")));
}

#[test]
fn without_interception_and_ingress_there_are_no_inbound_listeners() {
    let built = bookinfo().build(&bound_node("10.0.0.9"));
    assert_eq!(built.listeners(), ["127.0.0.1_27017", "127.0.0.1_9080"]);
    assert!(!built.clusters().contains(&"inbound|9080||"));
}

#[test]
fn nodes_with_different_addresses_share_outbound_configuration() {
    let world = bookinfo();
    let other = NodeView {
        addresses: vec!["10.0.0.4".parse().unwrap()],
        ..node()
    };
    assert_eq!(outbound_view(&world.mesh, &node()), outbound_view(&world.mesh, &other));
    let mut elsewhere = node();
    elsewhere.labels = Arc::new(labels(&[("app", "other")]));
    assert_eq!(
        outbound_view(&world.mesh, &node()),
        outbound_view(&world.mesh, &elsewhere)
    );
}

#[test]
fn nodes_with_irrelevant_labels_share_outbound_configuration() {
    let mut world = bookinfo();
    let mut route = prefix("/x", to(&[("reviews/v1", 1)]));
    route.matches[0].source.labels = labels(&[("version", "v1")]);
    world.put(routes("reviews", vec![route]));
    let view = |version: &str| {
        let labels = Arc::new(labels(&[("version", version), ("app", version)]));
        outbound_view(&world.mesh, &NodeView { labels, ..node() })
    };
    assert_eq!(view("v2"), view("v3"));
    assert_ne!(view("v1"), view("v2"), "only these are told apart");
}

#[test]
fn an_edit_of_one_virtual_service_changes_one_route_configuration() {
    let mut world = bookinfo();
    let before = world.build(&node());
    let touched = world.put(routes("reviews", vec![to(&[("reviews/v1", 1)])]));
    let after = update(&world.mesh, &node(), &before, &touched);
    let changed: Vec<_> = after
        .config
        .routes
        .iter()
        .filter(|(name, routes)| !Arc::ptr_eq(routes, &before.config.routes[&**name]))
        .collect();
    assert_eq!(changed.len(), 1);
    for (name, cluster) in &after.config.clusters {
        assert!(Arc::ptr_eq(cluster, &before.config.clusters[name]), "{name}");
    }
    for (name, listener) in &after.config.listeners {
        assert!(
            Arc::ptr_eq(listener, &before.config.listeners[name]) || !listener.origins.is_empty(),
            "{name}"
        );
    }
    let again = update(&world.mesh, &node(), &after, &touched);
    assert!(Arc::ptr_eq(&again.outbound, &after.outbound));
}

#[test]
fn a_headless_service_has_a_listener_per_endpoint_except_the_node_itself() {
    let mut headless = service("cache")
        .port_of(6379, Protocol::Tcp)
        .endpoint(endpoint("10.0.0.7", "cache"))
        .endpoint(endpoint("10.0.0.9", "cache"))
        .resolved_by(Resolution::Passthrough);
    headless.headless = true;
    let built = World::new().with(headless).build(&node());
    assert_eq!(
        built.listeners(),
        ["10.0.0.7_6379", "virtualInbound", "virtualOutbound"]
    );
    let cluster = built.cluster("outbound|6379||cache.default.svc.cluster.local");
    assert!(matches!(cluster.discovery, Discovery::OriginalDst { port: None, .. }));
    assert!(matches!(cluster.transport, Transport::Tls(_)), "all endpoints take it");
}

#[test]
fn consistent_hashing_applies_to_routes_on_another_port() {
    let hash = TrafficPolicy {
        load_balancer: Some(LoadBalancerPolicy {
            algorithm: Some(LbAlgorithm::Hash {
                key: crate::mesh::destination_rule::HashKey::SourceIp,
                table: crate::mesh::destination_rule::HashTable::Ring(1024),
            }),
            ..Default::default()
        }),
        ..TrafficPolicy::default()
    };
    let mut world = World::new()
        .with(service("front").port_of(80, Protocol::Http))
        .with(service("back").port_of(9090, Protocol::Http))
        .with(routes("front", vec![to(&[("back", 1)])]));
    let before = world.build(&node());
    let touched = world.put(with_policy(rule("back", &[]), hash));
    let after = update(&world.mesh, &node(), &before, &touched);
    let front = virtual_host(&after, "80", "front.default.svc.cluster.local:80");
    let RouteAction::Forward(forward) = &front.routes[0].action else {
        panic!("{front:?}");
    };
    assert!(forward.hash.is_some());
    assert!(
        !forward.retry_other_hosts,
        "retries stay with the host that the hash names"
    );
    assert_eq!(
        &*forward.clusters[0].cluster,
        "outbound|9090||back.default.svc.cluster.local"
    );
}

#[test]
fn an_alias_resolves_to_its_service() {
    let mut other = service("shop")
        .port_of(80, Protocol::Http)
        .resolved_by(Resolution::Alias);
    other.alias = Some(host("front"));
    let world = World::new()
        .with(service("front").port_of(80, Protocol::Http))
        .with(service("back").port_of(80, Protocol::Http))
        .with(other)
        .with(routes("back", vec![to(&[("shop", 1)])]));
    let built = world.build(&node());
    let front = virtual_host(&built, "80", "front.default.svc.cluster.local:80");
    for name in ["shop", "shop.default.svc.cluster.local"] {
        assert!(domains(front).contains(&name), "{name}");
    }
    let back = virtual_host(&built, "80", "back.default.svc.cluster.local:80");
    assert_eq!(clusters_of(back), [("outbound|80||front.default.svc.cluster.local", 1)]);
    assert!(
        !built
            .clusters()
            .contains(&"outbound|80||shop.default.svc.cluster.local")
    );
}
