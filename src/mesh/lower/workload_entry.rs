//! Lowers WorkloadEntries, and the endpoints of ServiceEntries, which have the same form.

use std::net::IpAddr;
use std::sync::Arc;

use super::report::Report;
use super::value::{is_fqdn, parse_locality, shared};
use super::{Context, Lowered};
use crate::api::workload_entry::WorkloadEntry as Spec;
use crate::api::{FieldPath, Object};
use crate::diag::Code;
use crate::mesh::Labels;
use crate::mesh::service::Address;
use crate::mesh::workload::{ADDRESSES, READY, Workload};
use crate::name::{ServiceAccount, is_dns_label};

/// Label that states whether a workload accepts Istio mutual TLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// Lowers a WorkloadEntry.
pub(super) fn lower(object: &Object, spec: &Spec, context: &Context) -> Lowered<Arc<Workload>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let mut labels = report.labels(&at.field("labels"), &spec.labels);
    labels.extend(shared(&object.labels));
    let ready = ready(&mut report, object);
    let further = further(&mut report, object);
    let workload = workload(&mut report, &at, spec, labels, Names::Allowed);
    let workload = workload.map(|workload| Workload {
        ready,
        further,
        ..workload
    });
    report.finish_some(workload).map(Arc::new)
}

/// Whether an address may be a host name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// It may.
    Allowed,
    /// It must be an IP address or a socket.
    Refused,
}

/// Lowers the spec of a WorkloadEntry, or an endpoint of a ServiceEntry.
pub(super) fn workload(
    report: &mut Report<'_>,
    at: &FieldPath,
    spec: &Spec,
    labels: Labels,
    names: Names,
) -> Option<Workload> {
    let address = address(report, at, spec, names);
    let ports = ports(report, &at.field("ports"), spec, address.as_ref());
    let service_account = (!spec.service_account.is_empty())
        .then(|| {
            report.name(
                &at.field("serviceAccount"),
                spec.service_account.parse::<ServiceAccount>(),
            )
        })
        .flatten();
    if spec.locality.split('/').count() > 3 {
        report.warning(
            &at.field("locality"),
            "a locality must have three parts, `region/zone/subzone`",
        );
    }
    let mutual_tls = match labels.get(TLS_MODE) {
        Some(mode) => &**mode == "istio",
        None => service_account.is_some(),
    };
    Some(Workload {
        id: report.id.clone(),
        address: address?,
        further: Arc::default(),
        ports,
        mutual_tls,
        labels: Arc::new(labels),
        service_account,
        locality: parse_locality(&spec.locality),
        weight: spec.weight.max(1),
        ready: true,
    })
}

fn ready(report: &mut Report<'_>, object: &Object) -> bool {
    let said = object.annotations.get(READY).map(String::as_str);
    if !matches!(said, None | Some("true" | "false")) {
        let at = FieldPath::root().field("metadata").field("annotations").key(READY);
        report.error(&at, "expected `true` or `false`");
    }
    said != Some("false")
}

fn further(report: &mut Report<'_>, object: &Object) -> Arc<[IpAddr]> {
    let said = object.annotations.get(ADDRESSES).map_or("", String::as_str);
    let items = said.split(',').map(str::trim).filter(|item| !item.is_empty());
    match items.map(str::parse).collect::<Result<Vec<IpAddr>, _>>() {
        Ok(addresses) => addresses.into(),
        Err(_) => {
            let at = FieldPath::root().field("metadata").field("annotations").key(ADDRESSES);
            report.error(&at, "expected a comma-separated list of IP addresses");
            Arc::default()
        }
    }
}

fn address(report: &mut Report<'_>, at: &FieldPath, spec: &Spec, names: Names) -> Option<Address> {
    let at = at.field("address");
    let text = spec.address.as_str();
    if text.is_empty() {
        if spec.network.is_empty() {
            report.error(&at, "a workload must have an `address`");
        } else {
            report
                .add(
                    Code::UnsupportedField,
                    &at,
                    "reaching a workload through the gateway of its `network` is not supported yet",
                )
                .help("set the workload's `address`");
        }
        return None;
    }
    if let Some(path) = text.strip_prefix("unix://") {
        return Some(Address::Unix(report.unix_path(&at, path)));
    }
    if let Ok(ip) = text.parse() {
        return Some(Address::Ip(ip));
    }
    if names == Names::Refused {
        report
            .error(&at, format!("`{text}` is not an IP address"))
            .help("use `resolution: DNS` to resolve names");
        return None;
    }
    if !is_fqdn(text) {
        report.error(&at, format!("`{text}` is neither an IP address nor a domain name"));
    }
    Some(Address::Name(text.into()))
}

fn ports(report: &mut Report<'_>, at: &FieldPath, spec: &Spec, address: Option<&Address>) -> Vec<(Arc<str>, u16)> {
    if matches!(address, Some(Address::Unix(_))) && !spec.ports.is_empty() {
        report.error(at, "a Unix domain socket has no ports");
    }
    let mut found = Vec::with_capacity(spec.ports.len());
    for (name, number) in &spec.ports {
        let at = at.key(name.as_str());
        if !is_dns_label(name) {
            report.error(&at, format!("`{name}` is not a valid port name"));
        }
        found.push((Arc::from(name.as_str()), report.port(&at, *number)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::lower::Form;
    use crate::mesh::testing::{expect_as_marked, objects};

    #[test]
    fn addresses_and_ports() {
        expect_as_marked(
            r#"
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a}
spec: {address: ""}                     #! IST0106
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: b}
spec:
  address: a_b                          #! IST0106
  ports:
    "": 80                              #! IST0106
    http: 0                             #! IST0106
  labels: {"a b": c}                    #! IST0106
  locality: a/b/c/d                     #! IST0133
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: c}
spec:
  address: unix:///a/
  ports: {http: 80}                     #! IST0106
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: d}
spec: {network: a}                      #! TS0005
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: e
  annotations: {topsail.io/ready: soon} #! IST0106
spec: {address: 127.0.0.1}
"#
            .replace(
                "address: unix:///a/\n",
                "address: unix:///a/                   #! IST0106\n",
            )
            .as_str(),
        );
    }

    #[test]
    fn metadata_labels_override_spec_labels() {
        let text = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, labels: {app: outer, security.istio.io/tlsMode: disabled}}
spec: {address: 127.0.0.1, labels: {app: inner, version: v1}, serviceAccount: sa}
";
        let object = objects("a.yaml", text).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        let Some(Form::Workload(workload)) = lowered.value else {
            panic!("{:?}", lowered.findings)
        };
        assert_eq!(workload.labels.get("app").map(|value| &**value), Some("outer"));
        assert_eq!(workload.labels.get("version").map(|value| &**value), Some("v1"));
        assert!(!workload.mutual_tls, "the label says so");
    }
}
