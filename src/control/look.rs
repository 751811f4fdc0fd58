//! Looking out for edits: from the watcher's hints to what a root holds.

use std::sync::Arc;

use crate::source::tree::{Change, Tree};
use crate::source::watch::Watcher;
use crate::source::{Dirty, Root};

/// Reads a root, and again what may have changed whenever it may have. Hands over what it holds and
/// which files differ from the last time, until `deliver` says that nobody listens any more.
///
/// A file that is being written again while it is read is left for the tick that follows.
pub(super) async fn out(root: Root, deliver: impl Fn(Tree, Vec<Arc<str>>) -> bool) {
    let Some((mut watcher, mut tree)) = first(root.clone()).await else {
        return;
    };
    let all = tree.files().map(|file| file.origin.clone()).collect();
    if !deliver(tree.clone(), all) {
        return;
    }
    let mut dirty = Dirty::default();
    loop {
        let hint = watcher.next().await;
        dirty.paths.extend(hint.paths);
        dirty.full |= hint.full;
        dirty.unsettled = hint.unsettled;
        let Some((read, changes)) = rescan(&tree, &root, &dirty).await else {
            return;
        };
        if watcher.is_being_rewritten(&dirty) {
            continue;
        }
        dirty = Dirty::default();
        tree = read;
        let changed: Vec<_> = changes.iter().map(Change::origin).cloned().collect();
        if !changed.is_empty() && !deliver(tree.clone(), changed) {
            return;
        }
    }
}

/// The watch is armed before the first look, so that nothing falls between them.
async fn first(root: Root) -> Option<(Watcher, Tree)> {
    blocking(move || {
        let watcher = Watcher::start(root.clone());
        (watcher, Tree::scan(&root))
    })
    .await
}

async fn rescan(tree: &Tree, root: &Root, dirty: &Dirty) -> Option<(Tree, Vec<Change>)> {
    let (tree, root, dirty) = (tree.clone(), root.clone(), dirty.clone());
    blocking(move || tree.rescan(&root, &dirty)).await
}

/// `None` when the runtime shuts down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
