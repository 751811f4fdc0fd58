//! What came and went between two walks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::settle::{QUIET, Settle};
use crate::source::layout::Layout;

/// Tells `settle` how the files of `new` differ from those of `old`.
///
/// Real paths in `disturbed`, and those below them, may lead to another file than before.
pub(super) fn compare(old: &Layout, new: &Layout, disturbed: &BTreeSet<PathBuf>, now: Instant, settle: &mut Settle) {
    let is_disturbed = |real: &Path| !disturbed.is_empty() && real.ancestors().any(|path| disturbed.contains(path));
    for (shown, real) in &new.files {
        match old.files.get(shown) {
            // A link that leads elsewhere now was swapped when all was in place.
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

/// When the file was last changed, if that is so short ago that someone may be writing it.
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

/// A file that no event has told of: whether it is whole is for its age to say.
fn found(shown: &Path, real: &Path, now: Instant, settle: &mut Settle) {
    if settle.is_ready(shown) {
        return;
    }
    match changed_lately(real, now) {
        Some(changed) => settle.written(shown.to_owned(), changed),
        None => settle.whole(shown.to_owned(), now),
    }
}
