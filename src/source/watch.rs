//! When to read again. Knows names and times, not what is in the files.
//!
//! ```text
//! kernel ──events──→ lookout (a thread) ──files──→ settle ──tick──→ Watcher::next
//!                       └── walks the root again where directories or links change
//! ```
//!
//! Events only say where to look. Should they stop coming or never have come, everything is
//! looked at from time to time all the same.

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
use self::lookout::{Connect, Lookout, Message};
use self::settle::Settle;
use super::{Dirty, Root};

/// How long to wait before a thread that died is replaced.
const REVIVE_AFTER: Duration = Duration::from_secs(1);

/// Watches a root and tells when files have changed.
///
/// It never fails and never ends: where file events cannot be had, it polls and says so once in
/// the log.
pub struct Watcher {
    root: Root,
    connect: Connect,
    shared: Arc<Shared>,
    lookout: Option<SyncSender<Message>>,
}

/// What the thread and the watcher share.
#[derive(Default)]
struct Shared {
    settle: Mutex<Settle>,
    /// Told after each change of `settle`, and when the thread ends.
    wake: Notify,
    /// Events were lost for want of room.
    overflowed: AtomicBool,
    /// The watcher is gone.
    stopped: AtomicBool,
    /// The thread has ended.
    ended: AtomicBool,
    /// That events cannot be had has been said.
    said: AtomicBool,
}

impl Watcher {
    /// Watches `root`. What happens after this returns is told, so read everything then, not
    /// before. Blocks while the root is walked once.
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

    /// Waits until files have changed and come to rest: 1.5 ms after the last one was closed or
    /// renamed into place, 50 ms after the first one at most. What happens meanwhile is added up,
    /// so a slow caller misses nothing. Cancel safe.
    ///
    /// A file counts as whole when its writer closes it, or after 5 s without change; where closing
    /// cannot be told, after 100 ms. One that is removed counts as removed after 150 ms without return.
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
                // Late is as good as woken: both look again.
                Some(due) => drop(timeout_at(due.into(), woken).await),
                None => woken.await,
            }
        }
    }

    /// Whether a file of this tick is being written again by now, so that what was read of it may
    /// be half of it. Ask before relying on what came of the tick: another one follows.
    pub fn is_being_rewritten(&self, dirty: &Dirty) -> bool {
        let settle = self.shared.settle();
        dirty.paths.iter().any(|path| settle.is_written(path))
    }

    /// Whether any file is being written, as far as its writer has been seen at work.
    pub fn is_any_being_written(&self) -> bool {
        self.shared.settle().is_any_written()
    }

    async fn revive(&mut self) {
        while self.shared.ended.load(Ordering::Acquire) {
            tracing::error!("the thread that watches the configuration has died and is started again");
            sleep(REVIVE_AFTER).await;
            self.launch();
            self.shared.settle().everything(Instant::now());
        }
    }

    /// Starts the thread and waits until it watches.
    fn launch(&mut self) {
        self.shared.ended.store(false, Ordering::Release);
        let (root, shared, connect) = (self.root.clone(), self.shared.clone(), self.connect);
        let (ready, watching) = sync_channel(1);
        let at_end = AtEnd(self.shared.clone());
        let work = move || {
            let _at_end = at_end;
            let lookout = Lookout::new(root, shared, connect);
            if ready.send(lookout.sender()).is_ok() {
                lookout.run();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watch".into()).spawn(work) {
            tracing::error!(%error, "no thread to watch the configuration");
        }
        self.lookout = watching.recv().ok();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(lookout) = &self.lookout {
            // A full queue wakes the thread as well.
            let _ = lookout.try_send(Message::Stop);
        }
    }
}

impl Shared {
    /// The state stays sound between any two calls, so one that panicked spoils nothing.
    fn settle(&self) -> MutexGuard<'_, Settle> {
        self.settle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the watcher that the thread has ended, however it did; dropped unused where it could
/// not be started.
struct AtEnd(Arc<Shared>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
