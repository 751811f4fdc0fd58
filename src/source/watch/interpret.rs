//! Interprets events at real paths in terms of shown files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::settle::SettlingFiles;
use super::sighting::{Kind, PathEvent};
use crate::source::layout::{Layout, is_hidden, is_input_name};

/// Reports the files affected by an event to `settle` and updates the files of the layout. Returns
/// whether the root must be walked again because more than files may have changed.
pub(super) fn interpret(sighting: &PathEvent, layout: &mut Layout, settle: &mut SettlingFiles, now: Instant) -> bool {
    let path = &sighting.path;
    let mut structural = sighting.kind == Kind::Touched && !layout.unreadable.is_empty();
    if let Some(shown) = shown(layout, path) {
        structural |= entry(sighting, shown, layout, settle, now);
    }
    for shown in layout.waypoints.get(path).cloned().unwrap_or_default() {
        structural |= waypoint(sighting, shown, layout, settle, now);
    }
    structural
}

/// The shown path of an entry in a listed directory.
fn shown(layout: &Layout, real: &Path) -> Option<PathBuf> {
    let name = real.file_name().filter(|name| !is_hidden(name))?;
    Some(layout.directories.get(real.parent()?)?.shown.join(name))
}

/// An event of an entry in a listed directory.
fn entry(sighting: &PathEvent, shown: PathBuf, layout: &mut Layout, settle: &mut SettlingFiles, now: Instant) -> bool {
    let path = &sighting.path;
    let is_file = layout.files.get(&shown) == Some(path);
    match &sighting.kind {
        Kind::Created | Kind::Arrived => return came(sighting, shown, layout, settle, now),
        Kind::Left if is_file => {
            layout.files.remove(&shown);
            settle.gone(shown, now);
        }
        Kind::Left => return layout.files.contains_key(&shown),
        Kind::Moved(to) => {
            if self::shown(layout, to).is_some_and(|to| layout.files.contains_key(&to)) {
                settle.moved(&shown, now);
            }
        }
        Kind::Written | Kind::Closed | Kind::Touched if is_file => changed(&sighting.kind, shown, settle, now),
        Kind::Written | Kind::Closed | Kind::Touched => {}
    }
    false
}

/// A new entry in a listed directory; anything but a regular file requires a walk.
fn came(sighting: &PathEvent, shown: PathBuf, layout: &mut Layout, settle: &mut SettlingFiles, now: Instant) -> bool {
    let path = &sighting.path;
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    if metadata.is_dir() || metadata.is_symlink() || path.file_name().is_some_and(|name| layout.is_mark(name)) {
        return true;
    }
    let is_input = metadata.is_file() && path.file_name().is_some_and(is_input_name);
    if is_input {
        layout.files.insert(shown.clone(), path.clone());
        match sighting.kind == Kind::Arrived || metadata.nlink() > 1 {
            true => settle.whole(shown, now),
            false => settle.written(shown, now),
        }
    }
    false
}

/// An event of a waypoint.
fn waypoint(sighting: &PathEvent, shown: PathBuf, layout: &Layout, settle: &mut SettlingFiles, now: Instant) -> bool {
    let path = &sighting.path;
    let is_end = layout.files.get(&shown) == Some(path);
    let is_plain = || fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    match &sighting.kind {
        Kind::Written | Kind::Closed | Kind::Touched if is_end => changed(&sighting.kind, shown, settle, now),
        Kind::Created if is_end && is_plain() => settle.written(shown, now),
        Kind::Arrived if is_end && is_plain() => settle.whole(shown, now),
        Kind::Left if is_end => settle.gone(shown, now),
        Kind::Created | Kind::Arrived | Kind::Left => return true,
        Kind::Written | Kind::Closed | Kind::Touched | Kind::Moved(_) => {}
    }
    false
}

fn changed(kind: &Kind, shown: PathBuf, settle: &mut SettlingFiles, now: Instant) {
    match kind {
        Kind::Closed => settle.whole(shown, now),
        Kind::Touched => settle.touched(shown, now),
        Kind::Written | Kind::Created | Kind::Arrived | Kind::Left | Kind::Moved(_) => settle.written(shown, now),
    }
}
