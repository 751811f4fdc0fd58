//! A proxy process: Envoy, or the bundled proxy.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{self, MissedTickBehavior};

/// Poll interval for readiness; Envoy takes 50 ms or more to start.
const READY_POLL: Duration = Duration::from_millis(10);

/// Why a proxy is not running.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The binary or the log file cannot be opened.
    #[error("failed to start Envoy `{}`: {error}", path.display())]
    Start {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// It exited.
    #[error("Envoy exited with {status}:\n{log}")]
    Ended {
        /// Exit status.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// It did not become ready in time.
    #[error("Envoy is not ready after {waited:?} (`/ready` says {state}):\n{log}")]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// The last response of `/ready`.
        state: String,
        /// The last lines of its log.
        log: String,
    },
}

/// How to start a proxy.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The executable.
    pub program: Program,
    /// The bootstrap file.
    pub bootstrap: PathBuf,
    /// The admin address in the bootstrap.
    pub admin: SocketAddr,
    /// Log file for warnings and errors; appended to.
    pub log: PathBuf,
    /// Reject unknown fields in dynamic configuration (`--reject-unknown-dynamic-fields`).
    pub reject_unknown_fields: bool,
    /// User to run as, by which interception recognises the proxy's own traffic; `None` for the
    /// current one. Requires root.
    pub user: Option<User>,
}

/// A proxy that accepts Envoy's bootstrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Envoy at this path.
    Envoy(PathBuf),
    /// `topsail proxy` at this path.
    Topsail(PathBuf),
}

impl Program {
    /// The executable.
    pub fn path(&self) -> &Path {
        match self {
            Program::Envoy(path) | Program::Topsail(path) => path,
        }
    }
}

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
}

impl Launch {
    /// The command line arguments: one worker thread, since there may be several proxies on a host,
    /// and log level warning.
    pub fn arguments(&self) -> Vec<OsString> {
        match self.program {
            Program::Envoy(_) => self.envoy_arguments(),
            Program::Topsail(_) => {
                let mut arguments: Vec<OsString> = vec!["proxy".into(), "--bootstrap".into()];
                arguments.push(self.bootstrap.clone().into());
                arguments.extend(["--concurrency", "1", "--log-level", "warn"].map(Into::into));
                arguments
            }
        }
    }

    /// Flushes access logs as often as the bundled proxy; Envoy's default of 10 s is too slow for
    /// interactive use.
    fn envoy_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-c".into(), self.bootstrap.clone().into()];
        arguments.extend(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"].map(Into::into));
        arguments.extend(["--file-flush-interval-msec", "100"].map(Into::into));
        if self.reject_unknown_fields {
            arguments.push("--reject-unknown-dynamic-fields".into());
        }
        arguments
    }
}

/// A running proxy; killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    admin: SocketAddr,
    log: PathBuf,
}

impl Process {
    /// Starts a proxy. Requires a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the binary cannot be run or the log file cannot be written. Bootstrap errors are reported
    /// by [`Process::ready`].
    pub fn start(launch: &Launch) -> Result<Self, ProcessError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| ProcessError::Start { path, error }
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(&launch.log)
            .map_err(failed(&launch.log))?;
        let mut command = Command::new(launch.program.path());
        command
            .args(launch.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        if let Some(user) = launch.user {
            command.uid(user.uid).gid(user.gid);
        }
        let child = command.spawn().map_err(failed(launch.program.path()))?;
        Ok(Self {
            child,
            admin: launch.admin,
            log: launch.log.clone(),
        })
    }

    /// Waits until `/ready` returns LIVE: configuration is received and all listeners are up.
    ///
    /// # Errors
    ///
    /// If it exits, or is not ready `within` the time.
    pub async fn ready(&mut self, within: Duration) -> Result<(), ProcessError> {
        let mut state = "nothing".to_owned();
        let waiting = async {
            let mut tick = time::interval(READY_POLL);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Ok((status, body)) = super::get(self.admin, "/ready").await {
                    if status == StatusCode::OK {
                        return;
                    }
                    state = String::from_utf8_lossy(&body).trim().to_owned();
                }
            }
        };
        tokio::select! {
            biased;
            () = waiting => return Ok(()),
            Ok(status) = self.child.wait() => return Err(ProcessError::Ended { status, log: log_tail(&self.log) }),
            () = time::sleep(within) => {}
        }
        Err(ProcessError::NotReady {
            waited: within,
            state,
            log: log_tail(&self.log),
        })
    }

    /// Address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Terminates it with SIGTERM, and kills it after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // Signalling fails if the process has already exited.
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if !asked || time::timeout(grace, self.child.wait()).await.is_err() {
            // If this fails, dropping the child kills it.
            let _ = self.child.kill().await;
        }
    }
}

/// Validates a bootstrap with Envoy (`--mode validate`): static listeners, routes, clusters and
/// secrets undergo the same checks as over xDS.
///
/// # Errors
///
/// If Envoy cannot be started or rejects the file.
pub async fn validate(binary: &Path, bootstrap: &Path) -> Result<(), ProcessError> {
    let mut command = Command::new(binary);
    command.args([
        "--mode",
        "validate",
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--log-level",
        "warning",
    ]);
    command.arg("-c").arg(bootstrap).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| ProcessError::Start {
        path: binary.into(),
        error,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ProcessError::Ended {
        status: output.status,
        log,
    })
}

/// The last lines of a log; empty if it cannot be read.
fn log_tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::Finder;

    fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    }

    fn launch(folder: &Path, admin: SocketAddr, bootstrap: &str) -> Launch {
        let launch = Launch {
            program: Program::Envoy(Finder::from_env().find(&|text| eprintln!("{text}")).unwrap()),
            bootstrap: folder.join("bootstrap.yaml"),
            admin,
            log: folder.join("envoy.log"),
            reject_unknown_fields: true,
            user: None,
        };
        fs::write(&launch.bootstrap, bootstrap).unwrap();
        launch
    }

    fn admin_only(admin: SocketAddr) -> String {
        let (ip, port) = (admin.ip(), admin.port());
        format!("admin: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}")
    }

    #[tokio::test]
    async fn an_envoy_starts_answers_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let admin = free_address();
        let launch = launch(folder.path(), admin, &admin_only(admin));
        validate(launch.program.path(), &launch.bootstrap).await.unwrap();
        let mut envoy = Process::start(&launch).unwrap();
        envoy.ready(Duration::from_secs(30)).await.unwrap();
        let (status, body) = crate::envoy::get(envoy.admin(), "/server_info").await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(String::from_utf8_lossy(&body).contains("\"state\": \"LIVE\""));
        envoy.stop(Duration::from_secs(10)).await;
        assert!(crate::envoy::get(admin, "/ready").await.is_err());
    }

    #[tokio::test]
    async fn an_envoy_that_exits_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let admin = free_address();
        let launch = launch(folder.path(), admin, "no_such_field: 1");
        let error = Process::start(&launch)
            .unwrap()
            .ready(Duration::from_secs(30))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ProcessError::Ended { .. }) && error.to_string().contains("no_such_field"),
            "{error}"
        );
        let refused = validate(launch.program.path(), &launch.bootstrap)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("no_such_field"), "{refused}");
    }

    #[tokio::test]
    async fn waiting_for_an_unconfigured_envoy_times_out() {
        let folder = tempfile::tempdir().unwrap();
        let admin = free_address();
        let waits_for_listeners = "
node: {id: a, cluster: a}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
static_resources:
  clusters:
  - {name: xds, type: STATIC, load_assignment: {cluster_name: xds}}
";
        let launch = launch(folder.path(), admin, &(admin_only(admin) + waits_for_listeners));
        let error = Process::start(&launch)
            .unwrap()
            .ready(Duration::from_secs(1))
            .await
            .unwrap_err();
        let ProcessError::NotReady { state, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(state, "INITIALIZING");
    }

    #[tokio::test]
    async fn a_missing_binary_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = launch(folder.path(), free_address(), "");
        launch.program = Program::Envoy(folder.path().join("no-envoy"));
        assert!(Process::start(&launch).unwrap_err().to_string().contains("no-envoy"));
    }
}
