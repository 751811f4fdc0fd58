//! Series of edits to a directory.

mod property;

use std::time::Instant;

use super::*;
use crate::mesh::service::{Address, Service, ServiceKey};
use crate::mesh::testing::{brief, load, objects, puts};
use crate::name::{Hostname, Kind, Namespace};

const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
";

const WORKLOADS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1}
spec: {address: 127.0.1.1, labels: {app: reviews, version: v1}, serviceAccount: reviews}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v2}
spec: {address: 127.0.1.2, labels: {app: reviews, version: v2}, serviceAccount: reviews}
";

const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

const ROUTES: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /v2}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews}}]
";

fn host(text: &str) -> Hostname {
    text.parse().unwrap()
}

fn reviews(mesh: &Mesh) -> Option<&Arc<Service>> {
    mesh.service(&host("reviews.default.svc.cluster.local"), &Namespace::default())
}

fn subsets(mesh: &Mesh) -> Vec<String> {
    let key = ServiceKey {
        host: host("reviews.default.svc.cluster.local"),
        namespace: Namespace::default(),
    };
    let rule = mesh.destination_rule(&key, &Namespace::default());
    let subsets = rule.iter().flat_map(|rule| &rule.subsets);
    subsets.map(|subset| subset.name.to_string()).collect()
}

fn files(files: &[(&str, &str)]) -> Vec<Change> {
    files.iter().flat_map(|(origin, text)| puts(origin, text)).collect()
}

fn bookinfo() -> Applied {
    Directory::new(Options::default()).apply(&files(&[
        ("reviews.yaml", REVIEWS),
        ("routes.yaml", ROUTES),
        ("subsets.yaml", SUBSETS),
        ("workloads.yaml", WORKLOADS),
    ]))
}

fn id(kind: Kind, name: &str) -> ObjectId {
    ObjectId {
        kind,
        namespace: Namespace::default(),
        name: name.into(),
    }
}

/// Services with a workload each, in namespaces of 100.
fn many_services() -> String {
    (0..1000)
        .map(|number| {
            let namespace = format!("ns{}", number / 100);
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: {namespace}}}\nspec: {{selector: {{app: s{number}}}, ports: [{{name: http, port: 80}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: s{number}, namespace: {namespace}}}\nspec: {{address: 10.0.{}.{}, labels: {{app: s{number}}}, serviceAccount: a}}\n---\n",
                number / 250,
                number % 250 + 1
            )
        })
        .collect()
}

fn policy(metadata: &str, spec: &str) -> Vec<Change> {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n"
    );
    puts("p.yaml", &text)
}

#[test]
fn a_policy_touches_services_only_where_mutual_tls_is_disabled() {
    let mut directory = load(&many_services()).directory;
    let mut edit = |metadata: &str, spec: &str| {
        let applied = directory.apply(&policy(metadata, spec));
        directory = applied.directory;
        assert!(!applied.touched.all);
        let ns3 = "ns3".parse().unwrap();
        let covers = |app: &str| {
            let labels = [("app".into(), app.into())].into();
            applied.touched.policies.iter().any(|scope| scope.covers(&ns3, &labels))
        };
        (applied.touched.hosts.len(), covers("s301"), covers("s302"))
    };
    let one = "name: one, namespace: ns3";
    assert_eq!(
        edit(one, "selector: {matchLabels: {app: s301}}, mtls: {mode: STRICT}"),
        (0, true, false)
    );
    assert_eq!(
        edit(one, "selector: {matchLabels: {app: s301}}, mtls: {mode: DISABLE}"),
        (1, true, false)
    );
    assert_eq!(
        edit(one, "selector: {matchLabels: {app: s302}}, mtls: {mode: DISABLE}"),
        (2, true, true)
    );
    assert_eq!(
        edit("name: all, namespace: ns3", "mtls: {mode: DISABLE}"),
        (100, true, true)
    );
    assert_eq!(
        edit("name: all, namespace: ns4", "mtls: {mode: STRICT}"),
        (0, false, false)
    );
    assert_eq!(
        edit("name: mesh, namespace: istio-system", "mtls: {mode: STRICT}"),
        (0, true, true)
    );
    assert_eq!(
        edit("name: mesh, namespace: istio-system", "mtls: {mode: DISABLE}"),
        (800, true, true)
    );
}

#[test]
fn services_find_their_workloads() {
    let applied = bookinfo();
    assert_eq!(brief(&applied.directory.diagnostics()), [""; 0]);
    let service = reviews(&applied.mesh).unwrap();
    let addresses: Vec<Address> = service
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.clone())
        .collect();
    assert_eq!(
        addresses,
        ["127.0.1.1", "127.0.1.2"].map(|ip| Address::Ip(ip.parse().unwrap()))
    );
    assert!(
        service
            .endpoints
            .iter()
            .all(|endpoint| endpoint.mutual_tls && endpoint.ports == [(9080, 9080)])
    );
}

#[test]
fn a_removed_subset_is_retained_while_a_route_refers_to_it() {
    let applied = bookinfo();
    let without = SUBSETS.replace("  - {name: v2, labels: {version: v2}}\n", "");
    let applied = applied.directory.apply(&puts("subsets.yaml", &without));
    assert_eq!(brief(&applied.directory.diagnostics()), ["IST0101@routes.yaml:9"]);
    assert_eq!(subsets(&applied.mesh), ["v1", "v2"]);
    let applied = applied
        .directory
        .apply(&[Change::Remove(id(Kind::VirtualService, "reviews"))]);
    assert_eq!(subsets(&applied.mesh), ["v1"]);
    assert_eq!(brief(&applied.directory.diagnostics()), [""; 0]);
}

#[test]
fn without_history_nothing_is_retained() {
    let applied = load(&format!("{REVIEWS}---{ROUTES}"));
    assert_eq!(brief(&applied.directory.diagnostics()), ["IST0101@16"]);
    assert!(subsets(&applied.mesh).is_empty());
    assert!(
        applied
            .mesh
            .virtual_service(&host("reviews.default.svc.cluster.local"), &Namespace::default())
            .is_some()
    );
}

#[test]
fn comments_touch_nothing() {
    let applied = bookinfo();
    let again = applied
        .directory
        .apply(&puts("routes.yaml", &format!("# why\n\n{ROUTES}")));
    assert_eq!(again.touched, Touched::default());
    let object = objects("routes.yaml", ROUTES).remove(0);
    assert_eq!(object.id, id(Kind::VirtualService, "reviews"));
}

#[test]
fn an_edit_with_a_dangling_reference_keeps_the_last_good_form() {
    let applied = bookinfo();
    let before = applied.mesh.clone();
    let edited = ROUTES.replace("subset: v2", "subset: v9");
    let applied = applied.directory.apply(&puts("routes.yaml", &edited));
    let problems = applied.directory.diagnostics();
    assert_eq!(brief(&problems), ["TS0014@routes.yaml:4", "IST0101@routes.yaml:9"]);
    assert_eq!(applied.touched, Touched::default());
    let host = host("reviews.default.svc.cluster.local");
    let rules = |mesh: &Mesh| mesh.virtual_service(&host, &Namespace::default()).cloned();
    assert_eq!(rules(&applied.mesh), rules(&before));
    let applied = applied
        .directory
        .apply(&puts("subsets.yaml", &SUBSETS.replace("name: v1", "name: v9")));
    assert_eq!(brief(&applied.directory.diagnostics()), [""; 0]);
    assert_ne!(rules(&applied.mesh), rules(&before));
}

#[test]
fn a_removed_port_is_retained_while_a_route_refers_to_it() {
    let two = REVIEWS.replace(
        "port: 9080}",
        "port: 9080}, {name: http-admin, port: 9090, targetPort: 9091}",
    );
    let routes = ROUTES.replace("host: reviews, subset: v2", "host: reviews, port: {number: 9090}");
    let routes = routes.replace("host: reviews}}", "host: reviews, port: {number: 9080}}}");
    let loaded = Directory::new(Options::default()).apply(&files(&[
        ("reviews.yaml", &two),
        ("routes.yaml", &routes),
        ("workloads.yaml", WORKLOADS),
    ]));
    assert_eq!(brief(&loaded.directory.diagnostics()), [""; 0]);
    let applied = loaded.directory.apply(&puts("reviews.yaml", REVIEWS));
    assert_eq!(brief(&applied.directory.diagnostics()), ["IST0101@routes.yaml:9"]);
    let service = reviews(&applied.mesh).unwrap();
    assert_eq!(
        service.ports.iter().map(|port| port.number).collect::<Vec<_>>(),
        [9080, 9090]
    );
    assert!(
        service
            .endpoints
            .iter()
            .all(|endpoint| endpoint.port(9090) == Some(9091))
    );
    let repaired = applied.directory.apply(&puts("reviews.yaml", &two));
    assert_eq!(brief(&repaired.directory.diagnostics()), [""; 0]);
    assert!(repaired.directory.kept().iter().all(|kept| kept.why == Why::InForce));
    let applied = applied
        .directory
        .apply(&puts("routes.yaml", &routes.replace("9090", "9080")));
    assert_eq!(brief(&applied.directory.diagnostics()), [""; 0]);
    assert_eq!(reviews(&applied.mesh).unwrap().ports.len(), 1);
}

#[test]
fn a_removed_service_is_retained_while_a_route_refers_to_it() {
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.7]}]
ports: [{name: http, port: 9080}]
";
    let loaded = bookinfo().directory.apply(&puts("slice.yaml", slice));
    assert_eq!(reviews(&loaded.mesh).unwrap().endpoints.len(), 3);
    let gone = loaded.directory.apply(&[
        Change::Remove(id(Kind::Service, "reviews")),
        Change::Remove(id(Kind::EndpointSlice, "reviews-1")),
    ]);
    // The DestinationRule refers to the removed host too.
    let expected = [
        "IST0101@routes.yaml:9",
        "IST0101@routes.yaml:10",
        "IST0174@subsets.yaml:6",
    ];
    assert_eq!(brief(&gone.directory.diagnostics()), expected);
    assert_eq!(
        reviews(&gone.mesh).map(|service| &service.endpoints),
        reviews(&loaded.mesh).map(|s| &s.endpoints)
    );
    // Workloads of a removed service are still tracked.
    let fewer = gone
        .directory
        .apply(&[Change::Remove(id(Kind::WorkloadEntry, "reviews-v1"))]);
    assert_eq!(reviews(&fewer.mesh).unwrap().endpoints.len(), 2);
    let deleted = fewer
        .directory
        .apply(&[Change::Remove(id(Kind::VirtualService, "reviews"))]);
    assert!(reviews(&deleted.mesh).is_none());
    assert_eq!(brief(&deleted.directory.diagnostics()), ["IST0174@subsets.yaml:6"]);
}

#[test]
fn settings_overridden_by_an_older_rule_are_reported() {
    let policy = "\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}\n  subsets:";
    let rule = SUBSETS.replace("\n  subsets:", policy);
    let loaded = bookinfo().directory.apply(&puts("subsets.yaml", &rule));
    let second = rule
        .replace("{name: reviews}", "{name: second}")
        .replace("name: v1", "name: v9");
    let both = loaded.directory.apply(&puts("zz.yaml", &second));
    let of_second = |applied: &Applied| -> Vec<String> {
        let told = brief(&applied.directory.diagnostics()).into_iter();
        told.filter(|line| line.starts_with("IST0133")).collect()
    };
    assert_eq!(of_second(&both), ["IST0133@zz.yaml:7", "IST0133@zz.yaml:10"]);
    let without_policy = both.directory.apply(&puts("subsets.yaml", SUBSETS));
    assert_eq!(of_second(&without_policy), ["IST0133@zz.yaml:10"]);
    let alone = without_policy
        .directory
        .apply(&[Change::Remove(id(Kind::DestinationRule, "reviews"))]);
    assert_eq!(of_second(&alone), [""; 0]);
}

#[test]
fn a_removed_rule_leaves_referenced_subsets() {
    let rule = SUBSETS.replace("  subsets:", "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n  subsets:");
    let loaded = bookinfo().directory.apply(&puts("subsets.yaml", &rule));
    let gone = loaded
        .directory
        .apply(&[Change::Remove(id(Kind::DestinationRule, "reviews"))]);
    assert_eq!(subsets(&gone.mesh), ["v2"]);
    let key = &reviews(&gone.mesh).unwrap().key;
    let rule = gone.mesh.destination_rule(key, &Namespace::default()).unwrap();
    assert!(rule.effective(9080, None).tls.is_none(), "the rule itself is gone");
    assert!(
        rule.effective(9080, rule.subsets.first()).tls.is_some(),
        "the subset is as it was"
    );
    assert!(gone.touched.hosts.contains(&key.host));
}

#[test]
fn retained_and_last_good_forms_survive_a_restart() {
    let loaded = bookinfo();
    let without = SUBSETS.replace("  - {name: v2, labels: {version: v2}}\n", "");
    let broken = REVIEWS.replace("port: 9080", "port: 0");
    let edited = loaded
        .directory
        .apply(&files(&[("subsets.yaml", &without), ("reviews.yaml", &broken)]));
    let problems = brief(&edited.directory.diagnostics());
    assert_eq!(
        problems,
        [
            "TS0014@reviews.yaml:4",
            "IST0106@reviews.yaml:7",
            "IST0101@routes.yaml:9"
        ]
    );
    let restored = Directory::restore(Options::default(), &edited.directory.kept());
    assert_eq!(observe(&restored.mesh), observe(&edited.mesh));
    let again = restored.apply(&files(&[
        ("reviews.yaml", &broken),
        ("routes.yaml", ROUTES),
        ("subsets.yaml", &without),
        ("workloads.yaml", WORKLOADS),
    ]));
    assert_eq!(brief(&again.directory.diagnostics()), problems);
    assert_eq!(observe(&again.mesh), observe(&edited.mesh));
    let repaired = again
        .directory
        .apply(&files(&[("subsets.yaml", SUBSETS), ("reviews.yaml", REVIEWS)]));
    assert_eq!(brief(&repaired.directory.diagnostics()), [""; 0]);
    assert_eq!(observe(&repaired.mesh), observe(&loaded.mesh));
}

#[test]
fn a_document_that_breaks_keeps_its_object() {
    let loaded = bookinfo();
    let place = objects("reviews.yaml", REVIEWS)[0].place("spec");
    let broken = loaded.directory.apply(&[
        Change::Broken {
            id: id(Kind::Service, "reviews"),
            place: place.clone(),
        },
        Change::Broken {
            id: id(Kind::Service, "never-seen"),
            place,
        },
    ]);
    assert_eq!(brief(&broken.directory.diagnostics()), ["TS0014@reviews.yaml:5"]);
    assert_eq!(broken.touched, Touched::default());
    assert!(reviews(&broken.mesh).is_some());
    let repaired = broken.directory.apply(&puts("reviews.yaml", REVIEWS));
    assert_eq!(brief(&repaired.directory.diagnostics()), [""; 0]);
    assert_eq!(repaired.touched, Touched::default());
}

#[test]
fn errors_keep_the_last_good_form_and_omit_new_objects() {
    let loaded = bookinfo();
    let wrong = ROUTES.replace("prefix: /v2", "regex: '('");
    let applied = loaded.directory.apply(&puts("routes.yaml", &wrong));
    assert_eq!(
        brief(&applied.directory.diagnostics()),
        ["TS0014@routes.yaml:4", "IST0106@routes.yaml:8"]
    );
    assert_eq!(observe(&applied.mesh), observe(&loaded.mesh));
    let fresh = Directory::new(Options::default()).apply(&puts("routes.yaml", &wrong));
    assert_eq!(brief(&fresh.directory.diagnostics()), ["IST0106@routes.yaml:8"]);
    assert_eq!(fresh.mesh.virtual_service_hosts().count(), 0);
}

#[test]
fn renaming_a_subset_and_its_reference_together_is_one_edit() {
    let loaded = bookinfo();
    let applied = loaded.directory.apply(&files(&[
        ("routes.yaml", &ROUTES.replace("subset: v2", "subset: two")),
        ("subsets.yaml", &SUBSETS.replace("name: v2", "name: two")),
    ]));
    assert_eq!(brief(&applied.directory.diagnostics()), [""; 0]);
    assert_eq!(subsets(&applied.mesh), ["v1", "two"]);
}

#[test]
fn settings_change_everything() {
    let config = |text: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n{text}"
        )
    };
    let loaded = bookinfo();
    let private = config("    trustDomain: example.org\n    defaultServiceExportTo: [.]\n");
    let applied = loaded.directory.apply(&puts("mesh.yaml", &private));
    assert!(applied.touched.all);
    assert_eq!(applied.mesh.config.trust_domain.as_str(), "example.org");
    let other: Namespace = "other".parse().unwrap();
    assert!(
        applied
            .mesh
            .service(&host("reviews.default.svc.cluster.local"), &other)
            .is_none()
    );
    let wrong = applied
        .directory
        .apply(&puts("mesh.yaml", &config("    connectTimeout: 0s\n")));
    assert_eq!(
        brief(&wrong.directory.diagnostics()),
        ["TS0014@mesh.yaml:3", "IST0106@mesh.yaml:6"]
    );
    assert_eq!(wrong.mesh.config.trust_domain.as_str(), "example.org");
    let restored = Directory::restore(Options::default(), &wrong.directory.kept());
    assert_eq!(restored.mesh.config.trust_domain.as_str(), "example.org");
    let gone = wrong.directory.apply(&[Change::Remove(ObjectId {
        kind: Kind::ConfigMap,
        namespace: "istio-system".parse().unwrap(),
        name: "istio".into(),
    })]);
    assert_eq!(observe(&gone.mesh), observe(&loaded.mesh));
    assert_eq!(brief(&gone.directory.diagnostics()), [""; 0]);
}

#[test]
fn a_mesh_config_file_and_a_config_map_conflict() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'trustDomain: a'}\n";
    let source = crate::diag::SourceText::new("own.yaml", "trustDomain: b\n");
    let text = crate::source::document::Document::whole(&source).into();
    let mut changes = puts("mesh.yaml", map);
    changes.push(Change::MeshConfig(Some(text)));
    let applied = Directory::new(Options::default()).apply(&changes);
    assert_eq!(brief(&applied.directory.diagnostics()), ["TS0013@mesh.yaml:4"]);
    assert_eq!(applied.mesh.config.trust_domain.as_str(), "b");
    let applied = applied.directory.apply(&[Change::MeshConfig(None)]);
    assert_eq!(applied.mesh.config.trust_domain.as_str(), "a");
}

#[test]
fn precedence_is_by_path_then_position() {
    let second = ROUTES.replace("name: reviews}", "name: other}");
    let file = format!("{second}---{ROUTES}");
    let host = host("reviews.default.svc.cluster.local");
    let first = |mesh: &Mesh| {
        mesh.virtual_services_naming(&host)
            .map(|rules| rules.id.name.to_string())
            .collect::<Vec<_>>()
    };
    let base = bookinfo();
    let applied = base.directory.apply(&puts("b.yaml", &second));
    assert_eq!(first(&applied.mesh), ["other", "reviews"]);
    assert_eq!(brief(&applied.directory.diagnostics()), ["IST0109@routes.yaml:6"]);
    let swapped = Directory::new(Options::default()).apply(&puts("x.yaml", &file));
    assert_eq!(first(&swapped.mesh), ["other", "reviews"]);
    let swapped = swapped
        .directory
        .apply(&puts("x.yaml", &format!("{ROUTES}---{second}")));
    assert_eq!(first(&swapped.mesh), ["reviews", "other"]);
    assert!(swapped.touched.hosts.contains(&host));
}

#[test]
fn a_subset_hidden_by_a_more_specific_rule_is_retained() {
    let wildcard = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all}
spec:
  host: '*.default.svc.cluster.local'
  subsets: [{name: v2, labels: {version: v2}}]
";
    let exact = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v3, labels: {version: v1}}]
";
    let directory = load(&format!("{REVIEWS}---{WORKLOADS}---{wildcard}---{ROUTES}")).directory;
    assert_eq!(subsets(&directory.mesh), ["v2"]);
    let hidden = directory.apply(&puts("b.yaml", exact));
    assert_eq!(subsets(&hidden.mesh), ["v3", "v2"]);
    let rule = objects("b.yaml", exact).remove(0);
    let again = hidden.directory.apply(&[Change::Remove(rule.id.clone())]);
    assert_eq!(subsets(&again.mesh), ["v2"]);
}

/// The results of all queries of a mesh, precedence included.
fn observe(mesh: &Mesh) -> String {
    let mut all = format!("{:#?}\n", mesh.config);
    let namespaces: std::collections::BTreeSet<Namespace> = ["default", "other", "istio-system"]
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
    for service in mesh.services() {
        all += &format!("{service:#?}\n");
        for namespace in &namespaces {
            all += &format!("{:#?}\n", mesh.destination_rule(&service.key, namespace));
        }
    }
    for port in mesh.ports() {
        let keys: Vec<_> = mesh
            .services_on_port(port)
            .into_iter()
            .map(|service| &service.key)
            .collect();
        all += &format!("{port} {keys:#?}\n");
    }
    for (host, rules) in mesh.virtual_service_hosts() {
        all += &format!("{host} {:#?}\n", rules.collect::<Vec<_>>());
    }
    for host in mesh.destination_rule_hosts() {
        all += &format!(
            "{host} {:#?}\n",
            mesh.destination_rules_naming(host).collect::<Vec<_>>()
        );
    }
    for workload in mesh.workloads() {
        all += &format!("{workload:#?}\n");
        let none = std::collections::BTreeMap::new();
        all += &format!("{:?}\n", mesh.mutual_tls_mode(&workload.id.namespace, &none, None));
    }
    for namespace in &namespaces {
        all += &format!("{:#?}\n", mesh.sidecars_of(namespace).collect::<Vec<_>>());
        all += &format!("{:#?}\n", mesh.namespace_mutual_tls(namespace));
    }
    for value in ["client", "other", "v1", "v2"] {
        let apart = |key: &str| mesh.tells_clients_apart(&key.into(), &value.into());
        all += &format!("{value} {} {}", apart("app"), apart("version"));
    }
    all
}

#[test]
fn many_findings_of_an_object_are_located_with_few_parses() {
    const ROUTES: usize = 400;
    let routes = (0..ROUTES).map(|route| {
        format!(
            "  - match: [{{uri: {{exact: /{route}}}}}]\n    route: [{{destination: {{host: reviews, subset: v9}}}}]\n"
        )
    });
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: many}\nspec:\n  hosts: [reviews]\n  http:\n";
    let text = head.to_owned() + &routes.collect::<String>();
    let started = Instant::now();
    let object = objects("a.yaml", &text);
    let reading = started.elapsed();
    let put = object.into_iter().map(Change::Put).collect::<Vec<_>>();
    let directory = Directory::new(Options::default())
        .apply(&[puts("reviews.yaml", REVIEWS), put].concat())
        .directory;
    let started = Instant::now();
    let found = directory.diagnostics();
    let placing = started.elapsed();
    assert_eq!(found.len(), ROUTES);
    assert_eq!(brief(&found[ROUTES - 1..]), [format!("IST0101@{}", 6 + 2 * ROUTES)]);
    assert!(
        placing < reading * 50,
        "{placing:?} for text that is read in {reading:?}"
    );
}
