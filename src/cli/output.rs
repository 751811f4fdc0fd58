//! Where a command prints, and whether in colour.

use std::io::{self, IsTerminal, Write};

/// Standard output and standard error, or what a test reads in their place.
pub(super) struct Output {
    /// What the command was asked for.
    pub out: Box<dyn Write>,
    /// Everything else.
    pub err: Box<dyn Write>,
    /// Whether a person reads [`Output::out`].
    pub is_terminal: bool,
    /// Whether a person reads [`Output::err`].
    pub err_is_terminal: bool,
    /// Whether to use colours on [`Output::out`].
    pub color: bool,
}

impl Output {
    /// Those of the process.
    pub(super) fn standard() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            color: color(&io::stdout()),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// A line for the person at the terminal; scripts do not see it.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        if self.err_is_terminal {
            writeln!(self.err, "{text}")?;
        }
        Ok(())
    }
}

/// Colours are for terminals that know them, unless `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn color(stream: &impl IsTerminal) -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value: std::ffi::OsString| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && unset("NO_COLOR") && !dumb
}
