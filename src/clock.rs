//! Injected time.
//!
//! Whatever needs the wall clock takes a [`Clock`] (or a plain `SystemTime`), so that tests decide
//! what time it is and nothing has to wait for a certificate to expire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock, or a test's idea of it. Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Fixed(SystemTime),
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still.
    pub fn fixed(at: SystemTime) -> Self {
        Self(Source::Fixed(at))
    }

    /// The time. Not monotonic: the machine's clock may be set.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            Source::Fixed(at) => *at,
            Source::Manual(clock) => clock.now(),
        }
    }
}

/// The hand that moves a test's clock: every [`Clock`] made from it follows.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows `at` until it is moved. Times before 1970 become 1970.
    pub fn new(at: SystemTime) -> Self {
        Self(Arc::new(AtomicU64::new(nanos_since_epoch(at))))
    }

    /// Moves the time forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::SeqCst);
    }

    /// The clock to hand out.
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
