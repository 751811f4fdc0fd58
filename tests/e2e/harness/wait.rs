//! Waiting for something to become true.

use std::time::Duration;

use tokio::time::{self, Instant, MissedTickBehavior};

/// How long anything may take before a test gives up on it. Long, for machines with other things to do:
/// a test that passes never waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Probes until there is a value, and fails the test with the last reason if there is none in time.
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
