//! Reports the application's readiness to the control plane. A group member becomes an endpoint once it is
//! ready.

mod course;

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
use course::{Course, Verdict};

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
    pub(super) async fn tell(self, mut started: Signal) -> Infallible {
        if self.with_application && self.probe.is_none() {
            started.recv().await;
        }
        // The member is not registered before the data plane has its configuration.
        while plane::readiness(self.admin).await.is_err() {
            sleep(POLL).await;
        }
        let mut state = State::new(self.probe.clone().map(Course::of_flag));
        loop {
            tokio::select! {
                biased;
                () = sleep_until(state.next_probe), if state.is_known => {
                    let ready = match &state.course {
                        Some(course) => state.verdict.after(course, course.ask(self.control_plane.from).await),
                        None => state.verdict.without_probe(),
                    };
                    state.next_probe = Instant::now() + state.course.as_ref().map_or(PERIOD, |course| course.pause(ready));
                    if state.said == Some(ready) || state.unheard > 0 {
                        continue;
                    }
                }
                () = sleep_until(state.next_word) => {}
            }
            state.heard(self.say(state.verdict.ready).await, self.probe.is_some());
        }
    }

    async fn say(&self, ready: bool) -> anyhow::Result<Option<joining::Probe>> {
        let token = Token::read(&self.run.token())?;
        Ok(self.control_plane.ready(&token, self.number, ready).await?)
    }
}

/// Progress of following an application.
struct State {
    start: Instant,
    /// The probe; without one, the application counts as ready.
    course: Option<Course>,
    /// Whether it is known if there is a probe.
    is_known: bool,
    /// The WorkloadGroup's probe, as last received.
    told: Option<joining::Probe>,
    verdict: Verdict,
    /// The last report that was delivered; `None` if the last one failed.
    said: Option<bool>,
    /// Number of failed reports since.
    unheard: u32,
    next_probe: Instant,
    next_word: Instant,
}

impl State {
    fn new(course: Option<Course>) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            is_known: course.is_some(),
            course,
            told: None,
            verdict: Verdict::default(),
            said: None,
            unheard: 0,
            next_probe: now,
            next_word: now,
        }
    }

    /// Records the result of a report.
    fn heard(&mut self, answer: anyhow::Result<Option<joining::Probe>>, has_own_probe: bool) {
        let (ready, now) = (self.verdict.ready, Instant::now());
        match answer {
            Ok(told) => {
                (self.said, self.unheard) = (Some(ready), 0);
                self.next_word = now + PERIOD;
                self.take(told, has_own_probe);
            }
            Err(error) => {
                if self.unheard.is_multiple_of(REMINDER) {
                    tracing::warn!(
                        ready,
                        "failed to report the application's readiness to the control plane: {error:#}"
                    );
                }
                self.said = None;
                self.unheard = self.unheard.saturating_add(1);
                self.next_word = now + PAUSE;
            }
        }
    }

    /// Applies the WorkloadGroup's probe. An application that is ready stays so until the new probe has
    /// failed often enough.
    fn take(&mut self, told: Option<joining::Probe>, has_own_probe: bool) {
        if self.told == told && self.is_known {
            return;
        }
        match told.as_ref().map(Course::of_group).transpose() {
            Ok(Some(_)) if has_own_probe => {
                tracing::info!("--app-probe overrides the probe of the WorkloadGroup")
            }
            Ok(_) if has_own_probe => {}
            Ok(course) => {
                if self.is_known || course.is_some() {
                    let probed = course.is_some();
                    tracing::info!(probed, "the readiness probe is taken from the WorkloadGroup");
                }
                let delay = course.as_ref().map_or(Duration::ZERO, |course| course.initial_delay);
                self.next_probe = Instant::now().max(self.start + delay);
                (self.course, self.is_known) = (course, true);
                self.verdict.begin_anew();
            }
            Err(why) => tracing::warn!("the probe of the WorkloadGroup is invalid: {why}"),
        }
        self.told = told;
    }
}
