//! PeerAuthentications, lowered: whether inbound connections need mutual TLS.

use super::Labels;
use crate::name::ObjectId;

/// A PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// The object.
    pub id: ObjectId,
    /// `selector.matchLabels`; none: the whole namespace, or the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// `mtls.mode`; none (UNSET) inherits.
    pub mode: Option<MutualTlsMode>,
    /// `portLevelMtls`, by workload port; none inherits.
    pub ports: Vec<(u16, Option<MutualTlsMode>)>,
}

/// `mtls.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutualTlsMode {
    /// `DISABLE`: plaintext only.
    Disable,
    /// `PERMISSIVE`: both; the default.
    Permissive,
    /// `STRICT`: mutual TLS only.
    Strict,
}
