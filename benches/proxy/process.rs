//! Processes, and what the system says of them.

use std::fs;
use std::process::{Child, Command};

use rustix::thread::{CpuSet, sched_setaffinity};

/// The processor of proxies.
pub(crate) const PROXY_CPU: usize = 0;
/// The processor of load and backend.
pub(crate) const LOAD_CPU: usize = 1;

/// A process that is killed when this is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program on a processor of its own.
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

/// Ends the run with the command that installs what is missing.
pub(crate) fn require(tools: &[&str]) {
    let found = |tool: &str| Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| !found(tool).is_ok_and(|output| output.status.success()))
        .collect();
    assert!(
        missing.is_empty(),
        "not installed: {missing:?}; apt-get install wrk nghttp2-client nginx-light haproxy util-linux"
    );
}

/// Keeps this process, and what it starts, on one processor.
pub(crate) fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("a processor");
}

/// User and system time of processes.
pub(crate) fn cpu_seconds(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| cpu_seconds_of(*pid)).sum()
}

fn cpu_seconds_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
    };
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory of processes, on average.
pub(crate) fn rss_mb(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
    };
    pids.iter().map(of).sum::<f64>() / pids.len() as f64
}
