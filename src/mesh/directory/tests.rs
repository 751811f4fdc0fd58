//! Directories through a series of edits.

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
fn a_subset_that_is_removed_while_a_route_names_it_stays_served() {
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
fn an_edit_that_names_what_does_not_exist_leaves_the_last_good_form() {
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
