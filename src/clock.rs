//! Injected time.
//!
//! Code that needs the wall clock takes a [`Clock`] (or a `SystemTime`), so that tests control the
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The system clock, or one controlled by a test. Clones share the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Fixed(SystemTime),
    Manual(ManualClock),
}

impl Clock {
    /// The system clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that always returns `at`.
    pub fn fixed(at: SystemTime) -> Self {
        Self(Source::Fixed(at))
    }

    /// The current time. Not monotonic, since the system clock may be set.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            Source::Fixed(at) => *at,
            Source::Manual(clock) => clock.now(),
        }
    }
}

/// Controls the time of every [`Clock`] created from it.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that returns `at` until it is advanced. Times before the Unix epoch are replaced by
    /// it.
    pub fn new(at: SystemTime) -> Self {
        Self(Arc::new(AtomicU64::new(nanos_since_epoch(at))))
    }

    /// Advances the time.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::SeqCst);
    }

    /// A clock that follows this one.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.clone()))
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

fn nanos_since_epoch(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_manual_clock_move_together() {
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let hand = ManualClock::new(start);
        let (a, b) = (hand.clock(), hand.clock().clone());
        hand.advance(Duration::from_secs(60));
        assert_eq!(a.now(), start + Duration::from_secs(60));
        assert_eq!(b.now(), a.now());
    }

    #[test]
    fn a_fixed_clock_stands_still_and_the_systems_does_not_go_back_to_1970() {
        let at = UNIX_EPOCH + Duration::from_secs(5);
        assert_eq!(Clock::fixed(at).now(), at);
        assert!(Clock::system().now() > at);
    }
}
