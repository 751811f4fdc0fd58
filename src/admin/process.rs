//! Resource usage of the process.

use std::fs;

/// Resource usage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// Resident set size in bytes.
    pub resident_bytes: u64,
    /// CPU time in user and system mode, in seconds.
    pub cpu_seconds: f64,
}

/// Reads the usage from `/proc`; `None` if unavailable.
pub(super) fn usage() -> Option<Usage> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    parse(
        &statm,
        &stat,
        rustix::param::page_size() as u64,
        rustix::param::clock_ticks_per_second() as f64,
    )
}

fn parse(statm: &str, stat: &str, page_size: u64, ticks_per_second: f64) -> Option<Usage> {
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    // The second field is the command name in parentheses, which may contain anything.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut ticks = after_name.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    let (user, system) = (ticks.next()??, ticks.next()??);
    Some(Usage {
        resident_bytes: pages * page_size,
        cpu_seconds: (user + system) as f64 / ticks_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_parsed_whatever_the_command_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 150 13 14 20 0 1 0 9 9 9";
        let usage = parse("100 25 3 4 0 5 0", stat, 4096, 100.0).unwrap();
        assert_eq!((usage.resident_bytes, usage.cpu_seconds), (102_400, 4.0));
        assert_eq!(parse("", "", 1, 1.0), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage().unwrap().resident_bytes > 1 << 20);
    }
}
