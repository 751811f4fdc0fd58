//! Log files and the lines waiting to be written to them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::writer::Writer;

/// So many bytes are written without waiting for more: as in Envoy.
const FULL: usize = 64 << 10;

/// So many bytes may wait, for a slow disk.
const MOST: usize = 4 << 20;

/// Appends lines to a target. All logs of the same target share one output, so that their lines stay in order.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    output: Arc<Output>,
}

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, in append mode.
    File(PathBuf),
}

/// How many times reopening has been requested.
static REOPENED: AtomicU64 = AtomicU64::new(0);

/// Lines dropped because too many were waiting.
static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Sink {
    /// Opens a target.
    ///
    /// # Errors
    /// If a file cannot be opened.
    pub(crate) fn open(target: &Target) -> io::Result<Self> {
        static OPEN: OnceLock<Mutex<HashMap<Target, Weak<Output>>>> = OnceLock::new();
        let mut open = lock(OPEN.get_or_init(Mutex::default));
        if let Some(output) = open.get(target).and_then(Weak::upgrade) {
            return Ok(Self { output });
        }
        let output = Arc::new(Output {
            waiting: Mutex::default(),
            writing: Mutex::new((Medium::open(target)?, String::new())),
        });
        open.retain(|_, output| output.strong_count() > 0);
        open.insert(target.clone(), Arc::downgrade(&output));
        Ok(Self { output })
    }

    /// Takes a line, which is written soon.
    pub(crate) fn write(&self, line: &str) {
        let (before, after) = {
            let mut waiting = lock(&self.output.waiting);
            let before = waiting.len();
            if before + line.len() > MOST {
                DROPPED.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push_str(line);
            (before, waiting.len())
        };
        if before == 0 && after > 0 {
            Writer::get().begin(self.output.clone());
        }
        if before < FULL && after >= FULL {
            Writer::get().hurry();
        }
    }

    /// Waits until all lines are written, or until the limit, before the process ends.
    pub(crate) fn finish_all(limit: Duration) {
        Writer::finish(limit);
    }

    /// Has every file reopened before the next lines are written, so that a rotated file gets no more lines.
    pub(crate) fn reopen_files() {
        REOPENED.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lines have been dropped.
    pub(crate) fn dropped() -> u64 {
        DROPPED.load(Ordering::Relaxed)
    }
}

/// A target with its waiting lines.
#[derive(Debug)]
pub(super) struct Output {
    waiting: Mutex<String>,
    /// Held while writing; the buffer swaps with the other one.
    writing: Mutex<(Medium, String)>,
}

#[derive(Debug)]
enum Medium {
    Stdout,
    Stderr,
    /// A file, and the value of [`REOPENED`] when it was opened.
    File(PathBuf, u64, File),
}

impl Output {
    /// Writes the waiting lines.
    pub(super) fn write_out(&self) {
        let (medium, text) = &mut *lock(&self.writing);
        std::mem::swap(text, &mut *lock(&self.waiting));
        // A full disk or closed pipe must not stop the proxy; the next write may succeed.
        if let Err(error) = medium.write_all(text.as_bytes()) {
            tracing::debug!(%error, "an access log cannot be written");
        }
        text.clear();
        text.shrink_to(2 * FULL);
    }
}

impl Medium {
    fn open(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::Stdout => Self::Stdout,
            Target::Stderr => Self::Stderr,
            Target::File(path) => Self::File(path.clone(), REOPENED.load(Ordering::Relaxed), append(path)?),
        })
    }

    fn write_all(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(text).and_then(|()| io::stdout().flush()),
            Self::Stderr => io::stderr().lock().write_all(text),
            Self::File(path, generation, file) => {
                let wanted = REOPENED.load(Ordering::Relaxed);
                if *generation != wanted {
                    // If that fails, lines still go to the old file.
                    match append(path) {
                        Ok(opened) => *file = opened,
                        Err(error) => {
                            tracing::warn!(%error, path = %path.display(), "failed to reopen an access log")
                        }
                    }
                    *generation = wanted;
                }
                file.write_all(text)
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn opened(path: &Path) -> Sink {
        Sink::open(&Target::File(path.to_owned())).unwrap()
    }

    #[test]
    fn every_line_is_written_whole_and_those_of_one_thread_in_order() {
        const LINES: usize = 2_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let threads = (0..4).map(|thread| {
            let sink = opened(&path);
            std::thread::spawn(move || {
                (0..LINES).for_each(|line| sink.write(&format!("{thread} {line} {}\n", "x".repeat(line % 300))));
            })
        });
        threads
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        Sink::finish_all(PATIENCE);
        let written = fs::read_to_string(&path).unwrap();
        let mut next = [0; 4];
        for line in written.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [thread, number, filling] = words[..] else {
                panic!("torn: {line}");
            };
            let next = &mut next[thread.parse::<usize>().unwrap()];
            assert_eq!((number.parse(), filling.len()), (Ok(*next), *next % 300));
            *next += 1;
        }
        assert_eq!(next, [LINES; 4]);
    }

    #[test]
    fn a_file_that_was_moved_away_gets_no_more_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let sink = opened(&path);
        sink.write("before\n");
        Sink::finish_all(PATIENCE);
        fs::rename(&path, &moved).unwrap();
        Sink::reopen_files();
        sink.write("after\n");
        Sink::finish_all(PATIENCE);
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!((read(&moved).as_str(), read(&path).as_str()), ("before\n", "after\n"));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_rest_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sink = opened(&path);
        let before = Sink::dropped();
        let line = format!("{}\n", "x".repeat(MOST / 4));
        {
            // Nobody writes meanwhile.
            let _writing = lock(&sink.output.writing);
            (0..5).for_each(|_| sink.write(&line));
        }
        Sink::finish_all(PATIENCE);
        let written = fs::read_to_string(&path).unwrap().lines().count() as u64;
        assert_eq!((written, Sink::dropped() - before), (3, 2));
    }
}
