//! Telling the control plane when the application is ready: a member of a group is an endpoint from then on.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::sleep;

use super::control_plane::ControlPlane;
use super::plane;
use super::probe::Probe;
use super::run_dir::RunDir;
use crate::cli::join::Token;

/// How often an application is probed that is not ready.
const POLL: Duration = Duration::from_millis(200);
/// How often one that is ready is (Kubernetes' `periodSeconds`), and how often that is said again: a control plane that
/// has removed the member meanwhile has to hear it anew.
const PERIOD: Duration = Duration::from_secs(10);
/// How often one that was ready is probed in vain before it is not any more: Kubernetes' `failureThreshold`.
const FAILURES: u32 = 3;
/// The pause after something could not be said, and how often that is logged.
const PAUSE: Duration = Duration::from_secs(1);
const REMINDER: u32 = 10;

/// The signal by which the process that has the application says that it has started it.
pub(super) const STARTED: rustix::process::Signal = rustix::process::Signal::USR2;

/// By what an application is known to be ready.
#[derive(Clone, Debug)]
pub(super) enum Sign {
    /// It answers.
    Probe(Probe),
    /// The signal [`STARTED`].
    Started,
}

/// What follows an application, for a member of a group.
pub(super) struct Readiness {
    /// Who is told.
    pub control_plane: ControlPlane,
    /// Where the token is.
    pub run: RunDir,
    /// The data plane's admin listener.
    pub admin: SocketAddr,
    /// By what the application is known to be ready.
    pub sign: Sign,
    /// The number by which the bootstrap says who will tell.
    pub number: u64,
}

impl Readiness {
    /// Tells for ever.
    pub(super) async fn tell(self, mut started: Signal) -> Infallible {
        if let Sign::Started = self.sign {
            started.recv().await;
        }
        // Until then there is no member that could be ready.
        while plane::readiness(self.admin).await.is_err() {
            sleep(POLL).await;
        }
        let (mut verdict, mut said, mut unheard) = (Verdict::default(), None, 0_u32);
        loop {
            let ready = verdict.after(self.ask().await);
            // That it is not ready needs to be said once.
            if ready || said != Some(false) {
                said = match self.say(ready).await {
                    Ok(()) => Some(ready),
                    Err(error) => {
                        if unheard.is_multiple_of(REMINDER) {
                            tracing::warn!(ready, "the control plane does not hear of the application: {error:#}");
                        }
                        None
                    }
                };
                unheard = if said.is_some() { 0 } else { unheard.saturating_add(1) };
            }
            sleep(match said {
                Some(true) => PERIOD,
                Some(false) => POLL,
                None => PAUSE,
            })
            .await;
        }
    }

    async fn ask(&self) -> Result<(), String> {
        match &self.sign {
            Sign::Probe(probe) => probe.ask().await,
            Sign::Started => Ok(()),
        }
    }

    async fn say(&self, ready: bool) -> anyhow::Result<()> {
        let token = Token::read(&self.run.token())?;
        Ok(self.control_plane.ready(&token, self.number, ready).await?)
    }
}

/// What is to be thought of an application that is probed again and again.
#[derive(Debug, Default)]
struct Verdict {
    ready: bool,
    failures: u32,
}

impl Verdict {
    /// Whether it is ready after another probe: one that succeeds is enough, and so are [`FAILURES`] in a row.
    fn after(&mut self, probed: Result<(), String>) -> bool {
        let before = self.ready;
        match probed {
            Ok(()) => {
                *self = Self {
                    ready: true,
                    failures: 0,
                }
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.ready &= self.failures < FAILURES;
                if before {
                    tracing::warn!(
                        failures = self.failures,
                        "the application does not answer its probe: {why}"
                    );
                }
            }
        }
        if before != self.ready {
            tracing::info!(ready = self.ready, "the application's readiness has changed");
        }
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_is_enough_and_one_failure_is_not() {
        let mut verdict = Verdict::default();
        let no = || Err("no connection".to_owned());
        let mut after = |probes: Vec<Result<(), String>>| -> Vec<bool> {
            probes.into_iter().map(|probed| verdict.after(probed)).collect()
        };
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
}
