//! Checks that a workload or namespace has at most one Sidecar, and that its egress proxy is
//! reachable.

use crate::api::FieldPath;
use crate::diag::Code;
use crate::mesh::Labels;
use crate::mesh::directory::Directory;
use crate::mesh::directory::entry::InForce;
use crate::mesh::directory::reference::targets_of;
use crate::mesh::lower::Finding;
use crate::mesh::sidecar::Sidecar;
use crate::name::{Kind, ObjectId};

/// Checks a Sidecar.
pub(super) fn check(directory: &Directory, written: &InForce) -> Vec<Finding> {
    let Some(sidecar) = written.form.sidecar() else {
        return Vec::new();
    };
    let found = match &sidecar.selector {
        Some(selector) => same_workload(directory, sidecar, selector),
        None => same_namespace(directory, sidecar),
    };
    found.into_iter().chain(egress_proxy(directory, sidecar)).collect()
}

/// An egress proxy that does not exist, or is not included by any egress listener.
fn egress_proxy(directory: &Directory, sidecar: &Sidecar) -> Option<Finding> {
    let proxy = sidecar.egress_proxy()?;
    let (host, at) = (
        &proxy.host,
        FieldPath::root()
            .field("spec")
            .field("outboundTrafficPolicy")
            .field("egressProxy"),
    );
    if let Some(missing) = targets_of(proxy).find(|target| !directory.is_live(target)) {
        let (at, what) = missing.missing(&at);
        let mut finding = Finding::new(Code::ReferencedResourceNotFound, &at, what);
        finding.help("until it exists, traffic to unknown services is blocked");
        return Some(finding);
    }
    let namespace = &sidecar.id.namespace;
    let mut services = directory.mesh.services_named(host);
    let imported = services.any(|(_, service)| {
        let mut listeners = sidecar.egress.iter();
        sidecar.egress.is_empty()
            || listeners.any(|egress| {
                // In the root namespace, `.` is the namespace of each proxy.
                egress.admits(&service.key, namespace) || egress.admits(&service.key, &service.key.namespace)
            })
    });
    if imported {
        return None;
    }
    let message = format!("no egress listener includes `{host}`: traffic to unknown services is blocked");
    let mut finding = Finding::new(Code::SchemaWarning, &at.field("host"), message);
    finding.help("add the service to the `hosts` of an egress listener");
    Some(finding)
}

/// A Sidecar without selector in the namespace that takes precedence.
fn same_namespace(directory: &Directory, sidecar: &Sidecar) -> Option<Finding> {
    let mut sidecars = directory.mesh.sidecars_of(&sidecar.id.namespace);
    let first = sidecars.find(|other| other.selector.is_none())?;
    if first.id == sidecar.id {
        return None;
    }
    let message = format!(
        "{} already applies to the whole namespace and takes precedence",
        first.id
    );
    let at = FieldPath::root();
    let mut finding = Finding::new(Code::MultipleSidecarsWithoutWorkloadSelectors, &at, message);
    finding
        .related(&first.id, FieldPath::root(), "this one is in effect")
        .help("remove one of them, or add a `workloadSelector` to this one");
    Some(finding)
}

/// A Sidecar that selects one of the same workloads and takes precedence.
fn same_workload(directory: &Directory, sidecar: &Sidecar, selector: &Labels) -> Option<Finding> {
    let namespace = &sidecar.id.namespace;
    let own = &directory.entry(&sidecar.id)?.rank;
    let older = |id: &&ObjectId| {
        let rank = directory.entry(id).map(|entry| &entry.rank);
        id.kind == Kind::Sidecar && **id != sidecar.id && rank.is_some_and(|rank| rank < own)
    };
    let (workload, first) = directory.selected(namespace, selector).find_map(|workload| {
        let selecting = directory.index.selectors.selecting(namespace, &workload.labels);
        let first = selecting
            .into_iter()
            .filter(older)
            .min_by_key(|id| directory.entry(id).map(|entry| &entry.rank));
        Some((workload, first?))
    })?;
    let message = format!("{first} also selects {} and takes precedence", workload.id);
    let at = FieldPath::root().field("spec").field("workloadSelector");
    let mut finding = Finding::new(Code::ConflictingSidecarWorkloadSelectors, &at, message);
    finding
        .related(
            first,
            FieldPath::root().field("spec").field("workloadSelector"),
            "this one is in effect",
        )
        .help("make sure each workload is selected by only one Sidecar");
    Some(finding)
}
