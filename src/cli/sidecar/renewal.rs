//! Renewal of a sidecar's join token at half of its lifetime.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::control_plane::ControlPlane;
use super::run_dir::RunDir;
use crate::cli::file;
use crate::cli::join::{self, Token};
use crate::pki::TokenClaims;

/// Interval of checks for a new token by `topsail init`, and for the renewal time.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Initial and maximum retry delay.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];
/// Jitter of the renewal time as a fraction of the lifetime, so that tokens created together are not renewed
/// together.
const JITTER: f64 = 0.02;

/// Keeps the token current.
pub(super) struct Renewal {
    /// Renews the token.
    pub control_plane: ControlPlane,
    /// The run directory, from which the data plane reads the token.
    pub run: RunDir,
    /// The join directory.
    pub join: PathBuf,
    /// The current token.
    pub token: Token,
}

impl Renewal {
    /// Renews the token indefinitely, retrying after failures.
    pub(super) async fn keep(mut self) -> Infallible {
        let mut pause = PAUSES[0];
        let mut at = renew_at(&self.token.claims, fastrand::f64());
        loop {
            let now = SystemTime::now();
            tokio::time::sleep(at.duration_since(now).unwrap_or_default().min(CHECK_INTERVAL)).await;
            if self.adopt() {
                at = renew_at(&self.token.claims, fastrand::f64());
            }
            let now = SystemTime::now();
            if now < at {
                continue;
            }
            match self.renew().await {
                Ok(()) => {
                    pause = PAUSES[0];
                    at = renew_at(&self.token.claims, fastrand::f64());
                }
                Err(error) => {
                    let expired = self.token.claims.expires_at <= now;
                    tracing::warn!(expired, ?pause, "failed to renew the join token: {error:#}");
                    at = now + pause;
                    pause = (pause * 2).min(PAUSES[1]);
                }
            }
        }
    }

    /// Switches to a newer token in the join directory, written by `topsail init` or by another sidecar that
    /// shares the directory. Returns whether there was one.
    fn adopt(&mut self) -> bool {
        let newer = Token::read(&self.join.join(join::TOKEN)).ok();
        let Some(newer) = newer.filter(|newer| newer.succeeds(&self.token)) else {
            return false;
        };
        match self.run.put_token(&newer.text) {
            Ok(()) => {
                tracing::info!("using a new join token from the --join directory");
                self.token = newer;
                true
            }
            Err(error) => {
                tracing::warn!("failed to use the new join token: {error:#}");
                false
            }
        }
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        let text = self.control_plane.renew(&self.token).await?;
        let claims = TokenClaims::told_to_bearer(&text)?;
        self.run.put_token(&text)?;
        // For the next start. Errors are ignored: the directory may be read-only, and `topsail init` then
        // creates another token.
        if let Err(error) = file::replace(&self.join.join(join::TOKEN), text.as_bytes(), 0o600) {
            tracing::debug!("the token in the --join directory was not updated: {error:#}");
        }
        tracing::info!(until = %crate::cli::token::display(claims.expires_at), "join token renewed");
        self.token = Token { text, claims };
        Ok(())
    }
}

/// The renewal time: half of the lifetime, with jitter from `chance`, a number from 0 to 1.
fn renew_at(claims: &TokenClaims, chance: f64) -> SystemTime {
    claims.issued_at + claims.lifetime().mul_f64(0.5 + JITTER * (chance - 0.5))
}
