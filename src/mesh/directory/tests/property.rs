//! Property test: the state of a directory depends on its objects, not on the edits that led to it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::{observe, *};
use crate::mesh::testing::objects;

/// Documents of the world below, each in several forms.
const KINDS: &[(&str, &[&str])] = &[
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n",
        &[
            "spec: {selector: {app: a}, ports: [{name: http, port: 80}]}",
            "spec: {selector: {app: a}, ports: [{name: http, port: 80}, {name: http-b, port: 81, targetPort: b}]}",
            "spec: {clusterIP: None, selector: {app: a, version: v1}, ports: [{name: http, port: 80}]}",
        ],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: b}\n",
        &[
            "spec: {ports: [{name: http, port: 80}]}",
            "spec: {type: ExternalName, externalName: a.default.svc.cluster.local}",
            "spec: {ports: [{name: tcp, port: 80}]}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\n",
        &[
            "spec: {hosts: [x.y], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, workloadSelector: {labels: {app: a}}}",
            "spec: {hosts: [x.y, '*.y'], ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}], resolution: STATIC, endpoints: [{address: 10.0.0.9, labels: {version: v1}}]}",
            "spec: {hosts: [a.default.svc.cluster.local], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.8}]}",
            "spec: {hosts: [x.y], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, exportTo: [.]}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: b, namespace: other}\n",
        &[
            "spec: {hosts: [x.y], ports: [{number: 80, name: tcp, protocol: TCP}], resolution: STATIC, endpoints: [{address: 10.0.0.7}]}",
            "spec: {hosts: [z.y], ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: c}\n",
        &[
            "spec: {hosts: [x.y], ports: [{number: 80, name: http, protocol: GRPC}, {number: 90, name: more, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.6}]}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a-1}\n",
        &[
            "spec: {address: 10.0.0.1, labels: {app: a, version: v1}, serviceAccount: a}",
            "spec: {address: 10.0.0.1, labels: {app: a, version: v2}, ports: {b: 8081}}",
            "spec: {address: 10.0.0.3, labels: {app: b}}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a-2}\n",
        &[
            "spec: {address: 10.0.0.2, labels: {app: a, version: v2}}",
            "spec: {address: a.example.com, labels: {app: a}}",
        ],
    ),
    (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: b-1, labels: {kubernetes.io/service-name: b}}\n",
        &[
            "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.3]}]\nports: [{name: http, port: 8080}]",
            "addressType: IPv4\nendpoints: [{addresses: [10.0.0.2]}]\nports: [{name: tcp, port: 8080}]",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\n",
        &[
            "spec: {host: a, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
            "spec: {host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v1}}]}",
            "spec: {host: '*.default.svc.cluster.local', subsets: [{name: v1, labels: {version: v1}}]}",
            "spec: {host: x.y, exportTo: [.]}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b}\n",
        &[
            "spec: {host: a, subsets: [{name: v3, labels: {version: v3}}]}",
            "spec: {host: nowhere}",
            "spec: {host: a, trafficPolicy: {}}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n",
        &[
            "spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}",
            "spec: {hosts: [a], http: [{match: [{sourceLabels: {app: c}}], route: [{destination: {host: a, subset: v1}}]}]}",
            "spec: {hosts: [a, x.y], http: [{route: [{destination: {host: b}}]}]}",
            "spec: {hosts: ['*.y'], http: [{route: [{destination: {host: x.y, port: {number: 443}}}]}]}",
            "spec: {hosts: [b], http: [{route: [{destination: {host: a, subset: v2, port: {number: 81}}}]}]}",
            "spec: {hosts: [a], gateways: [g], http: [{route: [{destination: {host: a}}]}]}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: other}\n",
        &[
            "spec: {hosts: [x.y], http: [{directResponse: {status: 200}}]}",
            "spec: {hosts: [x.y], exportTo: [.], http: [{directResponse: {status: 201}}]}",
            "spec: {hosts: [a.default.svc.cluster.local], http: [{directResponse: {status: 202}}]}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a}\n",
        &[
            "spec: {workloadSelector: {labels: {app: a}}, egress: [{hosts: ['./*']}]}",
            "spec: {egress: [{hosts: ['*/*']}]}",
        ],
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: b}\n",
        &[
            "spec: {workloadSelector: {labels: {version: v1}}, egress: [{hosts: ['./*']}]}",
            "spec: {egress: [{hosts: ['*/*']}]}",
        ],
    ),
    (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n",
        &[
            "spec: {mtls: {mode: STRICT}}",
            "spec: {selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}}",
        ],
    ),
    (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: b}\n",
        &["spec: {mtls: {mode: PERMISSIVE}}"],
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n",
        &["data: {mesh: 'defaultServiceExportTo: [\".\"]'}", "data: {mesh: ''}"],
    ),
];

const FILES: &[&str] = &["a.yaml", "b.yaml", "c.yaml"];

/// The form, file and position of each document.
type World = BTreeMap<usize, (usize, usize, usize)>;

/// A document and its new form, file and position; `None` removes it.
type Move = (usize, Option<(usize, usize, usize)>);

/// One step: several documents change at once.
fn step() -> impl Strategy<Value = Vec<Move>> {
    let document = (0..KINDS.len()).prop_flat_map(|kind| {
        let forms = KINDS[kind].1.len();
        let there = (0..forms, 0..FILES.len(), 0..4_usize).prop_map(Some);
        (Just(kind), prop_oneof![5 => there, 2 => Just(None)])
    });
    proptest::collection::vec(document, 1..4)
}

/// The files of a world: documents ordered by position, each preceded by a comment whose length
/// varies by step.
fn texts(world: &World, comment: usize) -> BTreeMap<&'static str, String> {
    let mut files: BTreeMap<&str, Vec<(usize, usize, usize)>> = BTreeMap::new();
    for (kind, (form, file, place)) in world {
        files.entry(FILES[*file]).or_default().push((*place, *kind, *form));
    }
    let text = |mut documents: Vec<(usize, usize, usize)>| {
        documents.sort_unstable();
        let one = |(_, kind, form): (usize, usize, usize)| {
            let (head, forms) = KINDS[kind];
            format!("---\n#{}\n{head}{}\n", "-".repeat(comment), forms[form])
        };
        documents.into_iter().map(one).collect()
    };
    files
        .into_iter()
        .map(|(file, documents)| (file, text(documents)))
        .collect()
}

fn all(world: &World, comment: usize) -> Vec<Arc<Object>> {
    let files = texts(world, comment);
    files
        .into_iter()
        .flat_map(|(file, text)| objects(file, &text))
        .collect()
}

/// The changes between two states of the files, as reported by a reader of whole files.
fn changes(before: &[Arc<Object>], after: &[Arc<Object>]) -> Vec<Change> {
    let gone = before.iter().filter(|old| !after.iter().any(|new| new.id == old.id));
    let puts = after.iter().cloned().map(Change::Put);
    gone.map(|old| Change::Remove(old.id.clone())).chain(puts).collect()
}

/// Whether the state depends on history: something is retained or served in its last good form.
fn has_history(directory: &Directory) -> bool {
    let retained = directory.kept().iter().any(|kept| kept.why != Why::InForce);
    retained
        || directory
            .diagnostics()
            .iter()
            .any(|d| d.code == crate::diag::Code::LastGoodServed)
}

/// Hosts whose services or rules differ between two meshes.
fn differing(before: &Mesh, after: &Mesh) -> Vec<Hostname> {
    let mut hosts: std::collections::BTreeSet<Hostname> = std::collections::BTreeSet::new();
    for mesh in [before, after] {
        hosts.extend(mesh.services().map(|service| service.key.host.clone()));
        hosts.extend(mesh.virtual_service_hosts().map(|(host, _)| host.clone()));
        hosts.extend(mesh.destination_rule_hosts().cloned());
    }
    let seen = |mesh: &Mesh, host: &Hostname| {
        let services: Vec<_> = mesh.services_named(host).map(|(_, service)| service.clone()).collect();
        let routes: Vec<_> = mesh.virtual_services_naming(host).cloned().collect();
        let rules: Vec<_> = mesh.destination_rules_naming(host).cloned().collect();
        format!("{services:?} {routes:?} {rules:?}")
    };
    hosts
        .into_iter()
        .filter(|host| seen(before, host) != seen(after, host))
        .collect()
}

/// Targets of routes in force: the rule, and host, port and subset of each destination served.
fn served(mesh: &Mesh) -> std::collections::BTreeSet<String> {
    let rules = mesh.virtual_service_hosts().flat_map(|(_, rules)| rules);
    let mut found = std::collections::BTreeSet::new();
    for rules in rules {
        for destination in rules.destinations() {
            let Some(service) = mesh.service(&destination.host, &rules.id.namespace) else {
                continue;
            };
            let rule = mesh.destination_rule(&service.key, &rules.id.namespace);
            let subset = |name: &Arc<str>| {
                rule.as_ref()
                    .is_some_and(|rule| rule.subsets.iter().any(|s| s.name == *name))
            };
            let has_port = destination.port.is_none_or(|port| service.port(port).is_some());
            if has_port && destination.subset.as_ref().is_none_or(subset) {
                found.insert(format!("{:?} {destination:?}", rules.http));
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn edits_and_a_fresh_start_agree(steps in proptest::collection::vec(step(), 1..10), lengths in proptest::collection::vec(select(vec![0, 3, 40]), 10)) {
        let mut world = World::new();
        let mut directory = Directory::new(Options::default());
        let mut before = Vec::new();
        for (step, comment) in steps.into_iter().zip(lengths) {
            for (kind, there) in step {
                match there {
                    Some(place) => world.insert(kind, place),
                    None => world.remove(&kind),
                };
            }
            let after = all(&world, comment);
            let applied = directory.apply(&changes(&before, &after));
            if !applied.touched.all {
                for host in differing(&directory.mesh, &applied.mesh) {
                    prop_assert!(applied.touched.hosts.contains(&host), "{host} {:?}", applied.touched);
                }
            }
            let routes = |mesh: &Mesh| -> Vec<_> {
                mesh.virtual_service_hosts().flat_map(|(_, rules)| rules.cloned()).collect::<Vec<_>>()
            };
            let stays = routes(&applied.mesh);
            let before_edit: Vec<String> = served(&directory.mesh).into_iter().collect();
            let after_edit = served(&applied.mesh);
            for route in before_edit {
                let in_force = stays.iter().any(|rules| route.starts_with(&format!("{:?} ", rules.http)));
                prop_assert!(!in_force || after_edit.contains(&route), "{route}");
            }
            directory = applied.directory;
            before = after;
            let fresh = Directory::new(Options::default()).apply(&before.iter().cloned().map(Change::Put).collect::<Vec<_>>());
            let again = directory.apply(&before.iter().cloned().map(Change::Put).collect::<Vec<_>>());
            prop_assert_eq!(again.touched, Touched::default());
            if !has_history(&directory) {
                prop_assert_eq!(observe(&directory.mesh), observe(&fresh.mesh));
                prop_assert_eq!(directory.diagnostics(), fresh.directory.diagnostics());
            }
            let restored = Directory::restore(Options::default(), &directory.kept());
            let restored = restored.apply(&before.iter().cloned().map(Change::Put).collect::<Vec<_>>());
            prop_assert_eq!(observe(&directory.mesh), observe(&restored.mesh));
            prop_assert_eq!(directory.diagnostics(), restored.directory.diagnostics());
        }
    }
}
