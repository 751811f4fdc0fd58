//! Workload selectors, in the two forms used by Istio's API groups.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `workloadSelector` of `networking.istio.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels a workload must have.
    pub labels: BTreeMap<String, String>,
}

/// `selector` of `security.istio.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySelector {
    /// Labels a workload must have.
    pub match_labels: BTreeMap<String, String>,
}
