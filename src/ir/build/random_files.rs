//! Property test: what the mesh records as touched suffices for an update to equal a build from
//! scratch.

use std::sync::Arc;

use proptest::prelude::*;

use super::random_edits::{kept, nodes, same};
use super::{Built, build, update};
use crate::ir::NodeView;
use crate::mesh::directory::{Change, Directory, Options};
use crate::mesh::testing::objects;

/// Documents that an edit adds or removes. Variants of one object are grouped.
const DOCUMENTS: [&[&str]; 13] = [
    &[
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{name: http, port: 80}]}}",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: x, port: 81}]}}",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, clusterIP: None, ports: [{name: tcp, port: 81}]}}",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ExternalName, externalName: b.default.svc.cluster.local}}",
    ],
    &[
        "{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {selector: {app: b}, ports: [{name: grpc, port: 80}]}}",
        "{apiVersion: v1, kind: Service, metadata: {name: b, annotations: {networking.istio.io/exportTo: other}}, spec: {ports: [{name: http, port: 80}, {name: tcp, port: 81}]}}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: [one.example.com, two.example.com], resolution: DNS, ports: [{name: http, number: 80, protocol: HTTP}]}}",
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: ['*.example.com'], resolution: NONE, ports: [{name: tls, number: 443, protocol: TLS}, {name: http, number: 80, protocol: HTTP}]}}",
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: [one.example.com], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: a}}, ports: [{name: http, number: 82, protocol: HTTP, targetPort: 80}]}}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: other}, spec: {hosts: [one.example.com], resolution: DNS, ports: [{name: tcp, number: 80, protocol: TCP}]}}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w1}, spec: {address: 10.0.0.9, labels: {app: a, version: v1}, serviceAccount: a}}",
        "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w1}, spec: {address: 10.0.0.9, labels: {app: b}}}",
        "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w1}, spec: {address: 10.0.0.8, labels: {app: a, version: v2}, serviceAccount: other}}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w2}, spec: {address: 10.0.0.8, labels: {app: b, version: v1}, serviceAccount: b, ports: {http: 8080}}}",
    ],
    &[
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, labels: {kubernetes.io/service-name: b}}, addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.0.0.9]}, {addresses: [10.0.0.8], conditions: {ready: false}}]}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v1}, spec: {hosts: [a], http: [{route: [{destination: {host: a, subset: v1, port: {number: 80}}}]}]}}",
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v1}, spec: {hosts: [a, beside.example.com], http: [{match: [{uri: {prefix: /x}, sourceLabels: {app: client}}], route: [{destination: {host: b}}]}, {directResponse: {status: 404}}]}}",
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v1}, spec: {hosts: ['*.example.com'], exportTo: ['.'], http: [{route: [{destination: {host: b}, weight: 1}, {destination: {host: a}, weight: 1}]}]}}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v2}, spec: {hosts: [one.example.com, b], tcp: [{route: [{destination: {host: a, port: {number: 81}}}]}], http: [{route: [{destination: {host: one.example.com}}]}]}}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d1}, spec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}}",
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d1}, spec: {host: '*.default.svc.cluster.local', trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}, outlierDetection: {}}}}",
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d1}, spec: {host: b, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}, loadBalancer: {localityLbSetting: {failoverPriority: [app]}}, outlierDetection: {}}}}",
    ],
    &[
        "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s}, spec: {egress: [{hosts: ['./*', '~./b.default.svc.cluster.local']}]}}",
        "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s}, spec: {workloadSelector: {labels: {app: other}}, ingress: [{port: {number: 80, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:8080'}], egress: [{port: {number: 80, protocol: HTTP, name: http}, hosts: ['*/*']}]}}",
        "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s}, spec: {egress: [{port: {number: 3128, protocol: HTTP_PROXY, name: p}, hosts: ['*/*']}, {hosts: ['*/*']}]}}",
    ],
    &[
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {mtls: {mode: STRICT}}}",
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}, portLevelMtls: {80: {mode: STRICT}}}}",
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {mtls: {mode: DISABLE}}}",
    ],
    &[
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'h2UpgradePolicy: UPGRADE'}}",
    ],
];

/// The change made by an edit: a variant of an object, or its removal.
fn change((which, how): (usize, usize)) -> Change {
    let variants = DOCUMENTS[which % DOCUMENTS.len()];
    let at = how % (variants.len() + 1);
    let text = variants.get(at).unwrap_or(&variants[0]);
    let object = objects(&format!("{}.yaml", which % DOCUMENTS.len()), text).remove(0);
    match at < variants.len() {
        true => Change::Put(object),
        false => Change::Remove(object.id.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn touched_covers_all_changes(steps in prop::collection::vec(prop::collection::vec(any::<(usize, usize)>(), 1..4), 1..24)) {
        let mut directory = Directory::new(Options::default());
        let mut current: Vec<(NodeView, Arc<Built>)> = nodes()
            .into_iter()
            .map(|node| (node.clone(), Arc::new(build(directory.mesh(), &node))))
            .collect();
        for edits in steps {
            let changes: Vec<Change> = edits.into_iter().map(change).collect();
            let applied = directory.apply(&changes);
            for (node, built) in &mut current {
                let next = update(&applied.mesh, node, built, &applied.touched);
                same(&next, &build(&applied.mesh, node));
                kept(&built.config.clusters, &next.config.clusters);
                kept(&built.config.routes, &next.config.routes);
                *built = Arc::new(next);
            }
            directory = applied.directory;
        }
    }
}
