//! Kernel events, reduced to what is relevant here.

use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind};

/// An event at a real path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathEvent {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// The kind of event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Created; the content of a file follows.
    Created,
    /// Its content changed.
    Written,
    /// Closed after writing.
    Closed,
    /// Metadata changed.
    Touched,
    /// Renamed to this path, complete.
    Arrived,
    /// Removed, or renamed to another path.
    Left,
    /// Renamed to the given path; both ends are reported separately as well.
    Moved(PathBuf),
}

/// Whether an event may indicate a change; reads do not.
pub(super) fn is_news(event: &Event) -> bool {
    event.need_rescan() || kind(event.kind).is_some() || is_rename_pair(event)
}

/// The events at each of its paths.
pub(super) fn sightings(event: Event) -> Vec<PathEvent> {
    if is_rename_pair(&event) {
        return match <[PathBuf; 2]>::try_from(event.paths) {
            Ok([path, to]) => vec![PathEvent {
                path,
                kind: Kind::Moved(to),
            }],
            Err(_) => Vec::new(),
        };
    }
    let Some(kind) = kind(event.kind) else {
        return Vec::new();
    };
    let sighting = |path| PathEvent {
        path,
        kind: kind.clone(),
    };
    event.paths.into_iter().map(sighting).collect()
}

fn is_rename_pair(event: &Event) -> bool {
    event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::Both))
}

fn kind(kind: EventKind) -> Option<Kind> {
    match kind {
        EventKind::Create(_) => Some(Kind::Created),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Kind::Left),
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Modify(ModifyKind::Name(_)) => Some(Kind::Arrived),
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(Kind::Touched),
        EventKind::Modify(_) => Some(Kind::Written),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Kind::Closed),
        EventKind::Access(_) | EventKind::Any | EventKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag};

    use super::*;

    fn rename(mode: RenameMode) -> EventKind {
        EventKind::Modify(ModifyKind::Name(mode))
    }

    #[test]
    fn reads_are_ignored_and_overflows_are_not() {
        let opened = Event::new(EventKind::Access(AccessKind::Open(AccessMode::Any)));
        assert!(!is_news(&opened));
        assert!(is_news(&Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(is_news(&Event::new(EventKind::Create(CreateKind::File))));
        assert!(is_news(&Event::new(rename(RenameMode::Both))));
    }

    #[test]
    fn the_two_ends_of_a_rename_are_distinguished() {
        let seen = |mode, paths: &[&str]| {
            let event = paths
                .iter()
                .fold(Event::new(rename(mode)), |event, path| event.add_path(path.into()));
            sightings(event)
        };
        let sighting = |kind| {
            vec![PathEvent {
                path: "/a".into(),
                kind,
            }]
        };
        assert_eq!(seen(RenameMode::From, &["/a"]), sighting(Kind::Left));
        assert_eq!(seen(RenameMode::To, &["/a"]), sighting(Kind::Arrived));
        assert_eq!(
            seen(RenameMode::Both, &["/a", "/b"]),
            sighting(Kind::Moved("/b".into()))
        );
    }
}
