//! Differences between two walks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::settle::{QUIET, SettlingFiles};
use crate::source::layout::Layout;

/// Reports to `settle` how the files of `new` differ from those of `old`.
///
/// Real paths in `disturbed`, and paths below them, may lead to other files than before.
pub(super) fn compare(
    old: &Layout,
    new: &Layout,
    disturbed: &BTreeSet<PathBuf>,
    now: Instant,
    settle: &mut SettlingFiles,
) {
    let is_disturbed = |real: &Path| !disturbed.is_empty() && real.ancestors().any(|path| disturbed.contains(path));
    for (shown, real) in &new.files {
        match old.files.get(shown) {
            // A link that was switched to another target: the file is complete.
            Some(before) if before != real => settle.whole(shown.clone(), now),
            Some(_) if !is_disturbed(real) => {}
            Some(_) | None => found(shown, real, now, settle),
        }
    }
    for shown in old.files.keys() {
        if !new.files.contains_key(shown) && !new.is_unknown(shown) {
            settle.gone(shown.clone(), now);
        }
    }
    if old.unreadable != new.unreadable {
        settle.everything(now);
    }
}

/// The time of the last change, if so recent that the file may still be being written.
pub(super) fn changed_lately(real: &Path, now: Instant) -> Option<Instant> {
    let metadata = fs::metadata(real).ok()?;
    let since_epoch = Duration::new(
        metadata.ctime().try_into().ok()?,
        metadata.ctime_nsec().try_into().ok()?,
    );
    let age = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH + since_epoch)
        .ok()?;
    (age < QUIET).then(|| now.checked_sub(age)).flatten()
}

/// A file found without an event; its age tells whether it is complete.
fn found(shown: &Path, real: &Path, now: Instant, settle: &mut SettlingFiles) {
    if settle.is_ready(shown) {
        return;
    }
    match changed_lately(real, now) {
        Some(changed) => settle.seen_changed(shown.to_owned(), changed),
        None => settle.whole(shown.to_owned(), now),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;

    use super::*;

    fn layout(files: &[(&str, &Path)], unreadable: &[&str]) -> Layout {
        let files = files
            .iter()
            .map(|(shown, real)| (PathBuf::from(shown), real.to_path_buf()));
        let unreadable = unreadable.iter().map(|path| (PathBuf::from(path), String::new()));
        Layout {
            files: files.collect(),
            unreadable: unreadable.collect::<BTreeMap<_, _>>(),
            ..Layout::default()
        }
    }

    /// Files that are ready at once, and those settled after the longest wait.
    fn compared(old: &Layout, new: &Layout, disturbed: &[&Path]) -> (Vec<String>, Vec<String>) {
        let (mut settle, now) = (SettlingFiles::default(), Instant::now());
        let disturbed = disturbed.iter().map(|path| path.to_path_buf()).collect();
        compare(old, new, &disturbed, now, &mut settle);
        let mut taken = |at| {
            let dirty = settle.take(at).unwrap_or_default();
            let everything = dirty.full.then(|| "everything".to_owned());
            dirty
                .paths
                .iter()
                .map(|path| path.display().to_string())
                .chain(everything)
                .collect()
        };
        (
            taken(now + Duration::from_millis(2)),
            taken(now + Duration::from_secs(1)),
        )
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_new_file_is_delayed_only_if_recently_written() {
        let directory = tempfile::tempdir().unwrap();
        let young = directory.path().join("young");
        File::create(&young).unwrap();
        let gone_again = directory.path().join("none");
        let new = layout(&[("none", &gone_again), ("young", &young)], &[]);
        let created = Instant::now();
        let (at_once, later) = compared(&Layout::default(), &new, &[]);
        if created.elapsed() < QUIET {
            assert_eq!((at_once, later), (names(&["none"]), names(&["young"])));
        }
    }

    #[test]
    fn a_retargeted_link_is_ready_at_once() {
        let old = layout(&[("a", Path::new("/1/a")), ("b", Path::new("/1/b"))], &[]);
        let new = layout(&[("a", Path::new("/2/a")), ("b", Path::new("/1/b"))], &[]);
        assert_eq!(compared(&old, &new, &[]), (names(&["a"]), names(&[])));
    }

    #[test]
    fn a_path_in_a_replaced_directory_is_checked_again() {
        let both = layout(&[("a", Path::new("/1/d/a")), ("b", Path::new("/1/b"))], &[]);
        assert_eq!(
            compared(&both, &both, &[Path::new("/1/d")]),
            (names(&["a"]), names(&[]))
        );
    }

    #[test]
    fn unlistable_directories_do_not_remove_files() {
        let old = layout(&[("d/a", Path::new("/d/a")), ("e/a", Path::new("/e/a"))], &[]);
        let new = layout(&[], &["d"]);
        assert_eq!(compared(&old, &new, &[]), (names(&["everything"]), names(&["e/a"])));
    }
}
