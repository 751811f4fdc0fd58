//! Lowers EndpointSlices to the form that they share with Endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use super::report::Report;
use super::{Context, Lowered};
use crate::api::endpoint_slice as api;
use crate::api::{FieldPath, Object};
use crate::name::ObjectId;

/// Label with the Service of an EndpointSlice.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Endpoints of the Kubernetes Service `service` in the object's namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSource {
    /// The object.
    pub id: ObjectId,
    /// The Service's name.
    pub service: Arc<str>,
    /// Endpoints with the same ports.
    pub groups: Vec<EndpointGroup>,
}

/// Endpoints with the same ports.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointGroup {
    /// The endpoints.
    pub endpoints: Vec<EndpointAddress>,
    /// Port numbers by the name of the Service port.
    pub ports: Vec<(Arc<str>, u16)>,
}

/// An endpoint address.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointAddress {
    /// The address.
    pub ip: IpAddr,
    /// Whether it receives traffic.
    pub ready: bool,
    /// Its zone; may be empty.
    pub zone: Arc<str>,
    /// Its node; may be empty.
    pub node: Arc<str>,
}

/// Lowers an EndpointSlice.
pub(super) fn lower(object: &Object, spec: &api::EndpointSlice, context: &Context) -> Lowered<Arc<EndpointSource>> {
    let mut report = Report::new(&object.id, context);
    let root = FieldPath::root();
    let service = object.labels.get(SERVICE_NAME);
    if service.is_none() {
        report
            .error(
                &root.field("metadata"),
                "an EndpointSlice must name its Service in a label",
            )
            .help(format!("add the label `{SERVICE_NAME}`"));
    }
    if spec.address_type == Some(api::AddressType::Fqdn) {
        report
            .warning(
                &root.field("addressType"),
                "an EndpointSlice of type FQDN has no effect, as in Istio",
            )
            .help("use a ServiceEntry with `resolution: DNS` to resolve names");
    }
    let group = EndpointGroup {
        endpoints: endpoints(&mut report, &root.field("endpoints"), spec),
        ports: ports(&mut report, &root.field("ports"), &spec.ports),
    };
    report
        .finish(EndpointSource {
            id: object.id.clone(),
            service: service.map(|name| Arc::from(name.as_str())).unwrap_or_default(),
            groups: vec![group],
        })
        .map(Arc::new)
}

fn endpoints(report: &mut Report<'_>, at: &FieldPath, spec: &api::EndpointSlice) -> Vec<EndpointAddress> {
    let mut found = Vec::new();
    if spec.address_type == Some(api::AddressType::Fqdn) {
        return found;
    }
    for (index, entry) in spec.endpoints.iter().enumerate() {
        let at = at.index(index).field("addresses");
        let ready = entry.conditions.ready.unwrap_or(true);
        if entry.addresses.is_empty() {
            report.error(&at, "an endpoint must have at least one address");
        }
        for (index, text) in entry.addresses.iter().enumerate() {
            let ip = report.ip(&at.index(index), text);
            // A terminating endpoint gets no new requests.
            let stopping = !ready && entry.conditions.terminating == Some(true);
            found.extend(ip.filter(|_| !stopping).map(|ip| EndpointAddress {
                ip,
                ready,
                zone: entry.zone.as_str().into(),
                node: entry.node_name.as_str().into(),
            }));
        }
    }
    found
}

fn ports(report: &mut Report<'_>, at: &FieldPath, ports: &[api::EndpointPort]) -> Vec<(Arc<str>, u16)> {
    let mut found = Vec::with_capacity(ports.len());
    for (index, entry) in ports.iter().enumerate() {
        if let Some(number) = entry.port {
            let port = report.port(&at.index(index).field("port"), number);
            found.push((Arc::from(entry.name.as_str()), port));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::lower::Form;
    use crate::mesh::testing::{expect_as_marked, objects};

    #[test]
    fn services_addresses_and_ports() {
        expect_as_marked(
            r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a}                     #! IST0106
addressType: IPv4
endpoints:
- addresses: [a]                        #! IST0106
- addresses: []                         #! IST0106
ports: [{name: http, port: 0}]          #! IST0106
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: b, labels: {kubernetes.io/service-name: b}} #! IST0101
addressType: FQDN                       #! IST0133
endpoints: [{addresses: [a.b]}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: c}
subsets:
- addresses: [{ip: a}]                  #! IST0106
  ports: [{port: 70000}]                #! IST0106
"#,
        );
    }

    #[test]
    fn terminating_and_unready_endpoints_are_distinguished() {
        let text = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], zone: z}
- {addresses: [10.0.0.2], conditions: {ready: false}}
- {addresses: [10.0.0.3], conditions: {ready: false, terminating: true}}
- {addresses: [10.0.0.4], conditions: {ready: true, terminating: true}}
ports: [{name: http, port: 80}]
";
        let object = objects("a.yaml", text).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        let Some(Form::Endpoints(source)) = lowered.value else {
            panic!("{:?}", lowered.findings)
        };
        let endpoints = &source.groups[0].endpoints;
        let brief: Vec<(String, bool)> = endpoints.iter().map(|e| (e.ip.to_string(), e.ready)).collect();
        let expected = [("10.0.0.1", true), ("10.0.0.2", false), ("10.0.0.4", true)];
        assert_eq!(brief, expected.map(|(ip, ready)| (ip.to_owned(), ready)));
    }
}
