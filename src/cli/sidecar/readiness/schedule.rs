//! Schedule and thresholds of a readiness probe.

use std::net::IpAddr;
use std::time::Duration;

use crate::cli::sidecar::probe::Probe;
use crate::xds::joining;

/// A probe with its schedule.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    probe: Probe,
    /// Delay before the first probe.
    pub(super) initial_delay: Duration,
    timeout: Duration,
    /// Interval until the application is ready, and after that.
    until_ready: Duration,
    period: Duration,
    /// Consecutive successes to become ready, and failures to become unready.
    successes: u32,
    failures: u32,
}

impl Schedule {
    /// Schedule of `--app-probe`: frequent until the application is ready, then Kubernetes' defaults.
    pub(super) fn of_flag(probe: Probe) -> Self {
        Self {
            probe,
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            until_ready: Duration::from_millis(200),
            period: Duration::from_secs(10),
            successes: 1,
            failures: 3,
        }
    }

    /// Schedule of a WorkloadGroup's probe.
    ///
    /// # Errors
    /// If the probe is invalid.
    pub(super) fn of_group(group_probe: &joining::Probe) -> Result<Self, String> {
        let seconds = |number: u32| Duration::from_secs(number.max(1).into());
        Ok(Self {
            probe: Probe::try_from(group_probe)?,
            initial_delay: Duration::from_secs(group_probe.initial_delay.into()),
            timeout: seconds(group_probe.timeout),
            until_ready: seconds(group_probe.period),
            period: seconds(group_probe.period),
            successes: group_probe.successes,
            failures: group_probe.failures,
        })
    }

    /// Probes the application of the workload with this address once; the error says why it is not ready.
    pub(super) async fn ask(&self, own: IpAddr) -> Result<(), String> {
        self.probe.ask(own, self.timeout).await
    }

    /// Time until the next probe.
    pub(super) fn pause(&self, ready: bool) -> Duration {
        if ready { self.period } else { self.until_ready }
    }
}

/// Readiness of an application, derived from probe results.
#[derive(Debug, Default)]
pub(super) struct ProbeState {
    pub(super) ready: bool,
    successes: u32,
    failures: u32,
}

impl ProbeState {
    /// Records a result and returns whether the application is ready.
    pub(super) fn after(&mut self, schedule: &Schedule, probed: Result<(), String>) -> bool {
        match probed {
            Ok(()) => {
                self.successes = self.successes.saturating_add(1);
                self.failures = 0;
                self.become_ready(self.ready || self.successes >= schedule.successes);
            }
            Err(why) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                if self.ready {
                    let failures = self.failures;
                    tracing::warn!(failures, "the application's readiness probe fails: {why}");
                }
                self.become_ready(self.ready && self.failures < schedule.failures);
            }
        }
        self.ready
    }

    /// Marks an application without a probe as ready.
    pub(super) fn without_probe(&mut self) -> bool {
        self.become_ready(true);
        true
    }

    /// Resets the counters for a new probe; the readiness is kept.
    pub(super) fn begin_anew(&mut self) {
        (self.successes, self.failures) = (0, 0);
    }

    fn become_ready(&mut self, ready: bool) {
        if self.ready != ready {
            tracing::info!(ready, "the application's readiness changed");
        }
        self.ready = ready;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no() -> Result<(), String> {
        Err("no connection".to_owned())
    }

    fn readiness_after(
        schedule: &Schedule,
        probe_state: &mut ProbeState,
        probes: Vec<Result<(), String>>,
    ) -> Vec<bool> {
        let probes = probes.into_iter();
        probes.map(|probed| probe_state.after(schedule, probed)).collect()
    }

    #[test]
    fn thresholds_of_app_probe() {
        let schedule = Schedule::of_flag("tcp:1".parse().unwrap());
        let mut probe_state = ProbeState::default();
        let mut after = |probes| readiness_after(&schedule, &mut probe_state, probes);
        assert_eq!(
            after(vec![no(), no(), no(), no(), Ok(())]),
            [false, false, false, false, true]
        );
        assert_eq!(after(vec![no(), no(), Ok(())]), [true, true, true]);
        assert_eq!(
            after(vec![no(), no(), no(), no(), Ok(())]),
            [true, true, false, false, true]
        );
    }

    #[test]
    fn thresholds_of_workload_groups() {
        let group_probe = joining::Probe {
            period: 7,
            successes: 2,
            failures: 1,
            port: 80,
            ..joining::Probe::default()
        };
        let schedule = Schedule::of_group(&group_probe).unwrap();
        assert_eq!(schedule.pause(false), Duration::from_secs(7));
        assert_eq!(schedule.pause(true), Duration::from_secs(7));
        let mut probe_state = ProbeState::default();
        let mut after = |probes| readiness_after(&schedule, &mut probe_state, probes);
        assert_eq!(
            after(vec![Ok(()), no(), Ok(()), Ok(()), no(), Ok(())]),
            [false, false, false, true, false, false]
        );
        // A change of the probe keeps the readiness.
        assert!(probe_state.after(&schedule, Ok(())));
        probe_state.begin_anew();
        assert!(probe_state.ready);
        let nothing = joining::Probe::default();
        assert!(Schedule::of_group(&nothing).unwrap_err().contains("port"));
    }
}
