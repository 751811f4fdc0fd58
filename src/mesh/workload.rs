//! Workloads: what a WorkloadEntry says about one running application.

use std::sync::Arc;

use super::Labels;
use super::service::{Address, Locality};
use crate::name::{ObjectId, ServiceAccount};

/// A WorkloadEntry, lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The WorkloadEntry.
    pub id: ObjectId,
    /// `address`.
    pub address: Address,
    /// `ports`: port name to number.
    pub ports: Vec<(Arc<str>, u16)>,
    /// `metadata.labels` over `labels`.
    pub labels: Arc<Labels>,
    /// `serviceAccount`.
    pub service_account: Option<ServiceAccount>,
    /// Whether it takes Istio mutual TLS: the label `security.istio.io/tlsMode`, else whether it has
    /// a service account.
    pub mutual_tls: bool,
    /// `locality`.
    pub locality: Locality,
    /// `weight`, at least 1.
    pub weight: u32,
}
