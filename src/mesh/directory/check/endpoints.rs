//! Checks that an EndpointSlice or Endpoints object has a Service, with ports of the same names.

use crate::api::{FieldPath, Spec};
use crate::diag::{Code, Severity};
use crate::mesh::directory::Directory;
use crate::mesh::directory::entry::InForce;
use crate::mesh::lower::{Finding, Form};
use crate::name::{Kind, ObjectId};

/// Checks an EndpointSlice or Endpoints.
pub(super) fn check(directory: &Directory, written: &InForce) -> Vec<Finding> {
    let Some(source) = written.form.endpoints() else {
        return Vec::new();
    };
    let service = ObjectId {
        kind: Kind::Service,
        namespace: source.id.namespace.clone(),
        name: source.service.clone(),
    };
    let Some(service) = directory.form(&service).and_then(Form::service) else {
        let message = format!("{service} does not exist: these endpoints have no effect");
        let mut finding = Finding::new(Code::ReferencedResourceNotFound, &FieldPath::root(), message);
        finding
            .severity(Severity::Warning)
            .help("add the Service; a ServiceEntry lists its own endpoints");
        return vec![finding];
    };
    let known = |name: &str| service.ports.iter().any(|port| *port.port.name == *name);
    let mut found = Vec::new();
    for (at, name) in ports(&written.object.spec).into_iter().filter(|(_, name)| !known(name)) {
        let message = match name {
            "" => format!("this port has no name, but all ports of {} do", service.id),
            name => format!("{} has no port named `{name}`", service.id),
        };
        let mut finding = Finding::new(Code::ReferencedResourceNotFound, &at, message);
        finding
            .severity(Severity::Warning)
            .help("endpoint ports are matched to Service ports by name; this one is not used");
        found.push(finding);
    }
    found
}

/// The ports of the object with their names, which may be empty.
fn ports(spec: &Spec) -> Vec<(FieldPath, &str)> {
    let root = FieldPath::root();
    match spec {
        Spec::EndpointSlice(slice) => {
            let ports = slice.ports.iter().enumerate();
            let numbered = ports.filter(|(_, port)| port.port.is_some());
            numbered
                .map(|(index, port)| (root.field("ports").index(index), &*port.name))
                .collect()
        }
        Spec::Endpoints(endpoints) => {
            let subsets = endpoints.subsets.iter().enumerate();
            subsets
                .flat_map(|(subset, entry)| {
                    let at = root.field("subsets").index(subset).field("ports");
                    let ports = entry.ports.iter().enumerate();
                    ports.map(move |(index, port)| (at.index(index), &*port.name))
                })
                .collect()
        }
        Spec::ConfigMap(_)
        | Spec::Service(_)
        | Spec::ServiceEntry(_)
        | Spec::WorkloadEntry(_)
        | Spec::WorkloadGroup(_)
        | Spec::Sidecar(_)
        | Spec::VirtualService(_)
        | Spec::DestinationRule(_)
        | Spec::PeerAuthentication(_) => Vec::new(),
    }
}
