//! Data planes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use topsail::envoy::{self, Finder, Launch, Process, Program};

use super::wait::{PATIENCE, eventually};

/// Log lines that are no fault of our configuration, and why.
const ALLOWED: [(&str, &str); 1] = [(
    "There is no configured limit to the number of allowed active downstream connections",
    "Envoy says so of every bootstrap without an overload manager",
)];

/// What runs beside a workload. Scenarios are written once and run on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// The bundled proxy.
    Topsail,
    /// The Envoy that the demo uses as well.
    Envoy,
    /// Exactly this Envoy release.
    EnvoyRelease(&'static str),
}

impl Plane {
    /// What to start on a bootstrap file; its log goes beside that.
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

/// What runs beside the workloads of a mesh: the same everywhere, or one kind beside those that call others and
/// another beside those that only serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Beside workloads that call others.
    pub calling: Plane,
    /// Beside workloads that only serve.
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

/// Makes four tests of each scenario: `<scenario>::on_envoy` and `<scenario>::on_topsail`, and with one kind of
/// sidecar at each end, `<scenario>::envoy_to_topsail` and `<scenario>::topsail_to_envoy`.
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

/// Makes two tests of each scenario: `<scenario>::on_envoy` and `<scenario>::on_topsail`.
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

/// Makes a test of each comparison, `<comparison>::compared`: it does the same to both planes and holds what comes of
/// it against each other.
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

/// A running data plane. Dropping it ends it, and fails the test if its log holds a warning that is not allowed.
pub struct Sidecar {
    ip: IpAddr,
    launch: Launch,
    process: Process,
    allowed: Vec<String>,
}

impl Sidecar {
    /// Starts one for the workload at `ip` and waits until it is ready.
    pub async fn start(ip: IpAddr, launch: &Launch) -> Self {
        let mut sidecar = Self::begin(ip, launch);
        sidecar.ready().await;
        sidecar
    }

    /// As [`Sidecar::start`], but waits for nothing.
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

    /// Kills it as `kill -9` does: it has no chance to say goodbye.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        // It may be ready once more before it is gone.
        while self.process.ready(PATIENCE).await.is_ok() {}
    }

    /// Starts it again after its end, and waits for nothing.
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

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Tolerates log lines with this text, which the test provokes.
    pub fn allow_log(&mut self, text: &str) {
        self.allowed.push(text.into());
    }

    /// The address of its admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.process.admin()
    }

    /// `GET` at its admin listener.
    pub async fn admin(&self, path: &str) -> String {
        let (status, body) = envoy::get(self.process.admin(), path).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
        String::from_utf8_lossy(&body).into_owned()
    }

    /// The configuration it has, endpoints included.
    pub async fn config_dump(&self) -> Value {
        serde_json::from_str(&self.admin("/config_dump?include_eds").await).unwrap()
    }

    /// The counters and gauges whose names hold `filter`, a regular expression.
    pub async fn stats(&self, filter: &str) -> BTreeMap<String, u64> {
        let text = self.admin(&format!("/stats?filter={filter}")).await;
        let rows = text.lines().filter_map(|line| line.rsplit_once(": "));
        rows.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// Waits until it has a listener at this port of its workload's address, or of `ip`.
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

    /// The warnings and errors it logged so far, but for those that are allowed.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.log();
        // Envoy's form and our own.
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
