//! Collects and prints results.

use std::time::Duration;

/// Rows of results.
pub(crate) struct Table(Vec<[String; 3]>);

impl Table {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a row and prints it at once, since runs are long.
    pub(crate) fn row(&mut self, what: &str, figure: &str, goal: &str) {
        eprintln!("{what}: {figure} (goal: {goal})");
        self.0.push([what.to_owned(), figure.to_owned(), goal.to_owned()]);
    }

    pub(crate) fn print(&self) {
        println!("| what | measured | goal |\n|---|---|---|");
        for [what, figure, goal] in &self.0 {
            println!("| {what} | {figure} | {goal} |");
        }
        println!("\n{}", machine());
    }
}

/// Sorted durations.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    fn at(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    pub(crate) fn millis(&self) -> String {
        let [min, p50, p99, max] = [0, 50, 99, 100].map(|percent| self.at(percent));
        format!(
            "p50 {p50:.1} ms, p99 {p99:.1} ms [{min:.1} .. {max:.1}], n = {}",
            self.0.len()
        )
    }
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("?", |rest| rest.trim_start_matches([':', '\t', ' ']));
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("Machine: {cores} cores, {model}")
}
