//! The xDS server: ADS and SDS over gRPC, state-of-the-world and delta.
//!
//! Each stream has a task that owns a [`Session`](super::session::Session) and moves its messages
//! between the socket and the [`Fleet`]. A slow client delays only its own task, with at most one
//! response per type in flight.

mod grpc;
mod joining;
mod service;
mod stream;
mod window;

use std::sync::Arc;

use tokio::sync::watch;

pub use joining::joining;
pub use service::{aggregated, secrets};

use super::joining::Probe;
use super::node::NodeClaim;
use super::resource::{ResourceType, Version};
use super::session::{Refusal, Refused, SessionTimeouts, SyncState};
use super::snapshot::Snapshot;
use crate::ir::ResourceName;
use crate::name::SpiffeId;
use crate::tls::PeerInfo;

/// Credential presented by a client.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A workload certificate issued by the mesh CA.
    Certificate(SpiffeId),
    /// A join token, not yet verified.
    Token(Box<str>),
    /// Nothing.
    None,
}

/// A client that opens a stream.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its node.
    pub claim: NodeClaim,
    /// Its credential.
    pub credential: Credential,
    /// The peer of its connection, if known.
    pub peer: Option<PeerInfo>,
    /// Types served on this stream.
    pub scope: Scope,
}

/// The caller of a method that is authenticated by a join token.
#[derive(Clone, Debug)]
pub struct BearerCaller {
    /// The token, not yet verified; `None` if absent.
    pub token: Option<Box<str>>,
    /// The peer of its connection, if known.
    pub peer: Option<PeerInfo>,
}

/// Types served on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All types.
    All,
    /// Secrets only.
    Secrets,
}

/// Backend of the xDS server.
pub trait Fleet: Send + Sync + 'static {
    /// A client sent its node in the first request of a stream.
    ///
    /// # Errors
    ///
    /// Why it is rejected, for the client.
    fn join(&self, arrival: Arrival) -> Result<Member, tonic::Status>;

    /// Checks a credential before anything sent by the client is read.
    ///
    /// # Errors
    ///
    /// Why it is rejected, for the client.
    fn admit(&self, credential: &Credential, peer: Option<&PeerInfo>) -> Result<(), tonic::Status>;

    /// Renews a join token: returns one with the same grant and a new expiry.
    ///
    /// # Errors
    ///
    /// Why it is rejected, for the client.
    fn renew(&self, caller: &BearerCaller) -> Result<String, tonic::Status>;

    /// The group member with this token and peer address is shutting down.
    ///
    /// # Errors
    ///
    /// Why it is rejected, for the client.
    fn leave(&self, caller: &BearerCaller) -> Result<(), tonic::Status>;

    /// The sidecar process `run` of the group member with this token and peer address reports its
    /// application's readiness. Returns the readiness probe.
    ///
    /// # Errors
    ///
    /// Why it is rejected, for the client.
    fn ready(&self, caller: &BearerCaller, run: u64, ready: bool) -> Result<Option<Probe>, tonic::Status>;

    /// Timeouts for events that xDS does not signal.
    fn patience(&self) -> SessionTimeouts {
        SessionTimeouts::default()
    }
}

/// An admitted client.
pub struct Member {
    /// The snapshot for the client, updated over time; `None` until everything is loaded.
    pub target: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Resources it rejected on earlier streams.
    pub refused: Refused,
    /// Observes its progress; dropped when the stream ends.
    pub observer: Box<dyn Observer>,
}

/// Observes the progress of a client.
pub trait Observer: Send {
    /// The client subscribes to a secret, possibly again; `has` is the version it has. On return
    /// the target holds the secret, if the client may have it.
    fn secret_wanted(&mut self, name: &ResourceName, has: Option<&Version>);

    /// The state of the client changed.
    fn progress(&mut self, progress: Progress<'_>);
}

/// Progress of a client.
#[derive(Debug)]
pub struct Progress<'a> {
    /// State of each type.
    pub states: [(ResourceType, SyncState); ResourceType::ALL.len()],
    /// Its target generation.
    pub generation: Option<u64>,
    /// Whether every addition and change of that generation is ACKed.
    pub up_to_date: bool,
    /// Resources rejected by the last request.
    pub refusals: &'a [Refusal],
    /// All rejected resources.
    pub refused: &'a Refused,
}
