//! Lowers ServiceEntries.

use std::sync::Arc;

use super::report::Report;
use super::service::{ServiceSource, SourcePort, traffic_distribution};
use super::value::{ExportToNone, is_fqdn};
use super::workload_entry::{Names, workload};
use super::{Context, Lowered};
use crate::api::service_entry as api;
use crate::api::{FieldPath, Object};
use crate::diag::Code;
use crate::mesh::service::{Address, Protocol, Resolution, ServiceKey, ServicePort};
use crate::mesh::workload::Workload;

/// Lowers a ServiceEntry.
pub(super) fn lower(object: &Object, spec: &api::ServiceEntry, context: &Context) -> Lowered<Arc<ServiceSource>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let resolution = match spec.resolution {
        api::Resolution::None => Resolution::Passthrough,
        api::Resolution::Static => Resolution::Static,
        api::Resolution::Dns => Resolution::Dns,
        api::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        api::Resolution::DynamicDns(never) => match never {},
    };
    let selector = selector(&mut report, &at, spec, resolution);
    let keys = hosts(&mut report, &at.field("hosts"), spec, resolution);
    let addresses = addresses(&mut report, &at.field("addresses"), spec, resolution);
    let ports = ports(&mut report, &at.field("ports"), spec);
    host_rules(&mut report, &at, spec, resolution, &ports);
    let value = ServiceSource {
        id: object.id.clone(),
        keys,
        addresses,
        resolution,
        external: spec.location == api::Location::MeshExternal,
        kubernetes: false,
        headless: false,
        alias: None,
        export_to: report.export_to(
            &spec.export_to,
            &context.config.service_export_to,
            ExportToNone::Allowed,
        ),
        subject_alt_names: spec.subject_alt_names.clone(),
        traffic_distribution: traffic_distribution(&mut report, object, ""),
        listed: endpoints(&mut report, &at, spec, resolution, &ports),
        ports,
        selector,
        publish_not_ready: false,
    };
    report.finish(value).map(Arc::new)
}

fn selector(
    report: &mut Report<'_>,
    at: &FieldPath,
    spec: &api::ServiceEntry,
    resolution: Resolution,
) -> Option<crate::mesh::Labels> {
    let selector = spec.workload_selector.as_ref()?;
    let at = at.field("workloadSelector");
    if !spec.endpoints.is_empty() {
        report.error(&at, "`workloadSelector` and `endpoints` are mutually exclusive");
    }
    if resolution != Resolution::Static {
        report
            .warning(&at, "`workloadSelector` is meant for `resolution: STATIC`")
            .help("with another resolution the selected workloads do not receive the service's traffic as endpoints");
    }
    Some(report.selector(&at.field("labels"), &selector.labels))
}

fn hosts(report: &mut Report<'_>, at: &FieldPath, spec: &api::ServiceEntry, resolution: Resolution) -> Vec<ServiceKey> {
    if spec.hosts.is_empty() {
        report.error(at, "a ServiceEntry must have at least one host");
    }
    let resolved = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    let mut found: Vec<ServiceKey> = Vec::with_capacity(spec.hosts.len());
    for (index, text) in spec.hosts.iter().enumerate() {
        let at = at.index(index);
        if text == "*" {
            report.error(&at, "the host of a service cannot be `*`");
            continue;
        }
        let Some(host) = report.host(&at, text) else {
            continue;
        };
        if text.starts_with('*') && !text.starts_with("*.") {
            report
                .warning(
                    &at,
                    format!("`{text}` has a wildcard within a label, which few tools support"),
                )
                .help("use `*.` followed by a domain");
        }
        if resolved && spec.endpoints.is_empty() && spec.workload_selector.is_none() && !is_fqdn(text) {
            report
                .error(&at, format!("`{text}` cannot be resolved"))
                .help("use a fully qualified domain name, or list `endpoints`");
        }
        if found.iter().any(|other| other.host == host) {
            report.warning(&at, format!("duplicate host `{host}`"));
            continue;
        }
        found.push(ServiceKey {
            host,
            namespace: report.namespace().clone(),
        });
    }
    found
}

fn addresses(
    report: &mut Report<'_>,
    at: &FieldPath,
    spec: &api::ServiceEntry,
    resolution: Resolution,
) -> Vec<ipnet::IpNet> {
    let mut found = Vec::with_capacity(spec.addresses.len());
    for (index, text) in spec.addresses.iter().enumerate() {
        let at = at.index(index);
        if text.contains('/') && matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin) {
            report.error(&at, "CIDRs are only allowed with `resolution: NONE` and `STATIC`");
        }
        found.extend(report.subnet(&at, text));
    }
    found
}

fn ports(report: &mut Report<'_>, at: &FieldPath, spec: &api::ServiceEntry) -> Vec<SourcePort> {
    let mut found: Vec<SourcePort> = Vec::with_capacity(spec.ports.len());
    for (index, entry) in spec.ports.iter().enumerate() {
        let at = at.index(index);
        let name = report.label_name(&at.field("name"), "port", &entry.name);
        let number = report.port(&at.field("number"), entry.number);
        if found.iter().any(|other| other.port.name == name) {
            report.error(&at.field("name"), format!("two ports have the name `{name}`"));
        }
        if found.iter().any(|other| other.port.number == number) {
            report.error(&at.field("number"), format!("duplicate port {number}"));
        }
        let protocol = report.protocol(&at.field("protocol"), &entry.protocol);
        if spec.addresses.is_empty() && matches!(protocol, Protocol::Tcp | Protocol::Auto) {
            report
                .add(
                    Code::ServiceEntryAddressesRequired,
                    &at,
                    format!("without `addresses`, this port matches all traffic to port {number}"),
                )
                .help("set the `addresses` that clients call, or a `protocol` that carries the host name");
        }
        let target = report.optional_port(&at.field("targetPort"), entry.target_port);
        found.push(SourcePort {
            port: ServicePort {
                number,
                name,
                protocol,
                target: target.unwrap_or(number),
            },
            target_name: None,
        });
    }
    found
}

/// Several hosts on one port need a protocol that carries the host name.
fn host_rules(
    report: &mut Report<'_>,
    at: &FieldPath,
    spec: &api::ServiceEntry,
    resolution: Resolution,
    ports: &[SourcePort],
) {
    if spec.hosts.len() < 2 || resolution == Resolution::Passthrough {
        return;
    }
    let opaque = ports
        .iter()
        .position(|port| !port.port.protocol.is_http() && !port.port.protocol.is_tls());
    if let Some(index) = opaque {
        report
            .error(
                &at.field("ports").index(index),
                "connections to this port do not identify which of the hosts is meant",
            )
            .help("use a separate ServiceEntry for each host, or an HTTP or TLS protocol");
    }
}

fn endpoints(
    report: &mut Report<'_>,
    at: &FieldPath,
    spec: &api::ServiceEntry,
    resolution: Resolution,
    ports: &[SourcePort],
) -> Vec<Workload> {
    match resolution {
        Resolution::Passthrough if !spec.endpoints.is_empty() => {
            report
                .error(
                    &at.field("endpoints"),
                    "endpoints are not allowed with `resolution: NONE`: connections go to the address the client called",
                )
                .help("use `resolution: STATIC`");
        }
        Resolution::DnsRoundRobin if spec.endpoints.len() > 1 => {
            report.error(
                &at.field("endpoints").index(1),
                "`resolution: DNS_ROUND_ROBIN` allows at most one endpoint",
            );
        }
        Resolution::Static if spec.endpoints.is_empty() && spec.workload_selector.is_none() => {
            report
                .add(
                    Code::ServiceWithoutEndpoints,
                    &at.field("resolution"),
                    "`resolution: STATIC` requires listed or selected endpoints, but there are none",
                )
                .help("list `endpoints`, select workloads with `workloadSelector`, or use `resolution: DNS`");
        }
        Resolution::Passthrough
        | Resolution::DnsRoundRobin
        | Resolution::Static
        | Resolution::Dns
        | Resolution::Alias => {}
    }
    let at = at.field("endpoints");
    let names = match resolution {
        Resolution::Static => Names::Refused,
        Resolution::Passthrough | Resolution::DnsRoundRobin | Resolution::Dns | Resolution::Alias => Names::Allowed,
    };
    let mut found = Vec::with_capacity(spec.endpoints.len());
    for (index, entry) in spec.endpoints.iter().enumerate() {
        let at = at.index(index);
        let labels = report.labels(&at.field("labels"), &entry.labels);
        let endpoint = workload(report, &at, entry, labels, names);
        if let Some(endpoint) = endpoint {
            endpoint_rules(report, &at, &endpoint, resolution, ports);
            found.push(endpoint);
        }
    }
    found
}

fn endpoint_rules(
    report: &mut Report<'_>,
    at: &FieldPath,
    endpoint: &Workload,
    resolution: Resolution,
    ports: &[SourcePort],
) {
    for (name, _) in &endpoint.ports {
        if !ports.iter().any(|port| port.port.name == *name) {
            report.error(
                &at.field("ports").key(&**name),
                format!("the service has no port `{name}`"),
            );
        }
    }
    if matches!(endpoint.address, Address::Unix(_)) {
        let address_at = at.field("address");
        if resolution != Resolution::Static {
            report.error(
                &address_at,
                "Unix domain sockets are only allowed with `resolution: STATIC`",
            );
        } else if ports.len() != 1 {
            report.error(
                &address_at,
                "a service with a Unix domain socket must have exactly one port",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::lower::Form;
    use crate::mesh::testing::{expect_as_marked, objects};

    fn entry(spec: &str) -> String {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: a}}
spec:
{spec}"
        )
    }

    fn lowered(spec: &str) -> Arc<ServiceSource> {
        let object = objects("a.yaml", &entry(spec)).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        match lowered.value {
            Some(Form::Service(source)) => source,
            other => panic!("{other:?} {:?}", lowered.findings),
        }
    }

    #[test]
    fn hosts_addresses_and_ports() {
        expect_as_marked(&entry(
            r#"
  hosts:
  - "*"                                 #! IST0106
  - a_b                                 #! IST0106
  - "*foo.com"                          #! IST0133 IST0106
  - b.c
  - b.c                                 #! IST0133
  addresses:
  - 10.0.0.0/8                          #! IST0106
  - 10.0.0.1
  - a                                   #! IST0106
  ports:
  - {number: 0, name: a, protocol: HTTP} #! IST0106
  - {number: 80, name: a, protocol: HTTP} #! IST0106
  - {number: 80, name: b, protocol: HTTP} #! IST0106
  - {number: 81, name: "", protocol: HTTP} #! IST0106
  - {number: 82, name: c, protocol: NEAR, targetPort: 70000} #! IST0106 IST0106 IST0106
  resolution: DNS
  exportTo: ["~", "."]                  #! IST0106
"#,
        ));
        expect_as_marked(&entry(
            r#"
  hosts: []                             #! IST0106
  ports:
  - {number: 80, name: a}               #! IST0134
  - {number: 81, name: b, protocol: TCP} #! IST0134
  - {number: 82, name: c, protocol: HTTP}
  resolution: STATIC                    #! TS0026
"#,
        ));
    }

    #[test]
    fn endpoints_by_resolution() {
        expect_as_marked(&entry(
            r#"
  hosts: [a.b]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints:
  - address: a.b                        #! IST0106
  - address: ""                         #! IST0106
  - {network: n}                        #! TS0005
  - address: unix:///socket
    ports: {http: 80}                   #! IST0106
  - address: unix://socket              #! IST0106
  - address: 10.0.0.1
    ports:
      other: 80                         #! IST0106
      http: 0                           #! IST0106
    labels: {a: "b c"}                  #! IST0106
    serviceAccount: a_b                 #! IST0106
"#,
        ));
        expect_as_marked(&entry(
            r#"
  hosts: [a.b]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: NONE
  endpoints:                            #! IST0106
  - address: 10.0.0.1
"#,
        ));
        expect_as_marked(&entry(
            r#"
  hosts: [a.b]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS_ROUND_ROBIN
  endpoints:
  - address: 10.0.0.1
  - address: a_b                        #! IST0106 IST0106
"#,
        ));
        expect_as_marked(&entry(
            r#"
  hosts: [a.b]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
  workloadSelector:                     #! IST0133 IST0106
    labels: {a: "*"}                    #! IST0106
  endpoints:
  - address: unix:///socket             #! IST0106
"#,
        ));
    }

    #[test]
    fn an_entry_is_lowered_field_by_field() {
        let source = lowered(
            "
  hosts: [a.b, c.d]
  addresses: [10.0.0.1, 10.1.0.0/16]
  ports: [{number: 80, name: http, protocol: http, targetPort: 8080}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
  - {address: 10.0.0.2, ports: {http: 81}, labels: {v: '1'}, locality: r/z, serviceAccount: sa}
  - {address: 'unix://@abstract', weight: 5}
  subjectAltNames: [spiffe://x]
  exportTo: [.]
",
        );
        assert_eq!(source.keys.len(), 2);
        assert_eq!(source.addresses.len(), 2);
        let port = &source.ports[0].port;
        assert_eq!((port.number, port.target, port.protocol), (80, 8080, Protocol::Http));
        assert!(!source.external && !source.kubernetes);
        assert_eq!(source.resolution, Resolution::Static);
        let [ip, socket] = source.listed.as_slice() else {
            panic!("{source:?}")
        };
        assert!(ip.mutual_tls && !socket.mutual_tls);
        assert_eq!((ip.weight, socket.weight), (1, 5));
        assert_eq!(&*ip.locality.zone, "z");
        assert_eq!(socket.address, Address::Unix("@abstract".into()));
        assert_eq!(source.subject_alt_names, ["spiffe://x"]);
    }

    #[test]
    fn several_hosts_need_a_protocol_with_a_host_name() {
        expect_as_marked(&entry(
            r#"
  hosts: [a.b, c.d]
  addresses: [10.0.0.1]
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 81, name: tcp, protocol: TCP} #! IST0106
  resolution: DNS
"#,
        ));
    }
}
