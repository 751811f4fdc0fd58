//! xDS over gRPC: ADS and SDS, state-of-the-world and delta.
//!
//! One task a stream. It owns a [`Session`](super::session::Session) and moves what the session says between the socket and
//! the [`Fleet`]. A slow client holds up its own task only, with at most one response of each type
//! on its way.

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
use super::session::{Patience, Refusal, Refused, SyncState};
use super::snapshot::Snapshot;
use crate::ir::ResourceName;
use crate::name::SpiffeId;
use crate::tls::PeerInfo;

/// What a client shows to prove who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A workload certificate of the mesh's CA.
    Certificate(SpiffeId),
    /// A join token, not verified yet.
    Token(Box<str>),
    /// Nothing.
    None,
}

/// A client at the start of a stream.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What it says about itself.
    pub claim: NodeClaim,
    /// What it shows.
    pub credential: Credential,
    /// The other end of its connection, as far as that is known.
    pub peer: Option<PeerInfo>,
    /// What it can ask for on this stream.
    pub scope: Scope,
}

/// A client that asks for something that its join token proves.
#[derive(Clone, Debug)]
pub struct Bearing {
    /// The token, not verified yet; none if it shows none.
    pub token: Option<Box<str>>,
    /// The other end of its connection, as far as that is known.
    pub peer: Option<PeerInfo>,
}

/// Which types a stream serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// Secrets only.
    Secrets,
}

/// What the server serves from.
pub trait Fleet: Send + Sync + 'static {
    /// A client has said who it is.
    ///
    /// # Errors
    /// Why it is not served, for the client to read.
    fn join(&self, arrival: Arrival) -> Result<Member, tonic::Status>;

    /// Whether a credential is worth listening to, before anything the client says is read.
    ///
    /// # Errors
    /// Why not, for the client to read.
    fn admit(&self, credential: &Credential, peer: Option<&PeerInfo>) -> Result<(), tonic::Status>;

    /// Another join token for the bearer of one: the same grant for as long a time, from now on.
    ///
    /// # Errors
    /// Why not, for the client to read.
    fn renew(&self, bearing: &Bearing) -> Result<String, tonic::Status>;

    /// The member of a group that bears a token, at the address that it connects from, is about to end.
    ///
    /// # Errors
    /// Why it is not heard, for the client to read.
    fn leave(&self, bearing: &Bearing) -> Result<(), tonic::Status>;

    /// The application of the member of a group that bears a token, at the address that it connects from, is ready or is
    /// not, as a run of its sidecar says. The answer is how it is to be asked.
    ///
    /// # Errors
    /// Why it is not heard, for the client to read.
    fn ready(&self, bearing: &Bearing, run: u64, ready: bool) -> Result<Option<Probe>, tonic::Status>;

    /// Waits that the protocol has no sign for.
    fn patience(&self) -> Patience {
        Patience::default()
    }
}

/// A client that is served.
pub struct Member {
    /// What the client should have, as it changes. `None` until everything is loaded.
    pub target: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What it refused on earlier streams.
    pub refused: Refused,
    /// Where its progress is told. Dropped when the client is gone.
    pub observer: Box<dyn Observer>,
}

/// Where a client's progress is told.
pub trait Observer: Send {
    /// The client asks for a secret, perhaps not for the first time, and says which version of it it
    /// has, if any. Its target holds the secret when this returns, if it may have it.
    fn secret_wanted(&mut self, name: &ResourceName, has: Option<&Version>);

    /// Something has happened.
    fn progress(&mut self, progress: Progress<'_>);
}

/// How far a client is.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Each type's state.
    pub states: [(ResourceType, SyncState); ResourceType::ALL.len()],
    /// The generation it should have.
    pub generation: Option<u64>,
    /// Whether every addition and change of that generation is ACKed.
    pub up_to_date: bool,
    /// What it has just refused.
    pub refusals: &'a [Refusal],
    /// All that it refuses.
    pub refused: &'a Refused,
}
