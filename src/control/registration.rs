//! Auto-registration: the WorkloadEntry derived from an admitted member of a WorkloadGroup.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;

use super::roster::Admission;
use crate::api::workload_entry::WorkloadEntry;
use crate::api::{self, Object, ReadOptions, Spec};
use crate::diag::SourceText;
use crate::mesh::Mesh;
use crate::mesh::service::Locality;
use crate::mesh::workload::{ADDRESSES, READY};
use crate::name::WorkloadName;
use crate::source::document::Document;

/// Istio's annotation with the WorkloadGroup of an auto-registered WorkloadEntry.
const GROUP: &str = "istio.io/autoRegistrationGroup";
/// Origin prefix of registered workloads; no file path starts with it.
const ORIGIN: &str = "registered://";

/// A registered workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    /// The workload.
    pub workload: WorkloadName,
    /// Its WorkloadGroup.
    pub group: WorkloadName,
    /// Whether it receives traffic.
    pub ready: bool,
    spec: WorkloadEntry,
    annotations: BTreeMap<String, String>,
}

impl Registration {
    /// The registration of a group member; `None` if the proxy is not one. It is built from the
    /// template of the WorkloadGroup, except that the locality in node metadata takes precedence,
    /// as in Istio. The service account is the one it was admitted with, which is the one in its
    /// certificate.
    pub(super) fn of_admission(admission: &Admission, mesh: &Mesh) -> Option<Self> {
        let grant = &admission.grant;
        let member = grant.member.as_ref()?;
        let group = mesh.workload_group(&member.group);
        let labels = group.map_or(&member.labels, |group| &group.labels);
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let ports = group.into_iter().flat_map(|group| &group.ports);
        let own = &admission.claim.locality;
        let locality = group
            .filter(|_| own.region.is_empty())
            .map_or(own, |group| &group.locality);
        Some(Self {
            workload: grant.workload.clone(),
            group: member.group.clone(),
            ready: false,
            spec: WorkloadEntry {
                address: member.address.to_string(),
                labels: labels.collect(),
                service_account: grant.identity.service_account.to_string(),
                locality: written(locality),
                ports: ports
                    .map(|(name, number)| (name.to_string(), (*number).into()))
                    .collect(),
                weight: group.map_or(1, |group| group.weight),
                network: String::new(),
            },
            annotations: {
                let mut annotations = group.map(|group| group.annotations.clone()).unwrap_or_default();
                let further: Vec<String> = member.further(mesh).iter().map(IpAddr::to_string).collect();
                match further.is_empty() {
                    true => annotations.remove(ADDRESSES),
                    false => annotations.insert(ADDRESSES.to_owned(), further.join(",")),
                };
                annotations
            },
        })
    }

    /// The inverse of [`Registration::object`]; `None` for any other object.
    pub(super) fn of_object(object: &Object) -> Option<Self> {
        let Spec::WorkloadEntry(spec) = &object.spec else {
            return None;
        };
        let group = object.annotations.get(GROUP).filter(|_| is_registered(object))?;
        Some(Self {
            workload: WorkloadName::of_object(&object.id),
            group: format!("{group}.{}", object.id.namespace).parse().ok()?,
            ready: !object.annotations.contains_key(READY),
            spec: WorkloadEntry::clone(spec),
            annotations: {
                let own = |key: &str| key == GROUP || key == READY;
                let all = object.annotations.iter();
                all.filter(|(key, _)| !own(key))
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            },
        })
    }

    /// A member of a group with defaults only.
    #[cfg(test)]
    pub(super) fn testing(group: &WorkloadName, address: std::net::IpAddr) -> Self {
        Self {
            workload: WorkloadName::member(group, address).unwrap(),
            group: group.clone(),
            ready: false,
            spec: WorkloadEntry {
                address: address.to_string(),
                labels: [("app".to_owned(), group.name.to_string())].into(),
                service_account: group.name.to_string(),
                weight: 1,
                ..WorkloadEntry::default()
            },
            annotations: BTreeMap::new(),
        }
    }

    /// Its address.
    pub(super) fn address(&self) -> &str {
        &self.spec.address
    }

    /// The WorkloadEntry object.
    pub(super) fn object(&self) -> Option<Arc<Object>> {
        let annotations = self
            .annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut annotations: BTreeMap<&str, &str> = annotations.collect();
        annotations.insert(GROUP, &self.group.name);
        if !self.ready {
            annotations.insert(READY, "false");
        }
        let WorkloadName { name, namespace } = &self.workload;
        let spec = &self.spec;
        let text = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
            "spec": {
                "address": spec.address,
                "ports": spec.ports,
                "labels": spec.labels,
                "network": spec.network,
                "locality": spec.locality,
                "weight": spec.weight,
                "serviceAccount": spec.service_account,
            },
        });
        let source = SourceText::new(format!("{ORIGIN}{namespace}/{name}"), format!("{text:#}\n"));
        let mut read = api::read(&Document::whole(&source), &ReadOptions::default());
        for problem in &read.diagnostics {
            tracing::error!(workload = %self.workload, "failed to register a workload: {}", problem.message);
        }
        read.objects.pop().map(Arc::new)
    }
}

/// Whether an object was created by auto-registration.
pub(super) fn is_registered(object: &Object) -> bool {
    object.order.origin.starts_with(ORIGIN)
}

/// `region/zone/subzone`, without empty trailing parts.
fn written(locality: &Locality) -> String {
    let Locality { region, zone, subzone } = locality;
    format!("{region}/{zone}/{subzone}").trim_end_matches('/').to_owned()
}
