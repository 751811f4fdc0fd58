//! Telling the control plane when the application is ready: a member of a group is an endpoint from then on.

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

/// How often it is looked whether the data plane is ready.
const POLL: Duration = Duration::from_millis(200);
/// How often it is said again what has been said: a control plane that has removed the member meanwhile has to hear it anew,
/// and what it answers says how the application is to be asked.
const PERIOD: Duration = Duration::from_secs(10);
/// The pause after something could not be said, and how often that is logged.
const PAUSE: Duration = Duration::from_secs(1);
const REMINDER: u32 = 10;

/// The signal by which the process that has the application says that it has started it.
pub(super) const STARTED: rustix::process::Signal = rustix::process::Signal::USR2;

/// What follows an application, for a member of a group.
pub(super) struct Readiness {
    /// Who is told.
    pub control_plane: ControlPlane,
    /// Where the token is.
    pub run: RunDir,
    /// The data plane's admin listener.
    pub admin: SocketAddr,
    /// How the application is asked, whatever its group says.
    pub probe: Option<Probe>,
    /// Whether a parent says when it has started the application.
    pub with_application: bool,
    /// The number by which the bootstrap says who will tell.
    pub number: u64,
}

impl Readiness {
    /// Tells for ever.
    pub(super) async fn tell(self, mut started: Signal) -> Infallible {
        if self.with_application && self.probe.is_none() {
            started.recv().await;
        }
        // Until then there is no member that could be ready.
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

/// How far the following of an application is.
struct State {
    start: Instant,
    /// How it is asked; it is ready if it is not asked.
    course: Option<Course>,
    /// Whether that is known.
    is_known: bool,
    /// What the control plane has said last of how it is to be asked.
    told: Option<joining::Probe>,
    verdict: Verdict,
    /// What the control plane has heard last.
    said: Option<bool>,
    /// How often it has not heard since.
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

    /// Takes in what has become of saying it.
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

    /// Takes in how the application is to be asked. One that is ready stays so until it has failed often enough.
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
