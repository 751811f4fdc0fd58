//! Questions and commands for the owner of the configuration.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::xds::ResourceType;

/// A question or command.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Asks for the resources.
    Dump(oneshot::Sender<Dump>),
    /// Drains listeners.
    Drain(Drain),
    /// Stops the proxy.
    Quit,
}

/// How listeners are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// `inboundonly`: only inbound listeners.
    pub(crate) inbound_only: bool,
    /// `graceful`: listeners accept until the drain time is over, instead of stopping at once.
    pub(crate) graceful: bool,
}

/// The resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dump {
    /// Resources, in force or warming.
    pub(crate) resources: Vec<Held>,
    /// Resources that are not ready, and why.
    pub(crate) unready: Vec<PendingTarget>,
}

/// A resource.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its type.
    pub(crate) kind: ResourceType,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its message; secrets without their keys.
    pub(crate) body: Bytes,
    /// Its version; empty if static.
    pub(crate) version: Arc<str>,
    /// When it was last updated.
    pub(crate) updated: SystemTime,
    /// Whether it is static (from the bootstrap).
    pub(crate) fixed: bool,
    /// Whether it is still warming.
    pub(crate) warming: bool,
}

/// A resource that is not ready.
#[derive(Clone, Debug)]
pub(crate) struct PendingTarget {
    /// Its name: `listener in`, `cluster web`.
    pub(crate) name: String,
    /// What it waits for.
    pub(crate) targets: Vec<String>,
}
