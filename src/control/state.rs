//! What is in force, for everyone who wants to look.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::Notify;

use super::registry::RegisteredWorkload;
use crate::diag::Diagnostic;
use crate::mesh::Mesh;

/// The state of the directory as it is served. Swapped whole.
#[derive(Debug, Default)]
pub struct Published {
    state: ArcSwap<State>,
    changed: Notify,
}

/// One state.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The accepted state of the directory; none until the first has been loaded.
    pub generation: Option<Generation>,
    /// What it means.
    pub mesh: Mesh,
    /// Everything that is wrong at this moment, in display order.
    pub diagnostics: Arc<[Diagnostic]>,
    /// The workloads that registered themselves, by name.
    pub registered: Arc<[RegisteredWorkload]>,
}

/// An accepted state of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Counts up by one; local to this server.
    pub number: u64,
    /// The identity of the content between servers: hexadecimal.
    pub hash: String,
    /// How many objects are in force.
    pub objects: usize,
    /// When it was accepted, milliseconds since 1970.
    pub accepted_at: u64,
}

impl Published {
    /// The state at this moment.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The mesh at this moment; a cheap copy.
    pub fn mesh(&self) -> Mesh {
        self.state.load().mesh.clone()
    }

    /// Replaces the state.
    pub fn set(&self, state: State) {
        self.state.store(Arc::new(state));
        self.changed.notify_waiters();
    }

    /// Waits until a first generation is in force.
    pub async fn loaded(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.load().generation.is_some() {
                return;
            }
            changed.await;
        }
    }
}
