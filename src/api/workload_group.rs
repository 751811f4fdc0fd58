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
    /// How a member's application is asked whether it is ready.
    pub probe: Option<ReadinessProbe>,
}

/// `probe`: exactly one of its ways of asking. A number that is 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessProbe {
    /// Until the first probe, seconds after the application has been started.
    pub initial_delay_seconds: i32,
    /// How long an answer may take, seconds.
    pub timeout_seconds: i32,
    /// From one probe to the next, seconds.
    pub period_seconds: i32,
    /// After how many successes in a row it is ready.
    pub success_threshold: i32,
    /// After how many failures in a row it is not ready any more.
    pub failure_threshold: i32,
    /// A request is answered.
    pub http_get: Option<HttpGet>,
    /// A connection is accepted.
    pub tcp_socket: Option<TcpSocket>,
    /// A command succeeds.
    pub exec: Option<Exec>,
    /// The service `grpc.health.v1.Health` answers.
    pub grpc: Option<Unsupported>,
}

/// `httpGet`: ready is a status from 200 to 399.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGet {
    /// The path, `/` if it is empty.
    pub path: String,
    /// The port.
    pub port: u32,
    /// The host, the member itself if it is empty.
    pub host: String,
    /// `HTTP` or `HTTPS`, the former if it is empty.
    pub scheme: String,
    /// Headers of the request.
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
    /// The host, the member itself if it is empty.
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
    /// Labels that come over those of the template.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}
