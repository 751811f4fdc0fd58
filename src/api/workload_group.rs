//! `WorkloadGroup` of `networking.istio.io`: template for auto-registered workloads.

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
    /// Readiness probe of a member's application.
    pub probe: Option<ReadinessProbe>,
}

/// `probe`: exactly one probe type. A number of 0 means its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessProbe {
    /// Seconds before the first probe, counted from the start of the sidecar.
    pub initial_delay_seconds: i32,
    /// Timeout in seconds.
    pub timeout_seconds: i32,
    /// Interval in seconds.
    pub period_seconds: i32,
    /// Consecutive successes until it becomes ready.
    pub success_threshold: i32,
    /// Consecutive failures until it becomes unready.
    pub failure_threshold: i32,
    /// HTTP request.
    pub http_get: Option<HttpGet>,
    /// TCP connection.
    pub tcp_socket: Option<TcpSocket>,
    /// Command; exit code 0 is success.
    pub exec: Option<Exec>,
    /// gRPC health check, `grpc.health.v1.Health`.
    pub grpc: Option<Unsupported>,
}

/// `httpGet`: a status from 200 to 399 is success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGet {
    /// The path; `/` when empty.
    pub path: String,
    /// The port.
    pub port: u32,
    /// The host; the member itself when empty.
    pub host: String,
    /// `HTTP` (default) or `HTTPS`.
    pub scheme: String,
    /// Request headers.
    pub http_headers: Vec<HttpHeader>,
}

/// A header of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `tcpSocket`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSocket {
    /// The host; the member itself when empty.
    pub host: String,
    /// The port.
    pub port: u32,
}

/// `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// `metadata` of the members' WorkloadEntries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberMetadata {
    /// Labels, which take precedence over those of the template.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}
