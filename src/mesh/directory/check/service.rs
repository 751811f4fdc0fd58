//! Checks a Service or ServiceEntry: conflicting protocols for a host and port, and workloads that
//! cannot be endpoints.

use crate::api::FieldPath;
use crate::diag::Code;
use crate::mesh::directory::Directory;
use crate::mesh::directory::entry::InForce;
use crate::mesh::lower::Finding;
use crate::mesh::lower::service::{ServiceSource, SourcePort};
use crate::mesh::service::{Address, Resolution, ServiceKey};
use crate::name::Kind;

/// Checks a service definition.
pub(super) fn check(directory: &Directory, written: &InForce) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(source) = written.form.service() else {
        return found;
    };
    if source.id.kind == Kind::ServiceEntry {
        for (index, port) in source.ports.iter().enumerate() {
            found.extend(conflict(directory, source, index, port));
        }
    }
    found.extend(unreachable_workload(directory, source));
    found.extend(unknown_targets(directory, source));
    found
}

/// Ports whose named `targetPort` no selected workload has, so they have no endpoints.
fn unknown_targets(directory: &Directory, source: &ServiceSource) -> Vec<Finding> {
    let Some(selector) = &source.selector else {
        return Vec::new();
    };
    let selected = || directory.selected(&source.id.namespace, selector);
    let Some(first) = selected().next() else {
        return Vec::new();
    };
    let ports = FieldPath::root().field("spec").field("ports");
    let mut found = Vec::new();
    for (index, port) in source.ports.iter().enumerate() {
        let Some(target) = &port.target_name else { continue };
        if selected().any(|workload| workload.ports.iter().any(|(name, _)| name == target)) {
            continue;
        }
        let message = format!("none of the selected workloads has a port named `{target}`: this port has no endpoints");
        let at = ports.index(index).field("targetPort");
        let mut finding = Finding::new(Code::SchemaWarning, &at, message);
        finding
            .related(&first.id, FieldPath::root().field("spec").field("ports"), "one of them")
            .help(format!(
                "use a number, or set `ports: {{{target}: …}}` in the WorkloadEntries"
            ));
        found.push(finding);
    }
    found
}

/// Another ServiceEntry that declares a different protocol for the same host and port.
fn conflict(directory: &Directory, source: &ServiceSource, index: usize, port: &SourcePort) -> Option<Finding> {
    let (other, theirs) = rivals(directory, source).into_iter().find_map(|other| {
        let position = other.ports.iter().position(|p| p.port.number == port.port.number)?;
        (other.ports[position].port.protocol != port.port.protocol).then_some((other, position))
    })?;
    let ports = FieldPath::root().field("spec").field("ports");
    let message = format!(
        "{} has the same host but defines another protocol for port {}",
        other.id, port.port.number
    );
    let mut finding = Finding::new(Code::ConflictingServiceEntryProtocol, &ports.index(index), message);
    finding.related(&other.id, ports.index(theirs), "the other one").help(
        "within a namespace, the first by path, then by position, takes precedence; use the same protocol in both",
    );
    Some(finding)
}

/// ServiceEntries that share a host with this one, if some proxy sees both.
fn rivals<'d>(directory: &'d Directory, source: &ServiceSource) -> Vec<&'d ServiceSource> {
    let mut found: Vec<&ServiceSource> = Vec::new();
    for host in source.keys.iter().map(|key| &key.host) {
        for namespace in directory.index.namespaces.get(host) {
            let key = ServiceKey {
                host: host.clone(),
                namespace: namespace.clone(),
            };
            let others = directory.index.sources.get(&key).filter(|other| other.id != source.id);
            let others = others.filter(|other| other.id.kind == Kind::ServiceEntry);
            found.extend(others.filter_map(|other| directory.form(&other.id)?.service().map(|form| &**form)));
        }
    }
    let own = &source.id.namespace;
    found.retain(|other| source.export_to.shares(own, &other.export_to, &other.id.namespace));
    found
}

/// A selected workload with a host name as its address, where an IP address is needed.
fn unreachable_workload(directory: &Directory, source: &ServiceSource) -> Option<Finding> {
    let selector = source
        .selector
        .as_ref()
        .filter(|_| source.resolution == Resolution::Static)?;
    let mut selected = directory.selected(&source.id.namespace, selector);
    let named = selected.find(|workload| matches!(workload.address, Address::Name(_)))?;
    let field = if source.kubernetes {
        "selector"
    } else {
        "workloadSelector"
    };
    let at = FieldPath::root().field("spec").field(field);
    let message = format!(
        "{} is selected but has no IP address, so it is not an endpoint",
        named.id
    );
    let mut finding = Finding::new(Code::SchemaWarning, &at, message);
    let address = FieldPath::root().field("spec").field("address");
    finding
        .related(&named.id, address, "a host name")
        .help("set an IP address in the WorkloadEntry, or use a ServiceEntry with `resolution: DNS`");
    Some(finding)
}
