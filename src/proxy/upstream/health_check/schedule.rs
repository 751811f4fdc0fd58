//! The time between attempts.

use std::time::Duration;

use super::state::Change;

/// Intervals, with their jitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// `initial_jitter`: the longest time before the first attempt.
    pub(crate) initial_jitter: Duration,
    /// `interval`.
    pub(crate) healthy: Duration,
    /// `unhealthy_interval`.
    pub(crate) unhealthy: Duration,
    /// `healthy_edge_interval`: after successes that do not make a host healthy yet.
    pub(crate) healthy_edge: Duration,
    /// `unhealthy_edge_interval`: after failures that do not make a host unhealthy yet.
    pub(crate) unhealthy_edge: Duration,
    /// `no_traffic_interval`: for clusters that never had a connection.
    pub(crate) no_traffic: Duration,
    /// `no_traffic_healthy_interval`: the same for healthy hosts.
    pub(crate) no_traffic_healthy: Duration,
    /// `interval_jitter`.
    pub(crate) jitter: Duration,
    /// `interval_jitter_percent` of the interval.
    pub(crate) jitter_percent: u32,
}

impl Schedule {
    /// The time before the first attempt; `random` is between 0 and 1.
    pub(super) fn initial(&self, random: f64) -> Duration {
        self.initial_jitter.mul_f64(random)
    }

    /// The time after an attempt that `passed` and had this effect, in a cluster that has had `traffic`.
    pub(super) fn next(&self, passed: bool, change: Change, traffic: bool, random: (f64, f64)) -> Duration {
        let pending = change == Change::Pending;
        let interval = match (traffic, passed, pending) {
            (true, true, false) => self.healthy,
            (true, true, true) => self.healthy_edge,
            (true, false, false) => self.unhealthy,
            (true, false, true) => self.unhealthy_edge,
            (false, true, false) => self.no_traffic_healthy,
            (false, ..) => self.no_traffic,
        };
        let share = f64::from(self.jitter_percent) / 100.0 * random.0;
        let jitter = interval.mul_f64(share).saturating_add(self.jitter.mul_f64(random.1));
        // As Envoy: never at once.
        interval.saturating_add(jitter).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        let seconds = Duration::from_secs;
        Schedule {
            initial_jitter: seconds(4),
            healthy: seconds(1),
            unhealthy: seconds(2),
            healthy_edge: seconds(3),
            unhealthy_edge: seconds(4),
            no_traffic: seconds(5),
            no_traffic_healthy: seconds(6),
            jitter: Duration::ZERO,
            jitter_percent: 0,
        }
    }

    #[test]
    fn the_interval_depends_on_health_on_what_is_pending_and_on_traffic() {
        let next = |passed, change, traffic| schedule().next(passed, change, traffic, (0.5, 0.5)).as_secs();
        let (changed, pending, none) = (Change::Changed, Change::Pending, Change::None);
        assert_eq!(
            [none, changed, pending].map(|change| next(true, change, true)),
            [1, 1, 3]
        );
        assert_eq!(
            [none, changed, pending].map(|change| next(false, change, true)),
            [2, 2, 4]
        );
        assert_eq!(
            [none, changed, pending].map(|change| next(true, change, false)),
            [6, 6, 5]
        );
        assert_eq!(
            [none, changed, pending].map(|change| next(false, change, false)),
            [5, 5, 5]
        );
    }

    #[test]
    fn both_jitters_are_added_and_no_attempt_follows_at_once() {
        let mut schedule = schedule();
        assert_eq!(schedule.initial(0.25), Duration::from_secs(1));
        schedule.jitter = Duration::from_secs(10);
        schedule.jitter_percent = 200;
        let next = |schedule: &Schedule, random| schedule.next(true, Change::None, true, random);
        assert_eq!(next(&schedule, (0.5, 0.0)), Duration::from_secs(2));
        assert_eq!(next(&schedule, (0.5, 0.5)), Duration::from_secs(7));
        schedule.healthy = Duration::ZERO;
        assert_eq!(next(&schedule, (0.5, 0.0)), Duration::from_millis(1));
    }
}
