//! The join directory, written by `topsail init` and read by `topsail sidecar`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fmt, fs};

use anyhow::bail;
use tokio::time::Instant;

use crate::pki::{BundleError, TokenClaims, TokenError, TrustBundle};

/// File name of the join token, which identifies the sidecar. Written last.
pub(super) const TOKEN: &str = "token";
/// File name of the root certificates that verify the control plane.
pub(super) const ROOT_CERTIFICATE: &str = "root-cert.pem";

/// Poll interval while waiting for the directory.
const POLL: Duration = Duration::from_millis(100);
/// Interval between log messages while waiting.
const REMINDER: Duration = Duration::from_secs(10);

/// Content of a join directory.
pub(super) struct Join {
    /// The join token.
    pub token: Token,
    /// The root certificates that verify the control plane.
    pub roots: TrustBundle,
}

/// A join token and its claims.
#[derive(Clone)]
pub(super) struct Token {
    /// The serialized token, a secret.
    pub text: String,
    /// Its claims. The signature is not verified here; only the control plane can do that.
    pub claims: TokenClaims,
}

impl Token {
    /// Reads a token file.
    pub(super) fn read(path: &Path) -> Result<Self, Missing> {
        let text = fs::read_to_string(path).map_err(|error| Missing::file(path, error))?;
        let text = text.trim().to_owned();
        let claims = TokenClaims::told_to_bearer(&text).map_err(|error| Missing::NoToken(path.to_owned(), error))?;
        Ok(Self { text, claims })
    }

    /// Whether it has the same bearer and trust domain as the other token, and was issued later.
    pub(super) fn succeeds(&self, other: &Token) -> bool {
        let (own, others) = (&self.claims, &other.claims);
        own.grant.bearer == others.grant.bearer
            && own.trust_domain == others.trust_domain
            && own.issued_at > others.issued_at
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.claims.fmt(f)
    }
}

/// Why a join directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    #[error("{} does not exist yet", .0.display())]
    Absent(PathBuf),
    #[error(
        "{} is not readable by user {}: run `topsail init --owner {} …` to change its owner", .0.display(), uid(), uid()
    )]
    NotAllowed(PathBuf),
    #[error("cannot read {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, io::Error),
    #[error("the token {} has expired", .0.display())]
    Expired(PathBuf),
    #[error("{path} is not a join token: {1}", path = .0.display())]
    NoToken(PathBuf, TokenError),
    #[error("{path} is not usable: {1}", path = .0.display())]
    NoRoots(PathBuf, BundleError),
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Missing {
    fn file(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::NotFound => Missing::Absent(path),
            ErrorKind::PermissionDenied => Missing::NotAllowed(path),
            _ => Missing::Unreadable(path, error),
        }
    }

    /// Whether waiting may help, because `topsail init` may still be running.
    fn is_transient(&self) -> bool {
        match self {
            Missing::Absent(_) | Missing::NotAllowed(_) | Missing::Expired(_) => true,
            Missing::Unreadable(..) | Missing::NoToken(..) | Missing::NoRoots(..) => false,
        }
    }
}

impl Join {
    /// Reads a join directory.
    pub(super) fn read(folder: &Path, now: SystemTime) -> Result<Self, Missing> {
        let path = folder.join(TOKEN);
        let token = Token::read(&path)?;
        if token.claims.expires_at <= now {
            return Err(Missing::Expired(path));
        }
        let path = folder.join(ROOT_CERTIFICATE);
        let pem = fs::read(&path).map_err(|error| Missing::file(&path, error))?;
        let roots = TrustBundle::from_pem(&pem).map_err(|error| Missing::NoRoots(path, error))?;
        Ok(Self { token, roots })
    }

    /// Waits until a join directory is complete, logging what is missing.
    ///
    /// # Errors
    /// If it is not complete after `patience`, or its content is invalid.
    pub(super) async fn wait(folder: &Path, patience: Duration) -> anyhow::Result<Self> {
        let (start, mut said) = (Instant::now(), None::<Instant>);
        loop {
            let missing = match Self::read(folder, SystemTime::now()) {
                Ok(join) => return Ok(join),
                Err(missing) if missing.is_transient() => missing,
                Err(missing) => return Err(missing.into()),
            };
            if start.elapsed() >= patience {
                bail!(
                    "{missing}, after {patience:?}: `topsail init` must populate the --join directory, which both must have access to"
                );
            }
            if said.is_none_or(|said| said.elapsed() >= REMINDER) {
                said = Some(Instant::now());
                tracing::info!("waiting for `topsail init`: {missing}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::pki::{Bearer, Ca, StateDir, TokenGrant, TokenSigner};

    fn token(state: &StateDir, name: &str, ttl: Duration, now: SystemTime) -> String {
        let grant = TokenGrant {
            bearer: Bearer::Group(name.parse().unwrap()),
            service_account: "default".parse().unwrap(),
            labels: Default::default(),
        };
        let signer = TokenSigner::load_or_create(state, &Default::default()).unwrap();
        signer.create(&grant, ttl, now).unwrap()
    }

    #[tokio::test]
    async fn waits_until_the_join_directory_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path().join("state")).unwrap();
        let ca = Ca::load_or_create(&state, &Default::default(), &Clock::system()).unwrap();
        let (join, now) = (folder.path().join("join"), SystemTime::now());
        let patience = Duration::from_millis(250);
        let late = |waited: anyhow::Result<Join>| waited.err().unwrap().to_string();
        assert!(late(Join::wait(&join, patience).await).contains("topsail init"));
        let fill = async {
            fs::create_dir(&join).unwrap();
            let past = now - Duration::from_secs(10);
            fs::write(join.join(TOKEN), token(&state, "a", Duration::from_secs(5), past)).unwrap();
            tokio::time::sleep(POLL * 2).await;
            fs::write(join.join(TOKEN), token(&state, "a", Duration::from_secs(60), now)).unwrap();
            tokio::time::sleep(POLL * 2).await;
            fs::write(join.join(ROOT_CERTIFICATE), ca.bundle().pem()).unwrap();
        };
        let (read, ()) = tokio::join!(Join::wait(&join, Duration::from_secs(60)), fill);
        let read = read.unwrap();
        assert_eq!(
            read.token.claims.grant.bearer.to_string(),
            "the members of the group a.default"
        );
        assert_eq!(read.roots.pem(), ca.bundle().pem());
        // Invalid content fails at once.
        fs::write(join.join(ROOT_CERTIFICATE), "no certificate").unwrap();
        assert!(late(Join::wait(&join, Duration::from_secs(60)).await).contains(ROOT_CERTIFICATE));
        fs::write(join.join(TOKEN), "no token").unwrap();
        assert!(late(Join::wait(&join, Duration::from_secs(60)).await).contains("not a join token"));
    }

    #[test]
    fn a_token_succeeds_older_ones_of_the_same_bearer() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let now = SystemTime::now();
        let made = |name, age| {
            let text = token(&state, name, Duration::from_secs(60), now - Duration::from_secs(age));
            let claims = TokenClaims::told_to_bearer(&text).unwrap();
            Token { text, claims }
        };
        let (old, new, other) = (made("a", 9), made("a", 0), made("b", 0));
        assert!(new.succeeds(&old) && !old.succeeds(&new) && !old.succeeds(&old));
        assert!(!other.succeeds(&old));
        assert!(!format!("{old:?}").contains(&old.text), "no secret in a log");
    }
}
