//! Styled lines of text, fitted to a terminal.

/// Style of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::demo) enum Style {
    /// Default style.
    Plain,
    /// Emphasised.
    Bold,
    /// Less important.
    Dim,
    /// A good state.
    Good,
    /// A bad state.
    Bad,
}

impl Style {
    /// The escape sequence that enables the style.
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Bold => "\u{1b}[1m",
            Style::Dim => "\u{1b}[2m",
            Style::Good => "\u{1b}[32m",
            Style::Bad => "\u{1b}[31m",
        }
    }
}

/// A line of styled text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::demo) struct Line(Vec<(Style, String)>);

impl Line {
    /// Appends text. Control characters are removed, as the text may be someone else's message.
    pub(in crate::cli::demo) fn and(mut self, style: Style, text: String) -> Self {
        self.0.push((style, text.chars().filter(|c| !c.is_control()).collect()));
        self
    }

    /// Renders the line, truncated to a number of columns.
    fn render(&self, columns: usize, color: bool) -> String {
        let mut left = columns;
        let mut rendered = String::new();
        for (style, text) in &self.0 {
            let piece: String = text.chars().take(left).collect();
            left -= piece.chars().count();
            match style.code() {
                "" => rendered.push_str(&piece),
                code if color && !piece.is_empty() => rendered.push_str(&format!("{code}{piece}\u{1b}[0m")),
                _ => rendered.push_str(&piece),
            }
        }
        rendered
    }
}

/// Renders lines for a terminal of this size; what does not fit is omitted.
pub(in crate::cli::demo) fn fit(lines: &[Line], (columns, rows): (usize, usize), color: bool) -> Vec<String> {
    lines
        .iter()
        .take(rows)
        .map(|line| line.render(columns, color))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_truncated_by_visible_width() {
        let line = Line::default()
            .and(Style::Good, "█████".into())
            .and(Style::Plain, " 50 %".into());
        assert_eq!(line.render(80, false), "█████ 50 %");
        assert_eq!(line.render(7, true), "\u{1b}[32m█████\u{1b}[0m 5");
        assert_eq!(line.render(5, true), "\u{1b}[32m█████\u{1b}[0m");
        assert_eq!(fit(&[line.clone(), line], (2, 1), false), ["██"]);
    }

    #[test]
    fn messages_cannot_contain_control_sequences() {
        let line = Line::default().and(Style::Plain, "a\u{1b}[2Jb\r\n".into());
        assert_eq!(line.render(80, true), "a[2Jb");
    }
}
