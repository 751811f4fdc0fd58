//! The thread that writes log lines.
//!
//! A write for each line, or even waking the thread, would cost as much as the rest of a request. So lines gather in
//! their file's buffer until it holds [`FULL`] bytes or its first line is [`PATIENCE`] old.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::sink::Output;

/// How long a line waits at most. Envoy's default is ten seconds; this is too short to be noticed with `tail -f`, and
/// costs at most ten writes a second.
const PATIENCE: Duration = Duration::from_millis(100);

/// The thread's shared state.
#[derive(Debug, Default)]
pub(super) struct Writer {
    state: Mutex<State>,
    /// There is something to write.
    due: Condvar,
    /// Everything has been written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Outputs with waiting lines.
    outputs: Vec<Arc<Output>>,
    /// Whether they are to be written at once.
    hurry: bool,
    /// Whether the thread is writing.
    writing: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.outputs.is_empty() && !self.writing
    }
}

static WRITER: OnceLock<Arc<Writer>> = OnceLock::new();

impl Writer {
    /// The writer of this process, whose thread starts with the first line.
    pub(super) fn get() -> &'static Self {
        WRITER.get_or_init(|| {
            let writer = Arc::new(Self::default());
            let (runs, thread) = (writer.clone(), std::thread::Builder::new());
            if let Err(error) = thread.name("access-log".to_owned()).spawn(move || runs.run()) {
                // Buffers fill up, and then every line counts as dropped.
                tracing::error!(%error, "failed to write access logs");
            }
            writer
        })
    }

    /// Waits until all lines are written, or until the limit.
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

    /// An output has its first waiting line.
    pub(super) fn begin(&self, output: Arc<Output>) {
        self.state().outputs.push(output);
        self.due.notify_one();
    }

    /// An output has enough waiting lines.
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

    /// Waits for outputs that are due.
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
