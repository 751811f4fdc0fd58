//! Lowering: converts objects to their mesh form, one module per kind.
//!
//! It considers one object at a time, applies Istio's validation rules and reports every violation.
//! Its results are valid by construction. Checks across objects, such as whether a host exists, are
//! made by [`super::directory`].

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

/// Inputs besides the object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// The mesh configuration, for defaults.
    pub config: Arc<MeshConfig>,
}

/// The lowered form of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Valid, but without effect on sidecars.
    Inert,
    /// Definition of one or more services.
    Service(Arc<service::ServiceSource>),
    /// Endpoints of a Kubernetes Service.
    Endpoints(Arc<endpoint_slice::EndpointSource>),
    /// A workload.
    Workload(Arc<Workload>),
    /// Template of auto-registered workloads.
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
    /// The service definition.
    pub fn service(&self) -> Option<&Arc<service::ServiceSource>> {
        if let Form::Service(source) = self {
            Some(source)
        } else {
            None
        }
    }

    /// The endpoints.
    pub fn endpoints(&self) -> Option<&Arc<endpoint_slice::EndpointSource>> {
        if let Form::Endpoints(source) = self {
            Some(source)
        } else {
            None
        }
    }

    /// The workload.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        if let Form::Workload(workload) = self {
            Some(workload)
        } else {
            None
        }
    }

    /// The WorkloadGroup.
    pub fn workload_group(&self) -> Option<&Arc<WorkloadGroup>> {
        if let Form::WorkloadGroup(group) = self {
            Some(group)
        } else {
            None
        }
    }

    /// The Sidecar.
    pub fn sidecar(&self) -> Option<&Arc<Sidecar>> {
        if let Form::Sidecar(sidecar) = self {
            Some(sidecar)
        } else {
            None
        }
    }

    /// The VirtualService.
    pub fn virtual_service(&self) -> Option<&Arc<VirtualService>> {
        if let Form::VirtualService(rules) = self {
            Some(rules)
        } else {
            None
        }
    }

    /// The DestinationRule.
    pub fn destination_rule(&self) -> Option<&Arc<DestinationRule>> {
        if let Form::DestinationRule(rule) = self {
            Some(rule)
        } else {
            None
        }
    }

    /// The PeerAuthentication.
    pub fn peer_authentication(&self) -> Option<&Arc<PeerAuthentication>> {
        if let Form::PeerAuthentication(policy) = self {
            Some(policy)
        } else {
            None
        }
    }
}

/// Lowers an object. ConfigMaps are inert: the one with the mesh configuration is handled earlier,
/// by [`mesh_config::lower`].
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

/// A ConfigMap named like the mesh configuration's, in another namespace.
fn config_map(object: &Object, context: &Context) -> Lowered<Form> {
    let mut report = report::Report::new(&object.id, context);
    let at = FieldPath::root().field("metadata").field("namespace");
    let message = format!(
        "a ConfigMap in the namespace `{}` is not the mesh configuration and has no effect",
        object.id.namespace
    );
    report
        .warning(&at, message)
        .help("use the ConfigMap `istio` in the root namespace, `istio-system`");
    report.finish(Form::Inert)
}

/// The apiVersion under which Istio stores networking objects, whatever version the document uses.
const API_VERSION: &str = "networking.istio.io/v1";
