//! Lowers Kubernetes Endpoints, the predecessor of EndpointSlice.

use std::sync::Arc;

use super::endpoint_slice::{EndpointAddress, EndpointGroup, EndpointSource};
use super::report::Report;
use super::{Context, Lowered};
use crate::api::endpoints as api;
use crate::api::{FieldPath, Object};

/// Lowers an Endpoints object.
pub(super) fn lower(object: &Object, spec: &api::Endpoints, context: &Context) -> Lowered<Arc<EndpointSource>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("subsets");
    let mut groups = Vec::with_capacity(spec.subsets.len());
    for (index, subset) in spec.subsets.iter().enumerate() {
        let at = at.index(index);
        let mut endpoints = Vec::new();
        addresses(
            &mut report,
            &at.field("addresses"),
            &subset.addresses,
            true,
            &mut endpoints,
        );
        addresses(
            &mut report,
            &at.field("notReadyAddresses"),
            &subset.not_ready_addresses,
            false,
            &mut endpoints,
        );
        groups.push(EndpointGroup {
            endpoints,
            ports: ports(&mut report, &at.field("ports"), &subset.ports),
        });
    }
    report
        .finish(EndpointSource {
            id: object.id.clone(),
            service: object.id.name.clone(),
            groups,
        })
        .map(Arc::new)
}

fn addresses(
    report: &mut Report<'_>,
    at: &FieldPath,
    entries: &[api::EndpointAddress],
    ready: bool,
    found: &mut Vec<EndpointAddress>,
) {
    for (index, entry) in entries.iter().enumerate() {
        let ip = report.ip(&at.index(index).field("ip"), &entry.ip);
        found.extend(ip.map(|ip| EndpointAddress {
            ip,
            ready,
            zone: Arc::default(),
            node: entry.node_name.as_str().into(),
        }));
    }
}

fn ports(report: &mut Report<'_>, at: &FieldPath, ports: &[api::EndpointPort]) -> Vec<(Arc<str>, u16)> {
    let mut found = Vec::with_capacity(ports.len());
    for (index, entry) in ports.iter().enumerate() {
        let port = report.port(&at.index(index).field("port"), entry.port);
        found.push((Arc::from(entry.name.as_str()), port));
    }
    found
}
