//! What a sidecar asks of the control plane besides its configuration: another join token before its own expires, to be
//! sent something once its application is ready, and to be sent nothing more before it ends. The token it has proves who asks.
//!
//! A gRPC service of our own, on the port of xDS:
//!
//! ```text
//! service Joining {                              // package topsail.v1
//!   rpc Renew(Empty) returns (RenewResponse);    // authorization: Bearer <join token>
//!   rpc Leave(Empty) returns (Empty);
//!   rpc Ready(ReadyRequest) returns (Empty);     // FAILED_PRECONDITION: its data plane is not connected
//! }
//! message RenewResponse { string token = 1; }
//! message ReadyRequest { fixed64 run = 1; bool ready = 2; }
//! ```

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
