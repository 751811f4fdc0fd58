//! The live directory: the checkout's own, or a copy of it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::{self, Object, ReadOptions};
use crate::diag::Diagnostic;
use crate::source::document;
use crate::source::tree::{Content, Tree};

/// Where the directory is in a checkout.
const IN_CHECKOUT: &str = "examples/bookinfo/config";

/// The files of the directory, for a binary without a checkout.
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

/// The checkout's directory: that of the current directory, else that of the checkout the program was
/// built in. The path is as short as it can be, since users are shown it.
pub(super) fn of_checkout(current: &Path, built_in: &Path) -> Option<PathBuf> {
    if current.join(IN_CHECKOUT).is_dir() {
        return Some(IN_CHECKOUT.into());
    }
    let built_in = built_in.join(IN_CHECKOUT);
    let below = built_in.strip_prefix(current).map(Path::to_owned);
    built_in.is_dir().then(|| below.unwrap_or(built_in))
}

/// Writes a copy of the directory into `folder`, and says where.
///
/// # Errors
/// When it cannot be written.
pub(super) fn copy_into(folder: &Path) -> io::Result<PathBuf> {
    let directory = folder.join("config");
    fs::create_dir_all(directory.join("workloads"))?;
    for (name, text) in FILES {
        fs::write(directory.join(name), text)?;
    }
    Ok(directory)
}

/// What a directory holds, and what is wrong with its files as such.
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

/// When a directory was changed last, by the inodes of its files and folders: writing, renaming,
/// linking and deleting all show there. `None` while there is nothing.
pub(super) fn last_change(directory: &Path) -> Option<SystemTime> {
    /// No sample is deeper, and links can lead in circles.
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
    fn the_copy_is_the_whole_directory() {
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
    fn the_checkout_at_hand_comes_first_and_paths_are_short() {
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
    fn every_kind_of_edit_is_a_change() {
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
            // The system's clock for files moves in steps.
            while last_change(folder.path()).unwrap() == before {
                edit().or_else(|_| fs::write(below.join("file"), "")).unwrap();
                let _ = fs::remove_file(below.join("link"));
            }
        }
    }
}
