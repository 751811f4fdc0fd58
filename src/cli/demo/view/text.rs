//! Lines of styled text, and making them fit a terminal.

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::demo) enum Style {
    /// As usual.
    Plain,
    /// What to look at.
    Bold,
    /// What may be overlooked.
    Dim,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
}

impl Style {
    /// The escape sequence that switches it on.
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

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::demo) struct Line(Vec<(Style, String)>);

impl Line {
    /// Adds a piece. Control characters, which a message of somebody else may hold, are left out.
    pub(in crate::cli::demo) fn and(mut self, style: Style, text: String) -> Self {
        self.0.push((style, text.chars().filter(|c| !c.is_control()).collect()));
        self
    }

    /// The line, cut to a number of columns.
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

/// Lines as a terminal of so many columns and rows shows them; what has no place is left out.
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
    fn lines_are_cut_by_what_is_seen_of_them() {
        let line = Line::default()
            .and(Style::Good, "█████".into())
            .and(Style::Plain, " 50 %".into());
        assert_eq!(line.render(80, false), "█████ 50 %");
        assert_eq!(line.render(7, true), "\u{1b}[32m█████\u{1b}[0m 5");
        assert_eq!(line.render(5, true), "\u{1b}[32m█████\u{1b}[0m");
        assert_eq!(fit(&[line.clone(), line], (2, 1), false), ["██"]);
    }

    #[test]
    fn messages_cannot_steer_the_terminal() {
        let line = Line::default().and(Style::Plain, "a\u{1b}[2Jb\r\n".into());
        assert_eq!(line.render(80, true), "a[2Jb");
    }
}
