//! Proxies under test.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use topsail::envoy::{self, Finder, Launch, Process, Program};

use super::wait::{PATIENCE, eventually};

/// Log lines that are not caused by our configuration, and why.
const ALLOWED: [(&str, &str); 1] = [(
    "There is no configured limit to the number of allowed active downstream connections",
    "Envoy says so of every bootstrap without an overload manager",
)];

/// The proxy of a workload. Each scenario runs with every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// The bundled proxy.
    Topsail,
    /// Envoy, the binary that the demo uses.
    Envoy,
    /// A specific Envoy release.
    EnvoyRelease(&'static str),
}

impl Plane {
    /// How to start it with a bootstrap file; the log is written next to that.
    pub async fn launch(self, bootstrap: &Path, admin: SocketAddr) -> Launch {
        Launch {
            program: tokio::task::spawn_blocking(move || self.program()).await.unwrap(),
            bootstrap: bootstrap.into(),
            admin,
            log: bootstrap.with_extension("log"),
            reject_unknown_fields: true,
            user: None,
        }
    }

    fn program(self) -> Program {
        let (finder, progress) = (Finder::from_env(), |text: &str| eprintln!("{text}"));
        let found = match self {
            Plane::Topsail => return Program::Topsail(env!("CARGO_BIN_EXE_topsail").into()),
            Plane::Envoy => finder.find(&progress),
            Plane::EnvoyRelease(version) => finder.release(version, &progress),
        };
        Program::Envoy(found.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// The proxies of a mesh: the same everywhere, or different ones for clients and for servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Proxies of workloads that call others.
    pub calling: Plane,
    /// Proxies of workloads that only serve.
    pub serving: Plane,
}

impl From<Plane> for Planes {
    fn from(plane: Plane) -> Self {
        Self {
            calling: plane,
            serving: plane,
        }
    }
}

/// Generates four tests per scenario: `<scenario>::on_envoy` and `<scenario>::on_topsail`, and with
/// different proxies at both ends `<scenario>::envoy_to_topsail` and
/// `<scenario>::topsail_to_envoy`.
#[macro_export]
macro_rules! on_each_pair_of_planes {
    ($($scenario:ident,)+) => {
        $(mod $scenario {
            use $crate::harness::{Plane, Planes};

            #[tokio::test]
            async fn on_envoy() {
                super::$scenario(Plane::Envoy.into()).await;
            }

            #[tokio::test]
            async fn on_topsail() {
                super::$scenario(Plane::Topsail.into()).await;
            }

            #[tokio::test]
            async fn envoy_to_topsail() {
                super::$scenario(Planes { calling: Plane::Envoy, serving: Plane::Topsail }).await;
            }

            #[tokio::test]
            async fn topsail_to_envoy() {
                super::$scenario(Planes { calling: Plane::Topsail, serving: Plane::Envoy }).await;
            }
        })+
    };
}

/// Generates two tests per scenario: `<scenario>::on_envoy` and `<scenario>::on_topsail`.
#[macro_export]
macro_rules! on_each_plane {
    ($($scenario:ident,)+) => {
        $(mod $scenario {
            use $crate::harness::Plane;

            #[tokio::test]
            async fn on_envoy() {
                super::$scenario(Plane::Envoy).await;
            }

            #[tokio::test]
            async fn on_topsail() {
                super::$scenario(Plane::Topsail).await;
            }
        })+
    };
}

/// Generates a test per comparison, `<comparison>::compared`, which runs it on both proxies and
/// compares the results.
#[macro_export]
macro_rules! between_planes {
    ($($comparison:ident,)+) => {
        $(mod $comparison {
            #[tokio::test]
            async fn compared() {
                super::$comparison().await;
            }
        })+
    };
}

/// A running proxy. On drop it is stopped, and the test fails if its log has a warning that is not
/// allowed.
pub struct Sidecar {
    ip: IpAddr,
    launch: Launch,
    process: Process,
    allowed: Vec<String>,
}

impl Sidecar {
    /// Starts the proxy of the workload at `ip` and waits until it is ready.
    pub async fn start(ip: IpAddr, launch: &Launch) -> Self {
        let mut sidecar = Self::begin(ip, launch);
        sidecar.ready().await;
        sidecar
    }

    /// Like [`Sidecar::start`], without waiting.
    pub fn begin(ip: IpAddr, launch: &Launch) -> Self {
        Self {
            ip,
            launch: launch.clone(),
            process: Process::start(launch).unwrap(),
            allowed: ALLOWED.map(|(text, _)| text.to_owned()).to_vec(),
        }
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) {
        let ready = self.process.ready(PATIENCE).await;
        ready.unwrap_or_else(|error| panic!("{}: {error}", self.launch.bootstrap.display()));
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it with SIGKILL, without a graceful shutdown.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        // `/ready` may succeed once more before the process is gone.
        while self.process.ready(PATIENCE).await.is_ok() {}
    }

    /// Restarts it after it has ended, without waiting.
    pub fn start_again(&mut self) {
        self.process = Process::start(&self.launch).unwrap();
    }

    /// Its bootstrap file.
    pub fn bootstrap(&self) -> &Path {
        &self.launch.bootstrap
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.process.log()).unwrap_or_default()).into_owned()
    }

    /// The address of its workload.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Allows log lines that contain this text, for a test that provokes them.
    pub fn allow_log(&mut self, text: &str) {
        self.allowed.push(text.into());
    }

    /// Address of its admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.process.admin()
    }

    /// Sends a `GET` request to its admin listener.
    pub async fn admin(&self, path: &str) -> String {
        let (status, body) = envoy::get(self.process.admin(), path).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Its config dump, endpoints included.
    pub async fn config_dump(&self) -> Value {
        serde_json::from_str(&self.admin("/config_dump?include_eds").await).unwrap()
    }

    /// Counters and gauges whose names match the regular expression `filter`.
    pub async fn stats(&self, filter: &str) -> BTreeMap<String, u64> {
        let text = self.admin(&format!("/stats?filter={filter}")).await;
        let rows = text.lines().filter_map(|line| line.rsplit_once(": "));
        rows.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// Waits until it has a listener at this address.
    pub async fn listens(&self, address: SocketAddr) {
        eventually(&format!("a listener at {address}"), async || {
            let listeners = self.admin("/listeners").await;
            if listeners.lines().any(|line| line.ends_with(&format!("::{address}"))) {
                Ok(())
            } else {
                Err(listeners)
            }
        })
        .await;
    }

    /// Warnings and errors logged so far, except those allowed.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.log();
        // Envoy's log format and our own.
        let severe = [
            "][warning][",
            "][error][",
            "][critical][",
            " WARN ",
            " ERROR ",
            "panicked at",
        ];
        let lines = log
            .lines()
            .filter(|line| severe.iter().any(|level| line.contains(level)));
        lines
            .filter(|line| !self.allowed.iter().any(|text| line.contains(text)))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the sidecar at {}\n{}", self.ip, self.log());
        } else {
            let complaints = self.complaints();
            assert!(
                complaints.is_empty(),
                "{} complains: {complaints:#?}",
                self.process.log().display()
            );
        }
    }
}
