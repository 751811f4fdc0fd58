//! What the kernel tells, in the few words that matter here.

use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind};

/// Something that happened to a real path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was created; if it is a file, its content follows.
    Created,
    /// Its content changed.
    Written,
    /// It was closed by someone who could write.
    Closed,
    /// Its permissions or times changed.
    Touched,
    /// It came by a rename, whole.
    Arrived,
    /// It was removed or renamed away.
    Left,
    /// It went to this path; the two ends have been told separately.
    Moved(PathBuf),
}

/// Whether an event can tell anything. Reading a file is an event too, but not news.
pub(super) fn is_news(event: &Event) -> bool {
    event.need_rescan() || kind(event.kind).is_some() || is_rename_pair(event)
}

/// What an event says about each of its paths.
pub(super) fn sightings(event: Event) -> Vec<Sighting> {
    if is_rename_pair(&event) {
        return match <[PathBuf; 2]>::try_from(event.paths) {
            Ok([path, to]) => vec![Sighting {
                path,
                kind: Kind::Moved(to),
            }],
            Err(_) => Vec::new(),
        };
    }
    let Some(kind) = kind(event.kind) else {
        return Vec::new();
    };
    let sighting = |path| Sighting {
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
    fn reading_is_no_news_and_lost_events_are() {
        let opened = Event::new(EventKind::Access(AccessKind::Open(AccessMode::Any)));
        assert!(!is_news(&opened));
        assert!(is_news(&Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(is_news(&Event::new(EventKind::Create(CreateKind::File))));
        assert!(is_news(&Event::new(rename(RenameMode::Both))));
    }

    #[test]
    fn the_two_ends_of_a_rename_are_told_apart() {
        let seen = |mode, paths: &[&str]| {
            let event = paths
                .iter()
                .fold(Event::new(rename(mode)), |event, path| event.add_path(path.into()));
            sightings(event)
        };
        let sighting = |kind| {
            vec![Sighting {
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
