//! Active health checks (`health_checks` of a cluster).
//!
//! Hosts are checked once for the whole process, on the control thread. A result that changes the health of a host
//! replaces the host set, as an ejection by outlier detection does: requests see nothing but the load balancer.
//!
//! ```text
//! wait ── attempt ── verdict ── state of the host ──[changed]──> host set
//!   └──────────────── interval ───────┘
//! ```

pub(crate) mod checks;
mod connect;
pub(crate) mod grpc;
pub(crate) mod http;
mod http1;
mod http2;
pub(crate) mod payload;
pub(crate) mod schedule;
mod session;
pub(crate) mod state;
pub(crate) mod tcp;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::BytesMut;

use super::host::HostAddress;
use grpc::GrpcCheck;
use http::HttpCheck;
use schedule::Schedule;
use tcp::TcpCheck;

/// How the hosts of a cluster are checked (`HealthCheck`).
#[derive(Debug)]
pub(crate) struct HealthCheck {
    /// `timeout` of an attempt, connecting included.
    pub(crate) timeout: Duration,
    /// The time between attempts.
    pub(crate) schedule: Schedule,
    /// `unhealthy_threshold`: consecutive failures of the network, or retriable ones, that make a host unhealthy.
    pub(crate) unhealthy_threshold: u32,
    /// `healthy_threshold`: consecutive successes that make a host healthy again.
    pub(crate) healthy_threshold: u32,
    /// `reuse_connection`.
    pub(crate) reuse_connection: bool,
    /// `tls_options.alpn_protocols`, instead of those of the transport socket.
    pub(crate) alpn: Option<Box<[Vec<u8>]>>,
    /// `transport_socket_match_criteria`: the metadata by which the transport socket is chosen, instead of the
    /// endpoint's.
    pub(crate) transport_labels: Option<Vec<(String, String)>>,
    /// Whether hosts that discovery removes stay until they fail: `ignore_health_on_host_removal` is unset.
    pub(crate) keeps_healthy: bool,
    /// `ignore_new_hosts_until_first_hc`: hosts do not count for panic and priorities before they are checked.
    pub(crate) ignores_new: bool,
    /// What is sent, and what is expected.
    pub(crate) probe: Probe,
}

/// What is sent, and what is expected (`health_checker`).
#[derive(Debug)]
pub(crate) enum Probe {
    /// `http_health_check`.
    Http(Box<HttpCheck>),
    /// `grpc_health_check`.
    Grpc(GrpcCheck),
    /// `tcp_health_check`.
    Tcp(TcpCheck),
}

/// How an endpoint wants to be checked (`Endpoint.HealthCheckConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckTarget {
    /// `address`, instead of the endpoint's.
    pub(crate) address: Option<HostAddress>,
    /// `port_value`, instead of the address's.
    pub(crate) port: Option<u16>,
    /// `hostname`, instead of what the check says.
    pub(crate) hostname: Option<Arc<str>>,
    /// `disable_active_health_check`.
    pub(crate) disabled: bool,
}

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection failed, or the host broke the protocol.
    Network,
    /// `timeout` was reached.
    Timeout,
    /// The response was not what is expected.
    Response {
        /// Whether its status is among `retriable_statuses`.
        retriable: bool,
        /// Whether it has `x-envoy-immediate-health-check-fail`.
        immediate: bool,
    },
    /// A response to a request of a client has `x-envoy-immediate-health-check-fail`.
    Passive,
}

impl Failure {
    /// A failure of the network, whose cause only the log tells.
    fn network(cause: impl Display) -> Self {
        tracing::debug!(%cause, "a health check failed");
        Failure::Network
    }
}

/// What a check found of a healthy host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It is healthy.
    Healthy,
    /// It is degraded: its response has `x-envoy-degraded`.
    Degraded,
}

/// The outcome of an attempt.
pub(crate) type Outcome = Result<Passed, Failure>;

/// `health_check.…`
#[derive(Debug, Default)]
pub(crate) struct HealthCheckStats {
    /// `attempt`.
    pub(crate) attempt: AtomicU64,
    /// `success`.
    pub(crate) success: AtomicU64,
    /// `failure`: all failures.
    pub(crate) failure: AtomicU64,
    /// `passive_failure`: those that responses to clients told of.
    pub(crate) passive_failure: AtomicU64,
    /// `network_failure`: those of the network, timeouts included.
    pub(crate) network_failure: AtomicU64,
    /// `verify_cluster`: responses whose `x-envoy-upstream-healthchecked-cluster` was checked.
    pub(crate) verify_cluster: AtomicU64,
}

/// Appends a piece of a response's body, as far as that keeps no more than `kept` bytes of it.
fn keep(body: &mut BytesMut, piece: &[u8], kept: usize) {
    let room = kept.saturating_sub(body.len());
    body.extend_from_slice(&piece[..piece.len().min(room)]);
}
