//! Kernel watches.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::{Config, ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::source::layout::{Identity, Layout};

/// Callback for events, on a thread of its own.
pub(super) type Handler = Box<dyn FnMut(notify::Result<Event>) + Send>;

/// The watched paths, non-recursively: real directories, and files not covered by the events of a
/// directory.
pub(super) struct Armed {
    kernel: RecommendedWatcher,
    watched: BTreeMap<PathBuf, Identity>,
}

impl Armed {
    /// Without watches yet.
    ///
    /// # Errors
    ///
    /// If file events are unavailable, e.g. because `fs.inotify.max_user_instances` is reached.
    pub(super) fn new(handler: Handler) -> notify::Result<Self> {
        Ok(Self {
            kernel: RecommendedWatcher::new(handler, Config::default())?,
            watched: BTreeMap::new(),
        })
    }

    /// Watches exactly what the layout depends on. Returns whether a watch was added: earlier
    /// changes there may have been missed.
    ///
    /// # Errors
    ///
    /// If a watch cannot be added, e.g. because `fs.inotify.max_user_watches` is reached. Existing
    /// watches are kept.
    pub(super) fn arm(&mut self, layout: &Layout) -> notify::Result<bool> {
        let wanted = wanted(layout);
        let obsolete: Vec<_> = self
            .watched
            .keys()
            .filter(|path| !wanted.contains_key(*path))
            .cloned()
            .collect();
        for path in obsolete {
            self.unwatch(&path);
        }
        let mut added = false;
        for (path, identity) in wanted {
            if self.watched.get(&path) != Some(&identity) {
                self.unwatch(&path);
                added |= self.watch(path, identity)?;
            }
        }
        Ok(added)
    }

    /// Records that the kernel or the library dropped the watches at and below a path, as they do
    /// when it is removed, renamed or replaced. Returns whether there were any.
    pub(super) fn forget(&mut self, path: &Path) -> bool {
        let at_or_below = |(watched, _): &(&PathBuf, &Identity)| watched.starts_with(path);
        let lost: Vec<_> = self
            .watched
            .range(path.to_owned()..)
            .take_while(at_or_below)
            .map(|(path, _)| path.clone())
            .collect();
        for path in &lost {
            self.watched.remove(path);
        }
        !lost.is_empty()
    }

    fn watch(&mut self, path: PathBuf, identity: Identity) -> notify::Result<bool> {
        match self.kernel.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(path, identity);
                Ok(true)
            }
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The library may have dropped the watch already, or have one that was forgotten here, so
    /// errors are ignored.
    fn unwatch(&mut self, path: &Path) {
        self.watched.remove(path);
        let _ = self.kernel.unwatch(path);
    }
}

/// A path that no longer exists needs no watch: that of its parent reports its return.
fn is_absent(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn wanted(layout: &Layout) -> BTreeMap<PathBuf, Identity> {
    let listed = layout
        .directories
        .iter()
        .map(|(path, directory)| (path.clone(), directory.identity));
    let parents: BTreeSet<_> = layout.waypoints.keys().filter_map(|path| path.parent()).collect();
    let others = parents
        .into_iter()
        .chain(layout.lone_files.iter().map(PathBuf::as_path));
    let others = others.filter(|path| !layout.directories.contains_key(*path));
    let identified = others.filter_map(|path| Some((path.to_owned(), identity(path)?)));
    listed.chain(identified).collect()
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
