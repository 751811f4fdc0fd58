//! Renders the demo's state: full-screen, or as one line.

mod text;

use std::path::Path;
use std::time::Duration;

use super::measure::{FAILED, Hop, Report, WINDOW};
use super::plane::PlaneState;
pub(super) use text::{Line, Style, fit};

/// Width of the bars.
const BAR: usize = 30;
/// Maximum number of diagnostics shown.
const MAX_PROBLEMS: usize = 4;

/// The state to render.
#[derive(Debug)]
pub(super) struct Model<'a> {
    /// Time since the start.
    pub elapsed: Duration,
    /// URL of `productpage`.
    pub page: &'a str,
    /// Traffic statistics.
    pub report: &'a Report,
    /// State of the control plane.
    pub plane: &'a PlaneState,
    /// Workloads expected to be connected.
    pub workloads: &'a [String],
    /// Processes that are not running.
    pub missing: &'a [String],
    /// Recent events.
    pub news: Vec<&'a str>,
    /// The live configuration directory.
    pub directory: &'a Path,
    /// Directory of the logs.
    pub logs: &'a Path,
}

impl Model<'_> {
    /// The full-screen rendering.
    pub(super) fn frame(&self) -> Vec<Line> {
        let mut lines = vec![self.head(), Line::default(), self.traffic(), Line::default()];
        lines.extend(self.hops());
        lines.push(Line::default());
        lines.extend(self.control_plane());
        lines.push(Line::default());
        lines.extend(self.advice());
        for news in &self.news {
            lines.extend(
                news.lines()
                    .map(|line| Line::default().and(Style::Dim, format!(" {line}"))),
            );
        }
        lines
    }

    /// The one-line rendering.
    pub(super) fn line(&self) -> String {
        let report = self.report;
        let figures = format!(
            "{:>4}s  {:.1}/s, p50 {}, p99 {}, errors {}",
            self.elapsed.as_secs(),
            report.rate,
            millis(report.p50),
            millis(report.p99),
            report.failed
        );
        let mut parts = vec![figures];
        parts.extend(report.hops.iter().map(|hop| {
            let versions = hop
                .versions
                .iter()
                .map(|version| format!(" {} {:.0}%", version.name, version.share * 100.0));
            format!("{}{}", hop.to, versions.collect::<String>())
        }));
        parts.push(self.generation());
        parts.push(if self.plane.answers {
            format!("{} of {} proxies SYNCED", self.synced(), self.workloads.len())
        } else {
            "the control plane does not respond".to_owned()
        });
        parts.extend(self.missing.iter().map(|name| format!("no {name}")));
        parts.join(" | ")
    }

    /// The static part of the full-screen rendering, printed once in line output.
    pub(super) fn introduction(&self) -> Vec<String> {
        let mut lines = vec![Line::default().and(Style::Plain, format!("page: {}", self.page))];
        lines.extend(self.advice());
        fit(&lines, (usize::MAX, lines.len()), false)
    }

    fn head(&self) -> Line {
        let seconds = self.elapsed.as_secs();
        Line::default().and(Style::Bold, " Bookinfo".to_owned()).and(
            Style::Plain,
            format!(" for {}:{:02}   {}", seconds / 60, seconds % 60, self.page),
        )
    }

    fn traffic(&self) -> Line {
        let report = self.report;
        let figures = format!(
            "{:.1} requests/s   p50 {}   p99 {}   ",
            report.rate,
            millis(report.p50),
            millis(report.p99)
        );
        let line = label("traffic").and(Style::Plain, figures);
        let (window, total, failed) = (WINDOW.as_secs(), report.total, report.total_failed);
        let since = format!("   ({failed} of {total} since the start)");
        match (report.failed, &report.last_failure) {
            (0, _) => line
                .and(Style::Good, format!("no errors in {window} s"))
                .and(Style::Dim, since),
            (failed, why) => {
                let why = why.as_deref().unwrap_or_default();
                let errors = format!("{failed} errors in {window} s: {why}");
                line.and(Style::Bad, errors).and(Style::Dim, since)
            }
        }
    }

    fn hops(&self) -> Vec<Line> {
        if self.report.rate == 0.0 {
            let seconds = WINDOW.as_secs();
            return vec![Line::default().and(
                Style::Dim,
                format!(" no request was answered in the last {seconds} seconds"),
            )];
        }
        self.report.hops.iter().flat_map(hop).collect()
    }

    fn control_plane(&self) -> Vec<Line> {
        let plane = label("control plane");
        let mut lines = vec![if self.plane.answers {
            plane.and(Style::Plain, self.generation())
        } else {
            plane.and(
                Style::Bad,
                "does not respond; the sidecars keep their configuration".to_owned(),
            )
        }];
        lines.push(self.proxies());
        if !self.missing.is_empty() {
            lines.push(label("not running").and(Style::Bad, self.missing.join(", ")));
        }
        match &self.plane.problems[..] {
            [] => lines.push(label("problems").and(Style::Good, "none".to_owned())),
            problems => {
                lines.push(label("problems").and(Style::Bad, problems.len().to_string()));
                let first = problems.iter().take(MAX_PROBLEMS);
                lines.extend(first.map(|problem| Line::default().and(Style::Plain, format!("   {problem}"))));
            }
        }
        lines
    }

    fn generation(&self) -> String {
        let Some(number) = self.plane.generation else {
            return "no generation".to_owned();
        };
        let generation = format!("generation {number} of {} objects", self.plane.objects);
        match self.plane.edit_to_ack {
            Some(took) => format!("{generation}, last edit to last ACK {}", millis(took)),
            None => generation,
        }
    }

    fn synced(&self) -> usize {
        self.workloads
            .iter()
            .filter(|name| self.state(name) == "SYNCED")
            .count()
    }

    fn state(&self, workload: &str) -> &'static str {
        self.plane.proxies.get(workload).copied().unwrap_or("not connected")
    }

    fn proxies(&self) -> Line {
        let synced = format!("{} of {} SYNCED", self.synced(), self.workloads.len());
        if !self.plane.answers {
            return label("proxies").and(Style::Dim, format!("{synced} when it last responded"));
        }
        let others = self.workloads.iter().filter(|name| self.state(name) != "SYNCED");
        let others: String = others.map(|name| format!("   {name} {}", self.state(name))).collect();
        let style = if others.is_empty() { Style::Good } else { Style::Plain };
        label("proxies").and(style, synced).and(Style::Bad, others)
    }

    fn advice(&self) -> Vec<Line> {
        let mut lines = vec![match &self.plane.hint {
            Some(hint) => label("edit")
                .and(Style::Bold, hint.place.clone())
                .and(Style::Plain, format!("   {}   ", hint.text))
                .and(Style::Dim, format!("({})", hint.meaning)),
            None => label("edit").and(Style::Bold, format!("a file in {}", self.directory.display())),
        }];
        let save = "save the file and watch traffic shift; press Ctrl-C to stop the demo and clean up".to_owned();
        lines.push(label("").and(Style::Plain, save));
        lines.push(label("logs").and(Style::Dim, self.logs.display().to_string()));
        lines
    }
}

fn label(name: &str) -> Line {
    Line::default().and(Style::Plain, format!(" {name:<15}"))
}

fn hop(hop: &Hop) -> Vec<Line> {
    let row = |(at, version): (usize, &super::measure::Version)| {
        let names = if at == 0 {
            format!(" {:>11} → {:<10}", hop.from, hop.to)
        } else {
            " ".repeat(25)
        };
        let style = if version.name == FAILED {
            Style::Bad
        } else {
            Style::Good
        };
        let share = format!("{:>4.0} %", version.share * 100.0);
        Line::default()
            .and(Style::Plain, format!("{names} {:<7}", version.name))
            .and(style, bar(version.share))
            .and(Style::Bold, share)
            .and(Style::Dim, format!("{:>8.1}/s", version.rate))
    };
    hop.versions.iter().enumerate().map(row).collect()
}

/// A bar for a share from 0 to 1, in eighths of a column.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 8 × BAR"
    )]
    #[expect(clippy::cast_precision_loss, reason = "BAR is small")]
    let eighths = ((share.clamp(0.0, 1.0) * (BAR * 8) as f64).round()) as usize;
    let text = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
    format!("{text:<BAR$}")
}

fn millis(duration: Duration) -> String {
    match duration.as_secs_f64() * 1000.0 {
        millis if millis < 100.0 => format!("{millis:.1} ms"),
        millis => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests;
