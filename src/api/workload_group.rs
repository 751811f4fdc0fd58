//! `WorkloadGroup` of `networking.istio.io`: what workloads that register themselves have in common.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::Unsupported;
use super::workload_entry::WorkloadEntry;

/// The spec of a WorkloadGroup.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroup {
    /// The metadata of the members' WorkloadEntries.
    pub metadata: MemberMetadata,
    /// The spec of the members' WorkloadEntries, without the address.
    pub template: Option<WorkloadEntry>,
    /// How Istio's agent asks the application whether it is ready.
    pub probe: Option<Unsupported>,
}

/// `metadata` of the members' WorkloadEntries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberMetadata {
    /// Labels that come over those of the template.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}
