//! Property test: an incremental update equals a build from scratch and keeps unchanged values.

use std::sync::Arc;

use imbl::OrdMap;
use proptest::prelude::*;

use super::fixture::*;
use super::{Built, build, update};
use crate::ir::{NodeView, ResourceName};
use crate::mesh::destination_rule::{
    ClientTlsMode, HashKey, HashTable, LbAlgorithm, LoadBalancerPolicy, OutlierDetection, TrafficPolicy,
};
use crate::mesh::peer_authentication::MutualTlsMode;
use crate::mesh::service::{Protocol, Resolution, Service};
use crate::mesh::sidecar::DefaultEndpoint;
use crate::mesh::virtual_service::{SourceMatch, VirtualService};
use crate::mesh::{ExportTo, Touched};
use crate::name::Kind;

/// An edit as numbers: kind of object, which one, and its content.
type Edit = (u8, usize, u8, u8);

const SERVICES: [&str; 5] = ["a", "b", "c", "one.example.com", "two.example.com"];
const PORTS: [u16; 3] = [80, 9080, 443];
const PROTOCOLS: [Protocol; 5] = [
    Protocol::Http,
    Protocol::Auto,
    Protocol::Tcp,
    Protocol::Grpc,
    Protocol::Tls,
];
const ROUTED: [&str; 6] = [
    "a",
    "b",
    "one.example.com",
    "*.example.com",
    "nowhere.org",
    "*.nowhere.org",
];
const RULED: [&str; 4] = ["a", "c", "*.example.com", "*.local"];

fn service_of(which: usize, how: u8, more: u8) -> Service {
    let name = SERVICES[which % SERVICES.len()];
    let protocol = PROTOCOLS[usize::from(how) % PROTOCOLS.len()];
    let mut service = service(name).port_of(PORTS[usize::from(more) % PORTS.len()], protocol);
    if more & 8 != 0 {
        service = service.port_of(9999, Protocol::Http);
    }
    if how & 32 != 0 {
        service = service.vip(&format!("10.96.0.{}", which % SERVICES.len() + 1));
    }
    for at in 0..more % 3 {
        let subset = if at == 0 { "v1" } else { "v2" };
        let account = if how & 64 != 0 { "" } else { "account" };
        service = service.endpoint(labelled(
            endpoint(&format!("10.0.0.{}", 8 + at), account),
            &[("version", subset)],
        ));
    }
    match more >> 5 {
        0 => service.resolved_by(Resolution::Passthrough),
        1 => service.resolved_by(Resolution::Dns),
        2 => service.in_namespace("other"),
        3 => Service {
            export_to: ExportTo::Namespaces([namespace("other")].into()),
            ..service
        },
        4 => Service {
            alias: Some(host(SERVICES[usize::from(how) % SERVICES.len()])),
            ..service.resolved_by(Resolution::Alias)
        },
        _ => service,
    }
}

fn route_of(which: usize, how: u8, more: u8) -> VirtualService {
    let target = SERVICES[usize::from(how) % SERVICES.len()];
    let mut route = to(&[(target, 1), ("b/v1", u32::from(more % 2))]);
    if more & 4 != 0 {
        route = prefix("/x", route);
        route.matches[0].source = SourceMatch {
            labels: labels(&[("app", if more & 8 != 0 { "client" } else { "other" })]),
            ..SourceMatch::default()
        };
    }
    let mut rule = routes(ROUTED[which % ROUTED.len()], vec![route]);
    if more & 16 != 0 {
        rule.hosts.push(host("beside.org"));
    }
    if more & 32 != 0 {
        rule.export_to = ExportTo::Namespaces([namespace("other")].into());
    }
    rule
}

fn policy_of(how: u8) -> TrafficPolicy {
    let hash = LbAlgorithm::Hash {
        key: HashKey::SourceIp,
        table: HashTable::Maglev(65537),
    };
    TrafficPolicy {
        load_balancer: (how & 1 != 0).then_some(LoadBalancerPolicy {
            algorithm: Some(hash),
            ..Default::default()
        }),
        outlier_detection: (how & 2 != 0).then(OutlierDetection::default),
        ..match how & 4 {
            0 => TrafficPolicy::default(),
            _ => tls(ClientTlsMode::IstioMutual),
        }
    }
}

fn apply(world: &mut World, (kind, which, how, more): Edit) -> Touched {
    let local = "./*.default.svc.cluster.local";
    match kind % 8 {
        0 | 1 => world.put(service_of(which, how, more)),
        2 => world.put(route_of(which, how, more)),
        3 => world.put(with_policy(
            rule(RULED[which % RULED.len()], &["v1", "v2"]),
            policy_of(how),
        )),
        4 => world.remove_service(&service_of(which, how, more).key),
        5 => {
            let mut touched = world.remove_route(&id(Kind::VirtualService, ROUTED[which % ROUTED.len()]));
            touched.merge(world.remove_rule(&id(Kind::DestinationRule, RULED[which % RULED.len()])));
            touched
        }
        6 => match how % 4 {
            0 => world.remove_sidecar(&id(Kind::Sidecar, "default")),
            1 => world.put(sidecar(
                Vec::new(),
                vec![egress(None, None, &[local, "~./c.default.svc.cluster.local"])],
            )),
            2 => world.put(sidecar(
                vec![ingress(9080, None, DefaultEndpoint::Original)],
                vec![
                    egress(Some((9080, Protocol::Http)), Some("127.0.0.7"), &["*/*"]),
                    egress(None, None, &["./a.default.svc.cluster.local"]),
                ],
            )),
            _ => world.put(sidecar(
                Vec::new(),
                vec![egress(
                    Some((3128, Protocol::HttpProxy)),
                    None,
                    &[local, "*/*.example.com"],
                )],
            )),
        },
        _ => {
            let modes = [MutualTlsMode::Disable, MutualTlsMode::Permissive, MutualTlsMode::Strict];
            let place = if more & 1 == 0 { "istio-system" } else { "default" };
            world.put(mode(place, modes[usize::from(how) % 3]))
        }
    }
}

pub(super) fn nodes() -> Vec<NodeView> {
    let elsewhere = NodeView {
        namespace: namespace("other"),
        ..node()
    };
    let other = NodeView {
        labels: Arc::new(labels(&[("app", "other")])),
        ..bound_node("10.0.0.8")
    };
    vec![node(), elsewhere, other]
}

pub(super) fn same(updated: &Built, built: &Built) {
    assert_eq!(updated.conflicts, built.conflicts);
    compare(&updated.config.clusters, &built.config.clusters);
    compare(&updated.config.endpoints, &built.config.endpoints);
    compare(&updated.config.listeners, &built.config.listeners);
    compare(&updated.config.routes, &built.config.routes);
}

fn compare<T: PartialEq + std::fmt::Debug>(
    updated: &OrdMap<ResourceName, Arc<T>>,
    built: &OrdMap<ResourceName, Arc<T>>,
) {
    let names = |map: &OrdMap<ResourceName, Arc<T>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(updated), names(built));
    for (name, value) in updated {
        assert!(*value == built[name], "{name}: {}", difference(value, &built[name]));
    }
}

/// The first lines in which two values differ.
fn difference(updated: &impl std::fmt::Debug, built: &impl std::fmt::Debug) -> String {
    let (updated, built) = (format!("{updated:#?}"), format!("{built:#?}"));
    let pairs = updated.lines().zip(built.lines());
    let differing = pairs.filter(|(one, other)| one != other).take(8);
    differing
        .map(|(one, other)| format!("\n updated {one}\n built   {other}"))
        .collect()
}

/// Asserts that a value equal to its predecessor is the same `Arc`.
pub(super) fn kept<T: PartialEq>(before: &OrdMap<ResourceName, Arc<T>>, after: &OrdMap<ResourceName, Arc<T>>) {
    for (name, value) in after {
        if let Some(old) = before.get(name) {
            assert_eq!(
                old == value,
                Arc::ptr_eq(old, value),
                "{name} is equal but not the same"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn updates_equal_builds_from_scratch(edits in prop::collection::vec(any::<Edit>(), 1..24)) {
        let mut world = World::new();
        let mut current: Vec<(NodeView, Built)> = nodes()
            .into_iter()
            .map(|node| (node.clone(), world.build(&node)))
            .collect();
        for edit in edits {
            let touched = apply(&mut world, edit);
            for (node, built) in &mut current {
                let next = update(&world.mesh, node, built, &touched);
                same(&next, &build(&world.mesh, node));
                kept(&built.config.clusters, &next.config.clusters);
                kept(&built.config.endpoints, &next.config.endpoints);
                kept(&built.config.listeners, &next.config.listeners);
                kept(&built.config.routes, &next.config.routes);
                *built = next;
            }
        }
    }
}
