//! The signal to drain connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether connections are to close as soon as they can. Clones share the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draining(Arc<State>);

#[derive(Debug, Default)]
struct State {
    begun: AtomicBool,
    notify: Notify,
}

impl Draining {
    /// Gives the signal.
    pub(crate) fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether the signal was given.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Waits for the signal. Cancel safe.
    pub(crate) async fn wait(&self) {
        let notified = self.0.notify.notified();
        if !self.has_begun() {
            notified.await;
        }
    }
}
