//! What only the owner of the configuration knows or may do.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::xds::ResourceType;

/// A wish.
#[derive(Debug)]
pub(crate) enum Ask {
    /// To see what there is.
    Dump(oneshot::Sender<Dump>),
    /// Listeners are to end.
    Drain(Drain),
    /// The proxy is to end.
    Quit,
}

/// How listeners end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Only those of traffic to the workload.
    pub(crate) inbound_only: bool,
    /// Nothing is accepted any more only after the drain time; otherwise from now on.
    pub(crate) graceful: bool,
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dump {
    /// Resources, in force or on their way.
    pub(crate) resources: Vec<Held>,
    /// What is waited for.
    pub(crate) unready: Vec<Unready>,
}

/// A resource.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its type.
    pub(crate) kind: ResourceType,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its message; of a secret, without the key.
    pub(crate) body: Bytes,
    /// Its version; empty for those of the bootstrap.
    pub(crate) version: Arc<str>,
    /// When it came.
    pub(crate) updated: SystemTime,
    /// It is from the bootstrap.
    pub(crate) fixed: bool,
    /// It is not in force yet.
    pub(crate) warming: bool,
}

/// Something that waits.
#[derive(Clone, Debug)]
pub(crate) struct Unready {
    /// What: `listener in`, `cluster web`.
    pub(crate) name: String,
    /// What for.
    pub(crate) targets: Vec<String>,
}
