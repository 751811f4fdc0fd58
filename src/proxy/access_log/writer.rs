//! The thread that writes lines.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Lines that may wait to be written.
const QUEUE: usize = 16 * 1024;
/// Lines that are written at once, at most.
const BATCH: usize = 256;

/// Where lines go.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    target: Arc<Output>,
}

/// Where lines are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, which is appended to.
    File(PathBuf),
}

#[derive(Debug)]
enum Output {
    Stdout,
    Stderr,
    /// A file, with the generation of [`REOPENED`] that it was opened in.
    File(PathBuf, Mutex<(u64, File)>),
}

/// How often files were to be opened anew.
static REOPENED: AtomicU64 = AtomicU64::new(0);

/// Lines that were dropped because too many waited.
static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Sink {
    /// Opens a target.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(crate) fn open(target: &Target) -> io::Result<Self> {
        let output = match target {
            Target::Stdout => Output::Stdout,
            Target::Stderr => Output::Stderr,
            Target::File(path) => {
                let generation = REOPENED.load(Ordering::Relaxed);
                Output::File(path.clone(), Mutex::new((generation, append(path)?)))
            }
        };
        Ok(Self {
            target: Arc::new(output),
        })
    }

    /// Hands a line over.
    pub(crate) fn write(&self, line: String) {
        match queue().try_send((self.target.clone(), line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lets every file be opened anew before the next line is written to it, so that one that was moved away gets no
    /// more lines.
    pub(crate) fn reopen_files() {
        REOPENED.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lines were dropped so far.
    pub(crate) fn dropped() -> u64 {
        DROPPED.load(Ordering::Relaxed)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

type Line = (Arc<Output>, String);

/// The queue to the writing thread, which starts with the first line.
fn queue() -> &'static SyncSender<Line> {
    static QUEUE_OF_LINES: OnceLock<SyncSender<Line>> = OnceLock::new();
    QUEUE_OF_LINES.get_or_init(|| {
        let (send, receive) = sync_channel(QUEUE);
        let started = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&receive));
        if let Err(error) = started {
            // The receiver is gone: every line counts as dropped.
            tracing::error!(%error, "access logs cannot be written");
        }
        send
    })
}

fn write_lines(lines: &Receiver<Line>) {
    while let Ok(first) = lines.recv() {
        let mut texts: HashMap<*const Output, (Arc<Output>, String)> = HashMap::new();
        for (output, line) in std::iter::once(first).chain(lines.try_iter().take(BATCH)) {
            let (_, text) = texts
                .entry(Arc::as_ptr(&output))
                .or_insert_with(|| (output, String::new()));
            text.push_str(&line);
        }
        for (output, text) in texts.into_values() {
            // A full disk or a closed pipe must not end the proxy; the next line may fit again.
            if let Err(error) = output.write_all(text.as_bytes()) {
                tracing::debug!(%error, "an access log cannot be written");
            }
        }
    }
}

impl Output {
    fn write_all(&self, text: &[u8]) -> io::Result<()> {
        match self {
            Output::Stdout => io::stdout().lock().write_all(text).and_then(|()| io::stdout().flush()),
            Output::Stderr => io::stderr().lock().write_all(text),
            Output::File(path, file) => {
                let (generation, file) = &mut *file.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted = REOPENED.load(Ordering::Relaxed);
                if *generation != wanted {
                    // Where that cannot be done, the lines still go where they went.
                    match append(path) {
                        Ok(opened) => *file = opened,
                        Err(error) => {
                            tracing::warn!(%error, path = %path.display(), "an access log cannot be opened anew")
                        }
                    }
                    *generation = wanted;
                }
                file.write_all(text)
            }
        }
    }
}
