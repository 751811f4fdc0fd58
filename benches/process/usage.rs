//! Resource usage of a process, for benchmarks that measure one from outside.

use std::fs;

/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, which is the same on all Linux
/// architectures used.
const TICKS: f64 = 100.0;

/// User and system time so far, in seconds.
pub(crate) fn times(pid: u32) -> [f64; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program name in parentheses may contain anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |index: usize| {
        let field = fields.get(index).and_then(|field| field.parse::<f64>().ok());
        field.unwrap_or(f64::NAN)
    };
    [ticks(11) / TICKS, ticks(12) / TICKS]
}

/// Resident memory in MB.
pub(crate) fn rss_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}
