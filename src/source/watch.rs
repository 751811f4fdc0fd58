//! Signals when files should be read again. Uses only names and times, not content.
//!
//! ```text
//! kernel ──events──→ lookout (a thread) ──files──→ settle ──tick──→ Watcher::next
//!                      └── walks the root again when directories or links change
//! ```
//!
//! Events are only hints where to look; as a fallback, everything is checked periodically.

mod armed;
mod compare;
mod interpret;
mod lookout;
mod settle;
mod sighting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout_at};

use self::armed::Armed;
use self::lookout::{Connect, Message, WatchThread};
use self::settle::SettlingFiles;
use super::{Dirty, Root};

/// Delay before a thread that died is replaced.
const REVIVE_AFTER: Duration = Duration::from_secs(1);

/// Watches a root and signals file changes.
///
/// It never fails or ends: if file events are unavailable it polls, and logs that once.
pub struct Watcher {
    root: Root,
    connect: Connect,
    shared: Arc<Shared>,
    lookout: Option<SyncSender<Message>>,
}

/// State shared by the thread and the watcher.
#[derive(Default)]
struct Shared {
    settle: Mutex<SettlingFiles>,
    /// Notified after each change of `settle`, and when the thread ends.
    wake: Notify,
    /// Events were dropped because the queue was full.
    overflowed: AtomicBool,
    /// The watcher was dropped.
    stopped: AtomicBool,
    /// The thread has ended.
    ended: AtomicBool,
    /// The unavailability of events has been logged.
    said: AtomicBool,
}

impl Watcher {
    /// Watches `root`. Changes after this returns are signalled, so read the files afterwards, not
    /// before. Blocks for one walk of the root.
    pub fn start(root: Root) -> Self {
        Self::with_events(root, Armed::new)
    }

    fn with_events(root: Root, connect: Connect) -> Self {
        let mut watcher = Self {
            root,
            connect,
            shared: Arc::default(),
            lookout: None,
        };
        watcher.launch();
        watcher
    }

    /// Waits until files have changed and settled: 1.5 ms after the last one was closed or renamed
    /// into place, but at most 50 ms after the first. Changes are accumulated between calls, so a
    /// slow caller misses nothing. Cancel safe.
    ///
    /// A file is considered complete when its writer closes it, or after 5 s without change; if
    /// close events are unavailable, after 100 ms. A file counts as removed if it does not reappear
    /// within 150 ms.
    pub async fn next(&mut self) -> Dirty {
        loop {
            self.revive().await;
            let due = {
                let mut settle = self.shared.settle();
                match settle.take(Instant::now()) {
                    Some(dirty) => return dirty,
                    None => settle.due(),
                }
            };
            let woken = self.shared.wake.notified();
            match due {
                // A timeout is handled like a wake-up.
                Some(due) => drop(timeout_at(due.into(), woken).await),
                None => woken.await,
            }
        }
    }

    /// Whether a file of this tick is being written again, so that it may have been read partially.
    /// Should be checked before using the result of a tick; another tick follows.
    pub fn is_being_rewritten(&self, dirty: &Dirty) -> bool {
        let settle = self.shared.settle();
        dirty.paths.iter().any(|path| settle.is_written(path))
    }

    /// Whether any file is known to be being written.
    pub fn is_any_being_written(&self) -> bool {
        self.shared.settle().is_any_written()
    }

    async fn revive(&mut self) {
        while self.shared.ended.load(Ordering::Acquire) {
            tracing::error!("the configuration watcher thread died and is being restarted");
            sleep(REVIVE_AFTER).await;
            self.launch();
            self.shared.settle().everything(Instant::now());
        }
    }

    /// Starts the thread and waits until its watches are in place.
    fn launch(&mut self) {
        self.shared.ended.store(false, Ordering::Release);
        let (root, shared, connect) = (self.root.clone(), self.shared.clone(), self.connect);
        let (ready, watching) = sync_channel(1);
        let at_end = AtEnd(self.shared.clone());
        let work = move || {
            let _at_end = at_end;
            let lookout = WatchThread::new(root, shared, connect);
            if ready.send(lookout.sender()).is_ok() {
                lookout.run();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watch".into()).spawn(work) {
            tracing::error!(%error, "failed to start the configuration watcher thread");
        }
        self.lookout = watching.recv().ok();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(lookout) = &self.lookout {
            // If the queue is full, its content wakes the thread.
            let _ = lookout.try_send(Message::Stop);
        }
    }
}

impl Shared {
    /// The state is consistent between any two calls, so a poisoned lock is harmless.
    fn settle(&self) -> MutexGuard<'_, SettlingFiles> {
        self.settle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the watcher that the thread has ended, for whatever reason.
struct AtEnd(Arc<Shared>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
