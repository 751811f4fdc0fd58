//! Decides when a change is complete. Pure: time is a parameter.
//!
//! ```text
//!              written           5 s (100 ms if polled) without change
//!   (nothing) ────────→ writing ─────────────────────────────────→ ready ──tick──→ (nothing)
//!       │                 ↑ │ closed, renamed into place             ↑ ↑
//!       │         written │ └────────────────────────────────────────┘ │
//!       └─────────────→ gone ──────────── 150 ms without return ───────┘
//! ```
//!
//! A tick covers all ready files, 1.5 ms after the last one became ready, or 50 ms after the first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::source::Dirty;

/// How long a tick is delayed after the last file became ready.
const SETTLE: Duration = Duration::from_micros(1500);

/// Maximum delay of a tick.
const SETTLE_AT_MOST: Duration = Duration::from_millis(50);

/// A file whose close events are unavailable counts as complete after this time without change.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// A file whose close event is expected counts as complete after this time without change. A slow
/// writer may leave partial content that parses, but may also never close the file.
pub(super) const UNCLOSED: Duration = Duration::from_secs(5);

/// How long a file must be gone to count as removed, since editors and scripts replace files by
/// removing them first. Longer than [`QUIET`], so that a renamed file appears under its new name
/// first.
const GONE: Duration = Duration::from_millis(150);

/// The files that are changing.
#[derive(Debug, Default)]
pub(super) struct SettlingFiles {
    ready: BTreeSet<PathBuf>,
    /// Files being written.
    writing: BTreeMap<PathBuf, Writing>,
    /// Removed files and when they were removed.
    gone: BTreeMap<PathBuf, Instant>,
    full: bool,
    /// When the first and last file became ready since the last tick.
    window: Option<(Instant, Instant)>,
}

/// A file being written.
#[derive(Clone, Copy, Debug)]
struct Writing {
    /// Time of the last change.
    changed: Instant,
    /// How long without change until it counts as complete.
    patience: Duration,
}

impl Writing {
    fn due(&self) -> Instant {
        self.changed + self.patience
    }
}

impl SettlingFiles {
    /// The file is complete: closed after writing, or renamed or linked into place.
    pub(super) fn whole(&mut self, path: PathBuf, now: Instant) {
        self.writing.remove(&path);
        self.gone.remove(&path);
        self.ready.insert(path);
        self.extend(now);
    }

    /// The file is being written, and a close event is expected.
    pub(super) fn written(&mut self, path: PathBuf, now: Instant) {
        self.changed(path, now, UNCLOSED);
    }

    /// The file changed at `changed`; whether it is still being written is unknown.
    pub(super) fn seen_changed(&mut self, path: PathBuf, changed: Instant) {
        self.changed(path, changed, QUIET);
    }

    /// Metadata of the file changed, such as permissions or times.
    pub(super) fn touched(&mut self, path: PathBuf, now: Instant) {
        if !self.ready.contains(&path) {
            self.seen_changed(path, now);
        }
    }

    fn changed(&mut self, path: PathBuf, changed: Instant, patience: Duration) {
        self.ready.remove(&path);
        self.gone.remove(&path);
        let writing = self.writing.entry(path).or_insert(Writing { changed, patience });
        writing.changed = changed.max(writing.changed);
        writing.patience = patience.max(writing.patience);
    }

    /// The file was removed.
    pub(super) fn gone(&mut self, path: PathBuf, now: Instant) {
        self.ready.remove(&path);
        self.writing.remove(&path);
        self.gone.entry(path).or_insert(now);
    }

    /// A removed file has appeared under another name, so its return is not awaited.
    pub(super) fn moved(&mut self, path: &Path, now: Instant) {
        if self.gone.contains_key(path) {
            self.whole(path.to_owned(), now);
        }
    }

    /// Anything may have changed.
    pub(super) fn everything(&mut self, now: Instant) {
        self.full = true;
        self.extend(now);
    }

    /// Whether the file is complete and waits for the tick.
    pub(super) fn is_ready(&self, path: &Path) -> bool {
        self.ready.contains(path)
    }

    /// Whether the file is being written.
    pub(super) fn is_written(&self, path: &Path) -> bool {
        self.writing.contains_key(path)
    }

    /// Whether any file is being written.
    pub(super) fn is_any_written(&self) -> bool {
        !self.writing.is_empty()
    }

    /// When [`SettlingFiles::take`] will return a tick.
    pub(super) fn due(&self) -> Option<Instant> {
        let quiet = self.writing.values().map(Writing::due).min();
        let gone = self.gone.values().min().map(|since| *since + GONE);
        [self.ready_due(), quiet, gone].into_iter().flatten().min()
    }

    /// The tick, if it is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Dirty> {
        let late = self.give_up_waiting(now);
        if !late && self.ready_due().is_none_or(|due| now < due) {
            return None;
        }
        self.window = None;
        Some(Dirty {
            paths: std::mem::take(&mut self.ready),
            full: std::mem::take(&mut self.full),
            unsettled: self.writing.keys().chain(self.gone.keys()).cloned().collect(),
        })
    }

    fn ready_due(&self) -> Option<Instant> {
        if self.ready.is_empty() && !self.full {
            return None;
        }
        self.window
            .map(|(first, last)| (first + SETTLE_AT_MOST).min(last + SETTLE))
    }

    /// Makes files ready that have been unchanged or gone long enough; returns whether there were
    /// any.
    fn give_up_waiting(&mut self, now: Instant) -> bool {
        let mut late: Vec<PathBuf> = self
            .writing
            .extract_if(.., |_, writing| now >= writing.due())
            .map(|(path, _)| path)
            .collect();
        late.extend(
            self.gone
                .extract_if(.., |_, at| now >= *at + GONE)
                .map(|(path, _)| path),
        );
        let any = !late.is_empty();
        self.ready.extend(late);
        any
    }

    /// The window stays open if its files are written again, so a file that is written continuously
    /// is read as soon as it is complete.
    fn extend(&mut self, now: Instant) {
        let first = self.window.map_or(now, |(first, _)| first);
        self.window = Some((first, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock(Instant);

    impl Clock {
        fn at(&self, micros: u64) -> Instant {
            self.0 + Duration::from_micros(micros)
        }
    }

    fn start() -> (SettlingFiles, Clock) {
        (SettlingFiles::default(), Clock(Instant::now()))
    }

    fn taken(settle: &mut SettlingFiles, now: Instant) -> Vec<String> {
        let paths = settle.take(now).map(|dirty| dirty.paths).unwrap_or_default();
        paths.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_closed_file_is_due_after_the_settling_time() {
        let (mut settle, clock) = start();
        settle.written("a".into(), clock.at(0));
        settle.whole("a".into(), clock.at(10));
        assert_eq!(settle.due(), Some(clock.at(1510)));
        assert_eq!(settle.take(clock.at(1509)), None);
        assert_eq!(taken(&mut settle, clock.at(1510)), ["a"]);
        assert_eq!((settle.due(), settle.take(clock.at(9999))), (None, None));
    }

    #[test]
    fn a_burst_is_one_tick_up_to_the_maximum_delay() {
        let (mut settle, clock) = start();
        for step in 0..49 {
            settle.whole(format!("{step:02}").into(), clock.at(step * 1000));
            assert_eq!(settle.take(clock.at(step * 1000)), None);
        }
        assert_eq!(settle.due(), Some(clock.at(49_500)));
        settle.whole("49".into(), clock.at(49_000));
        assert_eq!(settle.due(), Some(clock.at(50_000)));
        assert_eq!(taken(&mut settle, clock.at(50_000)).len(), 50);
    }

    #[test]
    fn a_file_being_written_does_not_delay_others() {
        let (mut settle, clock) = start();
        settle.written("half".into(), clock.at(0));
        settle.whole("a".into(), clock.at(0));
        settle.everything(clock.at(0));
        let dirty = settle.take(clock.at(1500)).unwrap();
        assert_eq!(dirty.paths, BTreeSet::from(["a".into()]));
        assert_eq!((dirty.full, dirty.unsettled), (true, BTreeSet::from(["half".into()])));
        settle.written("half".into(), clock.at(90_000));
        assert_eq!(settle.take(clock.at(5_089_999)), None);
        assert_eq!(taken(&mut settle, clock.at(5_090_000)), ["half"]);
    }

    #[test]
    fn without_close_events_the_wait_is_shorter() {
        let (mut settle, clock) = start();
        settle.seen_changed("a".into(), clock.at(0));
        settle.seen_changed("a".into(), clock.at(90_000));
        settle.written("open".into(), clock.at(0));
        settle.seen_changed("open".into(), clock.at(10_000));
        assert_eq!(settle.due(), Some(clock.at(190_000)));
        assert_eq!(settle.take(clock.at(189_999)), None);
        assert_eq!(
            taken(&mut settle, clock.at(190_000)),
            ["a"],
            "the close of the other will come"
        );
        assert_eq!(taken(&mut settle, clock.at(5_010_000)), ["open"]);
    }

    #[test]
    fn a_ready_file_that_is_written_again_waits_again() {
        let (mut settle, clock) = start();
        settle.whole("a".into(), clock.at(0));
        settle.written("a".into(), clock.at(1000));
        assert_eq!(settle.take(clock.at(60_000)), None);
        settle.whole("a".into(), clock.at(60_000));
        assert_eq!(
            taken(&mut settle, clock.at(60_000)),
            ["a"],
            "its window opened long ago"
        );
    }

    #[test]
    fn metadata_changes_do_not_delay_ready_files() {
        let (mut settle, clock) = start();
        settle.whole("a".into(), clock.at(0));
        settle.touched("a".into(), clock.at(100));
        settle.touched("b".into(), clock.at(100));
        assert_eq!(taken(&mut settle, clock.at(1500)), ["a"]);
        assert_eq!(taken(&mut settle, clock.at(100_100)), ["b"]);
    }

    #[test]
    fn a_file_that_reappears_is_not_removed() {
        let (mut settle, clock) = start();
        settle.gone("a".into(), clock.at(0));
        settle.gone("b".into(), clock.at(0));
        assert!(settle.take(clock.at(10_000)).is_none());
        settle.written("a".into(), clock.at(149_000));
        assert_eq!(taken(&mut settle, clock.at(150_000)), ["b"]);
        settle.whole("a".into(), clock.at(151_000));
        assert_eq!(taken(&mut settle, clock.at(152_500)), ["a"]);
    }

    #[test]
    fn both_ends_of_a_rename_are_in_one_tick() {
        let (mut settle, clock) = start();
        settle.gone("a".into(), clock.at(0));
        settle.whole("b".into(), clock.at(0));
        settle.moved(Path::new("a"), clock.at(0));
        settle.moved(Path::new("c"), clock.at(0));
        assert_eq!(taken(&mut settle, clock.at(1500)), ["a", "b"]);
    }
}
