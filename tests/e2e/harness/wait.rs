//! Waits for conditions.

use std::time::Duration;

use tokio::time::{self, Instant, MissedTickBehavior};

/// Timeout of every wait. Generous, for busy machines; tests that pass do not wait for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `probe` until it returns a value; after the timeout the test fails with the last error.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut tick = time::interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match probe().await {
            Ok(value) => return value,
            Err(reason) => assert!(
                start.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}; last: {reason}"
            ),
        }
    }
}
