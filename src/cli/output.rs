//! Output streams of a command, and whether they support colour.

use std::io::{self, IsTerminal, Write};

/// Standard output and standard error, or their replacements in tests.
pub(super) struct Output {
    /// For the command's result.
    pub out: Box<dyn Write>,
    /// For everything else.
    pub err: Box<dyn Write>,
    /// Whether [`Output::out`] is a terminal.
    pub is_terminal: bool,
    /// Whether [`Output::err`] is a terminal.
    pub err_is_terminal: bool,
    /// Whether to use colour on [`Output::out`].
    pub color: bool,
}

impl Output {
    /// The process's streams.
    pub(super) fn standard() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            color: color(&io::stdout()),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// Prints a line to standard error if it is a terminal, so that scripts do not see it.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        if self.err_is_terminal {
            writeln!(self.err, "{text}")?;
        }
        Ok(())
    }
}

/// Whether to use colour: only on capable terminals, and not if `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn color(stream: &impl IsTerminal) -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value: std::ffi::OsString| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && unset("NO_COLOR") && !dumb
}
