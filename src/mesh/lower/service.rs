//! Lowers Kubernetes Services to the form that they share with ServiceEntries.

mod protocol;

use std::sync::Arc;

use ipnet::IpNet;

use super::report::Report;
use super::value::{ExportToNone, shared};
use super::{Context, Lowered};
use crate::api::service as api;
use crate::api::value::IntOrString;
use crate::api::{FieldPath, Object};
use crate::diag::Code;
use crate::mesh::service::{Resolution, ServiceKey, ServicePort, TrafficDistribution};
use crate::mesh::workload::Workload;
use crate::mesh::{ExportTo, Labels};
use crate::name::{Hostname, ObjectId};

/// Annotation with the `exportTo` of a Kubernetes Service.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// Annotation that overrides `trafficDistribution`; applies to ServiceEntries too.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// The definition of a service, without endpoints. A ServiceEntry defines one service per host.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSource {
    /// The object.
    pub id: ObjectId,
    /// The services.
    pub keys: Vec<ServiceKey>,
    /// Virtual addresses.
    pub addresses: Vec<IpNet>,
    /// Ports, in the order written.
    pub ports: Vec<SourcePort>,
    /// How endpoints are discovered.
    pub resolution: Resolution,
    /// `location: MESH_EXTERNAL`.
    pub external: bool,
    /// A Kubernetes Service.
    pub kubernetes: bool,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `externalName`: the host it is an alias for.
    pub alias: Option<Hostname>,
    /// Visibility.
    pub export_to: ExportTo,
    /// `subjectAltNames`.
    pub subject_alt_names: Vec<String>,
    /// Locality preference.
    pub traffic_distribution: TrafficDistribution,
    /// Endpoints listed in the object.
    pub listed: Vec<Workload>,
    /// Selects WorkloadEntries of the namespace as endpoints; `None` selects none.
    pub selector: Option<Labels>,
    /// Kubernetes' `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
}

/// A port and its named target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePort {
    /// The port.
    pub port: ServicePort,
    /// A named `targetPort`: the workload port with that name.
    pub target_name: Option<Arc<str>>,
}

/// Lowers a Kubernetes Service.
pub(super) fn lower(object: &Object, spec: &api::Service, context: &Context) -> Lowered<Arc<ServiceSource>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let id = &object.id;
    let name = format!("{}.{}.svc.{}", id.name, id.namespace, context.config.domain);
    let host = report.host(&FieldPath::root().field("metadata").field("name"), &name);
    unsupported(&mut report, &at, spec);
    let headless = spec.cluster_ip == "None";
    let alias = alias(&mut report, &at, spec);
    let addresses = addresses(&mut report, &at, spec);
    let ports = ports(&mut report, &at.field("ports"), spec, addresses.is_empty() && !headless);
    let source = host.map(|host| ServiceSource {
        id: id.clone(),
        keys: vec![ServiceKey {
            host,
            namespace: id.namespace.clone(),
        }],
        addresses,
        ports,
        resolution: match (spec.service_type, headless) {
            (api::ServiceType::ExternalName, _) => Resolution::Alias,
            (_, true) => Resolution::Passthrough,
            (_, false) => Resolution::Static,
        },
        external: false,
        kubernetes: true,
        headless,
        alias,
        export_to: export_to(&mut report, object),
        subject_alt_names: Vec::new(),
        traffic_distribution: traffic_distribution(&mut report, object, &spec.traffic_distribution),
        listed: Vec::new(),
        selector: (!spec.selector.is_empty()).then(|| shared(&spec.selector)),
        publish_not_ready: spec.publish_not_ready_addresses,
    });
    report.finish_some(source).map(Arc::new)
}

fn unsupported(report: &mut Report<'_>, at: &FieldPath, spec: &api::Service) {
    if spec.internal_traffic_policy == "Local" {
        report.add(
            Code::UnsupportedField,
            &at.field("internalTrafficPolicy"),
            "keeping traffic on the client's node is not supported, because there are no nodes",
        );
    }
}

fn alias(report: &mut Report<'_>, at: &FieldPath, spec: &api::Service) -> Option<Hostname> {
    if spec.service_type != api::ServiceType::ExternalName {
        return None;
    }
    let at = at.field("externalName");
    if spec.external_name.is_empty() {
        report.error(&at, "a Service of type ExternalName must have an `externalName`");
        return None;
    }
    report.host(&at, &spec.external_name)
}

fn addresses(report: &mut Report<'_>, at: &FieldPath, spec: &api::Service) -> Vec<IpNet> {
    let listed = at.field("clusterIPs");
    let first = std::iter::once((at.field("clusterIP"), &spec.cluster_ip));
    let all = first.chain(
        spec.cluster_ips
            .iter()
            .enumerate()
            .map(|(index, text)| (listed.index(index), text)),
    );
    let mut found: Vec<IpNet> = Vec::new();
    for (at, text) in all.filter(|(_, text)| !matches!(text.as_str(), "" | "None")) {
        if text.eq_ignore_ascii_case("None") {
            report
                .error(&at, format!("`{text}` is not an IP address"))
                .help("use `clusterIP: None` for a headless Service");
            continue;
        }
        let address = report.ip(&at, text).map(IpNet::from);
        found.extend(address.filter(|new| !found.contains(new)));
    }
    found
}

fn ports(report: &mut Report<'_>, at: &FieldPath, spec: &api::Service, without_address: bool) -> Vec<SourcePort> {
    let needs_ports = spec.cluster_ip != "None" && spec.service_type != api::ServiceType::ExternalName;
    if spec.ports.is_empty() && needs_ports {
        report.error(at, "a Service must have at least one port");
    }
    let mut found: Vec<SourcePort> = Vec::with_capacity(spec.ports.len());
    for (index, entry) in spec.ports.iter().enumerate() {
        let at = at.index(index);
        if entry.name.is_empty() && spec.ports.len() > 1 {
            report
                .error(&at, "each port must have a name if a Service has several")
                .help("set `name`");
        }
        let port = port(report, &at, entry);
        if found
            .iter()
            .any(|other| other.port.number == port.port.number && other.port.protocol == port.port.protocol)
        {
            report.error(&at.field("port"), format!("duplicate port {}", port.port.number));
        }
        if !entry.name.is_empty() && found.iter().any(|other| other.port.name == port.port.name) {
            report.error(&at.field("name"), format!("two ports have the name `{}`", entry.name));
        }
        if without_address && port.port.protocol.is_tcp() && !port.port.protocol.is_tls() {
            report
                .add(
                    Code::ServiceEntryAddressesRequired,
                    &at,
                    format!(
                        "without a `clusterIP`, this TCP port matches all traffic to port {}",
                        entry.port
                    ),
                )
                .help("set the `clusterIP` that clients call");
        }
        found.push(port);
    }
    found
}

fn port(report: &mut Report<'_>, at: &FieldPath, entry: &api::ServicePort) -> SourcePort {
    let number = report.port(&at.field("port"), entry.port);
    let target_at = at.field("targetPort");
    let (target, target_name) = match &entry.target_port {
        None | Some(IntOrString::Int(0)) => (number, None),
        Some(IntOrString::Int(target)) => {
            let port = u32::try_from(*target).map(|target| report.port(&target_at, target));
            let port = port.unwrap_or_else(|_| {
                report.error(&target_at, format!("{target} is not a valid port: expected 1 to 65535"));
                0
            });
            (port, None)
        }
        Some(IntOrString::String(name)) if name.is_empty() => (number, None),
        Some(IntOrString::String(name)) => {
            if !name.bytes().any(|b| b.is_ascii_alphabetic()) {
                report
                    .error(
                        &target_at,
                        format!("the quoted value `{name}` is a port name, which must contain a letter"),
                    )
                    .help(format!("write `targetPort: {name}`, without quotes, for a number"));
            }
            (number, Some(Arc::from(name.as_str())))
        }
    };
    SourcePort {
        port: ServicePort {
            number,
            name: entry.name.as_str().into(),
            protocol: protocol::of_port(entry),
            target,
        },
        target_name,
    }
}

/// `trafficDistribution`, else the annotation, which is case-insensitive (Istio's
/// `GetTrafficDistribution`). `in_spec` is empty if the kind has no such field.
pub(super) fn traffic_distribution(report: &mut Report<'_>, object: &Object, in_spec: &str) -> TrafficDistribution {
    const VALUES: &str = "expected PreferSameZone, PreferSameNode or PreferClose";
    match in_spec {
        "PreferSameZone" | "PreferClose" => return TrafficDistribution::PreferSameZone,
        "PreferSameNode" => return TrafficDistribution::PreferSameNode,
        "" => {}
        other => {
            let at = FieldPath::root().field("spec").field("trafficDistribution");
            report.error(&at, format!("`{other}` is not a valid traffic distribution: {VALUES}"));
        }
    }
    let Some(text) = object.annotations.get(TRAFFIC_DISTRIBUTION) else {
        return TrafficDistribution::Any;
    };
    match text.to_ascii_lowercase().as_str() {
        "prefersamezone" | "preferclose" => TrafficDistribution::PreferSameZone,
        "prefersamenode" => TrafficDistribution::PreferSameNode,
        "" | "any" => TrafficDistribution::Any,
        _ => {
            let at = FieldPath::root()
                .field("metadata")
                .field("annotations")
                .key(TRAFFIC_DISTRIBUTION);
            report.warning(
                &at,
                format!("`{text}` is not a valid traffic distribution and has no effect: {VALUES}"),
            );
            TrafficDistribution::Any
        }
    }
}

/// The annotation's comma-separated list.
fn export_to(report: &mut Report<'_>, object: &Object) -> ExportTo {
    let default = &report.context.config.service_export_to;
    let Some(text) = object.annotations.get(EXPORT_TO) else {
        return default.in_namespace(report.namespace());
    };
    let entries: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect();
    let at = FieldPath::root().field("metadata").field("annotations").key(EXPORT_TO);
    report.export_to_at(&|_| at.clone(), &entries, default, ExportToNone::Allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::lower::Form;
    use crate::mesh::testing::{expect_as_marked, objects};

    fn service(spec: &str) -> String {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: a}}
spec:
{spec}"
        )
    }

    fn lowered(text: &str) -> Arc<ServiceSource> {
        let object = objects("a.yaml", text).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        match lowered.value {
            Some(Form::Service(source)) => source,
            other => panic!("{other:?} {:?}", lowered.findings),
        }
    }

    #[test]
    fn ports() {
        expect_as_marked(&service(
            r#"
  clusterIP: 10.0.0.1
  ports:
  - {port: 80}                          #! IST0106
  - {name: a, port: 0}                  #! IST0106
  - {name: a, port: 81}                 #! IST0106
  - {name: b, port: 81}                 #! IST0106
  - {name: c, port: 81, protocol: UDP}
  - {name: d, port: 82, targetPort: 70000} #! IST0106
  - {name: e, port: 83, targetPort: "8080"} #! IST0106
  - {name: f, port: 84, targetPort: -1} #! IST0106
"#,
        ));
        let without = service("  clusterIP: 10.0.0.1\n");
        expect_as_marked(&without.replace("spec:", "spec: #! IST0106"));
        expect_as_marked(&service("  clusterIP: None\n"));
    }

    #[test]
    fn addresses_types_and_what_is_not_supported() {
        expect_as_marked(&service(
            r#"
  clusterIP: a                          #! IST0106
  clusterIPs: [10.0.0.1, b]             #! IST0106
  internalTrafficPolicy: Local          #! TS0005
  trafficDistribution: Near             #! IST0106
  ports: [{port: 80}]
"#,
        ));
        let nameless = service("  type: ExternalName\n");
        expect_as_marked(&nameless.replace("spec:", "spec: #! IST0106"));
        expect_as_marked(&service(
            r#"
  ports:
  - {name: tcp, port: 80}               #! IST0134
  - {name: tls, port: 443}
"#,
        ));
    }

    #[test]
    fn a_service_is_lowered_field_by_field() {
        let source = lowered(
            r#"
apiVersion: v1
kind: Service
metadata:
  name: a
  namespace: b
  annotations: {networking.istio.io/exportTo: "., c"}
spec:
  clusterIP: 10.0.0.1
  selector: {app: a}
  ports:
  - {name: http, port: 80, targetPort: web}
  - {name: grpc-x, port: 81, targetPort: 8081}
  - {name: x, port: 82, appProtocol: https}
"#,
        );
        assert_eq!(source.keys[0].host.as_str(), "a.b.svc.cluster.local");
        let targets: Vec<_> = source
            .ports
            .iter()
            .map(|port| (port.port.target, port.target_name.as_deref()))
            .collect();
        assert_eq!(targets, [(80, Some("web")), (8081, None), (82, None)]);
        assert_eq!(source.addresses, ["10.0.0.1/32".parse().unwrap()]);
        let both = ["b", "c"].map(|name| name.parse().unwrap());
        assert_eq!(source.export_to, ExportTo::Namespaces(both.into()));
        assert!(source.kubernetes && !source.headless && source.selector.is_some());
    }

    #[test]
    fn the_field_takes_precedence_over_the_annotation() {
        let of = |annotation: &str, field: &str| {
            let text = service(&format!(
                "  trafficDistribution: {field}\n  clusterIP: 10.0.0.1\n  ports: [{{port: 80}}]\n"
            ));
            let annotated = format!("{{name: a, annotations: {{{TRAFFIC_DISTRIBUTION}: {annotation}}}}}");
            lowered(&text.replace("{name: a}", &annotated)).traffic_distribution
        };
        assert_eq!(of("Any", "PreferClose"), TrafficDistribution::PreferSameZone);
        assert_eq!(of("PreferClose", "PreferSameNode"), TrafficDistribution::PreferSameNode);
        assert_eq!(of("prefersamenode", "\"\""), TrafficDistribution::PreferSameNode);
        assert_eq!(of("PreferSameZone", "\"\""), TrafficDistribution::PreferSameZone);
        assert_eq!(of("Any", "\"\""), TrafficDistribution::Any);
        assert_eq!(of("Near", "\"\""), TrafficDistribution::Any);
    }

    #[test]
    fn headless_services_and_aliases() {
        let headless = lowered(&service("  clusterIP: None\n  ports: [{port: 80}]\n"));
        assert_eq!(
            (headless.resolution, headless.headless),
            (Resolution::Passthrough, true)
        );
        let alias = lowered(&service("  type: ExternalName\n  externalName: b.c\n"));
        assert_eq!(alias.resolution, Resolution::Alias);
        assert_eq!(alias.alias.as_ref().map(Hostname::as_str), Some("b.c"));
    }
}
