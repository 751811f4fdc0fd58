//! The published state, for readers outside the composer.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::Notify;

use super::registry::RegisteredWorkload;
use crate::diag::Diagnostic;
use crate::mesh::Mesh;

/// The current state; replaced atomically as a whole.
#[derive(Debug, Default)]
pub struct Published {
    state: ArcSwap<State>,
    changed: Notify,
}

/// A consistent state.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The accepted generation; `None` until the first is loaded.
    pub generation: Option<Generation>,
    /// Its mesh model.
    pub mesh: Mesh,
    /// All current diagnostics, in display order.
    pub diagnostics: Arc<[Diagnostic]>,
    /// Auto-registered workloads, by name.
    pub registered: Arc<[RegisteredWorkload]>,
}

/// An accepted state of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Increases by one; local to this server.
    pub number: u64,
    /// Content hash in hexadecimal, comparable between servers.
    pub hash: String,
    /// Number of objects in force.
    pub objects: usize,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub accepted_at: u64,
}

impl Published {
    /// The current state.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The current mesh; cheap to clone.
    pub fn mesh(&self) -> Mesh {
        self.state.load().mesh.clone()
    }

    /// Replaces the state.
    pub fn set(&self, state: State) {
        self.state.store(Arc::new(state));
        self.changed.notify_waiters();
    }

    /// Waits until the first generation is loaded.
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
