//! Source texts, and the conversion of byte offsets to lines and columns.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Character counts are precomputed at every multiple of this number of bytes.
const STEP: usize = 4096;

/// The text of a file (or other origin), or a part of it, kept to show its lines in diagnostics.
#[derive(Debug)]
pub struct SourceText {
    /// Displayed origin: the path as given.
    pub origin: Arc<str>,
    /// The text.
    pub text: Box<str>,
    start: Start,
    index: OnceLock<Index>,
}

/// Where a text starts within its origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Start {
    /// The bytes before it.
    pub bytes: usize,
    /// The lines before it.
    pub lines: usize,
}

impl SourceText {
    /// A text and its displayed origin.
    pub fn new(origin: impl Into<Arc<str>>, text: impl Into<Box<str>>) -> Arc<Self> {
        Self::starting(Start::default(), origin, text)
    }

    /// A text that begins at `start`, the beginning of a line, within its origin.
    pub fn starting(start: Start, origin: impl Into<Arc<str>>, text: impl Into<Box<str>>) -> Arc<Self> {
        Arc::new(Self {
            origin: origin.into(),
            text: text.into(),
            start,
            index: OnceLock::new(),
        })
    }

    /// A copy of some lines, so that keeping a part does not keep the whole text.
    pub fn piece(self: &Arc<Self>, span: Range<usize>) -> Arc<Self> {
        if span == (0..self.text.len()) {
            return Arc::clone(self);
        }
        let start = Start {
            bytes: self.start.bytes + span.start,
            lines: self.start.lines + self.line_at(span.start),
        };
        Self::starting(start, self.origin.clone(), &self.text[span])
    }

    /// Where the text starts within its origin.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Line and column of a byte within the origin, both from 1; columns count characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.line_at(offset);
        let line_start = self.index().lines[line];
        let column = self.characters_before(offset) - self.characters_before(line_start);
        (self.start.lines + line + 1, column + 1)
    }

    /// The line that contains a byte, without its line ending.
    pub(super) fn line_around(&self, offset: usize) -> Range<usize> {
        let lines = &self.index().lines;
        let line = self.line_at(offset);
        let end = lines.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let start = lines[line];
        let is_crlf = self.text[start..end].ends_with('\r');
        start..end - usize::from(is_crlf)
    }

    /// Index of the line that contains a byte.
    fn line_at(&self, offset: usize) -> usize {
        self.index().lines.partition_point(|start| *start <= offset) - 1
    }

    fn characters_before(&self, offset: usize) -> usize {
        let step = offset / STEP;
        self.index().characters[step] + characters(&self.text.as_bytes()[step * STEP..offset])
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::of(&self.text))
    }
}

/// Index for position look-ups in long texts and lines; built on the first look-up.
#[derive(Debug)]
struct Index {
    /// Start of each line; never empty.
    lines: Box<[usize]>,
    /// Number of characters before every [`STEP`]th byte.
    characters: Box<[usize]>,
}

impl Index {
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut before = 0;
        let after = bytes.chunks_exact(STEP).map(|chunk| {
            before += characters(chunk);
            before
        });
        Self {
            lines: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect(),
            characters: std::iter::once(0).chain(after).collect(),
        }
    }
}

/// Number of characters that start in a range of bytes.
fn characters(bytes: &[u8]) -> usize {
    let continues = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    bytes.iter().filter(|byte| !continues(**byte)).count()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// [`SourceText::position`] by counting.
    fn counted(text: &str, offset: usize) -> (usize, usize) {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    #[test]
    fn positions_equal_counting() {
        let long = "ä€x".repeat(STEP);
        for text in ["", "\n", "a", "ä\n\nb\r\nc", &format!("{long}\n{long}")] {
            let source = SourceText::new("f", text);
            for offset in (0..text.len() + 2).step_by(1 + text.len() / 997) {
                assert_eq!(source.position(offset), counted(text, offset), "{offset}");
            }
        }
    }

    #[test]
    fn a_piece_holds_its_own_lines_and_knows_where_they_are() {
        let file = SourceText::new("f", "a: ä\n---\nb: 1\nc: 2\n---\nd: 3\n");
        let piece = file.piece(6..20);
        assert_eq!(&*piece.text, "---\nb: 1\nc: 2\n");
        assert_eq!((piece.position(0), piece.position(9)), ((2, 1), (4, 1)));
        let inner = piece.piece(4..9);
        assert_eq!((&*inner.text, inner.position(3)), ("b: 1\n", (3, 4)));
        assert_eq!(inner.start(), Start { bytes: 10, lines: 2 });
        assert!(Arc::ptr_eq(&file.piece(0..file.text.len()), &file));
    }

    #[test]
    fn many_positions_in_a_long_text_are_cheap() {
        for text in ["a: 1\n".repeat(3 << 20), "{a: 1}".repeat(3 << 20)] {
            let source = SourceText::new("f", text);
            let started = Instant::now();
            for offset in (0..source.text.len()).step_by(1000) {
                assert!(source.position(offset).0 > 0 && !source.line_around(offset).is_empty());
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        }
    }
}
