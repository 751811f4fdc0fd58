//! Collects and prints results.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::process::Cpu;

/// Result of a load.
pub(crate) struct Outcome {
    pub(crate) requests: f64,
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Outcome {
    /// The result for requests, given the time each was due and its latency from then on.
    ///
    /// The 50th and 99th percentiles are computed per second, of which the median is taken: virtual
    /// machines occasionally stall for tens of milliseconds, which would dominate the 99th
    /// percentile of a run of a few seconds. Stalls show in the 99.9th percentile, which is that of
    /// all requests.
    pub(crate) fn paced(start: Instant, requests: &[(Instant, Duration)]) -> Self {
        let rate = requests.len() as f64 / start.elapsed().as_secs_f64();
        let mut seconds: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (due, took) in requests {
            let second = due.duration_since(start).as_secs();
            seconds.entry(second).or_default().push(took.as_secs_f64() * 1e6);
        }
        let mut all: Vec<f64> = seconds.values().flatten().copied().collect();
        for times in seconds.values_mut().chain([&mut all]) {
            times.sort_by(f64::total_cmp);
        }
        let of_seconds = |share: f64| Spread::of(seconds.values().map(|second| percentile(second, share))).median;
        Self {
            requests: requests.len() as f64,
            rate,
            p50: of_seconds(0.5),
            p99: of_seconds(0.99),
            p999: percentile(&all, 0.999),
        }
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// One repetition of one contender.
pub(crate) struct Row {
    name: &'static str,
    mode: &'static str,
    rate: f64,
    /// CPU time per request in microseconds, and its share in user space.
    cpu: f64,
    user: f64,
    p50: f64,
    p99: f64,
    p999: f64,
}

pub(crate) fn push(rows: &mut Vec<Row>, name: &'static str, mode: &'static str, outcome: &Outcome, used: Cpu) {
    let each = |seconds: f64| seconds * 1e6 / outcome.requests;
    let (cpu, user) = (each(used.user + used.system), each(used.user));
    eprintln!(
        "{name} {mode}: {:.0}/s, {cpu:.1} us of CPU, {user:.1} of it its own, p99 {:.0} us",
        outcome.rate, outcome.p99
    );
    rows.push(Row {
        name,
        mode,
        rate: outcome.rate,
        cpu,
        user,
        p50: outcome.p50,
        p99: outcome.p99,
        p999: outcome.p999,
    });
}

/// Median of a contender's maximum rates.
pub(crate) fn median_rate(rows: &[Row], name: &str) -> f64 {
    let rates = rows
        .iter()
        .filter(|row| row.name == name && row.mode == "max")
        .map(|row| row.rate);
    Spread::of(rates).median
}

/// Median, minimum and maximum.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }

    fn show(self, digits: usize) -> String {
        if self.median.is_nan() {
            return "-".to_owned();
        }
        format!(
            "{:.digits$} [{:.digits$}..{:.digits$}]",
            self.median, self.least, self.most
        )
    }
}

/// The complete result.
pub(crate) struct Table {
    lines: Vec<String>,
    memory: Vec<String>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            lines: Vec::new(),
            memory: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, scenario: &str, rows: Vec<Row>) {
        let mut groups: BTreeMap<(&str, &str), Vec<Row>> = BTreeMap::new();
        for row in rows {
            groups.entry((row.mode, row.name)).or_default().push(row);
        }
        let of = |rows: &[Row], value: fn(&Row) -> f64| Spread::of(rows.iter().map(value));
        let envoy: BTreeMap<&str, [f64; 3]> = groups
            .iter()
            .filter(|((_, name), _)| *name == "Envoy")
            .map(|((mode, _), rows)| {
                let medians = [
                    of(rows, |row| row.cpu),
                    of(rows, |row| row.p99),
                    of(rows, |row| row.user),
                ];
                (*mode, medians.map(|spread| spread.median))
            })
            .collect();
        for ((mode, name), rows) in &groups {
            let (cpu, p99, user) = (
                of(rows, |row| row.cpu),
                of(rows, |row| row.p99),
                of(rows, |row| row.user),
            );
            let ratio = |value: f64, at: usize| match envoy.get(mode) {
                Some(envoy) if !(value / envoy[at]).is_nan() => format!("{:.2}", value / envoy[at]),
                _ => "-".to_owned(),
            };
            self.lines.push(format!(
                "| {scenario} | {mode} | {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                of(rows, |row| row.rate).show(0),
                cpu.show(1),
                ratio(cpu.median, 0),
                user.show(1),
                ratio(user.median, 2),
                of(rows, |row| row.p50).show(0),
                p99.show(0),
                of(rows, |row| row.p999).show(0),
                ratio(p99.median, 1),
            ));
        }
    }

    pub(crate) fn memory(&mut self, name: &str, idle: f64, connections: usize, many: f64) {
        eprintln!("{name}: {idle:.1} MB idle, {many:.1} MB with {connections} connections");
        self.memory.push(format!(
            "| {name} | {idle:.1} MB | {many:.1} MB ({connections} connections) |"
        ));
    }

    pub(crate) fn print(&self) {
        println!(
            "| scenario | load | proxy | requests (bulk: MB) a second | CPU us for each | of Envoy's | of it in user space | of Envoy's | p50 us | p99 us | p99.9 us | of Envoy's p99 |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
        self.lines.iter().for_each(|line| println!("{line}"));
        println!("\n| proxy | resident memory, idle | with connections |\n|---|---|---|");
        self.memory.iter().for_each(|line| println!("{line}"));
    }
}
