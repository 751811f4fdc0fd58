//! When an application is asked, and what is to be thought of its answers.

use std::net::IpAddr;
use std::time::Duration;

use crate::cli::sidecar::probe::Probe;
use crate::xds::joining;

/// How an application is asked again and again.
#[derive(Clone, Debug)]
pub(super) struct Course {
    probe: Probe,
    /// Until the first time.
    pub(super) initial_delay: Duration,
    timeout: Duration,
    /// From one time to the next until it is ready, and then.
    until_ready: Duration,
    period: Duration,
    /// In a row, until it is ready, or is not any more.
    successes: u32,
    failures: u32,
}

impl Course {
    /// Of `--app-probe`: it is looked for often until it is ready, and then as Kubernetes does by default.
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

    /// Of a WorkloadGroup.
    ///
    /// # Errors
    /// When there is no such question.
    pub(super) fn of_group(told: &joining::Probe) -> Result<Self, String> {
        let seconds = |number: u32| Duration::from_secs(number.max(1).into());
        Ok(Self {
            probe: Probe::try_from(told)?,
            initial_delay: Duration::from_secs(told.initial_delay.into()),
            timeout: seconds(told.timeout),
            until_ready: seconds(told.period),
            period: seconds(told.period),
            successes: told.successes,
            failures: told.failures,
        })
    }

    /// Whether the application of the workload at an address is ready this time, and if not, why.
    pub(super) async fn ask(&self, own: IpAddr) -> Result<(), String> {
        self.probe.ask(own, self.timeout).await
    }

    /// How long it is until the next time.
    pub(super) fn pause(&self, ready: bool) -> Duration {
        if ready { self.period } else { self.until_ready }
    }
}

/// What is to be thought of an application.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) ready: bool,
    successes: u32,
    failures: u32,
}

impl Verdict {
    /// Whether it is ready after another answer.
    pub(super) fn after(&mut self, course: &Course, probed: Result<(), String>) -> bool {
        match probed {
            Ok(()) => {
                self.successes = self.successes.saturating_add(1);
                self.failures = 0;
                self.become_ready(self.ready || self.successes >= course.successes);
            }
            Err(why) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                if self.ready {
                    let failures = self.failures;
                    tracing::warn!(failures, "the application's readiness probe fails: {why}");
                }
                self.become_ready(self.ready && self.failures < course.failures);
            }
        }
        self.ready
    }

    /// Whether one that is not asked is ready: it is.
    pub(super) fn without_probe(&mut self) -> bool {
        self.become_ready(true);
        true
    }

    /// Answers count from now on; what was thought stays until then.
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

    fn verdicts(course: &Course, verdict: &mut Verdict, probes: Vec<Result<(), String>>) -> Vec<bool> {
        let probes = probes.into_iter();
        probes.map(|probed| verdict.after(course, probed)).collect()
    }

    #[test]
    fn one_success_is_enough_and_one_failure_is_not() {
        let course = Course::of_flag("tcp:1".parse().unwrap());
        let mut verdict = Verdict::default();
        let mut after = |probes| verdicts(&course, &mut verdict, probes);
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
    fn a_group_says_how_many_it_takes() {
        let told = joining::Probe {
            period: 7,
            successes: 2,
            failures: 1,
            port: 80,
            ..joining::Probe::default()
        };
        let course = Course::of_group(&told).unwrap();
        assert_eq!(course.pause(false), Duration::from_secs(7));
        assert_eq!(course.pause(true), Duration::from_secs(7));
        let mut verdict = Verdict::default();
        let mut after = |probes| verdicts(&course, &mut verdict, probes);
        assert_eq!(
            after(vec![Ok(()), no(), Ok(()), Ok(()), no(), Ok(())]),
            [false, false, false, true, false, false]
        );
        // Another course, and what was thought stays for the time being.
        assert!(verdict.after(&course, Ok(())));
        verdict.begin_anew();
        assert!(verdict.ready);
        let nothing = joining::Probe::default();
        assert!(Course::of_group(&nothing).unwrap_err().contains("port"));
    }
}
