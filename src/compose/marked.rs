//! Generated files: a first line says so, and by its hash whether somebody has edited the rest since.

use sha2::{Digest, Sha256};

/// What the first line starts with, and what stands before the hash.
const BEGIN: &str = "# Made by `topsail inject` for ";
const HASH: &str = " (sha256:";
const END: &str = "): to keep an edit, remove this line";

/// The first line of a generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The override file that it belongs to.
    pub owner: String,
    /// Whether the rest is as it was made.
    pub is_untouched: bool,
}

/// What there is in the place of a file that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A file that was made and not edited, or none.
    Ours,
    /// A file that was made and has been edited since.
    Edited,
    /// Somebody else's.
    Foreign,
}

impl Marked {
    /// The text of a generated file.
    pub fn write(owner: &str, body: &str) -> String {
        format!("{BEGIN}{owner}{HASH}{}{END}\n{body}", hash(body))
    }

    /// Reads the first line; none if the file was not generated, or somebody has taken it over.
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
    /// What a text says.
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
            // Writing to a text does not fail.
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
