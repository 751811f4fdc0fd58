//! `WorkloadEntry` of `networking.istio.io`: one workload that Kubernetes does not know.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The spec of a WorkloadEntry, and `endpoints[]` of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// An IP address, a DNS name, or `unix://` and the path of a socket.
    pub address: String,
    /// Ports by the name of the service's port, where they differ from its target port.
    pub ports: BTreeMap<String, u32>,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// The network that the address belongs to.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Share of the traffic within its locality; 1 when 0.
    pub weight: u32,
    /// The service account that the workload runs as.
    pub service_account: String,
}
