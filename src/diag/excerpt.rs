//! Excerpts of a text that show the labels of a diagnostic.

use std::ops::Range;
use std::sync::Arc;

use super::{Label, SourceText};

/// Labels at most this many lines apart share an excerpt.
const NEAR_LINES: usize = 3;

/// Lines longer than this are truncated around the labels: JSON is often a single line.
const MAX_LINE: usize = 400;

/// Bytes kept on either side of a label in a truncated line.
const KEPT_AROUND: usize = 120;

/// Bytes of a label's span kept in a truncated line.
const KEPT_INSIDE: usize = 120;

/// Consecutive lines of a text, with marks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excerpt<'a> {
    /// Displayed origin of the text.
    pub(super) origin: &'a str,
    /// Number of the first line, from 1.
    pub(super) first_line: usize,
    /// The lines.
    pub(super) text: String,
    /// Marks, the primary one first; never empty.
    pub(super) marks: Vec<Mark<'a>>,
    /// Whether the start of a line is truncated, so that columns of the excerpt are not those of
    /// the text.
    pub(super) is_shifted: bool,
}

/// A marked span of an excerpt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark<'a> {
    /// Byte range of the excerpt, within one line.
    pub(super) span: Range<usize>,
    /// The label's text; may be empty.
    pub(super) text: &'a str,
    /// Whether it is the primary label.
    pub(super) primary: bool,
    /// Line and column in the whole text, from 1.
    pub(super) position: (usize, usize),
}

/// Excerpts for all labels, the one with the primary label first.
pub(super) fn excerpts(labels: &[Label]) -> Vec<Excerpt<'_>> {
    let mut spots: Vec<Spot<'_>> = labels
        .iter()
        .enumerate()
        .map(|(at, label)| Spot::of(at, label))
        .collect();
    let sources: Vec<_> = labels.iter().map(|label| &label.place.source).collect();
    let first_of = |source: &Arc<SourceText>| sources.iter().position(|other| Arc::ptr_eq(other, source));
    spots.sort_by_key(|spot| (first_of(&spot.label.place.source), spot.position));
    let mut groups = group(spots);
    groups.sort_by_key(|spots| !spots.iter().any(|spot| spot.primary));
    groups.iter().map(|spots| excerpt(spots)).collect()
}

/// A label and its line.
struct Spot<'a> {
    label: &'a Label,
    primary: bool,
    position: (usize, usize),
    line: Range<usize>,
}

impl<'a> Spot<'a> {
    fn of(at: usize, label: &'a Label) -> Self {
        let place = &label.place;
        Self {
            label,
            primary: at == 0,
            position: place.position(),
            line: place.source.line_around(place.span.start),
        }
    }

    /// The span, truncated to its first line.
    fn span(&self) -> Range<usize> {
        let span = &self.label.place.span;
        let start = span.start.clamp(self.line.start, self.line.end);
        start..span.end.clamp(start, self.line.end)
    }
}

fn group(spots: Vec<Spot<'_>>) -> Vec<Vec<Spot<'_>>> {
    let mut groups: Vec<Vec<Spot<'_>>> = Vec::new();
    for spot in spots {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|last| is_near(last, &spot)) => group.push(spot),
            Some(_) | None => groups.push(vec![spot]),
        }
    }
    groups
}

fn is_near(a: &Spot<'_>, b: &Spot<'_>) -> bool {
    Arc::ptr_eq(&a.label.place.source, &b.label.place.source) && b.position.0 - a.position.0 <= NEAR_LINES
}

fn excerpt<'a>(spots: &[Spot<'a>]) -> Excerpt<'a> {
    let first = &spots[0];
    let source = &first.label.place.source;
    let last_start = spots[spots.len() - 1].line.start;
    let mut excerpt = Excerpt {
        origin: &source.origin,
        first_line: first.position.0,
        text: String::new(),
        marks: Vec::new(),
        is_shifted: false,
    };
    let mut line = first.line.clone();
    loop {
        let here: Vec<_> = spots.iter().filter(|spot| spot.line == line).collect();
        excerpt.push_line(&source.text, &line, &here);
        if line.start >= last_start {
            break;
        }
        line = source.line_around(next_line(&source.text, line.end));
        excerpt.text.push('\n');
    }
    excerpt.marks.sort_by_key(|mark| !mark.primary);
    excerpt
}

impl<'a> Excerpt<'a> {
    fn push_line(&mut self, text: &str, line: &Range<usize>, spots: &[&Spot<'a>]) {
        let window = window(text, line, spots);
        if window.start > line.start {
            self.text.push('…');
            self.is_shifted = true;
        }
        let at = self.text.len();
        self.text.push_str(&text[window.clone()]);
        if window.end < line.end {
            self.text.push('…');
        }
        let moved = |offset: usize| at + offset.clamp(window.start, window.end) - window.start;
        self.marks.extend(spots.iter().map(|spot| Mark {
            span: moved(spot.span().start)..moved(spot.span().end),
            text: &spot.label.text,
            primary: spot.primary,
            position: spot.position,
        }));
    }
}

/// The part of a line to show.
fn window(text: &str, line: &Range<usize>, spots: &[&Spot<'_>]) -> Range<usize> {
    if line.len() <= MAX_LINE {
        return line.clone();
    }
    let from = spots.iter().map(|spot| spot.span().start).min().unwrap_or(line.start);
    let to = spots.iter().map(|spot| spot.span().end).max().unwrap_or(from);
    let start = from.saturating_sub(KEPT_AROUND).max(line.start);
    let end = (to.min(from + KEPT_INSIDE) + KEPT_AROUND).min(line.end);
    text.floor_char_boundary(start)..text.floor_char_boundary(end)
}

fn next_line(text: &str, line_end: usize) -> usize {
    text[line_end..].find('\n').map_or(text.len(), |at| line_end + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Place;

    fn label(source: &Arc<SourceText>, needle: &str, text: &str) -> Label {
        let start = source.text.find(needle).unwrap();
        let place = Place {
            source: source.clone(),
            span: start..start + needle.len(),
        };
        Label {
            place,
            text: text.into(),
        }
    }

    fn marked<'a>(excerpt: &'a Excerpt<'_>) -> Vec<&'a str> {
        excerpt
            .marks
            .iter()
            .map(|mark| &excerpt.text[mark.span.clone()])
            .collect()
    }

    #[test]
    fn nearby_labels_share_an_excerpt() {
        let source = SourceText::new("a.yaml", "a: 1\r\nb: 2\r\nc: 3\r\n\nd: 4\ne: 5\nf: 6\ng: 7\n");
        let labels = [
            label(&source, "c", "here"),
            label(&source, "a", ""),
            label(&source, "g", "far"),
        ];
        let shown = excerpts(&labels);
        assert_eq!(shown.len(), 2);
        assert_eq!((shown[0].first_line, &*shown[0].text), (1, "a: 1\nb: 2\nc: 3"));
        assert_eq!(marked(&shown[0]), ["c", "a"]);
        assert_eq!(
            (shown[1].first_line, &*shown[1].text, shown[1].marks[0].position),
            (8, "g: 7", (8, 1))
        );
    }

    #[test]
    fn the_file_of_the_primary_label_comes_first() {
        let (a, b) = (SourceText::new("a.yaml", "a"), SourceText::new("b.yaml", "b"));
        let labels = [label(&b, "b", ""), label(&a, "a", "")];
        let origins: Vec<_> = excerpts(&labels).iter().map(|excerpt| excerpt.origin).collect();
        assert_eq!(origins, ["b.yaml", "a.yaml"]);
    }

    #[test]
    fn a_span_over_several_lines_ends_with_its_first() {
        let source = SourceText::new("a.yaml", "a:\n  b: 1\n");
        assert_eq!(marked(&excerpts(&[label(&source, "a:\n  b: 1\n", "")])[0]), ["a:"]);
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_span() {
        let text = format!("{}NEEDLE{}", "ä".repeat(1_000_000), "ö".repeat(1_000_000));
        let source = SourceText::new("a.json", text);
        let labels = [label(&source, "NEEDLE", "")];
        let shown = excerpts(&labels);
        assert_eq!(marked(&shown[0]), ["NEEDLE"]);
        assert!(shown[0].text.starts_with("…ä") && shown[0].text.ends_with("ö…"));
        assert!(shown[0].text.len() < MAX_LINE && shown[0].is_shifted);
        assert_eq!(shown[0].marks[0].position, (1, 1_000_001));
    }

    #[test]
    fn empty_texts_and_offsets_past_the_end_are_valid() {
        let source = SourceText::new("a.yaml", "");
        let place = Place { source, span: 7..9 };
        let labels = [Label {
            place,
            text: String::new(),
        }];
        assert_eq!(excerpts(&labels)[0].marks[0].span, 0..0);
    }
}
