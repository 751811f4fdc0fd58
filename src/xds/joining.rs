//! What a sidecar asks of the control plane besides its configuration: another join token before its own expires, and to be
//! sent nothing more before it ends. Both are proved by the token it has.
//!
//! A gRPC service of our own, on the port of xDS:
//!
//! ```text
//! service Joining {                              // package topsail.v1
//!   rpc Renew(Empty) returns (RenewResponse);    // authorization: Bearer <join token>
//!   rpc Leave(Empty) returns (Empty);
//! }
//! message RenewResponse { string token = 1; }
//! ```

/// The service.
pub(super) const SERVICE: &str = "topsail.v1.Joining";
/// The path of the method that makes a token.
pub(super) const RENEW: &str = "/topsail.v1.Joining/Renew";
/// The path of the method that says goodbye.
pub(super) const LEAVE: &str = "/topsail.v1.Joining/Leave";

/// Nothing. Fields of later versions are passed over.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Empty {}

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
