//! Splits YAML files into documents at `---` and `...` lines.

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::diag::{Place, SourceText};

/// Maximum size of a document in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its text and the location in the file.
    pub source: Arc<SourceText>,
    /// SHA-256 of the text.
    pub hash: [u8; 32],
}

impl Document {
    /// A whole text as a single document.
    pub fn whole(source: &Arc<SourceText>) -> Self {
        Self {
            source: Arc::clone(source),
            hash: Sha256::digest(&*source.text).into(),
        }
    }

    /// A range of lines of a file.
    fn new(file: &Arc<SourceText>, span: Range<usize>) -> Self {
        Self::whole(&file.piece(span))
    }

    /// The text of the document.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// A place, given a byte range of its text.
    pub fn place(&self, span: Range<usize>) -> Place {
        Place {
            source: Arc::clone(&self.source),
            span,
        }
    }
}

/// Splits a file into documents. Each owns a copy of its text, so that an object that outlives an
/// edit does not retain the previous file.
///
/// Documents with only comments are omitted.
///
/// `---` and `...` at the start of a line always separate documents, even within a quoted or block
/// scalar, where YAML forbids them.
pub fn split(source: &Arc<SourceText>) -> Vec<Document> {
    let text = &*source.text;
    let mut open = Open::at(if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    });
    let mut documents = Vec::new();
    let mut line_start = open.start;
    for line in text[open.start..].split_inclusive('\n') {
        let line_end = line_start + line.len();
        if let Some(rest) = after_marker(line, "---") {
            if open.has_content {
                documents.push(Document::new(source, open.start..line_start));
            }
            // Directives precede the marker and belong to the document after it.
            if open.has_content || !open.has_directive {
                open = Open::at(line_start);
            }
            open.has_content = is_content(rest);
            open.has_directive = false;
        } else if after_marker(line, "...").is_some() {
            if open.has_content {
                documents.push(Document::new(source, open.start..line_start));
            }
            open = Open::at(line_end);
        } else if line.starts_with('%') && !open.has_content {
            open.has_directive = true;
        } else {
            open.has_content |= is_content(line);
        }
        line_start = line_end;
    }
    if open.has_content {
        documents.push(Document::new(source, open.start..text.len()));
    }
    documents
}

/// The document being collected.
struct Open {
    start: usize,
    has_content: bool,
    has_directive: bool,
}

impl Open {
    fn at(start: usize) -> Self {
        Self {
            start,
            has_content: false,
            has_directive: false,
        }
    }
}

/// The rest of the line after the marker, if it starts with it.
fn after_marker<'t>(line: &'t str, marker: &str) -> Option<&'t str> {
    let rest = line.strip_prefix(marker)?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(rest)
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split(&SourceText::new("f", text))
            .iter()
            .map(|d| d.text().to_owned())
            .collect()
    }

    #[test]
    fn splits_at_markers_and_drops_empty_documents() {
        assert_eq!(texts("a: 1\n---\nb: 2\n"), ["a: 1\n", "---\nb: 2\n"]);
        assert_eq!(texts("---\n# only\n---\n\n---\nb: 2\n..."), ["---\nb: 2\n"]);
        assert_eq!(texts("a: 1\n...\n# c\n...\nb: 2"), ["a: 1\n", "b: 2"]);
        assert_eq!(texts("--- {a: 1}\n---\tb\n"), ["--- {a: 1}\n", "---\tb\n"]);
        assert!(texts("").is_empty() && texts("\u{feff}# c\r\n---\r\n").is_empty());
    }

    #[test]
    fn only_whole_markers_at_the_start_of_a_line_count() {
        for whole in ["a: |\n  ---\nb: 1\n", "----\n", "---a: 1\n", "a: 1\n....\n"] {
            assert_eq!(texts(whole), [whole]);
        }
    }

    #[test]
    fn directives_byte_order_marks_and_crlf() {
        assert_eq!(
            texts("%YAML 1.1\n---\na: 1\n...\n%YAML 1.1\n--- b\n"),
            ["%YAML 1.1\n---\na: 1\n", "%YAML 1.1\n--- b\n"]
        );
        let bom = split(&SourceText::new("f", "\u{feff}a: 1\r\n---\r\nb: 2\r\n"));
        assert_eq!((bom[0].text(), bom[0].source.start().bytes), ("a: 1\r\n", 3));
        assert_eq!(bom[1].text(), "---\r\nb: 2\r\n");
    }

    #[test]
    fn equal_texts_have_equal_hashes() {
        let documents = split(&SourceText::new("f", "---\na: 1\n---\na: 1\n---\na: 2\n"));
        assert_eq!(documents[0].hash, documents[1].hash);
        assert_ne!(documents[0].hash, documents[2].hash);
    }
}
