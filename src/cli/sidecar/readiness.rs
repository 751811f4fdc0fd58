//! Reports the application's readiness to the control plane. A group member becomes an endpoint once it is
//! ready.

mod schedule;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use super::control_plane::ControlPlane;
use super::plane;
use super::probe::Probe;
use super::run_dir::RunDir;
use crate::cli::join::Token;
use crate::xds::joining;
use schedule::{ProbeState, Schedule};

/// Poll interval while waiting for the data plane.
const POLL: Duration = Duration::from_millis(200);
/// Interval of repeated reports. A control plane that removed the member in the meantime must receive the
/// report again, and its response carries the current probe of the WorkloadGroup.
const PERIOD: Duration = Duration::from_secs(10);
/// Delay before a failed report is retried, and every how many failures one is logged.
const PAUSE: Duration = Duration::from_secs(1);
const REMINDER: u32 = 10;

/// Signal by which the parent process announces that it has started the application.
pub(super) const STARTED: rustix::process::Signal = rustix::process::Signal::USR2;

/// Reports the readiness of a group member's application.
pub(super) struct Readiness {
    /// Receives the reports.
    pub control_plane: ControlPlane,
    /// The run directory, which holds the token.
    pub run: RunDir,
    /// Admin address of the data plane.
    pub admin: SocketAddr,
    /// The probe of `--app-probe`, which overrides that of the WorkloadGroup.
    pub probe: Option<Probe>,
    /// Whether a parent process starts the application and announces it.
    pub with_application: bool,
    /// Number of this sidecar process in the node metadata.
    pub number: u64,
}

impl Readiness {
    /// Reports indefinitely.
    pub(super) async fn run(self, mut started: Signal) -> Infallible {
        if self.with_application && self.probe.is_none() {
            started.recv().await;
        }
        // The member is not registered before the data plane has its configuration.
        while plane::readiness(self.admin).await.is_err() {
            sleep(POLL).await;
        }
        let mut state = State::new(self.probe.clone().map(Schedule::of_flag));
        loop {
            tokio::select! {
                biased;
                () = sleep_until(state.next_probe), if state.is_known => {
                    let ready = match &state.schedule {
                        Some(schedule) => state.probe_state.after(schedule, schedule.ask(self.control_plane.from).await),
                        None => state.probe_state.without_probe(),
                    };
                    let pause = state.schedule.as_ref().map(|schedule| schedule.pause(ready));
                    state.next_probe = Instant::now() + pause.unwrap_or(PERIOD);
                    if state.reported == Some(ready) || state.failures > 0 {
                        continue;
                    }
                }
                () = sleep_until(state.next_report) => {}
            }
            state.record(self.report(state.probe_state.ready).await, self.probe.is_some());
        }
    }

    async fn report(&self, ready: bool) -> anyhow::Result<Option<joining::Probe>> {
        let token = Token::read(&self.run.token())?;
        Ok(self.control_plane.ready(&token, self.number, ready).await?)
    }
}

/// Progress of following an application.
struct State {
    start: Instant,
    /// The probe; without one, the application counts as ready.
    schedule: Option<Schedule>,
    /// Whether it is known if there is a probe.
    is_known: bool,
    /// The WorkloadGroup's probe, as last received.
    group_probe: Option<joining::Probe>,
    probe_state: ProbeState,
    /// The last report that was delivered; `None` if the last one failed.
    reported: Option<bool>,
    /// Number of failed reports since.
    failures: u32,
    next_probe: Instant,
    next_report: Instant,
}

impl State {
    fn new(schedule: Option<Schedule>) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            is_known: schedule.is_some(),
            schedule,
            group_probe: None,
            probe_state: ProbeState::default(),
            reported: None,
            failures: 0,
            next_probe: now,
            next_report: now,
        }
    }

    /// Records the result of a report.
    fn record(&mut self, answer: anyhow::Result<Option<joining::Probe>>, has_own_probe: bool) {
        let (ready, now) = (self.probe_state.ready, Instant::now());
        match answer {
            Ok(group_probe) => {
                (self.reported, self.failures) = (Some(ready), 0);
                self.next_report = now + PERIOD;
                self.apply(group_probe, has_own_probe);
            }
            Err(error) => {
                if self.failures.is_multiple_of(REMINDER) {
                    tracing::warn!(
                        ready,
                        "failed to report the application's readiness to the control plane: {error:#}"
                    );
                }
                self.reported = None;
                self.failures = self.failures.saturating_add(1);
                self.next_report = now + PAUSE;
            }
        }
    }

    /// Applies the WorkloadGroup's probe. An application that is ready stays so until the new probe has
    /// failed often enough.
    fn apply(&mut self, group_probe: Option<joining::Probe>, has_own_probe: bool) {
        if self.group_probe == group_probe && self.is_known {
            return;
        }
        match group_probe.as_ref().map(Schedule::of_group).transpose() {
            Ok(Some(_)) if has_own_probe => {
                tracing::info!("--app-probe overrides the probe of the WorkloadGroup")
            }
            Ok(_) if has_own_probe => {}
            Ok(schedule) => {
                if self.is_known || schedule.is_some() {
                    let probed = schedule.is_some();
                    tracing::info!(probed, "the readiness probe is taken from the WorkloadGroup");
                }
                let delay = schedule
                    .as_ref()
                    .map_or(Duration::ZERO, |schedule| schedule.initial_delay);
                self.next_probe = Instant::now().max(self.start + delay);
                (self.schedule, self.is_known) = (schedule, true);
                self.probe_state.begin_anew();
            }
            Err(why) => tracing::warn!("the probe of the WorkloadGroup is invalid: {why}"),
        }
        self.group_probe = group_probe;
    }
}
