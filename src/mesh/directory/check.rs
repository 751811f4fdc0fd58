//! Checks of an object against other objects.

mod endpoints;
mod policy;
mod routes;
mod rule;
mod service;
mod sidecar;

use super::Directory;
use super::edit::Edit;
use crate::mesh::lower::Finding;
use crate::name::{Kind, ObjectId};

impl Edit<'_> {
    /// Repeats the checks of every object whose findings may have changed.
    pub(super) fn check(&mut self) {
        let ids = self.recheck.iter().chain(&self.routes).chain(&self.changed);
        let ids: std::collections::BTreeSet<ObjectId> = ids.cloned().collect();
        for id in &ids {
            let found = self.new.check(id);
            if self.new.entry(id).is_some_and(|entry| entry.cross != found) {
                self.update(id, |entry| entry.cross = found);
            }
        }
        self.recheck = ids;
    }
}

impl Directory {
    /// Checks an object without errors of its own; those have been reported already.
    fn check(&self, id: &ObjectId) -> Vec<Finding> {
        let Some(written) = self.entry(id).and_then(|entry| entry.candidate()) else {
            return Vec::new();
        };
        match id.kind {
            Kind::VirtualService => routes::check(self, &written),
            Kind::DestinationRule => rule::check(self, &written),
            Kind::ServiceEntry | Kind::Service => service::check(self, &written),
            Kind::Sidecar => sidecar::check(self, &written),
            Kind::PeerAuthentication => policy::check(self, &written),
            Kind::EndpointSlice | Kind::Endpoints => endpoints::check(self, &written),
            Kind::ConfigMap | Kind::WorkloadEntry | Kind::WorkloadGroup => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mesh::directory::{Change, Directory, Options};
    use crate::mesh::testing::{brief, expect_as_marked, puts};

    #[test]
    fn hosts_of_rules_exist() {
        expect_as_marked(
            r#"
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts:
  - a
  - b                                   #! IST0101
  - "*.example.com"
  http: [{route: [{destination: {host: a}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  trafficPolicy:
    portLevelSettings:
    - {port: {number: 80}, tls: {mode: DISABLE}}
    - {port: {number: 81}, tls: {mode: DISABLE}} #! IST0133
  subsets:
  - name: all
    trafficPolicy:
      portLevelSettings:
      - {port: {number: 82}, tls: {mode: DISABLE}} #! IST0133
"#,
        );
    }

    #[test]
    fn rules_for_one_host_are_merged_by_their_visibility() {
        let rules = |first: &str, second: &str| {
            format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{ports: [{{name: http, port: 80}}]}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: a}}
spec:
  host: a
  exportTo: {first}
  subsets: [{{name: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: b}}
spec:
  host: a
  exportTo: {second}
"
            )
        };
        let twice = "  subsets: [{name: v1}]  #! IST0133\n";
        expect_as_marked(&(rules("[\"*\"]", "[\"*\"]") + twice));
        expect_as_marked(&(rules("[b]", "[b, c]") + twice));
        expect_as_marked(&(rules("[b]", "[c]") + "  subsets: [{name: v1}]\n"));
        expect_as_marked(&(rules("[b, c]", "[b]  #! IST0133") + "  subsets: [{name: v1}]\n"));
        expect_as_marked(&rules("[b]", "[\"*\"]  #! IST0133"));
    }

    #[test]
    fn ports_of_matches_are_those_of_the_hosts() {
        expect_as_marked(
            r#"
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  http:
  - match:
    - port: 80
    - port: 8080                        #! IST0133
    route: [{destination: {host: a}}]
  tcp:
  - match: [{port: 81}]                 #! IST0133
    route: [{destination: {host: a}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec:
  hosts: ["*.example.com"]
  http: [{match: [{port: 81}], route: [{destination: {host: a}}]}]
"#,
        );
    }

    #[test]
    fn endpoints_belong_to_a_service_and_its_ports() {
        expect_as_marked(
            r#"
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports:
- {name: http, port: 8080}
- {name: web, port: 8081}               #! IST0101
- {name: any}
---
apiVersion: v1
kind: Endpoints
metadata: {name: a}
subsets:
- addresses: [{ip: 10.1.0.2}]
  ports: [{port: 80}]                   #! IST0101
---
apiVersion: v1
kind: Endpoints
metadata: {name: b}                     #! IST0101
subsets: [{addresses: [{ip: 10.1.0.2}], ports: [{port: 80}]}]
"#,
        );
    }

    #[test]
    fn targets_by_name_are_ports_of_workloads() {
        let service = r#"
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  clusterIP: 10.0.0.1
  selector: {app: a}
  ports:
  - {name: http, port: 80, targetPort: web} #! IST0133
  - {name: grpc, port: 81, targetPort: 8081}
"#;
        let workload = r#"
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a-1}
spec: {address: 10.1.0.1, labels: {app: a}, ports: {other: 80}}
"#;
        expect_as_marked(&format!("{service}---{workload}"));
        // Without workloads, the ports are known from EndpointSlices.
        let unmarked = service.replace("#! IST0133", "");
        expect_as_marked(&unmarked);
        let workload = workload.replace("other", "web");
        expect_as_marked(&format!("{unmarked}---{workload}"));
    }

    #[test]
    fn findings_disappear_when_the_target_is_added() {
        let rules = puts(
            "a.yaml",
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a], http: [{directResponse: {status: 200}}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: a}
subsets: [{addresses: [{ip: 10.1.0.2}], ports: [{port: 8080}]}]
",
        );
        let service = puts(
            "b.yaml",
            "
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}
",
        );
        let directory = Directory::new(Options::default()).apply(&rules).directory;
        assert_eq!(brief(&directory.diagnostics()), ["IST0101@5", "IST0101@9"]);
        let complete = directory.apply(&service).directory;
        assert_eq!(brief(&complete.diagnostics()), Vec::<String>::new());
        let [Change::Put(service)] = service.as_slice() else {
            panic!()
        };
        let again = complete.apply(&[Change::Remove(service.id.clone())]).directory;
        assert_eq!(brief(&again.diagnostics()), ["IST0101@5", "IST0101@9"]);
    }

    #[test]
    fn a_mesh_config_in_another_namespace_is_ignored() {
        expect_as_marked(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: istio}                 #! IST0133
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  meshConfig: "enableAutoMtls: false"   #! IST0133
  meshNetworks: "networks: {}"
"#,
        );
        expect_as_marked(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  meshNetworks: "networks: {a: {}}"     #! TS0005
"#,
        );
    }
}
