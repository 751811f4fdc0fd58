//! What a sidecar asks of the control plane besides its configuration: another join token before its own expires, to be
//! sent something once its application is ready, and to be sent nothing more before it ends. The token it has proves who asks.
//!
//! A gRPC service of our own, on the port of xDS:
//!
//! ```text
//! service Joining {                              // package topsail.v1
//!   rpc Renew(Empty) returns (RenewResponse);    // authorization: Bearer <join token>
//!   rpc Leave(Empty) returns (Empty);
//!   rpc Ready(ReadyRequest) returns (ReadyResponse);   // FAILED_PRECONDITION: its data plane is not connected
//! }
//! message RenewResponse { string token = 1; }
//! message ReadyRequest { fixed64 run = 1; bool ready = 2; }
//! message ReadyResponse { Probe probe = 1; }     // how the application is to be asked; none: it need not be
//! message Probe {                                // seconds, and probes in a row
//!   uint32 initial_delay = 1; uint32 timeout = 2; uint32 period = 3; uint32 successes = 4; uint32 failures = 5;
//!   string host = 6;                             // empty: the loopback interface
//!   uint32 port = 7;
//!   HttpGet http_get = 8;                        // none: a connection is enough
//! }
//! message HttpGet { string path = 1; bool tls = 2; repeated Header headers = 3; }
//! message Header { string name = 1; string value = 2; }
//! ```

use std::sync::Arc;

use crate::mesh::workload;

/// The service.
pub(super) const SERVICE: &str = "topsail.v1.Joining";
/// The path of the method that makes a token.
pub(super) const RENEW: &str = "/topsail.v1.Joining/Renew";
/// The path of the method that says goodbye.
pub(super) const LEAVE: &str = "/topsail.v1.Joining/Leave";
/// The path of the method that says whether the application is ready.
pub(super) const READY: &str = "/topsail.v1.Joining/Ready";

/// Nothing. Fields of later versions are passed over.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Empty {}

/// Whether a member's application is ready.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct ReadyRequest {
    /// Which run of the sidecar says so: `TOPSAIL_READINESS_RUN` in the metadata of its node.
    #[prost(fixed64, tag = "1")]
    pub run: u64,
    /// Whether it is.
    #[prost(bool, tag = "2")]
    pub ready: bool,
}

/// What the control plane answers to it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ReadyResponse {
    /// How the application is to be asked.
    #[prost(message, optional, tag = "1")]
    pub probe: Option<Probe>,
}

/// How a member's application is asked whether it is ready: a WorkloadGroup's `probe`, with its defaults.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Probe {
    /// Until the first probe, seconds after the application has been started.
    #[prost(uint32, tag = "1")]
    pub initial_delay: u32,
    /// How long an answer may take, seconds.
    #[prost(uint32, tag = "2")]
    pub timeout: u32,
    /// From one probe to the next, seconds.
    #[prost(uint32, tag = "3")]
    pub period: u32,
    /// After how many successes in a row it is ready.
    #[prost(uint32, tag = "4")]
    pub successes: u32,
    /// After how many failures in a row it is not ready any more.
    #[prost(uint32, tag = "5")]
    pub failures: u32,
    /// A name or an IP address; empty for the loopback interface.
    #[prost(string, tag = "6")]
    pub host: String,
    /// The port.
    #[prost(uint32, tag = "7")]
    pub port: u32,
    /// What is asked for there; none where a connection is enough.
    #[prost(message, optional, tag = "8")]
    pub http_get: Option<HttpGet>,
}

/// What a [`Probe`] asks for by HTTP.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HttpGet {
    /// The path.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Whether by TLS.
    #[prost(bool, tag = "2")]
    pub tls: bool,
    /// Headers of the request.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<Header>,
}

/// A header of a request.
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

/// A new token.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct RenewResponse {
    /// The token: a secret.
    #[prost(string, tag = "1")]
    pub token: String,
}

impl std::fmt::Debug for RenewResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenewResponse").finish_non_exhaustive()
    }
}
