//! A cached clock: the time is read once for everything within one turn of a task.
//!
//! A turn on a connection takes microseconds. Timing a request and its connections would read the clock ten times in
//! it, which costs as much as parsing the request.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    /// The time at the start of the current turn, if the thread is in one.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs a turn.
pub(crate) fn within<T>(turn: impl FnOnce() -> T) -> T {
    let _turn = Turn::begin();
    turn()
}

/// The time; within a turn, that of its start.
pub(crate) fn now() -> Instant {
    BEGAN.get().unwrap_or_else(Instant::now)
}

/// Ends the turn even on a panic.
struct Turn;

impl Turn {
    fn begin() -> Self {
        BEGAN.set(Some(Instant::now()));
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BEGAN.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_within_a_turn_alone() {
        let before = now();
        let advance = || tokio::time::advance(Duration::from_secs(1));
        advance().await;
        assert_eq!(now() - before, Duration::from_secs(1));
        within(|| {
            let began = now();
            while Instant::now() < began {}
            assert_eq!(now(), began);
        });
        advance().await;
        assert_eq!(now() - before, Duration::from_secs(2));
    }
}
