//! Workloads: what a WorkloadEntry says about one running application.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Labels;
use super::service::{Address, Locality};
use crate::name::{ObjectId, ServiceAccount};

/// The annotation with which a WorkloadEntry is out of service for now: `false` keeps traffic from it. A workload that
/// registers itself has it while it is not ready.
pub const READY: &str = "topsail.io/ready";

/// The annotation with the further addresses of a workload that is in several networks, with `,` between them. On members
/// of a WorkloadGroup, `*` stands for those that their sidecars say they have.
pub const ADDRESSES: &str = "topsail.io/addresses";

/// What [`ADDRESSES`] says of a group whose members may register whichever addresses they have.
pub const ANY_ADDRESS: &str = "*";

/// A WorkloadEntry, lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The WorkloadEntry.
    pub id: ObjectId,
    /// `address`.
    pub address: Address,
    /// Where it is reached too: the annotation [`ADDRESSES`]. Whoever chooses an endpoint takes `address`; who dials one of
    /// these is recognised.
    pub further: Arc<[IpAddr]>,
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
    /// Whether it is to receive traffic: the annotation [`READY`] says if not.
    pub ready: bool,
}

/// A WorkloadGroup, lowered: what its members, which register themselves, have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadGroup {
    /// The WorkloadGroup.
    pub id: ObjectId,
    /// `metadata.labels` over `template.labels`.
    pub labels: Arc<Labels>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `template.ports`.
    pub ports: Vec<(Arc<str>, u16)>,
    /// `template.serviceAccount`.
    pub service_account: Option<ServiceAccount>,
    /// `template.locality`, of members that do not say where they are.
    pub locality: Locality,
    /// `template.weight`, at least 1.
    pub weight: u32,
}
