//! Visibility through a Sidecar's egress listeners.

use std::sync::Arc;

use super::super::fixture::*;
use super::listeners::chains;
use super::{clusters_of, domains, virtual_host};
use crate::ir::NodeView;
use crate::ir::build::{Built, update};
use crate::ir::listener::{HttpRole, ListenAddress, NetworkFilter};
use crate::ir::node::InterceptionMode;
use crate::mesh::ExportTo;
use crate::mesh::config::OutboundPolicy;
use crate::mesh::service::Protocol;
use crate::mesh::sidecar::{Bind, Egress, Sidecar};
use crate::mesh::virtual_service::Destination;
use crate::name::Kind;

fn only(egress: Vec<Egress>) -> Sidecar {
    sidecar(Vec::new(), egress)
}

/// Services `a` and `b` on port 80, `c` on 81 over TCP, `d` in another namespace.
fn world() -> World {
    World::new()
        .with(service("a").port_of(80, Protocol::Http).port_of(81, Protocol::Tcp))
        .with(service("b").port_of(80, Protocol::Http))
        .with(service("c").port_of(81, Protocol::Tcp).vip("10.96.0.3"))
        .with(service("d").port_of(80, Protocol::Http).in_namespace("other"))
}

/// Short names of services with clusters, as `host:port`.
fn reached(built: &Built) -> Vec<String> {
    let clusters = built.clusters().into_iter().filter_map(|name| {
        let mut parts = name.strip_prefix("outbound|")?.split('|');
        let (port, _, host) = (parts.next()?, parts.next()?, parts.next()?);
        Some(format!("{}:{port}", host.split('.').next()?))
    });
    let mut all: Vec<String> = clusters.collect();
    all.sort();
    all
}

fn hosts(built: &Built, routes: &str) -> Vec<String> {
    let hosts = built.routes(routes).virtual_hosts.iter();
    hosts
        .map(|host| host.name.split('.').next().unwrap().to_owned())
        .collect()
}

fn outbound(built: &Built) -> Vec<&str> {
    let all = built.listeners().into_iter();
    all.filter(|name| !name.starts_with("virtual")).collect()
}

#[test]
fn egress_hosts_determine_visibility() {
    let built = world().with(only(vec![egress(None, None, &["./*"])])).build(&node());
    assert_eq!(reached(&built), ["a:80", "a:81", "b:80", "c:81"]);
    assert_eq!(hosts(&built, "80"), ["a", "b", "allow_any"]);
    let excluded = ["*/*", "~./b.default.svc.cluster.local"];
    let built = world().with(only(vec![egress(None, None, &excluded)])).build(&node());
    assert_eq!(reached(&built), ["a:80", "a:81", "c:81", "d:80"]);
    let everything = world().with(only(Vec::new())).build(&node());
    assert_eq!(reached(&everything), ["a:80", "a:81", "b:80", "c:81", "d:80"]);
}

#[test]
fn services_that_are_not_exported_are_invisible() {
    let mut hidden = service("hidden").port_of(80, Protocol::Http);
    hidden.export_to = ExportTo::Namespaces([namespace("other")].into());
    let mut nobodys = service("nobodys").port_of(80, Protocol::Http);
    nobodys.export_to = ExportTo::Nobody;
    let built = World::new().with(hidden).with(nobodys).build(&node());
    assert_eq!(reached(&built), [""; 0]);
}

#[test]
fn destinations_of_visible_virtual_services_are_reachable() {
    let mut world = world().with(only(vec![egress(None, None, &["./a.default.svc.cluster.local"])]));
    let before = world.build(&node());
    assert_eq!(reached(&before), ["a:80", "a:81"]);
    let touched = world.put(routes("a", vec![to(&[("b", 1)])]));
    let after = update(&world.mesh, &node(), &before, &touched);
    assert_eq!(reached(&after), ["a:80", "a:81", "b:80"]);
    assert_eq!(hosts(&after, "80"), ["a", "allow_any"], "by the rule alone");
    let touched = world.remove_route(&id(Kind::VirtualService, "a"));
    assert_eq!(
        reached(&update(&world.mesh, &node(), &after, &touched)),
        ["a:80", "a:81"]
    );
}

#[test]
fn a_virtual_service_is_visible_only_if_its_host_is_listed() {
    let answer = routes("b", vec![to(&[("a", 1)])]);
    let built = world()
        .with(answer)
        .with(only(vec![egress(
            None,
            None,
            &["other/*", "./a.default.svc.cluster.local"],
        )]))
        .build(&node());
    assert_eq!(reached(&built), ["a:80", "a:81", "d:80"]);
}

#[test]
fn an_egress_listener_with_a_port_has_its_own_services() {
    let built = world()
        .with(only(vec![
            egress(Some((80, Protocol::Http)), None, &["./b.default.svc.cluster.local"]),
            egress(
                None,
                None,
                &["./a.default.svc.cluster.local", "./c.default.svc.cluster.local"],
            ),
        ]))
        .build(&node());
    assert_eq!(
        hosts(&built, "80"),
        ["b", "allow_any"],
        "the listener is closed to what comes later"
    );
    assert_eq!(outbound(&built), ["0.0.0.0_80", "0.0.0.0_81", "10.96.0.3_81"]);
    assert_eq!(reached(&built), ["a:80", "a:81", "b:80", "c:81"]);
    assert!(built.conflicts.is_empty(), "the Sidecar means it");
}

#[test]
fn without_a_catch_all_listener_other_ports_are_unreachable() {
    let built = world()
        .with(only(vec![egress(Some((80, Protocol::Http)), None, &["*/*"])]))
        .build(&node());
    assert_eq!(outbound(&built), ["0.0.0.0_80"]);
    assert_eq!(reached(&built), ["a:80", "b:80", "d:80"]);
}

#[test]
fn listeners_use_the_sidecars_bind_address() {
    let mut bound = egress(Some((80, Protocol::Http)), Some("127.0.0.7"), &["*/*"]);
    bound.bound = true;
    let built = world().with(only(vec![bound])).build(&node());
    let listener = built.listener("127.0.0.7_80");
    assert!(listener.bind && listener.default_chain.is_none());
    assert_eq!(listener.chains.len(), 1);
    let all = world()
        .with(only(vec![egress(None, Some("127.0.0.8"), &["*/*"])]))
        .build(&bound_node("127.0.0.1"));
    assert_eq!(outbound(&all), ["127.0.0.8_80", "127.0.0.8_81"]);
}

#[test]
fn an_http_proxy_listener_serves_all_ports() {
    let built = world()
        .with(only(vec![egress(Some((3128, Protocol::HttpProxy)), None, &["*/*"])]))
        .build(&bound_node("127.0.0.1"));
    assert_eq!(outbound(&built), ["127.0.0.1_3128"]);
    let NetworkFilter::Http(manager) = &built.listener("127.0.0.1_3128").chains[0].network else {
        panic!("HTTP");
    };
    assert_eq!(manager.role, HttpRole::ForwardProxy);
    let routes = built.routes("3128");
    assert!(!routes.ignore_port);
    let a = virtual_host(&built, "3128", "a.default.svc.cluster.local:80");
    let names = domains(a);
    assert!(names.contains(&"a") && names.contains(&"a:80"), "{names:?}");
}

#[test]
fn a_unix_socket_listener_serves_all_hosts() {
    let mut socket = egress(Some((0, Protocol::Http)), None, &["*/*"]);
    socket.bind = Some(Bind::Unix("/var/run/out".into()));
    let built = world().with(only(vec![socket])).build(&node());
    let listener = built.listener("/var/run/out");
    assert_eq!(listener.address, ListenAddress::Unix("/var/run/out".into()));
    assert!(listener.bind);
    assert_eq!(built.routes("/var/run/out").virtual_hosts.len(), 4);
}

#[test]
fn the_sidecars_outbound_policy_overrides_the_meshs() {
    let mut refusing = only(vec![egress(None, None, &["./a.default.svc.cluster.local"])]);
    refusing.outbound_policy = Some(OutboundPolicy::RegistryOnly);
    let built = world().with(refusing).build(&node());
    assert_eq!(hosts(&built, "80"), ["a", "block_all"]);
}

#[test]
fn an_egress_proxy_receives_traffic_to_unknown_hosts() {
    let mut proxied = only(vec![egress(None, None, &["./*"])]);
    proxied.outbound_policy = Some(OutboundPolicy::EgressProxy(Arc::new(Destination {
        host: "a.default.svc.cluster.local".parse().unwrap(),
        subset: None,
        port: Some(80),
    })));
    let cluster = "outbound|80||a.default.svc.cluster.local";
    for mode in [InterceptionMode::Redirect, InterceptionMode::None] {
        let built = world().with(proxied.clone()).build(&NodeView { mode, ..node() });
        let catch_all = built.routes("80").virtual_hosts.last().unwrap();
        assert_eq!(&*catch_all.name, "allow_any", "{mode:?}");
        assert_eq!(clusters_of(catch_all), [(cluster, 1)], "{mode:?}");
    }
    let built = world().with(proxied).build(&node());
    let unclaimed = chains(built.listener("virtualOutbound"));
    assert_eq!(unclaimed.last().unwrap().1, cluster);
    assert_eq!(chains(built.listener("0.0.0.0_80")).last().unwrap().1, cluster);
}

#[test]
fn another_sidecar_is_another_view() {
    let mut world = world().with(only(vec![egress(None, None, &["./a.default.svc.cluster.local"])]));
    let before = world.build(&node());
    let touched = world.put(only(vec![egress(None, None, &["./*"])]));
    let after = update(&world.mesh, &node(), &before, &touched);
    assert_eq!(reached(&after), ["a:80", "a:81", "b:80", "c:81"]);
    let kept = "outbound|80||a.default.svc.cluster.local";
    assert!(Arc::ptr_eq(&before.config.clusters[kept], &after.config.clusters[kept]));
    let touched = world.remove_sidecar(&id(Kind::Sidecar, "default"));
    let last = update(&world.mesh, &node(), &after, &touched);
    assert_eq!(reached(&last), ["a:80", "a:81", "b:80", "c:81", "d:80"]);
}

#[test]
fn a_service_in_the_proxys_namespace_takes_precedence() {
    let at = |name: &str, port: u16| {
        let mut entry = service("x.example.com").port_of(port, Protocol::Http);
        entry.key.namespace = namespace(name);
        entry
    };
    let world = World::new().with(at("aaa", 80)).with(at("default", 81));
    assert_eq!(reached(&world.build(&node())), ["x:81"]);
    let listed = world.with(only(vec![egress(None, None, &["aaa/*"])]));
    assert_eq!(reached(&listed.build(&node())), ["x:80"], "the listed namespace's");
}
