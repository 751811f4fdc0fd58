//! The thread that writes lines.
//!
//! A write for each line, or only a wake of the thread, would cost as much as the rest of a request. So lines gather in a
//! buffer of their file until there are [`FULL`] bytes of them or the first of them is [`PATIENCE`] old.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::sink::Output;

/// How long a line waits at most while there are few. Envoy waits ten seconds; who follows a file with `tail -f` sees no
/// delay in this. It costs ten writes a second at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// The thread, as those see it who have something for it.
#[derive(Debug, Default)]
pub(super) struct Writer {
    state: Mutex<State>,
    /// There is something to write, or more of it.
    due: Condvar,
    /// Everything is written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What has lines that wait.
    outputs: Vec<Arc<Output>>,
    /// Whether they are to be written at once.
    hurry: bool,
    /// Whether some are being written.
    writing: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.outputs.is_empty() && !self.writing
    }
}

static WRITER: OnceLock<Arc<Writer>> = OnceLock::new();

impl Writer {
    /// The one of this process, which starts with the first line.
    pub(super) fn get() -> &'static Self {
        WRITER.get_or_init(|| {
            let writer = Arc::new(Self::default());
            let (runs, thread) = (writer.clone(), std::thread::Builder::new());
            if let Err(error) = thread.name("access-log".to_owned()).spawn(move || runs.run()) {
                // Buffers fill, and then every line counts as dropped.
                tracing::error!(%error, "access logs cannot be written");
            }
            writer
        })
    }

    /// Waits until all lines are written, or for so long.
    pub(super) fn finish(limit: Duration) {
        let Some(writer) = WRITER.get() else {
            return;
        };
        writer.hurry();
        let written = writer
            .done
            .wait_timeout_while(writer.state(), limit, |state| !state.is_idle());
        drop(written.unwrap_or_else(PoisonError::into_inner));
    }

    /// The first line waits.
    pub(super) fn begin(&self, output: Arc<Output>) {
        self.state().outputs.push(output);
        self.due.notify_one();
    }

    /// Enough lines wait.
    pub(super) fn hurry(&self) {
        self.state().hurry = true;
        self.due.notify_one();
    }

    fn run(&self) {
        loop {
            self.next().iter().for_each(|output| output.write_out());
            let mut state = self.state();
            state.writing = false;
            if state.is_idle() {
                self.done.notify_all();
            }
        }
    }

    /// What is to be written now.
    fn next(&self) -> Vec<Arc<Output>> {
        let waiting = self.due.wait_while(self.state(), |state| state.outputs.is_empty());
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let waited = self.due.wait_timeout_while(waiting, PATIENCE, |state| !state.hurry);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (state.hurry, state.writing) = (false, true);
        std::mem::take(&mut state.outputs)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
