//! A terminal that pictures are drawn on, given back as it was.

use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

/// A screen of its own, without a cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// What is assumed of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

/// Whether the terminal is ours at the moment.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Standard output, while pictures are drawn on it. Dropping it gives the terminal back; a panic does so
/// before it prints its message.
#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it is closed.
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

    /// Columns and rows at this moment.
    pub(super) fn size(&self) -> (usize, usize) {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            Ok(_) | Err(_) => USUAL,
        }
    }

    /// Shows a picture in the place of the last one.
    ///
    /// # Errors
    /// When the terminal is closed.
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
        // A terminal that is closed need not be given back.
        let _ = write(LEAVE);
    }
}

/// Every line over the old one, and nothing below: without clearing the screen first, which flickers.
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
    fn a_picture_takes_the_place_of_the_last_one() {
        let lines = ["one".to_owned(), "two".to_owned()];
        assert_eq!(picture(&lines), "\u{1b}[Hone\u{1b}[K\r\ntwo\u{1b}[K\u{1b}[J");
    }
}
