//! The gRPC service by which a sidecar manages its registration: it renews its join token before
//! expiry, reports the readiness of its application, and announces its shutdown. The token
//! authenticates the caller.
//!
//! It is served on the xDS port:
//!
//! ```text
//! service Joining {                              // package topsail.v1
//!   rpc Renew(Empty) returns (RenewResponse);    // authorization: Bearer <join token>
//!   rpc Leave(Empty) returns (Empty);
//!   rpc Ready(ReadyRequest) returns (ReadyResponse);   // FAILED_PRECONDITION: its proxy is not connected
//! }
//! message RenewResponse { string token = 1; }
//! message ReadyRequest { fixed64 run = 1; bool ready = 2; }
//! message ReadyResponse { Probe probe = 1; }     // the readiness probe of the group, if it has one
//! message Probe {                                // in seconds; thresholds count consecutive probes
//!   uint32 initial_delay = 1; uint32 timeout = 2; uint32 period = 3; uint32 successes = 4; uint32 failures = 5;
//!   string host = 6;                             // empty: the loopback interface
//!   uint32 port = 7;
//!   HttpGet http_get = 8;                        // absent: TCP probe
//! }
//! message HttpGet { string path = 1; bool tls = 2; repeated Header headers = 3; }
//! message Header { string name = 1; string value = 2; }
//! ```

use std::sync::Arc;

use crate::mesh::workload;

/// Full name of the service.
pub(super) const SERVICE: &str = "topsail.v1.Joining";
/// Path of the `Renew` method.
pub(super) const RENEW: &str = "/topsail.v1.Joining/Renew";
/// Path of the `Leave` method.
pub(super) const LEAVE: &str = "/topsail.v1.Joining/Leave";
/// Path of the `Ready` method.
pub(super) const READY: &str = "/topsail.v1.Joining/Ready";

/// An empty message; unknown fields are ignored.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Empty {}

/// Reports the readiness of a member's application.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct ReadyRequest {
    /// The sidecar process: `TOPSAIL_READINESS_RUN` in its node metadata.
    #[prost(fixed64, tag = "1")]
    pub run: u64,
    /// Whether the application is ready.
    #[prost(bool, tag = "2")]
    pub ready: bool,
}

/// Response to a [`ReadyRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ReadyResponse {
    /// The readiness probe to run.
    #[prost(message, optional, tag = "1")]
    pub probe: Option<Probe>,
}

/// Readiness probe of a member: a WorkloadGroup's `probe` with defaults applied.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Probe {
    /// Delay before the first probe, in seconds.
    #[prost(uint32, tag = "1")]
    pub initial_delay: u32,
    /// Timeout in seconds.
    #[prost(uint32, tag = "2")]
    pub timeout: u32,
    /// Interval in seconds.
    #[prost(uint32, tag = "3")]
    pub period: u32,
    /// Consecutive successes until it becomes ready.
    #[prost(uint32, tag = "4")]
    pub successes: u32,
    /// Consecutive failures until it becomes unready.
    #[prost(uint32, tag = "5")]
    pub failures: u32,
    /// Host name or IP address; empty for the loopback interface.
    #[prost(string, tag = "6")]
    pub host: String,
    /// The port.
    #[prost(uint32, tag = "7")]
    pub port: u32,
    /// HTTP request to send; absent for a TCP probe.
    #[prost(message, optional, tag = "8")]
    pub http_get: Option<HttpGet>,
}

/// HTTP request of a [`Probe`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HttpGet {
    /// The path.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Whether to use TLS.
    #[prost(bool, tag = "2")]
    pub tls: bool,
    /// Request headers.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<Header>,
}

/// A request header.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

impl From<&workload::Probe> for Probe {
    fn from(probe: &workload::Probe) -> Self {
        let header = |(name, value): &(Arc<str>, Arc<str>)| Header {
            name: name.to_string(),
            value: value.to_string(),
        };
        Self {
            initial_delay: probe.initial_delay,
            timeout: probe.timeout,
            period: probe.period,
            successes: probe.successes,
            failures: probe.failures,
            host: probe.host.as_deref().unwrap_or_default().to_owned(),
            port: probe.port.into(),
            http_get: probe.http.as_ref().map(|get| HttpGet {
                path: get.path.to_string(),
                tls: get.tls,
                headers: get.headers.iter().map(header).collect(),
            }),
        }
    }
}

/// A renewed token.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct RenewResponse {
    /// The join token, a secret.
    #[prost(string, tag = "1")]
    pub token: String,
}

impl std::fmt::Debug for RenewResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenewResponse").finish_non_exhaustive()
    }
}
