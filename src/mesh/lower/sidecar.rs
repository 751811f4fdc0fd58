//! Lowers Sidecars: inbound listeners and reachable services of a proxy.

mod egress;
mod ingress;

use std::sync::Arc;

use super::destination_rule::connection_pool;
use super::report::Report;
use super::value::is_fqdn;
use super::virtual_service::at_host;
use super::{Context, Lowered};
use crate::api::service_entry::ServicePort;
use crate::api::sidecar as api;
use crate::api::{FieldPath, Object};
use crate::mesh::config::OutboundPolicy;
use crate::mesh::sidecar::{ListenerPort, Sidecar};

/// Lowers a Sidecar.
pub(super) fn lower(object: &Object, spec: &api::Sidecar, context: &Context) -> Lowered<Arc<Sidecar>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let says_something = !spec.ingress.is_empty()
        || !spec.egress.is_empty()
        || spec.inbound_connection_pool.is_some()
        || spec.outbound_traffic_policy.is_some();
    if !says_something {
        report
            .error(&at, "a Sidecar without settings has no effect")
            .help("set `egress`, `ingress`, `outboundTrafficPolicy` or `inboundConnectionPool`");
    }
    let selector = spec
        .workload_selector
        .as_ref()
        .map(|selector| report.selector(&at.field("workloadSelector").field("labels"), &selector.labels))
        .filter(|labels| !labels.is_empty());
    let value = Sidecar {
        id: object.id.clone(),
        selector,
        ingress: ingress::listeners(&mut report, &at.field("ingress"), &spec.ingress),
        egress: egress::listeners(&mut report, &at.field("egress"), &spec.egress),
        outbound_policy: spec
            .outbound_traffic_policy
            .as_ref()
            .map(|policy| outbound_policy(&mut report, &at.field("outboundTrafficPolicy"), policy)),
        inbound_connection_pool: spec
            .inbound_connection_pool
            .as_ref()
            .map(|pool| connection_pool(&mut report, &at.field("inboundConnectionPool"), pool)),
    };
    report.finish(value).map(Arc::new)
}

/// `outboundTrafficPolicy` (Istio's `validateSidecarOutboundTrafficPolicy`). The host of an egress
/// proxy is used as is: Istio does not qualify short names here.
fn outbound_policy(report: &mut Report<'_>, at: &FieldPath, policy: &api::OutboundTrafficPolicy) -> OutboundPolicy {
    let mode = outbound(policy.mode);
    let Some(proxy) = &policy.egress_proxy else {
        return mode;
    };
    let at = at.field("egressProxy");
    if mode != OutboundPolicy::AllowAny {
        report
            .error(&at, "an egress proxy requires the mode ALLOW_ANY")
            .help("set `mode: ALLOW_ANY`");
    }
    if proxy.port.is_none() {
        report.error(&at, "an egress proxy needs its `port`");
    }
    if !is_fqdn(&proxy.host) {
        let message = format!("`{}` is not a fully qualified domain name", proxy.host);
        report.error(&at.field("host"), message);
    }
    let host = proxy.host.parse().ok();
    let destination = at_host(report, &at, proxy, host);
    destination.map_or(mode, |destination| OutboundPolicy::EgressProxy(Arc::new(destination)))
}

/// `outboundTrafficPolicy.mode` of a Sidecar and of the mesh.
pub(super) fn outbound(mode: api::OutboundTrafficMode) -> OutboundPolicy {
    match mode {
        api::OutboundTrafficMode::RegistryOnly => OutboundPolicy::RegistryOnly,
        api::OutboundTrafficMode::AllowAny => OutboundPolicy::AllowAny,
        api::OutboundTrafficMode::AllowAnyDynamicDns(never) => match never {},
    }
}

/// `port` of a listener; the caller checks for 0.
fn listener_port(report: &mut Report<'_>, at: &FieldPath, port: &ServicePort, number: u16) -> ListenerPort {
    if port.target_port != 0 {
        report.error(&at.field("targetPort"), "`targetPort` is not allowed in a listener");
    }
    if !port.name.is_empty() {
        report.label_name(&at.field("name"), "port", &port.name);
    }
    ListenerPort {
        number,
        protocol: report.protocol(&at.field("protocol"), &port.protocol),
        name: port.name.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::lower::Form;
    use crate::mesh::sidecar::{Bind, DefaultEndpoint, FilterNamespace, HostFilter};
    use crate::mesh::testing::{expect_as_marked, objects};

    fn sidecar(spec: &str) -> String {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: a, namespace: n}}
spec:
{spec}"
        )
    }

    #[test]
    fn ingress() {
        expect_as_marked(&sidecar(
            r#"
  workloadSelector:
    labels: {}                          #! IST0133
  ingress:
  - defaultEndpoint: 127.0.0.1:80       #! IST0106
  - port: {number: 0, protocol: HTTP}   #! IST0106
  - port: {number: 80, protocol: NEAR, name: a b, targetPort: 8} #! IST0106 IST0106 IST0106
  - port: {number: 80, protocol: TCP}   #! IST0106
    bind: a                             #! IST0106
    defaultEndpoint: 10.0.0.1:80        #! IST0106
    connectionPool:
      http: {maxRetries: 1}             #! IST0133
  - port: {number: 81, protocol: HTTP}
    defaultEndpoint: "80"               #! IST0106
  - port: {number: 82, protocol: HTTP}
    defaultEndpoint: unix://a           #! IST0106
  - port: {number: 83, protocol: HTTP}
    defaultEndpoint: 127.0.0.1:http     #! IST0106
  inboundConnectionPool: {}             #! IST0106
"#,
        ));
        let empty = sidecar("  workloadSelector: {labels: {a: b}}\n");
        expect_as_marked(&empty.replace("spec:", "spec: #! IST0106"));
    }

    #[test]
    fn egress_proxies() {
        let services = "
---
apiVersion: v1
kind: Service
metadata: {name: gate, namespace: n}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: n}
spec: {ports: [{name: http, port: 80}]}
";
        for proxy in [
            "mode: ALLOW_ANY\n    egressProxy: {host: gate.n.svc.cluster.local, port: {number: 80}}",
            "mode: REGISTRY_ONLY\n    egressProxy: {host: gate.n.svc.cluster.local, port: {number: 80}} #! IST0106",
            "egressProxy: {host: gate.n.svc.cluster.local, port: {number: 80}} #! IST0106",
            "mode: ALLOW_ANY\n    egressProxy: {host: gate.n.svc.cluster.local} #! IST0106",
            "mode: ALLOW_ANY\n    egressProxy: {host: \"*.local\", port: {number: 80}} #! IST0106",
            "mode: ALLOW_ANY\n    egressProxy: {host: 10.0.0.1, port: {number: 80}} #! IST0106",
            "mode: ALLOW_ANY\n    egressProxy: {host: gate, port: {number: 80}} #! IST0101",
            "mode: ALLOW_ANY\n    egressProxy: {host: gate.n.svc.cluster.local, port: {number: 81}} #! IST0101",
            "mode: ALLOW_ANY\n    egressProxy: {host: gate.n.svc.cluster.local, port: {number: 80}, subset: v1} #! IST0101",
            "mode: ALLOW_ANY\n    egressProxy: {host: hidden.n.svc.cluster.local, port: {number: 80}} #! IST0133",
        ] {
            let spec = format!(
                "  outboundTrafficPolicy:\n    {proxy}\n  egress: [{{hosts: [\"./gate.n.svc.cluster.local\"]}}]\n"
            );
            expect_as_marked(&(sidecar(&spec) + services));
        }
    }

    #[test]
    fn egress() {
        expect_as_marked(&sidecar(
            r#"
  egress:
  - hosts: ["*/*"]                      #! IST0106
  - port: {number: 0, protocol: HTTP}   #! IST0106
    hosts: []                           #! IST0106
  - port: {number: 0, protocol: HTTP}
    bind: unix:///a
    captureMode: IPTABLES               #! IST0106
    hosts: ["*/*"]
  - port: {number: 0, protocol: HTTP}   #! IST0106
    bind: unix:///a
    hosts: ["*/*"]
  - port: {number: 80, protocol: HTTP}
    bind: unix:///b                     #! IST0106
    hosts:
    - reviews                           #! IST0106
    - ./reviews                         #! IST0106
    - "*/*foo.com"                      #! IST0106
    - A_B/a.b                           #! IST0106
    - ./a.b
    - n/a.b                             #! IST0133
    - "~n/c.d"
    - "*/*"                             #! IST0133
  - port: {number: 80, protocol: HTTP}  #! IST0106
    hosts: ["~/*"]
"#,
        ));
    }

    #[test]
    fn invalid_hosts_are_not_reported_as_short_names() {
        let said = |host: &str| {
            let text = sidecar(&format!("  egress: [{{hosts: [\"{host}\"]}}]"));
            let object = objects("a.yaml", &text).pop().unwrap();
            let lowered = crate::mesh::lower::lower(&object, &Context::default());
            let finding = lowered.findings.into_iter().next().unwrap();
            (finding.message, finding.help.unwrap_or_default())
        };
        let short = |whole: &str| {
            (
                "`a` is a short name, which is not allowed here".to_owned(),
                format!("use the fully qualified name, such as `{whole}`"),
            )
        };
        assert_eq!(said("./a"), short("./a.n.svc.cluster.local"));
        assert_eq!(said("*/a"), short("*/a.n.svc.cluster.local"));
        assert_eq!(said("other/a"), short("other/a.other.svc.cluster.local"));
        for host in ["*/*", ""] {
            let (message, _) = said(&format!("*/{host}"));
            assert!(
                message.starts_with(&format!("`{host}` is not a valid host name")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_sidecar_is_lowered_field_by_field() {
        let text = sidecar(
            r#"
  ingress:
  - {port: {number: 80, protocol: HTTP}, captureMode: NONE, bind: 127.0.0.2, defaultEndpoint: "127.0.0.1:8080"}
  - {port: {number: 81, protocol: HTTP}, defaultEndpoint: ":8081"}
  egress:
  - {port: {number: 0, protocol: HTTP}, bind: "unix://@a", hosts: ["./a.b", "~o/*", "~/*"]}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
"#,
        );
        let object = objects("a.yaml", &text).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        let Some(Form::Sidecar(sidecar)) = lowered.value else {
            panic!("{:?}", lowered.findings)
        };
        let [bound, redirected] = sidecar.ingress.as_slice() else {
            panic!()
        };
        assert!(bound.bound && !redirected.bound);
        let loopback = DefaultEndpoint::Loopback("127.0.0.1:8080".parse().unwrap());
        assert_eq!(bound.default_endpoint, loopback);
        assert_eq!(redirected.default_endpoint, DefaultEndpoint::Instance(8081));
        let egress = &sidecar.egress[0];
        assert_eq!(egress.bind, Some(Bind::Unix("@a".into())));
        let filter = |filter: &HostFilter| (filter.exclude, filter.namespace.clone(), filter.host.to_string());
        let hosts: Vec<_> = egress.hosts.iter().map(filter).collect();
        let named = |name: &str| FilterNamespace::Named(name.parse().unwrap());
        let expected = [
            (false, named("n"), "a.b"),
            (true, named("o"), "*"),
            (true, FilterNamespace::Any, "*"),
        ];
        assert_eq!(
            hosts,
            expected.map(|(exclude, namespace, host)| (exclude, namespace, host.to_owned()))
        );
        assert_eq!(sidecar.outbound_policy, Some(OutboundPolicy::RegistryOnly));
    }

    #[test]
    fn a_dot_denotes_the_proxys_namespace_only_in_the_root_namespace() {
        let of_namespace = |namespace: &str| {
            let text = sidecar("  egress: [{hosts: [\"./*\", \"istio-system/*\"]}]\n");
            let text = text.replace("namespace: n", &format!("namespace: {namespace}"));
            expect_as_marked(&text);
            let object = objects("a.yaml", &text).pop().unwrap();
            match crate::mesh::lower::lower(&object, &Context::default()).value {
                Some(Form::Sidecar(sidecar)) => sidecar.egress[0].hosts[0].namespace.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of_namespace("istio-system"), FilterNamespace::Proxy);
        assert_eq!(of_namespace("n"), FilterNamespace::Named("n".parse().unwrap()));
    }
}
