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
    /// `probe`.
    pub probe: Option<Probe>,
}

/// How a member's application is asked whether it is ready, with Istio's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Until the first probe, seconds after the application has been started.
    pub initial_delay: u32,
    /// How long an answer may take, seconds; at least 1.
    pub timeout: u32,
    /// From one probe to the next, seconds; at least 1.
    pub period: u32,
    /// After how many successes in a row it is ready, at least 1.
    pub successes: u32,
    /// After how many failures in a row it is not ready any more, at least 1.
    pub failures: u32,
    /// A name or an IP address; none for the member itself.
    pub host: Option<Arc<str>>,
    /// The port.
    pub port: u16,
    /// What is asked for there; none where a connection is enough.
    pub http: Option<HttpProbe>,
}

/// `httpGet` of a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// The path, with a `/` before it.
    pub path: Arc<str>,
    /// Whether it is asked by TLS; the certificate does not matter.
    pub tls: bool,
    /// Headers, in the order in which they stand.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}
