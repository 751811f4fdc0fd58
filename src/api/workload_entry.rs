//! `WorkloadEntry` of `networking.istio.io`: a workload outside of Kubernetes.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The spec of a WorkloadEntry, and `endpoints[]` of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// An IP address, a DNS name, or `unix://` and a socket path.
    pub address: String,
    /// Endpoint ports by name of the service port, where they differ from the target port.
    pub ports: BTreeMap<String, u32>,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// The network the address is in.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Load balancing weight within its locality; 1 when 0.
    pub weight: u32,
    /// The service account that the workload runs as.
    pub service_account: String,
}
