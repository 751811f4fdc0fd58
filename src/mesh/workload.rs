//! Workloads, from WorkloadEntries, and groups of them, from WorkloadGroups.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Labels;
use super::service::{Address, Locality};
use crate::name::{ObjectId, ServiceAccount};

/// Annotation that takes a WorkloadEntry out of service with the value `false`. Auto-registered
/// workloads have it until they are ready.
pub const READY: &str = "topsail.io/ready";

/// Annotation with additional addresses of a workload in several networks, separated by commas. On
/// a WorkloadGroup, `*` allows those that members claim in their node metadata.
pub const ADDRESSES: &str = "topsail.io/addresses";

/// Value of [`ADDRESSES`] that allows the members of a group to register any address.
pub const ANY_ADDRESS: &str = "*";

/// A WorkloadEntry, lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The WorkloadEntry.
    pub id: ObjectId,
    /// `address`.
    pub address: Address,
    /// Additional addresses from the annotation [`ADDRESSES`]. Load balancing uses `address` only;
    /// connections to the others are recognised.
    pub further: Arc<[IpAddr]>,
    /// `ports`: port name to number.
    pub ports: Vec<(Arc<str>, u16)>,
    /// `labels`, overridden by `metadata.labels`.
    pub labels: Arc<Labels>,
    /// `serviceAccount`.
    pub service_account: Option<ServiceAccount>,
    /// Whether it accepts Istio mutual TLS: by the label `security.istio.io/tlsMode`, else if it
    /// has a service account.
    pub mutual_tls: bool,
    /// `locality`.
    pub locality: Locality,
    /// `weight`, at least 1.
    pub weight: u32,
    /// Whether it receives traffic, by the annotation [`READY`].
    pub ready: bool,
}

/// A WorkloadGroup, lowered: template for its auto-registered members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadGroup {
    /// The WorkloadGroup.
    pub id: ObjectId,
    /// `template.labels`, overridden by `metadata.labels`.
    pub labels: Arc<Labels>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `template.ports`.
    pub ports: Vec<(Arc<str>, u16)>,
    /// `template.serviceAccount`.
    pub service_account: Option<ServiceAccount>,
    /// `template.locality`, for members without a locality in node metadata.
    pub locality: Locality,
    /// `template.weight`, at least 1.
    pub weight: u32,
    /// `probe`.
    pub probe: Option<Probe>,
}

/// Readiness probe of a member's application, with Istio's defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Delay before the first probe, in seconds.
    pub initial_delay: u32,
    /// Timeout in seconds; at least 1.
    pub timeout: u32,
    /// Interval in seconds; at least 1.
    pub period: u32,
    /// Consecutive successes until it becomes ready; at least 1.
    pub successes: u32,
    /// Consecutive failures until it becomes unready; at least 1.
    pub failures: u32,
    /// Host name or IP address; `None` for the member itself.
    pub host: Option<Arc<str>>,
    /// The port.
    pub port: u16,
    /// HTTP request to send; `None` for a TCP probe.
    pub http: Option<HttpProbe>,
}

/// `httpGet` of a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// The path, starting with `/`.
    pub path: Arc<str>,
    /// Whether TLS is used; the certificate is not verified.
    pub tls: bool,
    /// Headers, in the order given.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}
