//! Selectors of workloads, in the two shapes that Istio's API groups have.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `workloadSelector` of `networking.istio.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that a workload must all have.
    pub labels: BTreeMap<String, String>,
}

/// `selector` of `security.istio.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySelector {
    /// Labels that a workload must all have.
    pub match_labels: BTreeMap<String, String>,
}
