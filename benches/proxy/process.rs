//! Processes and their resource usage.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::usage;

/// CPU of the proxies.
pub(crate) const PROXY_CPU: usize = 0;
/// CPU of load and backend.
pub(crate) const LOAD_CPU: usize = 1;

/// A process that is killed on drop.
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program pinned to a CPU.
    pub(crate) fn start(program: &std::path::Path, arguments: &[&str], cpu: usize) -> Self {
        let child = Command::new("taskset")
            .args(["-c", &cpu.to_string()])
            .arg(program)
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a program starts");
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exits with the command that installs missing tools.
pub(crate) fn require(tools: &[&str]) {
    let found = |tool: &str| Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| !found(tool).is_ok_and(|output| output.status.success()))
        .collect();
    assert!(
        missing.is_empty(),
        "not installed: {missing:?}; apt-get install wrk nghttp2-client nginx-light haproxy util-linux iproute2"
    );
}

/// Restarts this program in a network namespace of its own with only loopback, to exclude the
/// machine's firewall rules and connection tracking (e.g. Docker's) from the measurement.
pub(crate) fn enter_own_network() {
    const ENTERED: &str = "TOPSAIL_BENCH_OWN_NETWORK";
    if std::env::var_os(ENTERED).is_some() {
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("--net").env(ENTERED, "1");
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let error = command
        .args(["sh", "-c", r#"ip link set lo up && exec "$0" "$@""#])
        .arg(std::env::current_exe().expect("a program"))
        .args(std::env::args_os().skip(1))
        .exec();
    panic!("unshare does not start: {error}");
}

/// Pins this process and its children to a CPU.
pub(crate) fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("a processor");
}

/// Raises the limit on open files to the hard limit.
pub(crate) fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("the limit of open files");
}

/// CPU usage of processes.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    /// User time in seconds.
    pub(crate) user: f64,
    /// System time in seconds.
    pub(crate) system: f64,
}

impl Cpu {
    /// No usage.
    pub(crate) const NONE: Self = Self {
        user: f64::NAN,
        system: f64::NAN,
    };

    /// Usage so far.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let all = pids.iter().map(|pid| usage::times(*pid));
        let [user, system] = all.fold([0.0; 2], |[user, system], [more_user, more_system]| {
            [user + more_user, system + more_system]
        });
        Self { user, system }
    }

    /// Usage since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

/// Average resident memory of processes, in MB.
pub(crate) fn rss_mb(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| usage::rss_mb(*pid)).sum::<f64>() / pids.len() as f64
}
