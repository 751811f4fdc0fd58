//! Clusters and endpoints, from YAML.

use std::time::Duration;

use super::super::fixture::{built, locality, node};
use crate::ir::NodeView;
use crate::ir::build::Built;
use crate::ir::cluster::{Cluster, Discovery, HttpVersion, LoadBalancer, ServerIdentity, Transport, UpstreamTls};
use crate::mesh::destination_rule::{HashTable, ServerVerification};

/// The Service `web` in `default` with two workloads, plus the given documents.
fn web(text: &str) -> Built {
    web_for(&node(), text)
}

fn web_for(node: &NodeView, text: &str) -> Built {
    let base = r"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 90}, {name: tcp, port: 91}, {name: x, port: 92}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-1}
spec: {address: 10.1.0.1, labels: {app: web, version: v1}, serviceAccount: web, locality: r1/z1, weight: 3}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-2}
spec: {address: 10.1.0.2, labels: {app: web, version: v2}, serviceAccount: web-two, locality: r2/z1}
---
";
    built(node, &format!("{base}{text}"))
}

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web}}\nspec:\n  host: web\n{policy}"
    )
}

fn external(resolution: &str, more: &str) -> Built {
    built(
        &node(),
        &format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: out}}\nspec:\n  hosts: [out.example.com]\n  location: MESH_EXTERNAL\n  ports: [{{name: http, number: 80, targetPort: 8080, protocol: HTTP}}]\n  resolution: {resolution}\n{more}"
        ),
    )
}

const WEB: &str = "outbound|80||web.default.svc.cluster.local";
const OUT: &str = "outbound|80||out.example.com";

fn server(cluster: &Cluster) -> &ServerIdentity {
    match &cluster.transport {
        Transport::Auto(UpstreamTls::Istio { server, .. }) | Transport::Tls(UpstreamTls::Istio { server, .. }) => {
            server
        }
        other => panic!("{other:?}"),
    }
}

fn alpn(cluster: &Cluster) -> &[&'static str] {
    match &cluster.transport {
        Transport::Auto(UpstreamTls::Istio { alpn, .. }) | Transport::Tls(UpstreamTls::Istio { alpn, .. }) => alpn,
        other => panic!("{other:?}"),
    }
}

#[test]
fn resolutions_determine_the_discovery_type() {
    let minute = Duration::from_secs(60);
    let dns = external("DNS", "");
    let Discovery::StrictDns(endpoints, lookup) = &dns.cluster(OUT).discovery else {
        panic!("{:?}", dns.cluster(OUT));
    };
    assert_eq!(
        (endpoints.localities[0].endpoints[0].port, lookup.refresh),
        (8080, minute)
    );
    let one = external("DNS_ROUND_ROBIN", "");
    assert!(matches!(&one.cluster(OUT).discovery, Discovery::LogicalDns(..)));
    let listed = external("STATIC", "  endpoints: [{address: 192.0.2.1}]");
    assert_eq!(listed.cluster(OUT).discovery, Discovery::Eds);
    assert_eq!(listed.endpoints(OUT).localities[0].endpoints[0].port, 8080);
    let none = external("NONE", "");
    let expected = Discovery::OriginalDst {
        port: Some(8080),
        inbound: false,
    };
    assert_eq!(none.cluster(OUT).discovery, expected);
    assert_eq!(none.cluster(OUT).load_balancer, LoadBalancer::ClusterProvided);
}

#[test]
fn the_http_version_follows_the_declared_protocol() {
    let built = web("");
    let version = |port: u16| {
        let cluster = built.cluster(&format!("outbound|{port}||web.default.svc.cluster.local"));
        (cluster.http.version, alpn(cluster).to_vec())
    };
    assert_eq!(
        version(80),
        (HttpVersion::Http1, vec!["istio-http/1.1", "istio", "http/1.1"])
    );
    assert_eq!(version(90), (HttpVersion::Http2, vec!["istio-h2", "istio", "h2"]));
    assert_eq!(version(91), (HttpVersion::Http1, vec!["istio"]));
    assert_eq!(version(92), (HttpVersion::Downstream, vec!["istio"]));
}

#[test]
fn h2_upgrade_changes_http_version_and_alpn() {
    let upgraded = web(&rule(
        "  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}",
    ));
    let cluster = upgraded.cluster(WEB);
    assert_eq!(
        (cluster.http.version, alpn(cluster)[0]),
        (HttpVersion::Http2, "istio-h2")
    );
    let followed = web(&rule(
        "  trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}}",
    ));
    let cluster = followed.cluster(WEB);
    assert_eq!(
        (cluster.http.version, alpn(cluster)),
        (HttpVersion::Downstream, &["istio"][..])
    );
}

#[test]
fn a_connection_pool_sets_circuit_breakers_and_timeouts() {
    let built = web(&rule(
        "  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 7, connectTimeout: 3s, idleTimeout: 20s, maxConnectionDuration: 1h, tcpKeepalive: {probes: 2}}
      http: {http1MaxPendingRequests: 8, http2MaxRequests: 9, maxRetries: 4, maxRequestsPerConnection: 5, maxConcurrentStreams: 6}",
    ));
    let cluster = built.cluster(WEB);
    let limits = cluster.limits;
    assert_eq!(
        [
            limits.connections,
            limits.pending_requests,
            limits.requests,
            limits.retries
        ],
        [Some(7), Some(8), Some(9), Some(4)]
    );
    assert_eq!(cluster.connect_timeout, Duration::from_secs(3));
    assert_eq!(cluster.http.idle_timeout, Some(Duration::from_secs(20)), "as TCP's");
    assert_eq!(cluster.http.max_connection_duration, Some(Duration::from_secs(3600)));
    assert_eq!(cluster.http.max_requests_per_connection, Some(5));
    assert_eq!(cluster.http.max_concurrent_streams, None, "it is HTTP/1");
    assert_eq!(cluster.tcp_keepalive.and_then(|keepalive| keepalive.probes), Some(2));
    let grpc = built.cluster("outbound|90||web.default.svc.cluster.local");
    assert_eq!(grpc.http.max_concurrent_streams, Some(6));
}

#[test]
fn port_policies_replace_and_subset_policies_override() {
    let built = web(&rule(
        "  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool: {tcp: {maxConnections: 7}}
    portLevelSettings: [{port: {number: 90}, loadBalancer: {simple: ROUND_ROBIN}}]
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x, maglev: {tableSize: 1021}}}}}",
    ));
    let of = |name: &str| {
        let cluster = built.cluster(name);
        (cluster.load_balancer, cluster.limits.connections)
    };
    assert_eq!(of(WEB), (LoadBalancer::Random, Some(7)));
    assert_eq!(
        of("outbound|90||web.default.svc.cluster.local"),
        (LoadBalancer::RoundRobin, None)
    );
    let maglev = LoadBalancer::Hash(HashTable::Maglev(1021));
    assert_eq!(of("outbound|80|v1|web.default.svc.cluster.local"), (maglev, Some(7)));
}

#[test]
fn a_subset_has_the_endpoints_with_its_labels() {
    let built = web(&rule(
        "  subsets: [{name: v2, labels: {version: v2}}, {name: v9, labels: {version: v9}}]",
    ));
    let endpoints = built.endpoints("outbound|80|v2|web.default.svc.cluster.local");
    assert_eq!(endpoints.localities.len(), 1);
    assert_eq!(endpoints.localities[0].endpoints[0].port, 8080);
    assert_eq!(
        endpoints.localities[0].endpoints[0].workload.as_deref(),
        Some("web-2;default;web;v2;")
    );
    assert!(
        built
            .endpoints("outbound|80|v9|web.default.svc.cluster.local")
            .localities
            .is_empty()
    );
    let cluster = built.cluster("outbound|80|v2|web.default.svc.cluster.local");
    assert_eq!(cluster.metadata.subset.as_deref(), Some("v2"));
    assert_eq!(cluster.metadata.config.as_ref().map(|(id, _)| &*id.name), Some("web"));
    assert_eq!(
        cluster.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Service default/web", "DestinationRule default/web"]
    );
}

#[test]
fn localities_fail_over_with_outlier_detection() {
    let here = NodeView {
        locality: locality("r2/z1"),
        ..node()
    };
    let groups = |policy: &str| -> Vec<(u32, u32)> {
        let built = web_for(&here, &rule(policy));
        let groups = built.endpoints(WEB).localities.clone();
        groups.iter().map(|group| (group.priority, group.weight)).collect()
    };
    assert_eq!(
        groups("  trafficPolicy: {loadBalancer: {simple: RANDOM}}"),
        [(0, 3), (0, 1)]
    );
    assert_eq!(groups("  trafficPolicy: {outlierDetection: {}}"), [(1, 3), (0, 1)]);
    let off = "  trafficPolicy: {outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}}";
    assert_eq!(groups(off), [(0, 3), (0, 1)]);
}

#[test]
fn localities_are_weighted_only_by_a_rule() {
    let weighted = |policy: &str| web(&rule(policy)).cluster(WEB).locality_weighted;
    let setting = |setting: &str| {
        format!("  trafficPolicy: {{outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{{setting}}}}}}}")
    };
    assert!(!weighted("  trafficPolicy: {outlierDetection: {}}"));
    assert!(weighted(&setting("failover: [{from: r1, to: r2}]")));
    assert!(weighted(&setting("failoverPriority: [version]")));
    assert!(weighted(
        "  trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {'*': 100}}]}}}"
    ));
}

#[test]
fn unready_endpoints_are_sent_unless_min_health_percent_is_set() {
    let slice = r"
apiVersion: v1
kind: Service
metadata: {name: pods}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pods-1, labels: {kubernetes.io/service-name: pods}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: true}}
- {addresses: [10.1.0.2], conditions: {ready: false}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pods}
spec: {host: pods, trafficPolicy: {outlierDetection: {minHealthPercent: MIN}}}
";
    let health = |percent: &str| -> (Vec<bool>, u32) {
        let built = built(&node(), &slice.replace("MIN", percent));
        let name = "outbound|80||pods.default.svc.cluster.local";
        let groups = &built.endpoints(name).localities;
        let endpoints = groups.iter().flat_map(|group| &group.endpoints);
        let healthy = endpoints.map(|endpoint| endpoint.healthy).collect();
        (healthy, built.cluster(name).panic_threshold)
    };
    assert_eq!(health("0"), (vec![true, false], 0));
    assert_eq!(health("30"), (vec![true], 30));
}

#[test]
fn servers_have_the_identities_of_all_endpoints() {
    let exact = |text: &str| match server(web(text).cluster(WEB)) {
        ServerIdentity::Exact(names) => names.clone(),
        ServerIdentity::Prefixes(prefixes) => prefixes.clone(),
    };
    let known = [
        "spiffe://cluster.local/ns/default/sa/web",
        "spiffe://cluster.local/ns/default/sa/web-two",
    ];
    assert_eq!(exact(""), known);
    let asked = rule("  trafficPolicy: {tls: {mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://a/ns/b/sa/c]}}");
    assert_eq!(exact(&asked), ["spiffe://a/ns/b/sa/c"]);
    let nobody = built(
        &node(),
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}",
    );
    let anybody = ServerIdentity::Prefixes(vec!["spiffe://cluster.local/ns/default/".to_owned()]);
    assert_eq!(*server(nobody.cluster(WEB)), anybody);
}

#[test]
fn trust_domain_aliases_are_accepted() {
    let aliased = web("apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: new.domain
    trustDomainAliases: [old.domain]
");
    let ServerIdentity::Exact(names) = server(aliased.cluster(WEB)) else {
        panic!("accounts are known");
    };
    assert!(names.contains(&"spiffe://old.domain/ns/default/sa/web".to_owned()));
    assert!(names.contains(&"spiffe://new.domain/ns/default/sa/web".to_owned()));
}

#[test]
fn the_tls_mode_of_a_rule_takes_precedence() {
    let transport = |tls: &str| {
        web(&rule(&format!("  trafficPolicy: {{tls: {{{tls}}}}}")))
            .cluster(WEB)
            .clone()
    };
    assert_eq!(transport("mode: DISABLE").transport, Transport::Plaintext);
    assert!(matches!(
        transport("mode: ISTIO_MUTUAL").transport,
        Transport::Tls(UpstreamTls::Istio { .. })
    ));
    let simple = transport("mode: SIMPLE");
    assert!(simple.http.auto_sni && simple.http.auto_san_validation);
    let named = transport("mode: SIMPLE, sni: a.com, insecureSkipVerify: true");
    assert!(!named.http.auto_sni && !named.http.auto_san_validation);
    let Transport::Tls(UpstreamTls::Files { verify, sni, .. }) = &named.transport else {
        panic!("{named:?}");
    };
    assert_eq!((verify, sni.as_deref()), (&ServerVerification::None, Some("a.com")));
    let mutual = transport("mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca");
    let Transport::Tls(UpstreamTls::Files { certificate, .. }) = &mutual.transport else {
        panic!("{mutual:?}");
    };
    assert!(certificate.is_some());
}

#[test]
fn auto_mtls_applies_within_the_mesh_to_endpoints_that_accept_it() {
    assert_eq!(external("DNS", "").cluster(OUT).transport, Transport::Plaintext);
    let authentication = |spec: &str| {
        web(&format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {spec}"
        ))
    };
    let off = authentication("{mtls: {mode: DISABLE}}");
    assert_eq!(off.cluster(WEB).transport, Transport::Plaintext);
    let port = authentication(
        "{selector: {matchLabels: {version: v1}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}",
    );
    let taking = |name: &str| -> Vec<bool> {
        let groups = &port.endpoints(name).localities;
        groups
            .iter()
            .flat_map(|group| &group.endpoints)
            .map(|endpoint| endpoint.mutual_tls)
            .collect()
    };
    assert_eq!(taking(WEB), [false, true], "by the workload's port");
    assert_eq!(taking("outbound|91||web.default.svc.cluster.local"), [true, true]);
    let unwanted = "apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'enableAutoMtls: false'}
";
    assert_eq!(web(unwanted).cluster(WEB).transport, Transport::Plaintext);
}
