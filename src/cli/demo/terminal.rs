//! A full-screen terminal whose previous state is restored.

use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

/// Switches to the alternate screen and hides the cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// Size of a terminal that does not report one.
const DEFAULT_SIZE: (usize, usize) = (80, 24);

/// Whether the terminal is in full-screen mode.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Standard output in full-screen mode. Restored on drop, and by the panic hook before it prints its message.
#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Enters full-screen mode.
    ///
    /// # Errors
    /// If the terminal is closed.
    pub(super) fn enter() -> io::Result<Self> {
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            leave();
            former(info);
        }));
        ENTERED.store(true, Ordering::SeqCst);
        let terminal = Self(());
        write(ENTER)?;
        Ok(terminal)
    }

    /// Current size in columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            Ok(_) | Err(_) => DEFAULT_SIZE,
        }
    }

    /// Draws a frame over the previous one.
    ///
    /// # Errors
    /// If the terminal is closed.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        write(&picture(lines))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    if ENTERED.swap(false, Ordering::SeqCst) {
        // Fails only if the terminal is closed.
        let _ = write(LEAVE);
    }
}

/// Overwrites every line and clears below, instead of clearing the screen first, which flickers.
fn picture(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\u{1b}[K")).collect();
    format!("\u{1b}[H{}\u{1b}[J", lines.join("\r\n"))
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_the_previous_one() {
        let lines = ["one".to_owned(), "two".to_owned()];
        assert_eq!(picture(&lines), "\u{1b}[Hone\u{1b}[K\r\ntwo\u{1b}[K\u{1b}[J");
    }
}
