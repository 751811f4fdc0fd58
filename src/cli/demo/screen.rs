//! Output of the demo: full-screen on a terminal, lines otherwise.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::terminal::Terminal;
use super::view::{Model, fit};
use crate::cli::output::{Output, color};

/// Interval between status lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// The output.
pub(super) enum Screen<'o> {
    /// Full-screen display.
    Picture {
        /// The terminal.
        terminal: Terminal,
        /// Whether to use colours.
        color: bool,
    },
    /// Line output.
    Lines(Lines<'o>),
}

/// Line output for files and pipes.
pub(super) struct Lines<'o> {
    out: &'o mut dyn Write,
    is_introduced: bool,
    due: Instant,
    generation: Option<u64>,
    problems: Vec<String>,
}

impl<'o> Screen<'o> {
    /// Opens a full-screen display if standard output is a terminal, line output otherwise.
    ///
    /// # Errors
    /// If the terminal is closed.
    pub(super) fn open(output: &'o mut Output, now: Instant) -> io::Result<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if output.is_terminal && io::stdout().is_terminal() && !is_dumb {
            let color = color(&io::stdout());
            let terminal = Terminal::enter()?;
            return Ok(Self::Picture { terminal, color });
        }
        Ok(Self::Lines(Lines::new(&mut output.out, now)))
    }

    /// Shows the current state and what happened since the last call.
    ///
    /// # Errors
    /// If the output is closed.
    pub(super) fn show(&mut self, model: &Model<'_>, news: &[String], now: Instant) -> io::Result<()> {
        match self {
            Screen::Picture { terminal, color } => {
                let lines = fit(&model.frame(), terminal.size(), *color);
                terminal.draw(&lines)
            }
            Screen::Lines(lines) => lines.show(model, news, now),
        }
    }
}

impl<'o> Lines<'o> {
    fn new(out: &'o mut dyn Write, now: Instant) -> Self {
        Self {
            out,
            is_introduced: false,
            due: now + LINE_INTERVAL,
            generation: None,
            problems: Vec::new(),
        }
    }

    /// Prints statistics at an interval and on a new generation, and diagnostics when they change.
    fn show(&mut self, model: &Model<'_>, news: &[String], now: Instant) -> io::Result<()> {
        let mut lines = news.to_vec();
        if !self.is_introduced {
            self.is_introduced = true;
            lines.extend(model.introduction());
        }
        if model.plane.problems != self.problems {
            self.problems.clone_from(&model.plane.problems);
            lines.push(format!("problems: {}", self.problems.len()));
            lines.extend(self.problems.iter().map(|problem| format!("  {problem}")));
        }
        if now >= self.due || self.generation != model.plane.generation {
            self.due = now + LINE_INTERVAL;
            self.generation = model.plane.generation;
            lines.push(model.line());
        }
        for line in lines {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::measure::Report;
    use super::super::plane::PlaneState;
    use super::*;

    #[test]
    fn lines_are_printed_on_changes() {
        let (start, mut out) = (Instant::now(), Vec::new());
        let mut lines = Lines::new(&mut out, start);
        let report = Report::default();
        let mut plane = PlaneState::default();
        let mut show = |plane: &PlaneState, news: &[String], now| {
            let model = Model {
                elapsed: Duration::ZERO,
                page: "http://page",
                report: &report,
                plane,
                workloads: &[],
                missing: &[],
                news: Vec::new(),
                directory: Path::new("config"),
                logs: Path::new("logs"),
            };
            lines.show(&model, news, now).unwrap();
        };
        show(&plane, &[], start);
        show(&plane, &["the control plane ended".to_owned()], start);
        plane.problems = vec!["a.yaml:1:1: error[TS0001]: no".to_owned()];
        show(&plane, &[], start);
        plane.generation = Some(7);
        show(&plane, &[], start);
        show(&plane, &[], start + LINE_INTERVAL / 2);
        show(&plane, &[], start + LINE_INTERVAL);
        let text = String::from_utf8(out).unwrap();
        let firsts: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().next().unwrap())
            .collect();
        assert_eq!(
            firsts,
            [
                "page:",
                "edit",
                "save",
                "logs",
                "the",
                "problems:",
                "a.yaml:1:1:",
                "0s",
                "0s"
            ],
            "{text}"
        );
    }
}
