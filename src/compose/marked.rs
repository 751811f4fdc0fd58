//! Marks generated files in their first line, with a hash to detect later edits.

use sha2::{Digest, Sha256};

/// Start of the first line, up to the owner and the hash.
const BEGIN: &str = "# Made by `topsail inject` for ";
const HASH: &str = " (sha256:";
const END: &str = "): to keep an edit, remove this line";

/// The first line of a generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The override file it belongs to.
    pub owner: String,
    /// Whether the rest is unmodified.
    pub is_untouched: bool,
}

/// State of a file about to be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not exist, or was generated and is unmodified.
    Ours,
    /// It was generated and has been edited.
    Edited,
    /// It was not generated.
    Foreign,
}

impl Marked {
    /// The text of a generated file.
    pub fn write(owner: &str, body: &str) -> String {
        format!("{BEGIN}{owner}{HASH}{}{END}\n{body}", hash(body))
    }

    /// Parses the first line; `None` if the file was not generated, or the line was removed to take
    /// it over.
    pub fn read(text: &str) -> Option<Self> {
        let (line, body) = text.split_once('\n')?;
        let (owner, rest) = line.strip_prefix(BEGIN)?.rsplit_once(HASH)?;
        let written = rest.trim_end().strip_suffix(END)?;
        Some(Self {
            owner: owner.to_owned(),
            is_untouched: written == hash(body),
        })
    }
}

impl State {
    /// The state of a file with this text.
    pub fn of(text: &str) -> Self {
        match Marked::read(text) {
            Some(marked) if marked.is_untouched => Self::Ours,
            Some(_) => Self::Edited,
            None => Self::Foreign,
        }
    }
}

fn hash(body: &str) -> String {
    use std::fmt::Write;

    Sha256::digest(body)
        .iter()
        .take(16)
        .fold(String::new(), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_shows_and_a_file_without_the_line_is_somebody_elses() {
        let text = Marked::write("docker-compose.topsail.yml", "a: 1\n");
        assert_eq!(Marked::read(&text).unwrap().owner, "docker-compose.topsail.yml");
        assert_eq!(State::of(&text), State::Ours);
        assert_eq!(State::of(&text.replace("a: 1", "a: 2")), State::Edited);
        assert_eq!(State::of("a: 1\n"), State::Foreign);
        assert_eq!(State::of(""), State::Foreign);
    }
}
