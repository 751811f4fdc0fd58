//! Objects become parts of the mesh, one file per kind.
//!
//! Lowering looks at one object alone. It applies the rules of Istio's validation and reports every
//! breach, not only the first; what it yields is valid by construction. What needs other objects
//! (does this host exist?) is checked by [`super::directory`].

pub mod destination_rule;
pub mod endpoint_slice;
pub mod endpoints;
pub mod mesh_config;
pub mod peer_authentication;
mod regex;
mod report;
pub mod service;
pub mod service_entry;
pub mod sidecar;
mod value;
pub mod virtual_service;
pub mod workload_entry;
mod workload_group;

use std::sync::Arc;

pub use report::{Finding, Lowered, Related};

use super::config::MeshConfig;
use super::destination_rule::DestinationRule;
use super::peer_authentication::PeerAuthentication;
use super::sidecar::Sidecar;
use super::virtual_service::VirtualService;
use super::workload::{Workload, WorkloadGroup};
use crate::api::{FieldPath, Object, Spec};

/// What lowering may know besides the object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// The mesh's settings: defaults that objects leave out.
    pub config: Arc<MeshConfig>,
}

/// An object's meaning.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Valid, and without a meaning for sidecars.
    Inert,
    /// The source of a service.
    Service(Arc<service::ServiceSource>),
    /// Endpoints of a Kubernetes Service.
    Endpoints(Arc<endpoint_slice::EndpointSource>),
    /// A workload.
    Workload(Arc<Workload>),
    /// What workloads that register themselves have in common.
    WorkloadGroup(Arc<WorkloadGroup>),
    /// A Sidecar.
    Sidecar(Arc<Sidecar>),
    /// A VirtualService.
    VirtualService(Arc<VirtualService>),
    /// A DestinationRule.
    DestinationRule(Arc<DestinationRule>),
    /// A PeerAuthentication.
    PeerAuthentication(Arc<PeerAuthentication>),
}

impl Form {
    /// The source of a service.
    pub fn service(&self) -> Option<&Arc<service::ServiceSource>> {
        if let Form::Service(source) = self {
            Some(source)
        } else {
            None
        }
    }

    /// Endpoints of a Service.
    pub fn endpoints(&self) -> Option<&Arc<endpoint_slice::EndpointSource>> {
        if let Form::Endpoints(source) = self {
            Some(source)
        } else {
            None
        }
    }

    /// A workload.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        if let Form::Workload(workload) = self {
            Some(workload)
        } else {
            None
        }
    }

    /// What workloads that register themselves have in common.
    pub fn workload_group(&self) -> Option<&Arc<WorkloadGroup>> {
        if let Form::WorkloadGroup(group) = self {
            Some(group)
        } else {
            None
        }
    }

    /// A Sidecar.
    pub fn sidecar(&self) -> Option<&Arc<Sidecar>> {
        if let Form::Sidecar(sidecar) = self {
            Some(sidecar)
        } else {
            None
        }
    }

    /// A VirtualService.
    pub fn virtual_service(&self) -> Option<&Arc<VirtualService>> {
        if let Form::VirtualService(rules) = self {
            Some(rules)
        } else {
            None
        }
    }

    /// A DestinationRule.
    pub fn destination_rule(&self) -> Option<&Arc<DestinationRule>> {
        if let Form::DestinationRule(rule) = self {
            Some(rule)
        } else {
            None
        }
    }

    /// A PeerAuthentication.
    pub fn peer_authentication(&self) -> Option<&Arc<PeerAuthentication>> {
        if let Form::PeerAuthentication(policy) = self {
            Some(policy)
        } else {
            None
        }
    }
}

/// Lowers an object of any kind. A ConfigMap is inert here: the one with the mesh configuration is
/// read before everything else, by [`mesh_config::lower`], and does not come here.
pub fn lower(object: &Object, context: &Context) -> Lowered<Form> {
    match &object.spec {
        Spec::ConfigMap(_) => config_map(object, context),
        Spec::Service(spec) => service::lower(object, spec, context).map(Form::Service),
        Spec::EndpointSlice(spec) => endpoint_slice::lower(object, spec, context).map(Form::Endpoints),
        Spec::Endpoints(spec) => endpoints::lower(object, spec, context).map(Form::Endpoints),
        Spec::ServiceEntry(spec) => service_entry::lower(object, spec, context).map(Form::Service),
        Spec::WorkloadEntry(spec) => workload_entry::lower(object, spec, context).map(Form::Workload),
        Spec::WorkloadGroup(spec) => workload_group::lower(object, spec, context).map(Form::WorkloadGroup),
        Spec::Sidecar(spec) => sidecar::lower(object, spec, context).map(Form::Sidecar),
        Spec::VirtualService(spec) => virtual_service::lower(object, spec, context),
        Spec::DestinationRule(spec) => destination_rule::lower(object, spec, context).map(Form::DestinationRule),
        Spec::PeerAuthentication(spec) => {
            peer_authentication::lower(object, spec, context).map(Form::PeerAuthentication)
        }
    }
}

/// A ConfigMap with the name of the mesh configuration's, in another namespace.
fn config_map(object: &Object, context: &Context) -> Lowered<Form> {
    let mut report = report::Report::new(&object.id, context);
    let at = FieldPath::root().field("metadata").field("namespace");
    let message = format!(
        "a ConfigMap of the namespace `{}` is not the mesh configuration: it has no effect",
        object.id.namespace
    );
    report
        .warning(&at, message)
        .help("the ConfigMap `istio` of the root namespace, `istio-system`, is");
    report.finish(Form::Inert)
}

/// The apiVersion that Istio stores networking objects under, whichever alias of it a document names.
const API_VERSION: &str = "networking.istio.io/v1";
