//! The demo's live configuration directory: that of the checkout, or a copy of it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::{self, Object, ReadOptions};
use crate::diag::Diagnostic;
use crate::source::document;
use crate::source::tree::{Content, Tree};

/// Path within a checkout.
const IN_CHECKOUT: &str = "examples/bookinfo/config";

/// The directory's files, embedded for use without a checkout.
const FILES: [(&str, &str); 5] = [
    (
        "reviews.yaml",
        include_str!("../../../examples/bookinfo/config/reviews.yaml"),
    ),
    (
        "security.yaml",
        include_str!("../../../examples/bookinfo/config/security.yaml"),
    ),
    (
        "services.yaml",
        include_str!("../../../examples/bookinfo/config/services.yaml"),
    ),
    (
        "workloads/sidecars.yaml",
        include_str!("../../../examples/bookinfo/config/workloads/sidecars.yaml"),
    ),
    (
        "workloads/workloads.yaml",
        include_str!("../../../examples/bookinfo/config/workloads/workloads.yaml"),
    ),
];

/// The directory in the current checkout, otherwise in the checkout the program was built from. The path is
/// relative if possible, since it is shown to the user.
pub(super) fn of_checkout(current: &Path, built_in: &Path) -> Option<PathBuf> {
    if current.join(IN_CHECKOUT).is_dir() {
        return Some(IN_CHECKOUT.into());
    }
    let built_in = built_in.join(IN_CHECKOUT);
    let below = built_in.strip_prefix(current).map(Path::to_owned);
    built_in.is_dir().then(|| below.unwrap_or(built_in))
}

/// Copies the embedded directory into `folder` and returns its path.
///
/// # Errors
/// If it cannot be written.
pub(super) fn copy_into(folder: &Path) -> io::Result<PathBuf> {
    let directory = folder.join("config");
    fs::create_dir_all(directory.join("workloads"))?;
    for (name, text) in FILES {
        fs::write(directory.join(name), text)?;
    }
    Ok(directory)
}

/// The objects in a directory, and the diagnostics of reading them.
pub(super) fn objects(directory: &Path) -> (Vec<Object>, Vec<Diagnostic>) {
    let (mut objects, mut diagnostics) = (Vec::new(), Vec::new());
    for file in Tree::scan(&directory.into()).files() {
        match &file.content {
            Content::Text { source, .. } => {
                for document in document::split(source) {
                    let read = api::read(&document, &ReadOptions::default());
                    objects.extend(read.objects);
                    diagnostics.extend(read.diagnostics);
                }
            }
            Content::Unreadable(diagnostic) => diagnostics.push(diagnostic.clone()),
        }
    }
    (objects, diagnostics)
}

/// The latest status change (ctime) of the directory's files and subdirectories, which covers writes,
/// renames, links and deletions. `None` if the directory does not exist.
pub(super) fn last_change(directory: &Path) -> Option<SystemTime> {
    /// Bounds recursion, as symbolic links can form cycles.
    const DEPTH: usize = 8;
    fn latest(path: &Path, depth: usize) -> Option<SystemTime> {
        let link = fs::symlink_metadata(path).ok()?;
        let target = fs::metadata(path).ok();
        let own = target.iter().chain([&link]).filter_map(changed).max();
        let is_folder = depth < DEPTH && target.is_some_and(|target| target.is_dir());
        let entries = is_folder
            .then(|| fs::read_dir(path).ok())
            .flatten()
            .into_iter()
            .flatten();
        entries
            .filter_map(|entry| latest(&entry.ok()?.path(), depth + 1))
            .chain(own)
            .max()
    }
    latest(directory, 0)
}

fn changed(metadata: &fs::Metadata) -> Option<SystemTime> {
    let (seconds, nanos) = (
        u64::try_from(metadata.ctime()).ok()?,
        u32::try_from(metadata.ctime_nsec()).ok()?,
    );
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let copy = copy_into(folder.path()).unwrap();
        let listing = |path: &Path| {
            let tree = Tree::scan(&path.into());
            let paths = tree.files().map(|file| PathBuf::from(&*file.origin));
            let files = paths.map(|file| (file.strip_prefix(path).unwrap().to_owned(), fs::read(&file).unwrap()));
            files.collect::<Vec<_>>()
        };
        assert_eq!(
            listing(&copy),
            listing(&Path::new(env!("CARGO_MANIFEST_DIR")).join(IN_CHECKOUT))
        );
    }

    #[test]
    fn the_current_checkout_takes_precedence_and_paths_are_relative() {
        let (here, built) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(of_checkout(here.path(), built.path()), None);
        fs::create_dir_all(built.path().join(IN_CHECKOUT)).unwrap();
        assert_eq!(
            of_checkout(here.path(), built.path()),
            Some(built.path().join(IN_CHECKOUT))
        );
        assert_eq!(
            of_checkout(&built.path().join("examples"), built.path()),
            Some("bookinfo/config".into())
        );
        fs::create_dir_all(here.path().join(IN_CHECKOUT)).unwrap();
        assert_eq!(of_checkout(here.path(), built.path()), Some(IN_CHECKOUT.into()));
    }

    #[test]
    fn every_kind_of_edit_changes_the_timestamp() {
        let folder = tempfile::tempdir().unwrap();
        let (below, elsewhere) = (folder.path().join("a/b"), tempfile::tempdir().unwrap());
        assert_eq!(last_change(&below), None);
        fs::create_dir_all(&below).unwrap();
        fs::write(elsewhere.path().join("new"), "").unwrap();
        let edits: [&dyn Fn() -> io::Result<()>; 4] = [
            &|| fs::write(below.join("file"), "text"),
            &|| fs::rename(elsewhere.path().join("new"), below.join("file")),
            &|| std::os::unix::fs::symlink("/nowhere", below.join("link")),
            &|| fs::remove_file(below.join("file")),
        ];
        for edit in edits {
            let before = last_change(folder.path()).unwrap();
            // File timestamps have a coarse granularity.
            while last_change(folder.path()).unwrap() == before {
                edit().or_else(|_| fs::write(below.join("file"), "")).unwrap();
                let _ = fs::remove_file(below.join("link"));
            }
        }
    }
}
