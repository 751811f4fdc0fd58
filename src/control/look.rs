//! Watches a root: turns the watcher's hints into re-read trees.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::source::tree::{Change, Tree};
use crate::source::watch::Watcher;
use crate::source::{Dirty, Root};

/// A file unmodified for this long at the first read counts as complete; whether a writer still has
/// it open cannot be determined.
const QUIET: Duration = Duration::from_millis(100);

/// Upper bound on how long the first read waits for files being written.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Reads a root, and re-reads what may have changed on each hint. Passes the tree and the files
/// that differ from the previous read to `deliver`, until that returns false.
///
/// A file that is written to while it is read is left to the next tick.
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

/// Arms the watch before the first read, so no change between them is lost. Waits for files that
/// are being written or were modified just before: a partial file could parse as a complete one.
async fn first(root: Root) -> Option<(Watcher, Tree)> {
    let armed = root.clone();
    let watcher = blocking(move || Watcher::start(armed)).await?;
    let give_up = Instant::now() + FIRST_LOOK;
    loop {
        let look = root.clone();
        let (tree, age) = blocking(move || {
            let tree = Tree::scan(&look);
            let age = tree.age_of_last_change(SystemTime::now());
            (tree, age)
        })
        .await?;
        let rest = age.map_or(Duration::ZERO, |age| QUIET.saturating_sub(age));
        if (rest.is_zero() && !watcher.is_any_being_written()) || Instant::now() >= give_up {
            return Some((watcher, tree));
        }
        tokio::time::sleep(rest.max(Duration::from_millis(5))).await;
    }
}

async fn rescan(tree: &Tree, root: &Root, dirty: &Dirty) -> Option<(Tree, Vec<Change>)> {
    let (tree, root, dirty) = (tree.clone(), root.clone(), dirty.clone());
    blocking(move || tree.rescan(&root, &dirty)).await
}

/// Runs `work` on the blocking pool; `None` if the runtime is shutting down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use tokio::sync::mpsc;

    use super::*;
    use crate::source::tree::Content;

    fn text(tree: &Tree) -> String {
        match &tree.files().next().unwrap().content {
            Content::Text { source, .. } => source.text.to_string(),
            Content::Unreadable(problem) => panic!("{problem:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_being_written_at_startup_is_read_when_complete() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = File::create(directory.path().join("a.yaml")).unwrap();
        file.write_all(b"a: 1\n").unwrap();
        let (told, mut trees) = mpsc::unbounded_channel();
        let root = Root::from(directory.path());
        let looking = tokio::spawn(async move { out(root, |tree, _| told.send(tree).is_ok()).await });
        // A slow writer: ten chunks in half a second.
        let writer = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for piece in 0..10 {
                pace.tick().await;
                writeln!(file, "p{piece}: 1").unwrap();
            }
        });
        let first = trees.recv().await.unwrap();
        writer.await.unwrap();
        let whole = fs::read_to_string(directory.path().join("a.yaml")).unwrap();
        assert_eq!(text(&first), whole, "the first that is told");
        looking.abort();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn settled_files_are_read_without_delay() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("a.yaml")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(1)).unwrap();
        drop(file);
        // A busy machine may delay some of the attempts.
        let mut took = Vec::new();
        while took.iter().all(|took| *took >= QUIET) {
            assert!(took.len() < 10, "{took:?}");
            let started = Instant::now();
            first(Root::from(directory.path())).await.unwrap();
            took.push(started.elapsed());
        }
    }
}
